"""What the host sees of a model: its inputs and outputs, its state, and the arrays that it may hand over.

The oracle and the VM check what they are given here, so that both refuse the same things in the same words.
torch is never imported: a tensor is recognised by its module, and read through its own methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa
from ltc_compiler.bytecode.rings import Ring
from ltc_compiler.errors import InputError, ProgramError, StateError

F32 = NDArray[np.float32]

ROLES = ("plain", "elapsed_time")
MAX_RANK = 8


def shape_rows(shape: Sequence[int], block_size: int) -> int:
    """Rows that an array takes in the tensor store: each vector along its last axis starts a row."""
    return math.prod(shape[:-1]) * -(-(shape[-1] if shape else 1) // block_size)


def to_rows(array: F32, block_size: int) -> F32:
    """A host array as (rows, B) rows of the tensor store; lanes past the end of a vector are +0."""
    vectors = array.reshape(math.prod(array.shape[:-1]), array.shape[-1] if array.ndim else 1)
    across = shape_rows(vectors.shape[1:], block_size)
    padded = np.zeros((len(vectors), across * block_size), np.float32)
    padded[:, : vectors.shape[1]] = vectors
    return padded.reshape(-1, block_size)


def from_rows(rows: F32, shape: Sequence[int]) -> F32:
    """The inverse of to_rows: a new array of that shape."""
    vectors = rows.reshape(math.prod(shape[:-1]), -1)
    return vectors[:, : shape[-1] if shape else 1].reshape(tuple(shape)).copy()


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model.

    role: "elapsed_time" makes the host refuse NaN, infinities and negative values; precision "bf16" rounds on load.
    """

    name: str
    shape: tuple[int, ...]
    role: str = "plain"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checked_shape(self.name, self.shape))
        if self.role not in ROLES:
            raise ProgramError(f"role of port {self.name!r} is {self.role!r}, not one of {', '.join(ROLES)}")
        if self.precision not in isa.PRECISIONS:
            raise ProgramError(
                f"precision of port {self.name!r} is {self.precision!r},"
                f" not one of {', '.join(isa.PRECISIONS)}"
            )

    def rows(self, block_size: int) -> int:
        """Rows of the tensor store that the array fills."""
        return shape_rows(self.shape, block_size)


@dataclass(frozen=True, slots=True)
class State:
    """An array that lives from one run to the next, in rows of one core from `row` on.

    copies: (core, row) of each further place that holds the same rows. A program writes all of them; so does the host.
    """

    name: str
    shape: tuple[int, ...]
    core: int
    row: int
    copies: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checked_shape(self.name, self.shape))

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """(core, first row) of every place that holds the state."""
        return ((self.core, self.row), *self.copies)

    def rows(self, block_size: int) -> int:
        """Rows of the tensor store that the array fills."""
        return shape_rows(self.shape, block_size)


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a program: the instructions [begin, end) and what they exchange with the host. rings: rows of its
    states that turn with every inference."""

    name: str
    begin: int
    end: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[State, ...] = ()
    rings: tuple[Ring, ...] = ()

    def __post_init__(self) -> None:
        for field in ("inputs", "outputs", "states", "rings"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if not 0 <= self.begin <= self.end:
            raise ProgramError(f"model {self.name!r} has instructions {self.begin} to {self.end}")


def check_inputs(model: Model, inputs: Sequence[object]) -> list[F32]:
    """The inputs of one run as contiguous float32 arrays of the ports' shapes, copied only if they must be.

    Takes arrays of float32 or bfloat16 (ml_dtypes), CPU tensors of the same, and Python numbers for shape ().
    Raises InputError naming the input, what was expected and what was given. Values are checked by
    check_elapsed_times.
    """
    check_count(model, inputs)
    return [check_array(port, value) for port, value in zip(model.inputs, inputs, strict=True)]


def check_count(model: Model, inputs: Sequence[object]) -> None:
    """Raises InputError unless there is one array for every input port."""
    if len(inputs) != len(model.inputs):
        listed = ", ".join(f"{port.name} {port.shape}" for port in model.inputs) or "none"
        raise InputError(
            f"model {model.name!r} takes {len(model.inputs)} inputs, {len(inputs)} given",
            where=f"inputs of {model.name}", remedy=f"give, in this order: {listed}",
        )  # fmt: skip


def check_array(port: Port | State, value: object) -> F32:
    """One array for a port or state, as contiguous float32 of its shape. Raises InputError."""
    shape = port.shape
    array = as_float32(port.name, value)
    if array.shape != shape:
        raise InputError(
            f"{port.name} has shape {array.shape}, expected {shape}",
            where=port.name,
            remedy=_shape_remedy(array.shape, shape),
        )
    return np.ascontiguousarray(array).reshape(shape)  # ascontiguousarray makes () a (1,)


def check_outputs(model: Model, outputs: Sequence[object]) -> None:
    """Raises InputError unless every output port has a writable, contiguous float32 array of its shape."""
    if len(outputs) != len(model.outputs):
        raise InputError(
            f"model {model.name!r} has {len(model.outputs)} outputs, {len(outputs)} arrays given",
            where=f"outputs of {model.name}", remedy="give one array for every output",
        )  # fmt: skip
    for port, array in zip(model.outputs, outputs, strict=True):
        found = "a " + type(array).__name__
        if isinstance(array, np.ndarray):
            flags = array.flags
            if (
                array.dtype == np.float32
                and array.shape == port.shape
                and flags.c_contiguous
                and flags.aligned
                and flags.writeable
            ):
                continue
            found = f"{array.dtype} {array.shape}, {'contiguous' if flags.c_contiguous else 'strided'}"
            found += "" if flags.aligned else " and unaligned"
            found += "" if flags.writeable else " and read-only"
        raise InputError(
            f"the array for output {port.name} is {found}", where=port.name,
            remedy=f"give np.empty({port.shape}, np.float32)",
        )  # fmt: skip


def check_elapsed_times(model: Model, arrays: Sequence[F32]) -> None:
    """Raises InputError for a NaN, infinite or negative elapsed time; a whole sequence of them may be given."""
    for port, array in zip(model.inputs, arrays, strict=True):
        if port.role == "elapsed_time":
            bad = ~((array >= 0) & (array < np.inf))
            if bad.any():
                first = tuple(int(i) for i in np.argwhere(bad)[0])
                at = f" at index {first}" if first else ""
                raise InputError(
                    f"{port.name} is {array[first]!s}{at}: an elapsed time is 0 or more, and finite",
                    where=port.name,
                    remedy="give the time since the previous step, in the model's own unit",
                )  # fmt: skip


def check_reset(meta: Mapping[str, Any]) -> None:
    """Raises StateError for a program that was compiled without state reset."""
    if meta.get("state_reset") is False:
        raise StateError("the program has no state reset", where="reset",
                         remedy="compile it with generate_state_reset=True, or make a new machine")  # fmt: skip


def check_state(model: Model, values: Mapping[str, object]) -> list[tuple[State, F32]]:
    """The named states with their new arrays. Raises StateError for an unknown name or a wrong array."""
    states = {state.name: state for state in model.states}
    unknown = [name for name in values if name not in states]
    if unknown:
        raise StateError(
            f"model {model.name!r} has no state {', '.join(map(repr, unknown))}", where="set_state",
            remedy=f"its states are {', '.join(states) or 'none'}",
        )  # fmt: skip
    try:
        return [(states[name], check_array(states[name], value)) for name, value in values.items()]
    except InputError as error:
        raise StateError(error.what, where=error.where, remedy=error.remedy) from error


def host_bytes(ports: Sequence[Port]) -> int:
    """Bytes that pass between host and accelerator: a bf16 port takes and gives values of 2 bytes, any other 4."""
    return sum((2 if port.precision == "bf16" else 4) * math.prod(port.shape) for port in ports)


def model_at(models: Sequence[Model], index: int) -> Model:
    """The model of that index. Raises InputError with the models that there are."""
    if not 0 <= index < len(models):
        listed = ", ".join(f"{i} {model.name!r}" for i, model in enumerate(models))
        raise InputError(
            f"no model {index}", where="model_index", remedy=f"the models are {listed or 'none'}"
        )
    return models[index]


def as_float32(name: str, value: object) -> F32:
    """An array, CPU tensor or Python number as a float32 array, exactly. Raises InputError naming `name`."""
    if type(value) is np.ndarray and value.dtype == np.float32:
        return value if value.flags.aligned else value.copy()
    if type(value).__module__.partition(".")[0] == "torch":
        value = _from_torch(name, value)
    elif isinstance(value, float | int) and not isinstance(value, bool):
        with np.errstate(over="ignore"):
            value = np.asarray(value, np.float64).astype(np.float32)
    if not isinstance(value, np.ndarray | np.generic):
        raise InputError(
            f"{name} is a {type(value).__name__}, not an array", where=name,
            remedy=f"pass np.asarray({name}, dtype=np.float32)",
        )  # fmt: skip
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":
        return (array.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    if array.dtype.kind != "f" or array.dtype.itemsize != 4:
        raise InputError(
            f"{name} has dtype {array.dtype}, expected float32 or bfloat16", where=name,
            remedy=f"pass {name}.astype(np.float32)",
        )  # fmt: skip
    # The same dtype in native byte order, and aligned, which astype alone does not see to.
    return np.require(array.astype(np.float32, copy=False), requirements="A")


def _from_torch(name: str, tensor: Any) -> Any:
    if getattr(tensor, "requires_grad", False):
        raise InputError(f"{name} is a tensor that requires grad", where=name, remedy=f"pass {name}.detach()")
    device = getattr(tensor, "device", None)
    if device is not None and device.type != "cpu":
        raise InputError(f"{name} is a tensor on {device}", where=name, remedy=f"pass {name}.cpu()")
    dtype = str(getattr(tensor, "dtype", ""))
    if dtype not in ("torch.float32", "torch.bfloat16"):
        raise InputError(
            f"{name} has dtype {dtype or type(tensor)}, expected float32 or bfloat16", where=name,
            remedy=f"pass {name}.float()",
        )  # fmt: skip
    return tensor.float().numpy()


def _shape_remedy(given: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if math.prod(given) == math.prod(expected):
        return f"pass it as .reshape({expected})"
    if len(given) == len(expected) + 1 and given[1:] == expected:
        return "for a sequence of steps call run_timesteps"
    return f"give an array of shape {expected}"


def _checked_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) > MAX_RANK or not all(isinstance(n, int | np.integer) and 0 < n < 2**32 for n in shape):
        raise ProgramError(
            f"shape of {name!r} is {tuple(shape)}", remedy=f"give up to {MAX_RANK} dimensions of 1 or more"
        )
    return tuple(int(n) for n in shape)
