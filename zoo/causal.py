"""Causal models that stream: convolutions of every kind, pooling, norms, gates, running sums, attention, states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_torch.nn import LSTM, LSTMCell, PaddedConv1d, RecurrentStateLSTM, RMSNorm, Scan
from zoo.basic import Apply, B, D, H, T, x


class Tcn(nn.Module):
    """Two residual blocks of dilated convolutions, as in Bai, Kolter and Koltun (2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList(PaddedConv1d(D if i == 0 else 6, 6, 2, 2**i) for i in range(2))
        self.second = nn.ModuleList(PaddedConv1d(6, 6, 2, 2**i) for i in range(2))
        self.skip = nn.Conv1d(D, 6, 1)

    def forward(self, a: Tensor) -> Tensor:
        for i, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            y = F.relu(second(F.relu(first(a))))
            a = F.relu(y + (self.skip(a) if i == 0 else a))
        return a


class WaveNet(nn.Module):
    """Gated units with residual and skip connections, as in van den Oord et al. (2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.ModuleList(PaddedConv1d(D, 2 * D, 2, 2**i) for i in range(3))
        self.mix = nn.ModuleList(nn.Conv1d(D, D, 1) for _ in range(3))
        self.readout = nn.Conv1d(D, 3, 1)

    def forward(self, a: Tensor) -> Tensor:
        skip: Tensor | float = 0.0
        for unit, mix in zip(self.units, self.mix, strict=True):
            value, gate = unit(a).chunk(2, 1)
            y = torch.tanh(value) * torch.sigmoid(gate)
            skip = skip + y
            a = a + mix(y)
        result: Tensor = self.readout(F.relu(skip))  # type: ignore[arg-type]
        return result


def depthwise() -> nn.Module:
    """A convolution for each channel, then one across them: a MobileNet block."""
    return nn.Sequential(
        PaddedConv1d(D, D, 3, groups=D, bias=False), nn.BatchNorm1d(D), nn.Hardswish(), nn.Conv1d(D, 5, 1)
    )


def unpadded() -> nn.Module:
    """Without padding outputs come late: by 2, then by 2 more."""
    return nn.Sequential(nn.Conv1d(D, 6, 3), nn.Tanh(), nn.Conv1d(6, 3, 2, dilation=2, groups=3))


def pooled(a: Tensor) -> Tensor:
    largest = F.max_pool1d(F.pad(a, (2, 0), value=-9.0), 3, 1)
    return largest - F.avg_pool1d(F.pad(a, (1, 0)), 2, 1)


class Block(nn.Module):
    """The feed-forward part of a transformer, in its gated form, with both norms."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.rms = nn.LayerNorm(D), RMSNorm(D, eps=1e-5)
        self.up, self.down = nn.Linear(D, 16), nn.Linear(8, D)

    def forward(self, a: Tensor) -> Tensor:
        a = a + self.down(F.glu(self.up(self.layer(a)), -1))
        y: Tensor = self.rms(a)
        return y * F.softmax(a, -1)


class Windowed(nn.Module):
    """Self-attention of two heads to the last three positions."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(D, 3 * 8), nn.Linear(8, D)
        self.register_buffer("mask", torch.ones(T, T).tril().triu(-2) > 0)

    def forward(self, a: Tensor) -> Tensor:
        heads = self.qkv(a).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        return a + self.out(y.transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """A transformer layer of torch with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)

    def forward(self, a: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(a.shape[1])
        y: Tensor = self.layer(a, src_mask=mask, is_causal=True)
        return y


class CausalHeads(nn.Module):
    """nn.MultiheadAttention with a boolean mask, of which the weights are not used."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, a: Tensor) -> Tensor:
        mask = torch.ones(len(a), len(a), dtype=torch.bool).triu(1)
        y: Tensor = self.attention(a, a, a, attn_mask=mask)[0]
        return y


class StateSpace(nn.Module):
    """A diagonal state-space layer with input-dependent step sizes, as in Mamba (Gu and Dao, 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_a = nn.Parameter(torch.rand(D, 3))
        self.step_size, self.bc = nn.Linear(D, D), nn.Linear(D, 6)
        self.scan = Scan(self.step)

    def step(self, now: tuple[Tensor, ...], h: Tensor) -> tuple[Tensor, Tensor]:
        u, dt, b, c = now
        decay = torch.exp(-dt.unsqueeze(-1) * torch.exp(self.log_a))
        h = decay * h + (dt * u).unsqueeze(-1) * b.unsqueeze(-2)
        return (h * c.unsqueeze(-2)).sum(-1), h

    def forward(self, a: Tensor) -> Tensor:
        b, c = self.bc(a).chunk(2, -1)
        xs = (a, F.softplus(self.step_size(a)), b, c)
        y: Tensor = self.scan(xs, a.new_zeros(a.shape[0], D, 3), 1, 1)[0]
        return y


class Stack(nn.Module):
    """Our LSTM, a cell of ours in a Scan, and the last step alone as the output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.cell = LSTM(D, H, batch_first=True), LSTMCell(H, H)
        self.scan, self.readout = Scan(self.step), nn.Linear(H, 2)

    def step(self, u: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = self.cell(u, state)
        return h, (h, c)

    def forward(self, a: Tensor) -> Tensor:
        y, _ = self.lstm(a)
        zeros = a.new_zeros(a.shape[0], H)
        rows, _ = self.scan(y, (zeros, zeros), 1, 1)
        result: Tensor = self.readout(rows[:, -1])
        return result


def recurrent_state() -> tuple[Tensor, tuple[Tensor, Tensor]]:
    return torch.randn(B, T, D), (torch.randn(2, B, H), torch.randn(2, B, H))


MODELS: dict[str, tuple[Any, ...]] = {
    "tcn": (Tcn, x(B, D, T), (2,)),
    "wavenet": (WaveNet, x(1, D, T), (2,)),
    "depthwise": (depthwise, x(B, D, T), (2,)),
    "unpadded": (unpadded, x(B, D, 9), (2,)),
    "pooling": (lambda: Apply(pooled), x(B, D, T), (2,)),
    "running_sum": (lambda: Apply(lambda a: torch.cumsum(a.abs(), 1) * 0.5 + a), x(B, T, D), (1,)),
    "difference": (lambda: Apply(lambda a: a[:, 1:] - a[:, :-1]), x(B, T, D), (1,)),
    "transformer_block": (Block, x(B, T, D), (1,)),
    "windowed_attention": (Windowed, x(B, T, D), (1,)),
    "transformer_encoder": (Encoder, x(B, T, 8), (1,)),
    "causal_heads": (CausalHeads, x(T, B, 8), (0,)),
    "state_space": (StateSpace, x(B, T, D), (1,)),
    "lstm_stack": (Stack, x(B, T, D), (1,)),
    "recurrent_state_lstm": (lambda: RecurrentStateLSTM(D, H, 2), recurrent_state, (1, None, None)),
}
