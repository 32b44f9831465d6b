"""Evaluate an NNIR graph in NumPy, in fp64 or fp32: the meaning that every transform must keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Node, Value
from ltc_compiler.ir.ops import OPS, scan_value

Change = Callable[[Node, Sequence[Array]], Sequence[Array]]


def evaluate(
    graph: Graph,
    inputs: Sequence[Array],
    states: dict[str, Array] | None = None,
    change: Change | None = None,
) -> list[Array]:
    """The outputs for given inputs, in the inputs' dtype (fp64 where there are none).

    `states` holds the states' values by name; it is read and then updated in place. A graph with states needs it.
    `change` sees every node with its results when it is evaluated, in bodies at every turn, and gives those to go on
    with.
    """
    dtype = np.result_type(*inputs) if inputs else np.dtype(np.float64)
    env: dict[Value, Array] = dict(zip(graph.inputs, inputs, strict=True))
    for state in graph.states:
        assert states is not None, "a graph with states is evaluated with their values"
        env[state.value] = states[state.name].astype(dtype)
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            operands = [env[v] for v in node.operands]
            if change is not None:
                results = change(node, _changed(node, operands, change))
            else:
                results = OPS[node.op].evaluate(operands, node.attrs)
            for value, result in zip(node.results, results, strict=True):
                env[value] = np.asarray(result).astype(dtype, copy=False)
    if states is not None:
        for state in graph.states:
            assert state.next is not None, f"state {state.name} has no next value"
            states[state.name] = env[state.next]
    return [env[v] for v in graph.outputs]


def _changed(node: Node, operands: Sequence[Array], change: Change) -> Sequence[Array]:
    """The results of a node in whose body `change` is at work."""
    if node.op != "scan":
        return OPS[node.op].evaluate(operands, node.attrs)
    return scan_value(operands, node.attrs, lambda inputs: evaluate(node.body, inputs, change=change))


def initial_states(graph: Graph) -> dict[str, Array]:
    """The states' initial values by name."""
    return {s.name: s.initial.copy() for s in graph.states}
