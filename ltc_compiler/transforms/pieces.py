"""Slice a product before the operations that follow it, where nothing reads it whole.

The gates of a recurrent cell are slices of one vector that row-by-row ops made of matrix products. Sliced before those
ops instead of behind them, each gate is a piece of the product itself, which a machine computes on rows of its own.
Every element is computed as before, so no bit changes.
"""

from __future__ import annotations

from itertools import pairwise

from ltc_compiler.ir.graph import Graph, Node, Value, rewrite
from ltc_compiler.ir.ops import POINTWISE, add

MAX_DEPTH = 8  # row-by-row ops in a chain from the product to its slices


def split_pieces(graph: Graph) -> Graph:
    """slice(op(a, b)) becomes op(slice(a), slice(b)) where a product feeds the op and all its readers are slices."""
    for _ in range(MAX_DEPTH):
        split = {value for body in _graphs(graph) for value in _splittable(body)}
        if not split:
            break
        graph = rewrite(graph, _Split(split))
    return graph


def _graphs(graph: Graph) -> list[Graph]:
    return [graph, *(g for node in graph.nodes if "body" in node.attrs for g in _graphs(node.body))]


def _splittable(graph: Graph) -> list[Value]:
    kept = {*graph.outputs, *(s.next for s in graph.states)}
    uses = graph.uses()
    found = []
    for node in graph.nodes:
        value = node.results[0]
        if node.op not in POINTWISE or value in kept or not uses.get(value):
            continue
        sliced = all(is_piece(reader, value) for reader in uses[value])
        fed = any(_from_product(v, value) and len(uses[v]) == 1 for v in node.operands)
        if sliced and fed and not overlapping(uses[value]):
            found.append(value)
    return found


def is_piece(node: Node, value: Value) -> bool:
    """Whether the node takes consecutive elements of the last axis of the value."""
    return node.op == "slice" and node.attrs["axis"] == value.type.rank - 1 and node.attrs["step"] == 1


def overlapping(slices: list[Node]) -> bool:
    """Whether any two different slices share an element."""
    pieces = sorted({(s.attrs["start"], s.attrs["stop"]) for s in slices})
    return any(a[1] > b[0] for a, b in pairwise(pieces))


def _from_product(value: Value, result: Value) -> bool:
    node = value.node
    return node is not None and value.shape == result.shape and (node.op == "linear" or node.op in POINTWISE)


class _Split:
    """The rewriting rule; `made` remembers the new operands of every op that is to be split."""

    def __init__(self, split: set[Value]) -> None:
        self.split = split
        self.made: dict[Value, tuple[Value, ...]] = {}

    def __call__(self, graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.results[0] in self.split:
            self.made[node.results[0]] = operands
            return None
        source = node.operands[0] if node.op == "slice" else None
        if source is None or source not in self.made or source.node is None:
            return None
        parts = [_slice(graph, v, node) for v in self.made[source]]
        value = add(graph, source.node.op, *parts, source=source.node.source)
        graph.nodes[-1].precision, graph.nodes[-1].cores = source.node.precision, source.node.cores
        return (value,)


def _slice(graph: Graph, value: Value, like: Node) -> Value:
    width = like.operands[0].shape[-1]
    if not value.shape or value.shape[-1] != width:
        return value
    array = value.constant()
    start, stop = like.attrs["start"], like.attrs["stop"]
    if array is not None:
        return graph.constant(array[..., start:stop])
    return add(
        graph, "slice", value, axis=value.type.rank - 1, start=start, stop=stop, step=1, source=like.source
    )
