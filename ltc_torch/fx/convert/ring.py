"""Causal attention as a scan along the sequence: a ring buffer holds the keys and values that may still be looked at.

A causal mask lets position i see all positions up to its own, a windowed one the last W of them. Each step writes its
key and value at the place of the oldest, and attends to what is there. So one form serves the whole sequence and a
stream, and gives both the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Type, Value
from ltc_torch.fx.convert.emit import Emitter


def ring_attention(
    c: Emitter,
    query: Value,
    key: Value,
    value: Value,
    window: int,
    bias: Array | None = None,
    name: str = "attention",
) -> Value:
    """Attention to the last `window` positions.

    query, which is scaled already, and key (..., L, D), value (..., L, E) -> (..., L, E). bias (..., window), broadcast
    over the leading axes: what is added to the score of a position, by how many steps ago it was. It is laid around the
    ring and rotates with it. name: of the scan's body.
    """
    *lead, length, features = key.shape
    axis = len(lead)
    starts = [
        c.value(np.zeros((*lead, features, window))),
        c.value(np.zeros((*lead, window, value.shape[-1]))),
        c.value(0.0),
        c.value(0.0),
    ]
    if bias is not None:
        starts.append(c.value(bias[..., -np.arange(window) % window]))
    b = c.body(Graph(name))
    names = ("keys", "values", "place", "seen", "bias")[: len(starts)]
    keys, values, place, seen, *turning = (
        b.graph.add_input(s.type, n) for s, n in zip(starts, names, strict=True)
    )
    q, k, v = (
        b.graph.add_input(Type((*lead, x.shape[-1])), n)
        for x, n in ((query, "query"), (key, "key"), (value, "value"))
    )
    slots = np.arange(window, dtype=np.float64)
    keys = b.add("select", b.add("eq", slots, place), b.unsqueeze(k, -1), keys)
    values = b.add("select", b.add("eq", slots[:, None], place), b.unsqueeze(v, axis), values)
    seen = b.add("min", b.add("add", seen, 1.0), float(window))
    following = b.add("add", place, 1.0)
    place = b.add("select", b.add("lt", following, float(window)), following, 0.0)
    scores = b.add("sum", b.add("mul", b.unsqueeze(q, -1), keys), axis=axis, keepdims=False)
    if turning:
        scores = b.add("add", scores, turning[0])
        last = len(turning[0].shape) - 1
        if window > 1:
            cut = b.slice(turning[0], last, window - 1, window), b.slice(turning[0], last, 0, window - 1)
            turning[0] = b.concat(cut, last)
    scores = b.add("select", b.add("lt", slots, seen), scores, -math.inf)
    y = _attended(b, scores, values, axis)
    for result, name in zip((keys, values, place, seen, *turning, y), (*names, "y"), strict=True):
        b.graph.add_output(result, name)
    count = len(starts)
    attrs = {
        "carries": count,
        "scanned": 3,
        "trip_count": length,
        "in_axes": (axis,) * 3,
        "out_axes": (axis,),
    }
    return c.add_many("scan", [*starts, query, key, value], body=b.graph, **attrs)[count]


def _attended(b: Emitter, scores: Value, values: Value, axis: int) -> Value:
    """The values, weighted by the softmax of their scores along `axis`."""
    top = b.add("amax", scores, axis=axis, keepdims=True)
    powers = b.add("exp", b.add("sub", scores, top))
    total = b.add("sum", powers, axis=axis, keepdims=True)
    weights = b.add("mul", powers, b.add("reciprocal", total))
    return b.add("sum", b.add("mul", b.unsqueeze(weights, -1), values), axis=axis, keepdims=False)
