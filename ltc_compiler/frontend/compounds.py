"""Compound operations that several model formats have, written once in terms of NNIR ops.

Products, windows, padding, softmax, norms and running sums. Rewrites that are not exact in real arithmetic
are not used. Shapes follow the usual layout: (batch, channels, time) for windows, the last two axes for products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.ir.graph import Array, Graph, Value

TAPS_LIMIT = 4096  # elements of one window

# ---------------------------------------------------------------- products


def matmul(c: Composer, a: Value, b: Value) -> Value:
    """(..., M, K) times (..., K, N), where either may have one axis. A constant matrix makes it a `linear`."""
    if not a.shape or not b.shape:
        raise Refused("a matrix product with a number", "Mul")
    if len(a.shape) == 1:
        y = matmul(c, c.unsqueeze(a, 0), b)
        return c.reshape(y, y.shape[:-2] + y.shape[-1:] if len(b.shape) > 1 else ())
    if len(b.shape) == 1:
        y = matmul(c, a, c.unsqueeze(b, 1))
        return c.reshape(y, y.shape[:-1])
    right, left = b.constant(), a.constant()
    if right is not None and right.ndim == 2:
        return c.linear(a, np.ascontiguousarray(right.T))
    if left is not None and left.ndim == 2:
        return c.move(c.linear(c.move(b, -2, len(b.shape) - 1), left), -1, len(b.shape) - 2)
    if a.shape[-1] != b.shape[-2]:
        raise Refused(f"the product of {a.shape} and {b.shape} does not fit")
    rows = c.unsqueeze(a, len(a.shape) - 1)  # (..., M, 1, K)
    if b.node is not None and b.node.op == "permute":  # a transposition to be undone
        columns = c.unsqueeze(c.move(b, -1, len(b.shape) - 2), len(b.shape) - 2)  # (..., 1, N, K)
    else:
        columns = c.move(c.unsqueeze(b, len(b.shape) - 2), -1, len(b.shape) - 1)
    product = c.add("mul", rows, columns)
    return c.add("sum", product, axis=len(product.shape) - 1, keepdims=False)


# ---------------------------------------------------------------- windows


def pad(
    c: Composer, x: Value, axis: int, before: int, after: int, mode: str = "constant", fill: float = 0
) -> Value:
    """Widen one axis, or cut it where a width is negative. mode: constant, or numpy.pad's edge, reflect, wrap."""
    axis %= len(x.shape)
    size = x.shape[axis]
    if min(before, after) < 0:
        x = c.slice(x, axis, max(0, -before), size - max(0, -after))
    before, after = max(before, 0), max(after, 0)
    if mode != "constant":
        positions = np.pad(np.arange(x.shape[axis]), (before, after), mode=mode)  # type: ignore[call-overload]
        return c.gather(x, axis, positions)
    sides = [c.full((*x.shape[:axis], n, *x.shape[axis + 1 :]), fill) if n else None for n in (before, after)]
    return c.concat([p for p in (sides[0], x, sides[1]) if p is not None], axis)


def taps(c: Composer, x: Value, axis: int, size: int, stride: int, dilation: int) -> list[Value]:
    """For every tap of a window, the elements of the axis that it meets as the window moves."""
    count = (x.shape[axis] - (size - 1) * dilation - 1) // stride + 1
    if count < 1:
        raise Refused(f"{x.shape[axis]} elements are fewer than the window reaches over")
    if size > TAPS_LIMIT:
        raise Refused(f"a window of {size} taps is longer than {TAPS_LIMIT}")
    if size == stride == 1:
        return [x]
    span = (count - 1) * stride + 1
    return [c.slice(x, axis, k * dilation, k * dilation + span, stride) for k in range(size)]


def convolution(
    c: Composer,
    x: Value,
    kernel: Array,
    bias: Array | None,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> Value:
    """x (..., channels, *spatial), kernel (out, channels / groups, *taps) -> (..., out, *spatial); no padding here."""
    out, width = kernel.shape[:2]
    axes = kernel.ndim - 2
    channels = len(x.shape) - axes - 1
    if groups < 1 or x.shape[channels] != width * groups or out % groups:
        raise Refused(
            f"{groups} groups of {width} channels do not fit {x.shape[channels]} inputs and {out} outputs"
        )
    if axes > 1 and _band_pays(x.shape, kernel.shape) and not width == 1 < groups:
        band = _band(kernel, x.shape[-1], strides[-1], dilations[-1])
        rows = c.move(x, channels, len(x.shape) - 2)  # (..., H, channels, W)
        rows = c.reshape(rows, (*rows.shape[:-2], rows.shape[-2] * rows.shape[-1]))
        bias = None if bias is None else np.repeat(bias, len(band) // out)
        y = _over_rows(c, rows, band, bias, strides[:-1], dilations[:-1], groups)
        return c.move(c.reshape(y, (*y.shape[:-1], out, len(band) // out)), -2, channels)
    rows = c.move(x, channels, len(x.shape) - 1)
    return c.move(_over_rows(c, rows, kernel, bias, strides, dilations, groups), -1, channels)


BAND_LIMIT = 4096
BAND_WEIGHTS = 1 << 20  # elements of a band matrix: it has to fit beside everything else


def _band_pays(x: Sequence[int], kernel: Sequence[int]) -> bool:
    """Whether the last axis of an image is short enough to be multiplied whole, by a band matrix with many zeros.

    A machine takes a block of some thousand weights a cycle, or lays one tap of one position beside the others.
    """
    out, width, *taps_, size = kernel
    weights = out * x[-1] * width * x[-1] * math.prod(taps_)
    return x[-1] * out * width <= BAND_LIMIT * size and weights <= BAND_WEIGHTS


def _band(kernel: Array, length: int, stride: int, dilation: int) -> Array:
    """A kernel (out, channels, *taps, K) over an axis of W elements as a matrix (out * W', channels * W, *taps), which
    multiplies the whole axis; W' is the number of positions of the kernel on it.

    The matrix is zero where a tap does not reach. An infinite element of the axis times such a zero is NaN, so all W'
    results of its row are NaN.
    """
    out, width, *taps_, size = kernel.shape
    count = (length - (size - 1) * dilation - 1) // stride + 1
    if count < 1:
        raise Refused(f"{length} elements are fewer than the window reaches over")
    band = np.zeros((out, count, width, length, *taps_))
    for at in range(count):
        for k in range(size):
            band[:, at, :, at * stride + k * dilation] = kernel[..., k]
    return band.reshape(out * count, width * length, *taps_)


def _over_rows(
    c: Composer,
    x: Value,
    kernel: Array,
    bias: Array | None,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> Value:
    """A convolution of rows of channels, (..., *spatial, channels) -> (..., *spatial, out).

    The taps of all axes but the last become channels, so that one window over the last axis is left.
    """
    out, width, *sizes = kernel.shape
    first = len(x.shape) - 1 - len(sizes)
    steps = [(first + i, *window) for i, window in enumerate(zip(sizes, strides, dilations, strict=True))]
    if width == 1 and out == groups > 1:
        meets = [x]
        for step in steps:
            meets = [tap for value in meets for tap in taps(c, value, *step)]
        return _depthwise(c, meets, kernel.reshape(out, -1), bias)
    for step in steps[:-1]:
        x = _side_by_side(c, taps(c, x, *step), groups)
        kernel = np.moveaxis(kernel, 2, 1).reshape(out, -1, *kernel.shape[3:])
    return grouped_window(c, taps(c, x, *steps[-1]), kernel, bias, groups)


def _side_by_side(c: Composer, meets: Sequence[Value], groups: int) -> Value:
    """What each tap meets, (..., channels), as channels (..., groups * taps * channels of a group)."""
    if groups == 1 or len(meets) == 1:
        return c.concat(meets, -1)
    *outer, channels = meets[0].shape
    grouped = [c.reshape(t, (*outer, groups, channels // groups)) for t in meets]
    return c.reshape(c.concat(grouped, -1), (*outer, channels * len(meets)))


def grouped_window(
    c: Composer, meets: Sequence[Value], kernel: Array, bias: Array | None, groups: int
) -> Value:
    """A kernel (out, channels / groups, taps) over what each of its taps meets, (..., channels) -> (..., out)."""
    out, width, _ = kernel.shape
    if width == 1 and out == groups > 1:
        return _depthwise(c, meets, kernel[:, 0], bias)
    narrow = out // groups
    parts = []
    for g in range(groups):
        rows = slice(g * narrow, (g + 1) * narrow)
        own = [c.slice(t, -1, g * width, (g + 1) * width) for t in meets]
        parts.append(_window(c, own, kernel[rows], None if bias is None else bias[rows]))
    return c.concat(parts, -1)


def _window(c: Composer, meets: Sequence[Value], kernel: Array, bias: Array | None) -> Value:
    """The last tap is a product of its own: in a stream it is the new element, and all others are known before."""
    *old, new = meets
    if not old:
        return c.linear(new, kernel[:, :, 0], bias)
    flat = kernel[:, :, :-1].transpose(0, 2, 1).reshape(len(kernel), -1)  # taps outer, channels inner
    return c.add("add", c.linear(new, kernel[:, :, -1]), c.linear(c.concat(old, -1), flat, bias))


def _depthwise(c: Composer, meets: Sequence[Value], kernel: Array, bias: Array | None) -> Value:
    """One kernel per channel: pointwise products, added in the order of the taps to the bias."""
    total: Value | None = None
    for k, tap in enumerate(meets):
        product = c.add("mul", tap, kernel[:, k])
        if total is None:
            total = product if bias is None else c.add("add", product, bias)
        else:
            total = c.add("add", total, product)
    assert total is not None
    return total


def pooled(c: Composer, x: Value, op: str, axis: int, size: int, stride: int, dilation: int) -> Value:
    """The largest element ("max") or the sum ("add") of every window of an axis, in the order of the taps."""
    meets = taps(c, x, axis, size, stride, dilation)
    if meets[0].shape[axis] == 1:  # one window
        span = c.slice(x, axis, 0, (size - 1) * dilation + 1, dilation)
        return c.reduce("amax" if op == "max" else "sum", span, (axis,), True)
    total = meets[0]
    for tap in meets[1:]:
        total = c.add(op, total, tap)
    return total


# ---------------------------------------------------------------- reductions


def softmax(c: Composer, x: Value, axes: Sequence[int], log: bool = False, hidden: bool = False) -> Value:
    """hidden: rows may hold nothing but -inf; these become 0 and not NaN, and no bit of another row changes."""
    top = c.reduce("amax", x, axes, True)
    if hidden:
        top = c.add("select", c.add("eq", top, -math.inf), 0.0, top)
    shifted = c.add("sub", x, top)
    powers = c.add("exp", shifted)
    sums = c.reduce("sum", powers, axes, True)
    if log:
        return c.add("sub", shifted, c.add("log", sums))
    if hidden:
        sums = c.add("max", sums, 1.0)  # it is at least 1 where anything is seen
    return c.add("mul", powers, c.add("reciprocal", sums))


def logsumexp(c: Composer, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """log(sum(e^x)) about the largest element, if that is finite: infinities have their place in the sum."""
    top = finite(c, c.reduce("amax", x, axes, True))
    sums = c.reduce("sum", c.add("exp", c.add("sub", x, top)), axes, True)
    y = c.add("add", c.add("log", sums), top)
    gone = {a % len(x.shape) for a in axes}
    return y if keepdims else c.reshape(y, [d for i, d in enumerate(x.shape) if i not in gone])


def finite(c: Composer, x: Value) -> Value:
    """x, but 0 for an infinity."""
    return c.add("select", c.add("eq", c.add("abs", x), math.inf), 0.0, x)


def normalise(c: Composer, x: Value, axes: Sequence[int], eps: float, weight: Array | None = None) -> Value:
    """weight * x / sqrt(mean(x * x) + eps), with little behind the sum, for which all else waits: a root and a
    division. The division by the count is in the factor of x, as its root."""
    count = math.prod(x.shape[a] for a in axes)
    factor = math.sqrt(count) * (np.ones(()) if weight is None else weight)
    squares = c.reduce("sum", c.add("mul", x, x), axes, True)
    return c.add("div", c.add("mul", x, factor), c.add("sqrt", c.add("add", squares, count * eps)))


def standardise(
    c: Composer, x: Value, axes: Sequence[int], eps: float, weight: Array | None = None
) -> tuple[Value, Value, Value]:
    """weight * (x - mean) / sqrt(variance + eps), the mean, and 1 / sqrt(variance + eps)."""
    middle = c.mean(x, axes, True)
    centred = c.add("sub", x, middle)
    variance = c.mean(c.add("mul", centred, centred), axes, True)
    scale = c.add("rsqrt", c.add("add", variance, eps))
    return normalise(c, centred, axes, eps, weight), middle, scale


def running_sum(c: Composer, x: Value, axis: int, exclusive: bool = False) -> Value:
    """A scan that carries the sum; exclusive leaves the present element out."""
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    zero = c.full(shape, 0.0)
    inner = c.inside(Graph("running_sum"))
    total = inner.graph.add_input(zero.type, "total")
    now = inner.graph.add_input(zero.type, "now")
    new = inner.add("add", total, now)
    inner.graph.add_output(new, "total")
    inner.graph.add_output(total if exclusive else new, "y")
    return c.scan(inner.graph, [zero, x], 1, x.shape[axis], (axis,), (axis,))[1]


def window_counts(low: int, high: int, count: int, window: int, stride: int, dilation: int) -> Array:
    """How many positions from `low` to below `high` each of `count` windows of `window` taps meets."""
    starts = np.arange(count) * stride
    positions = starts[:, None] + np.arange(window) * dilation
    return ((positions >= low) & (positions < high)).sum(1)
