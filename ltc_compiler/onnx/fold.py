"""Evaluation of ONNX nodes that read constants alone, by ONNX's own reference, in ONNX's own types.

Shape arithmetic is made of these. Only operators on the list are run, and the size of what they make is known first,
so that a file cannot ask for more memory or time than its own size allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.compose import FOLD_LIMIT, Refused
from ..ir.graph import Array

POINTWISE = frozenset({
    "Abs", "Add", "And", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "Cast", "CastLike", "Ceil", "Clip", "Cos",
    "DequantizeLinear", "Div", "Equal", "Erf", "Exp", "Floor", "Greater", "GreaterOrEqual", "Identity", "IsInf",
    "IsNaN", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow",
    "QuantizeLinear", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Sub", "Sum",
    "Tanh", "Where", "Xor",
})  # fmt: skip
SMALLER = frozenset({
    "ArgMax", "ArgMin", "Compress", "Concat", "CumSum", "Flatten", "Gather", "GatherElements", "GatherND", "MatMul",
    "NonZero",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "Reshape", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "Split",
    "Squeeze", "Transpose", "Trilu", "Unsqueeze",
})  # fmt: skip
GROWING = frozenset({"ConstantOfShape", "Expand", "Tile", "Range"})
FOLDABLE = POINTWISE | SMALLER | GROWING


def fold(node: Any, arrays: Sequence[Array | None], opsets: dict[str, int]) -> list[Array]:
    """The results of a NodeProto whose operands are `arrays`. Refuses a result that is too large."""
    from onnx.reference import ReferenceEvaluator

    given = [a for a in arrays if a is not None]
    size = _elements(node, given)
    if size > max(FOLD_LIMIT, sum(a.size for a in given)):
        raise Refused(f"a constant of {size} elements", f"at most {FOLD_LIMIT}")
    names = [n for n in node.input if n]
    try:
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(node, opsets=opsets)
            results = evaluator.run(None, dict(zip(names, given, strict=True)))
    except Exception as error:  # the reference raises whatever its NumPy code raises
        raise Refused(
            f"its constant inputs do not fit: {error}", "check the model with onnx.checker"
        ) from None
    return [np.asarray(r) for r in results]


def _elements(node: Any, arrays: Sequence[Array]) -> int:
    """How many elements one result has at most, more than its operands if it grows."""
    op = node.op_type
    if op in POINTWISE:
        return math.prod(np.broadcast_shapes(*(a.shape for a in arrays)))
    if op == "ConstantOfShape":
        return math.prod(int(d) for d in arrays[0].reshape(-1))
    if op == "Expand":
        return math.prod(np.broadcast_shapes(arrays[0].shape, tuple(int(d) for d in arrays[1].reshape(-1))))
    if op == "Tile":
        return arrays[0].size * math.prod(int(d) for d in arrays[1].reshape(-1))
    if op == "Range":
        start, limit, step = (float(a.reshape(())) for a in arrays)
        return max(0, math.ceil((limit - start) / step))
    if op == "MatMul":
        a, b = (x if x.ndim > 1 else x.reshape(1, -1) for x in arrays)
        return a.size // max(a.shape[-1], 1) * b.size
    if op == "Gather":
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        return arrays[0].size // max(arrays[0].shape[axis], 1) * arrays[1].size
    return 0
