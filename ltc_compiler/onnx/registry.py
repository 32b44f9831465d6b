"""The converter table: one row for each ONNX operator. The importer and docs/onnx.md are loops over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ltc_compiler.onnx.call import Call, Results

Converter = Callable[[Call], Results]


class Conversion(NamedTuple):
    """An operator's converter, and what of the operator it does not take, for the table in the documentation."""

    convert: Converter
    limits: str


CONVERTERS: dict[str, Conversion] = {}

# Operators that the importer converts itself (control.py), since they hold graphs, and what of them it does not take.
STRUCTURED = {
    "Constant": "strings, sparse tensors",
    "If": "a computed condition between branches of different shapes",
    "Loop": "a computed trip count or condition",
    "Scan": "opset 8, which has a batch axis",
}

# Known operators that have no converter: the reason, and the rewrite that works.
_INTEGERS = (
    "quantised to whole numbers; the machine computes in bf16, fp8 and fp32",
    "export it before quantisation",
)
REFUSED: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"), _INTEGERS),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"), _INTEGERS),
    "TopK": ("sorting depends on the data", "ReduceMax for the largest"),
    "NonZero": ("the shape of its result depends on the data", "Where with a value for both cases"),
    "Compress": ("the shape of its result depends on the data", "Where with a value for both cases"),
}


def converts(*names: str, limits: str = "") -> Callable[[Converter], Converter]:
    """Register the converter of ONNX operators."""

    def register(function: Converter) -> Converter:
        for name in names:
            CONVERTERS[name] = Conversion(function, limits)
        return function

    return register


def operators_markdown() -> str:
    """The table of supported operators, and that of refused ones."""
    limits = {name: row.limits for name, row in CONVERTERS.items()} | STRUCTURED
    lines = ["| operator | not taken |", "|---|---|"]
    lines += [f"| {name} | {limits[name] or '—'} |" for name in sorted(limits)]
    lines += ["", "Known operators that are refused where they read what is computed from an input:", ""]
    lines += ["| operator | reason | rewrite |", "|---|---|---|"]
    lines += [f"| {name} | {reason} | {rewrite} |" for name, (reason, rewrite) in sorted(REFUSED.items())]
    return "\n".join(lines) + "\n"
