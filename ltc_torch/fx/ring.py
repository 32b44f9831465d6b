"""Causal attention as a scan along the sequence: a ring buffer holds the keys and values that may still be looked at.

A causal mask lets position i see all positions up to its own, a windowed one the last W of them. Each step writes its
key and value at the place of the oldest, and attends to what is there. So one form serves the whole sequence and a
stream, and gives both the same bits; a stream that runs on past the recorded length sees the last W positions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Type, Value

from .emit import Emitter


def window_of(c: Emitter, length: int, is_causal: bool, attn_mask: Any) -> int | None:
    """How many positions, its own the last, each position sees; None where the mask is no causal band."""
    if is_causal and attn_mask is None:
        return length
    mask = None if is_causal or attn_mask is None else c.value(attn_mask).constant()
    if mask is None or mask.shape[-2:] != (length, length) or mask.size != length * length:
        return None
    mask = mask.reshape(length, length)
    allowed = mask != 0 if c.is_mask(attn_mask) else mask == 0
    if not (c.is_mask(attn_mask) or np.isneginf(mask[~allowed]).all()):
        return None
    seen = int(allowed[-1].sum())
    return seen if bool((allowed == band(length, seen)).all()) else None


def band(length: int, window: int) -> Array:
    """1 where position i, down, sees position j, across: i - window < j <= i."""
    ones: Array = np.ones((length, length))
    return np.tril(ones) - np.tril(ones, -window)


def ring_attention(c: Emitter, query: Value, key: Value, value: Value, window: int) -> Value:
    """Attention to the last `window` positions.

    query, which is scaled already, and key (..., L, D), value (..., L, E) -> (..., L, E).
    """
    *lead, length, features = key.shape
    axis = len(lead)
    starts = [
        c.value(np.zeros((*lead, features, window))),
        c.value(np.zeros((*lead, window, value.shape[-1]))),
        c.value(0.0),
        c.value(0.0),
    ]
    b = c.body(Graph("attention"))
    names = ("keys", "values", "place", "seen")
    keys, values, place, seen = (b.graph.add_input(s.type, n) for s, n in zip(starts, names, strict=True))
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
    scores = b.add("select", b.add("lt", slots, seen), scores, -math.inf)
    top = b.add("amax", scores, axis=axis, keepdims=True)
    powers = b.add("exp", b.add("sub", scores, top))
    total = b.add("sum", powers, axis=axis, keepdims=True)
    weights = b.add("mul", powers, b.add("reciprocal", total))
    y = b.add("sum", b.add("mul", b.unsqueeze(weights, -1), values), axis=axis, keepdims=False)
    for result, name in ((keys, "keys"), (values, "values"), (place, "place"), (seen, "seen"), (y, "y")):
        b.graph.add_output(result, name)
    attrs = {"carries": 4, "scanned": 3, "trip_count": length, "in_axes": (axis,) * 3, "out_axes": (axis,)}
    return c.add_many("scan", [*starts, query, key, value], body=b.graph, **attrs)[4]
