"""Selection of a scan: one hardware loop around the body, whatever the scan stands for.

Carries have rows of their own, filled before the loop and replaced at the end of each iteration. A scanned operand is
read at a row that advances with the loop's counter; a stacked output is written at one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ltc_compiler import isa
from ltc_compiler.errors import UnsupportedError
from ltc_compiler.ir.graph import Node, Value
from ltc_compiler.ir.ops import axis_of, scan_parts
from ltc_compiler.schedule.rows.layout import View
from ltc_compiler.schedule.rows.virtual import Buffer
from ltc_compiler.schedule.select.coalesce import coalesce
from ltc_compiler.schedule.select.lowering import Lowering
from ltc_compiler.schedule.select.move import drop_axis, permute


def _front(axis: int, rank: int) -> tuple[int, ...]:
    """The permutation that brings an axis to the front."""
    return (axis, *(d for d in range(rank) if d != axis))


def _scanned(low: Lowering, value: Value, axis: int) -> tuple[View, int]:
    """A scanned operand whose steps are whole rows, and the axis to step along."""
    axis = axis_of(value.type.rank, axis)
    array = value.constant()
    if array is not None and axis == value.type.rank - 1:
        moved = np.moveaxis(array, axis, 0)
        return low.build.constant(moved.reshape(*moved.shape, 1) if moved.ndim == 1 else moved), 0
    view = low.values.view(value)
    if axis < value.type.rank - 1:
        return view, axis
    if value.type.rank == 1:
        return low.build.gather(view, (view.width, 1), np.arange(view.width)), 0
    return permute(low.build, view, _front(axis, value.type.rank)), 0


def _slice(view: View, axis: int, level: int, shape: tuple[int, ...]) -> View:
    """The view of the current iteration. The reference may not advance yet: _settled sees to that."""
    step = view.steps[axis]
    if view.ref.level and step:
        raise AssertionError("scanned operands are made dense before the loop")
    current = drop_axis(view, axis)
    ref = replace(current.ref, stride=step, level=level) if step else current.ref
    return replace(current, ref=ref, shape=shape, steps=current.steps[: max(0, len(shape) - 1)])


def _settled(low: Lowering, view: View) -> View:
    """A view at fixed rows: a copy, if it advances with an outer loop."""
    if not view.ref.level:
        return view
    dst = low.build.new(view.shape, uniform=view.uniform)
    low.build.copy(view, dst)
    return dst


def select_scan(low: Lowering, node: Node) -> list[View]:
    """Initialise the carries, loop over the body, hand out the final carries and the stacked outputs."""
    a, body = node.attrs, node.body
    if low.build.schedule.depth >= isa.MAX_LOOP_DEPTH:
        raise UnsupportedError.single(
            f"scans nest deeper than the machine's {isa.MAX_LOOP_DEPTH} hardware loops",
            where=str(node.source),
            rewrite="unroll the innermost one, or merge two of them",
            node="scan",
        )
    inits, scanned, captured = scan_parts(node.operands, a)
    carries = [_carry(low, value) for value in inits]
    sources = [_scanned(low, v, axis) for v, axis in zip(scanned, a["in_axes"], strict=True)]
    sources = [(_settled(low, view), axis) for view, axis in sources]
    stacks = [_stack(low, v, axis) for v, axis in zip(node.results[len(inits) :], a["out_axes"], strict=True)]
    for stack in stacks:
        low.build.schedule.hold(stack.view.ref.buffer)
    outer = [_in_every_lane(low, v) for v in captured]
    with low.values.loop_body():
        level = low.build.schedule.begin_loop(a["trip_count"])
        begin = len(low.build.schedule.ops)
        bound = list(carries)
        for (view, axis), value in zip(sources, body.inputs[len(inits) :], strict=False):
            bound.append(_slice(view, axis, level, value.shape))
        for value, view in zip(body.inputs, bound + outer, strict=True):
            low.values.place(value, view)
        low.select(body)
        _write_stacks(low, body.outputs[len(inits) :], stacks, level)
        _write_carries(low, body.outputs[: len(inits)], carries, begin)
        low.build.schedule.end_loop()
    return [
        *carries,
        *(_unstack(low, stack, v) for stack, v in zip(stacks, node.results[len(inits) :], strict=True)),
    ]


def _in_every_lane(low: Lowering, value: Value) -> View:
    """A captured value; a last axis of 1 is brought to every lane here, not in every iteration."""
    view = low.values.view(value)
    return low.build.uniform(view) if view.width == 1 else view


def _carry(low: Lowering, init: Value) -> View:
    """Rows for a carry, holding its initial value. A last axis of 1 is kept in every lane."""
    view = low.values.view(init)
    dst = low.build.new(init.shape, uniform=view.width == 1)
    low.build.copy(view, dst)
    return dst


def _write_carries(low: Lowering, outputs: list[Value], carries: list[View], begin: int) -> None:
    """All new values are read before any carry is replaced."""
    new = [low.values.view(v) for v in outputs]
    buffers = {c.ref.buffer for c in carries}
    for i, (view, carry) in enumerate(zip(new, carries, strict=True)):
        if view.ref.buffer in buffers and view != carry:
            saved = low.build.new(view.shape, uniform=view.uniform)
            low.build.copy(view, saved)
            new[i] = saved
    for i, carry in enumerate(carries):
        view = new[i]
        if view == carry:
            continue
        if coalesce(low.build.schedule, view, carry, begin):
            new = [_moved(v, view.ref.buffer, carry.ref.buffer) for v in new]
        else:
            low.build.copy(view, carry)


def _moved(view: View, old: Buffer, new: Buffer) -> View:
    """The view, if it lies in `old`, in the rows that took its place."""
    return replace(view, ref=replace(view.ref, buffer=new)) if view.ref.buffer is old else view


@dataclass(frozen=True)
class Stack:
    """Rows for a stacked output. `steps_in_front`: it has the steps first, though the value has them last."""

    view: View
    axis: int
    steps_in_front: bool


def _stack(low: Lowering, value: Value, axis: int) -> Stack:
    axis = axis_of(value.type.rank, axis)
    if axis < value.type.rank - 1:
        return Stack(low.build.new(value.shape, uniform=value.shape[-1] == 1), axis, steps_in_front=False)
    moved = value.shape[axis:] + value.shape[:axis]
    shape = moved if len(moved) > 1 else (*moved, 1)
    return Stack(low.build.new(shape, uniform=shape[-1] == 1), 0, steps_in_front=True)


def _write_stacks(low: Lowering, outputs: list[Value], stacks: list[Stack], level: int) -> None:
    for value, stack in zip(outputs, stacks, strict=True):
        current = drop_axis(stack.view, stack.axis)
        ref = replace(current.ref, stride=stack.view.steps[stack.axis], level=level)
        steps = current.steps[: max(0, len(value.shape) - 1)]
        low.build.copy(low.values.view(value), replace(current, ref=ref, shape=value.shape, steps=steps))


def _unstack(low: Lowering, stack: Stack, value: Value) -> View:
    if not stack.steps_in_front:
        return stack.view
    if value.type.rank == 1:
        return low.build.gather(stack.view, value.shape, np.arange(value.shape[0]))
    return permute(low.build, stack.view, (*range(1, value.type.rank), 0))
