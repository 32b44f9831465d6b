"""Converters that cut windows out of tensors, Tensor.unfold along one axis, F.unfold and F.fold over images, and those
that shuffle channels and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Value
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.convert.movement import each_axis, pad
from ltc_torch.fx.registry import converts


@converts("unfold")
def unfold(c: Emitter, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Two functions of one name: the tensor's method cuts windows of one axis, F.unfold patches of an image."""
    return _windows(c, input, *args, **kwargs) if c.is_method else _patches(c, input, *args, **kwargs)


def _windows(c: Emitter, input: Value, dimension: int, size: int, step: int) -> Value:
    axis = dimension % len(input.shape)
    count = (input.shape[axis] - size) // step + 1
    taps = [c.slice(input, axis, k, k + (count - 1) * step + 1, step) for k in range(size)]
    rank = len(input.shape)
    return c.concat([c.unsqueeze(t, rank) for t in taps], rank)


def _patches(
    c: Emitter, input: Value, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Value:
    """(batch, channels, height, width) -> (batch, channels * taps, patches), unbatched too."""
    kernel, dilations, sides, strides = (each_axis(s, 2) for s in (kernel_size, dilation, padding, stride))
    x = pad(c, input, _both_sides(sides)) if any(sides) else input
    *lead, channels, height, width = x.shape
    counts = _counts((height, width), kernel, dilations, strides)
    taps = []
    for tap in product(*map(range, kernel)):
        part = x
        for k in range(2):
            start = tap[k] * dilations[k]
            stop = start + (counts[k] - 1) * strides[k] + 1
            part = c.slice(part, len(lead) + 1 + k, start, stop, strides[k])
        taps.append(c.unsqueeze(part, len(lead) + 1))
    windows = c.concat(taps, len(lead) + 1)  # height and width are axes still: one of them may be a sequence
    return c.reshape(windows, (*lead, channels * len(taps), counts[0] * counts[1]))


@converts("fold")
def fold(
    c: Emitter,
    input: Value,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Value:
    """The sum of overlapping patches, (batch, channels * taps, patches) -> (batch, channels, height, width)."""
    kernel, dilations, sides, strides = (each_axis(s, 2) for s in (kernel_size, dilation, padding, stride))
    size = [n + 2 * p for n, p in zip(each_axis(output_size, 2), sides, strict=True)]
    counts = _counts(size, kernel, dilations, strides)
    *lead, rows, _ = input.shape
    channels, rank = rows // (kernel[0] * kernel[1]), len(lead) + 3
    patches = c.reshape(input, (*lead, channels, kernel[0] * kernel[1], *counts))
    total: Value | None = None
    for i, tap in enumerate(product(*map(range, kernel))):
        part = c.select(patches, len(lead) + 1, i)
        around = []
        for k in range(2):
            axis, start = rank - 2 + k, tap[k] * dilations[k]
            part = _spread(c, part, axis, strides[k])
            around += [start, size[k] - start - part.shape[axis]]
        part = pad(c, part, around[2:] + around[:2])
        total = part if total is None else c.add("add", total, part)
    assert total is not None
    return pad(c, total, [-n for n in _both_sides(sides)])


@converts("pixel_shuffle")
def pixel_shuffle(c: Emitter, input: Value, upscale_factor: int) -> Value:
    """(..., channels * r * r, height, width) -> (..., channels, height * r, width * r), with r the factor."""
    *lead, channels, height, width = input.shape
    n, r = len(lead), upscale_factor
    parts = c.reshape(input, (*lead, channels // (r * r), r, r, height, width))
    moved = c.permute(parts, (*range(n + 1), n + 3, n + 1, n + 4, n + 2))
    return c.reshape(moved, (*lead, channels // (r * r), height * r, width * r))


@converts("pixel_unshuffle")
def pixel_unshuffle(c: Emitter, input: Value, downscale_factor: int) -> Value:
    """The inverse of pixel_shuffle."""
    *lead, channels, height, width = input.shape
    n, r = len(lead), downscale_factor
    parts = c.reshape(input, (*lead, channels, height // r, r, width // r, r))
    moved = c.permute(parts, (*range(n + 1), n + 2, n + 4, n + 1, n + 3))
    return c.reshape(moved, (*lead, channels * r * r, height // r, width // r))


@converts("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(c: Emitter, input: Value, groups: int) -> Value:
    """(batch, channels, ...), the channels interleaved by group."""
    batch, channels, *rest = input.shape
    parts = c.reshape(input, (batch, groups, channels // groups, *rest))
    return c.reshape(c.move(parts, 2, 1), input.shape)


def _spread(c: Emitter, x: Value, axis: int, stride: int) -> Value:
    """`stride` - 1 zeros between the elements of an axis."""
    if stride == 1 or x.shape[axis] == 1:
        return x
    shape, count = x.shape, x.shape[axis]
    zeros = np.zeros((*shape[: axis + 1], stride - 1, *shape[axis + 1 :]))
    wide = c.concat([c.unsqueeze(x, axis + 1), zeros], axis + 1)
    joined = c.reshape(wide, (*shape[:axis], count * stride, *shape[axis + 1 :]))
    return c.slice(joined, axis, 0, (count - 1) * stride + 1)


def _both_sides(sides: Sequence[int]) -> list[int]:
    """Padding of an image as F.pad takes it: the last axis first."""
    return [sides[1], sides[1], sides[0], sides[0]]


def _counts(
    size: Sequence[int], kernel: Sequence[int], dilations: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """How many patches lie along each axis."""
    return [
        (n - d * (k - 1) - 1) // s + 1 for n, k, d, s in zip(size, kernel, dilations, strides, strict=True)
    ]
