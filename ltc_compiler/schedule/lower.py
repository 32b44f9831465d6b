"""Selection for a whole model: its inputs, its nodes, its outputs, and the new values of its states."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ltc_compiler.bytecode import Port
from ltc_compiler.ir.graph import Graph, Precision, Value
from ltc_compiler.schedule.encode import Lowered
from ltc_compiler.schedule.rows.layout import View, innermost
from ltc_compiler.schedule.rows.lowering import UNROLL, Lowering, Spread
from ltc_compiler.schedule.select.select import lower_graph
from ltc_compiler.schedule.select.states import place_states, write_states


def lower(low: Lowering, graph: Graph, name: str, cores: Sequence[int], spread: Spread) -> Lowered:
    """Select instructions for a graph on some cores: inputs, nodes, outputs, then the states' new values."""
    low.begin_model(cores, spread)
    _emit_inputs(low, graph.inputs)
    states = place_states(low, graph)
    lower_graph(low, graph)
    _emit_outputs(low, graph)
    write_states(low, graph)
    inputs = [Port(v.name, v.shape, v.role.value, _port_precision(v)) for v in graph.inputs]
    outputs = [
        Port(n, v.shape, "plain", _port_precision(v))
        for n, v in zip(graph.output_names, graph.outputs, strict=True)
    ]
    return Lowered(name, low.schedule, inputs, outputs, states, low.resident, _streaming(graph))


def _streaming(graph: Graph) -> dict[str, Any]:
    """What META says of a model's stream; latencies and tails only where there are any."""
    entry: dict[str, Any] = {
        "inputs": list(graph.input_streaming_dims or [None] * len(graph.inputs)),
        "outputs": list(graph.output_streaming_dims or [None] * len(graph.outputs)),
    }
    given = {
        "latencies": list(graph.output_latencies or ()),
        "tails": list(graph.output_tails or ()),
        "counter": graph.step_counter,
        "limit": graph.step_limit,
        "marker": graph.end_marker,
    }
    entry |= {
        key: value for key, value in given.items() if (any(value) if isinstance(value, list) else value)
    }
    return entry


def _port_precision(value: Value) -> str:
    return "bf16" if value.type.precision is Precision.BF16 else "fp32"


def _emit_inputs(low: Lowering, inputs: list[Value]) -> None:
    for port, value in enumerate(inputs):
        view = low.new(value.shape)
        low.schedule.source, low.schedule.operation = f"input {value.name}", "input"
        low.resident.ports[view.ref.buffer] = port, low.schedule.source
        low.schedule.emit("input", low.home, dst=view.ref, rows=view.total_rows, port=port, first=0)
        low.env[value] = view


def _emit_outputs(low: Lowering, graph: Graph) -> None:
    for port, (value, name) in enumerate(zip(graph.outputs, graph.output_names, strict=True)):
        low.schedule.source, low.schedule.operation = f"output {name}", "output"
        for first, view in _output_parts(low, value):
            low.schedule.emit(
                "output", view.ref.buffer.core, src=view.ref, rows=view.total_rows, port=port, first=first
            )


def _output_parts(low: Lowering, value: Value) -> list[tuple[int, View]]:
    """What goes out as it lies: parts from the cores that hold them, else the whole; each with its first row."""
    spread = low.shards.get(value)
    vectors = prod(value.shape[:-1])
    if spread is None or vectors > UNROLL:
        return [(0, low.dense(low.view(value)))]
    parts = []
    across = low.rows(value.shape[-1])
    for part in spread.parts:
        for v, view in enumerate(innermost(low.vectors(part.view))):
            parts.append((v * across + part.start, view))
    return parts
