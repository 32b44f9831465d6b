"""Loop-invariant work moves out of the bodies of scans.

What depends on captured values and constants alone is computed once, before the scan, and captured. What depends on
constants and scanned constants alone is computed here, in fp64, for every step, and becomes a scanned constant, as the
sine of a known time does.
"""

from __future__ import annotations

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Node, Value, copy_node, rewrite
from ltc_compiler.transforms.fold import evaluate_node
from ltc_compiler.transforms.scans import Captured, Scan, Scanned

MAX_TABLE = 1 << 16  # elements of a table of steps; beyond it, ops are left in the body


def hoist(graph: Graph) -> Graph:
    """The graph with loop-invariant work moved before its scan and known steps tabulated; inner scans first."""
    return rewrite(graph, _rule)


def _rule(graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if node.op != "scan":
        return None
    scan = Scan.of(node, operands)
    invariant = _invariant(scan)
    tables = _tables(scan)
    if not invariant and not tables:
        return None
    scan.body = _copy_body(scan)  # a body may be shared: parts are replaced in a copy
    nodes = scan.body.nodes
    _move_out(graph, scan, [nodes[i] for i in invariant])
    _tabulate(graph, scan, {nodes[i]: arrays for i, arrays in tables.items()})
    made = scan.build(graph)
    graph.nodes[-1].precision = node.precision
    return tuple(made[v] for v in _result_parts(scan))


def _result_parts(scan: Scan) -> list[Value]:
    results = [c.result for c in scan.carries] + [s.result for s in scan.stacked]
    return [v for v in results if v is not None]


def _copy_body(scan: Scan) -> Graph:
    """A copy of the body; the parts of `scan` are made to name its values."""
    env: dict[Value, Value] = {}
    body = Graph(scan.body.name)
    for value in scan.body.inputs:
        env[value] = body.add_input(value.type, value.name, value.role)
    for node in scan.body.nodes:
        results = copy_node(body, node, [env[v] for v in node.operands])
        env.update(zip(node.results, results, strict=True))
    for carry in scan.carries:
        carry.input, carry.next = env[carry.input], env[carry.next]
    for scanned in scan.scanned:
        scanned.input = env[scanned.input]
    for captured in scan.captured:
        captured.input = env[captured.input]
    for stacked in scan.stacked:
        stacked.output = env[stacked.output]
    return body


def _invariant(scan: Scan) -> list[int]:
    """Positions of the nodes that depend on captured values and constants alone, and on at least one captured value."""
    captured = {c.input for c in scan.captured}
    constant: set[Value] = set()
    found: list[int] = []
    for i, node in enumerate(scan.body.nodes):
        if node.op == "constant":
            constant.update(node.results)
        elif node.operands and all(v in captured or v in constant for v in node.operands):
            captured.update(node.results)
            found.append(i)
    return found


def _move_out(graph: Graph, scan: Scan, nodes: list[Node]) -> None:
    """Compute `nodes` before the scan; their results are captured, if the body still reads them."""
    outside = {c.input: c.operand for c in scan.captured}
    moved = set(nodes)
    for node in nodes:
        operands = []
        for value in node.operands:
            if value not in outside:
                assert value.node is not None
                outside[value] = copy_node(graph, value.node, ())[0]
            operands.append(outside[value])
        results = copy_node(graph, node, operands)
        outside.update(zip(node.results, results, strict=True))
    rest = [n for n in scan.body.nodes if n not in moved]
    read = (
        {v for n in rest for v in n.operands}
        | {c.next for c in scan.carries}
        | {s.output for s in scan.stacked}
    )
    scan.body.nodes = rest
    for node in nodes:
        scan.captured += [Captured(outside[v], v) for v in node.results if v in read]


def _tables(scan: Scan) -> dict[int, list[list[Array]]]:
    """For every node that depends on constants and scanned constants alone: its position, and its results by step."""
    arrays = {s.input: (s.operand.constant(), s.axis) for s in scan.scanned}
    steps: dict[Value, list[Array]] = {}
    for value, (array, axis) in arrays.items():
        if array is not None:
            steps[value] = [np.take(array, t, axis) for t in range(scan.trip_count)]
    known = set(steps)
    found: dict[int, list[list[Array]]] = {}
    for i, node in enumerate(scan.body.nodes):
        size = scan.trip_count * sum(v.type.size for v in node.results)
        if node.op == "constant":
            steps[node.results[0]] = [node.attrs["value"]] * scan.trip_count
        elif all(v in steps for v in node.operands) and any(v in known for v in node.operands):
            if size > MAX_TABLE:
                continue
            by_step = [
                evaluate_node(node, [steps[v][t] for v in node.operands]) for t in range(scan.trip_count)
            ]
            found[i] = [list(column) for column in zip(*by_step, strict=True)]
            known.update(node.results)
            steps.update(zip(node.results, found[i], strict=True))
    return found


def _tabulate(graph: Graph, scan: Scan, tables: dict[Node, list[list[Array]]]) -> None:
    """The results that the rest of the body reads become scanned constants."""
    rest = [n for n in scan.body.nodes if n not in tables]
    read = (
        {v for n in rest for v in n.operands}
        | {c.next for c in scan.carries}
        | {s.output for s in scan.stacked}
    )
    scan.body.nodes = rest
    for node, columns in tables.items():
        for value, column in zip(node.results, columns, strict=True):
            if value in read:
                table = graph.constant(np.stack(column), value.name, node.source)
                scan.scanned.append(Scanned(table, value, 0))
