"""Selection for a whole model: its inputs, its nodes, its outputs, and the new values of its states."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ltc_compiler.bytecode import Port
from ltc_compiler.ir.graph import Graph, Precision, Value
from ltc_compiler.schedule.rows.build import UNROLL
from ltc_compiler.schedule.rows.contents import Contents
from ltc_compiler.schedule.rows.layout import View, innermost
from ltc_compiler.schedule.rows.model import LoweredModel
from ltc_compiler.schedule.select.lowering import Lowering
from ltc_compiler.schedule.select.select import SELECTORS
from ltc_compiler.schedule.select.states import place_states, write_states
from ltc_compiler.schedule.spread.partition import Spread


def lower(contents: Contents, graph: Graph, name: str, cores: Sequence[int], spread: Spread) -> LoweredModel:
    """Select instructions for a graph on some cores: inputs, nodes, outputs, then the states' new values."""
    low = Lowering(contents, cores, spread, SELECTORS)
    _emit_inputs(low, graph.inputs)
    states = place_states(low, graph)
    low.select(graph)
    _emit_outputs(low, graph)
    write_states(low, graph)
    inputs = [Port(v.name, v.shape, v.role.value, _port_precision(v)) for v in graph.inputs]
    outputs = [
        Port(n, v.shape, "plain", _port_precision(v))
        for n, v in zip(graph.output_names, graph.outputs, strict=True)
    ]
    resident = low.values.resident
    return LoweredModel(name, low.build.schedule, inputs, outputs, states, resident, _streaming(graph))


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
        "block": graph.block if graph.block > 1 else 0,
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
        view = low.build.new(value.shape)
        place = f"input {value.name}"
        low.values.resident.ports[view.ref.buffer] = port, place
        with low.build.schedule.working_on(place, "input"):
            low.build.emit("input", low.build.home, dst=view.ref, rows=view.total_rows, port=port, first=0)
        low.values.place(value, view)


def _emit_outputs(low: Lowering, graph: Graph) -> None:
    for port, (value, name) in enumerate(zip(graph.outputs, graph.output_names, strict=True)):
        with low.build.schedule.working_on(f"output {name}", "output"):
            for first, view in _output_parts(low, value):
                core, rows = view.ref.buffer.core, view.total_rows
                low.build.emit("output", core, src=view.ref, rows=rows, port=port, first=first)


def _output_parts(low: Lowering, value: Value) -> list[tuple[int, View]]:
    """What goes out as it lies: parts from the cores that hold them, else the whole; each with its first row."""
    sharded = low.values.sharded.get(value)
    vectors = prod(value.shape[:-1])
    if sharded is None or vectors > UNROLL:
        return [(0, low.build.dense(low.values.view(value)))]
    parts = []
    across = low.build.rows(value.shape[-1])
    for part in sharded.parts:
        for v, view in enumerate(innermost(low.build.vectors(part.view))):
            parts.append((v * across + part.start, view))
    return parts
