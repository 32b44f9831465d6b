"""Precision by region: context managers that the user puts around a part of `forward`.

They act while a model is recorded: every operation recorded inside carries the wish, and the precision pass follows it.
Outside of a recording they do nothing. Defaults without a context: weights and what a matmul reads are bf16, state and
pointwise mathematics fp32.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import ClassVar

from ltc_compiler.ir.graph import Precision


class _Wishes(threading.local):
    activations: Precision | None = None
    weights: Precision | None = None


_wishes = _Wishes()


def activations() -> Precision | None:
    """The wish for operations recorded now."""
    return _wishes.activations


def weights() -> Precision | None:
    """The wish for the weights of matmuls recorded now."""
    return _wishes.weights


class _Region:
    field: ClassVar[str]
    wish: ClassVar[Precision]

    def __init__(self) -> None:
        self._outer: list[Precision | None] = []

    def __enter__(self) -> None:
        self._outer.append(getattr(_wishes, self.field))
        setattr(_wishes, self.field, self.wish)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        setattr(_wishes, self.field, self._outer.pop())


class Fp32Activations(_Region):
    """Operations inside compute in fp32: matmuls read fp32 operands, activation units return fp32."""

    field = "activations"
    wish = Precision.FP32


class Fp8Weights(_Region):
    """Weights of matmuls inside are stored as FP8 E4M3, with one power-of-two scale per tensor.

    Where both regions hold, whichever is the inner one, a matmul reads weights of FP8's values and fp32 activations.
    Such weights are rounded when the model is converted, so plain fp32 (`bit_accurate=False`) keeps that rounding too,
    and they take the room of fp32 weights.
    """

    field = "weights"
    wish = Precision.FP8_E4M3
