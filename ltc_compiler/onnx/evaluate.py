"""Evaluation of ONNX nodes that read constants alone, by ONNX's own reference, in ONNX's own types.

Shape arithmetic is made of these. Only operators on the list are run, the size of what they make is known first, and
all of them draw on one budget, so that a file cannot ask for more memory or time than its own size allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ltc_compiler.frontend.compose import FOLD_LIMIT, Budget, Refused
from ltc_compiler.ir.graph import Array

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
# The reference goes through the elements of these one by one, in Python.
SLOW = frozenset({"Erf", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Compress"})
SLOW_LIMIT = 1 << 20
# What the newest versions of operators take as inputs, in order, and older ones as attributes.
MOVED: dict[str, tuple[str, ...]] = {
    "Clip": ("min", "max"),
    "Slice": ("starts", "ends", "axes"),
    "Split": ("split",),
    **dict.fromkeys(("Squeeze", "Unsqueeze", *(n for n in SMALLER if n.startswith("Reduce"))), ("axes",)),
}
FOLDABLE = POINTWISE | SMALLER | GROWING


def fold(node: Any, arrays: Sequence[Array | None], budget: Budget) -> list[Array]:
    """The results of a NodeProto of the standard's own domain, of any opset from 7 on, whose operands are `arrays`.

    Refuses a result that is too large, and one more than the budget pays for.
    """
    given = [a for a in arrays if a is not None]
    size = _elements(node, given)
    limit = SLOW_LIMIT if node.op_type in SLOW else FOLD_LIMIT
    if size > max(limit, sum(a.size for a in given if node.op_type not in SLOW)):
        raise Refused(f"a constant of {size} elements", f"at most {limit}")
    budget.touch(_work(node, given))
    budget.hold(size)
    try:
        with np.errstate(all="ignore"):
            results = _evaluate(node, list(arrays))
    except Exception as error:  # the reference raises whatever its NumPy code raises
        raise Refused(
            f"its constant inputs do not fit: {error}", "check the model with onnx.checker"
        ) from None
    budget.hold(max(0, sum(r.size for r in results) - size))
    return results


def _evaluate(node: Any, arrays: list[Array | None]) -> list[Array]:
    """By the reference, as the newest version of the operator: the reference has not all of the older ones."""
    from onnx.reference import ReferenceEvaluator

    new, operands = _newest(node, arrays)
    given = {name: a for name, a in zip(new.input, operands, strict=True) if name and a is not None}
    found = ReferenceEvaluator(new).run(None, given)
    return list(map(np.asarray, found))


def _newest(node: Any, arrays: list[Array | None]) -> tuple[Any, list[Array | None]]:
    """The node with inputs in place of the attributes that older versions have for them."""
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    moved = {name: attributes.pop(name) for name in MOVED.get(node.op_type, ()) if name in attributes}
    if node.op_type == "Split" and "split" not in moved and len(arrays) == 1:
        attributes.setdefault("num_outputs", len(node.output))
    names = list(node.input)
    if moved:
        own = arrays[0]
        assert own is not None
        kind = own.dtype if node.op_type == "Clip" else np.dtype(np.int64)
        arrays = [own, *(np.asarray(moved[n], kind) if n in moved else None for n in MOVED[node.op_type])]
        names = ["operand", *(n if n in moved else "" for n in MOVED[node.op_type])]
    return helper.make_node(node.op_type, names, list(node.output), **attributes), arrays


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


def _work(node: Any, arrays: Sequence[Array]) -> int:
    """Elements that are read, each as often as the operator reads it."""
    if node.op_type == "MatMul":
        return arrays[0].size * (arrays[1].shape[-1] if arrays[1].ndim > 1 else 1)
    return sum(a.size for a in arrays)
