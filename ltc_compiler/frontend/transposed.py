"""Transposed convolutions as one convolution: the positions between two inputs are channels of it.

With a stride s, output s m + r is the sum over q of input m - q times tap s q + r. So the s outputs of every m are one
convolution, with stride 1, of s times the channels; no zeros are put between the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.frontend.compounds import convolution, pad
from ltc_compiler.ir.graph import Array, Value


def transposed_convolution(
    c: Composer,
    x: Value,
    kernel: Array,
    bias: Array | None,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilations: Sequence[int],
    groups: int,
) -> Value:
    """x (..., channels, *spatial), kernel (channels, out / groups, *taps) -> (..., out, *spatial).

    pads: how many positions are cut off before and after each axis; a negative number adds positions there, as an
    output padding does behind it. With a stride of 1 an axis may stream. Raises Refused for what does not fit.
    """
    axes, sizes = kernel.ndim - 2, kernel.shape[2:]
    first = len(x.shape) - axes
    if groups < 1 or kernel.shape[0] % groups or x.shape[first - 1] != kernel.shape[0]:
        raise Refused(f"{groups} groups of {kernel.shape[0]} channels do not fit {x.shape[first - 1]} inputs")
    crops, around = [], []
    for i in range(axes):
        size, stride = sizes[i], strides[i]
        before, after = pads[i]
        reach = (size - 1) * dilations[i] + 1
        length = (x.shape[first + i] - 1) * stride + reach - before - after
        if length < 1 or before < 0:
            raise Refused(f"pads of {before} and {after} leave nothing of axis {i}")
        taps = size if stride == 1 else -(-max(reach, reach - after) // stride)
        start, stop = before // stride, -(-(before + length) // stride)
        span = (taps - 1) * (dilations[i] if stride == 1 else 1)
        around.append((span - start, stop - x.shape[first + i]))
        crops.append((before - start * stride, before - start * stride + length))
        kernel = _phases(kernel, 2 + 2 * i, stride, dilations[i], taps)
    for i, (before, after) in enumerate(around):
        x = pad(c, x, first + i, before, after)
    phases = math.prod(strides)
    steps = [d if s == 1 else 1 for s, d in zip(strides, dilations, strict=True)]
    offset = None if bias is None else np.repeat(bias, phases)
    y = convolution(c, x, _flipped(kernel, groups), offset, [1] * axes, steps, groups)
    if phases > 1:
        y = _interleaved(c, y, strides, first - 1)
    for i, (start, stop) in enumerate(crops):
        y = c.slice(y, first + i, start, stop)
    return y


def _phases(kernel: Array, axis: int, stride: int, dilation: int, taps: int) -> Array:
    """One axis of a kernel as two: `taps` taps of `stride` phases, with zeros where there is no tap."""
    if stride == 1:
        return np.expand_dims(kernel, axis + 1)
    wide = np.zeros((*kernel.shape[:axis], taps * stride, *kernel.shape[axis + 1 :]))
    places = np.arange(kernel.shape[axis]) * dilation
    np.moveaxis(wide, axis, 0)[places] = np.moveaxis(kernel, axis, 0)
    return wide.reshape(*kernel.shape[:axis], taps, stride, *kernel.shape[axis + 1 :])


def _flipped(kernel: Array, groups: int) -> Array:
    """(channels, out / groups, Q, s, Q, s, ...) -> (out * s * s..., channels / groups, Q, Q, ...), taps reversed."""
    channels, out, *sizes = kernel.shape
    count = len(sizes) // 2
    own = kernel.reshape(groups, channels // groups, out, *sizes)
    taps, phases = [3 + 2 * i for i in range(count)], [4 + 2 * i for i in range(count)]
    own = np.flip(own, tuple(taps)).transpose(0, 2, *phases, 1, *taps)
    return own.reshape(-1, channels // groups, *sizes[::2])


def _interleaved(c: Composer, y: Value, strides: Sequence[int], channel: int) -> Value:
    """(..., out * s * s..., M, M, ...) -> (..., out, M * s, M * s, ...)."""
    outer, sizes = y.shape[:channel], y.shape[channel + 1 :]
    apart = c.reshape(y, (*outer, y.shape[channel] // math.prod(strides), *strides, *sizes))
    count = len(sizes)
    pairs = [channel + 1 + place for i in range(count) for place in (count + i, i)]
    grouped = c.permute(apart, (*range(channel + 1), *pairs))
    together = [m * s for m, s in zip(sizes, strides, strict=True)]
    return c.reshape(grouped, (*outer, apart.shape[channel], *together))
