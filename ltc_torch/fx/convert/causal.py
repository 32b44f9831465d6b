"""Finds causal attention, so that it becomes a ring of keys and values: in the masks of scaled_dot_product_attention,
and in products and softmax that a model writes out.

What a mask adds to the scores must be minus infinity above the diagonal and outside of a window, and inside it depend
on the distance alone: zero, ALiBi's slope (Press, Smith, Lewis, 2022) or a learned relative position (Shaw, Uszkoreit,
Vaswani, 2018).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Array, Value
from ltc_compiler.transforms.streaming.scan_rule import TO_ALL
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.convert.ring import ring_attention
from ltc_torch.fx.registry import Refused

_HIDDEN = -1e4  # what models write for minus infinity; e to that is 0 in fp32


def added_by(c: Emitter, length: int, is_causal: bool, attn_mask: Any) -> Array | None:
    """What the arguments of scaled_dot_product_attention add to the scores; None where no constant says."""
    if is_causal:
        return None if attn_mask is not None else np.where(np.tri(length) > 0, 0.0, -math.inf)
    mask = None if attn_mask is None else c.value(attn_mask).constant()
    if mask is None or mask.shape[-2:] != (length, length):
        return None
    return np.where(mask != 0, 0.0, -math.inf) if c.is_mask(attn_mask) else mask


def causal_attention(c: Emitter, query: Value, key: Value, value: Value, added: Array | None) -> Value | None:
    """Attention with `added` (..., L, L) on its scores as a ring, or None where that is no causal band.

    query, scaled, and key (..., L, D), value (..., L, E).
    """
    length = key.shape[-2]
    if added is None or length < 2 or not query.shape[:-1] == key.shape[:-1] == value.shape[:-1]:
        return None
    if added.shape[-2:] != (length, length) or added.ndim > len(key.shape):
        return None
    hidden = added <= _HIDDEN
    window = int((~hidden[..., -1, :]).sum(-1).max())
    distance = np.subtract.outer(np.arange(length), np.arange(length))
    band = (distance >= 0) & (distance < window)
    if window == 0 or not (hidden == ~band).all():
        return None
    bias = added[..., -1, length - 1 - np.arange(window)]  # of the last position, nearest first
    if not (
        np.where(band, bias[..., np.clip(distance, 0, window - 1)], 0.0) == np.where(band, added, 0.0)
    ).all():
        return None
    name = "attention"
    if window == length:
        window, name = _context(c, length, bias)
    bias = bias[..., :window]
    return ring_attention(c, query, key, value, window, bias if bias.any() else None, name)


def _context(c: Emitter, length: int, bias: Array) -> tuple[int, str]:
    """How many positions a mask that shows all of them is to show, and the name of the scan's body."""
    if c.context is None:
        return length, TO_ALL
    if c.context > length and bias.any():
        raise Refused(
            f"context={c.context}, and the example's {length} positions do not tell what is added beyond them",
            f"an example of {c.context} positions or more, or a smaller context",
        )
    return c.context, "attention"


def written_out(c: Emitter, weights: Value, value: Value) -> Value | None:
    """`softmax(query @ key.mT * scale + bias) @ value`, if that is what the weights were made of."""
    scores = c.softmaxes.get(weights)
    found = None if scores is None else _scores(c, scores)
    if found is None:
        return None
    product, scale, added = found
    query, columns = c.products[product]
    length = columns.shape[-1]
    if len(query.shape) != len(columns.shape) or added is None:
        return None
    key = c.permute(columns, (*range(len(columns.shape) - 2), -1, -2))
    if added.shape[-2:] != (length, length):
        added = np.broadcast_to(added, np.broadcast_shapes(added.shape, (length, length)))
    return causal_attention(c, c.add("mul", query, scale), key, value, added)


def _scores(c: Emitter, x: Value) -> tuple[Value, float, Array | None] | None:
    """The product that scores come from, what it is multiplied by, and what is added then."""
    scale, added = 1.0, None
    hidden: list[Array] = []
    while x not in c.products:
        if x.node is None:
            return None
        op, constants = x.node.op, [v.constant() for v in x.node.operands]
        free = [i for i, a in enumerate(constants) if a is None]
        if len(free) != 1:
            return None
        others = [a for a in constants if a is not None]
        if op in ("add", "sub") and (op == "add" or free == [0]):
            more = scale * (others[0] if op == "add" else -others[0])
            added = more if added is None else added + more
        elif op in ("mul", "div") and others[0].size == 1 and (op == "mul" or free == [0]):
            factor = float(others[0].reshape(()))
            scale *= factor if op == "mul" else 1 / factor
        elif op == "select" and free[0] > 0 and (others[1] <= _HIDDEN).all():
            shown = others[0] != 0
            hidden.append(~shown if free[0] == 1 else shown)
        else:
            return None
        x = x.node.operands[free[0]]
    for mask in hidden:
        added = np.where(mask, -math.inf, 0.0 if added is None else added)
    return x, scale, added
