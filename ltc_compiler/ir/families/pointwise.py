"""Pointwise ops: the result's element depends on one element of each operand. Shapes broadcast by NumPy's rule.

A new one is a row of UNARY, BINARY or TERNARY: its meaning, which computes in the dtype of its operands (fp64 or fp32),
and what it is in a few words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import erf

import numpy as np

from ltc_compiler.ir.families.row import Attrs, Op, broadcast_shapes
from ltc_compiler.ir.graph import Array, Type


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, np.ones_like(e)) / (1 + e)


def _erf(x: Array) -> Array:
    return np.vectorize(erf, otypes=[np.float64])(x).astype(x.dtype)


def _maximum(a: Array, b: Array) -> Array:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(a > b, a, b)).astype(a.dtype)


def _minimum(a: Array, b: Array) -> Array:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(a < b, a, b)).astype(a.dtype)


UNARY: dict[str, tuple[Callable[[Array], Array], str]] = {
    "neg": (np.negative, "-x"),
    "abs": (np.abs, "|x|"),
    "relu": (lambda x: _maximum(x, np.zeros_like(x)), "max(x, 0)"),
    "sqrt": (np.sqrt, "square root"),
    "sigmoid": (sigmoid, "1 / (1 + e^-x)"),
    "tanh": (np.tanh, "hyperbolic tangent"),
    "exp": (np.exp, "e^x"),
    "exp2": (np.exp2, "2^x"),
    "log": (np.log, "natural logarithm"),
    "softplus": (lambda x: np.logaddexp(x, np.zeros_like(x)), "log(1 + e^x)"),
    "silu": (lambda x: x * sigmoid(x), "x * sigmoid(x)"),
    "gelu": (lambda x: 0.5 * x * (1 + _erf(x * 2**-0.5)), "x * Phi(x)"),
    "gelu_tanh": (
        lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "tanh form of gelu",
    ),
    "reciprocal": (lambda x: 1 / x, "1 / x"),
    "rsqrt": (lambda x: 1 / np.sqrt(x), "1 / sqrt(x)"),
    "floor": (np.floor, "the largest whole number that is not above x"),
    "round": (np.rint, "the nearest whole number, of two the even one"),
    "sin": (np.sin, "sine"),
    "cos": (np.cos, "cosine"),
    "erf": (_erf, "error function"),
    "atan": (np.arctan, "arc tangent"),
}

BINARY: dict[str, tuple[Callable[[Array, Array], Array], str]] = {
    "add": (np.add, "a + b"),
    "sub": (np.subtract, "a - b"),
    "mul": (np.multiply, "a * b"),
    "div": (np.divide, "a / b"),
    "min": (_minimum, "NaN if either is NaN, else the smaller"),
    "max": (_maximum, "NaN if either is NaN, else the larger"),
    "gt": (lambda a, b: (a > b).astype(a.dtype), "1 where a > b, else 0"),
    "ge": (lambda a, b: (a >= b).astype(a.dtype), "1 where a >= b, else 0"),
    "lt": (lambda a, b: (a < b).astype(a.dtype), "1 where a < b, else 0"),
    "le": (lambda a, b: (a <= b).astype(a.dtype), "1 where a <= b, else 0"),
    "eq": (lambda a, b: (a == b).astype(a.dtype), "1 where a == b, else 0"),
    "fmod": (
        np.fmod,
        "a less the whole multiple of b towards 0; on the machine NaN for |a / b| from 2^40 on",
    ),
    "ne": (lambda a, b: (a != b).astype(a.dtype), "1 where a != b, else 0"),
}


TERNARY: dict[str, tuple[Callable[[Array, Array, Array], Array], str]] = {
    "select": (lambda a, b, c: np.where(a != 0, b, c), "b where a is not 0, else c"),
}

BY_ARITY: dict[int, Mapping[str, tuple[Callable[..., Array], str]]] = {1: UNARY, 2: BINARY, 3: TERNARY}


def _ltc_update(
    v: Array, num: Array, den: Array, leak: Array, conductance: Array, cm: Array, h: Array
) -> Array:
    n, d = leak + num, conductance + den
    return v + (h * (n - d * v)) / (cm + h * d)


_LTC_UPDATE = (
    "v, num, den, leak, conductance, cm, h -> v + (h * (N - D * v)) / (cm + h * D), with N = leak + num and "
    "D = conductance + den: one unfold of a liquid time-constant network"
)


def _shapes(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    return (Type(broadcast_shapes(*(t.shape for t in types))),)


def _row(name: str, arity: int, meaning: Callable[..., Array], doc: str) -> Op:
    return Op(name, arity, {}, _shapes, lambda x, _: (meaning(*x),), "pointwise", doc)


ROWS = [
    *(_row(name, arity, *row) for arity, rows in BY_ARITY.items() for name, row in rows.items()),
    _row("ltc_update", 7, _ltc_update, _LTC_UPDATE),
]
