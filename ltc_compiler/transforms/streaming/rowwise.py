"""Every op on many steps at once: one more axis in front of what varies from step to step.

A rule gets a node of a step graph and its operands in the new one: `Rows`, with an axis of steps in front, or `Same`,
one value for all of them. It appends the op once for all the steps. Each step's elements are computed as by themselves:
no op sums or compares along the axis in front, so no bit depends on how many steps there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ltc_compiler.ir.graph import Graph, Node, Type, Value, copy_node
from ltc_compiler.ir.ops import OPS, add, add_many, scan_parts


@dataclass(frozen=True)
class Same:
    """A value that is the same in every step."""

    value: Value


@dataclass(frozen=True)
class Rows:
    """A value with an axis of steps in front."""

    value: Value


Kind = Same | Rows


@dataclass
class Rowwise:
    """Appends ops to `graph`, each for `steps` steps."""

    graph: Graph
    steps: int

    def run(self, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
        """The op of `node` for all steps: once, where no operand varies."""
        begin = len(self.graph.nodes)
        if not any(isinstance(k, Rows) for k in kinds):
            return [Same(v) for v in copy_node(self.graph, node, [k.value for k in kinds])]
        made = _RULES[OPS[node.op].streaming](self, node, kinds)
        self.graph.nodes[-1].precision = node.precision
        self.graph.inherit_cores(node, begin)
        for kind, old in zip(made, node.results, strict=True):
            kind.value.name = old.name
        return made

    def rows(self, kind: Kind) -> Value:
        """A value with the axis of steps in front."""
        if isinstance(kind, Rows):
            return kind.value
        shape = kind.value.shape
        one = add(self.graph, "reshape", kind.value, shape=(1, *shape))
        return add(self.graph, "broadcast", one, shape=(self.steps, *shape))

    def aligned(self, kind: Kind, rank: int) -> Value:
        """An operand that broadcasts with others of `rank` axes: the axis of steps stands in front of them all."""
        shape = kind.value.shape
        if isinstance(kind, Same) or len(shape) == rank + 1:
            return kind.value
        gap = (1,) * (rank + 1 - len(shape))
        return add(self.graph, "reshape", kind.value, shape=(shape[0], *gap, *shape[1:]))

    def emit(self, node: Node, operands: Sequence[Value], **attrs: object) -> list[Kind]:
        """The op of `node` with some attributes changed."""
        return [
            Rows(v) for v in add_many(self.graph, node.op, operands, {**node.attrs, **attrs}, node.source)
        ]


def _pointwise(s: Rowwise, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    rank = node.results[0].type.rank
    return s.emit(node, [s.aligned(k, rank) for k in kinds])


def _linear(s: Rowwise, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    """A product of one matrix with all the rows; what is added may vary with them."""
    x, *parameters = kinds
    values = [k.value for k in parameters]
    if node.op == "linear" and (isinstance(kinds[2], Rows) or values[1].type.rank > 1):
        shape = (s.steps, *node.results[0].shape)
        values[1] = add(s.graph, "broadcast", s.aligned(kinds[2], len(shape) - 1), shape=shape)
    return s.emit(node, [s.rows(x), *values])


def _along(s: Rowwise, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    """Ops that have an axis: of one operand, or of operands side by side."""
    return s.emit(node, [s.rows(k) for k in kinds], axis=node.attrs["axis"] + 1)


def _reshape(s: Rowwise, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    return s.emit(node, [kinds[0].value], shape=(s.steps, *node.attrs["shape"]))


def _permute(s: Rowwise, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    return s.emit(node, [kinds[0].value], dims=(0, *(d + 1 for d in node.attrs["dims"])))


def _broadcast(s: Rowwise, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    shape: tuple[int, ...] = node.attrs["shape"]
    return s.emit(node, [s.aligned(kinds[0], len(shape))], shape=(s.steps, *shape))


def _scan(s: Rowwise, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    """A loop within each step runs once for all of them: carries have the axis of steps."""
    carries, scanned, captured = scan_parts(kinds, node.attrs)
    operands = [s.rows(k) for k in carries] + [k.value for k in (*scanned, *captured)]
    axes = [a + isinstance(k, Rows) for k, a in zip(scanned, node.attrs["in_axes"], strict=True)]
    body = Graph(node.body.name)
    inner, env = Rowwise(body, s.steps), dict[Value, Kind]()
    for i, (value, kind) in enumerate(zip(node.body.inputs, kinds, strict=True)):
        varies = i < len(carries) or isinstance(kind, Rows)
        shape = (s.steps, *value.shape) if varies else value.shape
        made = body.add_input(Type(shape, value.type.precision), value.name, value.role)
        env[value] = Rows(made) if varies else Same(made)
    for inside in node.body.nodes:
        found = inner.run(inside, [env[v] for v in inside.operands])
        env.update(zip(inside.results, found, strict=True))
    for value in node.body.outputs:
        body.add_output(inner.rows(env[value]))
    out_axes = tuple(a + 1 for a in node.attrs["out_axes"])
    return s.emit(node, operands, body=body, in_axes=tuple(axes), out_axes=out_axes)


Rule = Callable[[Rowwise, Node, Sequence[Kind]], list[Kind]]
_RULES: dict[str, Rule] = {
    "pointwise": _pointwise,
    "linear": _linear,
    "reduce": _along,
    "reshape": _reshape,
    "permute": _permute,
    "slice": _along,
    "concat": _along,
    "broadcast": _broadcast,
    "scan": _scan,
}
if astray := {op.streaming for op in OPS.values() if op.streaming not in (*_RULES, "constant")}:
    where = "_RULES in ltc_compiler/transforms/streaming/rowwise.py"
    raise ImportError(f"{where} lacks streaming rules that the op table names: {', '.join(sorted(astray))}")
