"""nn.MultiheadAttention in torch operations: projections, heads, softmax, and the weights if they are asked for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .record import current
from .registry import rewrite
from .sources import refuse


@rewrite("torch.nn.modules.activation.MultiheadAttention")
def multihead(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """(batch, time, features) or as batch_first says, or (time, features)."""
    recorder = current()
    assert recorder is not None
    if module.bias_k is not None or module.add_zero_attn:
        reason = "MultiheadAttention with add_bias_kv or add_zero_attn"
        raise refuse("MultiheadAttention", recorder.session.module, reason, "leave both at False")
    batched = query.dim() == 3
    inputs = [query, key, value] if batched else [x.unsqueeze(0) for x in (query, key, value)]
    if batched and not module.batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    q, k, v = (_heads(x, *p, module.num_heads) for x, p in zip(inputs, _projections(module), strict=True))
    scores = (q / math.sqrt(q.shape[-1])) @ k.mT
    for mask, shape in (
        (attn_mask, _mask_shape(attn_mask, module.num_heads)),
        (key_padding_mask, (-1, 1, 1, k.shape[2])),
    ):
        if mask is not None:
            mask = mask.reshape(shape)
            scores = scores.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = F.softmax(scores, -1)
    y = (weights @ v).transpose(1, 2).flatten(2)
    y = F.linear(y, module.out_proj.weight, module.out_proj.bias)
    if batched and not module.batch_first:
        y = y.transpose(0, 1)
    shown = (weights.mean(1) if average_attn_weights else weights) if need_weights else None
    if not batched:
        y, shown = y.squeeze(0), None if shown is None else shown.squeeze(0)
    return y, shown


def _projections(module: Any) -> list[tuple[Tensor, Tensor | None]]:
    biases = [None] * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    if module.in_proj_weight is not None:
        return list(zip(module.in_proj_weight.chunk(3), biases, strict=True))
    return list(zip((module.q_proj_weight, module.k_proj_weight, module.v_proj_weight), biases, strict=True))


def _heads(x: Tensor, weight: Tensor, bias: Tensor | None, count: int) -> Tensor:
    """(batch, time, features) -> (batch, heads, time, features of a head)."""
    return F.linear(x, weight, bias).reshape(*x.shape[:2], count, -1).transpose(1, 2)


def _mask_shape(mask: Tensor | None, heads: int) -> tuple[int, ...]:
    if mask is None or mask.dim() == 2:
        return () if mask is None else (1, 1, *mask.shape)
    return (-1, heads, *mask.shape[1:])
