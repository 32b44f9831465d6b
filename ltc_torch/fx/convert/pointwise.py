"""Converters of pointwise torch functions: one row each where NNIR has the op, a few lines where it is composed.

Booleans are 0 and 1. Rewrites that are not exact in real arithmetic are not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ltc_compiler.frontend import activations, powers
from ltc_compiler.frontend.compose import Composer
from ltc_compiler.frontend.elementary import floor_divide, trunc
from ltc_compiler.frontend.names import NAMES
from ltc_compiler.ir.graph import Value
from ltc_compiler.ir.ops import BY_ARITY
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.registry import Refused, converts

_LOGIC = {"logical_and": "mul", "logical_or": "max", "logical_xor": "ne"}  # of numbers, too


def _unary(op: str) -> Callable[..., Value]:
    def convert(c: Emitter, input: Value, inplace: bool = False) -> Value:
        return c.add(op, input)

    return convert


def _binary(op: str) -> Callable[..., Value]:
    def convert(c: Emitter, input: Any, other: Any) -> Value:
        return c.add(op, input, other)

    return convert


def _ternary(op: str) -> Callable[..., Value]:
    def convert(c: Emitter, first: Any, second: Any, third: Any) -> Value:
        return c.add(op, first, second, third)

    return convert


_ACTIVATIONS: dict[str, Callable[[Composer, Value], Value]] = {
    "hardsigmoid": activations.hard_sigmoid,
    "hardswish": activations.hard_swish,
    "mish": activations.mish,
    "sign sgn": activations.sign,
    "softsign": activations.softsign,
}


def _activation(function: Callable[[Composer, Value], Value]) -> Callable[..., Value]:
    def convert(c: Emitter, input: Value, inplace: bool = False) -> Value:
        return function(c, input)

    return convert


for _names, _function in _ACTIVATIONS.items():
    converts(*_names.split())(_activation(_function))
for _arity, _convert in ((1, _unary), (2, _binary), (3, _ternary)):
    for _op in BY_ARITY[_arity]:
        converts(*NAMES[_op].torch.split())(_convert(_op))


@converts("add", "__add__", "__radd__")
def add(c: Emitter, input: Any, other: Any, *, alpha: float = 1) -> Value:
    if c.dtype == torch.bool and alpha == 1:  # of booleans it is `or`
        return c.add("max", input, other)
    return c.add("add", input, other if alpha == 1 else c.add("mul", other, alpha))


@converts("sub", "subtract", "__sub__")
def sub(c: Emitter, input: Any, other: Any, *, alpha: float = 1) -> Value:
    return c.add("sub", input, other if alpha == 1 else c.add("mul", other, alpha))


@converts("rsub", "__rsub__")
def rsub(c: Emitter, input: Any, other: Any, *, alpha: float = 1) -> Value:
    return c.add("sub", other, input if alpha == 1 else c.add("mul", input, alpha))


@converts("div", "divide", "true_divide", "__truediv__", "__div__")
def div(c: Emitter, input: Any, other: Any, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode == "floor":
        return floor_divide(c, c.value(input), c.value(other))
    quotient = c.add("div", input, other)
    return quotient if rounding_mode is None else trunc(c, quotient)


@converts("__rdiv__", "__rtruediv__")
def rdiv(c: Emitter, input: Any, other: Any) -> Value:
    return c.add("div", other, input)


@converts(*_LOGIC)
def logic(c: Emitter, input: Any, other: Any) -> Value:
    return c.add(_LOGIC[c.target], c.truth(input), c.truth(other))


@converts("fmax", "fmin")
def known_extreme(c: Emitter, input: Value, other: Value) -> Value:
    """The other one where one is NaN."""
    one = c.add("select", c.add("ne", input, input), other, input)
    two = c.add("select", c.add("ne", other, other), input, other)
    return c.add(c.target[1:], one, two)


@converts("logical_not", "bitwise_not", "__invert__")
def logical_not(c: Emitter, input: Value) -> Value:
    return c.add("eq", input, 0.0)


@converts("pow", "__pow__", "float_power")
def power(c: Emitter, input: Any, exponent: Any) -> Value:
    return powers.power(c, c.value(input), c.value(exponent))


@converts("__rpow__")
def rpower(c: Emitter, input: Any, other: Any) -> Value:
    return power(c, other, input)


@converts("square")
def square(c: Emitter, input: Value) -> Value:
    return c.add("mul", input, input)


@converts("log2", "log10")
def log_base(c: Emitter, input: Value) -> Value:
    base = 2 if c.target == "log2" else 10
    return c.add("mul", c.add("log", input), 1 / math.log(base))


@converts("logit")
def logit(c: Emitter, input: Value, eps: float | None = None) -> Value:
    x = input if eps is None else clamp(c, input, eps, 1 - eps)
    return c.add("sub", c.add("log", x), c.add("log", c.add("sub", 1.0, x)))


@converts("softplus")
def softplus(c: Emitter, input: Value, beta: float = 1, threshold: float = 20) -> Value:
    """Above the threshold torch returns x itself; above 20 that is nearer than 3e-9 to the function."""
    x = input if beta == 1 else c.add("mul", input, beta)
    y = c.add("softplus", x)
    y = y if beta == 1 else c.add("mul", y, 1 / beta)
    return y if threshold >= 20 else c.add("select", c.add("gt", x, threshold), input, y)


@converts("logsigmoid", "log_sigmoid")
def logsigmoid(c: Emitter, input: Value) -> Value:
    return c.add("neg", c.add("softplus", c.add("neg", input)))


@converts("gelu")
def gelu(c: Emitter, input: Value, approximate: str = "none") -> Value:
    return c.add("gelu_tanh" if approximate == "tanh" else "gelu", input)


@converts("elu", "celu", "selu")
def elu(
    c: Emitter,
    input: Value,
    alpha: float = 1.0,
    scale: float = 1.0,
    input_scale: float = 1.0,
    inplace: bool = False,
) -> Value:
    """scale and input_scale are the operator's own; nn.functional has no room for them, and gives `inplace` there."""
    if c.target == "selu":
        scale, alpha = activations.SELU_SCALE, activations.SELU_ALPHA
    elif c.target == "celu":
        scale, input_scale = 1.0, 1 / alpha
    elif isinstance(scale, bool):
        scale = 1.0
    return activations.exponential_unit(c, input, alpha, scale, input_scale)


@converts("leaky_relu", "prelu")
def leaky_relu(c: Emitter, input: Value, negative_slope: Any = 0.01, inplace: bool = False) -> Value:
    slope = negative_slope
    if isinstance(slope, Value) and slope.type.size > 1:  # prelu: one slope per channel, axis 1
        slope = c.reshape(slope, (slope.type.size, *[1] * (len(input.shape) - 2)))
    elif isinstance(slope, Value):
        slope = c.reshape(slope, ())
    return c.add("select", c.add("gt", input, 0.0), input, c.add("mul", input, slope))


@converts("hardtanh", "relu6")
def hardtanh(
    c: Emitter,
    input: Value,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> Value:
    return clamp(c, input, 0.0, 6.0) if c.target == "relu6" else clamp(c, input, min_val, max_val)


@converts("tanhshrink")
def tanhshrink(c: Emitter, input: Value) -> Value:
    return c.add("sub", input, c.add("tanh", input))


@converts("threshold", "_threshold")
def threshold(c: Emitter, input: Value, threshold: float, value: float, inplace: bool = False) -> Value:
    return c.add("select", c.add("le", input, threshold), value, input)


@converts("clamp", "clip", "clamp_min", "clamp_max")
def clamp(c: Emitter, input: Value, min: Any = None, max: Any = None) -> Value:
    if c.target == "clamp_max":
        min, max = None, min if max is None else max
    return activations.clamp(c, input, min, max)


@converts("where")
def where(c: Emitter, condition: Value, input: Any = None, other: Any = None) -> Value:
    if input is None:
        raise Refused(
            "torch.where(condition) has a shape that depends on values", "torch.where(condition, a, b)"
        )
    if c.is_method:  # x.where(condition, y)
        condition, input = input, condition
    return c.add("select", condition, input, other)


@converts("masked_fill")
def masked_fill(c: Emitter, input: Value, mask: Value, value: Any) -> Value:
    return c.add("select", mask, value, input)


@converts("lerp")
def lerp(c: Emitter, input: Value, end: Value, weight: Any) -> Value:
    return c.add("add", input, c.add("mul", weight, c.add("sub", end, input)))


@converts("addcmul", "addcdiv")
def addc(c: Emitter, input: Value, tensor1: Value, tensor2: Value, *, value: float = 1) -> Value:
    product = c.add("mul" if c.target == "addcmul" else "div", tensor1, tensor2)
    return c.add("add", input, product if value == 1 else c.add("mul", product, value))


@converts("isnan")
def is_nan(c: Emitter, input: Value) -> Value:
    return c.add("ne", input, input)


@converts("nan_to_num")
def nan_to_num(
    c: Emitter, input: Value, nan: float | None = None, posinf: Any = None, neginf: Any = None
) -> Value:
    """Infinities become the largest numbers where nothing else is given: then a maximum and a minimum do."""
    top = torch.finfo(torch.float32).max
    y = c.add("max", input, -top) if neginf is None else _exchanged(c, input, -math.inf, neginf)
    y = c.add("min", y, top) if posinf is None else _exchanged(c, y, math.inf, posinf)
    return c.add("select", is_nan(c, input), nan or 0.0, y)


def _exchanged(c: Emitter, x: Value, old: float, new: float) -> Value:
    return c.add("select", c.add("eq", x, old), new, x)
