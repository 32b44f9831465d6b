"""The interface of the reference machine: that of VM, without its speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltc_compiler import numerics
from ltc_compiler.bytecode import Image, Model, State
from ltc_compiler.bytecode.alignment import Runner, check_aligned, run_aligned, streaming_of
from ltc_compiler.bytecode.blocks import check_blocks, from_blocks, of_one_step, to_blocks
from ltc_compiler.bytecode.ports import (
    F32,
    check_elapsed_times,
    check_inputs,
    check_reset,
    check_state,
    from_rows,
    model_at,
    to_rows,
)
from ltc_compiler.bytecode.rings import turn
from ltc_compiler.bytecode.sequence import (
    AxisArgument,
    check_output_axes,
    from_sequences,
    one_or_all,
    resolve_axes,
    to_sequences,
)
from ltc_compiler.errors import ProgramError
from ltc_compiler.oracle.execution import Execution, MachineState
from ltc_compiler.oracle.semantics import SEMANTICS


class Oracle:
    """Runs a program as the numeric contract says, bit for bit; Program.to_oracle makes it.

    Args:
        image: the program as data.
        bit_accurate: True computes what the accelerator computes; False computes in plain fp32, from the fp32
            originals of weights and synapses and without rounding to bf16.

    Raises:
        ProgramError: plain fp32 is asked for and the program was saved without the fp32 originals.
    """

    def __init__(self, image: Image, bit_accurate: bool = True) -> None:
        if not bit_accurate and not all(core.has_shadow for core in image.cores):
            raise ProgramError(
                "the program holds no fp32 originals, which plain fp32 needs", where="section SHAD",
                remedy="save it with shadow=True, or use bit_accurate=True",
            )  # fmt: skip
        self.image = image
        width = image.config.block_size
        tensor = [np.zeros((core.tensor_rows, width), np.float32) for core in image.cores]
        for core, store in zip(image.cores, tensor, strict=True):
            for row, rows in core.initial_rows(bit_accurate):
                store[row : row + len(rows)] = rows
        stands = [np.arange(core.tensor_rows) for core in image.cores]
        self._machine = MachineState(image, bit_accurate, tensor, stands)
        self._streaming = [streaming_of(image.meta, model, i) for i, model in enumerate(image.models)]
        for state in (state for model in image.models for state in model.states):
            if state.copies:
                self._initialise(state)  # elsewhere the constants stand in their place

    def run(self, *inputs: object, model_index: int = 0) -> Any:
        """One inference, as VM.run.

        Args:
            inputs: as for VM.run.
            model_index: which model, counted from 0.

        Raises:
            InputError: as VM.run.
            ProgramError: an instruction breaks a rule of the machine, as no compiled program does.
        """
        model = model_at(self.image.models, model_index)
        arrays = check_inputs(model, inputs)
        check_elapsed_times(model, arrays)
        self._check_steps(model_index, self._streaming[model_index].block)
        return one_or_all(self._execute(model, arrays))

    def run_timesteps(
        self,
        *inputs: object,
        input_timestep_dim: AxisArgument = None,
        output_timestep_dim: AxisArgument = None,
        model_index: int = 0,
        align: bool = True,
        end: bool = False,
    ) -> Any:
        """`run` for every step of a sequence, as VM.run_timesteps.

        Args:
            inputs: as for VM.run_timesteps.
            input_timestep_dim: as for VM.run_timesteps.
            output_timestep_dim: as for VM.run_timesteps.
            model_index: which model, counted from 0.
            align: as for VM.run_timesteps.
            end: as for VM.run_timesteps.

        Raises:
            InputError: as VM.run_timesteps.
            StateError: the state that counts the steps is no count.
            ProgramError: as run.
        """
        stream = self._streaming[model_index]
        model = of_one_step(model_at(self.image.models, model_index), stream)
        output_axes = resolve_axes(output_timestep_dim, stream.outputs, "output")
        check_output_axes(model, output_axes)
        arrays = to_sequences(model, inputs, resolve_axes(input_timestep_dim, stream.inputs, "input"))[1]
        check_elapsed_times(model, arrays)
        check_aligned(align, end)
        self._check_steps(model_index, len(arrays[0]))
        if stream.in_place or not align:
            return from_sequences(model, self._sequence(model_index, arrays), output_axes)
        made = run_aligned(self._runner(model_index), stream, [array[None] for array in arrays], end)
        return from_sequences(model, [array[0] for array in made], output_axes)

    def _runner(self, model_index: int) -> Runner:
        stream = self._streaming[model_index]

        def fork() -> Runner:
            other = Oracle(self.image, self._machine.bit_accurate)
            other.set_state(self.get_state(model_index), model_index)
            return other._runner(model_index)

        return Runner(
            run=lambda given: [a[None] for a in self._sequence(model_index, [array[0] for array in given])],
            counted=lambda n: self.get_state(model_index)[stream.counter],
            mark=lambda number: self.set_state({stream.marker: number}, model_index),
            fork=fork,
        )

    def _check_steps(self, model_index: int, steps: int) -> None:
        stream = self._streaming[model_index]
        check_blocks(stream, steps)
        if stream.limit:
            stream.check([self._runner(model_index).counted(0)], steps)

    def _sequence(self, model_index: int, arrays: Sequence[F32]) -> list[F32]:
        """What every step of (steps, *shape of a step) gives."""
        model, stream = self.image.models[model_index], self._streaming[model_index]
        given = to_blocks(stream, arrays)
        outputs = [np.zeros((len(given[0]), *port.shape), np.float32) for port in model.outputs]
        for t in range(len(given[0])):
            for output, value in zip(outputs, self._execute(model, [a[t] for a in given]), strict=True):
                output[t] = value
        return from_blocks(stream, outputs)

    def reset(self, model_index: int | None = None) -> None:
        """Put the states back to their initial values, as VM.reset.

        Args:
            model_index: which model, counted from 0; all models if None.

        Raises:
            StateError: the program was compiled with generate_state_reset=False.
            InputError: there is no such model.
        """
        check_reset(self.image.meta)
        models = self.image.models if model_index is None else [model_at(self.image.models, model_index)]
        for state in (state for model in models for state in model.states):
            self._initialise(state)

    @property
    def state(self) -> dict[str, F32]:
        """A copy of the states of model 0, by name; see get_state."""
        return self.get_state()

    def get_state(self, model_index: int = 0) -> dict[str, F32]:
        """A copy of the states of a model, by name.

        Args:
            model_index: which model, counted from 0.

        Raises:
            InputError: there is no such model.
        """
        model = model_at(self.image.models, model_index)
        return {state.name: self._read_state(state) for state in model.states}

    def set_state(self, values: Mapping[str, object], model_index: int = 0) -> None:
        """Replace states of a model; those that are not named stay as they are.

        Args:
            values: arrays of the states' shapes, by name.
            model_index: which model, counted from 0.

        Raises:
            InputError: there is no such model.
            StateError: an unknown name or a wrong array; nothing was changed.
        """
        model = model_at(self.image.models, model_index)
        for state, array in check_state(model, values):
            rows = to_rows(array, self._machine.width)
            self._write_state(state, numerics.write_fp32(rows))

    def _initialise(self, state: State) -> None:
        rows = np.zeros((state.rows(self._machine.width), self._machine.width), np.float32)
        for first, constant in self.image.cores[state.core].initial_rows(self._machine.bit_accurate):
            skipped, at = max(0, state.row - first), max(0, first - state.row)
            part = constant[skipped : skipped + max(0, len(rows) - at)]
            rows[at : at + len(part)] = part
        self._write_state(state, rows)

    def _rows(self, state: State) -> F32:
        """The rows of a state, those of a ring from the oldest place on."""
        stands = self._machine.stands[state.core][state.row : state.row + state.rows(self._machine.width)]
        return self._machine.tensor[state.core][stands]

    def _write_state(self, state: State, rows: F32) -> None:
        for core, row in state.places:
            self._machine.tensor[core][self._machine.stands[core][row : row + len(rows)]] = rows

    def _read_state(self, state: State) -> F32:
        return from_rows(self._rows(state), state.shape)

    def __copy__(self) -> Oracle:
        """Another machine of the program, with the states as they are here."""
        other = Oracle(self.image, self._machine.bit_accurate)
        for mine, store in zip(other._machine.tensor, self._machine.tensor, strict=True):
            mine[:] = store
        for at, stands in zip(other._machine.stands, self._machine.stands, strict=True):
            at[:] = stands
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Oracle:
        return self.__copy__()

    def _execute(self, model: Model, inputs: Sequence[F32]) -> list[F32]:
        """One inference. Whatever ends it early, Ctrl-C among it, leaves the state as before."""
        before = [self._rows(state) for state in model.states]
        try:
            outputs = self._outputs(model, inputs)
        except BaseException:
            for state, rows in zip(model.states, before, strict=True):
                self._write_state(state, rows)
            raise
        turn(self._machine.stands, model.rings)
        return outputs

    def _outputs(self, model: Model, inputs: Sequence[F32]) -> list[F32]:
        numerics.require_ieee()
        machine = self._machine
        machine.inputs, machine.outputs = inputs, {}
        machine.fifos.clear()
        machine.loops.clear()
        machine.counter = model.begin
        while machine.counter < model.end:
            instr = self.image.code[machine.counter]
            SEMANTICS[instr.name](Execution(machine, model, instr))
            machine.counter += 1
        outputs = [machine.outputs.get(i, {}) for i in range(len(model.outputs))]
        missing = any(
            len(rows) < p.rows(machine.width) for rows, p in zip(outputs, model.outputs, strict=True)
        )
        if machine.loops or any(machine.fifos.values()) or missing:
            raise ProgramError(
                "a loop stays open, a link is not empty, or an output was not written",
                where=f"end of model {model.name!r}", remedy="recompile the model",
            )  # fmt: skip
        return [
            from_rows(np.stack([rows[r] for r in range(len(rows))]), port.shape)
            for rows, port in zip(outputs, model.outputs, strict=True)
        ]
