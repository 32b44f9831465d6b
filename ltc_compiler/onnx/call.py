"""One ONNX node as its converter sees it: operands resolved, attributes decoded, the composer to write with.

A tensor is an NNIR value where it depends on an input of the model, and a NumPy array of ONNX's own type where it
follows from constants: shapes, axes and indices are then plain numbers.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.ir.graph import Array, Value

Tensor = Value | Array


@dataclass(frozen=True)
class TensorList:
    """A sequence of tensors, which is known while its tensors may be computed.

    rows: the tensors along axis 0, in the place of `items`, where a scan collected them.
    """

    items: tuple[Tensor, ...] = ()
    rows: Value | None = None

    def __len__(self) -> int:
        return len(self.items) if self.rows is None else self.rows.shape[0]

    def at(self, c: Composer, position: int) -> Tensor:
        return self.items[position] if self.rows is None else c.select(self.rows, 0, position)


@dataclass(frozen=True)
class Growing:
    """A sequence that the body of a scan carries, by what one iteration appends to it."""

    appended: tuple[Tensor, ...] = ()


# What a converter returns: one result, or as many as the node has at most (None for one that it does not have).
Results = Tensor | Sequence[Tensor | TensorList | Growing | Refused | None]


@dataclass
class Call:
    """A node. opset: the version of its operator set; masks, wholes: the values that are booleans and whole numbers in
    ONNX."""

    op: str
    c: Composer
    inputs: list[Tensor | None]
    attributes: dict[str, Any]
    opset: int
    results: int = 1
    masks: set[Value] = field(default_factory=set)
    wholes: set[Value] = field(default_factory=set)

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int, name: str = "") -> Tensor:
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise Refused(f"input {name or index} is missing")
        return found

    def sequence(self, index: int) -> tuple[Tensor, ...]:
        """The tensors of an input that is a sequence."""
        found = self.listed(index)
        return tuple(found.at(self.c, k) for k in range(len(found)))

    def listed(self, index: int) -> TensorList:
        """An input that is a sequence."""
        found: Any = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(found, TensorList):
            raise Refused(f"input {index} is no sequence of tensors, or one that a loop reads while it grows")
        return found

    def whole(self, value: Value) -> Value:
        """Remember that a value is a whole number."""
        self.wholes.add(value)
        return value

    def value(self, index: int, name: str = "") -> Value:
        """An input as an NNIR value; a constant becomes a node."""
        return as_value(self.c, self.tensor(index, name))

    @property
    def x(self) -> Value:
        return self.value(0)

    def array(self, index: int, name: str) -> Array:
        """An input that must be a constant."""
        found = self.tensor(index, name)
        if isinstance(found, Value):
            raise Refused(f"{name} is computed from an input", f"make {name} a constant")
        return found

    def weight(self, index: int, name: str, rank: int) -> Array:
        """A constant input of a given rank, in fp64."""
        stored = self.array(index, name)
        if self.c.budget is not None:
            self.c.budget.touch(stored.size)
        array = numbers(stored)
        if array.ndim != rank:
            raise Refused(f"{name} has shape {array.shape}, expected {rank} axes")
        return array

    def attr(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def setting(self, name: str, index: int, default: Any = None) -> Any:
        """What newer opsets take as a constant input and older ones as an attribute: a number or a tuple."""
        if self.has(index):
            return self.array(index, name).tolist()
        return self.attr(name, default)

    def ints(
        self, name: str, index: int = 1 << 16, default: Sequence[int] | None = None
    ) -> tuple[int, ...] | None:
        """As `setting`, for a list of whole numbers."""
        found = self.setting(name, index, default)
        if found is None:
            return None
        return tuple(int(i) for i in (found if isinstance(found, Sequence) else [found]))

    def axis(self, default: int, rank: int | None = None) -> int:
        """The attribute `axis`, counted from the front."""
        rank = len(self.x.shape) if rank is None else rank
        axis = int(self.attr("axis", default))
        if not -rank <= axis < max(rank, 1):
            raise Refused(f"axis {axis} is out of range for {rank} axes")
        return axis % max(rank, 1)


def numbers(array: Array) -> Array:
    """A constant's elements in fp64."""
    if array.dtype.kind in "OSUc":
        raise Refused(f"a constant of type {array.dtype}", "numbers")
    return array.astype(np.float64)


def is_whole(tensor: Any, wholes: Container[Value]) -> bool:
    """Whether a tensor is of a whole type in ONNX, by its own type or among the values that are known to be."""
    return tensor.dtype.kind in "iu" if isinstance(tensor, np.ndarray) else tensor in wholes


def as_value(c: Composer, tensor: Tensor) -> Value:
    """A tensor as an NNIR value; a constant becomes a node, the same one for all its readers in a graph."""
    if isinstance(tensor, (TensorList, Growing)):
        raise Refused("a sequence of tensors", "ConcatFromSequence, or one output for each")
    return tensor if isinstance(tensor, Value) else c.once(tensor, numbers)


def stacked(c: Composer, rows: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side on a new axis; constants stay one."""
    arrays = [r for r in rows if isinstance(r, np.ndarray)]
    if len(arrays) == len(rows):
        return np.stack(arrays, axis)
    return c.concat([c.unsqueeze(as_value(c, r), axis) for r in rows], axis)
