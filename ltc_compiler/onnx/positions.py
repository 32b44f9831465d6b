"""Converters of ONNX operators that gather or scatter elements at constant positions.

Every one becomes a map from each element of the result to an element of its operands. Rows that move as a whole are
moved as rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ltc_compiler.frontend.compose import Refused, check_size
from ltc_compiler.frontend.positions import NEUTRAL, numbered, picked
from ltc_compiler.ir.graph import Array, Value
from ltc_compiler.onnx.call import Call, Results
from ltc_compiler.onnx.registry import converts

COMPUTED = "indices that are computed from an input"


def _indices(call: Call, index: int, shape: Sequence[int], axes: Sequence[int]) -> Array:
    """Constant indices, counted from the front; their last axis goes over `axes`."""
    found = call.array(index, "indices").astype(np.int64)
    sizes = np.array([shape[a] for a in axes], np.int64)
    if ((found < -sizes) | (found >= sizes)).any():
        raise Refused(f"an index is out of range for {tuple(shape)}")
    return np.where(found < 0, found + sizes, found)


def _along(call: Call, axis: int) -> tuple[Array, ...]:
    """Indices of one axis, with those of the other axes where they stand."""
    index = _indices(call, 1, call.x.shape, [axis])
    grid: list[Array] = list(np.indices(index.shape))
    return (*grid[:axis], index, *grid[axis + 1 :])


@converts("GatherElements", limits=COMPUTED)
def gather_elements(call: Call) -> Results:
    x, axis = call.x, call.axis(0)
    return picked(call.c, [x], numbered(x.shape)[_along(call, axis)])


@converts("GatherND", limits=COMPUTED)
def gather_nd(call: Call) -> Results:
    x, batch = call.x, int(call.attr("batch_dims", 0))
    depth = call.array(1, "indices").shape[-1]
    index = _indices(call, 1, x.shape, range(batch, batch + depth))
    numbers: Array = numbered(x.shape)
    heads = x.shape[:batch]
    flat = numbers.reshape(math.prod(heads), *x.shape[batch:])
    parts = index.reshape(math.prod(heads), *index.shape[batch:])
    found = [n[tuple(np.moveaxis(i, -1, 0))] for n, i in zip(flat, parts, strict=True)]
    return picked(call.c, [x], np.stack(found).reshape(*heads, *found[0].shape))


@converts("ReverseSequence", limits="computed lengths")
def reverse_sequence(call: Call) -> Results:
    """The first elements of the time axis, as many as each row of the batch says, in reverse."""
    x, lengths = call.x, call.array(1, "sequence_lens").astype(np.int64)
    check_size(*x.shape)
    batch, time = int(call.attr("batch_axis", 1)), int(call.attr("time_axis", 0))
    grid = list(np.indices(x.shape))
    ends = lengths[grid[batch]]
    grid[time] = np.where(grid[time] < ends, ends - 1 - grid[time], grid[time])
    return picked(call.c, [x], numbered(x.shape)[tuple(grid)])


@converts("ScatterElements", limits=COMPUTED)
def scatter_elements(call: Call) -> Results:
    return _scattered(call, _along(call, call.axis(0)))


@converts("ScatterND", limits=COMPUTED)
def scatter_nd(call: Call) -> Results:
    x = call.x
    depth = call.array(1, "indices").shape[-1]
    index = _indices(call, 1, x.shape, range(depth))
    return _scattered(call, tuple(np.moveaxis(index, -1, 0)))


def _scattered(call: Call, where: tuple[Array, ...]) -> Value:
    """x with the updates at `where`, put there or combined with what is there."""
    x, updates = call.x, call.value(2, "updates")
    reduction = str(call.attr("reduction", "none"))
    targets = numbered(x.shape)[where]
    if targets.shape != updates.shape:
        raise Refused(f"updates have shape {updates.shape}, expected {targets.shape}")
    if reduction == "none":
        positions = numbered(x.shape)
        positions[where] = x.type.size + numbered(updates.shape)
        return picked(call.c, [x, updates], positions)
    if len(np.unique(targets)) < targets.size or reduction not in NEUTRAL:
        raise Refused(f"several updates of one element by {reduction!r}", "ReduceSum or ReduceMax")
    positions = np.full(x.shape, updates.type.size)
    positions[where] = numbered(updates.shape)
    neutral = call.c.value(np.full(1, NEUTRAL[reduction]))
    return call.c.add(reduction, x, picked(call.c, [updates, neutral], positions))
