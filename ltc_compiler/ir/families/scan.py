"""The structured op: a scan, whose body is a graph. ir/run.py gives its meaning by running the body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ltc_compiler.ir.families.row import Attrs, Op, ShapeError, axis_of
from ltc_compiler.ir.graph import Graph, Type, Value


def scan_parts(values: Sequence[Any], attrs: Attrs) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """A scan's operands (or its body's inputs) split into carries, scanned and captured ones."""
    c, s = attrs["carries"], attrs["scanned"]
    return values[:c], values[c : c + s], values[c + s :]


def _scan(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    body: Graph = attrs["body"]
    carries, scanned, _ = scan_parts(types, attrs)
    count = attrs["trip_count"]
    if count < 1:
        raise ShapeError(f"trip_count is {count}, expected at least 1")
    if min(attrs["carries"], attrs["scanned"]) < 0 or attrs["carries"] + attrs["scanned"] > len(types):
        raise ShapeError(
            f"{attrs['carries']} carries and {attrs['scanned']} scanned operands of {len(types)}"
        )
    if len(attrs["in_axes"]) != attrs["scanned"]:
        raise ShapeError(f"{attrs['scanned']} operands are scanned and in_axes names {len(attrs['in_axes'])}")
    if len(body.outputs) < attrs["carries"]:
        raise ShapeError(
            f"the body returns {len(body.outputs)} values and there are {attrs['carries']} carries"
        )
    if len(body.inputs) != len(types):
        raise ShapeError(f"the body takes {len(body.inputs)} inputs and the scan has {len(types)} operands")
    if body.states:
        raise ShapeError("the body of a scan has states of its own")
    for i, (t, axis) in enumerate(zip(scanned, attrs["in_axes"], strict=True)):
        if t.shape[axis_of(t.rank, axis)] != count:
            raise ShapeError(
                f"scanned operand {i} has shape {t.shape}: axis {axis} is not trip_count = {count}"
            )
    expected = [t.shape for t in types]
    for i, axis in enumerate(attrs["in_axes"]):
        shape = scanned[i].shape
        a = axis_of(len(shape), axis)
        expected[len(carries) + i] = shape[:a] + shape[a + 1 :]
    for value, shape in zip(body.inputs, expected, strict=True):
        if value.shape != shape:
            raise ShapeError(f"body input %{value.name} has shape {value.shape}, expected {shape}")
    for i, (t, value) in enumerate(zip(carries, body.outputs, strict=False)):
        if value.shape != t.shape:
            raise ShapeError(f"carry {i} has shape {t.shape} and the body returns {value.shape}")
    stacked = body.outputs[len(carries) :]
    if len(stacked) != len(attrs["out_axes"]):
        raise ShapeError(
            f"the body has {len(stacked)} stacked outputs and out_axes names {len(attrs['out_axes'])}"
        )
    results = [Type(t.shape) for t in carries]
    for value, axis in zip(stacked, attrs["out_axes"], strict=True):
        a = axis_of(value.type.rank + 1, axis)
        results.append(Type((*value.shape[:a], count, *value.shape[a:])))
    return tuple(results)


def positive_axes(operands: Sequence[Value], attrs: Attrs) -> Attrs:
    """The attributes in_axes and out_axes, counted from the front; none where they do not fit the body."""
    scanned = scan_parts(operands, attrs)[1]
    stacked = attrs["body"].outputs[attrs["carries"] :]
    in_axes = (a + v.type.rank * (a < 0) for v, a in zip(scanned, attrs["in_axes"], strict=False))
    out_axes = (a + (v.type.rank + 1) * (a < 0) for v, a in zip(stacked, attrs["out_axes"], strict=False))
    complete = len(scanned) == len(attrs["in_axes"]) and len(stacked) == len(attrs["out_axes"])
    return {"in_axes": tuple(in_axes), "out_axes": tuple(out_axes)} if complete else {}


ROWS = [
    Op(
        "scan",
        (1, 1 << 16),
        {
            "body": Graph,
            "carries": int,
            "scanned": int,
            "trip_count": int,
            "in_axes": tuple,
            "out_axes": tuple,
        },
        _scan,
        None,
        "scan",
        "operands are initial carries, scanned arrays, captured values; the body maps (carries, slices, captured) "
        "to (carries, outputs), trip_count times; results are the final carries and the stacked outputs",
    ),
]
