"""Converters of pointwise torch functions: one row each where NNIR has the op, a few lines where it is composed.

Booleans are 0 and 1. Rewrites that are not exact in real arithmetic are not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ltc_compiler.ir.graph import Value

from .emit import Emitter
from .registry import Refused, converts

_UNARY = {
    "neg": "neg negative __neg__",
    "abs": "abs absolute __abs__",
    "relu": "relu",
    "sqrt": "sqrt",
    "sigmoid": "sigmoid special_expit expit",
    "tanh": "tanh",
    "exp": "exp",
    "exp2": "exp2 special_exp2",
    "log": "log",
    "silu": "silu",
    "reciprocal": "reciprocal",
    "rsqrt": "rsqrt",
    "sin": "sin",
    "cos": "cos",
}

_BINARY = {
    "mul": "mul multiply __mul__ __rmul__ bitwise_and logical_and __and__ __rand__",
    "min": "minimum fmin",
    "max": "maximum fmax bitwise_or logical_or __or__ __ror__",
    "gt": "gt greater __gt__",
    "ge": "ge greater_equal __ge__",
    "lt": "lt less __lt__",
    "le": "le less_equal __le__",
    "eq": "eq __eq__",
    "ne": "ne not_equal __ne__ bitwise_xor logical_xor __xor__",
}


def _unary(op: str) -> Callable[..., Value]:
    def convert(c: Emitter, input: Value, inplace: bool = False) -> Value:
        return c.add(op, input)

    return convert


def _binary(op: str) -> Callable[..., Value]:
    def convert(c: Emitter, input: Any, other: Any) -> Value:
        return c.add(op, input, other)

    return convert


for _op, _names in _UNARY.items():
    converts(*_names.split())(_unary(_op))
for _op, _names in _BINARY.items():
    converts(*_names.split())(_binary(_op))


@converts("add", "__add__", "__radd__")
def add(c: Emitter, input: Any, other: Any, *, alpha: float = 1) -> Value:
    return c.add("add", input, other if alpha == 1 else c.add("mul", other, alpha))


@converts("sub", "subtract", "__sub__")
def sub(c: Emitter, input: Any, other: Any, *, alpha: float = 1) -> Value:
    return c.add("sub", input, other if alpha == 1 else c.add("mul", other, alpha))


@converts("rsub", "__rsub__")
def rsub(c: Emitter, input: Any, other: Any, *, alpha: float = 1) -> Value:
    return c.add("sub", other, input if alpha == 1 else c.add("mul", input, alpha))


@converts("div", "divide", "true_divide", "__truediv__", "__div__")
def div(c: Emitter, input: Any, other: Any, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        raise Refused(f"division with rounding_mode={rounding_mode!r}", "leave the quotient unrounded")
    return c.add("div", input, other)


@converts("__rdiv__", "__rtruediv__")
def rdiv(c: Emitter, input: Any, other: Any) -> Value:
    return c.add("div", other, input)


@converts("logical_not", "bitwise_not", "__invert__")
def logical_not(c: Emitter, input: Value) -> Value:
    return c.add("eq", input, 0.0)


@converts("pow", "__pow__", "float_power")
def power(c: Emitter, input: Any, exponent: Any) -> Value:
    """Small whole powers by multiplication, halves by roots, the rest as exp(y log x), which is NaN for x < 0."""
    p = _number(exponent)
    if p is not None and not isinstance(_number(input), float):
        if p == int(p) and abs(p) <= 64:
            whole = _whole_power(c, c.value(input), abs(int(p)))
            return c.add("reciprocal", whole) if p < 0 else whole
        if abs(p) == 0.5:
            return c.add("sqrt" if p > 0 else "rsqrt", input)
        if p == int(p):
            raise Refused(f"the power {p:g}", "a whole power of at most 64")
    base = _number(input)
    if base is not None:
        if base <= 0:
            raise Refused(f"a power of {base:g}", "a positive base")
        return c.add("exp2", exponent) if base == 2 else c.add("exp", c.add("mul", exponent, math.log(base)))
    return c.add("exp", c.add("mul", exponent, c.add("log", input)))


@converts("__rpow__")
def rpower(c: Emitter, input: Any, other: Any) -> Value:
    return power(c, other, input)


def _number(x: Any) -> float | None:
    """A Python number or a constant of rank 0."""
    if isinstance(x, Value):
        array = x.constant()
        return float(array) if array is not None and array.ndim == 0 else None
    return float(x)


def _whole_power(c: Emitter, x: Value, p: int) -> Value:
    if p == 0:
        return c.value(np.ones(x.shape))
    result: Value | None = None
    square = x
    while True:
        if p & 1:
            result = square if result is None else c.add("mul", result, square)
        p >>= 1
        if not p:
            assert result is not None
            return result
        square = c.add("mul", square, square)


@converts("square")
def square(c: Emitter, input: Value) -> Value:
    return c.add("mul", input, input)


@converts("sign", "sgn")
def sign(c: Emitter, input: Value) -> Value:
    return c.add("sub", c.add("gt", input, 0.0), c.add("lt", input, 0.0))


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
    """Above the threshold torch returns x itself, which is nearer than 3e-9 to the function."""
    x = input if beta == 1 else c.add("mul", input, beta)
    y = c.add("softplus", x)
    return y if beta == 1 else c.add("mul", y, 1 / beta)


@converts("logsigmoid", "log_sigmoid")
def logsigmoid(c: Emitter, input: Value) -> Value:
    return c.add("neg", c.add("softplus", c.add("neg", input)))


@converts("gelu")
def gelu(c: Emitter, input: Value, approximate: str = "none") -> Value:
    return c.add("gelu_tanh" if approximate == "tanh" else "gelu", input)


@converts("mish")
def mish(c: Emitter, input: Value, inplace: bool = False) -> Value:
    return c.add("mul", input, c.add("tanh", c.add("softplus", input)))


@converts("elu", "celu", "selu")
def elu(c: Emitter, input: Value, alpha: float = 1.0, inplace: bool = False, **_: Any) -> Value:
    scale, inner, size = 1.0, 1.0, float(alpha)
    if c.target == "selu":
        scale, size = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    elif c.target == "celu":
        inner = 1 / size
    low = c.add("min", input, 0.0)
    low = c.add("sub", c.add("exp", low if inner == 1 else c.add("mul", low, inner)), 1.0)
    y = c.add("select", c.add("gt", input, 0.0), input, low if size == 1 else c.add("mul", low, size))
    return y if scale == 1 else c.add("mul", y, scale)


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


@converts("hardsigmoid")
def hardsigmoid(c: Emitter, input: Value, inplace: bool = False) -> Value:
    return clamp(c, c.add("add", c.add("mul", input, 1 / 6), 0.5), 0.0, 1.0)


@converts("hardswish")
def hardswish(c: Emitter, input: Value, inplace: bool = False) -> Value:
    return c.add("mul", input, hardsigmoid(c, input))


@converts("softsign")
def softsign(c: Emitter, input: Value) -> Value:
    return c.add("div", input, c.add("add", c.add("abs", input), 1.0))


@converts("tanhshrink")
def tanhshrink(c: Emitter, input: Value) -> Value:
    return c.add("sub", input, c.add("tanh", input))


@converts("threshold", "_threshold")
def threshold(c: Emitter, input: Value, threshold: float, value: float, inplace: bool = False) -> Value:
    return c.add("select", c.add("gt", input, threshold), input, value)


@converts("clamp", "clip", "clamp_min", "clamp_max")
def clamp(c: Emitter, input: Value, min: Any = None, max: Any = None) -> Value:
    if c.target == "clamp_max":
        min, max = None, min if max is None else max
    y = input if min is None else c.add("max", input, min)
    return y if max is None else c.add("min", y, max)


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


@converts("nan_to_num", "isnan")
def is_nan(c: Emitter, input: Value, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Value:
    unordered = c.add("ne", input, input)
    if c.target == "isnan":
        return unordered
    top = torch.finfo(torch.float32).max
    low, high = -top if neginf is None else neginf, top if posinf is None else posinf
    return c.add("select", unordered, nan, clamp_plain(c, input, low, high))


def clamp_plain(c: Emitter, x: Value, low: float, high: float) -> Value:
    return c.add("min", c.add("max", x, low), high)


@converts(
    "to",
    "float",
    "double",
    "type",
    "type_as",
    "half",
    "bfloat16",
    "int",
    "long",
    "bool",
    "clone",
    "contiguous",
)
def convert_type(c: Emitter, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Conversions among fp32 and fp64 change nothing; to bool they compare with 0."""
    dtype = {
        "half": torch.float16,
        "bfloat16": torch.bfloat16,
        "int": torch.int32,
        "long": torch.int64,
        "bool": torch.bool,
    }
    wanted = [a for a in (*args, *kwargs.values(), dtype.get(c.target)) if isinstance(a, torch.dtype)]
    for kind in wanted:
        if kind == torch.bool:
            return c.add("ne", input, 0.0)
        if kind not in (torch.float32, torch.float64):
            remedy = "leave it out; ltc_torch.precision and inputs_precisions choose the precision"
            raise Refused(f"conversion to {kind}", remedy)
    return input


@converts("detach", "alias", "cpu", "requires_grad_", "positive", "as_tensor", "asarray", "elapsed_time")
def identity(c: Emitter, input: Value, *args: Any, **kwargs: Any) -> Value:
    if c.target == "elapsed_time":
        c.mark_elapsed_time(input)
    return input


@converts(
    "dropout",
    "alpha_dropout",
    "feature_dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
)
def dropout(c: Emitter, input: Value, p: float = 0.5, training: bool = True, *_: Any, **kwargs: Any) -> Value:
    if kwargs.get("train", training):
        raise Refused(
            "dropout that is active draws random numbers", "F.dropout(x, p, training=self.training)"
        )
    return input
