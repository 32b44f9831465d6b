"""nn.MultiheadAttention in torch operations: projections, heads, softmax, and the weights if they are asked for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ltc_torch.fx.record.active import current
from ltc_torch.fx.record.sources import refuse
from ltc_torch.fx.registry import rewrite


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
    mask = _joined(
        None if attn_mask is None else attn_mask.reshape(_mask_shape(attn_mask, module.num_heads)),
        None if key_padding_mask is None else key_padding_mask.reshape(-1, 1, 1, k.shape[2]),
    )
    y = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
    y = F.linear(y, module.out_proj.weight, module.out_proj.bias)
    if batched and not module.batch_first:
        y = y.transpose(0, 1)
    shown = None
    if need_weights:
        scores = (q / math.sqrt(q.shape[-1])) @ k.mT
        weights = F.softmax(scores if mask is None else scores + _added(mask), -1)
        shown = weights.mean(1) if average_attn_weights else weights
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


def _mask_shape(mask: Tensor, heads: int) -> tuple[int, ...]:
    return (1, 1, *mask.shape) if mask.dim() == 2 else (-1, heads, *mask.shape[1:])


def _joined(mask: Tensor | None, padding: Tensor | None) -> Tensor | None:
    """One mask to add, or of what may be seen; the module's own booleans say what may not."""
    given = [~m if m.dtype == torch.bool else m for m in (mask, padding) if m is not None]
    if len(given) == 2:
        return _added(given[0]) + _added(given[1])
    return given[0] if given else None


def _added(mask: Tensor) -> Tensor:
    """What a mask adds to the scores."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(()).masked_fill(~mask, -math.inf)
