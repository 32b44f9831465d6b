"""Structured ONNX operators: Scan and Loop become NNIR scans, If the branch that its constant condition chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.compose import Composer, Refused
from ..ir.graph import Graph, Type, Value
from .call import Call, Results, Tensor

if TYPE_CHECKING:
    from .importer import Importer, Scope

COUNTER = Refused("it reads the iteration number of a loop", "Scan over the axis that it indexes")


def _if(importer: Importer, scope: Scope, call: Call) -> Results:
    if isinstance(call.tensor(0), Value):
        raise Refused(
            "its condition is computed from an input", "compute both branches and choose with Where"
        )
    chosen = bool(call.array(0, "the condition").reshape(()))
    branch = call.attr("then_branch" if chosen else "else_branch")
    inner = scope.child(call.c)
    importer.subgraph(branch, inner, [])
    return [inner.read(o.name) for o in branch.output]


def _scan(importer: Importer, scope: Scope, call: Call) -> Results:
    if call.opset < 9:
        raise Refused("Scan of opset 8", "opset 9 or later")
    body = call.attr("body")
    scanned = int(call.attr("num_scan_inputs"))
    values = [call.value(i) for i in range(len(call.inputs))]
    carries = len(values) - scanned
    stacked = len(body.output) - carries
    if carries < 0 or scanned < 1 or stacked < 0 or len(body.input) != len(values):
        raise Refused("its body does not fit its inputs and outputs")
    in_axes = [
        _front(a, len(v.shape))
        for a, v in zip(_each(call, "scan_input_axes", scanned), values[carries:], strict=True)
    ]
    sequences = [
        call.c.flip(v, a) if back else v
        for v, a, back in zip(
            values[carries:], in_axes, _each(call, "scan_input_directions", scanned), strict=True
        )
    ]
    steps = sequences[0].shape[in_axes[0]]
    slices = [Type(v.shape[:a] + v.shape[a + 1 :]) for v, a in zip(sequences, in_axes, strict=True)]
    types = [*(v.type for v in values[:carries]), *slices]
    fixed = [False] * carries + [call.c.is_static(v) for v in sequences]
    inner, graph, outer = _body(importer, scope, call, body, types, [], fixed)
    outputs = [inner.read_value(o.name) for o in body.output]
    out_axes = _each(call, "scan_output_axes", stacked)
    axes = [_front(a, len(v.shape) + 1) for a, v in zip(out_axes, outputs[carries:], strict=True)]
    results = _emit(
        call.c, graph, outputs, [*values[:carries], *sequences, *outer()], carries, steps, in_axes, axes
    )
    backs = _each(call, "scan_output_directions", stacked)
    flipped = [call.c.flip(y, a) if b else y for y, a, b in zip(results[carries:], axes, backs, strict=True)]
    return [*results[:carries], *flipped]


def _loop(importer: Importer, scope: Scope, call: Call) -> Results:
    body = call.attr("body")
    if not call.has(0):
        raise Refused("a loop without a trip count", "Scan over the time axis, or a constant trip count")
    steps = int(call.array(0, "the trip count").reshape(()))
    start = call.array(1, "the condition") if call.has(1) else None
    if start is not None and not bool(start.reshape(())):
        raise Refused("a loop that never runs", "leave it out")
    values = [call.value(i) for i in range(2, len(call.inputs))]
    carries = len(values)
    fixed: list[Tensor | Refused] = [COUNTER, np.asarray(True)]
    types = [v.type for v in values]
    inner, graph, outer = _body(importer, scope, call, body, types, fixed, [False] * carries)
    condition = inner.read(body.output[0].name)
    if isinstance(condition, Value) or not bool(np.all(condition)):
        raise Refused(
            "a loop whose end depends on the data", "a constant number of steps and Where for the rest"
        )
    outputs = [inner.read_value(o.name) for o in body.output[1:]]
    axes = [0] * (len(outputs) - carries)
    return _emit(call.c, graph, outputs, [*values, *outer()], carries, steps, [], axes)


def _body(
    importer: Importer, scope: Scope, call: Call, body: Any, types: Sequence[Type], fixed: Sequence[Tensor | Refused],
    static: Sequence[bool],
) -> tuple[Scope, Graph, Callable[[], list[Value]]]:  # fmt: skip
    """Import a body: its scope, its graph, and a function that lists the outer values that it captured.

    types, static: of the inputs after the `fixed` ones, and whether each follows from constants alone.
    """
    graph = Graph(body.name or call.op.lower())
    inner = scope.child(call.c.inside(graph), boundary=True)
    inputs = [graph.add_input(t, i.name) for t, i in zip(types, body.input[len(fixed) :], strict=True)]
    inner.c.static.update(v for v, s in zip(inputs, static, strict=True) if s)
    importer.subgraph(body, inner, [*fixed, *inputs])
    return inner, graph, lambda: inner.captured


def _emit(
    c: Composer, graph: Graph, outputs: Sequence[Value], operands: Sequence[Value], carries: int, steps: int,
    in_axes: Sequence[int], out_axes: Sequence[int],
) -> tuple[Value, ...]:  # fmt: skip
    for value in outputs:
        graph.add_output(value)
    return c.scan(graph, operands, carries, steps, in_axes, out_axes)


def _each(call: Call, name: str, count: int) -> tuple[int, ...]:
    """A list attribute with one number for each of `count`, zero by default."""
    given = call.ints(name, default=[0] * count) or ()
    if len(given) != count:
        raise Refused(f"{name} has {len(given)} entries, expected {count}")
    return given


def _front(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise Refused(f"axis {axis} is out of range for {rank} axes")
    return axis % rank


Structured = Callable[["Importer", "Scope", Call], Results]
CONVERT: dict[str, Structured] = {"Scan": _scan, "Loop": _loop, "If": _if}
