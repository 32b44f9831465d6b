"""Converters of elementary functions: hyperbolic, logarithms of sums, signs, tests of values, losses.

What takes care of cancellation, infinities and signed zeros is written once for all importers, in
ltc_compiler/frontend/elementary.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ltc_compiler.frontend import elementary
from ltc_compiler.frontend.compose import Composer
from ltc_compiler.ir.graph import Value
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.registry import Refused, converts

_UNARY: dict[str, Callable[[Composer, Value], Value]] = {
    "log1p special_log1p": elementary.log1p,
    "expm1 special_expm1": elementary.expm1,
    "sinh": elementary.sinh,
    "cosh": elementary.cosh,
    "asinh arcsinh": elementary.asinh,
    "acosh arccosh": elementary.acosh,
    "atanh arctanh": elementary.atanh,
    "tan": elementary.tan,
    "asin arcsin": elementary.asin,
    "acos arccos": elementary.acos,
    "sinc special_sinc": elementary.sinc,
    "erfc special_erfc": elementary.erfc,
    "ceil": elementary.ceil,
    "trunc fix": elementary.trunc,
    "frac": lambda c, x: c.add("sub", x, elementary.trunc(c, x)),
    "signbit": elementary.negative,
    "isinf": lambda c, x: c.add("eq", c.add("abs", x), math.inf),
    "isfinite": lambda c, x: c.add("lt", c.add("abs", x), math.inf),
    "isposinf": lambda c, x: c.add("eq", x, math.inf),
    "isneginf": lambda c, x: c.add("eq", x, -math.inf),
    "deg2rad": lambda c, x: c.add("mul", x, math.pi / 180),
    "rad2deg": lambda c, x: c.add("mul", x, 180 / math.pi),
}
_BINARY: dict[str, Callable[[Composer, Value, Value], Value]] = {
    "hypot": elementary.hypot,
    "logaddexp": elementary.logaddexp,
    "logaddexp2": lambda c, x, y: elementary.logaddexp(c, x, y, math.log(2)),
    "copysign": elementary.copysign,
    "atan2 arctan2": elementary.atan2,
    "remainder __mod__": elementary.remainder,
    "floor_divide __floordiv__": elementary.floor_divide,
    "__rmod__": lambda c, x, y: elementary.remainder(c, y, x),
    "__rfloordiv__": lambda c, x, y: elementary.floor_divide(c, y, x),
    "heaviside": elementary.heaviside,
    "xlogy special_xlogy": lambda c, x, y: elementary.xlogy(c, x, y, c.add("log", y)),
    "special_xlog1py": lambda c, x, y: elementary.xlogy(c, x, y, elementary.log1p(c, y)),
}


def _unary(function: Callable[[Composer, Value], Value]) -> Callable[..., Value]:
    def convert(c: Emitter, input: Value) -> Value:
        return function(c, input)

    return convert


def _binary(function: Callable[[Composer, Value, Value], Value]) -> Callable[..., Value]:
    def convert(c: Emitter, input: Any, other: Any) -> Value:
        return function(c, c.value(input), c.value(other))

    return convert


for _names, _one in _UNARY.items():
    converts(*_names.split())(_unary(_one))
for _names, _two in _BINARY.items():
    converts(*_names.split())(_binary(_two))


@converts("round")
def round_(c: Emitter, input: Value, *, decimals: int = 0) -> Value:
    """To whole numbers, or to multiples of a power of ten, which are computed as torch does."""
    if decimals == 0:
        return c.add("round", input)
    scale = 10.0 ** abs(decimals)
    up, down = ("mul", "div") if decimals > 0 else ("div", "mul")
    return c.add(down, c.add("round", c.add(up, input, scale)), scale)


@converts("isclose")
def isclose(
    c: Emitter, input: Value, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Value:
    away = c.add("abs", c.add("sub", input, other))
    allowed = c.add("add", c.add("mul", c.add("abs", other), rtol), atol)
    finite = c.add("lt", c.add("abs", other), math.inf)
    close = c.add("max", c.add("eq", input, other), c.add("mul", c.add("le", away, allowed), finite))
    both = c.add("mul", c.add("ne", input, input), c.add("ne", other, other))
    return c.add("max", close, both) if equal_nan else close


# ---------------------------------------------------------------- losses


def _reduced(c: Emitter, each: Value, settings: dict[str, Any]) -> Value:
    if settings.get("size_average") is not None or settings.get("reduce") is not None:
        raise Refused("a loss with size_average or reduce", "reduction='mean', 'sum' or 'none'")
    kind = settings.get("reduction", "mean")
    if kind == "none":
        return each
    if kind not in ("mean", "sum", "batchmean"):
        raise Refused(f"a loss with reduction={kind!r}", "reduction='mean', 'sum' or 'none'")
    total = c.reduce("sum", each, None, False)
    if kind == "batchmean":
        return c.add("mul", total, 1 / each.shape[0])
    return total if kind == "sum" else c.add("mul", total, 1 / each.type.size)


def _weighted(c: Emitter, each: Value, weight: Any) -> Value:
    return each if weight is None else c.add("mul", each, weight)


@converts("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
def distance_loss(
    c: Emitter,
    input: Value,
    target: Value,
    *,
    weight: Any = None,
    beta: float = 1.0,
    delta: float = 1.0,
    **settings: Any,
) -> Value:
    """|e|, e^2, and the two that go over from a parabola to a line, at beta or delta; `e` is input - target."""
    error = c.add("sub", input, target)
    square = c.add("mul", error, error)
    if c.target == "mse_loss":
        each = square
    else:
        each = size = c.add("abs", error)
        corner = delta if c.target == "huber_loss" else beta
        if c.target != "l1_loss" and corner > 0:
            scale = 1.0 if c.target == "huber_loss" else 1 / corner
            line = c.add("sub", c.add("mul", size, corner * scale), 0.5 * corner * corner * scale)
            each = c.add("select", c.add("lt", size, corner), c.add("mul", square, 0.5 * scale), line)
    return _reduced(c, _weighted(c, each, weight), settings)


@converts("binary_cross_entropy")
def binary_cross_entropy(
    c: Emitter, input: Value, target: Value, weight: Any = None, **settings: Any
) -> Value:
    """Logarithms are at least -100, as in torch."""
    yes = c.add("max", c.add("log", input), -100.0)
    no = c.add("max", c.add("log", c.add("sub", 1.0, input)), -100.0)
    each = c.add("sub", c.add("mul", c.add("sub", target, 1.0), no), c.add("mul", target, yes))
    return _reduced(c, _weighted(c, each, weight), settings)


@converts("binary_cross_entropy_with_logits")
def logits_loss(
    c: Emitter, input: Value, target: Value, weight: Any = None, *, pos_weight: Any = None, **settings: Any
) -> Value:
    no = c.add("softplus", c.add("neg", input))  # -log(sigmoid(x))
    rest = c.add("mul", c.add("sub", 1.0, target), input)
    if pos_weight is not None:
        factor = c.add("add", c.add("mul", c.add("sub", pos_weight, 1.0), target), 1.0)
        no = c.add("mul", no, factor)
    return _reduced(c, _weighted(c, c.add("add", rest, no), weight), settings)


@converts("kl_div")
def kl_div(c: Emitter, input: Value, target: Value, *, log_target: bool = False, **settings: Any) -> Value:
    if log_target:
        each = c.add("mul", c.add("exp", target), c.add("sub", target, input))
    else:
        own = elementary.xlogy(c, target, target, c.add("log", target))
        each = c.add("sub", own, c.add("mul", target, input))
    return _reduced(c, each, settings)
