"""Groups of operations for which the machine has one instruction become that instruction.

`fuse_synapses` finds sums over the sources of `w * sigmoid(sigma * (v - mu))`, with any constant factors, that share
one sigmoid, and makes them the two sums of a synapse op. Where a product of the constants is zero there is no
synapse. `merge_linears` makes one product of several of the same input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Node, Precision, Value, copy_node, empty_copy, fixed
from ltc_compiler.ir.ops import add, add_many

ALIGNED_ROWS = (
    64  # linears are merged where every part starts at a multiple of this: a block boundary on any board
)


class _Sum(NamedTuple):
    """A sum over the sources: the sigmoid in it, its constant factors as (sources, targets), and the node."""

    gate: Value
    factor: Array
    node: Node


class _Gate(NamedTuple):
    """sigmoid(sigma * (v - mu)) over (sources, targets)."""

    v: Value
    mu: Array
    sigma: Array


Plan = dict[Node, Callable[[Graph, dict[Value, Value]], dict[Value, Value]]]


def fuse_synapses(graph: Graph) -> Graph:
    """Sums of gated synapses become synapse ops; in bodies too."""
    return _apply(graph, _plan_synapses)


def merge_linears(graph: Graph) -> Graph:
    """Linears of one input become one linear and slices of its rows, where that keeps rows on block boundaries."""
    return _apply(graph, _plan_linears)


def _apply(graph: Graph, plan: Callable[[Graph], Plan]) -> Graph:
    """A copy in which the planned nodes are emitted by their plan: it returns values for results of several nodes."""
    emit = plan(graph)
    new = empty_copy(graph)
    env = {v: new.add_input(v.type, v.name, v.role) for v in graph.inputs}
    for state in graph.states:
        env[state.value] = new.copy_state(state)
    for node in graph.nodes:
        if all(v in env for v in node.results):
            continue
        if node in emit:
            begin = len(new.nodes)
            env.update(emit[node](new, env))
            new.inherit_cores(node, begin)
            continue
        if "body" in node.attrs:
            attrs = {**node.attrs, "body": _apply(node.body, plan)}
            node = replace(node, attrs=attrs)
        env.update(zip(node.results, copy_node(new, node, [env[v] for v in node.operands]), strict=True))
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        new.add_output(env[value], name)
    for old, made in zip(graph.states, new.states, strict=True):
        made.next = env[old.next] if old.next is not None else None
    return new


# ---------------------------------------------------------------- synapses


def _plan_synapses(graph: Graph) -> Plan:
    by_gate: dict[Value, list[_Sum]] = {}
    for node in graph.nodes:
        found = _match_sum(node)
        if found is not None:
            by_gate.setdefault(found.gate, []).append(found)
    plan: Plan = {}
    for gate, sums in by_gate.items():
        targets_first = sums[0].node.attrs["axis"] == gate.type.rank - 1
        parts = _match_gate(gate, targets_first)
        same_side = [s for s in sums if (s.node.attrs["axis"] == gate.type.rank - 1) == targets_first]
        if parts is None:
            continue
        for i in range(0, len(same_side), 2):
            pair = same_side[i : i + 2]
            plan[pair[0].node] = _emit_synapse(parts, pair)
    return plan


def _emit_synapse(gate: _Gate, pair: list[_Sum]) -> Callable[[Graph, dict[Value, Value]], dict[Value, Value]]:
    def emit(graph: Graph, env: dict[Value, Value]) -> dict[Value, Value]:
        num, den = pair[0], pair[-1]
        mask = ((num.factor != 0) | (den.factor != 0)).astype(np.float64)
        arrays = (gate.mu, gate.sigma, den.factor, num.factor, mask)
        operands = [graph.constant(a, source=num.node.source) for a in arrays]
        results = add_many(graph, "synapse", [env[gate.v], *operands], {}, num.node.source)
        requests = {s.gate.node.precision for s in pair if s.gate.node is not None} | {
            s.node.precision for s in pair
        }
        if Precision.FP32 in requests:
            graph.nodes[-1].precision = Precision.FP32
        made = {den.node.results[0]: results[1], num.node.results[0]: results[0]}
        for old, value in made.items():
            value.name = old.name
        return made

    return emit


def _match_sum(node: Node) -> _Sum | None:
    if node.op != "sum" or node.attrs["keepdims"]:
        return None
    rank, axis = node.operands[0].type.rank, node.attrs["axis"]
    if rank < 2 or axis < rank - 2:
        return None
    gates: list[Value] = []
    factors: list[Array] = []
    pending = [node.operands[0]]
    while pending:
        value = pending.pop()
        array = value.constant()
        if array is not None:
            factors.append(array)
        elif value.node is not None and value.node.op == "mul":
            pending.extend(value.node.operands)
        else:
            gates.append(value)
    if len(gates) != 1 or gates[0].node is None or gates[0].node.op != "sigmoid":
        return None
    if gates[0].shape != node.operands[0].shape:
        return None
    product = _matrix(
        np.asarray(np.prod(np.broadcast_arrays(*factors), axis=0)), gates[0].shape, axis == rank - 1
    )
    return None if product is None else _Sum(gates[0], product, node)


def _matrix(array: Array, shape: tuple[int, ...], targets_first: bool) -> Array | None:
    """`array` as (sources, targets), if it has no more axes than those; it broadcasts to `shape`."""
    if any(d != 1 for d in array.shape[:-2]):
        return None
    array = array.reshape(array.shape[-2:])
    full = np.array(np.broadcast_to(array, shape[-2:]))
    return np.ascontiguousarray(full.T) if targets_first else full


def _match_gate(gate: Value, targets_first: bool) -> _Gate | None:
    """The parts of sigmoid(sigma * (v - mu)), for v with a new axis where the targets stand."""
    assert gate.node is not None
    product = gate.node.operands[0]
    if product.node is None or product.node.op != "mul":
        return None
    for sigma, difference in (product.node.operands, product.node.operands[::-1]):
        slope = sigma.constant()
        if slope is None or difference.node is None or difference.node.op != "sub":
            continue
        spread, mu = difference.node.operands
        center = mu.constant()
        v = _spread_over_targets(spread, gate.shape, targets_first)
        if center is None or v is None:
            continue
        matrices = _matrix(center, gate.shape, targets_first), _matrix(slope, gate.shape, targets_first)
        if matrices[0] is not None and matrices[1] is not None:
            return _Gate(v, matrices[0], matrices[1])
    return None


def _spread_over_targets(spread: Value, shape: tuple[int, ...], targets_first: bool) -> Value | None:
    """The v of which `spread` is the reshape to (..., sources, 1), or (..., 1, sources) with the targets first."""
    if spread.node is None or spread.node.op != "reshape":
        return None
    *batch, rows, columns = shape
    sources = columns if targets_first else rows
    expected = (*batch, 1, sources) if targets_first else (*batch, sources, 1)
    v = spread.node.operands[0]
    return v if spread.shape == expected and v.shape == (*batch, sources) else None


# ---------------------------------------------------------------- linears


def _plan_linears(graph: Graph) -> Plan:
    groups: dict[tuple[Value, Precision | None, tuple[int, ...]], list[Node]] = {}
    for node in graph.nodes:
        scaled = node.precision is Precision.FP8_E4M3  # every weight has a scale of its own
        if node.op == "linear" and not scaled and all(v.is_constant for v in node.operands[1:]):
            groups.setdefault((node.operands[0], node.precision, node.cores), []).append(node)
    plan: Plan = {}
    for group in groups.values():
        aligned = [n for n in group if n.operands[1].shape[0] % ALIGNED_ROWS == 0]
        last = next((n for n in group if n not in aligned), None)
        merged = aligned + ([last] if last is not None else [])
        if len(merged) > 1:
            plan[min(merged, key=graph.nodes.index)] = _emit_linear(merged)
    return plan


def _joined(values: list[Value]) -> Array:
    """Constants one behind the other."""
    arrays = [array for array in (v.stored() for v in values) if array is not None]
    return fixed(np.concatenate(arrays))


def _emit_linear(nodes: list[Node]) -> Callable[[Graph, dict[Value, Value]], dict[Value, Value]]:
    def emit(graph: Graph, env: dict[Value, Value]) -> dict[Value, Value]:
        first = nodes[0]
        weight, bias = (graph.constant(_joined([n.operands[i] for n in nodes])) for i in (1, 2))
        product = add(graph, "linear", env[first.operands[0]], weight, bias, source=first.source)
        graph.nodes[-1].precision = first.precision
        made, start, axis = {}, 0, product.type.rank - 1
        for node in nodes:
            stop = start + node.operands[1].shape[0]
            attrs = {"axis": axis, "start": start, "stop": stop, "step": 1}
            made[node.results[0]] = add(
                graph, "slice", product, source=node.source, name=node.results[0].name, **attrs
            )
            start = stop
        return made

    return emit


def _array(value: Value) -> Array:
    array = value.constant()
    assert array is not None
    return array
