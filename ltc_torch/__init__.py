"""The PyTorch front end: records a model, converts it to NNIR, and offers modules that compile well."""

from ltc_torch import fx, nn
from ltc_torch.compare import compare
from ltc_torch.fx.record.structured import elapsed_time
from ltc_torch.fx.rewrites.adaptive import fixed_step
from ltc_torch.precision import CorePartition, Fp8Weights, Fp32Activations
from ltc_torch.streaming import stream

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
