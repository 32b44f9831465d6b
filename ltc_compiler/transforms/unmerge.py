"""Axes that a model merged into its first one, batch and time as a rule, are axes again.

`x.reshape(batch * time, features)` before a layer and `reshape(batch, time, ...)` behind it say that the layer treats
every step alike. The merging reshape goes down through what leaves the first axis alone, until the one that splits it
undoes it; then time is an axis that can stream. No element is computed in another way, so no bit changes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ..ir.graph import Graph, Node, Value, rewrite
from ..ir.ops import POINTWISE, add
from .layout import producer

Shape = tuple[int, ...]


def unmerge(graph: Graph) -> Graph:
    """The graph with reshapes that merge leading axes as late as they can be."""
    return rewrite(graph, _sink, into_bodies=False)


def _merged(value: Value) -> Shape | None:
    """The axes that a reshape made the first one of `value`; None if it made no such thing."""
    node = producer(value, "reshape")
    if node is None or not value.shape:
        return None
    whole, rest = node.operands[0].shape, value.shape[1:]
    axes = whole[: len(whole) - len(rest)]
    more_than_one = sum(n > 1 for n in axes) > 1
    return axes if more_than_one and (prod(axes), *whole[len(axes) :]) == value.shape else None


def _sink(graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    rule = _RULES.get(node.op)
    data = operands[:1] if node.op == "linear" else operands
    axes = next((a for v in data if (a := _merged(v)) is not None), None)
    if node.op == "reshape" and axes is None:
        return _in_two_steps(graph, node, operands[0])
    if rule is None or axes is None:
        return None
    rank = max(v.type.rank for v in data)
    bases = [_before(graph, v, axes, rank) for v in data]
    found = [v for v in bases if v is not None]
    attrs = rule(node, axes)
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


def _in_two_steps(graph: Graph, node: Node, value: Value) -> tuple[Value, ...] | None:
    """A reshape that merges the first axes and does something to the others as well: that first."""
    shape: Shape = node.attrs["shape"]
    ways = (value.shape[:n] for n in range(2, value.type.rank) if prod(value.shape[:n]) == shape[0])
    axes = next(ways, ()) if shape else ()
    if sum(n > 1 for n in axes) < 2 or (prod(axes), *value.shape[len(axes) :]) == shape:
        return None
    apart = add(graph, "reshape", value, shape=(*axes, *shape[1:]), source=node.source)
    return (add(graph, "reshape", apart, shape=shape, source=node.source),)


def _before(graph: Graph, value: Value, axes: Shape, rank: int) -> Value | None:
    """An operand of the highest rank with its first axis as several; None where it has others. Operands of a lower
    rank have no such axis, and stay."""
    own = _merged(value)
    if value.type.rank < rank:
        return value if own is None else None
    if own is not None:
        assert value.node is not None
        return value.node.operands[0] if own == axes else None
    first, rest = value.shape[0], value.shape[1:]
    if first not in (1, prod(axes)):
        return None
    shape = ((1,) * len(axes) if first == 1 else axes) + rest
    array = value.constant()
    if array is not None:
        return graph.constant(array.reshape(shape), value.name)
    return add(graph, "reshape", value, shape=shape)


# The attributes of an operation on the axes by themselves; None where it does not leave the first axis alone.
Rule = Callable[[Node, Shape], dict[str, object] | None]


def _as_it_is(node: Node, axes: Shape) -> dict[str, object] | None:
    return {}


def _along(node: Node, axes: Shape) -> dict[str, object] | None:
    axis = node.attrs["axis"]
    return {**node.attrs, "axis": axis + len(axes) - 1} if axis else None


def _permuted(node: Node, axes: Shape) -> dict[str, object] | None:
    first, *rest = node.attrs["dims"]
    return None if first else {"dims": (*range(len(axes)), *(d + len(axes) - 1 for d in rest))}


def _reshaped(node: Node, axes: Shape) -> dict[str, object] | None:
    """What keeps the merged axis reshapes the others; what does not starts from the whole."""
    shape = node.attrs["shape"]
    return {"shape": (*axes, *shape[1:]) if shape and shape[0] == prod(axes) else shape}


_RULES: dict[str, Rule] = {
    **dict.fromkeys(sorted(POINTWISE), _as_it_is),
    **dict.fromkeys(("slice", "concat", "sum", "amax"), _along),
    "permute": _permuted,
    "reshape": _reshaped,
    "linear": _as_it_is,
}
