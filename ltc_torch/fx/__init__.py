"""From a PyTorch model to NNIR: `prepare_shape` records it as a graph, `nnir.to_nnir` converts that graph."""

from . import attention, ncps, nnir, rnn
from .extend import lowering
from .prepare import prepare_shape
from .registry import Refused, converts, leaf, rewrite

__all__ = [
    "Refused",
    "attention",
    "converts",
    "leaf",
    "lowering",
    "ncps",
    "nnir",
    "prepare_shape",
    "rewrite",
    "rnn",
]
