"""The emitter: what converters build NNIR with.

It takes numbers and arrays wherever a value is expected, carries the source line and the user's precision wish to every
node that it makes, leaves out operations that change nothing, and knows which values follow from constants alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltc_compiler.ir import ops
from ltc_compiler.ir.graph import Array, Graph, Precision, Source, Value

from .registry import Refused

# Operations without a unit on the machine: allowed where their operand follows from constants.
_CONSTANT_ONLY = frozenset(("sin", "cos"))


class Emitter:
    """Appends to one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.source = Source()
        self.precision: Precision | None = None
        self.weights: Precision | None = None
        self.static: set[Value] = set()  # values that follow from constants alone, scanned ones included
        self.elapsed: list[Value] = []  # values that are elapsed times
        self.masks: set[Value] = set()  # values that are booleans in torch
        self.target = ""  # the name of the torch function being converted, for converters of several
        self.is_method = False  # whether it was called as a tensor's method
        self.dtype: Any = None  # the torch dtype of its result

    def body(self, graph: Graph) -> Emitter:
        """An emitter for a scan's body, at the same place of the user's code."""
        inner = Emitter(graph)
        inner.source, inner.precision, inner.weights = self.source, self.precision, self.weights
        return inner

    def value(self, x: Any) -> Value:
        """A value for a value, number or array."""
        if isinstance(x, Value):
            return x
        if not isinstance(x, (bool, int, float, np.ndarray, np.generic)):
            raise Refused(f"an operand is a {type(x).__name__}, expected a tensor or a number")
        made = self.graph.constant(np.asarray(x, dtype=np.float64), source=self.source)
        self.static.add(made)
        return made

    def add(self, op: str, *operands: Any, **attrs: Any) -> Value:
        """Append an op and return its first result."""
        return self.add_many(op, operands, **attrs)[0]

    def add_many(self, op: str, operands: Sequence[Any], **attrs: Any) -> tuple[Value, ...]:
        values = [self.value(x) for x in operands]
        constants = [v.constant() for v in values]
        static = all(v in self.static for v in values)
        if op in _CONSTANT_ONLY and not static:
            raise Refused(
                f"the machine has no unit for {op}", "compute it outside of the model and pass it as an input"
            )
        if op != "scan" and values and all(a is not None for a in constants):
            with np.errstate(all="ignore"):
                folded = ops.OPS[op].evaluate([a for a in constants if a is not None], attrs)
            return tuple(self.value(np.asarray(array)) for array in folded)
        results = ops.add_many(self.graph, op, values, attrs, self.source)
        self.graph.nodes[-1].precision = self.precision
        if static:
            self.static.update(results)
        return results

    def is_mask(self, x: Any) -> bool:
        """Whether a value or array holds booleans."""
        return x in self.masks if isinstance(x, Value) else np.asarray(x).dtype == bool

    def mark_elapsed_time(self, value: Value) -> None:
        """The host must refuse a negative or NaN value for the input that this comes from."""
        self.elapsed.append(value)

    # ---------------------------------------------------------------- layout

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        return x if x.shape == tuple(shape) else self.add("reshape", x, shape=tuple(map(int, shape)))

    def permute(self, x: Value, dims: Sequence[int]) -> Value:
        dims = tuple(d % len(x.shape) for d in dims)
        return x if dims == tuple(range(len(dims))) else self.add("permute", x, dims=dims)

    def broadcast(self, x: Value, shape: Sequence[int]) -> Value:
        return x if x.shape == tuple(shape) else self.add("broadcast", x, shape=tuple(map(int, shape)))

    def slice(self, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """Elements start, start + step, ... of an axis; looks through a concatenation that holds just these."""
        axis %= len(x.shape)
        if stop <= start:
            raise Refused("a slice has no elements", "every tensor needs at least one element")
        if (start, step) == (0, 1) and stop == x.shape[axis]:
            return x
        if x.node is not None and x.node.op == "concat" and x.node.attrs["axis"] == axis and step == 1:
            offset = 0
            for part in x.node.operands:
                size = part.shape[axis]
                if offset <= start and stop <= offset + size:
                    return self.slice(part, axis, start - offset, stop - offset)
                offset += size
        return self.add("slice", x, axis=axis, start=start, stop=stop, step=step)

    def select(self, x: Value, axis: int, index: int) -> Value:
        """One element of an axis, which goes away; the last row of a scan's states is the state it ends with."""
        axis %= len(x.shape)
        size = x.shape[axis]
        if not -size <= index < size:
            raise Refused(f"index {index} is out of range for axis {axis} of {x.shape}")
        index %= size
        part = self.slice(x, axis, index, index + 1)
        shape = part.shape[:axis] + part.shape[axis + 1 :]
        carry = self._carry_of(x, axis, index) or self._carry_of_part(x, axis, index)
        if carry is not None:
            return carry
        if part.node is not None and part.node.op == "reshape" and part.node.operands[0].shape == shape:
            return part.node.operands[0]
        return self.reshape(part, shape)

    def _carry_of_part(self, x: Value, axis: int, index: int) -> Value | None:
        """As `_carry_of`, for the last part of a concatenation."""
        if (
            x.node is None
            or x.node.op != "concat"
            or x.node.attrs["axis"] != axis
            or index != x.shape[axis] - 1
        ):
            return None
        last = x.node.operands[-1]
        return self._carry_of(last, axis, last.shape[axis] - 1)

    def _carry_of(self, x: Value, axis: int, index: int) -> Value | None:
        node = x.node
        if node is None or node.op != "scan" or index != node.attrs["trip_count"] - 1:
            return None
        carries = node.attrs["carries"]
        if x.index < carries or node.attrs["out_axes"][x.index - carries] != axis:
            return None
        ours = node.body.outputs[x.index]
        for i in range(carries):
            if node.body.outputs[i] is ours:
                return node.results[i]
        return None

    def concat(self, parts: Sequence[Any], axis: int) -> Value:
        values = [self.value(p) for p in parts]
        return (
            values[0] if len(values) == 1 else self.add("concat", *values, axis=axis % len(values[0].shape))
        )

    def unsqueeze(self, x: Value, axis: int) -> Value:
        axis %= len(x.shape) + 1
        return self.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))

    def move(self, x: Value, source: int, target: int) -> Value:
        """The same tensor with one axis moved."""
        rank = len(x.shape)
        rest = [a for a in range(rank) if a != source % rank]
        rest.insert(target % rank, source % rank)
        return self.permute(x, rest)

    # ---------------------------------------------------------------- arithmetic

    def reduce(self, op: str, x: Value, axes: Sequence[int] | int | None, keepdims: bool) -> Value:
        """Reduce several axes (all for None or an empty list), one at a time from the last."""
        rank = len(x.shape)
        if axes is None or (not isinstance(axes, int) and len(axes) == 0):
            axes = range(rank)
        for axis in sorted((a % rank for a in ([axes] if isinstance(axes, int) else axes)), reverse=True):
            x = self.add(op, x, axis=axis, keepdims=bool(keepdims))
        return x

    def linear(self, x: Value, weight: Array, bias: Array | None = None) -> Value:
        """x (..., K) times a constant weight (M, K), and a bias (M)."""
        offset = np.zeros(weight.shape[0]) if bias is None else bias
        result = self.add("linear", x, weight, offset)
        if self.weights is not None and result.node is not None:
            result.node.precision = self.weights
        return result
