"""Tied ports: an output that is the next run's input becomes a state, and both ports go.

`forward(x, h) -> y, h'` keeps its state at the caller; with `{"h'": "h"}` the program keeps it, by the input's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ltc_compiler.errors import GraphError
from ltc_compiler.ir.graph import Graph, Role, State, StateKind, Value, copy_node, empty_copy
from ltc_compiler.ir.verify import verify


def tie(graph: Graph, ties: Mapping[str, str], initial: Mapping[str, Any] | None = None) -> Graph:
    """The graph in which every output that `ties` names is the next value of the input that it is tied to.

    initial: arrays of the inputs' shapes for the first run, zeros where none is given. The other ports stay as they
    are; so does an output that has the same value as a tied one. Raises GraphError for names that there are not, ports
    of different shapes or precisions, an input that is tied twice, and elapsed times, which the host must check.
    """
    verify(graph)
    if not ties:
        raise _refuse("no output is named", "give {output: input}")
    starts = dict(initial or {})
    unknown = sorted(set(starts) - set(ties.values()))
    if unknown:
        raise _refuse(f"initial names {', '.join(unknown)}, which are no tied inputs", "leave them out")
    pairs = {_input(graph, target): _output(graph, name) for name, target in ties.items()}
    if len(pairs) != len(ties):
        twice = sorted({t for t in ties.values() if list(ties.values()).count(t) > 1})
        raise _refuse(f"more than one output is tied to {', '.join(twice)}", "tie one output to each input")
    for value, index in pairs.items():
        _check_pair(graph, value, graph.outputs[index], graph.output_names[index])
    return _tied(graph, pairs, starts)


def _tied(graph: Graph, pairs: Mapping[Value, int], starts: Mapping[str, Any]) -> Graph:
    kept_inputs = [i for i, value in enumerate(graph.inputs) if value not in pairs]
    kept_outputs = [i for i in range(len(graph.outputs)) if i not in pairs.values()]
    new = empty_copy(graph)
    new.input_streaming_dims = _chosen(graph.input_streaming_dims, kept_inputs)
    new.output_streaming_dims = _chosen(graph.output_streaming_dims, kept_outputs)
    new.output_latencies = _chosen(graph.output_latencies, kept_outputs)
    new.output_tails = _chosen(graph.output_tails, kept_outputs)
    env: dict[Value, Value] = {}
    made: dict[Value, State] = {}
    for value in graph.inputs:
        if value not in pairs:
            env[value] = new.add_input(value.type, value.name, value.role)
    for state in graph.states:
        env[state.value] = new.copy_state(state)
    for value in pairs:
        made[value] = new.add_state(_start(value, starts), value.name, StateKind.TIED)
        env[value] = made[value].value
    for node in graph.nodes:
        env.update(zip(node.results, copy_node(new, node, [env[v] for v in node.operands]), strict=True))
    for state, copy in zip(graph.states, new.states, strict=False):
        copy.next = env[state.next] if state.next is not None else None
    for value, index in pairs.items():
        made[value].next = env[graph.outputs[index]]
    for index in kept_outputs:
        new.add_output(env[graph.outputs[index]], graph.output_names[index])
    verify(new)
    return new


def _chosen(items: tuple[Any, ...] | None, indices: list[int]) -> tuple[Any, ...] | None:
    return None if items is None else tuple(items[i] for i in indices)


def _input(graph: Graph, name: str) -> Value:
    found = next((v for v in graph.inputs if v.name == name), None)
    if found is None:
        raise _refuse(
            f"there is no input {name!r}", f"the inputs are {_listed(v.name for v in graph.inputs)}"
        )
    if any(s.name == name for s in graph.states):
        raise _refuse(f"the graph has a state {name!r} already", "give the input another name")
    if found.role is not Role.PLAIN:
        raise _refuse(f"the input {name!r} is an elapsed time, which the host checks", "keep it an input")
    return found


def _output(graph: Graph, name: str) -> int:
    count = graph.output_names.count(name)
    if count == 0:
        raise _refuse(f"there is no output {name!r}", f"the outputs are {_listed(graph.output_names)}")
    if count > 1:
        raise _refuse(f"{count} outputs are called {name!r}", "give every output a name of its own")
    return graph.output_names.index(name)


def _check_pair(graph: Graph, value: Value, output: Value, name: str) -> None:
    if output.type != value.type:
        raise _refuse(
            f"the output {name!r} is {output.type} and the input {value.name!r} is {value.type}",
            "tie ports of one shape and one precision",
        )


def _start(value: Value, starts: Mapping[str, Any]) -> Any:
    start = np.asarray(starts.get(value.name, np.zeros(value.shape)))
    if start.dtype.kind not in "fiub" or start.shape != value.shape:
        what = f"the initial value of {value.name!r} is {start.dtype} of shape {start.shape}"
        raise _refuse(what, f"give numbers of shape {value.shape}")
    return start


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"


def _refuse(what: str, remedy: str) -> GraphError:
    return GraphError(what, where="tie", remedy=remedy)
