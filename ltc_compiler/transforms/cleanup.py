"""Dead code and common subexpressions are removed: nothing is computed that is not read, and nothing twice.

Carries, stacked outputs and captured values that nothing needs are taken off a scan; a carry that its body returns
unchanged becomes a captured value. States that no output depends on go as well.
"""

from __future__ import annotations

from dataclasses import replace

from ltc_compiler.ir.contents import contents_key
from ltc_compiler.ir.graph import Graph, Node, StateKind, Value, copy_node, empty_copy, rewrite
from ltc_compiler.transforms.scans import Captured, Scan, live_values

Key = tuple[object, ...]


def cleanup(graph: Graph) -> Graph:
    """Common subexpressions, then dead code; again while a scan got smaller, since that frees what fed it."""
    while True:
        graph = eliminate_dead_code(share_common(graph))
        smaller = trim_scans(graph)
        if _extent(smaller) == _extent(graph):
            return graph
        graph = smaller


def _extent(graph: Graph) -> int:
    return sum(1 + len(n.operands) + len(n.results) for n in graph.walk())


# ---------------------------------------------------------------- common subexpressions


def share_common(graph: Graph) -> Graph:
    """Nodes of the same op, operands and attributes are computed once. Scans are not compared."""
    seen: dict[int, dict[Key, tuple[Value, ...]]] = {}

    def rule(new: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op == "scan":
            return None
        table = seen.setdefault(id(new), {})
        key = _key(node, operands)
        if key not in table:
            table[key] = copy_node(new, node, operands)
            kept.append(new)
        return table[key]

    kept: list[Graph] = []  # keeps every new graph alive, so that its id stays its own
    return rewrite(graph, rule)


def _key(node: Node, operands: tuple[Value, ...]) -> Key:
    attrs = tuple((k, _hashable(v)) for k, v in sorted(node.attrs.items()))
    types = tuple(v.type for v in node.results)
    return (node.op, tuple(id(v) for v in operands), attrs, types, node.precision, node.cores)


def _hashable(attribute: object) -> object:
    if hasattr(attribute, "tobytes"):
        return contents_key(attribute)  # type: ignore[arg-type]
    return attribute


# ---------------------------------------------------------------- dead code


def eliminate_dead_code(graph: Graph) -> Graph:
    """The graph without what no output and no state of the user depends on; inputs stay: they are the signature, and
    so does the step counter, which whoever runs the graph reads.
    """
    named = [s for s in graph.states if s.kind is not StateKind.STREAM or s.name == graph.step_counter]
    roots = [*graph.outputs, *(s.value for s in named)]
    live = live_values(roots, {s.value: s.next for s in graph.states if s.next is not None})
    new = empty_copy(graph)
    env = {v: new.add_input(v.type, v.name, v.role) for v in graph.inputs}
    states = [s for s in graph.states if s.value in live]
    if all(s.name != graph.end_marker for s in states):
        new.end_marker = ""
    for state in states:
        env[state.value] = new.copy_state(state)
    for node in graph.nodes:
        if not any(v in live for v in node.results):
            continue
        if "body" in node.attrs:
            attrs = {**node.attrs, "body": eliminate_dead_code(node.body)}
            node = replace(node, attrs=attrs)
        results = copy_node(new, node, [env[v] for v in node.operands])
        env.update(zip(node.results, results, strict=True))
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        new.add_output(env[value], name)
    for old, made in zip(states, new.states, strict=True):
        made.next = env[old.next] if old.next is not None else None
    return new


# ---------------------------------------------------------------- scans


def trim_scans(graph: Graph) -> Graph:
    """Scans without the carries, stacked outputs, scanned and captured operands that nothing needs."""
    wanted = {v for g in _graphs(graph) for n in g.nodes for v in n.operands}
    wanted |= {v for g in _graphs(graph) for v in g.outputs}
    wanted |= {s.next for s in graph.states if s.next is not None}

    def rule(new: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op != "scan":
            return None
        scan = Scan.of(node, operands)
        results = _trim(scan, wanted)
        if results is None:
            return None
        made = scan.build(new)
        new.nodes[-1].precision = node.precision
        return tuple(made.get(v, results.get(v, operands[0])) for v in node.results)

    return rewrite(graph, rule)


def _graphs(graph: Graph) -> list[Graph]:
    return [graph, *(n.body for n in graph.walk() if "body" in n.attrs)]


def _trim(scan: Scan, wanted: set[Value]) -> dict[Value, Value] | None:
    """Take what nothing needs off `scan`: None if nothing is; else what stands for removed results that are read."""
    before = (len(scan.carries), len(scan.scanned), len(scan.captured), len(scan.stacked))
    replaced: dict[Value, Value] = {}
    for carry in list(scan.carries):
        if carry.next is carry.input and len(scan.carries) + len(scan.stacked) > 1:
            scan.carries.remove(carry)
            scan.captured.append(Captured(carry.initial, carry.input))
            if carry.result is not None:
                replaced[carry.result] = carry.initial
    stacked = [s for s in scan.stacked if s.result in wanted]
    carries = [c for c in scan.carries if c.result in wanted]
    while True:
        live = live_values([s.output for s in stacked] + [c.next for c in carries])
        grown = [c for c in scan.carries if c in carries or c.input in live]
        if len(grown) == len(carries):
            break
        carries = grown
    if stacked or carries:  # a scan of which nothing is wanted is dead code, and goes as such
        scanned = [s for s in scan.scanned if s.input in live]
        captured = [c for c in scan.captured if c.input in live]
        if not (carries or scanned or captured):  # a scan has an operand, though this one needs none
            captured, scanned = scan.captured[:1], scan.scanned[:1]
            if not (captured or scanned):
                captured = [Captured(c.initial, c.input) for c in scan.carries[:1]]
        scan.stacked, scan.carries, scan.scanned, scan.captured = stacked, carries, scanned, captured
    after = (len(scan.carries), len(scan.scanned), len(scan.captured), len(scan.stacked))
    return replaced if before != after or scan.repeats() else None
