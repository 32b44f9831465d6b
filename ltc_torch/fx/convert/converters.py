"""The converters of torch functions, all of them: importing this module fills the registry."""

from ltc_torch.fx.convert import (
    contract,
    decompose,
    dtypes,
    einsum,
    functions,
    indexing,
    linear,
    movement,
    norms,
    patches,
    pointwise,
    positions,
    reductions,
)

__all__ = [
    "contract",
    "decompose",
    "dtypes",
    "einsum",
    "functions",
    "indexing",
    "linear",
    "movement",
    "norms",
    "patches",
    "pointwise",
    "positions",
    "reductions",
]
