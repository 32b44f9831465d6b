"""Undoes merged axes, such as batch and time or time and frequency, so that time can stream.

A model that treats all steps alike may write `x.reshape(batch * time, features)` before a layer and
`reshape(batch, time, ...)` behind it. This pass moves the merging reshape down, past the operations that do not work
along the merged axis, to the reshape that splits it, where the two cancel. Every element is computed as before, so no
bit changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import NamedTuple

from ltc_compiler.ir.graph import Graph, Node, Value, rewrite
from ltc_compiler.ir.ops import POINTWISE, add, check_names
from ltc_compiler.transforms.simplify import producer

Shape = tuple[int, ...]


class Merge(NamedTuple):
    """Axes that became one: axis `at`, or axis -`back`, which holds where the number of axes before it differs.

    most: it is seen while it is one of so many first axes; None: anywhere.
    """

    at: int
    back: int
    axes: Shape
    most: int | None

    @property
    def more(self) -> int:
        """How many axes there are more without it."""
        return len(self.axes) - 1

    def is_seen(self, at: int) -> bool:
        """Whether it would be if it were axis `at`."""
        return self.most is None or at < self.most

    def apart(self, shape: Shape, at: int) -> Shape:
        """A shape with axis `at` as those that it was merged from."""
        return (*shape[:at], *self.axes, *shape[at + 1 :])


def unmerge(graph: Graph, first_axis: bool = True) -> Graph:
    """The graph with reshapes that merge axes as late as they can be.

    first_axis: those alone that make the first axis. Others are of features as a rule, and stay unless time is there.
    """
    return rewrite(graph, partial(_sink, 1 if first_axis else None), into_bodies=False)


def _merged(value: Value, most: int | None) -> Merge | None:
    """The first axis (of the first `most`) that a reshape made of several; None if it made no such thing."""
    node = producer(value, "reshape")
    if node is None:
        return None
    whole, shape = node.operands[0].shape, value.shape
    count = len(whole) - len(shape) + 1
    for at in range(len(shape))[:most]:
        merge = Merge(at, len(shape) - at, whole[at : at + count], most)
        if (
            sum(n > 1 for n in merge.axes) > 1
            and prod(merge.axes) == shape[at]
            and merge.apart(shape, at) == whole
        ):
            return merge
    return None


def _sink(
    most: int | None, graph: Graph, node: Node, operands: tuple[Value, ...]
) -> tuple[Value, ...] | None:
    rule = _RULES.get(node.op)
    data = operands[:1] if node.op == "linear" else operands
    merge = next((m for v in data if (m := _merged(v, most)) is not None), None)
    if node.op == "reshape" and merge is None:
        return _in_two_steps(most, graph, node, operands[0])
    if rule is None or merge is None:
        return None
    merge = merge._replace(at=max(v.type.rank for v in data) - merge.back)
    bases = [_before(graph, v, merge, most) for v in data]
    found = [v for v in bases if v is not None]
    attrs = rule(node, merge)
    if len(found) < len(bases) or attrs is None:
        return None
    shape = node.results[0].shape
    if attrs.get("shape") == found[0].shape:
        value = found[0]
    else:
        parameters = operands[len(data) :]
        value = add(
            graph, node.op, *found, *parameters, source=node.source, name=node.results[0].name, **attrs
        )
        graph.nodes[-1].precision = node.precision
    return (value if value.shape == shape else add(graph, "reshape", value, shape=shape, source=node.source),)


def _in_two_steps(most: int | None, graph: Graph, node: Node, value: Value) -> tuple[Value, ...] | None:
    """A reshape that merges axes and does something to the others as well: that first."""
    shape: Shape = node.attrs["shape"]
    for at in range(len(shape))[:most]:
        axes = next((a for a in _runs(value.shape, prod(shape[:at])) if prod(a) == shape[at]), ())
        apart = (*shape[:at], *axes, *shape[at + 1 :])
        if sum(n > 1 for n in axes) > 1 and apart != value.shape:
            parts = add(graph, "reshape", value, shape=apart, source=node.source)
            return (add(graph, "reshape", parts, shape=shape, source=node.source),)
    return None


def _runs(shape: Shape, before: int) -> Iterator[Shape]:
    """The runs of axes, not of all, that stand behind axes of `before` elements."""
    for begin in range(len(shape)):
        if prod(shape[:begin]) == before:
            yield from (shape[begin:end] for end in range(begin + 2, len(shape) + (begin > 0)))


def _before(graph: Graph, value: Value, merge: Merge, most: int | None) -> Value | None:
    """An operand with the merged axis as several; None where it has others. An operand that has no such axis stays."""
    own = _merged(value, most)
    at = value.type.rank - merge.back
    if own is not None:
        assert value.node is not None
        return value.node.operands[0] if own[1:] == merge[1:] else None
    if at < 0:
        return value
    if value.shape[at] not in (1, prod(merge.axes)):
        return None
    ones = merge._replace(axes=(1,) * len(merge.axes))
    shape = (ones if value.shape[at] == 1 else merge).apart(value.shape, at)
    array = value.constant()
    if array is not None:
        return graph.constant(array.reshape(shape), value.name)
    return add(graph, "reshape", value, shape=shape)


# The attributes of an operation on the axes by themselves; None where it does not leave the merged axis alone.
Rule = Callable[[Node, Merge], dict[str, object] | None]


def _as_it_is(node: Node, merge: Merge) -> dict[str, object] | None:
    return {}


def _linear(node: Node, merge: Merge) -> dict[str, object] | None:
    bias = node.operands[2]
    return {} if merge.back > 1 and bias.type.rank == 1 else None


def _along(node: Node, merge: Merge) -> dict[str, object] | None:
    axis = node.attrs["axis"]
    return {**node.attrs, "axis": axis + merge.more * (axis > merge.at)} if axis != merge.at else None


def _permuted(node: Node, merge: Merge) -> dict[str, object] | None:
    dims: list[int] = []
    for d in node.attrs["dims"]:
        dims += range(d, d + merge.more + 1) if d == merge.at else [d + merge.more * (d > merge.at)]
    return {"dims": tuple(dims)} if merge.is_seen(dims.index(merge.at)) else None


def _reshaped(node: Node, merge: Merge) -> dict[str, object] | None:
    """What keeps the merged axis reshapes the others; what does not starts from the whole."""
    shape: Shape = node.attrs["shape"]
    before = prod(node.operands[0].shape[: merge.at])
    kept = (i for i, n in enumerate(shape) if n == prod(merge.axes) and prod(shape[:i]) == before)
    at = next(kept, None)
    return {"shape": merge.apart(shape, at) if at is not None and merge.is_seen(at) else shape}


_RULES: dict[str, Rule] = {
    **dict.fromkeys(sorted(POINTWISE), _as_it_is),
    **dict.fromkeys(("slice", "concat", "sum", "amax"), _along),
    "permute": _permuted,
    "reshape": _reshaped,
    "linear": _linear,
}
check_names("_RULES in ltc_compiler/transforms/streaming/unmerge.py", _RULES)
