"""Values that are whole numbers in ONNX: what is computed of them is whole, and their quotients are cut off."""

from __future__ import annotations

import numpy as np

from ltc_compiler.frontend.compose import Refused
from ltc_compiler.ir.graph import Value
from ltc_compiler.onnx.call import Call, Results, is_whole
from ltc_compiler.onnx.registry import Converter

# These round whole numbers towards zero, which nothing here does.
ROUNDED = frozenset(
    {"Div", "Mean", "ReduceMean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "AveragePool"}
)
ELSEWHERE = frozenset({"Cast", "CastLike", "Shape", "Size"})  # the type of their results is another


def whole_results(call: Call, convert: Converter) -> Results:
    """Convert a node, and remember that its results are whole where all that it reads is."""
    tensors = [t for t in call.inputs if isinstance(t, (Value, np.ndarray))]
    whole = any(isinstance(t, Value) for t in tensors) and all(is_whole(t, call.wholes) for t in tensors)
    whole = whole and call.op not in ELSEWHERE
    if whole and call.op in ROUNDED:
        raise Refused("a quotient of whole numbers, which is cut off", "Cast to float first")
    results = convert(call)
    if whole:
        listed = [results] if isinstance(results, (Value, np.ndarray)) else results
        call.wholes.update(r for r in listed if isinstance(r, Value) and r not in call.masks)
    return results
