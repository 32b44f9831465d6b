"""Activation functions that are composed of ops, for every importer; those that are ops stand in names.py."""

from __future__ import annotations

from ltc_compiler.frontend.compose import Composer
from ltc_compiler.ir.graph import Value

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def clamp(c: Composer, x: Value, low: Value | float | None, high: Value | float | None) -> Value:
    """x between two bounds; None leaves a side open, and the upper one wins where they cross."""
    y = x if low is None else c.add("max", x, low)
    return y if high is None else c.add("min", y, high)


def hard_sigmoid(c: Composer, x: Value, slope: float = 1 / 6, offset: float = 0.5) -> Value:
    return clamp(c, c.add("add", c.add("mul", x, slope), offset), 0.0, 1.0)


def hard_swish(c: Composer, x: Value) -> Value:
    return c.add("mul", x, hard_sigmoid(c, x))


def softsign(c: Composer, x: Value) -> Value:
    return c.add("div", x, c.add("add", c.add("abs", x), 1.0))


def mish(c: Composer, x: Value) -> Value:
    return c.add("mul", x, c.add("tanh", c.add("softplus", x)))


def sign(c: Composer, x: Value) -> Value:
    """-1, 0 or 1; 0 for a NaN."""
    return c.add("sub", c.add("gt", x, 0.0), c.add("lt", x, 0.0))


def exponential_unit(
    c: Composer, x: Value, alpha: float = 1.0, scale: float = 1.0, inner: float = 1.0
) -> Value:
    """scale * (x where x > 0, else alpha * (e^(inner * x) - 1)): ELU, CELU and SELU."""
    low = c.add("min", x, 0.0)
    low = c.add("sub", c.add("exp", low if inner == 1 else c.add("mul", low, inner)), 1.0)
    low = low if alpha == 1 else c.add("mul", low, alpha)
    y = c.add("select", c.add("gt", x, 0.0), x, low)
    return y if scale == 1 else c.add("mul", y, scale)
