"""Every ONNX operator with a converter, under several settings."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from onnx_cases import Case, Const, ints

from ltc_compiler.frontend.names import NAMES
from ltc_compiler.ir.ops import BY_ARITY
from ltc_compiler.onnx.registry import CONVERTERS

RNG = np.random.default_rng(1)


def weights(*shape: int) -> Const:
    return Const(RNG.uniform(-1, 1, shape))


def _of_the_table() -> list[Case]:
    """A case for every operator that is an op itself; of positive operands where others have no finite result."""
    cases, grid = [], np.linspace(-2, 2, 9)
    for arity, rows in BY_ARITY.items():
        for op, (meaning, _) in rows.items():
            if operator := NAMES[op].operator(arity):
                with np.errstate(all="ignore"):
                    finite = np.isfinite(meaning(*[grid] * arity)).all()
                cases.append(Case(operator, [(3, 4)] * arity, low=-2 if finite else 0.1, tag=op))
    return cases


UNARY = [Case(op, [(3, 4)]) for op in (
    "Sign", "Identity", "Softsign", "Mish", "HardSwish", "Elu", "Celu", "Selu", "LeakyRelu", "ThresholdedRelu",
    "HardSigmoid", "Clip", "Dropout",
)]  # fmt: skip
UNARY += [
    Case("Elu", [(5,)], {"alpha": 0.3}),
    Case("Celu", [(5,)], {"alpha": 0.5}),
    Case("Selu", [(5,)], {"alpha": 1.2, "gamma": 0.8}),
    Case("LeakyRelu", [(2, 3)], {"alpha": 0.2}),
    Case("LeakyRelu", [(2, 3)], {"alpha": 1.5}),
    Case("ThresholdedRelu", [(2, 9)], {"alpha": 0.5}),
    Case("HardSigmoid", [(9,)], {"alpha": 0.4, "beta": 0.3}),
    Case("Gelu", [(9,)], {"approximate": "tanh"}),
    Case("Clip", [(9,), Const(-0.5), Const(0.7)]),
    Case("Clip", [(9,), None, Const(0.7)], tag="high"),
    Case("Clip", [(9,), Const(0.7)], tag="low"),
    Case("Clip", [(9,)], {"min": -0.5, "max": 0.5}, opset=7),
    Case("Dropout", [(9,)], opset=7),
    Case("Dropout", [(9,), Const(0.5), Const(False, bool)], tag="ratio"),
    Case("PRelu", [(2, 3), Const([0.1, 0.2, 0.3])]),
    Case("PRelu", [(2, 3), Const([0.1])], tag="one"),
    Case("Cast", [(3,)], {"to": TensorProto.BOOL}),
    Case("Cast", [(3,)], {"to": TensorProto.FLOAT}),
    Case("Cast", [np.array([True, False])], {"to": TensorProto.FLOAT}, tag="mask"),
    Case("CastLike", [(3,), Const([1.0])]),
    Case("IsNaN", [np.array([1.0, np.nan, np.inf])]),
    Case("Not", [np.array([True, False])]),
    Case("Swish", [(3, 3)], opset=24),
    Case("Swish", [(3, 3)], {"alpha": 0.5}, opset=24),
]
UNARY += [
    Case(op, [(5, 7)], low=-9, high=9)
    for op in ("Sin", "Cos", "Tan", "Erf", "Atan", "Floor", "Ceil", "Round", "Sinh", "Cosh", "Asinh")
]
UNARY += [
    *(Case(op, [(5, 7)], low=-0.95, high=0.95) for op in ("Asin", "Acos", "Atanh")),
    Case("Acosh", [(5, 7)], low=1.1, high=9),
]
BINARY = [
    Case(op, [a, b], low=0.2 if op == "Div" else -2)
    for op in ("Add", "Sub", "Mul", "Div", "Min", "Max")
    for a, b in (((3, 4), (3, 4)), ((3, 1), (4,)), ((2, 3), Const(0.5)), (Const([[1.0], [2.0]]), (1, 3)))
]
BINARY += [
    Case(op, [np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])])
    for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
]
BINARY += [
    Case(op, [np.array([True, True, False]), np.array([True, False, False])]) for op in ("And", "Or", "Xor")
]
BINARY += [
    *(Case(op, [(2, 3), (3,), (2, 1)]) for op in ("Min", "Max", "Sum", "Mean")),
    *(Case(op, [(2, 3)]) for op in ("Min", "Max", "Sum", "Mean")),
    Case("Mod", [(3, 4), (4,)], {"fmod": 1}, low=0.2, high=9),
    Case("Where", [np.array([[True], [False]]), (2, 3), (3,)]),
    *(Case("Pow", [(3, 4), Const(p)], low=0.2, tag=f"{p}") for p in (0, 1, 2, 3, 7, -1, -2, 0.5, -0.5, 1.7)),
    Case("Pow", [(3, 4), Const(3.0)], tag="negative base"),
    Case("Pow", [(3, 4), Const([2.0])], tag="vector of one"),
    Case("Pow", [(3, 4), Const(100.0)], low=0.9, high=1.1, tag="large"),
    Case("Pow", [(3,), ints(2)], tag="whole exponent"),
    Case("Pow", [Const(1.5), (3, 4)], tag="constant base"),
    Case("Pow", [Const(-2.0), np.array([1.0, 2.0, 3.0, 0.5, -2.0, 0.0])], tag="negative constant base"),
    Case("Pow", [(3, 4), (4,)], low=0.2, tag="both"),
]
LAYOUT = [
    Case("Reshape", [(2, 6), ints(3, 4)]),
    Case("Reshape", [(2, 6), ints(0, -1, 2)], tag="zero and rest"),
    Case("Reshape", [(2, 6), ints(-1)], tag="flat"),
    *(Case("Flatten", [(2, 3, 4)], {"axis": a}) for a in (0, 1, 2, 3, -1)),
    Case("Squeeze", [(1, 3, 1)]),
    Case("Squeeze", [(1, 3, 1), ints(-1)], tag="axis"),
    Case("Squeeze", [(1, 3, 1)], {"axes": [0]}, opset=11),
    Case("Unsqueeze", [(3, 4), ints(0, -1)]),
    Case("Unsqueeze", [(3, 4)], {"axes": [1, 3]}, opset=11),
    Case("Transpose", [(2, 3, 4)]),
    Case("Transpose", [(2, 3, 4)], {"perm": [1, 2, 0]}),
    Case("Concat", [(2, 3), (2, 1), Const([[1.0], [2.0]])], {"axis": 1}),
    Case("Concat", [(2, 3), (1, 3)], {"axis": -2}),
    Case("Slice", [(4, 5), ints(1), ints(3)]),
    Case("Slice", [(4, 5), ints(0, -2), ints(99, 99), ints(0, 1)], tag="ends"),
    Case("Slice", [(4, 9), ints(1), ints(8), ints(-1), ints(3)], tag="step"),
    Case("Slice", [(4, 9), ints(-1), ints(-100), ints(1), ints(-1)], tag="backward"),
    Case("Slice", [(4, 9)], {"starts": [1, 2], "ends": [4, -1], "axes": [0, 1]}, opset=9),
    Case("Split", [(2, 6)], {"axis": 1, "num_outputs": 3}, outputs=3),
    Case("Split", [(2, 5)], {"axis": -1, "num_outputs": 2}, outputs=2),
    Case("Split", [(2, 6), ints(1, 5)], {"axis": 1}, outputs=2),
    Case("Split", [(2, 6)], {"axis": 1, "split": [2, 4]}, opset=11, outputs=2),
    Case("Gather", [(4, 3), Const(2, np.int64)]),
    Case("Gather", [(4, 3), Const([0, -1, 1], np.int64)], {"axis": 1}),
    Case("Gather", [(4, 3), Const([[0, 2], [3, 3]], np.int64)], tag="matrix"),
    Case("Expand", [(3, 1), ints(2, 1, 4)]),
    Case("Expand", [(3, 4), ints(1)], tag="narrower"),
    Case("Tile", [(2, 3), ints(2, 3)]),
    Case("Tile", [(2, 3), ints(1, 1)], tag="once"),
    *(Case("Pad", [(2, 4), ints(0, 1, 1, 2)], {"mode": m}) for m in ("constant", "edge")),
    Case("Pad", [(2, 4), ints(0, 2, 0, 3)], {"mode": "reflect"}),
    Case("Pad", [(2, 4), ints(0, 2, 0, 3)], {"mode": "wrap"}),
    Case("Pad", [(2, 4), ints(0, 2, 0, -1), Const(0.5)], tag="value and cut"),
    Case("Pad", [(2, 4), ints(3, 1), Const(0.5), ints(-1)], tag="axes"),
    Case("Pad", [(2, 4)], {"pads": [0, 1, 0, 2], "value": 1.5}, opset=10),
    Case("Shape", [(2, 3, 4)]),
    Case("Shape", [(2, 3, 4)], {"start": 1, "end": -1}),
    Case("Size", [(2, 3, 4)]),
    Case("Trilu", [(2, 4, 4)]),
    Case("Trilu", [(3, 4), Const(-1, np.int64)], {"upper": 0}),
]
PRODUCTS = [
    Case("MatMul", [(2, 3), weights(3, 4)]),
    Case("MatMul", [(2, 5, 3), weights(3, 4)], tag="batch"),
    Case("MatMul", [weights(4, 3), (3, 2)], tag="left"),
    Case("MatMul", [weights(4, 3), (5, 3, 2)], tag="left batch"),
    Case("MatMul", [(2, 3), (3, 4)], tag="both"),
    Case("MatMul", [(2, 1, 4, 3), (5, 3, 2)], tag="both batch"),
    Case("MatMul", [(3,), weights(3, 4)], tag="vector"),
    Case("MatMul", [(2, 3), (3,)], tag="by vector"),
    Case("MatMul", [(2, 4, 3), weights(2, 3, 5)], tag="constant batch"),
    Case("Gemm", [(2, 3), weights(3, 4), weights(4)]),
    Case("Gemm", [(2, 3), weights(4, 3), weights(1, 4)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", [(3, 2), weights(3, 4)], {"transA": 1}),
    Case("Gemm", [(2, 3), weights(3, 4), Const(0.5)], tag="scalar"),
    Case("Gemm", [(2, 3), weights(3, 4), weights(2, 1)], {"beta": 0.5}, tag="column"),
    Case("Gemm", [(2, 3), (3, 4), (2, 4)], {"alpha": 2.0}, tag="computed"),
    Case("Gemm", [weights(2, 3), (3, 4), weights(4)], tag="constant A"),
    *(
        Case("Einsum", shapes, {"equation": e}, tolerance=1e-4)
        for e, shapes in (
            ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
            ("bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
            ("ij->ji", [(2, 3)]),
            ("ij->i", [(2, 3)]),
            ("i,j->ij", [(2,), (3,)]),
            ("bi,oi->bo", [(2, 3), weights(4, 3)]),
        )
    ),
]
CONV: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 9), (4, 3, 3), {}),
    ((2, 3, 9), (4, 3, 2), {"pads": [1, 2]}),
    ((1, 3, 12), (2, 3, 3), {"strides": [2], "dilations": [2], "pads": [2, 0]}),
    ((1, 4, 9), (6, 2, 3), {"group": 2}),
    ((1, 4, 9), (4, 1, 3), {"group": 4, "pads": [2, 0]}),
    ((1, 4, 9), (8, 1, 3), {"group": 4}),
    ((1, 3, 9), (4, 3, 4), {"auto_pad": "SAME_UPPER", "strides": [2]}),
    ((1, 3, 9), (4, 3, 4), {"auto_pad": "SAME_LOWER"}),
    ((1, 3, 9), (4, 3, 4), {"auto_pad": "VALID"}),
    ((1, 3, 1, 9), (4, 3, 1, 3), {"pads": [0, 1, 0, 1]}),
    ((1, 3, 9, 1), (4, 3, 3, 1), {"strides": [2, 1]}),
    ((2, 3, 6, 7), (4, 3, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ((1, 4, 6, 7), (6, 2, 2, 3), {"group": 2, "dilations": [1, 2]}),
    ((1, 4, 6, 7), (8, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    ((1, 4, 6, 7), (4, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 2, 4, 5, 3), (3, 2, 2, 3, 2), {}),
]
WINDOWS = [
    *(Case("Conv", [x, weights(*w), weights(w[0])], a, tag=f"{w}") for x, w, a in CONV),
    Case("Conv", [(1, 3, 9), weights(4, 3, 3)], {"kernel_shape": [3]}, tag="no bias"),
    *(
        Case(op, [(2, 3, 10)], {"kernel_shape": [3], **a})
        for op in ("AveragePool", "MaxPool")
        for a in (
            {},
            {"strides": [2]},
            {"strides": [2], "pads": [1, 1]},
            {"strides": [3], "ceil_mode": 1},
            {"strides": [2], "pads": [1, 1], "ceil_mode": 1},
            {"dilations": [2]},
            {"auto_pad": "SAME_UPPER", "strides": [2]},
        )
    ),
    Case("AveragePool", [(2, 3, 10)], {"kernel_shape": [3], "pads": [1, 1], "count_include_pad": 1}),
    Case("AveragePool", [(2, 3, 1, 10)], {"kernel_shape": [1, 3]}),
    *(
        Case(op, [(2, 3, 5, 6)], {"kernel_shape": [2, 3], **a})
        for op in ("AveragePool", "MaxPool")
        for a in (
            {},
            {"strides": [2, 1], "pads": [1, 1, 0, 1]},
            {"strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
            {"kernel_shape": [5, 6]},
        )
    ),
    Case(
        "AveragePool", [(2, 3, 5, 6)], {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    ),
    Case("AveragePool", [(1, 2, 3, 4, 4)], {"kernel_shape": [2, 2, 2]}),
    *(Case(op, [s]) for op in ("GlobalAveragePool", "GlobalMaxPool") for s in ((2, 3, 7), (2, 3, 4, 5))),
]
TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 6), (3, 2, 3), {}),
    ((2, 3, 6), (3, 2, 4), {"strides": [2], "pads": [1, 1]}),
    ((1, 3, 6), (3, 2, 3), {"strides": [3], "pads": [1, 0], "output_padding": [1]}),
    ((1, 4, 5), (4, 2, 3), {"group": 2, "strides": [2], "dilations": [2]}),
    *(((1, 2, 5), (2, 3, 4), {"auto_pad": p, "strides": [2]}) for p in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    ((1, 2, 5), (2, 3, 3), {"output_shape": [10], "strides": [2]}),
    ((1, 2, 5), (2, 3, 4), {"output_shape": [9], "strides": [2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 4, 5), (2, 3, 3, 2), {"strides": [2, 1], "pads": [1, 0, 1, 1]}),
]
WINDOWS += [Case("ConvTranspose", [x, weights(*w), weights(w[1] * a.get("group", 1))], a, tag=f"{w}")
            for x, w, a in TRANSPOSED]  # fmt: skip
REDUCTIONS = [
    case
    for op in CONVERTERS
    if op.startswith("Reduce")
    for case in (
        Case(op, [(2, 3, 4)], low=0.1),
        Case(op, [(2, 3, 4), ints(-1, 0)], {"keepdims": 0}, low=0.1),
        Case(op, [(2, 3, 4), ints(1)], {"keepdims": 1}, low=0.1),
        Case(op, [(2, 3, 4)], {"axes": [1], "keepdims": 0}, opset=11, low=0.1),
        Case(op, [(2, 3, 4)], {"noop_with_empty_axes": 1}, low=0.1),
    )
    if not (
        case.attrs.get("noop_with_empty_axes")
        and op in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
    )
]
NORMS = [
    *(Case(op, [(2, 3, 4)], {"axis": a}) for op in ("Softmax", "LogSoftmax") for a in (-1, 0, 1)),
    *(Case(op, [(2, 3, 4)], opset=11) for op in ("Softmax", "LogSoftmax")),
    Case("CumSum", [(3, 4), Const(1, np.int64)]),
    Case("CumSum", [(3, 4), Const(0, np.int64)], {"exclusive": 1}),
    Case("CumSum", [(3, 4), Const(-1, np.int64)], {"reverse": 1}),
    Case("CumSum", [(3, 4), Const(1, np.int64)], {"reverse": 1, "exclusive": 1}),
    *(
        Case("BatchNormalization", [s, *(Const(RNG.uniform(0.5, 2, 3)) for _ in range(4))], a)
        for s, a in (((2, 3), {}), ((2, 3, 5), {"epsilon": 1e-2}), ((2, 3, 4, 5), {}))
    ),
    Case("LayerNormalization", [(2, 3, 4), weights(4), weights(4)]),
    Case("LayerNormalization", [(2, 3, 4), weights(4)], {"epsilon": 1e-2}, outputs=3),
    Case("LayerNormalization", [(2, 3, 4), weights(3, 4), weights(3, 4)], {"axis": 1}),
    Case("RMSNormalization", [(2, 3, 4), weights(4)], opset=23),
    Case("RMSNormalization", [(2, 3, 4), weights(3, 4)], {"axis": 1, "epsilon": 1e-2}, opset=23),
    Case("InstanceNormalization", [(2, 3, 5), weights(3), weights(3)]),
    Case("InstanceNormalization", [(2, 3, 5), weights(3), weights(3)], {"epsilon": 1e-2}),
    Case("GroupNormalization", [(2, 4, 5), weights(4), weights(4)], {"num_groups": 2}, opset=21),
    Case(
        "GroupNormalization",
        [(2, 6, 5), weights(6), weights(6)],
        {"num_groups": 3, "epsilon": 1e-2},
        opset=21,
    ),
]


def recurrent(
    op: str, starts: bool = False, bias: bool = True, attrs: dict[str, Any] | None = None, tag: str = "",
    time: int = 5, batch: int = 2, features: int = 3, hidden: int = 4, extra: int = 0,
) -> Case:  # fmt: skip
    """An LSTM, GRU or RNN; extra: the width of its peepholes, in multiples of hidden."""
    attrs = {"hidden_size": hidden, **(attrs or {})}
    count = 2 if attrs.get("direction") == "bidirectional" else 1
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    operands: list[Any] = [(time, batch, features), weights(count, gates * hidden, features)]
    operands += [
        weights(count, gates * hidden, hidden),
        weights(count, 2 * gates * hidden) if bias else None,
        None,
    ]
    states = 2 if op == "LSTM" else 1
    operands += [(count, batch, hidden) if starts else None] * states
    operands += [weights(count, extra * hidden)] if extra else []
    while operands[-1] is None:
        operands.pop()
    return Case(op, operands, attrs, outputs=1 + states, tag=tag)


RECURRENT = [
    case
    for op in ("LSTM", "GRU", "RNN")
    for case in (
        recurrent(op),
        recurrent(op, starts=True, tag="states"),
        recurrent(op, bias=False, tag="no bias"),
        recurrent(op, attrs={"direction": "reverse"}),
        recurrent(op, starts=True, attrs={"direction": "bidirectional"}),
    )
]
RECURRENT += [
    *(
        recurrent(op, attrs={"clip": 0.4, "direction": d}, starts=True)
        for op in ("GRU", "RNN")  # an LSTM's is in test_clip.py: onnxruntime leaves its memory unclipped
        for d in ("forward", "bidirectional")
    ),
    recurrent("GRU", attrs={"clip": 0.4, "linear_before_reset": 1}),
    recurrent("LSTM", attrs={"input_forget": 1}),
    recurrent("LSTM", attrs={"input_forget": 1, "direction": "bidirectional"}, extra=3, tag="peepholes"),
    *(
        recurrent("RNN", attrs={"activations": [name]}, starts=True)
        for name in (
            "Softplus",
            "Softsign",
            "LeakyRelu",
            "HardSigmoid",
            "Elu",
        )
    ),
    *(
        recurrent("RNN", attrs={"activations": [name], "activation_alpha": [0.6], **beta}, starts=True)
        for name, beta in (
            ("Affine", {"activation_beta": [0.2]}),
            ("LeakyRelu", {}),
            ("ThresholdedRelu", {}),
            ("Elu", {}),
            ("ScaledTanh", {"activation_beta": [0.7]}),
            ("HardSigmoid", {"activation_beta": [0.4]}),
        )
    ),
    recurrent("LSTM", attrs={"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.25]}),
    recurrent(
        "LSTM",
        attrs={
            "activations": ["HardSigmoid", "LeakyRelu", "Elu"],
            "activation_alpha": [0.25, 0.1, 0.7],
            "activation_beta": [0.4],
        },
    ),
    recurrent(
        "GRU",
        attrs={
            "activations": ["HardSigmoid", "Tanh", "Sigmoid", "Relu"],
            "activation_alpha": [0.3],
            "activation_beta": [0.6],
            "direction": "bidirectional",
        },
    ),
    recurrent("GRU", attrs={"activations": ["HardSigmoid", "Softsign"], "linear_before_reset": 1}),
    recurrent("GRU", attrs={"linear_before_reset": 1}),
    recurrent("GRU", attrs={"linear_before_reset": 1, "direction": "bidirectional"}),
    recurrent("RNN", attrs={"activations": ["Relu"]}),
    recurrent("LSTM", attrs={"activations": ["Sigmoid", "Relu", "Tanh"]}),
    recurrent("LSTM", extra=3, tag="peepholes"),
]

POSITIONS = [
    Case("GatherElements", [(3, 4), Const([[0, 2], [1, -1]], np.int64)], {"axis": 1}),
    Case("GatherElements", [(3, 4), Const([[0, 2, 1, 0]], np.int64)]),
    Case("GatherND", [(3, 4), Const([[0, 2], [2, -1]], np.int64)]),
    Case("GatherND", [(3, 4, 2), Const([[2], [0]], np.int64)], tag="rows"),
    Case("GatherND", [(2, 3, 4), Const([[[1]], [[2]]], np.int64)], {"batch_dims": 1}),
    Case("GatherND", [(2, 3, 4), Const([[0, 1], [1, 0]], np.int64)], {"batch_dims": 0}),
    Case("ScatterElements", [(3, 4), Const([[0, 2], [1, -1]], np.int64), (2, 2)], {"axis": 1}),
    Case("ScatterElements", [(3, 4), Const([[0, 2, 1, 0]], np.int64), (1, 4)]),
    Case("ScatterElements", [weights(3, 4), Const([[0, 2, 1, 0]], np.int64), (1, 4)], tag="into a constant"),
    *(
        Case("ScatterElements", [(3, 4), Const([[0, 2, 1, 0]], np.int64), (1, 4)], {"reduction": r})
        for r in ("add", "mul", "max", "min")
    ),
    Case("ScatterND", [(4, 3), Const([[1], [-1]], np.int64), (2, 3)]),
    Case("ScatterND", [(4, 3), Const([[1, 0], [0, 2], [-1, 1]], np.int64), (3,)], tag="elements"),
    Case("ScatterND", [(2, 4, 3), Const([[[1], [0]]], np.int64), (1, 2, 4, 3)], tag="planes"),
    Case("ScatterND", [(4, 3), Const([[2], [0]], np.int64), weights(2, 3)], tag="constant updates"),
    Case("ScatterND", [(4, 3), Const([[2], [0]], np.int64), (2, 3)], {"reduction": "add"}),
]
CHOICES = [
    *(
        Case(op, [(3, 4, 5)], a)
        for op in ("ArgMax", "ArgMin")
        for a in ({}, {"axis": -1}, {"axis": 1, "keepdims": 0})
    ),
    Case("ArgMax", [np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 1.0]])], {"axis": 1}, tag="ties"),
    Case(
        "ArgMin",
        [np.array([[1.0, 3.0, 1.0], [2.0, 2.0, 5.0]])],
        {"axis": 1, "select_last_index": 1},
        tag="last",
    ),
    *(Case("Hardmax", [(2, 3, 4)], {"axis": a}) for a in (-1, 0, 1)),
    Case("Hardmax", [(2, 3, 4)], opset=11),
    Case("OneHot", [np.array([0.0, 2.0, -1.0, 5.0, -4.0]), Const(3.0), Const([0.5, 2.0])]),
    Case("OneHot", [np.array([[0.0, 2.0], [1.0, 1.0]]), Const(3.0), (2,)], {"axis": 1}),
]
MOVES = [
    *(Case("DepthToSpace", [(2, 12, 2, 3)], {"blocksize": 2, "mode": m}) for m in ("DCR", "CRD")),
    Case("DepthToSpace", [(1, 4, 2, 3)], {"blocksize": 2}, opset=10),
    Case("SpaceToDepth", [(2, 3, 4, 6)], {"blocksize": 2}),
    Case("EyeLike", [(3, 4)], {"k": 1}),
    Case("ReverseSequence", [(5, 3), Const([2, 5, 1], np.int64)]),
    Case("ReverseSequence", [(3, 5, 2), Const([2, 5, 1], np.int64)], {"batch_axis": 0, "time_axis": 1}),
]
MODES: list[tuple[str, dict[str, Any]]] = [
    *(("nearest", {"nearest_mode": n}) for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")),
    ("linear", {}),
    ("cubic", {"cubic_coeff_a": -0.5}),
    ("cubic", {"exclude_outside": 1}),
]
SIZES: list[Case] = [
    Case("Resize", [x, None, *how], {"mode": mode, "coordinate_transformation_mode": place, **more})
    for x, how in (
        ((1, 2, 5), [Const([1.0, 1.0, 2.0])]),
        ((1, 2, 7), [None, ints(1, 2, 4)]),
        ((1, 2, 3, 4), [Const([1.0, 1.0, 1.7, 0.6])]),
    )
    for mode, more in MODES
    for place in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
    if mode != "cubic" or len(x) == 4
]
SIZES += [
    Case("Resize", [(1, 2, 5, 3), None, Const([2.0])], {"axes": [2], "mode": "linear"}, tag="axes"),
    Case("Resize", [(1, 2, 5), Const([1.0, 1.0, 2.0])], {"mode": "nearest"}, opset=10),
    Case("Resize", [(1, 2, 5), Const([]), Const([1.0, 1.0, 1.6])], {"mode": "linear"}, opset=11),
    Case("Resize", [(1, 2, 4, 4), Const([1.0, 1.0, 0.5, 1.5])], {"mode": "linear"}, opset=10),
    Case("Upsample", [(1, 2, 3, 4)], {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 1.5]}, opset=7),
    Case("Upsample", [(1, 2, 3, 4), Const([1.0, 1.0, 2.0, 3.0])], {"mode": "linear"}, opset=9),
]
NORMS += [
    *(Case("LpNormalization", [(2, 3, 4)], {"p": p, "axis": a}) for p in (1, 2) for a in (-1, 1)),
    Case("LpNormalization", [np.array([[0.0, 0.0], [3.0, 4.0]])], tag="zero"),
]
STANDARD = [  # operators without a converter, by their definition
    Case("MeanVarianceNormalization", [(2, 3, 4)], {"axes": [0, 2]}, opset=13),
    Case("MeanVarianceNormalization", [(2, 3, 4)], {"axes": [1, 2]}, opset=13),
    Case("Shrink", [(3, 4)], {"lambd": 0.4, "bias": 0.1}),
    Case("CenterCropPad", [(4, 7), ints(6, 3)]),
    Case("CenterCropPad", [(4, 7, 2), ints(6, 3)], {"axes": [0, 1]}, opset=18),
    Case("Attention", [(1, 2, 5, 4), (1, 2, 6, 4), (1, 2, 6, 4)], opset=23),
    Case("Attention", [(2, 2, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)], {"is_causal": 1, "scale": 0.3}, opset=23),
    Case("Attention", [(1, 5, 8), (1, 5, 8), (1, 5, 8)], {"q_num_heads": 2, "kv_num_heads": 2}, opset=23),
    Case("Attention", [(1, 4, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4)], opset=23, tag="grouped"),
    Case("Attention", [(1, 2, 5, 4), (1, 2, 6, 4), (1, 2, 6, 4), weights(5, 6)], opset=23, tag="mask"),
]

CASES = [
    *_of_the_table(), *UNARY, *BINARY, *LAYOUT, *PRODUCTS, *WINDOWS, *REDUCTIONS, *NORMS, *RECURRENT, *POSITIONS,
    *CHOICES, *MOVES, *SIZES,
]  # fmt: skip
