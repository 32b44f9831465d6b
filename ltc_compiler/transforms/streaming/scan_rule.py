"""The streaming rule of scan, in its two forms.

A scan along the streamed axis becomes its body, with the carries as states. In the steps before its first input is
there (t < off) the states keep their initial values. An initial carry that an input of the graph gives is read in the
first step with an input, and only then; that input remains one of every step. Any other scan runs in full within each
step, and its body is streamed by the same rules, along the axis on which each input of the body streams.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltc_compiler.ir.graph import Graph, Node, State, Type
from ltc_compiler.ir.ops import add, scan_parts
from ltc_compiler.transforms.scans import inline
from ltc_compiler.transforms.streaming.delays import Memory
from ltc_compiler.transforms.streaming.streamer import (
    Begin,
    Current,
    First,
    Kind,
    Static,
    Stream,
    Streamer,
    longer,
    refusal,
)

TO_ALL = "attention to all"  # the body of causal attention whose context is the example's length for want of another


def scan(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    first, scanned, captured = scan_parts(kinds, node.attrs)
    along = [
        isinstance(k, Stream) and k.axis == a for k, a in zip(scanned, node.attrs["in_axes"], strict=True)
    ]
    aside = [isinstance(k, Stream) and not yes for k, yes in zip(scanned, along, strict=True)]
    if s.steps == node.attrs["trip_count"] == 1 and any(aside):
        raise refusal(node, "a loop of one iteration, in an example of one step: it may run along the sequence or along"
                      " another axis", longer(s, 2))  # fmt: skip
    if not any(along):
        return _scan_within(s, node, kinds)
    if node.body.name == TO_ALL:
        raise refusal(node, "attention to all earlier positions, of which a stream can keep a fixed number",
                      f"give the number: to_nnir(traced, context={s.steps}), or a mask of the last positions in an"
                      " example that is longer than what the mask shows")  # fmt: skip
    others = [k for k, yes in zip(scanned, along, strict=True) if not yes]
    if any(isinstance(k, Stream) for k in (*others, *captured)):
        raise refusal(node, "a scan along the streamed axis reads another stream whole",
                      "scan that one too, so that each step sees its own slice")  # fmt: skip
    for i, kind in enumerate(first):
        if not isinstance(kind, Static | First | Begin):
            raise refusal(node, f"the initial carry {i} is computed from the sequence that streams",
                          "start from a constant or from an input that does not stream")  # fmt: skip
    if s.memory is None:
        raise refusal(node, "a scan along the streamed axis stands inside a scan that runs within each step",
                      "exchange the two loops")  # fmt: skip
    return _scan_along(s, s.memory, node, kinds)


def _scan_along(s: Streamer, memory: Memory, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    """The body, once, with its carries as states."""
    first, scanned, captured = scan_parts(kinds, node.attrs)
    off, length = s.ready(kinds, node)
    states: list[State | None] = []
    inputs = []
    for kind, value in zip(first, node.body.inputs, strict=False):
        if isinstance(kind, Begin):
            if off > 0 or length < s.steps:
                raise refusal(node, f"starts from {kind.names} and does not run along the whole sequence",
                              "let every sequence start anew (module_state='reset')")  # fmt: skip
            states.append(None)
            inputs.append(kind.value)
            continue
        initial = kind.value.constant()
        known = np.zeros(value.shape) if initial is None else initial
        made = memory.add_state(known, ".".join(filter(None, (node.source.module, value.name or "carry"))))
        states.append(made)
        inputs.append(made.value)
        if initial is None:
            begun = memory.after(off + 1, node.source)
            inputs[-1] = add(s.graph, "select", begun, inputs[-1], kind.value, source=node.source)
    for kind, axis in zip(scanned, node.attrs["in_axes"], strict=True):
        at = kind if isinstance(kind, Stream) else s.along(kind.value, axis, node)
        inputs.append(s.delay(at, off, node) if isinstance(at, Stream) else at)
    outputs = inline(s.graph, node.body, [*inputs, *(k.value for k in captured)])
    count = len(states)
    for state, new in zip(states, outputs[:count], strict=True):
        if state is None:
            continue
        state.next = new
        if off > 0:
            warm = memory.after(off, node.source)
            state.next = add(s.graph, "select", warm, new, state.value, source=node.source)
    s.carried += [
        (v, r) for v, r, state in zip(node.operands, node.results, states, strict=False) if state is None
    ]
    results: list[Kind] = []
    for old, new in zip(node.results[:count], outputs[:count], strict=True):
        results.append(Current(s.current(Stream(new, 0, off, length), node) if old in s.used else new))
    stacked = zip(outputs[count:], node.attrs["out_axes"], strict=True)
    return [*results, *(Stream(v, axis, off, length) for v, axis in stacked)]


def _scan_within(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    """A scan that runs in full within each step: its body streams, with the axes that its inputs have there."""
    begin = next((k for k in kinds if isinstance(k, Begin)), None)
    if begin is not None:
        raise refusal(node, f"starts from {begin.names} in every step", "start a loop over time from it")
    length = s.ready(kinds, node)[1]
    carries, scanned = node.attrs["carries"], node.attrs["scanned"]
    in_axes: list[int] = list(node.attrs["in_axes"])
    operands = [k if isinstance(k, Stream) else k.value for k in kinds]
    axes: list[int | None] = [k.axis if isinstance(k, Stream) else None for k in kinds]
    for i in range(scanned):
        axis = axes[carries + i]
        if axis is not None:
            axes[carries + i] = axis - (axis > in_axes[i])
            in_axes[i] -= axis < in_axes[i]
    while True:
        outputs = _stream_body(s, node, axes, length, strict=False)[1]
        found = [k.axis if isinstance(k, Stream) else None for k in outputs]
        late = [i for i in range(carries) if axes[i] is None and found[i] is not None]
        if not late:
            break
        for i in late:  # this carry streams from its first update on: let it start so
            axis = found[i]
            assert axis is not None
            start = operands[i]
            assert not isinstance(start, Stream)
            axes[i], operands[i] = axis, s.without_axis(start, axis, node)
    body = _stream_body(s, node, axes, length)[0]
    out_axes = list(node.attrs["out_axes"])
    results: list[int | None] = []
    for i, axis in enumerate(axes[:carries] + found[carries:]):
        if i >= carries and axis is not None:
            at = out_axes[i - carries]
            out_axes[i - carries] = at - (axis < at)
            axis += axis >= at
        results.append(axis)
    return s.apply(node, operands, results, body=body, in_axes=tuple(in_axes), out_axes=tuple(out_axes))


def _stream_body(
    s: Streamer, node: Node, axes: Sequence[int | None], length: int, strict: bool = True
) -> tuple[Graph, list[Kind]]:
    """The body for inputs that stream on `axes`, and the kinds of its outputs. Carries come out as they went in."""
    body = Graph(node.body.name)
    inner = Streamer(body, length, None, s.rules, strict=strict and s.strict)
    for value, axis in zip(node.body.inputs, axes, strict=True):
        shape = value.shape if axis is None else value.shape[:axis] + value.shape[axis + 1 :]
        made = body.add_input(Type(shape, value.type.precision), value.name, value.role)
        inner.env[value] = Static(made) if axis is None else Stream(made, axis, 0, length)
    inner.run(node.body)
    kinds: list[Kind] = []
    for i, value in enumerate(node.body.outputs):
        kind, carried = inner.env[value], axes[i] if i < node.attrs["carries"] else None
        if carried is not None and isinstance(kind, Static):
            kind = Stream(inner.without_axis(kind.value, carried, node), carried, 0, length)
        if carried is not None and isinstance(kind, Stream) and kind.axis != carried:
            raise refusal(node, f"carry {i} streams on axis {carried} before an iteration and on {kind.axis} after it",
                          "keep the axes of a carry in place")  # fmt: skip
        kinds.append(kind)
        body.add_output(kind.value)
    return body, kinds
