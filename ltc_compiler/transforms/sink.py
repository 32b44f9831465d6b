"""Transpositions go down through what does not mind the order of axes, until one meets another and both vanish.

A layer that wants its features last turns its input, and turns its output back. Between two such layers stand
row-by-row operations, norms, padding and residual sums: done on the turned value instead, they leave the two turns
side by side.
Every element is computed as before from the same elements in the same order, so no bit changes. The graph is taken
as it comes out if fewer elements are turned in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ltc_compiler.ir.graph import Graph, Node, Value, rewrite
from ltc_compiler.ir.ops import NOWHERE, POINTWISE, add, check_names
from ltc_compiler.transforms.cleanup import cleanup
from ltc_compiler.transforms.fold import fold
from ltc_compiler.transforms.simplify import producer

Dims = tuple[int, ...]


def sink_transpositions(graph: Graph) -> Graph:
    """The graph with its transpositions as late as they can be, or as it is where that does not pay."""
    if not turned_elements(graph):
        return graph
    sunk = cleanup(fold(rewrite(graph, _Sink(_repeated(graph)))))
    return sunk if turned_elements(sunk) < turned_elements(graph) else graph


def turned_elements(graph: Graph) -> int:
    """Elements that change lanes in permutations, in each turn of a loop."""
    total = 0
    for node in graph.nodes:
        if "body" in node.attrs:
            total += node.attrs["trip_count"] * turned_elements(node.body)
        elif node.op == "permute" and _turns(node):
            total += node.results[0].type.size
    return total


def _turns(node: Node) -> bool:
    """Whether a permutation moves its last axis and is no reshape."""
    dims: Dims = node.attrs["dims"]
    return dims[-1] != len(dims) - 1 and not _keeps_order(node.operands[0].shape, dims)


def _keeps_order(shape: tuple[int, ...], dims: Dims) -> bool:
    """Whether only axes of one element change their places: a reshape."""
    long = [d for d in dims if shape[d] > 1]
    return long == sorted(long)


def _repeated(graph: Graph) -> set[Node]:
    """The slices that together take more than there is: to turn these would turn elements again and again."""
    found: set[Node] = set()
    for value, readers in graph.uses().items():
        slices = [n for n in readers if n.op == "slice"]
        if sum(n.results[0].type.size for n in slices) > value.type.size:
            found.update(slices)
    return found.union(*(_repeated(n.body) for n in graph.nodes if "body" in n.attrs))


def inverse(dims: Dims) -> Dims:
    """The permutation that undoes this one."""
    return tuple(int(d) for d in np.argsort(dims))


@dataclass
class _Sink:
    """The rewriting rule. repeated: slices to leave where they are; made: every permutation so far."""

    repeated: set[Node]
    made: dict[tuple[Value, Dims], Value] = field(default_factory=dict)

    def __call__(self, graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node.op == "permute":
            return (self.permuted(graph, operands[0], node.attrs["dims"], node),)
        rule = _RULES.get(node.op)
        turned = next((v.node for v in operands if (n := producer(v, "permute")) and _turns(n)), None)
        if rule is None or turned is None or node in self.repeated:
            return None
        dims: Dims = turned.attrs["dims"]
        bases = [self.before(graph, v, dims, turned.results[0].type.size) for v in operands]
        found = [v for v in bases if v is not None]
        if len(found) < len(bases):
            return None
        attrs, behind = rule(node, dims)
        value = add(graph, node.op, *found, source=node.source, name=node.results[0].name, **attrs)
        graph.nodes[-1].precision, graph.nodes[-1].cores = node.precision, node.cores
        return (self.permuted(graph, value, behind, node),)

    def permuted(self, graph: Graph, value: Value, dims: Dims, node: Node) -> Value:
        """The value with its axes in another order: what was permuted before, if that is all."""
        inner = producer(value, "permute")
        if inner is not None:
            dims = tuple(inner.attrs["dims"][d] for d in dims)
            value = inner.operands[0]
        if dims == tuple(range(len(dims))):
            return value
        padded = producer(value, "concat")
        if padded is not None and sum(v.constant() is None for v in padded.operands) == 1:
            return self.around(graph, padded, dims, node)
        if (value, dims) not in self.made:
            self.made[value, dims] = add(graph, "permute", value, dims=dims, source=node.source)
            graph.nodes[-1].precision, graph.nodes[-1].cores = node.precision, node.cores
        return self.made[value, dims]

    def around(self, graph: Graph, padded: Node, dims: Dims, node: Node) -> Value:
        """A permutation of a padded value: it is what is padded that turns."""
        parts = []
        for part in padded.operands:
            array = part.constant()
            parts.append(
                self.permuted(graph, part, dims, node)
                if array is None
                else graph.constant(array.transpose(dims), part.name, padded.source)
            )
        value = add(graph, "concat", *parts, axis=dims.index(padded.attrs["axis"]), source=padded.source)
        graph.nodes[-1].precision, graph.nodes[-1].cores = padded.precision, padded.cores
        return value

    def before(self, graph: Graph, value: Value, dims: Dims, size: int) -> Value | None:
        """What becomes `value` if it is permuted, where that is there already or takes no turn; None where it is not.

        size: of what is turned now. The rows of a matrix product, (..., M, 1, K), are (..., M, K, 1) for its columns in
        their own order, which pays if they are half as many elements at most.
        """
        array = value.constant()
        if array is not None and array.ndim <= len(dims):
            full = array.reshape((1,) * (len(dims) - array.ndim) + array.shape)
            return graph.constant(full.transpose(inverse(dims)), value.name) if array.size > 1 else value
        inner = producer(value, "permute")
        if inner is not None and inner.attrs["dims"] == dims:
            return inner.operands[0]
        if value.shape == () or (value, inverse(dims)) in self.made:
            return self.made.get((value, inverse(dims)), value)
        if (
            value.type.rank != len(dims)
            or 2 * value.type.size > size
            or not _keeps_order(value.shape, inverse(dims))
        ):
            return None
        made = add(
            graph, "permute", value, dims=inverse(dims), source=value.node.source if value.node else NOWHERE
        )
        return self.made.setdefault((value, inverse(dims)), made)


# An operation on what a permutation was made of: its attributes there, and the permutation of its result.
Rule = Callable[[Node, Dims], tuple[dict[str, object], Dims]]


def _as_it_is(node: Node, dims: Dims) -> tuple[dict[str, object], Dims]:
    return {}, dims


def _along(node: Node, dims: Dims) -> tuple[dict[str, object], Dims]:
    return {**node.attrs, "axis": dims[node.attrs["axis"]]}, dims


def _reduced(node: Node, dims: Dims) -> tuple[dict[str, object], Dims]:
    axis = dims[node.attrs["axis"]]
    kept = dims if node.attrs["keepdims"] else tuple(d - (d > axis) for d in dims if d != axis)
    return {**node.attrs, "axis": axis}, kept


_RULES: dict[str, Rule] = {
    **dict.fromkeys(sorted(POINTWISE), _as_it_is),
    **dict.fromkeys(("slice", "concat"), _along),
    **dict.fromkeys(("sum", "amax"), _reduced),
}
check_names("_RULES in ltc_compiler/transforms/sink.py", _RULES)
