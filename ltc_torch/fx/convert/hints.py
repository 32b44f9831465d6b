"""Torch functions that have no lowering, by name: why, and what to write instead. They make refusals useful.

A name may be a prefix ending in "*". What stands nowhere here is refused with a general sentence.
"""

from __future__ import annotations

_HOST = "compute it outside of the model and pass it as an input"

HINTS: dict[str, tuple[str, str]] = {
    "fft*": ("a Fourier transform needs the whole sequence and has no unit", _HOST),
    "stft": ("a Fourier transform needs the whole sequence and has no unit", _HOST),
    "sort": ("the machine cannot order values", "amax or amin for an extreme; order the outputs on the host"),
    "argsort": ("the machine cannot order values", "order the outputs on the host"),
    "topk": ("the machine cannot order values", "amax for the largest; choose from the outputs on the host"),
    "quantile": ("the machine cannot order values", "mean, or choose from the outputs on the host"),
    "median": ("the machine cannot order values", "mean, or choose from the outputs on the host"),
    "embedding": (
        "a table look-up by an input needs integers",
        "look up on the host and pass the vectors as the input",
    ),
    "one_hot": ("it takes integers that depend on the input", "make the one-hot vectors on the host"),
    "masked_select": ("the result's shape depends on values", "torch.where(mask, a, b) keeps the shape"),
    "linalg_*": (
        "a decomposition or solve has no lowering",
        "compute it from parameters, which is done once, or on the host",
    ),
    "inverse": (
        "a decomposition or solve has no lowering",
        "torch.linalg.inv of a parameter is folded; else do it on the host",
    ),
    "multi_head_attention_forward": (
        "the functional form is not known",
        "nn.MultiheadAttention as a module of the model",
    ),
    "lstm": ("the functional form is not known", "nn.LSTM as a module of the model"),
}


def hint(name: str) -> tuple[str, str]:
    """The reason and the rewrite for a function without a lowering."""
    for key, found in HINTS.items():
        if name == key or (key.endswith("*") and name.startswith(key[:-1])):
            return found
    return "there is no lowering for this operation", "rewrite it with supported operations"
