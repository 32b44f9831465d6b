"""Converters of pointwise ONNX operators: a row each where NNIR has the op, a few lines where it is composed.

Booleans are 0 and 1. Computation is in fp32 or what the precision policy says, whatever float type the file names.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from ltc_compiler.frontend.compose import Refused
from ltc_compiler.frontend.names import NAMES
from ltc_compiler.frontend.powers import power
from ltc_compiler.ir.graph import Value
from ltc_compiler.ir.ops import BY_ARITY
from ltc_compiler.onnx.call import Call, Results
from ltc_compiler.onnx.registry import Converter, converts

# Operators that are ops beside those that NAMES writes: of any number of operands, and of booleans.
VARIADIC = {"Add": "add", "Mul": "mul", "Min": "min", "Max": "max", "Sum": "add"}
LOGIC = {"And": "mul", "Or": "max", "Xor": "ne"}


def mask(call: Call, value: Value) -> Value:
    """Remember that a value is boolean."""
    call.masks.add(value)
    return value


def _same(op: str) -> Converter:
    return lambda call: call.c.add(op, *(call.value(i) for i in range(len(call.inputs))))


def _truth(op: str) -> Converter:
    return lambda call: mask(call, call.c.add(op, call.value(0), call.value(1)))


def _variadic(op: str) -> Converter:
    def convert(call: Call) -> Results:
        return reduce(lambda a, b: call.c.add(op, a, b), [call.value(i) for i in range(len(call.inputs))])

    return convert


for _arity, _family in BY_ARITY.items():
    for _op in _family:
        if _name := NAMES[_op].operator(_arity):
            converts(_name)(
                (_truth if NAMES[_op].truth else _same)(_op)
            )  # or by a function below, which wins
for _name, _op in LOGIC.items():
    converts(_name)(_truth(_op))
for _name, _op in VARIADIC.items():
    converts(_name)(_variadic(_op))


@converts("Not")
def logical_not(call: Call) -> Results:
    return mask(call, call.c.add("eq", call.x, 0.0))


@converts("IsNaN")
def is_nan(call: Call) -> Results:
    return mask(call, call.c.add("ne", call.x, call.x))


@converts("Where")
def where(call: Call) -> Results:
    return call.c.add("select", call.value(0), call.value(1), call.value(2))


@converts("Mean")
def mean(call: Call) -> Results:
    total = reduce(lambda a, b: call.c.add("add", a, b), [call.value(i) for i in range(len(call.inputs))])
    return call.c.add("mul", total, 1 / len(call.inputs))


@converts("Pow", limits="a constant exponent that is not finite")
def pow_(call: Call) -> Results:
    return power(call.c, call.value(0), call.value(1))


@converts("Sign")
def sign(call: Call) -> Results:
    return call.c.add("sub", call.c.add("gt", call.x, 0.0), call.c.add("lt", call.x, 0.0))


@converts("LeakyRelu")
def leaky_relu(call: Call) -> Results:
    x = call.x
    return call.c.add("select", call.c.add("lt", x, 0.0), call.c.add("mul", x, call.attr("alpha", 0.01)), x)


@converts("PRelu")
def prelu(call: Call) -> Results:
    x = call.x
    return call.c.add("select", call.c.add("lt", x, 0.0), call.c.add("mul", x, call.value(1)), x)


@converts("ThresholdedRelu")
def thresholded_relu(call: Call) -> Results:
    x = call.x
    return call.c.add("select", call.c.add("gt", x, call.attr("alpha", 1.0)), x, 0.0)


def _exponential(call: Call, alpha: float, inner: float, scale: float) -> Value:
    """scale * (x where x > 0, else alpha * (e^(inner x) - 1))."""
    c, x = call.c, call.x
    low = c.add("min", x, 0.0)
    low = c.add("sub", c.add("exp", low if inner == 1 else c.add("mul", low, inner)), 1.0)
    y = c.add("select", c.add("gt", x, 0.0), x, low if alpha == 1 else c.add("mul", low, alpha))
    return y if scale == 1 else c.add("mul", y, scale)


@converts("Elu")
def elu(call: Call) -> Results:
    return _exponential(call, call.attr("alpha", 1.0), 1.0, 1.0)


@converts("Celu")
def celu(call: Call) -> Results:
    alpha = call.attr("alpha", 1.0)
    return _exponential(call, alpha, 1 / alpha, 1.0)


@converts("Selu")
def selu(call: Call) -> Results:
    gamma = call.attr("gamma", 1.0507009873554805)
    return _exponential(call, call.attr("alpha", 1.6732632423543772), 1.0, gamma)


def clamp(call: Call, x: Value, low: Value | float | None, high: Value | float | None) -> Value:
    y = x if low is None else call.c.add("max", x, low)
    return y if high is None else call.c.add("min", y, high)


@converts("Clip")
def clip(call: Call) -> Results:
    bounds = [call.value(i) if call.has(i) else call.attr(name) for i, name in ((1, "min"), (2, "max"))]
    return clamp(call, call.x, *bounds)


@converts("HardSigmoid")
def hard_sigmoid(call: Call) -> Results:
    line = call.c.add("add", call.c.add("mul", call.x, call.attr("alpha", 0.2)), call.attr("beta", 0.5))
    return clamp(call, line, 0.0, 1.0)


@converts("HardSwish")
def hard_swish(call: Call) -> Results:
    line = call.c.add("add", call.c.add("mul", call.x, 1 / 6), 0.5)
    return call.c.add("mul", call.x, clamp(call, line, 0.0, 1.0))


@converts("Softsign")
def softsign(call: Call) -> Results:
    return call.c.add("div", call.x, call.c.add("add", call.c.add("abs", call.x), 1.0))


@converts("Mish")
def mish(call: Call) -> Results:
    return call.c.add("mul", call.x, call.c.add("tanh", call.c.add("softplus", call.x)))


@converts("Swish")
def swish(call: Call) -> Results:
    alpha = call.attr("alpha", 1.0)
    if alpha == 1:
        return call.c.add("silu", call.x)
    return call.c.add("mul", call.x, call.c.add("sigmoid", call.c.add("mul", call.x, alpha)))


@converts("Gelu")
def gelu(call: Call) -> Results:
    return call.c.add("gelu_tanh" if call.attr("approximate", "none") == "tanh" else "gelu", call.x)


@converts("Cast", "CastLike", limits="conversion of computed values to whole numbers")
def cast(call: Call) -> Results:
    """Among float types nothing changes; to bool it compares with 0."""
    from onnx import TensorProto

    if call.op == "CastLike":
        like = call.tensor(1)
        boolean = like in call.masks if isinstance(like, Value) else like.dtype == bool
        to = TensorProto.BOOL if boolean else TensorProto.FLOAT
    else:
        to = call.attr("to")
    if to in (TensorProto.INT32, TensorProto.INT64) and (call.x in call.wholes or call.x in call.masks):
        return call.x if call.x in call.wholes else call.whole(call.c.add("mul", call.x, 1.0))
    if to == TensorProto.BOOL:
        return mask(call, call.x if call.x in call.masks else call.c.add("ne", call.x, 0.0))
    if to not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16):
        raise Refused(f"conversion to {TensorProto.DataType.Name(to)}", "leave the value a float")
    return call.c.add("mul", call.x, 1.0) if call.x in call.wholes else call.x


@converts("Identity", "Dropout", limits="Dropout in training mode")
def identity(call: Call) -> Results:
    if call.op == "Dropout":
        if call.opset >= 12 and call.setting("training_mode", 2, False):
            raise Refused(
                "dropout that is active draws random numbers", "export the model in evaluation mode"
            )
        x = call.tensor(0)
        return [x, np.ones(x.shape, bool)]
    return call.tensor(0)
