"""The face of the C++ simulator: arrays in, arrays out, state by name.

Calls go straight to the core, which refuses whatever is not a contiguous float32 array of the right shape
before it changes anything; only then is the input looked at here, to convert what can be converted and to say
precisely what cannot. So a good call costs nothing extra, and a refused one leaves the state as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltc_compiler._core import VM as CoreVM  # noqa: N811
from ltc_compiler._core import Program as CoreProgram
from ltc_compiler.bytecode import Image, Model
from ltc_compiler.bytecode.ports import (
    F32,
    check_elapsed_times,
    check_inputs,
    check_outputs,
    check_reset,
    check_state,
    model_at,
)
from ltc_compiler.bytecode.steps import (
    AxisArgument,
    check_output_axes,
    from_sequences,
    resolve_axes,
    streaming_axes,
    to_sequences,
)
from ltc_compiler.errors import InputError, ProgramError


class VM:
    """A program loaded into the simulator, with a state of its own. Made by Program.to_vm.

    Inputs are float32 or bfloat16 (ml_dtypes) arrays, CPU tensors of these types, or Python numbers for shape
    (); outputs are float32. One VM is for one thread at a time; several VMs of a program may run at once.
    """

    def __init__(self, image: Image, core: CoreProgram, bit_accurate: bool = True) -> None:
        if not bit_accurate and not all(c.has_shadow for c in image.cores):
            raise ProgramError(
                "the program holds no fp32 originals, which plain fp32 needs", where="section SHAD",
                remedy="save it with shadow=True, or use bit_accurate=True",
            )  # fmt: skip
        self._image = image
        self._vm = CoreVM(core, bit_accurate)
        self.bit_accurate = bit_accurate

    def run(self, *inputs: Any, model_index: int = 0) -> Any:
        """One inference: arrays of the ports' shapes in; one new array out, or a tuple for several outputs.

        Raises InputError, with the state as it was, for a wrong count, type, shape, device or elapsed time.
        """
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
    ) -> Any:
        """run() for every step of a sequence, the loop in C++; each array has one more axis, time.

        input_timestep_dim, output_timestep_dim: where that axis stands: one integer, or one for each array
        (None for an input that is the same at every step). By default the axes that the streaming transform
        removed, or 0 for a model that was not streamed. Raises InputError before the first step.
        """
        model = self._model(model_index)
        streamed = streaming_axes(self._image.meta, model, model_index)
        output_axes = resolve_axes(output_timestep_dim, streamed[1], "output")
        check_output_axes(model, output_axes)
        input_axes = resolve_axes(input_timestep_dim, streamed[0], "input")
        steps, arrays = to_sequences(model, inputs, input_axes)
        check_elapsed_times(model, arrays)
        outputs = [np.empty((steps, *port.shape), np.float32) for port in model.outputs]
        self._vm.run_timesteps(model_index, steps, arrays, outputs)
        return from_sequences(model, outputs, output_axes)

    def reset(self, model_index: int | None = None) -> None:
        """Initial state for one model, or for all. Raises StateError where the program was compiled without it."""
        check_reset(self._image.meta)
        if model_index is not None:
            self._model(model_index)
        self._vm.reset(-1 if model_index is None else model_index)

    @property
    def state(self) -> dict[str, F32]:
        """A copy of the state of model 0, by name."""
        return self.get_state()

    def get_state(self, model_index: int = 0) -> dict[str, F32]:
        """A copy of a model's state, by name: float32 arrays of the states' shapes."""
        states = self._model(model_index).states
        return {state.name: self._vm.get_state(model_index, i) for i, state in enumerate(states)}

    def set_state(self, values: Mapping[str, object], model_index: int = 0) -> None:
        """Replace the named states. An unknown name or a wrong array raises StateError, nothing changed."""
        model = self._model(model_index)
        for state, array in check_state(model, values):
            self._vm.set_state(model_index, model.states.index(state), array)

    def metrics(self) -> dict[str, Any]:
        """What the simulator made of the program: bytes of its memory, the instruction set that its kernels
        use.
        """
        return dict(self._vm.metrics())

    def __repr__(self) -> str:
        kind = "bit-accurate" if self.bit_accurate else "plain fp32"
        names = ", ".join(model.name for model in self._image.models)
        return f"VM({names} on {self._image.config.name}, {kind})"

    def _model(self, model_index: int) -> Model:
        return model_at(self._image.models, model_index)

    def _checked(self, model_index: int, inputs: Sequence[object]) -> list[F32]:
        model = self._model(model_index)
        arrays = check_inputs(model, inputs)
        check_elapsed_times(model, arrays)
        return arrays
