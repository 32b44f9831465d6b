"""Elements at constant positions: gathers and scatters, for every importer.

Every one is a map from each element of the result to an element of its operands. Rows that move as a whole are moved
as rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ltc_compiler.frontend.compose import Composer, Refused, check_size
from ltc_compiler.ir.graph import Array, Value

NEUTRAL = {"add": 0.0, "mul": 1.0, "max": -math.inf, "min": math.inf}
LAYERS_LIMIT = 64  # updates of one element


def numbered(shape: Sequence[int]) -> Array:
    """The flat position of every element. Raises Refused for a shape that is too large."""
    check_size(*shape)
    return np.arange(math.prod(shape), dtype=np.int64).reshape(tuple(shape))


def picked(c: Composer, sources: Sequence[Value], positions: Array) -> Value:
    """The elements at flat positions of the sources, laid end to end, in the shape of `positions`."""
    width = _row_width(sources, positions)
    rows = [c.reshape(s, (s.type.size // width, width)) for s in sources]
    whole = c.concat(rows, 0)
    taken = c.gather(whole, 0, positions.reshape(-1, width)[:, 0] // width)
    return c.reshape(taken, positions.shape)


def _row_width(sources: Sequence[Value], positions: Array) -> int:
    """The longest run of elements that always moves as a whole row."""
    for axis in range(positions.ndim + 1):
        width = math.prod(positions.shape[axis:])
        rows = positions.reshape(-1, width)
        aligned = (rows[:, :1] % width == 0).all() and all(s.type.size % width == 0 for s in sources)
        if aligned and (rows == rows[:, :1] + np.arange(width)).all():
            return width
    return 1


def replaced(c: Composer, x: Value, updates: Value, targets: Array) -> Value:
    """x with its elements at flat positions replaced by `updates`; of several for one place the last."""
    positions = numbered((x.type.size,))
    positions[targets.reshape(-1)] = x.type.size + np.arange(targets.size)
    return picked(c, [x, updates], positions.reshape(x.shape))


def combined(c: Composer, x: Value, updates: Value, targets: Array, op: str) -> Value:
    """x with `updates` joined by `op` at flat positions; several for one place in their order."""
    flat = targets.reshape(-1)
    order = np.argsort(flat, kind="stable")
    ranked = flat[order]
    first = np.searchsorted(ranked, ranked, side="left")
    layer = np.empty(flat.size, np.int64)
    layer[order] = np.arange(flat.size) - first  # how many updates of the same place come before
    count = int(layer.max(initial=0)) + 1
    if count > LAYERS_LIMIT:
        raise Refused(f"{count} updates of one element", f"at most {LAYERS_LIMIT}, or a sum over an axis")
    neutral = c.value(np.full(1, NEUTRAL[op]))
    for number in range(count):
        positions = np.full(x.type.size, updates.type.size)
        here = np.flatnonzero(layer == number)
        positions[flat[here]] = here
        x = c.add(op, x, picked(c, [updates, neutral], positions.reshape(x.shape)))
    return x
