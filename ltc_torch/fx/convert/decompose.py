"""Converters of compound torch functions: reductions, norms, softmax, attention, pooling, in terms of NNIR ops.

Constants fold in fp64. Reductions run over one axis at a time, from the last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ltc_compiler.frontend import compounds
from ltc_compiler.frontend.compounds import finite, matmul, normalise, pooled
from ltc_compiler.frontend.elementary import first_largest
from ltc_compiler.ir.graph import Graph, Value
from ltc_torch.fx.convert.causal import added_by, causal_attention
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.convert.movement import each_axis, pad
from ltc_torch.fx.registry import Refused, converts

Axes = int | Sequence[int] | None


def _count(shape: tuple[int, ...], axes: Axes) -> int:
    if axes is None or (not isinstance(axes, int) and len(axes) == 0):
        return math.prod(shape)
    return math.prod(shape[a] for a in ([axes] if isinstance(axes, int) else axes))


# ---------------------------------------------------------------- reductions


@converts("sum")
def total(c: Emitter, input: Value, dim: Axes = None, keepdim: bool = False) -> Value:
    return c.reduce("sum", input, dim, keepdim)


@converts("mean")
def mean(c: Emitter, input: Value, dim: Axes = None, keepdim: bool = False) -> Value:
    return c.add("mul", c.reduce("sum", input, dim, keepdim), 1 / _count(input.shape, dim))


@converts("amax", "amin")
def amax(c: Emitter, input: Value, dim: Axes = None, keepdim: bool = False) -> Value:
    if c.target == "amax":
        return c.reduce("amax", input, dim, keepdim)
    return c.add("neg", c.reduce("amax", c.add("neg", input), dim, keepdim))


@converts("max", "min")
def largest(c: Emitter, input: Value, dim: Any = None, keepdim: bool = False, other: Any = None) -> Any:
    if isinstance(dim, Value) or other is not None:
        return c.add(c.target, input, dim if other is None else other)
    x = c.add("neg", input) if c.target == "min" else input
    x = c.reduce("amax", x, dim, keepdim)
    x = c.add("neg", x) if c.target == "min" else x
    return x if dim is None else (x, first_largest(c, input, dim, keepdim, c.target == "min"))


@converts("var", "std", "var_mean", "std_mean")
def variance(
    c: Emitter,
    input: Value,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Any:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    count = _count(input.shape, dim)
    middle, centred = _centred(c, input, dim)
    squares = c.reduce("sum", c.add("mul", centred, centred), dim, keepdim)
    y = c.add("mul", squares, 1 / (count - (float(unbiased) if correction is None else correction)))
    y = c.add("sqrt", y) if c.target.startswith("std") else y
    return (y, c.reshape(middle, y.shape)) if c.target.endswith("mean") else y


def _centred(c: Emitter, x: Value, axes: Axes) -> tuple[Value, Value]:
    middle = c.add("mul", c.reduce("sum", x, axes, True), 1 / _count(x.shape, axes))
    return middle, c.add("sub", x, middle)


@converts("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
def running(c: Emitter, input: Value, dim: int) -> Any:
    """A scan that carries the sum, the product, the extreme, or the largest exponent and the sum beside it."""
    axis = dim % len(input.shape)
    shape = input.shape[:axis] + input.shape[axis + 1 :]
    target = c.target
    starts = {"cumsum": [0.0], "cumprod": [1.0], "cummax": [-math.inf], "cummin": [math.inf]}.get(
        target, [-math.inf, 0.0]
    )
    firsts = [c.value(np.full(shape, start)) for start in starts]
    b = c.body(Graph(target))
    states = [b.graph.add_input(first.type, f"running_{i}") for i, first in enumerate(firsts)]
    now = b.graph.add_input(firsts[0].type, "now")
    if target == "logcumsumexp":
        top = b.add("max", states[0], now)
        shift = finite(b, top)
        total = b.add("mul", states[1], b.add("exp", b.add("sub", states[0], shift)))
        total = b.add("add", total, b.add("exp", b.add("sub", now, shift)))
        results = [top, total, b.add("add", shift, b.add("log", total))]
    else:
        op = {"cumsum": "add", "cumprod": "mul", "cummax": "max", "cummin": "min"}[target]
        results = [b.add(op, states[0], now)] * 2
    for i, result in enumerate(results):
        b.graph.add_output(result, f"running_{i}" if i < len(states) else "y")
    count = {"carries": len(states), "scanned": 1, "trip_count": input.shape[axis]}
    made = c.add_many("scan", [*firsts, input], body=b.graph, in_axes=(axis,), out_axes=(axis,), **count)[-1]
    if target in ("cummax", "cummin"):
        return made, Refused("positions of a maximum or minimum", "use its values alone")
    return made


# ---------------------------------------------------------------- softmax and norms


@converts("softmax", "log_softmax", "softmin")
def softmax(c: Emitter, input: Value, dim: int | None = None, *_: Any, **kwargs: Any) -> Value:
    axis = kwargs.get("axis", dim)
    if axis is None:
        axis = 0 if len(input.shape) in (0, 1, 3) else 1
    x = c.add("neg", input) if c.target == "softmin" else input
    weights = compounds.softmax(c, x, (axis,), log=c.target == "log_softmax")
    if c.target == "softmax" and axis in (-1, len(x.shape) - 1):
        c.softmaxes[weights] = x
    return weights


@converts("logsumexp")
def logsumexp(c: Emitter, input: Value, dim: Axes, keepdim: bool = False) -> Value:
    return compounds.logsumexp(c, input, (dim,) if isinstance(dim, int) else tuple(dim or ()), keepdim)


def _affine(c: Emitter, x: Value, weight: Any, bias: Any) -> Value:
    x = x if weight is None else c.add("mul", x, weight)
    return x if bias is None else c.add("add", x, bias)


def _standardised(
    c: Emitter, x: Value, axes: Sequence[int], eps: float, weight: Value | None = None
) -> Value:
    _, centred = _centred(c, x, axes)
    return _normalised(c, centred, axes, eps, weight)


def _normalised(c: Emitter, x: Value, axes: Sequence[int], eps: float, weight: Value | None) -> Value:
    factor = None if weight is None else weight.constant()
    y = normalise(c, x, axes, eps, factor)
    return y if weight is None or factor is not None else c.add("mul", y, weight)


@converts("layer_norm")
def layer_norm(
    c: Emitter,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Value:
    axes = tuple(range(-len(normalized_shape), 0))
    return _affine(c, _standardised(c, input, axes, eps, weight), None, bias)


@converts("rms_norm")
def rms_norm(
    c: Emitter,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Any = None,
    eps: float | None = None,
) -> Value:
    axes = tuple(range(-len(normalized_shape), 0))
    return _normalised(c, input, axes, torch.finfo(c.dtype).eps if eps is None else eps, weight)


@converts("batch_norm", "instance_norm")
def batch_norm(
    c: Emitter,
    input: Value,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    **kwargs: Any,
) -> Value:
    """Running statistics fold with the affine part to one factor and one offset per channel (axis 1)."""
    rank = len(input.shape)
    shape = (-1, *[1] * (rank - 2))
    columns = [None if v is None else np.asarray(v.constant()).reshape(shape) for v in (weight, bias)]
    if c.target == "instance_norm" and (running_mean is None or kwargs.get("use_input_stats", training)):
        return _affine(c, _standardised(c, input, tuple(range(2, rank)), eps), *columns)
    if running_mean is None or training:
        raise Refused("a batch norm that uses the statistics of its batch", "running statistics: eval mode")
    mean, var = (np.asarray(v.constant()).reshape(shape) for v in (running_mean, running_var))
    factor = (1.0 if columns[0] is None else columns[0]) / np.sqrt(var + eps)
    return _affine(c, input, factor, (0.0 if columns[1] is None else columns[1]) - mean * factor)


@converts("group_norm")
def group_norm(
    c: Emitter,
    input: Value,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    batch, channels, *rest = input.shape
    grouped = c.reshape(input, (batch, num_groups, channels // num_groups * math.prod(rest)))
    x = c.reshape(_standardised(c, grouped, (-1,), eps), input.shape)
    columns = [None if v is None else c.reshape(v, (channels, *[1] * len(rest))) for v in (weight, bias)]
    return _affine(c, x, *columns)


@converts("glu")
def glu(c: Emitter, input: Value, dim: int = -1) -> Value:
    half = input.shape[dim] // 2
    gate = c.add("sigmoid", c.slice(input, dim, half, 2 * half))
    return c.add("mul", c.slice(input, dim, 0, half), gate)


@converts("scaled_dot_product_attention")
def attention(
    c: Emitter,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    if enable_gqa:
        raise Refused("scaled_dot_product_attention with enable_gqa", "repeat_interleave the keys and values")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    query = c.add("mul", query, factor)
    rank = len(key.shape)
    added = added_by(c, key.shape[-2], is_causal, attn_mask)
    ring = causal_attention(c, query, key, value, added)
    if ring is not None:
        return ring
    scores = matmul(c, query, c.permute(key, (*range(rank - 2), rank - 1, rank - 2)))
    if is_causal:
        mask = np.tril(np.ones(scores.shape[-2:]))
        scores = c.add("select", mask, scores, -math.inf)
    hidden = False
    if attn_mask is not None:
        masked = c.is_mask(attn_mask)
        scores = c.add("select", attn_mask, scores, -math.inf) if masked else c.add("add", scores, attn_mask)
        known = c.value(attn_mask).constant()
        hidden = known is None or bool((known == (0 if masked else -math.inf)).all(-1).any())
    return matmul(c, compounds.softmax(c, scores, (-1,), hidden=hidden), value)


# ---------------------------------------------------------------- pooling


# What else torch's pools take, with the defaults: no other values are converted.
_LARGEST: tuple[tuple[str, Any], ...] = (("dilation", 1), ("ceil_mode", False))
_AVERAGES: tuple[tuple[str, Any], ...] = (
    ("ceil_mode", False),
    ("count_include_pad", True),
    ("divisor_override", None),
)


@converts(*(f"{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)))
def pool(
    c: Emitter,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *args: Any,
    **kwargs: Any,
) -> Value:
    """Axis by axis: a maximum of maxima, a sum of sums."""
    axes = int(c.target[-2])
    sizes, sides = each_axis(kernel_size, axes), each_axis(padding, axes)
    steps = each_axis(stride, axes) if stride not in (None, [], ()) else sizes
    largest = c.target.startswith("max")
    settings = _LARGEST if largest else _AVERAGES
    given = {name: args[i] if i < len(args) else kwargs.get(name, d) for i, (name, d) in enumerate(settings)}
    changed = any((np.atleast_1d(given[name]) != default).any() for name, default in settings)
    extra = args[len(settings) :] if largest else ()
    if changed or any(extra) or kwargs.get("return_indices"):
        names = ", ".join(name for name, _ in settings)
        raise Refused(f"{c.target} with {names} or return_indices other than their defaults", "the defaults")
    around = [s for side in reversed(sides) for s in (side, side)]
    x = pad(c, input, around, value=-math.inf if largest else 0.0) if any(sides) else input
    for i, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        x = pooled(c, x, "max" if largest else "add", len(x.shape) - axes + i, size, step, 1)
    return x if largest else c.add("mul", x, 1 / math.prod(sizes))


@converts(*(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)))
def adaptive_pool(c: Emitter, input: Value, output_size: Any, return_indices: bool = False) -> Value:
    """Windows as torch lays them on every axis: from floor(i L / n) to ceil((i + 1) L / n)."""
    axes = int(c.target[-2])
    if return_indices:
        raise Refused(f"{c.target} with return_indices", "use its values alone")
    counts = list(output_size) if isinstance(output_size, (list, tuple)) else [output_size] * axes
    x = input
    for i, count in enumerate(counts * axes if len(counts) == 1 else counts):
        axis = len(input.shape) - axes + i
        x = _adaptive(c, x, axis, x.shape[axis] if count is None else int(count))
    return x


def _adaptive(c: Emitter, x: Value, axis: int, count: int) -> Value:
    length, parts = x.shape[axis], []
    largest = "max" in c.target
    if length % count == 0:
        size = length // count
        x = pooled(c, x, "max" if largest else "add", axis, size, size, 1)
        return x if largest else c.add("mul", x, 1 / size)
    for i in range(count):
        start, stop = i * length // count, -(-(i + 1) * length // count)
        part = c.reduce("amax" if largest else "sum", c.slice(x, axis, start, stop), axis, True)
        parts.append(part if largest else c.add("mul", part, 1 / (stop - start)))
    return c.concat(parts, axis)
