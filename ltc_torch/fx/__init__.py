"""From a PyTorch model to NNIR: `prepare_shape` records it as a graph, `nnir.to_nnir` converts that graph."""

from ltc_torch.fx import nnir
from ltc_torch.fx.extend import lowering
from ltc_torch.fx.prepare import prepare_shape
from ltc_torch.fx.registry import Refused, converts, leaf, rewrite
from ltc_torch.fx.rewrites import attention, ncps, rnn

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
