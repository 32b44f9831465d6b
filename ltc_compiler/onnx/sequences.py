"""Converters of ONNX operators on sequences of tensors: the sequence is known, whatever its tensors depend on."""

from __future__ import annotations

import numpy as np

from ltc_compiler.frontend.compose import Refused, check_runs
from ltc_compiler.onnx.call import Call, Growing, Results, Tensor, TensorList, as_value, stacked
from ltc_compiler.onnx.registry import converts


@converts("SequenceEmpty", "SequenceConstruct")
def construct(call: Call) -> Results:
    return [TensorList(tuple(call.tensor(i) for i in range(len(call.inputs))))]


def _at(call: Call, index: int, size: int) -> int:
    """A constant position, counted from the front."""
    position = int(call.array(index, "the position").reshape(()))
    if not -size <= position < size:
        raise Refused(f"position {position} of a sequence of {size}")
    return position % size


@converts("SequenceInsert", limits="a computed position")
def insert(call: Call) -> Results:
    growing, new = call.inputs[0], call.tensor(1)
    if isinstance(growing, Growing) and not call.has(2):
        return [Growing((*growing.appended, new))]
    items = call.sequence(0)
    end = not call.has(2) or int(call.array(2, "the position").reshape(())) == len(items)
    at = len(items) if end else _at(call, 2, len(items))
    return [TensorList((*items[:at], new, *items[at:]))]


@converts("SequenceErase", limits="a computed position")
def erase(call: Call) -> Results:
    items = call.sequence(0)
    at = _at(call, 1, len(items)) if call.has(1) else len(items) - 1
    return [TensorList((*items[:at], *items[at + 1 :]))]


@converts("SequenceAt", limits="a computed position")
def item(call: Call) -> Results:
    items = call.listed(0)
    return items.at(call.c, _at(call, 1, len(items)))


@converts("SequenceLength")
def length(call: Call) -> Results:
    return np.asarray(len(call.listed(0)), np.int64)


@converts("ConcatFromSequence")
def concat(call: Call) -> Results:
    listed, axis = call.listed(0), int(call.attr("axis", 0))
    if not len(listed):
        raise Refused("the concatenation of an empty sequence")
    if listed.rows is not None and call.attr("new_axis", 0):
        return call.c.move(listed.rows, 0, axis)
    items = call.sequence(0)
    if call.attr("new_axis", 0):
        return stacked(call.c, items, axis)
    arrays = [i for i in items if isinstance(i, np.ndarray)]
    if len(arrays) == len(items):
        return np.concatenate(arrays, axis)
    return call.c.concat([as_value(call.c, i) for i in items], axis)


@converts("SplitToSequence", limits="computed sizes")
def split(call: Call) -> Results:
    x = call.tensor(0)
    axis = call.axis(0, len(x.shape))
    size = x.shape[axis]
    given = np.asarray(call.setting("split", 1, 1))
    check_runs(given.size if given.ndim else -(-size // max(int(given), 1)))
    sizes = (
        given.tolist()
        if given.ndim
        else [min(int(given), size - k) for k in range(0, size, max(int(given), 1))]
    )
    if sum(sizes) != size or min(sizes) < 1:
        raise Refused(f"parts of {sizes} do not make up the {size} elements of axis {axis}")
    drop = not call.has(1) and not call.attr("keepdims", 1)
    items: list[Tensor] = []
    for end, n in zip(np.cumsum(sizes), sizes, strict=True):
        if isinstance(x, np.ndarray):
            taken = np.take(x, range(int(end) - n, int(end)), axis)
            items.append(taken.squeeze(axis) if drop else taken)
        else:
            part = call.c.slice(x, axis, int(end) - n, int(end))
            items.append(call.c.reshape(part, x.shape[:axis] + x.shape[axis + 1 :]) if drop else part)
    return [TensorList(tuple(items))]
