"""What an exported step says of its stream: the axis of every port, what is late, and which states count.

One note of the model, in JSON, by the names of ports and states: {"inputs": {name: axis}, "outputs": {name: [axis,
latency, tail]}, "count": state, "end": state}, as ir/graph.py says, and "block": the steps of a run, where there are
several. A graph that is no step has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ltc_compiler.errors import ModelFileError
from ltc_compiler.ir.graph import Graph, State

STREAM = "ltc.stream"


def stream_note(
    graph: Graph, inputs: Sequence[str], outputs: Sequence[str], states: Mapping[str, str]
) -> str | None:
    """The note of a graph whose ports and states have these names in the file; None where there is nothing to say."""
    if graph.output_streaming_dims is None:
        return None
    zeros = (0,) * len(outputs)
    ports = zip(
        outputs,
        graph.output_streaming_dims,
        graph.output_latencies or zeros,
        graph.output_tails or zeros,
        strict=True,
    )
    note: dict[str, Any] = {
        "inputs": dict(zip(inputs, graph.input_streaming_dims or (), strict=True)),
        "outputs": {name: [axis, late, tail] for name, axis, late, tail in ports},
        "count": states.get(graph.step_counter, ""),
        "end": states.get(graph.end_marker, ""),
    }
    return json.dumps(note | ({"block": graph.block} if graph.block > 1 else {}))


def read_stream(model: Any, graph: Graph, states: Mapping[str, State], where: str) -> None:
    """Give a graph what the model's note says. states: by their names in the file.

    Raises ModelFileError for a note that does not fit the graph's ports and states.
    """
    text = next((p.value for p in model.metadata_props if p.key == STREAM), None)
    if text is None:
        return
    try:
        note = json.loads(text)
        axes = tuple(_axis(note["inputs"][v.name]) for v in graph.inputs)
        ports = [note["outputs"][name] for name in graph.output_names]
        block = _whole(note.get("block", 1))
        count, end = (states[note[key]].name if note[key] else "" for key in ("count", "end"))
        graph.output_streaming_dims = tuple(_axis(axis) for axis, _, _ in ports)
        graph.output_latencies = tuple(_whole(late) for _, late, _ in ports)
        graph.output_tails = tuple(_whole(tail) for _, _, tail in ports)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        what = f"its note {STREAM!r} does not fit the model ({type(error).__name__}: {error})"
        raise ModelFileError(
            what, where=where, remedy="export the step again, and keep its metadata"
        ) from None
    graph.input_streaming_dims, graph.step_counter, graph.end_marker, graph.block = axes, count, end, block


def _axis(value: object) -> int | None:
    return None if value is None else _whole(value)


def _whole(value: object) -> int:
    if type(value) is not int or abs(value) >= 1 << 31:
        raise ValueError(f"{value!r} is no number of steps or axis")
    return value
