"""What other formats call the pointwise ops of NNIR: one row for each op of one, two or three operands.

Both importers and the ONNX writer are loops over these rows. A format with names of its own needs a table like this one
in its own front end: names to ops.
"""

from __future__ import annotations

import ast
from typing import NamedTuple

from ltc_compiler.ir.ops import BY_ARITY, OPS, check_rows

OPERANDS = {1: ("x",), 2: ("a", "b"), 3: ("a", "b", "c")}  # what expressions call them


class Names(NamedTuple):
    """An op in other formats.

    torch: the functions that take these operands and nothing else; one that takes more has a converter of its own.
    onnx: an expression of ONNX operators in the operands x, or a and b, or a, b and c; "" where there is none, and
    `refused` says why, to a user who exports the op. truth: the expression is a boolean in ONNX.
    """

    torch: str
    onnx: str
    truth: bool = False
    refused: str = ""

    def operator(self, arity: int) -> str:
        """The ONNX operator that is this op itself, with its operands in order; "" if none is."""
        name, _, rest = self.onnx.partition("(")
        return name if rest == f"{', '.join(OPERANDS[arity])})" else ""


NAMES: dict[str, Names] = {
    # one operand
    "neg": Names("neg negative __neg__", "Neg(x)"),
    "abs": Names("abs absolute __abs__", "Abs(x)"),
    "relu": Names("relu", "Relu(x)"),
    "sqrt": Names("sqrt", "Sqrt(x)"),
    "sigmoid": Names("sigmoid special_expit expit", "Sigmoid(x)"),
    "tanh": Names("tanh", "Tanh(x)"),
    "exp": Names("exp", "Exp(x)"),
    "exp2": Names("exp2 special_exp2", "Pow(2, x)"),
    "log": Names("log", "Log(x)"),
    "softplus": Names("", "Softplus(x)"),
    "silu": Names("silu", "Mul(x, Sigmoid(x))"),
    "gelu": Names("", "Gelu(x)"),
    "gelu_tanh": Names("", "Gelu(x, approximate='tanh')"),
    "reciprocal": Names("reciprocal", "Reciprocal(x)"),
    "rsqrt": Names("rsqrt", "Reciprocal(Sqrt(x))"),
    "floor": Names("floor", "Floor(x)"),
    "round": Names("", "Round(x)"),
    "sin": Names("sin", "Sin(x)"),
    "cos": Names("cos", "Cos(x)"),
    "erf": Names("erf special_erf", "Erf(x)"),
    "atan": Names("atan arctan", "Atan(x)"),
    # two operands
    "add": Names("", "Add(a, b)"),
    "sub": Names("", "Sub(a, b)"),
    "mul": Names("mul multiply __mul__ __rmul__ bitwise_and __and__ __rand__", "Mul(a, b)"),
    "div": Names("", "Div(a, b)"),
    "min": Names("minimum", "Min(a, b)"),
    "max": Names("maximum bitwise_or __or__ __ror__", "Max(a, b)"),
    "gt": Names("gt greater __gt__", "Greater(a, b)", truth=True),
    "ge": Names("ge greater_equal __ge__", "GreaterOrEqual(a, b)", truth=True),
    "lt": Names("lt less __lt__", "Less(a, b)", truth=True),
    "le": Names("le less_equal __le__", "LessOrEqual(a, b)", truth=True),
    "eq": Names("eq __eq__", "Equal(a, b)", truth=True),
    "ne": Names("ne not_equal __ne__ bitwise_xor __xor__", "Not(Equal(a, b))", truth=True),
    "fmod": Names("fmod", "Mod(a, b, fmod=1)"),
    # three operands
    "select": Names("", "Where(Equal(a, 0), c, b)"),
}

check_rows("NAMES in ltc_compiler/frontend/names.py", NAMES, beside=set(OPS).difference(*BY_ARITY.values()))
if undecided := sorted(op for op, row in NAMES.items() if bool(row.onnx) == bool(row.refused)):
    raise ImportError(
        "NAMES in ltc_compiler/frontend/names.py: either `onnx` has an expression or `refused` a reason,"
        f" and not so for {', '.join(undecided)}"
    )


def parsed(op: str) -> ast.Call:
    """The ONNX expression of an op as a syntax tree: calls of operators, operands, numbers.

    Raises ImportError for an expression that is none, or has other names than the operands.
    """
    arity, text = OPS[op].arity, NAMES[op].onnx
    assert isinstance(arity, int)
    try:
        call = ast.parse(text, mode="eval").body
        _check(call, OPERANDS[arity])
    except (SyntaxError, ValueError) as error:
        raise ImportError(f"{op} in NAMES of ltc_compiler/frontend/names.py: {text!r}: {error}") from None
    assert isinstance(call, ast.Call)
    return call


def _check(call: ast.expr, operands: tuple[str, ...]) -> None:
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"{ast.unparse(call)} calls no operator")
    for part in call.args:
        if isinstance(part, ast.Name):
            if part.id not in operands:
                raise ValueError(f"{part.id} is none of the operands {', '.join(operands)}")
        elif not isinstance(part, ast.Constant):
            _check(part, operands)
    if not all(isinstance(k.value, ast.Constant) for k in call.keywords):
        raise ValueError("an attribute is no constant")
