"""Probes: a copy of a graph that also hands out every value that one of its operations computes, bodies included.

`probe` builds the copy, `read_values` turns its outputs back into the values of the original graph. Inputs, states and
carries are probed where they are read. Operations that only move data (DERIVED) are not probed: their values follow
from their operands. Inside the body of a scan a value has one array per iteration; such a scan gets one more stacked
output per value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Node, Type, Value, rewrite
from ltc_compiler.ir.graph import copy_node as copy
from ltc_compiler.ir.ops import LAYOUT, scan_parts
from ltc_compiler.ir.run import apply
from ltc_compiler.ir.verify import verify

DERIVED = LAYOUT | {"constant"}

Probe = tuple[
    Value, Value
]  # a value of the original graph, and that of the copy which holds it, over all iterations


@dataclass
class Probed:
    """`graph`: the copy, its first outputs those of the original. `values`: of the original, in the order of the
    outputs after these. `inside`: the scans whose bodies are probed; the others have too many iterations.
    """

    graph: Graph
    values: list[Value] = field(default_factory=list)
    inside: set[Node] = field(default_factory=set)


def probe(graph: Graph, iterations: int) -> Probed:
    """Probe everything, and the bodies of scans that have at most `iterations` iterations, those of the scans around
    them included. The graph is one that the pipeline made; precisions stay as they are.
    """
    prober = _Prober(iterations)
    new = rewrite(graph, prober.rule, into_bodies=False)
    found = list(zip(graph.inputs, new.inputs, strict=True))
    found += [(old.value, made.value) for old, made in zip(graph.states, new.states, strict=True)]
    found += prober.found
    for i, (_, value) in enumerate(found):
        new.add_output(value, f"probe{i}")
    new.input_streaming_dims = new.output_streaming_dims = None  # steps are run one by one
    new.output_latencies = new.output_tails = None
    verify(new, folded=True)
    return Probed(new, [old for old, _ in found], prober.inside)


class _Prober:
    """A rule for `rewrite` that remembers where each value went."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.found: list[Probe] = []
        self.inside: set[Node] = set()

    def rule(self, graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        if node.op == "scan" and node.attrs["trip_count"] <= self.iterations:
            results = self._scan(graph, node, operands)
        else:
            results = copy(graph, node, operands)
        if node.op not in DERIVED:
            self.found += zip(node.results, results, strict=True)
        return results

    def _scan(self, graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...]:
        """The scan with one more stacked output for every probe of its body; returns its own results."""
        count = node.attrs["trip_count"]
        inner = _Prober(self.iterations // count)
        body = rewrite(node.body, inner.rule, into_bodies=False)
        carried = scan_parts(node.body.inputs, node.attrs)[0]
        found = [*zip(carried, body.inputs, strict=False), *inner.found]
        for _, value in found:
            body.add_output(value)
        attrs = {**node.attrs, "body": body, "out_axes": (*node.attrs["out_axes"], *(0 for _ in found))}
        types = [v.type for v in node.results]
        types += [Type((count, *v.shape), v.type.precision) for _, v in found]
        results = graph.append("scan", operands, attrs, types, node.source)
        for new, old in zip(results, node.results, strict=False):
            new.name = old.name
        own, more = results[: len(node.results)], results[len(node.results) :]
        self.found += zip((old for old, _ in found), more, strict=True)
        self.inside |= inner.inside | {node}
        return own


def read_values(graph: Graph, probed: Probed, outputs: Sequence[Array], steps: int) -> dict[Value, Array]:
    """Every value of `graph` from the outputs of the copy, in fp64, as (steps * iterations, *shape), steps outermost.

    outputs: arrays of (steps, *shape of the copy's output). Bodies that are not probed have no values.
    """
    given = zip(probed.values, outputs[len(graph.outputs) :], strict=True)
    env = {old: array.astype(np.float64).reshape(-1, *old.shape) for old, array in given}
    _derive(graph, env, probed.inside, steps)
    return env


def _derive(graph: Graph, env: dict[Value, Array], inside: set[Node], count: int) -> None:
    """Add the values that were not probed to `env`; `count` is the length of the leading axis."""
    for node in graph.nodes:
        if node.op in DERIVED:
            env[node.results[0]] = evaluated(node, env, count)[0]
        elif node in inside:
            iterations = node.attrs["trip_count"]
            _, scanned, captured = scan_parts(node.operands, node.attrs)
            _, slices, whole = scan_parts(node.body.inputs, node.attrs)
            for outer, inner, axis in zip(scanned, slices, node.attrs["in_axes"], strict=True):
                env[inner] = np.moveaxis(env[outer], axis + 1, 1).reshape(-1, *inner.shape)
            for outer, inner in zip(captured, whole, strict=True):
                value = outer.constant()
                env[inner] = (
                    np.repeat(env[outer], iterations, 0)
                    if value is None
                    else _repeated(value, count * iterations)
                )
            _derive(node.body, env, inside, count * iterations)


def evaluated(node: Node, env: Mapping[Value, Array], count: int) -> list[Array]:
    """The results of one operation in fp64, from operands in `env`, for each of `count` evaluations."""
    if node.op == "constant":
        return [_repeated(node.attrs["value"], count)]
    with np.errstate(all="ignore"):
        rows = [apply(node.op, [env[v][i] for v in node.operands], node.attrs) for i in range(count)]
    return [np.stack([np.asarray(row[k]) for row in rows]) for k in range(len(node.results))]


def _repeated(value: Array, count: int) -> Array:
    return np.broadcast_to(value, (count, *value.shape))
