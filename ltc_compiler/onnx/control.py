"""Structured ONNX operators: Scan and Loop (loops.py) become NNIR scans, If the branch that its condition chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.ir.graph import Graph, Type, Value
from ltc_compiler.onnx.call import Call, Results, Tensor, as_value, is_whole
from ltc_compiler.onnx.loops import loop
from ltc_compiler.onnx.scope import Scope, Walker


def _if(walker: Walker, scope: Scope, call: Call) -> Results:
    condition = call.tensor(0)
    if isinstance(condition, Value):
        both = zip(
            *(_branch(walker, scope, call, name) for name in ("then_branch", "else_branch")), strict=True
        )
        return [_chosen(call, condition, a, b) for a, b in both]
    return _branch(walker, scope, call, "then_branch" if condition.reshape(()) else "else_branch")


def _branch(walker: Walker, scope: Scope, call: Call, name: str) -> list[Tensor]:
    branch, before = call.attr(name), len(walker.entries)
    inner = scope.child(call.c)
    walker.subgraph(branch, inner, [])
    if len(walker.entries) > before:
        raise Refused("")  # reported where it arose
    return [inner.read(o.name) for o in branch.output]


def _chosen(call: Call, condition: Value, then: Tensor, other: Tensor) -> Tensor:
    """Both branches are computed, and one is taken."""
    constants = [t for t in (then, other) if isinstance(t, np.ndarray)]
    if (
        len(constants) == 2
        and constants[0].dtype == constants[1].dtype
        and np.array_equal(constants[0], constants[1])
    ):
        return then
    if then.shape != other.shape or condition.type.size != 1:
        raise Refused(f"its condition is computed and its branches have the shapes {then.shape} and {other.shape}",
                      "branches of one shape")  # fmt: skip
    if any(t.dtype.kind in "iu" for t in constants):
        raise Refused("its condition is computed and chooses whole numbers", "branches of floats")
    return call.c.add(
        "select", call.c.reshape(condition, ()), as_value(call.c, then), as_value(call.c, other)
    )


def _scan(walker: Walker, scope: Scope, call: Call) -> Results:
    if call.opset < 9:
        raise Refused("Scan of opset 8", "opset 9 or later")
    body = call.attr("body")
    if any(is_whole(t, walker.wholes) for t in call.inputs):
        raise Refused("it scans or carries whole numbers", "Cast to float before the Scan")
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
    inner, graph, outer = _body(walker, scope, call, body, types)
    outputs = [inner.read_value(o.name) for o in body.output]
    out_axes = _each(call, "scan_output_axes", stacked)
    axes = [_front(a, len(v.shape) + 1) for a, v in zip(out_axes, outputs[carries:], strict=True)]
    results = _emit(
        call.c, graph, outputs, [*values[:carries], *sequences, *outer()], carries, steps, in_axes, axes
    )
    backs = _each(call, "scan_output_directions", stacked)
    flipped = [call.c.flip(y, a) if b else y for y, a, b in zip(results[carries:], axes, backs, strict=True)]
    return [*results[:carries], *flipped]


def _body(
    walker: Walker, scope: Scope, call: Call, body: Any, types: Sequence[Type]
) -> tuple[Scope, Graph, Callable[[], list[Value]]]:
    """Import a body: its scope, its graph, and a function that lists the outer values that it captured.

    types: of the inputs.
    """
    graph = Graph(body.name or call.op.lower())
    inner = scope.child(call.c.inside(graph), boundary=True)
    inputs = [graph.add_input(t, i.name) for t, i in zip(types, body.input, strict=True)]
    walker.subgraph(body, inner, inputs)
    return inner, graph, lambda: list(inner.captured.values())


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


Structured = Callable[[Walker, Scope, Call], Results]
CONVERT: dict[str, Structured] = {"Scan": _scan, "Loop": loop, "If": _if}
