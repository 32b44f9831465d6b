"""What a row of the op table is: operand count, attributes, shape rule, meaning, streaming rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Array, Type

Attrs = dict[str, Any]
Infer = Callable[[Sequence[Type], Attrs], tuple[Type, ...]]
Evaluate = Callable[[Sequence[Array], Attrs], tuple[Array, ...]]


@dataclass(frozen=True)
class Op:
    """One row: operand count (a pair where it varies), attribute names and types, rules and meaning.

    evaluate: the NumPy meaning, in the dtype of the operands; None for an op with a body, whose meaning is that of the
    body (ir/run.py). streaming: the name of a rule of transforms/streaming/transform.py.
    """

    name: str
    arity: int | tuple[int, int]
    attrs: dict[str, type]
    infer: Infer
    evaluate: Evaluate | None
    streaming: str
    doc: str


class ShapeError(ValueError):
    """A shape rule refused its operands; `add` turns it into a GraphError with the place."""


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcasting rule."""
    try:
        return tuple(int(d) for d in np.broadcast_shapes(*shapes))
    except ValueError:
        raise ShapeError(f"shapes {' and '.join(map(str, shapes))} do not broadcast") from None


def axis_of(rank: int, axis: int) -> int:
    """A non-negative axis; refuses one that is out of range."""
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank
