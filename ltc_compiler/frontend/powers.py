"""Powers, for every importer: what is constant decides the form.

A whole exponent up to 64 is a chain of multiplications, a half a root; any other constant exponent e^(y log |x|) with
the sign that the power has. So a negative base has the powers that exist, and the power 0 is 1 for every base. A
computed exponent is looked at on the machine: whether it is whole, odd or 0.
"""

from __future__ import annotations

import numpy as np

from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.frontend.elementary import negative, real_power
from ltc_compiler.ir.graph import Array, Value

WHOLE_LIMIT = 64  # the largest exponent that becomes multiplications
FORMS_LIMIT = 16  # different exponents of one tensor that get a form each


def power(c: Composer, base: Value, exponent: Value) -> Value:
    """base ^ exponent, broadcast. Raises Refused for a constant exponent that is not finite."""
    shape = np.broadcast_shapes(base.shape, exponent.shape)
    exponents, bases = exponent.constant(), base.constant()
    if exponents is not None and bases is None:
        return c.broadcast(_constant_exponents(c, base, exponents), shape)
    if bases is None or (bases <= 0).any():
        return c.broadcast(_computed(c, base, exponent), shape)
    if (bases == 2).all():
        return c.broadcast(c.add("exp2", exponent), shape)
    return c.broadcast(c.add("exp", c.add("mul", exponent, np.log(bases))), shape)


def _computed(c: Composer, x: Value, p: Value) -> Value:
    """e^(p log |x|), negative for a negative x and an odd p, NaN for a negative x and a p that is not whole; 1 where
    p is 0 or x is 1."""
    half = c.add("mul", p, 0.5)
    whole = c.add("eq", p, c.add("floor", p))
    odd = c.add("mul", whole, c.add("ne", half, c.add("floor", half)))
    y = real_power(c, c.add("select", whole, c.add("abs", x), x), p)
    y = c.add("select", c.add("mul", negative(c, x), odd), c.add("neg", y), y)
    return c.add("select", c.add("max", c.add("eq", p, 0.0), c.add("eq", x, 1.0)), 1.0, y)


def _constant_exponents(c: Composer, x: Value, exponents: Array) -> Value:
    if not np.isfinite(exponents).all():
        raise Refused("a power whose exponent is not finite", "finite exponents")
    different = np.unique(exponents)
    if len(different) > FORMS_LIMIT:
        return _signed(c, x, exponents)
    result = number_power(c, x, float(different[0]))
    for p in different[1:]:
        result = c.add("select", exponents == p, number_power(c, x, float(p)), result)
    return result


def number_power(c: Composer, x: Value, p: float) -> Value:
    """x ^ p for one finite p."""
    if abs(p) == 0.5:
        return c.add("sqrt" if p > 0 else "rsqrt", x)
    if p != int(p) or abs(p) > WHOLE_LIMIT:
        return _signed(c, x, np.asarray(p))
    whole = _whole(c, x, abs(int(p)))
    return c.add("reciprocal", whole) if p < 0 else whole


def _whole(c: Composer, x: Value, p: int) -> Value:
    """x multiplied with itself, by squares."""
    if p == 0:
        return c.full(x.shape, 1.0)
    result: Value | None = None
    while p:
        if p & 1:
            result = x if result is None else c.add("mul", result, x)
        p >>= 1
        x = c.add("mul", x, x) if p else x
    assert result is not None
    return result


def _signed(c: Composer, x: Value, p: Array) -> Value:
    """e^(p log |x|), negative for a negative x and an odd p; NaN for a negative x where p is not whole."""
    whole, odd, nothing = p == np.round(p), np.abs(np.fmod(p, 2)) == 1, p == 0
    size = x
    if whole.any():
        size = c.add("abs", x) if whole.all() else c.add("select", whole, c.add("abs", x), x)
    y = real_power(c, size, p)
    if odd.any():
        below = negative(c, x)
        flipped = below if odd.all() else c.add("mul", below, odd)
        y = c.add("select", flipped, c.add("neg", y), y)
    return c.add("select", nothing, 1.0, y) if nothing.any() else y
