"""Feed-forward models: layers, pointwise mathematics, layout, norms, convolutions, attention, in-place writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_torch.nn import PaddedConv1d

B, T, D, H = 2, 6, 4, 8


def x(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(shape),)


class Apply(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(D, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
    )


def arithmetic(a: Tensor, b: Tensor) -> Tensor:
    y = (1 - a) * 2 + b / 3 - 0.5 * a**3 + 1.5 / (b.abs() + 2)
    y += torch.exp(-a) * torch.sqrt(b.square() + 1)
    y = y - torch.rsqrt(a * a + 0.5) + torch.log(b**2 + 1) + 2 ** (a * 0.25)
    return torch.where(a > b, y, -y) + torch.maximum(a, b).clamp(-1, 1) - torch.min(a, b) * (a <= 0.1).float()


def activations(a: Tensor) -> Tensor:
    y = (
        F.softmax(a, -1)
        + F.gelu(a)
        + F.gelu(a, approximate="tanh")
        + F.silu(a)
        + F.softplus(a, beta=2)
        + F.elu(a)
    )
    y = y + torch.tanh(a).sigmoid() + F.leaky_relu(a, 0.2) + F.hardtanh(a) + F.logsigmoid(a) + F.relu6(a * 9)
    return y + F.log_softmax(a, 1) + F.hardswish(a) + F.mish(a) + F.selu(a) + F.softsign(a) + F.celu(a, 2.0)


def layout(a: Tensor) -> tuple[Tensor, ...]:
    p, q = a.chunk(2, -1)
    rows = torch.stack([a[:, 0], a[:, -1]], 1).flatten(1)
    cut = a[:, 1:5:2, None, ..., [2, 0, 1]].squeeze(2)
    turned = a.transpose(1, 2).reshape(B, D * T).view(B, T, D).permute(2, 0, 1)
    return (
        torch.cat([p, q * 2], -1),
        rows,
        cut,
        turned.unsqueeze(0).expand(3, -1, -1, -1),
        a.narrow(1, 2, 3).mT,
    )


def more_layout(a: Tensor) -> tuple[Tensor, ...]:
    first, *rest = a.unbind(1)
    y = first.repeat(1, 3) + torch.cat([r.repeat_interleave(3, 1) for r in rest[:1]], -1)
    z = torch.roll(a, (1, -1), (1, 2)).flip(1) + a.index_select(1, torch.tensor([5, 4, 3, 0, 0, 1]))
    return (
        y,
        z,
        a.unfold(1, 3, 1).sum(-1),
        F.pad(a, (1, 2, 3, 0)),
        torch.tril(a),
        torch.split(a, [1, 2, 1], -1)[1].mT,
    )


def reductions(a: Tensor) -> tuple[Tensor, ...]:
    y = a.mean((0, 2)) + a.sum(2).mean(0) + a.amax(2).amin(0) + a.max(-1).values.min(0)[0] + a.std(2).sum(0)
    z = a.var((1, 2), unbiased=False)
    return y, z, a.sum(), a.norm(dim=-1), torch.cumsum(a, 1), a.logsumexp(1), F.normalize(a, dim=2)


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.rms, self.batch = nn.LayerNorm(D), nn.RMSNorm(D), nn.BatchNorm1d(D)
        self.group = nn.GroupNorm(2, D)
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                nn.init.uniform_(tensor, 0.5, 1.5)

    def forward(self, a: Tensor) -> Tensor:
        y: Tensor = self.group(self.batch(self.rms(self.layer(a)).transpose(1, 2)))
        return y


class Convolutions(nn.Module):
    """Causal, dilated, grouped, depthwise; batch norm between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(D, 8, 3), nn.Conv1d(8, 8, 3, dilation=2, groups=2)
        self.c, self.norm = nn.Conv1d(8, 8, 2, groups=8, bias=False), nn.BatchNorm1d(8)

    def forward(self, a: Tensor) -> Tensor:
        y = F.relu(self.norm(self.a(F.pad(a.transpose(1, 2), (2, 0)))))
        y = self.b(F.pad(y, (4, 0)))
        return torch.sigmoid(self.c(F.pad(y, (1, 0)))).transpose(1, 2)


class Strided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(D, 6, 3, stride=2, padding=1), nn.Conv1d(6, 6, 3, padding="same")

    def forward(self, a: Tensor) -> Tensor:
        y = F.max_pool1d(self.b(self.a(a.mT)), 2, 1)
        return F.glu(F.avg_pool1d(y, 2), 1)


class Images(nn.Module):
    """A small classifier of images: strided, grouped and depthwise convolutions, norms, pools."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 6, (3, 2), groups=6), nn.Hardswish(), nn.Conv2d(6, 8, 2, stride=(1, 2), groups=2), nn.SiLU(),
        )  # fmt: skip
        self.pool, self.head = nn.AdaptiveAvgPool2d((1, 2)), nn.Linear(16, 3)

    def forward(self, a: Tensor) -> Tensor:
        y: Tensor = self.head(self.pool(self.features(a)).flatten(1))
        return y


class Attention(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.qkv, self.causal = nn.Linear(D, 3 * D), causal

    def forward(self, a: Tensor) -> Tensor:
        q, k, v = self.qkv(a).chunk(3, -1)
        if self.causal:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.einsum("bts,bsd->btd", F.softmax(q @ k.mT / D**0.5, -1), v)


class InPlace(nn.Module):
    """Writes into views, buffers made inside, a loop that fills its output."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(D, H)

    def forward(self, a: Tensor) -> Tensor:
        a += 1
        a[:, 0] = 0
        a[:, 1:3].mul_(2)
        row = a[:, 3]
        row[:, 1].add_(a[:, 4, 0])
        out = a.new_empty(a.shape[0], T, H)
        for t in range(T):
            out[:, t] = F.relu(self.linear(a[:, t]), inplace=True)
        out[out < 0.1] = 0.25
        return out * row.sum(-1)[:, None, None]


class ManyOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(D, 5), nn.Linear(D, 5)

    def forward(self, u: Tensor, v: Tensor) -> dict[str, Any]:
        p, q = self.a(u), self.b(v)
        return {"sum": p + q, "pair": (p * q, [p - q, u]), "none": None}


class Constants(nn.Module):
    """Constants derived from parameters, matmuls with constants on either side."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.w, self.tau = nn.Parameter(torch.randn(T, T)), nn.Parameter(torch.rand(D))
        self.register_buffer("mask", torch.tril(torch.ones(T, T)) > 0)

    def forward(self, a: Tensor) -> Tensor:
        weights = torch.where(self.mask, self.w, torch.zeros(())) / F.softplus(self.tau).sum()
        return weights @ a @ torch.diag(1 / F.softplus(self.tau)) + torch.arange(T)[:, None] * 0.1


MODELS: dict[str, tuple[Any, ...]] = {
    "mlp": (mlp, x(B, D)),
    "mlp_sequence": (mlp, x(B, T, D), (1,)),
    "arithmetic": (lambda: Apply(arithmetic), lambda: (torch.randn(B, T, D), torch.randn(T, D)), (1, 0)),
    "activations": (lambda: Apply(activations), x(B, T, D)),
    "layout": (lambda: Apply(layout), x(B, T, D)),
    "more_layout": (lambda: Apply(more_layout), x(B, T, D)),
    "reductions": (lambda: Apply(reductions), x(B, T, D)),
    "norms": (Norms, x(B, T, D)),
    "causal_convolutions": (Convolutions, x(B, T, D), (1,)),
    "padded_convolution": (
        lambda: nn.Sequential(PaddedConv1d(D, 6, 3, 2), nn.ReLU(), PaddedConv1d(6, 3, 2)),
        x(B, D, T),
        (2,),
    ),
    "strided_convolutions": (Strided, x(B, 12, D)),
    "images": (Images, x(B, 2, 9, 10)),
    "attention": (lambda: Attention(False), x(B, T, D)),
    "causal_attention": (lambda: Attention(True), x(B, T, D), (1,)),
    "multihead_attention": (lambda: MultiHead(), x(B, T, D)),
    "in_place": (InPlace, x(B, T, D)),
    "many_outputs": (ManyOutputs, lambda: (torch.randn(B, D), torch.randn(B, D))),
    "constants": (Constants, x(B, T, D)),
}


class MultiHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(D, 2, batch_first=True)

    def forward(self, a: Tensor) -> Tensor:
        y: Tensor = self.attention(a, a, a, need_weights=False)[0]
        return y
