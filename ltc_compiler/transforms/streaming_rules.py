"""The streaming rule of every op but scan: one function a rule, by the names in the op table.

A rule sees a node and the kinds of its operands, of which at least one streams and none is Current. It appends the
step form of the node, and returns the kinds of its results. Rules that compute bring their streams to one offset of
at least 0; rules that only move elements keep a negative one, with its history, so that a causal window costs no
latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ..ir.graph import Array, Node, Value
from ..ir.ops import add
from .fold import evaluate_node, uniform
from .streamer import Current, First, Kind, Stream, Streamer, refusal


def pointwise(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    off, length = s.ready(kinds, node)
    from_right = {len(k.whole) - k.axis for k in kinds if isinstance(k, Stream)}
    if len(from_right) > 1:
        raise refusal(
            node,
            "operands stream on different axes",
            "permute one of them, so that the axes coincide; attention streams if it is causal or sees a window:"
            " scaled_dot_product_attention(q, k, v, is_causal=True), or a mask of the last positions",
        )
    back = from_right.pop()
    axis = node.results[0].type.rank - back
    if node.results[0].shape[axis] != length:
        raise refusal(node, "the streamed axis is repeated", "stream a sequence of more than one step")
    operands = [
        s.delay(k, off, node)
        if isinstance(k, Stream)
        else s.without_axis(k.value, k.value.type.rank - back, node)
        for k in kinds
    ]
    return [Stream(s.emit(node, operands)[0], axis, off, length)]


def linear(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x, *parameters = kinds
    if not isinstance(x, Stream) or any(isinstance(k, Stream) for k in parameters):
        raise refusal(node, "its weights stream", "multiply and sum instead: the machine keeps its weights")
    if x.axis == len(x.whole) - 1:
        raise refusal(node, "the product sums over the streamed axis, which needs the whole sequence",
                      "use a causal convolution or a recurrent state")  # fmt: skip
    off, length = s.ready([x], node)
    results = s.emit(node, [s.delay(x, off, node), *(k.value for k in parameters)])
    return [Stream(v, x.axis, off, length) for v in results]


def reduce(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x = _only(kinds)
    axis, keep = node.attrs["axis"], node.attrs["keepdims"]
    if axis == x.axis:
        raise refusal(node, f"reduces over all {x.length} elements of the streamed axis",
                      "use a causal form: a running state, a causal convolution or a window")  # fmt: skip
    off, length = s.ready([x], node)
    made = s.emit(node, [s.delay(x, off, node)], axis=axis - (x.axis < axis))[0]
    return [Stream(made, x.axis - (axis < x.axis and not keep), off, length)]


def _only(kinds: Sequence[Kind]) -> Stream:
    x = kinds[0]
    assert isinstance(x, Stream)
    return x


def _moved(
    s: Streamer, node: Node, x: Stream, axis: int, attrs: dict[str, Any], whole: dict[str, Any]
) -> list[Kind]:
    """A layout op: `attrs` for the step value, `whole` for the history; the streamed axis is at `axis` after it."""
    history = x.history
    if history is not None:
        old = Node(node.op, (), {**node.attrs, **whole}, ())
        history = evaluate_node(old, [history])[0]
    return [Stream(s.emit(node, [x.value], **attrs)[0], axis, x.off, x.length, history)]


def reshape(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x = _only(kinds)
    shape: tuple[int, ...] = node.attrs["shape"]
    lead = prod(x.whole[: x.axis])
    places = [i for i, d in enumerate(shape) if d == x.length and prod(shape[:i]) == lead]
    if not places:
        lost = (
            f"selects a fixed step: {x.whole} loses"
            if x.length == 1
            else f"{x.whole} to {shape} merges or splits"
        )
        raise refusal(
            node, f"{lost} the streamed axis", "keep the streamed axis a dimension of its own (batch 1, say)"
        )
    axis = min(places, key=lambda i: abs(i - x.axis))
    known = 0 if x.history is None else x.history.shape[x.axis]
    step = shape[:axis] + shape[axis + 1 :]
    return _moved(s, node, x, axis, {"shape": step}, {"shape": (*shape[:axis], known, *shape[axis + 1 :])})


def permute(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x = _only(kinds)
    dims: tuple[int, ...] = node.attrs["dims"]
    step = tuple(d - (d > x.axis) for d in dims if d != x.axis)
    return _moved(s, node, x, dims.index(x.axis), {"dims": step}, {})


def broadcast(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x = _only(kinds)
    shape: tuple[int, ...] = node.attrs["shape"]
    axis = x.axis + len(shape) - len(x.whole)
    if shape[axis] != x.length:
        raise refusal(node, "the streamed axis is repeated", "stream a sequence of more than one step")
    known = 0 if x.history is None else x.history.shape[x.axis]
    step = shape[:axis] + shape[axis + 1 :]
    return _moved(s, node, x, axis, {"shape": step}, {"shape": (*shape[:axis], known, *shape[axis + 1 :])})


def slice_(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x = _only(kinds)
    axis, start, stop, step = (node.attrs[k] for k in ("axis", "start", "stop", "step"))
    if axis != x.axis:
        return _moved(s, node, x, x.axis, {"axis": axis - (x.axis < axis)}, {})
    if s.memory is None:
        raise refusal(node, "slices the streamed axis inside a scan that runs within each step",
                      "take the slices along the streamed axis before the scan")  # fmt: skip
    count = -(-(stop - start) // step)
    if count == 1 and x.length > 1:
        if start == x.off == 0:
            value = s.memory.first(x.value, node.source)
            return [First(add(s.graph, "reshape", value, shape=node.results[0].shape, source=node.source))]
        if start != x.length - 1:
            raise refusal(node, f"selects the fixed step {start} of {x.length}",
                          "only the first, 0, and the last one, -1, are in a stream: in a loop over time "
                          "let all turns do the same, and pass what differs between them as an input that "
                          "streams, or write it with ltc_torch.nn.Scan; what runs backwards (a flip, a "
                          "bidirectional layer) needs the whole sequence")  # fmt: skip
        value = s.current(x, node)
        return [Current(add(s.graph, "reshape", value, shape=node.results[0].shape, source=node.source))]
    if step != 1:
        raise refusal(node, f"a step of {step} changes the rate of the stream",
                      "keep every element: a stride of 1, and let the host take the steps it needs")  # fmt: skip
    history = None
    if x.history is not None and start < -x.off:
        history = np.take(x.history, range(start, -x.off), axis)
    return [replace(x, off=x.off + start, length=stop - start, history=history)]


def concat(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    axis = node.attrs["axis"]
    streams = [k for k in kinds if isinstance(k, Stream)]
    if {k.axis for k in streams} == {axis}:
        return [_prefix(s, node, kinds)]
    if axis in {k.axis for k in streams} or len({k.axis for k in streams}) > 1:
        raise refusal(node, "operands stream on different axes", "permute them, so that the axes coincide")
    off, length = s.ready(kinds, node)
    along = streams[0].axis
    operands = [
        s.delay(k, off, node) if isinstance(k, Stream) else s.without_axis(k.value, along, node)
        for k in kinds
    ]
    return [Stream(s.emit(node, operands, axis=axis - (along < axis))[0], along, off, length)]


def _prefix(s: Streamer, node: Node, kinds: Sequence[Kind]) -> Kind:
    """Concatenation along the streamed axis: constants before the stream are known ahead, those after it come late."""
    position = next(i for i, k in enumerate(kinds) if isinstance(k, Stream))
    x, before, after = kinds[position], kinds[:position], kinds[position + 1 :]
    assert isinstance(x, Stream)
    if any(isinstance(k, Stream) for k in after):
        raise refusal(
            node, "joins two streams end to end", "a stream has no end: put only constants before it"
        )
    if len(before) == 1 and isinstance(before[0], First) and x.off == before[0].value.shape[x.axis] == 1:
        return _begin(s, node, x, before[0])
    arrays = [k.value.constant() for k in before]
    constants = [a for a in arrays if a is not None]
    if len(constants) < len(arrays):
        raise refusal(
            node, "what stands before the stream is no constant", "put constants before it: padding, say"
        )
    if s.memory is None:
        raise refusal(
            node, "pads the streamed axis inside a scan that runs within each step", "pad before the scan"
        )
    if after:
        x = _ended(s, node, x, after)
    if not constants:
        return x
    prefix = np.concatenate(constants, x.axis)
    count = prefix.shape[x.axis]
    if x.off <= 0:
        known = prefix if x.history is None else np.concatenate([prefix, x.history], x.axis)
        return Stream(x.value, x.axis, x.off - count, count + x.length, known)
    value = _inject(s, node, x, prefix)
    history = np.take(prefix, range(count - x.off), x.axis) if count > x.off else None
    return Stream(value, x.axis, x.off - count, count + x.length, history)


def _ended(s: Streamer, node: Node, x: Stream, after: Sequence[Kind]) -> Stream:
    """`x` with constants behind its end, which nobody knows before the end marker says so."""
    assert s.memory is not None
    arrays = [k.value.constant() for k in after]
    constants = [a for a in arrays if a is not None]
    if len(constants) < len(arrays):
        raise refusal(
            node, "what stands behind the stream is no constant", "put constants behind it: zeros, say"
        )
    padding = np.concatenate(constants, x.axis)
    longer = x.length - s.steps
    off = max(x.off, -longer)  # where x ends before the sequence, its end is not known any earlier
    value = s.delay(x, off, node)
    steps = [np.take(padding, j, x.axis) for j in range(padding.shape[x.axis])]
    for j, step in enumerate(steps):
        if j == 0 or step.tobytes() != steps[j - 1].tobytes():
            ended = s.memory.ended(longer + off + j, node.source)
            padded = s.graph.constant(step, source=node.source)
            value = add(s.graph, "select", ended, padded, value, source=node.source)
    history = None if x.history is None or off >= 0 else np.take(x.history, range(-off), x.axis)
    return Stream(value, x.axis, off, x.length + len(steps), history)


def _begin(s: Streamer, node: Node, x: Stream, first: First) -> Kind:
    """`x`, which is there from the second step on, behind what the first step gave."""
    assert s.memory is not None
    begun = s.memory.after(1, node.source)
    start = s.without_axis(first.value, x.axis, node)
    value = add(s.graph, "select", begun, x.value, start, source=node.source)
    return Stream(value, x.axis, 0, x.length + 1)


def _inject(s: Streamer, node: Node, x: Stream, prefix: Array) -> Value:
    """`x` with the end of `prefix` in the first `off` steps, in which nothing of it is there yet."""
    assert s.memory is not None
    count = prefix.shape[x.axis]
    warm = s.memory.after(x.off, node.source)
    if uniform(prefix, x.axis):
        padding = s.graph.constant(np.take(prefix, 0, x.axis), source=node.source)
    else:
        initial = [np.take(prefix, count - j, x.axis) if j <= count else None for j in range(1, x.off + 1)]
        padding = s.memory.delayed(x.value, initial)
    return add(s.graph, "select", warm, x.value, padding, source=node.source)
