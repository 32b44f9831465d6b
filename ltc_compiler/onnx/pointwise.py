"""Converters of pointwise ONNX operators: a row each where NNIR has the op, a few lines where it is composed.

Booleans are 0 and 1. Computation is in fp32 or what the precision policy says, whatever float type the file names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import numpy as np

from ltc_compiler.frontend import activations
from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.frontend.names import NAMES
from ltc_compiler.frontend.powers import power
from ltc_compiler.ir.graph import Value
from ltc_compiler.ir.ops import BY_ARITY
from ltc_compiler.onnx.call import Call, Results
from ltc_compiler.onnx.registry import Converter, converts

# Operators that are ops beside those that NAMES writes: of any number of operands, and of booleans.
VARIADIC = {"Add": "add", "Mul": "mul", "Min": "min", "Max": "max", "Sum": "add"}
LOGIC = {"And": "mul", "Or": "max", "Xor": "ne"}

ACTIVATIONS: dict[str, Callable[[Composer, Value], Value]] = {
    "HardSwish": activations.hard_swish,
    "Mish": activations.mish,
    "Sign": activations.sign,
    "Softsign": activations.softsign,
}


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
for _name, _function in ACTIVATIONS.items():
    converts(_name)(partial(lambda function, call: function(call.c, call.x), _function))
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


@converts("Elu")
def elu(call: Call) -> Results:
    return activations.exponential_unit(call.c, call.x, call.attr("alpha", 1.0))


@converts("Celu")
def celu(call: Call) -> Results:
    alpha = call.attr("alpha", 1.0)
    return activations.exponential_unit(call.c, call.x, alpha, inner=1 / alpha)


@converts("Selu")
def selu(call: Call) -> Results:
    alpha, gamma = call.attr("alpha", activations.SELU_ALPHA), call.attr("gamma", activations.SELU_SCALE)
    return activations.exponential_unit(call.c, call.x, alpha, gamma)


@converts("Clip")
def clip(call: Call) -> Results:
    bounds = [call.value(i) if call.has(i) else call.attr(name) for i, name in ((1, "min"), (2, "max"))]
    return activations.clamp(call.c, call.x, *bounds)


@converts("HardSigmoid")
def hard_sigmoid(call: Call) -> Results:
    return activations.hard_sigmoid(call.c, call.x, call.attr("alpha", 0.2), call.attr("beta", 0.5))


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
