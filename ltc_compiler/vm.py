"""The public API of the C++ simulator: arrays in, arrays out, state by name.

Calls go straight to the core, which refuses anything but contiguous float32 arrays of the right shapes before it
changes anything. Only then is the input looked at here, to convert what can be converted and to name what cannot. So a
good call costs nothing extra, and a refused one leaves the state as it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltc_compiler._core import VM as CoreVM  # noqa: N811
from ltc_compiler._core import Program as CoreProgram
from ltc_compiler.bytecode import Image, Model
from ltc_compiler.bytecode.alignment import Runner, check_aligned, run_aligned, streaming_of
from ltc_compiler.bytecode.blocks import check_blocks, from_blocks, of_one_step, to_blocks
from ltc_compiler.bytecode.ports import (
    F32,
    check_elapsed_times,
    check_inputs,
    check_outputs,
    check_reset,
    check_state,
    model_at,
)
from ltc_compiler.bytecode.sequence import (
    MAX_THREADS,
    AxisArgument,
    check_output_axes,
    check_threads,
    from_sequences,
    one_or_all,
    resolve_axes,
    to_batch,
    to_sequences,
)
from ltc_compiler.errors import InputError, ProgramError, StateError
from ltc_compiler.stages import stage


class VM:
    """A program loaded into the simulator, with a state of its own; Program.to_vm makes it.

    Inputs are float32 or bfloat16 (ml_dtypes) arrays, CPU tensors of these types, or Python numbers where the shape is
    (); outputs are float32. Use a VM from one thread at a time; several VMs of a program may run at once. A VM holds
    the weights once, packed, and nothing else of its program.

    Args:
        image: the program as data.
        core: the same program in the C++ core.
        bit_accurate: as for Program.to_vm.
        kernels: as for Program.to_vm.

    Raises:
        ProgramError: plain fp32 is asked for and the fp32 originals are missing.
        ConfigError: the CPU cannot run those kernels.
        ArithmeticMismatchError: the kernels fail their self-test.
    """

    def __init__(
        self, image: Image, core: CoreProgram, bit_accurate: bool = True, kernels: str | None = None
    ) -> None:
        if not bit_accurate and not all(c.has_shadow for c in image.cores):
            raise ProgramError(
                "the program holds no fp32 originals, which plain fp32 needs", where="section SHAD",
                remedy="save it with shadow=True, or use bit_accurate=True",
            )  # fmt: skip
        self._models, self._meta, self._machine = (
            image.models,
            image.meta,
            image.config.name,
        )  # not its stores
        self._streaming = [streaming_of(image.meta, model, i) for i, model in enumerate(image.models)]
        self._steps = [of_one_step(*pair) for pair in zip(image.models, self._streaming, strict=True)]
        self._block = 1  # of the last run_timesteps or run_batch
        self._limited = any(stream.limit for stream in self._streaming)
        with stage("vm", ", ".join(model.name for model in image.models)):
            self._vm = CoreVM(core, bit_accurate, kernels)
        self.bit_accurate = bit_accurate

    def run(self, *inputs: Any, model_index: int = 0) -> Any:
        """One inference; of a stream, one step, or one block of them.

        An output that is late (Program.output_latencies) belongs to an earlier step.

        Args:
            inputs: one array for each input, of the shape that Program.input_shape gives.
            model_index: which model, counted from 0.

        Returns:
            One new array, or a tuple where there are several outputs, of the shapes that Program.output_shape gives.

        Raises:
            InputError: a wrong count, type, shape, device or elapsed time, no such model, or a stream that has no more
                steps; the state is as it was.
        """
        if self._limited:
            self._check_steps(model_index, 1)
        try:
            outputs = self._vm.run(model_index, inputs)
        except (InputError, TypeError):
            outputs = self._vm.run(model_index, self._checked(model_index, inputs))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run_into(
        self, inputs: F32 | Sequence[F32], outputs: F32 | Sequence[F32], model_index: int = 0
    ) -> None:
        """`run` into given arrays, without allocating memory.

        Args:
            inputs: as for run: one array, or a sequence of them.
            outputs: one array, or a sequence of them: writable, contiguous and float32, of the shapes that
                Program.output_shape gives, sharing no memory with an input.
            model_index: which model, counted from 0.

        Raises:
            InputError: as `run`, or an output is not such an array; the state is as it was.
        """
        if self._limited:
            self._check_steps(model_index, 1)
        try:
            self._vm.run_into(model_index, inputs, outputs)
        except (InputError, TypeError):
            given = inputs if isinstance(inputs, list | tuple) else (inputs,)
            wanted = outputs if isinstance(outputs, list | tuple) else (outputs,)
            check_outputs(self._model(model_index), wanted)
            self._vm.run_into(model_index, self._checked(model_index, given), wanted)

    def run_timesteps(
        self,
        *inputs: Any,
        input_timestep_dim: AxisArgument = None,
        output_timestep_dim: AxisArgument = None,
        model_index: int = 0,
        align: bool = True,
        end: bool = False,
    ) -> Any:
        """`run` for every step of a sequence, with the loop in C++. Each array has one more axis, time.

        A stream begins in the initial state; `run` and `run_into` are steps of it too.

        Args:
            inputs: one array for each input, with an axis of time.
            input_timestep_dim: the axis of time: one integer, or a sequence with one for each input, None for an input
                that is the same in every step. By default the axes that the streaming transform removed, or 0 for a
                model that was not streamed.
            output_timestep_dim: the same for outputs.
            model_index: which model, counted from 0.
            align: return outputs in the places of their inputs. An output that looks L steps ahead is late by L
                (Program.output_latencies): the first L steps of a stream return nothing of it, each further step
                returns one element, and the outputs of two calls, joined, are those of one call with both sequences.
                False returns what each step gives, the first L of a stream included, which mean nothing.
            end: the stream ends with this sequence: the elements that are still to come are returned too. They are
                computed on a copy of the state, so that the stream can go on as if it had not ended.

        Returns:
            One array, or a tuple where there are several outputs, each with an axis of time.

        Raises:
            InputError: as `run`, or wrong axes, or different numbers of steps, or a number that is no multiple of the
                program's block (Program.block_steps); no step was executed.
        """
        self._model(model_index)
        model = self._steps[model_index]
        stream = self._streaming[model_index]
        output_axes = resolve_axes(output_timestep_dim, stream.outputs, "output")
        check_output_axes(model, output_axes)
        input_axes = resolve_axes(input_timestep_dim, stream.inputs, "input")
        steps, arrays = to_sequences(model, inputs, input_axes)
        check_elapsed_times(model, arrays)
        check_aligned(align, end)
        self._check_steps(model_index, 1, steps)
        if stream.in_place or not align:
            runs, self._block = steps // stream.block, stream.block
            outputs = [
                np.empty((runs, *port.shape), np.float32) for port in self._models[model_index].outputs
            ]
            self._vm.run_timesteps(model_index, runs, to_blocks(stream, arrays), outputs)
            return from_sequences(model, from_blocks(stream, outputs), output_axes)
        made = self._aligned(model_index, [array[None] for array in arrays], end)
        return from_sequences(model, [array[0] for array in made], output_axes)

    def run_batch(
        self,
        *inputs: Any,
        threads: int | None = None,
        model_index: int = 0,
        align: bool = True,
        end: bool = False,
    ) -> Any:
        """`run` for independent streams, each with a state of its own, with the loop and the threads in C++.

        Stream n continues where it was after the last batch that had it; a new stream begins in the initial state.
        Stream 0 is the one of `run`, `run_into` and `run_timesteps`. A stream takes memory for its states, and stays
        until the VM goes. Eight streams or more run in groups that read each weight once (docs/performance.md): the
        bits are those of separate VMs.

        Args:
            inputs: one array for each input, of shape (streams, *input_shape) for one step of each stream, or
                (streams, time, *input_shape) for a sequence each. A program of blocks takes sequences, as
                run_timesteps, with shapes that have no axis of steps but that.
            threads: how many threads to use, at most one per stream; by default one for each core that this process
                may use. Which thread runs a stream changes no bit.
            model_index: which model, counted from 0.
            align: for sequences, as in run_timesteps; a single step returns what `run` returns.
            end: as in run_timesteps.

        Returns:
            One array, or a tuple where there are several outputs, of shape (streams, *output_shape) or
            (streams, time, *output_shape).

        Raises:
            InputError: as `run`; the states of new streams take more memory than there is; or the streams have
                different numbers of steps behind them, so that their aligned outputs would have different lengths.
                Every state is as it was.
        """
        self._model(model_index)
        model = self._steps[model_index]
        stream = self._streaming[model_index]
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        wanted = min(count, MAX_THREADS) if threads is None else check_threads(threads)
        _, steps, arrays = to_batch(model, inputs)
        check_elapsed_times(model, arrays)
        check_aligned(align and steps is not None, end)
        self._check_steps(model_index, len(arrays[0]), 1 if steps is None else steps)
        if steps is None or stream.in_place or not align:
            count = 1 if steps is None else steps
            outputs = self._batch(model_index, arrays, count, wanted)
            return one_or_all([array[:, 0] for array in outputs] if steps is None else outputs)
        made = self._aligned(model_index, arrays, end, wanted)
        return one_or_all([np.ascontiguousarray(array) for array in made])

    def _batch(self, model_index: int, arrays: Sequence[F32], steps: int, threads: int) -> list[F32]:
        """What every step gives: (streams, steps, *shape of a step)."""
        ports, streams, stream = (
            self._models[model_index].outputs,
            len(arrays[0]),
            self._streaming[model_index],
        )
        runs, self._block = steps // stream.block, stream.block
        outputs = [np.empty((streams, runs, *port.shape), np.float32) for port in ports]
        self._vm.run_batch(model_index, streams, runs, to_blocks(stream, arrays, 1), outputs, threads)
        return from_blocks(stream, outputs, 1)

    def _aligned(self, model_index: int, arrays: Sequence[F32], end: bool, threads: int = 1) -> list[F32]:
        """What stands in the places of the inputs: (streams, steps, *port shape) each."""
        runner = self._runner(model_index, len(arrays[0]), threads)
        return run_aligned(runner, self._streaming[model_index], arrays, end)

    def _runner(self, model_index: int, streams: int, threads: int) -> Runner:
        stream, names = self._streaming[model_index], [s.name for s in self._model(model_index).states]
        known = int(self._vm.metrics()["streams"])

        def counted(n: int) -> F32 | float:  # a stream that is new begins
            return self._vm.get_state(model_index, names.index(stream.counter), n) if n < known else 0.0

        def mark(number: float) -> None:
            for n in range(streams):
                self.set_state({stream.marker: number}, model_index, n)

        return Runner(
            run=lambda given: self._batch(model_index, given, given[0].shape[1], threads),
            counted=counted,
            mark=mark,
            fork=lambda: self.__copy__()._runner(model_index, streams, threads),
        )

    def _check_steps(self, model_index: int, streams: int, steps: int | None = None) -> None:
        """Raises InputError where a stream has no room for further steps, by default those of one run, or where they
        are no whole number of runs."""
        self._model(model_index)
        stream = self._streaming[model_index]
        count = stream.block if steps is None else steps
        check_blocks(stream, count)
        if stream.limit:
            counted = self._runner(model_index, streams, 1).counted
            stream.check(map(counted, range(streams)), count)

    def reset(self, model_index: int | None = None) -> None:
        """Put every stream back into its initial state.

        Args:
            model_index: which model, counted from 0; all models if None.

        Raises:
            StateError: the program was compiled with generate_state_reset=False.
            InputError: there is no such model.
        """
        check_reset(self._meta)
        if model_index is not None:
            self._model(model_index)
        self._vm.reset(-1 if model_index is None else model_index)

    @property
    def state(self) -> dict[str, F32]:
        """A copy of the states of model 0, by name; see get_state."""
        return self.get_state()

    def get_state(self, model_index: int = 0, stream: int = 0) -> dict[str, F32]:
        """A copy of the states of a model.

        Args:
            model_index: which model, counted from 0.
            stream: which stream of run_batch, counted from 0.

        Returns:
            float32 arrays of the states' shapes, by name.

        Raises:
            InputError: there is no such model.
            StateError: there is no such stream.
        """
        states = self._model(model_index).states
        return {state.name: self._vm.get_state(model_index, i, stream) for i, state in enumerate(states)}

    def set_state(self, values: Mapping[str, object], model_index: int = 0, stream: int = 0) -> None:
        """Replace states of a model; those that are not named stay as they are.

        Args:
            values: arrays of the states' shapes, by name.
            model_index: which model, counted from 0.
            stream: which stream of run_batch, counted from 0.

        Raises:
            InputError: there is no such model.
            StateError: an unknown name or stream, or a wrong array; nothing was changed.
        """
        model = self._model(model_index)
        for state, array in check_state(model, values):
            self._vm.set_state(model_index, model.states.index(state), array, stream)

    def metrics(self) -> dict[str, Any]:
        """What the simulator made of the program: the bytes of its memory, its streams, how many of them the last
        batch ran together (1: one by one), and the kernels it uses.
        """
        return dict(self._vm.metrics())

    def steps_done(self, stream: int = 0) -> int:
        """The steps of a stream that the last run_timesteps or run_batch executed.

        They are fewer than were given where a signal's handler raised, as it does at Ctrl-C: the state is as after
        these steps.

        Args:
            stream: which stream of run_batch, counted from 0.

        Raises:
            StateError: there is no such stream.
        """
        return int(self._vm.steps_done(stream)) * self._block

    def __copy__(self) -> VM:
        """Another VM of the program, with the states of all streams as they are here. The weights are shared."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._vm = self._vm.copy()
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> VM:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        raise StateError(
            "a VM cannot be pickled: it is memory of this process", where=repr(self),
            remedy="pickle the Program and get_state(), make a VM of it there, and give the state to its set_state()",
        )  # fmt: skip

    def __repr__(self) -> str:
        kind = "bit-accurate" if self.bit_accurate else "plain fp32"
        names = ", ".join(model.name for model in self._models)
        return f"VM({names} on {self._machine}, {kind})"

    def _model(self, model_index: int) -> Model:
        return model_at(self._models, model_index)

    def _checked(self, model_index: int, inputs: Sequence[object]) -> list[F32]:
        model = self._model(model_index)
        arrays = check_inputs(model, inputs)
        check_elapsed_times(model, arrays)
        return arrays
