"""Converters of torch functions that contract an axis: linear maps, matmuls, convolutions; einsum is in einsum.py.

A constant operand makes the product a `linear`. A product of two computed tensors is a multiplication and a sum.
A convolution is a `linear` over the older taps of its kernel, laid side by side, and one over the last.
"""

from __future__ import annotations

from typing import Any

from ltc_compiler.frontend.compounds import convolution, matmul
from ltc_compiler.frontend.transposed import transposed_convolution
from ltc_compiler.ir.graph import Value
from ltc_torch.fx.convert.causal import written_out
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.convert.movement import each_axis
from ltc_torch.fx.convert.movement import pad as pad_axes
from ltc_torch.fx.registry import Refused, converts


@converts("linear")
def linear(c: Emitter, input: Value, weight: Value, bias: Value | None = None) -> Value:
    constant = weight.stored()
    offset = None if bias is None else bias.stored()
    if constant is not None and constant.ndim == 2 and (bias is None or offset is not None):
        return c.linear(input, constant, offset)
    y = matmul(c, input, c.permute(weight, (1, 0)) if len(weight.shape) == 2 else weight)
    return y if bias is None else c.add("add", y, bias)


@converts("bilinear")
def bilinear(c: Emitter, input1: Value, input2: Value, weight: Value, bias: Value | None = None) -> Value:
    out, m, n = weight.shape
    pairs = c.add("mul", c.unsqueeze(input1, len(input1.shape)), c.unsqueeze(input2, -2))
    return linear(c, c.reshape(pairs, (*input1.shape[:-1], m * n)), c.reshape(weight, (out, m * n)), bias)


@converts("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "__matmul__")
def product(c: Emitter, input: Value, other: Value) -> Value:
    attention = written_out(c, input, other)
    if attention is not None:
        return attention
    y = matmul(c, input, other)
    if input.constant() is None and other.constant() is None:
        c.products[y] = input, other
    return y


@converts("__rmatmul__")
def reversed_product(c: Emitter, input: Value, other: Value) -> Value:
    return matmul(c, other, input)


@converts("addmm", "baddbmm", "addmv")
def addmm(c: Emitter, input: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    y = matmul(c, a, b)
    y = y if alpha == 1 else c.add("mul", y, alpha)
    return c.add("add", input if beta == 1 else c.add("mul", input, beta), y)


@converts("conv1d", "conv2d", "conv3d")
def conv(
    c: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """input (batch, channels, *spatial) or (channels, *spatial); weight (out, channels / groups, *kernel)."""
    kernel = weight.constant()
    if kernel is None:
        raise Refused("a convolution whose weight depends on the input", "a constant weight")
    axes = kernel.ndim - 2
    strides, dilations = each_axis(stride, axes), each_axis(dilation, axes)
    sides: list[int] = []  # as torch's pad takes them: the last axis first
    for i in reversed(range(axes)):
        reach = (kernel.shape[2 + i] - 1) * dilations[i]
        if padding == "same":
            sides += [reach // 2, reach - reach // 2]
        else:
            sides += [0 if padding == "valid" else each_axis(padding, axes)[i]] * 2
    x = pad_axes(c, input, sides) if any(sides) else input
    return convolution(c, x, kernel, None if bias is None else bias.constant(), strides, dilations, groups)


@converts("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(
    c: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    """input (batch, channels, *spatial) or (channels, *spatial); weight (channels, out / groups, *kernel)."""
    kernel = weight.constant()
    if kernel is None or (bias is not None and bias.constant() is None):
        raise Refused("a transposed convolution whose weight depends on the input", "a constant weight")
    axes = kernel.ndim - 2
    strides, sides, more, dilations = (
        each_axis(v, axes) for v in (stride, padding, output_padding, dilation)
    )
    pads = [(side, side - extra) for side, extra in zip(sides, more, strict=True)]
    offset = None if bias is None else bias.stored()
    return transposed_convolution(c, input, kernel, offset, strides, pads, dilations, groups)
