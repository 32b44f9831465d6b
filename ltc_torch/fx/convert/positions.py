"""Converters of gathers and scatters at constant indices. Indices that depend on an input are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltc_compiler.frontend.positions import combined, numbered, picked, replaced
from ltc_compiler.ir.graph import Array, Value
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.convert.indexing import constant_index
from ltc_torch.fx.registry import Refused, converts

_COMBINED = {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "amax": "max", "amin": "min"}


def _targets(shape: Sequence[int], dim: int, index: Array) -> Array:
    """The flat position that each element of an index stands for: along `dim`, its own place on the other axes."""
    axis = dim % len(shape)
    if ((index < 0) | (index >= shape[axis])).any():
        raise Refused(f"an index is out of range for axis {axis} of {tuple(shape)}")
    grid: list[Array] = list(np.indices(index.shape))
    return numbered(shape)[(*grid[:axis], index, *grid[axis + 1 :])]


def _rows(shape: Sequence[int], dim: int, index: Array) -> Array:
    """The flat positions of whole slices of `dim`."""
    taken: Array = np.take(numbered(shape), index, dim)
    return taken


@converts("gather")
def gather(c: Emitter, input: Value, dim: int, index: Value, **_: Any) -> Value:
    where, axis = constant_index(index), dim % len(input.shape)
    line = np.moveaxis(where, axis, 0).reshape(where.shape[axis], -1)
    others = [n for a, n in enumerate(input.shape) if a != axis]
    if (line == line[:, :1]).all() and others == [n for a, n in enumerate(where.shape) if a != axis]:
        return c.gather(input, axis, line[:, 0])  # the same elements everywhere: other axes may stream
    return picked(c, [input], _targets(input.shape, axis, where))


@converts("take_along_dim")
def take_along_dim(c: Emitter, input: Value, indices: Value, dim: int | None = None) -> Value:
    where = constant_index(indices)
    if dim is None:
        return picked(c, [input], where.reshape(-1) % input.type.size)
    axis = dim % len(input.shape)
    others = ((*s[:axis], 1, *s[axis + 1 :]) for s in (input.shape, where.shape))
    shape = list(np.broadcast_shapes(*others))
    whole = c.broadcast(input, [*shape[:axis], input.shape[axis], *shape[axis + 1 :]])
    wide = np.broadcast_to(where, [*shape[:axis], where.shape[axis], *shape[axis + 1 :]])
    return gather(c, whole, axis, c.value(np.where(wide < 0, wide + input.shape[axis], wide)))


@converts("take")
def take(c: Emitter, input: Value, index: Value) -> Value:
    return picked(c, [input], constant_index(index) % input.type.size)


def _updates(c: Emitter, updates: Any, targets: Array) -> Value:
    """A number for all of them, or the part of a tensor that has a target."""
    value = c.value(updates)
    if not value.shape:
        return c.broadcast(value, targets.shape)
    for axis, size in enumerate(targets.shape):
        value = c.slice(value, axis, 0, size)
    return value


def _combination(reduce: str | None, include_self: bool = True) -> str | None:
    if reduce is None:
        return None
    if reduce not in _COMBINED or not include_self:
        raise Refused(
            f"a scatter with reduce={reduce!r} and include_self={include_self}",
            "reduce= one of sum, prod, amax, amin, include_self=True",
        )
    return _COMBINED[reduce]


def _scattered(c: Emitter, x: Value, targets: Array, updates: Any, op: str | None) -> Value:
    values = _updates(c, updates, targets)
    return replaced(c, x, values, targets) if op is None else combined(c, x, values, targets, op)


@converts("scatter", "scatter_add", "scatter_reduce")
def scatter(
    c: Emitter,
    input: Value,
    dim: int,
    index: Value,
    src: Any = None,
    reduce: str | None = None,
    *,
    value: Any = None,
    include_self: bool = True,
) -> Value:
    op = "add" if c.target == "scatter_add" else _combination(reduce, include_self)
    targets = _targets(input.shape, dim, constant_index(index))
    return _scattered(c, input, targets, value if src is None else src, op)


@converts("index_add", "index_copy", "index_fill", "index_reduce")
def index_add(
    c: Emitter,
    input: Value,
    dim: int,
    index: Value,
    source: Any = None,
    reduce: str | None = None,
    *,
    value: Any = None,
    alpha: float = 1,
    include_self: bool = True,
) -> Value:
    where = np.atleast_1d(constant_index(index))
    targets = _rows(input.shape, dim, where)
    updates = value if source is None else source
    if alpha != 1:
        updates = c.add("mul", updates, alpha)
    op = "add" if c.target == "index_add" else _combination(reduce, include_self)
    return _scattered(c, input, targets, updates, op)


@converts("index_put")
def index_put(
    c: Emitter, input: Value, indices: Sequence[Value], values: Value, accumulate: bool = False
) -> Value:
    arrays = [constant_index(i) for i in indices]
    if any(c.is_mask(i) for i in indices):
        raise Refused("index_put with a mask", "torch.where")
    targets = numbered(input.shape)[tuple(arrays)]
    updates = c.broadcast(values, targets.shape)
    return _scattered(c, input, targets, updates, "add" if accumulate else None)
