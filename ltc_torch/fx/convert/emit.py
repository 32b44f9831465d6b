"""The emitter: the composer as converters of torch's functions use it.

Besides what every importer needs, it carries the user's precision request to every node that it makes, and says what
torch alone knows of an operation: the function's name, whether it was a method, the dtype of its result, which values
are masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltc_compiler import numerics
from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.ir.graph import Array, Graph, Precision, Value
from ltc_torch.precision import Entered


class Emitter(Composer):
    """Appends to one graph."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.precision: Precision | None = None
        self.weights: Precision | None = None
        self.cores: tuple[int, ...] = ()
        self.regions: tuple[Entered, ...] = ()  # in which the user put the operation
        self.context: int | None = (
            None  # positions that causal attention looks back on, where its mask says all
        )
        self.elapsed: list[Value] = []  # values that are elapsed times
        self.masks: set[Value] = set()  # values that are booleans in torch
        self.products: dict[Value, tuple[Value, Value]] = {}  # of matrices that are both computed
        self.softmaxes: dict[Value, Value] = {}  # along the last axis: of what
        self.target = ""  # the name of the torch function being converted, for converters of several
        self.is_method = False  # whether it was called as a tensor's method
        self.dtype: Any = None  # the torch dtype of its result
        self.operand_dtype: Any = None  # and of its first operand

    def body(self, graph: Graph) -> Emitter:
        """An emitter for a scan's body, at the same place of the user's code."""
        inner = Emitter(graph)
        inner.source, inner.precision, inner.weights = self.source, self.precision, self.weights
        inner.cores, inner.context, inner.regions = self.cores, self.context, self.regions
        return inner

    def value(self, x: Any) -> Value:
        if not isinstance(x, (Value, bool, int, float, np.ndarray, np.generic)):
            raise Refused(f"an operand is a {type(x).__name__}, expected a tensor or a number")
        return super().value(x)

    def add_many(self, op: str, operands: Sequence[Any], **attrs: Any) -> tuple[Value, ...]:
        results = super().add_many(op, operands, **attrs)
        for node in {r.node for r in results}:
            if node is not None and node.op != "constant":
                node.precision, node.cores = self.precision, self.cores
                self._use(weights=False)
        return results

    def _use(self, weights: bool) -> None:
        """The regions of weights, or all others, change something."""
        for region in self.regions:
            region.used |= (region.name == "Fp8Weights") == weights

    def is_mask(self, x: Any) -> bool:
        """Whether a value or array holds booleans."""
        return x in self.masks if isinstance(x, Value) else np.asarray(x).dtype == bool

    def truth(self, x: Any) -> Value:
        """1 where x is not 0, NaN included; booleans as they are."""
        return self.value(x) if self.is_mask(x) else self.add("ne", x, 0.0)

    def mark_elapsed_time(self, value: Value) -> None:
        """The host must refuse a negative or NaN value for the input that this comes from."""
        self.elapsed.append(value)

    def reduce(self, op: str, x: Value, axes: Sequence[int] | int | None, keepdims: bool) -> Value:
        """Reduce several axes; all for None or an empty list, as torch does."""
        if axes is None or (not isinstance(axes, int) and len(axes) == 0):
            axes = range(len(x.shape))
        return super().reduce(op, x, [axes] if isinstance(axes, int) else axes, keepdims)

    def linear(self, x: Value, weight: Array, bias: Array | None = None) -> Value:
        """Weights requested in FP8 inside a region of FP32 activations take FP8's values and are read in FP32."""
        self._use(weights=True)
        both = self.precision is Precision.FP32 and self.weights is Precision.FP8_E4M3
        if both:
            weight = numerics.fold_fp8(weight, numerics.fp8_scale_exponent(weight)).astype(np.float64)
        result = super().linear(x, weight, bias)
        if self.weights is not None and not both and result.node is not None:
            result.node.precision = self.weights
        return result
