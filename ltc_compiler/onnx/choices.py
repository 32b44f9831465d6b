"""Converters of ONNX operators that choose by size or by number: positions of extremes, one-hot vectors.

Positions are whole numbers in ONNX, and plain numbers here: `Call.whole` says which values are such.
"""

from __future__ import annotations

import numpy as np

from ltc_compiler.frontend.compose import Composer, Refused, check_size
from ltc_compiler.frontend.elementary import first_largest
from ltc_compiler.ir.graph import Value
from ltc_compiler.onnx.call import Call, Results
from ltc_compiler.onnx.registry import converts


@converts("ArgMax", "ArgMin")
def extreme(call: Call) -> Results:
    axis = call.axis(0)
    check_size(call.x.shape[axis])
    keep, last = bool(call.attr("keepdims", 1)), bool(call.attr("select_last_index", 0))
    x = call.c.flip(call.x, axis) if last else call.x
    y = first_largest(call.c, x, axis, keep, smallest=call.op == "ArgMin")
    return call.whole(call.c.add("sub", x.shape[axis] - 1.0, y) if last else y)


@converts("Hardmax")
def hardmax(call: Call) -> Results:
    """From opset 13 on over one axis; before, over all axes from `axis` on."""
    x, axis = call.x, call.axis(-1 if call.opset >= 13 else 1)
    check_size(*x.shape)
    if call.opset < 13:
        flat = call.c.reshape(x, (*x.shape[:axis], int(np.prod(x.shape[axis:]))))
        return call.c.reshape(
            _one_hot(call.c, first_largest(call.c, flat, axis, True), axis, flat.shape[-1]), x.shape
        )
    return _one_hot(call.c, first_largest(call.c, x, axis, True), axis, x.shape[axis])


def _one_hot(c: Composer, position: Value, axis: int, depth: int) -> Value:
    """1 at a position of an axis, whose size is 1 in `position`, and 0 elsewhere."""
    steps = np.arange(depth).reshape(-1, *[1] * (len(position.shape) - 1 - axis))
    return c.add("eq", position, steps)


@converts("OneHot", limits="a computed depth")
def one_hot(call: Call) -> Results:
    """Indices count from the end where they are negative; those that are out of range give `off` alone."""
    c, x, depth = call.c, call.x, int(call.array(1, "depth").reshape(-1)[0])
    axis = call.axis(-1, len(x.shape) + 1)
    if not 1 <= depth <= 1 << 16:
        raise Refused(f"a depth of {depth}", "1 to 65536")
    position = c.unsqueeze(x, axis)
    hit = _one_hot(
        c,
        c.add("select", c.add("lt", position, 0.0), c.add("add", position, float(depth)), position),
        axis,
        depth,
    )
    values = call.value(2, "values")
    return c.add("select", hit, c.select(values, 0, 1), c.select(values, 0, 0))
