"""The converters of torch functions, all of them: importing this module fills the registry."""

from . import (
    contract,
    conversions,
    decompose,
    einsum,
    functions,
    indexing,
    layout,
    linear,
    norms,
    patches,
    pointwise,
    positions,
    reductions,
)

__all__ = [
    "contract",
    "conversions",
    "decompose",
    "einsum",
    "functions",
    "indexing",
    "layout",
    "linear",
    "norms",
    "patches",
    "pointwise",
    "positions",
    "reductions",
]
