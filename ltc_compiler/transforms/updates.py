"""The update of a liquid time-constant state becomes the one instruction that the machine has for it.

`v + (h * (N - D * v)) / (cm + h * D)` is found whatever the order of its sums and products; a sum N or D is taken apart
into what the instruction adds. Each operation rounds as before, so no bit changes (docs/numerics.md, rule 12).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ltc_compiler.ir.graph import Graph, Node, Precision, Value, rewrite
from ltc_compiler.ir.ops import add
from ltc_compiler.transforms.simplify import producer


class _Update(NamedTuple):
    v: Value
    n: Value
    d: Value
    cm: Value
    h: Value


def fuse_updates(graph: Graph) -> Graph:
    """Sums of a state and its delta become ltc_update ops; in bodies too."""
    return rewrite(graph, _rule)


def _rule(graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if node.op != "add" or node.precision is Precision.BF16:
        return None
    found = next(_matches(*operands), None)
    if found is None or found.v.shape != node.results[0].shape:
        return None
    leak, num = _terms(graph, found.n)
    conductance, den = _terms(graph, found.d)
    return (add(graph, "ltc_update", found.v, num, den, leak, conductance, found.cm, found.h,
                source=node.source, name=node.results[0].name),)  # fmt: skip


def _matches(a: Value, b: Value) -> Iterator[_Update]:
    for v, delta in ((a, b), (b, a)):
        quotient = _fp32(delta, "div")
        if quotient is None:
            continue
        top, bottom = quotient.operands
        for h, drive in _factors(top):
            difference = _fp32(drive, "sub")
            if difference is None:
                continue
            n, decay = difference.operands
            for d, state in _factors(decay):
                if state is not v:
                    continue
                for cm, inertia in _pairs(bottom, "add"):
                    if any({*pair} == {h, d} for pair in _factors(inertia)):
                        yield _Update(v, n, d, cm, h)


def _fp32(value: Value, op: str) -> Node | None:
    """The node that made `value`, if it is an `op` whose result is not requested in BF16."""
    node = producer(value, op)
    return None if node is None or node.precision is Precision.BF16 else node


def _pairs(value: Value, op: str) -> Iterator[tuple[Value, Value]]:
    """The operands of a commutative `op`, both ways round."""
    node = _fp32(value, op)
    if node is not None:
        a, b = node.operands
        yield a, b
        yield b, a


def _factors(value: Value) -> Iterator[tuple[Value, Value]]:
    return _pairs(value, "mul")


def _terms(graph: Graph, total: Value) -> tuple[Value, Value]:
    """What is added up to `total`, a sum of synapses behind; -0 and `total` if it is no sum."""
    pairs = list(_pairs(total, "add")) or [(graph.constant(np.asarray(-0.0)), total)]
    return next((p for p in pairs if producer(p[1], "synapse") is not None), pairs[0])
