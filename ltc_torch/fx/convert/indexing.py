"""Converters of indexing by integers, slices, None, Ellipsis, constant lists and masks, and of in-place writes.

Positions that are no single slice are cut as runs with an even step and joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltc_compiler.frontend.positions import numbered, picked
from ltc_compiler.ir.graph import Array, Value
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.registry import Refused, converts


def constant_index(index: Any) -> Array:
    array = index.constant() if isinstance(index, Value) else np.asarray(index)
    if array is None:
        raise Refused("indexing by a tensor that depends on the input", "torch.where, or a constant index")
    return array.astype(np.int64)


@converts("getitem", "__getitem__")
def index(c: Emitter, input: Any, key: Any) -> Any:
    if not isinstance(input, Value):
        return input[key]  # one of several results
    items = list(key) if isinstance(key, (tuple, list)) and not _is_index_list(key) else [key]
    arrays = [i for i in items if _is_array(i)]
    if len(arrays) > 1 or (arrays and any(isinstance(i, int) and not isinstance(i, bool) for i in items)):
        return _index_together(c, input, items)
    if sum(i is Ellipsis for i in items) > 1:
        raise Refused("an index with two ellipses", "write the axes out")
    used = sum(1 for i in items if i is not None and i is not Ellipsis)
    filler = [slice(None)] * (len(input.shape) - used)
    where = next((k for k, i in enumerate(items) if i is Ellipsis), len(items))
    rest = [
        i for i in items[where + 1 :] if i is not Ellipsis
    ]  # the first one stands for all axes that are left
    items = items[:where] + filler + rest
    x, axis = input, 0
    for item in items:
        x, axis = _index_one(c, x, axis, item)
    return x


def _index_together(c: Emitter, x: Value, items: Sequence[Any]) -> Value:
    """Several constant indices at once: torch applies single positions and slices first, then the lists together."""
    alone: list[Any] = []
    together: list[Any] = []
    for item in items:
        if _is_array(item):
            if c.is_mask(item) or (not isinstance(item, Value) and np.asarray(item).dtype == bool):
                reason = "indexing by a mask and by other positions at once"
                raise Refused(reason, "torch.where, or constant positions")
            alone.append(slice(None))
            together.append(constant_index(item))
            continue
        alone.append(_whole(item))
        if item is None or item is Ellipsis or isinstance(item, slice):
            together.append(Ellipsis if item is Ellipsis else slice(None))
    try:
        positions = numbered(x.shape)[tuple(alone)][tuple(together)]
    except IndexError as error:
        raise Refused(f"an index does not fit {x.shape} ({error})", "positions within the tensor") from None
    if positions.size == 0:
        raise Refused("a slice has no elements", "every tensor needs at least one element")
    return picked(c, [x], positions)


def _is_index_list(key: Any) -> bool:
    return isinstance(key, list) and all(isinstance(i, (int, bool)) for i in key)


def _is_array(item: Any) -> bool:
    return isinstance(item, (list, np.ndarray)) or (isinstance(item, Value) and len(item.shape) > 0)


def _index_one(c: Emitter, x: Value, axis: int, item: Any) -> tuple[Value, int]:
    """Apply one item of an index at an axis; the next item's axis."""
    if item is None:
        return c.unsqueeze(x, axis), axis + 1
    if isinstance(item, slice):
        if (item.start, item.stop, item.step) == (None, None, None):
            return x, axis + 1
        start, stop, step = (
            None if v is None else int(_whole(v)) for v in (item.start, item.stop, item.step)
        )
        first, last, stride = slice(start, stop, step).indices(x.shape[axis])
        return c.slice(x, axis, first, last, stride), axis + 1
    if _is_array(item):
        constant = item.constant() if isinstance(item, Value) else np.asarray(item)
        if constant is not None and (constant.dtype == bool or c.is_mask(item)):
            constant = np.flatnonzero(constant) if constant.ndim == 1 else None
        if constant is None:
            raise Refused(
                "indexing by a mask of several axes, or by a tensor that depends on the input", "torch.where"
            )
        rows = c.gather(x, axis, constant.reshape(-1).astype(np.int64))
        shape = (*x.shape[:axis], *constant.shape, *x.shape[axis + 1 :])
        return c.reshape(rows, shape if constant.ndim != 1 else rows.shape), axis + constant.ndim
    return c.select(x, axis, int(_whole(item))), axis


def _whole(x: Any) -> Any:
    return constant_index(x) if isinstance(x, Value) else x


@converts("read_region")
def read_region(c: Emitter, base: Value, region: Sequence[slice], shape: Sequence[int]) -> Value:
    x = base
    for axis, part in enumerate(region):
        x = c.slice(x, axis, part.start, part.stop, part.step)
    return c.reshape(x, shape)


@converts("write_region")
def write_region(c: Emitter, base: Value, region: Sequence[slice], value: Value) -> Value:
    shape = tuple(len(range(r.start, r.stop, r.step)) for r in region)
    return _write(c, base, list(region), c.reshape(value, shape), 0)


def _write(c: Emitter, base: Value, region: list[slice], value: Value, axis: int) -> Value:
    """`base` with a rectangle replaced, one axis after the other: what is before, the new part, what is after."""
    if axis == len(region):
        return value
    part, parts, at = region[axis], [], 0
    rows = range(part.start, part.stop, part.step)
    for k, row in enumerate([part.start] if part.step == 1 else rows):
        size = len(rows) if part.step == 1 else 1
        if at < row:
            parts.append(c.slice(base, axis, at, row))
        inner = c.slice(base, axis, row, row + size)
        parts.append(_write(c, inner, region, c.slice(value, axis, k, k + size), axis + 1))
        at = row + size
    if at < base.shape[axis]:
        parts.append(c.slice(base, axis, at, base.shape[axis]))
    return c.concat(parts, axis)
