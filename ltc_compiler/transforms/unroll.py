"""Write the steps of a short solve out one after the other.

A hardware loop keeps its turns apart: no instruction of one turn moves before the loop, and the state's part of the
first turn cannot be done ahead of the input. Written out, a short scan leaves all of that to the ordering, at the cost
of instruction slots. The compiler tries both forms and keeps the faster. No value changes.
"""

from __future__ import annotations

import numpy as np

from ..ir.graph import Graph, Node, Value, copy_node, rewrite
from ..ir.ops import scan_parts

MAX_TURNS = 16
MAX_NODES = 400  # of the written out body, in all


def unroll_solves(graph: Graph) -> Graph:
    """Every short scan that neither reads a sequence (constants apart) nor stacks outputs is replaced by its turns."""
    return rewrite(graph, _rule)


def has_short_solves(graph: Graph) -> bool:
    """Whether `unroll_solves` would change the graph."""
    return any(_is_short(node) for node in graph.walk())


def _is_short(node: Node) -> bool:
    if node.op != "scan" or node.attrs["out_axes"]:
        return False
    turns = node.attrs["trip_count"]
    scanned = scan_parts(node.operands, node.attrs)[1]
    size = turns * sum(1 for _ in node.body.walk())
    return turns <= MAX_TURNS and size <= MAX_NODES and all(v.constant() is not None for v in scanned)


def _rule(graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if not _is_short(node):
        return None
    carries, scanned, captured = (list(part) for part in scan_parts(operands, node.attrs))
    tables = [v.constant() for v in scanned]
    for turn in range(node.attrs["trip_count"]):
        axes = zip(tables, node.attrs["in_axes"], strict=True)
        slices = [graph.constant(np.take(table, turn, axis)) for table, axis in axes if table is not None]
        carries = _turn(graph, node.body, [*carries, *slices, *captured])
    return tuple(carries)


def _turn(graph: Graph, body: Graph, inputs: list[Value]) -> list[Value]:
    env = dict(zip(body.inputs, inputs, strict=True))
    for node in body.nodes:
        results = copy_node(graph, node, [env[v] for v in node.operands])
        for new, old in zip(results, node.results, strict=True):
            new.name = ""
            env[old] = new
    return [env[v] for v in body.outputs]
