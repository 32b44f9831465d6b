"""Elementary functions that are composed of others, for every importer: each with its limits and special values.

Forms are chosen so that nothing cancels: the error of each, measured over the range of its argument, stands in
docs/numerics.md. They hold in fp32, operation by operation, and in fp64, in which constants fold.
"""

from __future__ import annotations

import math

import numpy as np

from ltc_compiler.frontend.compose import Composer
from ltc_compiler.ir.graph import Array, Precision, Value


def _fp32(c: Composer, op: str, x: Value) -> Value:
    """A unit whose result the precision policy would round to bf16, kept whole: others are computed from it."""
    y = c.add(op, x)
    if y.node is not None and y.node.op == op and y.node.precision is None:
        y.node.precision = Precision.FP32
    return y


def negative(c: Composer, x: Value) -> Value:
    """1 where the sign bit of x is set, -0 included; 0 elsewhere and for a NaN."""
    return c.add("lt", c.add("select", x, x, c.add("reciprocal", x)), 0.0)


def copysign(c: Composer, magnitude: Value, sign: Value) -> Value:
    """|magnitude| with the sign of `sign`."""
    size = c.add("abs", magnitude)
    return c.add("select", negative(c, sign), c.add("neg", size), size)


def log1p(c: Composer, x: Value) -> Value:
    """log(1 + x) without the loss of 1 + x: log(u) x / (u - 1) with u = 1 + x (W. Kahan's form)."""
    u = c.add("add", x, 1.0)
    kept = c.add("sub", u, 1.0)
    quotient = c.add("div", x, kept)
    inside = c.add(
        "lt", c.add("abs", c.add("sub", quotient, 1.0)), 1.0
    )  # neither 0 / 0 nor infinity / infinity
    y = c.add("mul", c.add("log", u), c.add("select", inside, quotient, 1.0))
    return c.add("select", kept, y, x)


def expm1(c: Composer, x: Value) -> Value:
    """e^x - 1 as tanh(x / 2) (e^x + 1), in which nothing cancels."""
    return c.add("mul", _fp32(c, "tanh", c.add("mul", x, 0.5)), c.add("add", c.add("exp", x), 1.0))


def cosh(c: Composer, x: Value) -> Value:
    """(e^|x| + e^-|x|) / 2 of t = e^(|x| / 2), which overflows no sooner than the result."""
    t = c.add("exp", c.add("mul", c.add("abs", x), 0.5))
    half = c.add("mul", t, 0.5)
    return c.add("add", c.add("mul", half, t), c.add("div", c.add("div", 0.5, t), t))


def sinh(c: Composer, x: Value) -> Value:
    """tanh(x) cosh(x)."""
    return c.add("mul", _fp32(c, "tanh", x), cosh(c, x))


def asinh(c: Composer, x: Value) -> Value:
    """sign(x) log1p(a + a^2 / (1 + sqrt(1 + a^2))), and log(a) + log(2) for a = |x| so large that a^2 is too large."""
    a = c.add("abs", x)
    square = c.add("mul", a, a)
    root = c.add("add", c.add("sqrt", c.add("add", square, 1.0)), 1.0)
    near = log1p(c, c.add("add", a, c.add("div", square, root)))
    far = c.add("add", c.add("log", a), math.log(2))
    return copysign(c, c.add("select", c.add("gt", a, 1e15), far, near), x)


def acosh(c: Composer, x: Value) -> Value:
    """log1p(t + sqrt(2 t + t^2)) of t = x - 1; NaN below 1."""
    t = c.add("sub", x, 1.0)
    root = c.add("mul", c.add("sqrt", t), c.add("sqrt", c.add("add", t, 2.0)))
    near = log1p(c, c.add("add", t, root))
    return c.add("select", c.add("gt", x, 1e15), c.add("add", c.add("log", x), math.log(2)), near)


def atanh(c: Composer, x: Value) -> Value:
    """sign(x) log1p(2 a / (1 - a)) / 2 of a = |x|; infinite at 1 and NaN beyond."""
    a = c.add("abs", x)
    ratio = c.add("div", c.add("mul", a, 2.0), c.add("sub", 1.0, a))
    return copysign(c, c.add("mul", log1p(c, ratio), 0.5), x)


def hypot(c: Composer, x: Value, y: Value) -> Value:
    """sqrt(x^2 + y^2) with the larger of them outside of the root, so that no square overflows or vanishes."""
    a, b = c.add("abs", x), c.add("abs", y)
    large, small = c.add("max", a, b), c.add("min", a, b)
    ratio = c.add("div", small, large)
    length = c.add("mul", large, c.add("sqrt", c.add("add", c.add("mul", ratio, ratio), 1.0)))
    length = c.add("select", large, length, 0.0)
    endless = c.add("max", c.add("eq", a, math.inf), c.add("eq", b, math.inf))
    return c.add("select", endless, math.inf, length)


def logaddexp(c: Composer, x: Value, y: Value, scale: float = 1.0) -> Value:
    """log(e^(scale x) + e^(scale y)) / scale: the larger one, and softplus of minus the distance."""
    away = c.add("neg", c.add("abs", c.add("sub", x, y)))
    more = c.add("softplus", away if scale == 1 else c.add("mul", away, scale))
    more = more if scale == 1 else c.add("mul", more, 1 / scale)
    equal = c.add("eq", x, y)  # infinities have no distance
    return c.add("add", c.add("max", x, y), c.add("select", equal, math.log(2) / scale, more))


def xlogy(c: Composer, x: Value, y: Value, log: Value) -> Value:
    """x log(y), 0 where x is 0 and y no NaN; `log` is the logarithm to take."""
    nothing = c.add("select", c.add("ne", y, y), y, 0.0)
    return c.add("select", c.add("eq", x, 0.0), nothing, c.add("mul", x, log))


def heaviside(c: Composer, x: Value, at_zero: Value) -> Value:
    """0 below 0, 1 above, `at_zero` at 0; 0 for a NaN."""
    return c.add("select", c.add("eq", x, 0.0), at_zero, c.add("gt", x, 0.0))


def first_largest(c: Composer, x: Value, axis: int, keepdims: bool, smallest: bool = False) -> Value:
    """The position of the largest (or smallest) element of an axis: of the first one, or of the first NaN."""
    axis %= len(x.shape)
    size = x.shape[axis]
    y = c.add("neg", x) if smallest else x
    top = c.add("amax", y, axis=axis, keepdims=True)
    hit = c.add("max", c.add("ge", y, top), c.add("ne", y, y))
    ahead = np.arange(size, 0, -1).reshape(-1, *[1] * (len(x.shape) - 1 - axis))  # elements left from here on
    most = c.add("amax", c.add("select", hit, ahead, 0.0), axis=axis, keepdims=keepdims)
    return c.add("sub", float(size), most)


def real_power(c: Composer, x: Value, y: Value | float | Array) -> Value:
    """x^y as e^(y log x): NaN for x < 0, and where x is 0 or infinite and y is 0."""
    return c.add("exp", c.add("mul", y, _fp32(c, "log", x)))


# ---------------------------------------------------------------- angles


def tan(c: Composer, x: Value) -> Value:
    return c.add("div", c.add("sin", x), c.add("cos", x))


def atan2(c: Composer, y: Value, x: Value) -> Value:
    """The angle of the point (x, y), from -pi to pi; the signs of zeros count."""
    a, b = c.add("abs", y), c.add("abs", x)
    ratio = c.add("select", c.add("eq", a, b), c.add("ne", a, 0.0), c.add("div", a, b))
    angle = c.add("atan", ratio)
    angle = c.add("select", negative(c, x), c.add("sub", math.pi, angle), angle)
    unordered = c.add("add", c.add("ne", y, y), c.add("ne", x, x))
    return copysign(c, c.add("select", unordered, math.nan, angle), y)


def asin(c: Composer, x: Value) -> Value:
    """atan(x / sqrt((1 - x) (1 + x))); NaN beyond 1."""
    return c.add("atan", c.add("div", x, _rest(c, x)))


def acos(c: Composer, x: Value) -> Value:
    """2 atan(sqrt(1 - x) / sqrt(1 + x)); NaN beyond 1."""
    below, above = c.add("sqrt", c.add("sub", 1.0, x)), c.add("sqrt", c.add("add", x, 1.0))
    return c.add("mul", c.add("atan", c.add("div", below, above)), 2.0)


def _rest(c: Composer, x: Value) -> Value:
    return c.add("sqrt", c.add("mul", c.add("sub", 1.0, x), c.add("add", x, 1.0)))


def sinc(c: Composer, x: Value) -> Value:
    """sin(pi x) / (pi x), 1 at 0: of x less the nearest whole number, whose parity is the sign."""
    whole = c.add("round", x)
    odd = c.add("abs", c.add("sub", whole, c.add("mul", c.add("round", c.add("mul", whole, 0.5)), 2.0)))
    sine = c.add("sin", c.add("mul", c.add("sub", x, whole), math.pi))
    signed = c.add("select", odd, c.add("neg", sine), sine)
    return c.add("select", x, c.add("div", signed, c.add("mul", x, math.pi)), 1.0)


def erfc(c: Composer, x: Value) -> Value:
    """1 - erf(x), and beyond 1/2, where that cancels, -sqrt(2) gelu(-sqrt(2) x) / x."""
    tail = _fp32(c, "gelu", c.add("mul", x, -math.sqrt(2)))
    far = c.add("div", c.add("mul", tail, -math.sqrt(2)), x)
    far = c.add("select", c.add("lt", x, 20.0), far, c.add("select", c.add("eq", x, x), 0.0, x))
    return c.add("select", c.add("gt", x, 0.5), far, c.add("sub", 1.0, c.add("erf", x)))


# ---------------------------------------------------------------- whole numbers


def ceil(c: Composer, x: Value) -> Value:
    return c.add("neg", c.add("floor", c.add("neg", x)))


def trunc(c: Composer, x: Value) -> Value:
    """Towards 0, with the sign of x."""
    return copysign(c, c.add("floor", c.add("abs", x)), x)


def remainder(c: Composer, x: Value, y: Value) -> Value:
    """x less a whole multiple of y, with the sign of y: exact where fmod is and the sum below does not round."""
    rest = c.add("fmod", x, y)
    return c.add("select", _other_sign(c, rest, y), c.add("add", rest, y), rest)


def floor_divide(c: Composer, x: Value, y: Value) -> Value:
    """The whole number below x / y, from the exact remainder: x / y rounded could be the one above."""
    rest, plain = c.add("fmod", x, y), c.add("div", x, y)
    quotient = c.add("div", c.add("sub", x, rest), y)
    whole = c.add("round", c.add("sub", quotient, _other_sign(c, rest, y)))
    near = c.add("select", whole, whole, copysign(c, whole, plain))
    size = c.add("abs", plain)
    known = c.add("max", c.add("lt", c.add("abs", x), math.inf), c.add("eq", y, 0.0))
    far = c.add("mul", c.add("ge", size, 2.0**40), known)  # whole already
    return c.add("select", far, plain, near)


def _other_sign(c: Composer, rest: Value, y: Value) -> Value:
    """1 where a remainder is not 0 and has not the sign of y."""
    apart = c.add("ne", c.add("lt", rest, 0.0), c.add("lt", y, 0.0))
    return c.add("mul", apart, c.add("ne", rest, 0.0))
