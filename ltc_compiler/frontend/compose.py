"""The composer: what importers of models build NNIR with.

It takes numbers and arrays wherever a value is expected, folds what follows from constants alone in fp64, leaves out
operations that change nothing, and carries the user's place to every node. What it cannot express it refuses with a
reason and a rewrite; an importer collects the refusals of a whole model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ltc_compiler.ir import ops
from ltc_compiler.ir.graph import Array, Graph, Source, Value
from ltc_compiler.ir.ops import NOWHERE
from ltc_compiler.ir.run import apply

FOLD_LIMIT = (
    1 << 24
)  # elements: larger results of constants are left to the machine, or refused where they are made
PIECES_LIMIT = 1 << 14  # slices that one operation may be cut into
SHARED = 1 << 10  # elements from which on equal constants of a budgeted graph are one


class Refused(Exception):  # noqa: N818 - a verdict on the user's model, collected and reported with others
    """An operation cannot be lowered; a converter raises it, and the front end adds the place.

    Attributes:
        reason: why it cannot be lowered.
        rewrite: a form that can be lowered; "" if none is known.
    """

    def __init__(self, reason: str, rewrite: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.rewrite = rewrite


class Budget:
    """What one import may cost: elements of constants, `held` in memory and `touched` in time, and `nodes` written."""

    def __init__(self, held: int, touched: int, nodes: int) -> None:
        self.held = held
        self.touched = touched
        self.nodes = nodes

    @property
    def exhausted(self) -> bool:
        return min(self.held, self.touched, self.nodes) < 0

    def hold(self, elements: int) -> None:
        """Pay for elements that stay; raises Refused where there is nothing left."""
        self.held -= elements
        self._check()

    def touch(self, elements: int) -> None:
        """Pay for elements that are computed or copied; raises Refused where there is nothing left."""
        self.touched -= elements
        self._check()

    def write(self) -> None:
        """Pay for one node; raises Refused where there is nothing left."""
        self.nodes -= 1
        if self.nodes < 0:
            raise Refused(
                "the operations of the model become too many", "smaller windows, or a shorter sequence"
            )

    def _check(self) -> None:
        if self.exhausted:
            reason = (
                "the constants that follow from others are larger, in all, than the size of the model allows"
            )
            raise Refused(reason, "compute on inputs, or store the constants in the model")


class Composer:
    """Appends to one graph; `source` is the place of the user's operation that is being written.

    budget: what constants may cost where a model is not trusted; None does not count.
    """

    def __init__(self, graph: Graph, source: Source = NOWHERE, budget: Budget | None = None) -> None:
        self.graph = graph
        self.source = source
        self.budget = budget
        self._equal: dict[tuple[Any, ...], Value] = {}  # large constants by their content
        self._known: dict[int, tuple[Array, Value]] = {}  # constants by the array of an importer

    def value(self, x: Any) -> Value:
        """A value for a value, number or array."""
        if isinstance(x, Value):
            return x
        if self.budget is None:
            return self.graph.constant(x, source=self.source)
        if np.size(x) < SHARED:
            self.budget.hold(np.size(x))
            return self.graph.constant(x, source=self.source)
        self.budget.touch(np.size(x))
        array = np.ascontiguousarray(x, dtype=np.float64)
        key = (array.shape, hashlib.blake2b(array.tobytes()).digest())
        if key not in self._equal:
            self.budget.hold(array.size)
            self._equal[key] = self.graph.constant(array, source=self.source)
        return self._equal[key]

    def once(self, array: Array, convert: Callable[[Array], Array]) -> Value:
        """The constant that `convert` makes of an importer's array, the same for all its readers."""
        if id(array) not in self._known:
            self._known[id(array)] = (array, self.value(convert(array)))
        return self._known[id(array)][1]

    def inside(self, graph: Graph) -> Composer:
        """A composer for the body of an operation that is being written."""
        return Composer(graph, self.source, self.budget)

    def full(self, shape: Sequence[int], number: float) -> Value:
        """A constant of equal elements."""
        if math.prod(shape) > FOLD_LIMIT:
            raise Refused(f"a constant of shape {tuple(shape)} is larger than {FOLD_LIMIT} elements")
        return self.value(np.full(tuple(shape), number, dtype=np.float64))

    def add(self, op: str, *operands: Any, **attrs: Any) -> Value:
        """Append an op and return its first result."""
        return self.add_many(op, operands, **attrs)[0]

    def add_many(self, op: str, operands: Sequence[Any], **attrs: Any) -> tuple[Value, ...]:
        if self.budget is not None:
            self.budget.write()
        values = [self.value(x) for x in operands]
        if op != "scan" and values and all(v.is_constant for v in values):
            arrays = [a for a in (v.constant() for v in values) if a is not None]
            types = ops.check_operation(op, [v.type for v in values], attrs)
            size = sum(t.size for t in types)
            if size <= max(FOLD_LIMIT, sum(a.size for a in arrays)):
                if self.budget is not None:
                    self.budget.touch(size)
                with np.errstate(all="ignore"):
                    folded = apply(op, arrays, attrs)
                return tuple(self.value(array) for array in folded)
        return ops.add_many(self.graph, op, values, attrs, self.source)

    # ---------------------------------------------------------------- layout

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """The same elements in another shape; a reshape of a reshape is one."""
        shape = tuple(map(int, shape))
        while x.node is not None and x.node.op == "reshape" and x.shape != shape:
            x = x.node.operands[0]
        return x if x.shape == shape else self.add("reshape", x, shape=shape)

    def permute(self, x: Value, dims: Sequence[int]) -> Value:
        dims = tuple(d % len(x.shape) for d in dims)
        return x if dims == tuple(range(len(dims))) else self.add("permute", x, dims=dims)

    def broadcast(self, x: Value, shape: Sequence[int]) -> Value:
        shape = tuple(map(int, shape))
        return x if x.shape == shape else self.add("broadcast", x, shape=shape)

    def slice(self, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """Elements start, start + step, ... of an axis; looks through a concatenation that holds just these.

        A slice of the constants in one stays: in a longer sequence it may reach behind them. So does one of an axis of
        one element, which the streaming transform must not take for the whole axis."""
        axis %= len(x.shape)
        if stop <= start:
            raise Refused("a slice has no elements", "every tensor needs at least one element")
        if (start, step) == (0, 1) and 1 < stop == x.shape[axis]:
            return x
        part = self._part_of_concat(x, axis, start, stop) if step == 1 else None
        return part or self.add("slice", x, axis=axis, start=start, stop=stop, step=step)

    def _part_of_concat(self, x: Value, axis: int, start: int, stop: int) -> Value | None:
        if x.node is None or x.node.op != "concat" or x.node.attrs["axis"] != axis:
            return None
        offset = 0
        for part in x.node.operands:
            if offset <= start and stop <= offset + part.shape[axis] and not part.is_constant:
                whole = stop - start == part.shape[axis]
                return part if whole else self.slice(part, axis, start - offset, stop - offset)
            offset += part.shape[axis]
        return None

    def select(self, x: Value, axis: int, index: int) -> Value:
        """One element of an axis, which goes away; the last row of a scan's states is the state it ends with."""
        size = x.shape[axis]
        axis %= len(x.shape)
        if not -size <= index < size:
            raise Refused(f"index {index} is out of range for axis {axis} of {x.shape}")
        index %= size
        carry = _final_carry(x, axis) if index == size - 1 > 0 else None
        part = carry or self.slice(x, axis, index, index + 1)
        return self.reshape(part, x.shape[:axis] + x.shape[axis + 1 :])

    def gather(self, x: Value, axis: int, index: Array) -> Value:
        """Constant positions of an axis: slices of the runs with an even step, joined."""
        axis %= len(x.shape)
        index = np.where(index < 0, index + x.shape[axis], index)
        if index.size == 0 or (index < 0).any() or (index >= x.shape[axis]).any():
            raise Refused(f"an index is empty or out of range for axis {axis} of {x.shape}")
        parts: list[Value] = []
        k = 0
        while k < len(index):
            step = int(index[k + 1] - index[k]) if k + 1 < len(index) else 1
            end = k + 1
            while step > 0 and end < len(index) and index[end] - index[end - 1] == step:
                end += 1
            parts.append(self.slice(x, axis, int(index[k]), int(index[end - 1]) + 1, max(step, 1)))
            k = end
            if len(parts) > PIECES_LIMIT:
                raise Refused(f"an index falls into more than {PIECES_LIMIT} runs", "a shorter index")
        return self.concat(parts, axis)

    def flip(self, x: Value, axis: int) -> Value:
        check_runs(x.shape[axis])
        return self.gather(x, axis, np.arange(x.shape[axis])[::-1])

    def concat(self, parts: Sequence[Any], axis: int) -> Value:
        values = [self.value(p) for p in parts]
        if len(values) == 1:
            return values[0]
        return self.add("concat", *values, axis=axis % len(values[0].shape))

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

    def reduce(self, op: str, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
        """Reduce several axes, one at a time from the last."""
        rank = len(x.shape)
        for axis in sorted({ops.axis_of(rank, a) for a in axes}, reverse=True):
            x = self.add(op, x, axis=axis, keepdims=bool(keepdims))
        return x

    def mean(self, x: Value, axes: Sequence[int], keepdims: bool) -> Value:
        count = math.prod(x.shape[a] for a in axes)
        return self.add("mul", self.reduce("sum", x, axes, keepdims), 1 / count)

    def linear(self, x: Value, weight: Array, bias: Array | None = None) -> Value:
        """x (..., K) times a constant weight (M, K), and a bias (M)."""
        return self.add("linear", x, weight, np.zeros(weight.shape[0]) if bias is None else bias)

    def scan(
        self,
        body: Graph,
        operands: Sequence[Any],
        carries: int,
        trip_count: int,
        in_axes: Sequence[int] = (),
        out_axes: Sequence[int] = (),
    ) -> tuple[Value, ...]:
        """A scan: operands are carries, scanned and captured values; results the final carries and stacked outputs."""
        return self.add_many(
            "scan",
            operands,
            body=body,
            carries=carries,
            scanned=len(in_axes),
            trip_count=trip_count,
            in_axes=tuple(in_axes),
            out_axes=tuple(out_axes),
        )


def check_runs(count: int) -> None:
    """Refuse an index that falls into too many runs, before it is made."""
    if count > PIECES_LIMIT:
        raise Refused(f"an index falls into more than {PIECES_LIMIT} runs", "a shorter index")


def check_size(*shape: int) -> None:
    """Refuse a constant that is too large, before it is made."""
    if math.prod(shape) > FOLD_LIMIT:
        raise Refused(f"a constant of shape {shape} is larger than {FOLD_LIMIT} elements", "smaller tensors")


def _final_carry(x: Value, axis: int) -> Value | None:
    """The final carry of a scan whose stacked output x is that carry, step by step, along `axis`; seen through
    reshapes that insert or drop axes of one element, and through the last part of a concatenation."""
    node = x.node
    while node is not None and node.op in ("reshape", "concat"):
        if node.op == "concat" and node.attrs["axis"] != axis:
            return None
        inner = node.operands[-1]
        if node.op == "reshape":
            place = _same_axis(inner.shape, x.shape, axis)
            if place is None:
                return None
            axis = place
        x, node = inner, inner.node
    if node is None or node.op != "scan" or x.index < node.attrs["carries"]:
        return None
    if node.attrs["out_axes"][x.index - node.attrs["carries"]] != axis:
        return None
    stacked = node.body.outputs[x.index]
    return next(
        (node.results[i] for i in range(node.attrs["carries"]) if node.body.outputs[i] is stacked), None
    )


def _same_axis(inner: tuple[int, ...], outer: tuple[int, ...], axis: int) -> int | None:
    """The axis of `inner` that a reshape to `outer` keeps as `axis`, if both differ by axes of one element alone."""
    if [d for d in inner if d != 1] != [d for d in outer if d != 1] or outer[axis] == 1:
        return None
    rank = sum(d != 1 for d in outer[:axis])
    return [i for i, d in enumerate(inner) if d != 1][rank]
