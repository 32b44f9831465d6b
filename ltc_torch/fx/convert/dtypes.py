"""Converters of what changes a tensor's type, or nothing at all: conversions, copies, dropout that is not active."""

from __future__ import annotations

from typing import Any

import torch

from ltc_compiler.ir.graph import Value
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.registry import Refused, converts

NUMBERS = (torch.float32, torch.float64)  # one type here: the precision policy says how numbers are computed


@converts(
    "to", "float", "double", "type", "type_as", "half", "bfloat16", "int", "long", "as_tensor", "asarray"
)
def convert_type(c: Emitter, input: Value, *args: Any, **kwargs: Any) -> Value:
    """What torch's result says counts, however the type was given: a conversion may name it, or another tensor.

    Conversions among fp32 and fp64 change nothing; booleans are numbers; to a boolean is a comparison with 0.
    """
    if c.dtype == torch.bool:
        return c.truth(input)
    if c.dtype in NUMBERS or c.is_mask(input) or c.dtype == c.operand_dtype:
        return input
    remedy = "leave it out; ltc_torch.precision and inputs_precisions choose the precision"
    raise Refused(f"conversion to {c.dtype}", remedy)


@converts("bool")
def boolean(c: Emitter, input: Value) -> Value:
    return c.truth(input)


@converts("clone", "contiguous")
def copied(c: Emitter, input: Value, *, memory_format: Any = None) -> Value:
    return input


@converts("detach", "alias", "cpu", "requires_grad_", "positive", "elapsed_time")
def identity(c: Emitter, input: Value, *args: Any, **kwargs: Any) -> Value:
    if c.target == "elapsed_time":
        c.mark_elapsed_time(input)
    return input


@converts(
    "dropout",
    "alpha_dropout",
    "feature_dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
)
def dropout(c: Emitter, input: Value, p: float = 0.5, training: bool = True, *_: Any, **kwargs: Any) -> Value:
    if kwargs.get("train", training):
        raise Refused(
            "dropout that is active draws random numbers", "F.dropout(x, p, training=self.training)"
        )
    return input
