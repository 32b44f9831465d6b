"""The streaming rule of every op but scan: one function per rule, by the names in the op table.

A rule sees a node and the kinds of its operands, of which at least one streams and none is Current. It appends the
step form of the node, and returns the kinds of its results. Rules that compute bring their streams to one offset of
at least 0; rules that only move elements keep a negative one, with its history, so that a causal window costs no
latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from ltc_compiler.ir.graph import Node, Value
from ltc_compiler.ir.ops import add
from ltc_compiler.transforms.streaming.streamer import (
    Current,
    First,
    Kind,
    Static,
    Stream,
    Streamer,
    longer,
    refusal,
)


def pointwise(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    _, length = s.ready(kinds, node)
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
        k if isinstance(k, Stream) else s.along(k.value, k.value.type.rank - back, node) for k in kinds
    ]
    return s.apply(node, operands, axis)


def linear(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x, *parameters = kinds
    weights = [k.value for k in parameters if not isinstance(k, Stream)]
    if not isinstance(x, Stream) or len(weights) < len(parameters):
        raise refusal(
            node,
            "its weights stream, and a linear has constant weights",
            "write the product with mul and sum",
        )
    if x.axis == len(x.whole) - 1:
        raise refusal(node, "the product sums over the streamed axis, which needs the whole sequence",
                      "use a causal convolution or a recurrent state")  # fmt: skip
    return s.apply(node, [x, *weights], x.axis)


def reduce(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x = _only(kinds)
    axis, keep = node.attrs["axis"], node.attrs["keepdims"]
    if axis == x.axis:
        raise refusal(node, f"reduces over all {x.length} elements of the streamed axis",
                      "use a causal form: a running state, a causal convolution or a window")  # fmt: skip
    return s.apply(node, [x], x.axis - (axis < x.axis and not keep), axis=axis - (x.axis < axis))


def _only(kinds: Sequence[Kind]) -> Stream:
    x = kinds[0]
    assert isinstance(x, Stream)
    return x


def reshape(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x = _only(kinds)
    shape: tuple[int, ...] = node.attrs["shape"]
    lead = prod(x.whole[: x.axis])
    places = [i for i, d in enumerate(shape) if d == x.length and prod(shape[:i]) == lead]
    if x.length == 1 and len(places) > 1:
        raise refusal(node, f"{x.whole} to {shape}: in an example of one step any axis of one element may be the"
                      " streamed one", longer(s, 2))  # fmt: skip
    if not places:
        lost = (
            f"selects a fixed step: {x.whole} loses"
            if x.length == 1
            else f"{x.whole} to {shape} merges or splits"
        )
        raise refusal(
            node,
            f"{lost} the streamed axis",
            "keep the streamed axis a dimension of its own, as in (1, time, features)",
        )
    axis = min(places, key=lambda i: abs(i - x.axis))
    return s.apply(node, [x], axis, shape=shape[:axis] + shape[axis + 1 :])


def permute(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x = _only(kinds)
    dims: tuple[int, ...] = node.attrs["dims"]
    step = tuple(d - (d > x.axis) for d in dims if d != x.axis)
    return s.apply(node, [x], dims.index(x.axis), dims=step)


def broadcast(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x = _only(kinds)
    shape: tuple[int, ...] = node.attrs["shape"]
    axis = x.axis + len(shape) - len(x.whole)
    if shape[axis] != x.length:
        raise refusal(node, "the streamed axis is repeated", "stream a sequence of more than one step")
    return s.apply(node, [x], axis, shape=shape[:axis] + shape[axis + 1 :])


def slice_(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    x = _only(kinds)
    axis, start, stop, step = (node.attrs[k] for k in ("axis", "start", "stop", "step"))
    if axis != x.axis:
        return s.apply(node, [x], x.axis, axis=axis - (x.axis < axis))
    if s.memory is None:
        raise refusal(node, "slices the streamed axis inside a scan that runs within each step",
                      "take the slices along the streamed axis before the scan")  # fmt: skip
    count = -(-(stop - start) // step)
    if count == 1 and s.steps == 1:
        raise refusal(node, "an example of one step does not tell one element of the sequence from all of them",
                      longer(s, 2))  # fmt: skip
    known = x.history[start].constant() if count == 1 and start < len(x.history) else None
    if known is not None:
        return [Static(s.graph.constant(np.expand_dims(known, axis), source=node.source))]
    if count == 1 and x.length > 1:
        if start == 0 and x.off <= 0:
            value = s.memory.first(s.delay(x, 0, node), node.source)
            return [First(add(s.graph, "reshape", value, shape=node.results[0].shape, source=node.source))]
        if start != x.length - 1:
            raise refusal(node, f"selects the fixed step {start} of {x.length}",
                          "a stream has a first step (index 0) and a last one (-1), and no others by number. In a "
                          "loop over time, let all iterations do the same and pass what differs between them as an "
                          "input that streams, or use ltc_torch.nn.Scan. What runs backwards (a flip, a "
                          "bidirectional layer) needs the whole sequence")  # fmt: skip
        value = s.current(x, node)
        return [Current(add(s.graph, "reshape", value, shape=node.results[0].shape, source=node.source))]
    if step != 1:
        raise refusal(node, f"a step of {step} changes the rate of the stream",
                      "use a stride of 1, and let the host take the steps that it needs")  # fmt: skip
    return [replace(x, off=x.off + start, length=stop - start, history=x.history[start:])]


def concat(s: Streamer, node: Node, kinds: Sequence[Kind]) -> list[Kind]:
    axis = node.attrs["axis"]
    streams = [k for k in kinds if isinstance(k, Stream)]
    if {k.axis for k in streams} == {axis}:
        return [_prefix(s, node, kinds)]
    if axis in {k.axis for k in streams} or len({k.axis for k in streams}) > 1:
        raise refusal(node, "operands stream on different axes", "permute them, so that the axes coincide")
    along = streams[0].axis
    operands = [k if isinstance(k, Stream) else s.along(k.value, along, node) for k in kinds]
    return s.apply(node, operands, along, axis=axis - (along < axis))


def _prefix(s: Streamer, node: Node, kinds: Sequence[Kind]) -> Kind:
    """Concatenation along the streamed axis: constants before the stream are known ahead, those after it come late."""
    position = next(i for i, k in enumerate(kinds) if isinstance(k, Stream))
    x, before, after = kinds[position], kinds[:position], kinds[position + 1 :]
    assert isinstance(x, Stream)
    if any(isinstance(k, Stream) for k in after):
        raise refusal(
            node, "joins two streams end to end", "concatenate a stream with constants alone along time"
        )
    if s.memory is None:
        raise refusal(
            node, "pads the streamed axis inside a scan that runs within each step", "pad before the scan"
        )
    if after:
        x = _ended(s, node, x, after)
    if len(before) == 1 and isinstance(before[0], First) and x.off == before[0].value.shape[x.axis] == 1:
        return _begin(s, node, x, before[0])
    arrays = [k.value.constant() for k in before]
    constants = [a for a in arrays if a is not None]
    if len(constants) < len(arrays):
        raise refusal(
            node, "what stands before the stream is no constant", "put constants before it, such as padding"
        )
    if not constants:
        return x
    prefix = np.concatenate(constants, x.axis)
    steps = tuple(s.memory.prologue.known(np.take(prefix, i, x.axis)) for i in range(prefix.shape[x.axis]))
    value = x.value if x.off <= 0 else _inject(s, node, x, steps)
    history = (*steps, *x.history)[: max(0, len(steps) - x.off)]
    return Stream(value, x.axis, x.off - len(steps), len(steps) + x.length, history)


def _ended(s: Streamer, node: Node, x: Stream, after: Sequence[Kind]) -> Stream:
    """`x` with constants behind its end, which nobody knows before the end marker says so."""
    assert s.memory is not None
    arrays = [k.value.constant() for k in after]
    constants = [a for a in arrays if a is not None]
    if len(constants) < len(arrays):
        raise refusal(
            node, "what stands behind the stream is no constant", "put constants behind it, such as zeros"
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
    return Stream(value, x.axis, off, x.length + len(steps), x.history[: max(0, -off)])


def _begin(s: Streamer, node: Node, x: Stream, first: First) -> Kind:
    """`x`, which is there from the second step on, behind what the first step gave."""
    assert s.memory is not None
    begun = s.memory.after(1, node.source)
    start = s.without_axis(first.value, x.axis, node)
    value = add(s.graph, "select", begun, x.value, start, source=node.source)
    return Stream(value, x.axis, 0, x.length + 1)


def _inject(s: Streamer, node: Node, x: Stream, before: Sequence[Value]) -> Value:
    """`x` with the end of what stands before it in the first `off` steps, in which nothing of it is there yet."""
    assert s.memory is not None
    warm = s.memory.after(x.off, node.source)
    array = s.memory.prologue.array(before[-1])
    if array is not None and len(set(before)) == 1:
        padding = s.graph.constant(array, source=node.source)
    else:
        initial = [before[-j] if j <= len(before) else None for j in range(1, x.off + 1)]
        padding = s.memory.delayed(x.value, initial, node.source.module)
    return add(s.graph, "select", warm, x.value, padding, source=node.source)
