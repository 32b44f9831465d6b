"""Transpositions move down through operations that take any order of axes, until two of them cancel.

A layer that wants its features last transposes its input, and transposes its output back. Between two such layers stand
row-by-row operations, norms, padding and residual sums: done on the transposed value instead, they leave the two
transpositions side by side. Every element is computed as before from the same elements in the same order, so no bit
changes. The new graph is taken if it transposes fewer elements.
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
    if not moved_elements(graph):
        return graph
    sunk = cleanup(fold(rewrite(graph, _Sink(_repeated(graph)))))
    return sunk if moved_elements(sunk) < moved_elements(graph) else graph


def moved_elements(graph: Graph) -> int:
    """Elements that change lanes in permutations, in all iterations of loops."""
    total = 0
    for node in graph.nodes:
        if "body" in node.attrs:
            total += node.attrs["trip_count"] * moved_elements(node.body)
        elif node.op == "permute" and _moves_lanes(node):
            total += node.results[0].type.size
    return total


def _moves_lanes(node: Node) -> bool:
    """Whether a permutation moves its last axis and is no reshape."""
    dims: Dims = node.attrs["dims"]
    return dims[-1] != len(dims) - 1 and not _keeps_order(node.operands[0].shape, dims)


def _keeps_order(shape: tuple[int, ...], dims: Dims) -> bool:
    """Whether only axes of one element change their places: a reshape."""
    long = [d for d in dims if shape[d] > 1]
    return long == sorted(long)


def _repeated(graph: Graph) -> set[Node]:
    """Slices that together are larger than their operand: to permute each would permute elements more than once."""
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
        permuted = next((v.node for v in operands if (n := producer(v, "permute")) and _moves_lanes(n)), None)
        if rule is None or permuted is None or node in self.repeated:
            return None
        dims: Dims = permuted.attrs["dims"]
        bases = [self.before(graph, v, dims, permuted.results[0].type.size) for v in operands]
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
        if padded is not None and sum(not v.is_constant for v in padded.operands) == 1:
            return self.around(graph, padded, dims, node)
        if (value, dims) not in self.made:
            self.made[value, dims] = add(graph, "permute", value, dims=dims, source=node.source)
            graph.nodes[-1].precision, graph.nodes[-1].cores = node.precision, node.cores
        return self.made[value, dims]

    def around(self, graph: Graph, padded: Node, dims: Dims, node: Node) -> Value:
        """A permutation of a padded value becomes the padding of a permuted one."""
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
        """A value whose permutation is `value`, if there is one already or it takes no permutation to make; else None.

        size: of what is permuted now. The rows of a matrix product, (..., M, 1, K), are (..., M, K, 1) for its columns
        in their own order, which pays if they are at most half as many elements.
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
