"""Evaluate an NNIR graph in NumPy, in fp64 or fp32: the meaning that every transform must keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Node, Value
from ltc_compiler.ir.ops import OPS, Attrs, scan_parts

Change = Callable[[Node, Sequence[Array]], Sequence[Array]]


def evaluate(
    graph: Graph,
    inputs: Sequence[Array],
    states: dict[str, Array] | None = None,
    change: Change | None = None,
) -> list[Array]:
    """The outputs for given inputs, in the inputs' dtype (fp64 where there are none).

    `states` holds the states' values by name; it is read and then updated in place. A graph with states needs it.
    `change` sees every node with its results when it is evaluated, in bodies at every iteration, and gives those to go
    on with.
    """
    dtype = np.result_type(*inputs) if inputs else np.dtype(np.float64)
    env: dict[Value, Array] = dict(zip(graph.inputs, inputs, strict=True))
    for state in graph.states:
        assert states is not None, "a graph with states is evaluated with their values"
        env[state.value] = states[state.name].astype(dtype)
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            operands = [env[v] for v in node.operands]
            results: Sequence[Array] = apply(node.op, operands, node.attrs, change)
            if change is not None:
                results = change(node, results)
            for value, result in zip(node.results, results, strict=True):
                env[value] = np.asarray(result).astype(dtype, copy=False)
    if states is not None:
        for state in graph.states:
            assert state.next is not None, f"state {state.name} has no next value"
            states[state.name] = env[state.next]
    return [env[v] for v in graph.outputs]


def apply(
    op: str, operands: Sequence[Array], attrs: Attrs, change: Change | None = None
) -> tuple[Array, ...]:
    """The results of one operation. change: as in `evaluate`, for the nodes of its body."""
    meaning = OPS[op].evaluate
    return _scan(operands, attrs, change) if meaning is None else meaning(operands, attrs)


def _scan(operands: Sequence[Array], attrs: Attrs, change: Change | None) -> tuple[Array, ...]:
    carries, scanned, captured = scan_parts(list(operands), attrs)
    stacked: list[list[Array]] = [[] for _ in attrs["out_axes"]]
    for t in range(attrs["trip_count"]):
        slices = [np.take(x, t, axis) for x, axis in zip(scanned, attrs["in_axes"], strict=True)]
        results = evaluate(attrs["body"], [*carries, *slices, *captured], change=change)
        carries = results[: len(carries)]
        for column, y in zip(stacked, results[len(carries) :], strict=True):
            column.append(y)
    return (*carries, *(np.stack(c, axis) for c, axis in zip(stacked, attrs["out_axes"], strict=True)))


def initial_states(graph: Graph) -> dict[str, Array]:
    """The states' initial values by name."""
    return {s.name: s.initial.copy() for s in graph.states}
