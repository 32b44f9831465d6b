"""Unroll loops, so that their iterations overlap.

A hardware loop keeps its iterations apart: no instruction moves out of its iteration. Unrolled, the work on an
iteration's input alone is done while the iteration before is still at work, and the first iteration's work on the state
is done ahead of the input. A short scan is unrolled whole; in a long one several iterations become one of a shorter
loop, which gains what software pipelining gains, at the cost of instruction slots. The compiler tries the graph with
loops and without, and keeps the faster. No value changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Graph, Node, Type, Value, copy_node, rewrite
from ltc_compiler.ir.ops import add, add_many, scan_parts

MAX_ITERATIONS = 16  # of a scan that is unrolled whole
MAX_NODES = 400  # of an unrolled body, in all
MAX_WEIGHTS = (
    1 << 22
)  # elements of matrices that are read in all: large products leave no bubbles, and many instructions
GROUP = 8  # iterations of a long loop that become one


def unroll(graph: Graph) -> Graph:
    """Every scan with a small body is replaced by its iterations, or by a loop over groups of iterations."""
    return rewrite(graph, _rule)


def may_unroll(graph: Graph) -> bool:
    """Whether `unroll` would change the graph."""
    return any(_iterations_at_once(node) > 1 or _is_short(node) for node in graph.walk() if node.op == "scan")


def _most_iterations(node: Node) -> int:
    """How many iterations of a scan may be unrolled, by the size of its body."""
    nodes = list(node.body.walk())
    weights = sum(math.prod(n.operands[1].shape) for n in nodes if n.op == "linear")
    return min(MAX_NODES // max(1, len(nodes)), MAX_WEIGHTS // max(1, weights))


def _is_short(node: Node) -> bool:
    return int(node.attrs["trip_count"]) <= min(MAX_ITERATIONS, _most_iterations(node))


def _iterations_at_once(node: Node) -> int:
    """How many iterations of a long scan become one; 1 where that is not worth it."""
    return max(1, min(GROUP, _most_iterations(node), int(node.attrs["trip_count"]) // 2))


def _rule(graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if node.op != "scan":
        return None
    scan = _Scan(graph, node, operands)
    if _is_short(node):
        carries, rows = scan.iterations(graph, scan.carries, scan.captured, range(scan.count))
        return (*carries, *scan.stacked(rows))
    group = _iterations_at_once(node)
    return scan.grouped(group) if group > 1 else None


class _Scan:
    """A scan to unroll in a graph: its operands there."""

    def __init__(self, graph: Graph, node: Node, operands: tuple[Value, ...]) -> None:
        self.graph, self.node, self.count = graph, node, int(node.attrs["trip_count"])
        self.in_axes: Sequence[int] = node.attrs["in_axes"]
        self.out_axes: Sequence[int] = node.attrs["out_axes"]
        self.carries, self.scanned, self.captured = (list(p) for p in scan_parts(operands, node.attrs))

    def iterations(
        self, graph: Graph, carries: list[Value], captured: list[Value], which: range
    ) -> tuple[list[Value], list[list[Value]]]:
        """Some iterations in the scan's own graph: the carries behind them, and each iteration's outputs."""
        slices = (
            [_slice(graph, x, a, k) for x, a in zip(self.scanned, self.in_axes, strict=True)] for k in which
        )
        return self._run(graph, carries, captured, slices)

    def _run(
        self, graph: Graph, carries: list[Value], captured: list[Value], slices: Iterator[list[Value]]
    ) -> tuple[list[Value], list[list[Value]]]:
        rows = []
        for given in slices:
            results = _copy(graph, self.node.body, [*carries, *given, *captured])
            carries = results[: len(carries)]
            rows.append(results[len(carries) :])
        return carries, rows

    def stacked(self, rows: list[list[Value]]) -> list[Value]:
        columns = zip(zip(*rows, strict=True), self.out_axes, strict=True)
        return [_stack(self.graph, column, axis) for column, axis in columns]

    def grouped(self, group: int) -> tuple[Value, ...]:
        """A loop over groups of iterations, then the iterations that are left over."""
        groups, whole = self.count // group, self.count // group * group
        chunks = [
            _chunks(self.graph, x, a, groups, group) for x, a in zip(self.scanned, self.in_axes, strict=True)
        ]
        body = self._body(group)
        attrs: dict[str, Any] = {**self.node.attrs, "body": body, "trip_count": groups}
        operands = [*self.carries, *chunks, *self.captured]
        results = list(add_many(self.graph, "scan", operands, attrs, self.node.source))
        carries, outputs = results[: len(self.carries)], results[len(self.carries) :]
        outputs = [_merged(self.graph, y, a) for y, a in zip(outputs, self.out_axes, strict=True)]
        if whole < self.count:
            carries, rows = self.iterations(self.graph, carries, self.captured, range(whole, self.count))
            rest = self.stacked(rows)
            outputs = [
                add(self.graph, "concat", y, r, axis=a)
                for y, r, a in zip(outputs, rest, self.out_axes, strict=True)
            ]
        return (*carries, *outputs)

    def _body(self, group: int) -> Graph:
        """`group` iterations, as the body of a scan whose slices hold that many."""
        old = self.node.body
        body = Graph(old.name)
        parts = scan_parts(old.inputs, self.node.attrs)
        carries = [body.add_input(v.type, v.name) for v in parts[0]]
        given = []
        for value, axis in zip(parts[1], self.in_axes, strict=True):
            shape = (*value.shape[:axis], group, *value.shape[axis:])
            given.append(body.add_input(Type(shape, value.type.precision), value.name))
        captured = [body.add_input(v.type, v.name) for v in parts[2]]
        slices = (
            [_slice(body, x, a, k) for x, a in zip(given, self.in_axes, strict=True)] for k in range(group)
        )
        new, rows = self._run(body, carries, captured, slices)
        for value in new:
            body.add_output(value)
        for column, axis in zip(zip(*rows, strict=True), self.out_axes, strict=True):
            body.add_output(_stack(body, column, axis))
        return body


def _slice(graph: Graph, x: Value, axis: int, iteration: int) -> Value:
    table = x.constant()
    if table is not None:
        return graph.constant(np.take(table, iteration, axis))
    row = add(graph, "slice", x, axis=axis, start=iteration, stop=iteration + 1, step=1)
    return add(graph, "reshape", row, shape=x.shape[:axis] + x.shape[axis + 1 :])


def _stack(graph: Graph, column: Sequence[Value], axis: int) -> Value:
    shape = column[0].shape
    parts = [add(graph, "reshape", v, shape=(*shape[:axis], 1, *shape[axis:])) for v in column]
    return add(graph, "concat", *parts, axis=axis) if len(parts) > 1 else parts[0]


def _chunks(graph: Graph, x: Value, axis: int, groups: int, group: int) -> Value:
    """The first groups * group elements of an axis as two axes."""
    shape = (*x.shape[:axis], groups, group, *x.shape[axis + 1 :])
    table = x.constant()
    if table is not None:
        return graph.constant(np.take(table, range(groups * group), axis).reshape(shape))
    if groups * group < x.shape[axis]:
        x = add(graph, "slice", x, axis=axis, start=0, stop=groups * group, step=1)
    return add(graph, "reshape", x, shape=shape)


def _merged(graph: Graph, y: Value, axis: int) -> Value:
    """Two axes of groups and iterations as one."""
    shape = (*y.shape[:axis], y.shape[axis] * y.shape[axis + 1], *y.shape[axis + 2 :])
    return add(graph, "reshape", y, shape=shape)


def _copy(graph: Graph, body: Graph, inputs: list[Value]) -> list[Value]:
    env = dict(zip(body.inputs, inputs, strict=True))
    for node in body.nodes:
        results = copy_node(graph, node, [env[v] for v in node.operands])
        for new, old in zip(results, node.results, strict=True):
            new.name = ""
            env[old] = new
    return [env[v] for v in body.outputs]
