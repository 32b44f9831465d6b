"""Converters of elementary ONNX operators that are composed: the compositions are in frontend/elementary.py."""

from __future__ import annotations

from collections.abc import Callable

from ltc_compiler.frontend import elementary
from ltc_compiler.frontend.compose import Composer
from ltc_compiler.ir.graph import Value
from ltc_compiler.onnx.call import Call, Results
from ltc_compiler.onnx.registry import Converter, converts

UNARY: dict[str, Callable[[Composer, Value], Value]] = {
    "Ceil": elementary.ceil,
    "Tan": elementary.tan,
    "Asin": elementary.asin,
    "Acos": elementary.acos,
    "Sinh": elementary.sinh,
    "Cosh": elementary.cosh,
    "Asinh": elementary.asinh,
    "Acosh": elementary.acosh,
    "Atanh": elementary.atanh,
}


def _row(function: Callable[[Composer, Value], Value]) -> Converter:
    return lambda call: function(call.c, call.x)


for _name, _function in UNARY.items():
    converts(_name)(_row(_function))


@converts("Mod")
def mod(call: Call) -> Results:
    """With the sign of the dividend where fmod is 1, else of the divisor."""
    x, y = call.value(0), call.value(1)
    return call.c.add("fmod", x, y) if call.attr("fmod", 0) else elementary.remainder(call.c, x, y)
