"""The PyTorch side: traces a model, converts it to NNIR, and offers modules that compile well."""

from . import fx, nn
from .compare import compare
from .fx.adaptive import fixed_step
from .fx.structured import elapsed_time
from .precision import CorePartition, Fp8Weights, Fp32Activations
from .streaming import stream

__all__ = [
    "CorePartition",
    "Fp8Weights",
    "Fp32Activations",
    "compare",
    "elapsed_time",
    "fixed_step",
    "fx",
    "nn",
    "stream",
]
