"""Converters of ONNX operators that contract an axis or slide a window: products, convolutions, pools, reductions,
norms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltc_compiler.frontend.compose import Refused
from ltc_compiler.frontend.compounds import (
    convolution,
    logsumexp,
    matmul,
    normalise,
    pad,
    pooled,
    running_sum,
    softmax,
    standardise,
    window_counts,
)
from ltc_compiler.frontend.transposed import transposed_convolution
from ltc_compiler.ir.graph import Array, Value
from ltc_compiler.onnx.call import Call, Results
from ltc_compiler.onnx.registry import converts

# ---------------------------------------------------------------- products


@converts("MatMul")
def matmul_(call: Call) -> Results:
    return matmul(call.c, call.value(0), call.value(1))


@converts("Gemm")
def gemm(call: Call) -> Results:
    c, alpha, beta = call.c, call.attr("alpha", 1.0), call.attr("beta", 1.0)
    a, b = (
        c.permute(call.value(i), (1, 0)) if call.attr(f"trans{n}", 0) else call.value(i)
        for i, n in ((0, "A"), (1, "B"))
    )
    weight = b.constant()
    if weight is None:
        y = matmul(c, a, b)
        y = y if alpha == 1 else c.add("mul", y, alpha)
        return c.add("add", y, _scaled(call, beta)) if call.has(2) else y
    offset = call.value(2).constant() if call.has(2) else None
    columns = weight.shape[1]
    if offset is not None and offset.size in (1, columns) and offset.shape[-1:] in ((), (1,), (columns,)):
        bias = np.broadcast_to(offset.reshape(-1), (columns,)) * beta
        return c.linear(a, weight.T * alpha, bias)
    y = c.linear(a, weight.T * alpha)
    return c.add("add", y, _scaled(call, beta)) if call.has(2) else y


def _scaled(call: Call, beta: float) -> Value:
    return call.value(2) if beta == 1 else call.c.add("mul", call.value(2), beta)


@converts("Einsum", limits="repeated letters, an ellipsis, or more than two operands")
def einsum(call: Call) -> Results:
    """One or two operands; two are brought to (batch, left, K) and (batch, K, right)."""
    equation = str(call.attr("equation")).replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    letters = "".join(terms)
    if "." in equation or any(len(set(t)) < len(t) for t in terms) or len(terms) > 2:
        raise Refused(f"einsum {equation!r}", "MatMul, ReduceSum and Transpose")
    output = output if arrow else "".join(sorted(x for x in set(letters) if letters.count(x) == 1))
    parts = [_kept(call, call.value(i), t, letters, output) for i, t in enumerate(terms)]
    if len(parts) == 1:
        value, term = parts[0]
        return call.c.permute(value, [term.index(x) for x in output])
    (a, s), (b, t) = parts
    sizes = dict(zip(s + t, a.shape + b.shape, strict=True))
    batch = [x for x in s if x in t and x in output]
    k = [x for x in s if x in t and x not in output]
    left, right = [x for x in s if x not in t], [x for x in t if x not in s]

    def grouped(value: Value, term: str, *groups: list[str]) -> Value:
        value = call.c.permute(value, [term.index(x) for group in groups for x in group])
        heads = [sizes[x] for x in groups[0]]
        return call.c.reshape(value, [*heads, *(math.prod(sizes[x] for x in group) for group in groups[1:])])

    y = matmul(call.c, grouped(a, s, batch, left, k), grouped(b, t, batch, k, right))
    names = [*batch, *left, *right]
    y = call.c.reshape(y, [sizes[x] for x in names])
    return call.c.permute(y, [names.index(x) for x in output])


def _kept(call: Call, value: Value, term: str, letters: str, output: str) -> tuple[Value, str]:
    """The operand with the letters summed that nothing else reads."""
    gone = [x for x in term if letters.count(x) == 1 and x not in output]
    value = call.c.reduce("sum", value, [term.index(x) for x in gone], False)
    return value, "".join(x for x in term if x not in gone)


# ---------------------------------------------------------------- windows


@dataclass(frozen=True)
class SlidingWindow:
    """The window of a convolution or pool over time, and the padding around the sequence."""

    size: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def reach(self) -> int:
        return (self.size - 1) * self.dilation + 1


def _windows(call: Call, x: Value, kernel: Sequence[int]) -> list[SlidingWindow]:
    """The window of each spatial axis of x, (batch, channels, *spatial)."""
    spatial = x.shape[2:]
    n = len(spatial)
    if len(kernel) != n or n == 0:
        raise Refused(f"a window of {tuple(kernel)} does not fit the axes of {x.shape}")
    strides, dilations = (call.ints(name, default=[1] * n) or () for name in ("strides", "dilations"))
    pads = call.ints("pads", default=[0] * (2 * n)) or ()
    if (
        len(strides) != n
        or len(dilations) != n
        or len(pads) != 2 * n
        or min((*strides, *dilations, *kernel)) < 1
    ):
        raise Refused("strides, dilations or pads do not fit the axes of the window")
    found = []
    for i, settings in enumerate(zip(kernel, strides, dilations, strict=True)):
        sides = _padding(call, spatial[i], *settings, pads[i], pads[n + i])
        found.append(SlidingWindow(*settings, *sides))
    return found


def _padding(
    call: Call, size: int, kernel: int, stride: int, dilation: int, before: int, after: int
) -> tuple[int, int]:
    auto = call.attr("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return before, after
    if auto == "VALID":
        return 0, 0
    total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    small = total // 2
    return (small, total - small) if auto == "SAME_UPPER" else (total - small, small)


@converts("Conv", limits="a computed weight")
def conv(call: Call) -> Results:
    x, kernel = call.x, call.array(1, "W").astype(np.float64)
    slides = _windows(call, x, kernel.shape[2:])
    bias = call.weight(2, "B", 1) if call.has(2) else None
    for i, w in enumerate(slides):
        x = pad(call.c, x, 2 + i, w.before, w.after) if w.before or w.after else x
    strides, dilations = [w.stride for w in slides], [w.dilation for w in slides]
    return convolution(call.c, x, kernel, bias, strides, dilations, int(call.attr("group", 1)))


@converts("ConvTranspose", limits="a computed weight")
def conv_transpose(call: Call) -> Results:
    """Output positions are cut off by the pads, or by what output_shape leaves too many; output_padding adds some."""
    x, kernel = call.x, call.array(1, "W").astype(np.float64)
    n = kernel.ndim - 2
    strides, dilations = (call.ints(name, default=[1] * n) or () for name in ("strides", "dilations"))
    more = call.ints("output_padding", default=[0] * n) or ()
    if len(x.shape) != kernel.ndim or n < 1 or {len(strides), len(dilations), len(more)} != {n}:
        raise Refused("strides, dilations or output_padding do not fit the axes of the kernel")
    wanted, given = call.ints("output_shape"), call.ints("pads", default=[0] * (2 * n)) or ()
    auto, pads = str(call.attr("auto_pad", "NOTSET")), []
    for i, (size, stride, dilation) in enumerate(zip(x.shape[2:], strides, dilations, strict=True)):
        full = (size - 1) * stride + (kernel.shape[2 + i] - 1) * dilation + 1 + more[i]
        target = wanted[len(wanted) - n + i] if wanted else size * stride if auto.startswith("SAME") else None
        before, after = (0, 0) if auto == "VALID" else (given[i], given[n + i])
        if target is not None:
            total = max(0, full - target)
            small = total // 2
            before, after = (small, total - small) if auto == "SAME_UPPER" else (total - small, small)
            after += min(0, full - target)
        pads.append((before, after - more[i]))
    bias = call.weight(2, "B", 1) if call.has(2) else None
    return transposed_convolution(
        call.c, x, kernel, bias, strides, pads, dilations, int(call.attr("group", 1))
    )


@converts("AveragePool", "MaxPool", limits="the positions that MaxPool found")
def pool(call: Call) -> Results:
    """Axis by axis: a maximum of maxima, a sum of sums."""
    x = call.x
    largest = call.op == "MaxPool"
    scale = np.ones((1,) * len(x.shape))
    for axis, window in enumerate(_windows(call, x, call.ints("kernel_shape") or ()), 2):
        size, count = x.shape[axis], _positions(call, x.shape[axis], window)
        end = max(0, (count - 1) * window.stride + window.reach - size - window.before)
        x = pad(call.c, x, axis, window.before, end, fill=-math.inf if largest else 0.0)
        slides = (window.size, window.stride, window.dilation)
        x = pooled(call.c, x, "max" if largest else "add", axis, *slides)
        real = (window.before, window.before + size)
        if call.attr("count_include_pad", 0):
            real = (0, size + window.before + window.after)
        counts = window_counts(*real, count, *slides)
        scale = scale / np.expand_dims(np.maximum(counts, 1), [a for a in range(scale.ndim) if a != axis])
    if largest:
        return [x, Refused("the positions of a maximum", "use its values alone")]
    even = (scale == scale.flat[0]).all()
    return call.c.add("mul", x, scale.flat[0] if even else scale)


def _positions(call: Call, size: int, window: SlidingWindow) -> int:
    """Places of a window on a padded axis."""
    spare = size + window.before + window.after - window.reach
    count = (-(-spare // window.stride) if call.attr("ceil_mode", 0) else spare // window.stride) + 1
    # a window that starts in the padding at the end is left out
    return count - ((count - 1) * window.stride >= size + window.before)


@converts("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> Results:
    axes = range(2, len(call.x.shape))
    return (
        call.c.mean(call.x, axes, True) if "Average" in call.op else call.c.reduce("amax", call.x, axes, True)
    )


# ---------------------------------------------------------------- reductions


def _axes(call: Call) -> Sequence[int]:
    axes = call.ints("axes", 1)
    if axes:
        return axes
    return () if call.attr("noop_with_empty_axes", 0) else range(len(call.x.shape))


@converts("ReduceProd")
def product(call: Call) -> Results:
    """Half of an axis times the other half, until one element is left."""
    c, x, keep = call.c, call.x, bool(call.attr("keepdims", 1))
    axes = sorted({a % len(x.shape) for a in _axes(call)})
    for axis in axes:
        while (size := x.shape[axis]) > 1:
            half = size // 2
            y = c.add("mul", c.slice(x, axis, 0, half), c.slice(x, axis, half, 2 * half))
            x = c.concat([y, c.slice(x, axis, size - 1, size)], axis) if size % 2 else y
    return x if keep else c.reshape(x, [d for i, d in enumerate(x.shape) if i not in axes])


@converts("LpNormalization")
def lp_normalization(call: Call) -> Results:
    """x over its 1- or 2-norm along an axis; 0 where the norm is 0."""
    c, x, axis, p = call.c, call.x, call.axis(-1), int(call.attr("p", 2))
    if p not in (1, 2):
        raise Refused(f"a norm of order {p}", "1 or 2")
    sums = c.reduce("sum", c.add("abs", x) if p == 1 else c.add("mul", x, x), [axis], True)
    norm = sums if p == 1 else c.add("sqrt", sums)
    nothing = c.add("eq", norm, 0.0)
    return c.add("select", nothing, 0.0, c.add("div", x, c.add("select", nothing, 1.0, norm)))


@converts(
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
)
def reductions(call: Call) -> Results:
    c, x, axes, keep = call.c, call.x, _axes(call), bool(call.attr("keepdims", 1))
    kind = call.op.removeprefix("Reduce")
    if kind == "Mean":
        return c.mean(x, axes, keep)
    if kind == "Max":
        return c.reduce("amax", x, axes, keep)
    if kind == "Min":
        return c.add("neg", c.reduce("amax", c.add("neg", x), axes, keep))
    if kind == "LogSumExp":
        return logsumexp(c, x, axes, keep)
    term = {
        "L1": lambda: c.add("abs", x),
        "L2": lambda: c.add("mul", x, x),
        "SumSquare": lambda: c.add("mul", x, x),
    }
    y = c.reduce("sum", term.get(kind, lambda: x)(), axes, keep)
    final = {"L2": "sqrt", "LogSum": "log"}.get(kind)
    return y if final is None else c.add(final, y)


@converts("Softmax", "LogSoftmax")
def softmax_(call: Call) -> Results:
    """From opset 13 on over one axis; before, over all axes from `axis` on."""
    rank = len(call.x.shape)
    axis = call.axis(-1 if call.opset >= 13 else 1)
    axes = [axis] if call.opset >= 13 else list(range(axis, rank))
    return softmax(call.c, call.x, axes, log=call.op == "LogSoftmax")


@converts("CumSum")
def cumsum(call: Call) -> Results:
    axis = int(call.array(1, "axis").reshape(())) % len(call.x.shape)
    backward = bool(call.attr("reverse", 0))
    x = call.c.flip(call.x, axis) if backward else call.x
    y = running_sum(call.c, x, axis, exclusive=bool(call.attr("exclusive", 0)))
    return call.c.flip(y, axis) if backward else y


# ---------------------------------------------------------------- norms


def _affine(call: Call, x: Value, scale: Value | Array | None, offset: Value | Array | None) -> Value:
    x = x if scale is None else call.c.add("mul", x, scale)
    return x if offset is None else call.c.add("add", x, offset)


def _column(call: Call, index: int, rank: int) -> Value:
    """An input with one element a channel, axis 1, shaped to be multiplied with x."""
    value = call.value(index)
    return call.c.reshape(value, (value.type.size, *[1] * (rank - 2)))


@converts("BatchNormalization", limits="training mode; computed statistics")
def batch_norm(call: Call) -> Results:
    if call.attr("training_mode", 0):
        raise Refused("it uses the statistics of its batch", "export the model in evaluation mode")
    scale, offset, mean, var = (
        call.weight(i, n, 1) for i, n in ((1, "scale"), (2, "B"), (3, "mean"), (4, "var"))
    )
    shape = (-1, *[1] * (len(call.x.shape) - 2))
    factor = scale / np.sqrt(var + call.attr("epsilon", 1e-5))
    return _affine(call, call.x, factor.reshape(shape), (offset - mean * factor).reshape(shape))


@converts("LayerNormalization")
def layer_norm(call: Call) -> Results:
    rank = len(call.x.shape)
    axes = range(call.axis(-1), rank)
    y, mean, scale = standardise(call.c, call.x, axes, call.attr("epsilon", 1e-5))
    return [_affine(call, y, call.value(1), call.value(2) if call.has(2) else None), mean, scale]


@converts("RMSNormalization")
def rms_norm(call: Call) -> Results:
    axes = range(call.axis(-1), len(call.x.shape))
    return _affine(call, normalise(call.c, call.x, axes, call.attr("epsilon", 1e-5)), call.value(1), None)


@converts("InstanceNormalization")
def instance_norm(call: Call) -> Results:
    rank = len(call.x.shape)
    y, _, _ = standardise(call.c, call.x, range(2, rank), call.attr("epsilon", 1e-5))
    return _affine(call, y, _column(call, 1, rank), _column(call, 2, rank))


@converts("GroupNormalization", limits="before opset 21")
def group_norm(call: Call) -> Results:
    x, groups = call.x, int(call.attr("num_groups"))
    batch, channels, *rest = x.shape
    if groups < 1 or channels % groups:
        raise Refused(f"{channels} channels do not make {groups} groups")
    grouped = call.c.reshape(x, (batch, groups, channels // groups * math.prod(rest)))
    y, _, _ = standardise(call.c, grouped, (2,), call.attr("epsilon", 1e-5))
    y = call.c.reshape(y, x.shape)
    return _affine(call, y, _column(call, 1, len(x.shape)), _column(call, 2, len(x.shape)))
