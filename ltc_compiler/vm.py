"""The face of the C++ simulator: arrays in, arrays out, state by name.

Calls go straight to the core, which refuses whatever is not a contiguous float32 array of the right shape
before it changes anything; only then is the input looked at here, to convert what can be converted and to say
precisely what cannot. So a good call costs nothing extra, and a refused one leaves the state as it was.
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


class VM:
    """A program loaded into the simulator, with a state of its own. Made by Program.to_vm.

    Inputs are float32 or bfloat16 (ml_dtypes) arrays, CPU tensors of these types, or Python numbers for shape
    (); outputs are float32. One VM is for one thread at a time; several VMs of a program may run at once. A VM
    holds the weights once, packed, and nothing of the program that it was made from.
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
        self._limited = any(stream.limit for stream in self._streaming)
        self._vm = CoreVM(core, bit_accurate, kernels)
        self.bit_accurate = bit_accurate

    def run(self, *inputs: Any, model_index: int = 0) -> Any:
        """One inference: arrays of the ports' shapes in; one new array out, or a tuple for several outputs.

        Of a stream it is one step: an output that is late (Program.output_latencies) is that of an earlier one.
        Raises InputError, with the state as it was, for a wrong count, type, shape, device or elapsed time.
        """
        if self._limited:
            self._check_steps(model_index, 1, 1)
        try:
            outputs = self._vm.run(model_index, inputs)
        except (InputError, TypeError):
            outputs = self._vm.run(model_index, self._checked(model_index, inputs))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def run_into(
        self, inputs: F32 | Sequence[F32], outputs: F32 | Sequence[F32], model_index: int = 0
    ) -> None:
        """run() into given arrays, without allocating; one array or a sequence on each side.

        Outputs must be writable, contiguous float32 arrays of the ports' shapes that share no memory with an
        input.
        """
        if self._limited:
            self._check_steps(model_index, 1, 1)
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
        """run() for every step of a sequence, the loop in C++; each array has one more axis, time.

        input_timestep_dim, output_timestep_dim: where that axis stands: one integer, or one for each array
        (None for an input that is the same at every step). By default the axes that the streaming transform
        removed, or 0 for a model that was not streamed.

        align: outputs come in the places of their inputs. An output that looks L steps ahead is late by L
        (Program.output_latencies): the first L steps of a stream give nothing of it, and each further step one
        element, so that the outputs of two calls, joined, are those of one call with both sequences. A stream
        begins in the initial state, and run() and run_into() are steps of it too. end: the stream ends with this
        sequence, and the elements that are still to come follow, computed on a copy of the state: afterwards the
        stream can go on as if it had not ended. align=False: what each step gives, junk included.

        Raises InputError before the first step.
        """
        model = self._model(model_index)
        stream = self._streaming[model_index]
        output_axes = resolve_axes(output_timestep_dim, stream.outputs, "output")
        check_output_axes(model, output_axes)
        input_axes = resolve_axes(input_timestep_dim, stream.inputs, "input")
        steps, arrays = to_sequences(model, inputs, input_axes)
        check_elapsed_times(model, arrays)
        check_aligned(align, end)
        self._check_steps(model_index, 1, steps)
        if stream.in_place or not align:
            outputs = [np.empty((steps, *port.shape), np.float32) for port in model.outputs]
            self._vm.run_timesteps(model_index, steps, arrays, outputs)
            return from_sequences(model, outputs, output_axes)
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
        """run() for independent streams, each with a state of its own, the loop and the threads in C++.

        Arrays of shape (streams, *port shape) for one step each, or (streams, time, *port shape) for a sequence
        each; outputs likewise. Stream n continues where it was after the last batch that had it; a stream that is
        new begins in the initial state. Stream 0 is the one that run(), run_into() and run_timesteps() go on with.
        A stream costs memory for its rows, not for weights; it stays until the VM goes.

        threads: how many to use, by default one for each core that this process may use, and never more than
        streams. Which thread runs a stream changes no bit. align, end: of sequences, as in run_timesteps; single
        steps give what run() gives. Raises InputError, with every state as it was; also where some of the streams
        are so near to their begin that outputs in place would be of different lengths.
        """
        model = self._model(model_index)
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
        """What every step gives: (streams, steps, *port shape)."""
        ports, streams = self._model(model_index).outputs, len(arrays[0])
        outputs = [np.empty((streams, steps, *port.shape), np.float32) for port in ports]
        self._vm.run_batch(model_index, streams, steps, list(arrays), outputs, threads)
        return outputs

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

    def _check_steps(self, model_index: int, streams: int, steps: int) -> None:
        """Raises InputError where a stream has no room for further steps."""
        self._model(model_index)
        if self._streaming[model_index].limit:
            counted = self._runner(model_index, streams, 1).counted
            self._streaming[model_index].check(map(counted, range(streams)), steps)

    def reset(self, model_index: int | None = None) -> None:
        """Initial state of every stream, for one model or for all.

        Raises StateError where the program was compiled without it.
        """
        check_reset(self._meta)
        if model_index is not None:
            self._model(model_index)
        self._vm.reset(-1 if model_index is None else model_index)

    @property
    def state(self) -> dict[str, F32]:
        """A copy of the state of model 0, by name."""
        return self.get_state()

    def get_state(self, model_index: int = 0, stream: int = 0) -> dict[str, F32]:
        """A copy of a model's state, by name: float32 arrays of the states' shapes. stream: of run_batch."""
        states = self._model(model_index).states
        return {state.name: self._vm.get_state(model_index, i, stream) for i, state in enumerate(states)}

    def set_state(self, values: Mapping[str, object], model_index: int = 0, stream: int = 0) -> None:
        """Replace the named states. An unknown name or stream, or a wrong array, raises StateError, nothing
        changed. stream: of run_batch.
        """
        model = self._model(model_index)
        for state, array in check_state(model, values):
            self._vm.set_state(model_index, model.states.index(state), array, stream)

    def metrics(self) -> dict[str, Any]:
        """What the simulator made of the program: bytes of its memory, the instruction set that its kernels
        use.
        """
        return dict(self._vm.metrics())

    def steps_done(self, stream: int = 0) -> int:
        """Steps that the last run_timesteps or run_batch executed of a stream.

        Fewer than were given where a signal's handler raised, as Ctrl-C does: the state is as after these steps.
        """
        return int(self._vm.steps_done(stream))

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
