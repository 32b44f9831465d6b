"""Ops that compute nothing: constants, and elements that take another place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltc_compiler.ir.families.row import Attrs, Op, ShapeError, axis_of, broadcast_shapes
from ltc_compiler.ir.graph import Array, Type


def _reshape(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    new = Type(tuple(attrs["shape"]), types[0].precision)
    if new.size != types[0].size:
        raise ShapeError(f"{types[0].shape} has {types[0].size} elements and {new.shape} has {new.size}")
    return (new,)


def _permute(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    dims = tuple(attrs["dims"])
    if sorted(dims) != list(range(types[0].rank)):
        raise ShapeError(f"{dims} is no permutation of the {types[0].rank} axes")
    return (Type(tuple(types[0].shape[d] for d in dims), types[0].precision),)


def _slice(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    shape = list(types[0].shape)
    axis = axis_of(len(shape), attrs["axis"])
    start, stop, step = attrs["start"], attrs["stop"], attrs["step"]
    if not (0 <= start < stop <= shape[axis] and step >= 1):
        raise ShapeError(f"[{start}:{stop}:{step}] is empty or outside axis {axis} of {types[0].shape}")
    shape[axis] = -(-(stop - start) // step)
    return (Type(tuple(shape), types[0].precision),)


def _concat(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    axis = axis_of(types[0].rank, attrs["axis"])
    rest = [t.shape[:axis] + t.shape[axis + 1 :] for t in types]
    if any(t.rank != types[0].rank for t in types) or any(r != rest[0] for r in rest):
        raise ShapeError(f"shapes {[t.shape for t in types]} differ outside axis {axis}")
    shape = list(types[0].shape)
    shape[axis] = sum(t.shape[axis] for t in types)
    return (Type(tuple(shape)),)


def _broadcast(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    shape = tuple(attrs["shape"])
    if broadcast_shapes(types[0].shape, shape) != shape:
        raise ShapeError(f"{types[0].shape} does not broadcast to {shape}")
    return (Type(shape, types[0].precision),)


def _constant(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    return (Type(attrs["value"].shape),)


def _slice_value(operands: Sequence[Array], attrs: Attrs) -> tuple[Array, ...]:
    x = operands[0]
    index: list[Any] = [slice(None)] * x.ndim
    index[attrs["axis"]] = slice(attrs["start"], attrs["stop"], attrs["step"])
    return (x[tuple(index)],)


ROWS = [
    Op(
        "constant",
        0,
        {"value": np.ndarray},
        _constant,
        lambda x, a: (np.asarray(a["value"], np.float64),),
        "constant",
        "a constant array",
    ),
    Op(
        "reshape",
        1,
        {"shape": tuple},
        _reshape,
        lambda x, a: (x[0].reshape(a["shape"]),),
        "reshape",
        "the same elements in row-major order",
    ),
    Op(
        "permute",
        1,
        {"dims": tuple},
        _permute,
        lambda x, a: (x[0].transpose(a["dims"]),),
        "permute",
        "result axis i is operand axis dims[i]",
    ),
    Op(
        "slice",
        1,
        {"axis": int, "start": int, "stop": int, "step": int},
        _slice,
        _slice_value,
        "slice",
        "elements start, start + step, ... below stop of one axis",
    ),
    Op(
        "concat",
        (1, 1 << 16),
        {"axis": int},
        _concat,
        lambda x, a: (np.concatenate(x, a["axis"]),),
        "concat",
        "operands side by side on one axis",
    ),
    Op(
        "broadcast",
        1,
        {"shape": tuple},
        _broadcast,
        lambda x, a: (np.broadcast_to(x[0], a["shape"]),),
        "broadcast",
        "repeat to a shape, by NumPy's rule",
    ),
]
