"""Taking a scan apart and putting it together again: what all passes that change bodies share.

The operands of a scan and the inputs of its body are one list in three parts (carries, scanned, captured). Here each
operand is kept beside its body input, so that a pass can drop, add or replace one and let `build` do the counting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ltc_compiler.ir.graph import Graph, Node, Rule, Source, Type, Value, copy_node
from ltc_compiler.ir.ops import add_many, scan_parts


def inline(graph: Graph, body: Graph, inputs: Sequence[Value], rule: Rule | None = None) -> list[Value]:
    """Append the nodes of `body` to `graph`, reading `inputs` and rewritten by `rule`; returns the body's outputs."""
    env = dict(zip(body.inputs, inputs, strict=True))
    for node in body.nodes:
        operands = tuple(env[v] for v in node.operands)
        results = rule(graph, node, operands) if rule is not None else None
        if results is None:
            results = copy_node(graph, node, operands)
        env.update(zip(node.results, results, strict=True))
    return [env[v] for v in body.outputs]


def live_values(outputs: Iterable[Value], following: dict[Value, Value] | None = None) -> set[Value]:
    """Everything that `outputs` depend on; `following` gives the next value of a state's value."""
    live: set[Value] = set()
    pending = list(outputs)
    while pending:
        value = pending.pop()
        if value not in live:
            live.add(value)
            pending.extend(value.node.operands if value.node is not None else ())
            if following is not None and value in following:
                pending.append(following[value])
    return live


@dataclass
class Carry:
    """Initial value outside; input and next value in the body; the final value outside (None if not wanted)."""

    initial: Value
    input: Value
    next: Value
    result: Value | None = None


@dataclass
class Scanned:
    """An operand taken apart along `axis`, and the body input that sees its slices."""

    operand: Value
    input: Value
    axis: int


@dataclass
class Captured:
    """An operand that the body sees whole, and the body input that it is."""

    operand: Value
    input: Value


@dataclass
class Stacked:
    """A body output collected along `axis`, and the result that it becomes (None if not wanted)."""

    output: Value
    axis: int
    result: Value | None = None


@dataclass
class Scan:
    """The parts of one scan. `body` is the graph whose values the parts name."""

    body: Graph
    trip_count: int
    source: Source = field(default_factory=Source)
    carries: list[Carry] = field(default_factory=list)
    scanned: list[Scanned] = field(default_factory=list)
    captured: list[Captured] = field(default_factory=list)
    stacked: list[Stacked] = field(default_factory=list)

    @staticmethod
    def of(node: Node, operands: Sequence[Value]) -> Scan:
        """The parts of `node`, reading `operands` instead of its own."""
        body, attrs = node.body, node.attrs
        initial, arrays, values = scan_parts(operands, attrs)
        carried, slices, whole = scan_parts(body.inputs, attrs)
        n = attrs["carries"]
        later, results = body.outputs, node.results
        return Scan(
            body,
            attrs["trip_count"],
            node.source,
            [Carry(*parts) for parts in zip(initial, carried, later[:n], results[:n], strict=True)],
            [Scanned(*parts) for parts in zip(arrays, slices, attrs["in_axes"], strict=True)],
            [Captured(*parts) for parts in zip(values, whole, strict=True)],
            [Stacked(*parts) for parts in zip(later[n:], attrs["out_axes"], results[n:], strict=True)],
        )

    def build(self, graph: Graph, constants: dict[Value, Value] | None = None) -> dict[Value, Value]:
        """Append the scan to `graph`; returns the new value of every result that the parts name.

        Body inputs that no part names must be given in `constants`: there they become copies of that constant. An
        operand that is captured twice, or scanned twice alike, is handed over once. Dead body nodes are left out.
        """
        scanned, captured, same = self._distinct()
        body = Graph(self.body.name)
        kept = [c.input for c in self.carries] + [s.input for s in scanned] + [c.input for c in captured]
        env = {v: body.add_input(v.type, v.name, v.role) for v in kept}
        env.update((v, env[first]) for v, first in same.items())
        for value, constant in (constants or {}).items():
            assert constant.node is not None
            env[value] = copy_node(body, constant.node, ())[0]
        outputs = [c.next for c in self.carries] + [s.output for s in self.stacked]
        live = live_values(outputs)
        for node in self.body.nodes:
            if any(v in live for v in node.results):
                results = copy_node(body, node, [env[v] for v in node.operands])
                env.update(zip(node.results, results, strict=True))
        for output in outputs:
            body.add_output(env[output])
        return self._append(graph, body, scanned, captured)

    def _distinct(self) -> tuple[list[Scanned], list[Captured], dict[Value, Value]]:
        """Scanned and captured parts without repetitions, and the body input that stands for each repeated one."""
        first: dict[tuple[Value, int | None], Value] = {}
        same: dict[Value, Value] = {}
        keys: list[tuple[Value, int | None, Value]] = [(s.operand, s.axis, s.input) for s in self.scanned]
        keys += [(c.operand, None, c.input) for c in self.captured]
        for operand, axis, value in keys:
            if first.setdefault((operand, axis), value).type != value.type:
                first[operand, axis] = value
            elif first[operand, axis] is not value:
                same[value] = first[operand, axis]
        scanned = [s for s in self.scanned if s.input not in same]
        return scanned, [c for c in self.captured if c.input not in same], same

    def _append(
        self, graph: Graph, body: Graph, scanned: list[Scanned], captured: list[Captured]
    ) -> dict[Value, Value]:
        attrs = {
            "body": body,
            "carries": len(self.carries),
            "scanned": len(scanned),
            "trip_count": self.trip_count,
            "in_axes": tuple(s.axis for s in scanned),
            "out_axes": tuple(s.axis for s in self.stacked),
        }
        operands = [c.initial for c in self.carries]
        operands += [s.operand for s in scanned] + [c.operand for c in captured]
        made = add_many(graph, "scan", operands, attrs, self.source)
        wanted = [c.result for c in self.carries] + [s.result for s in self.stacked]
        new = {old: value for old, value in zip(wanted, made, strict=True) if old is not None}
        for old, value in new.items():
            value.name, value.type = old.name, Type(value.shape, old.type.precision)
        return new

    def repeats(self) -> bool:
        """Whether an operand is handed over twice."""
        return bool(self._distinct()[2])
