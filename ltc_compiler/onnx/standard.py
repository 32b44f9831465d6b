"""Operators that ONNX itself defines as functions of others: those without a converter here are read so.

The definition of some depends on the types and attributes of the node; onnx builds it when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import FunctionProto, TypeProto, defs, helper

from ltc_compiler.ir.graph import Value
from ltc_compiler.onnx.call import Tensor


def function_of(node: Any, inputs: Sequence[Tensor | None], opset: int) -> Any:
    """The FunctionProto that a node of the standard's own domain stands for, or None."""
    try:
        schema: Any = defs.get_schema(node.op_type, opset)  # the stub of onnx lacks its functions
    except defs.SchemaError:
        return None
    text: bytes = b""
    if schema.has_function:
        versions = [v for v in schema.function_opset_versions if v <= opset]
        text = schema.get_function_with_opset_version(max(versions)) if versions else b""
    elif schema.has_context_dependent_function:
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        types = [_type(t).SerializeToString() for t in inputs]
        plain = node.SerializeToString()
        if versions:
            text = schema.get_context_dependent_function_with_opset_version(max(versions), plain, types)
    return FunctionProto.FromString(text) if text else None


def _type(tensor: Tensor | None) -> Any:
    if tensor is None:
        return TypeProto()
    kind = 1 if isinstance(tensor, Value) else helper.np_dtype_to_tensor_dtype(tensor.dtype)
    return helper.make_tensor_type_proto(kind, tensor.shape)
