"""The one slice that a value repeats along an axis: what `repeat`, `expand` or broadcasting made of something smaller.

A conditioning input that is repeated for every step of a sequence is the same in every step. Where its elements come
from is followed back through operations that treat all slices alike; the slice is what they give for one.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Graph, Node, Source, Value
from ltc_compiler.ir.ops import POINTWISE, add
from ltc_compiler.transforms.fold import uniform

Slices = dict[tuple[Value, int], Value | None]


def slice_along(graph: Graph, value: Value, axis: int, found: Slices | None = None) -> Value | None:
    """A value of `graph` with an axis taken off, along which all its slices are equal; None where they may differ.

    found: the slices that are known already, which grow.
    """
    found = {} if found is None else found
    if (value, axis) not in found:
        found[value, axis] = _slice(graph, value, axis, found)
    return found[value, axis]


def _slice(graph: Graph, value: Value, axis: int, found: Slices) -> Value | None:
    node, array = value.node, value.constant()
    source = Source() if node is None else node.source
    if array is not None:
        return graph.constant(np.take(array, 0, axis), value.name, source) if uniform(array, axis) else None
    if value.shape[axis] == 1:
        return add(graph, "reshape", value, shape=_without(value.shape, axis), source=source)
    if node is None or len(node.results) > 1:
        return None
    if node.attrs.get("axis") == axis and (
        node.op == "slice" or (node.op == "concat" and len(set(node.operands)) == 1)
    ):
        return slice_along(graph, node.operands[0], axis, found)
    origin = _origin(node, axis)
    if origin is None:
        return None
    operands = []
    for operand, own in zip(node.operands, origin[0], strict=True):
        part = operand if own < 0 else slice_along(graph, operand, own, found)
        if part is None:
            return None
        operands.append(part)
    made = add(graph, node.op, *operands, source=source, **origin[1])
    graph.nodes[-1].precision = node.precision
    return made


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _origin(node: Node, axis: int) -> tuple[list[int], dict[str, Any]] | None:
    """The axis of each operand that a result's axis comes from, below 0 where it has none, and the attributes of the
    same operation without it; None where the result may vary along an axis along which no operand does."""
    shape, attrs = node.results[0].shape, dict(node.attrs)
    aligned = [axis - (len(shape) - v.type.rank) for v in node.operands]
    if node.op in POINTWISE:
        return aligned, attrs
    if node.op == "broadcast":
        return aligned, {"shape": _without(shape, axis)}
    if node.op == "linear" and axis < len(shape) - 1:
        return [axis, -1, aligned[2]], attrs
    if node.op == "permute":
        own = attrs["dims"][axis]
        return [own], {"dims": tuple(d - (d > own) for d in attrs["dims"] if d != own)}
    if node.op in ("concat", "slice") and attrs["axis"] != axis:
        return aligned, {**attrs, "axis": attrs["axis"] - (axis < attrs["axis"])}
    if node.op in ("sum", "amax"):
        own = axis + (attrs["axis"] <= axis and not attrs["keepdims"])
        return [own], {**attrs, "axis": attrs["axis"] - (own < attrs["axis"])}
    if node.op == "reshape":
        before, lead = node.operands[0].shape, prod(shape[:axis])
        same = [i for i, n in enumerate(before) if n == shape[axis] and prod(before[:i]) == lead]
        return (same[:1], {"shape": _without(shape, axis)}) if same else None
    return None
