"""Thirty and more models that do not compile as they are written, each with a form of it that does.

A case is a line of `forward(self, x)`, with x (2, 6, 4) as (batch, time, features), and the line to write instead. The
names that the lines use stand in NAMES. docs/refusals.md is this table with the messages that the compiler gives.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import ncps.torch
import numpy as np
import torch
import torchdiffeq
from stateful_models import KeptGru
from torch import nn
from torch.nn import functional as F

import ltc_torch.nn

B, T, D = 2, 6, 4


@dataclass(frozen=True)
class Case:
    """stage: "record" (prepare_shape), "convert" (to_nnir), "stream" (streaming_transform along time) or "fit".

    equal: the rewrite computes the same as the line, on the whole sequence.
    """

    stage: str
    line: str
    rewrite: str
    equal: bool = True


def _decay(t: Any, y: Any) -> Any:
    return -y


class _Busy(nn.Module):
    def forward(self, t: Any, y: Any) -> Any:
        return -y

    def callback_step(self, t: Any, y: Any, dt: Any) -> None:
        """Called between the solver's steps."""


torch.manual_seed(11)
_hidden = torch.jit.CompilationUnit("def f(x):\n    return (x > 0).float()\n").f
NAMES: dict[str, Any] = {
    "hidden": _hidden,
    "B": B, "T": T, "D": D, "F": F, "np": np, "math": math, "nn": nn, "torch": torch,
    "odeint": torchdiffeq.odeint, "Scan": ltc_torch.nn.Scan, "times": torch.linspace(0, 1, 5), "decay": _decay,
    "busy": _Busy(), "W": torch.randn(3, T), "V": torch.randn(3, D), "position": torch.randn(T, D),
    "band": torch.ones(T, T).tril().triu(-2) > 0,
    "step": lambda u, h: (h + u, h + u),
}  # fmt: skip
MODULES: dict[str, nn.Module] = {
    "conv": nn.Conv1d(D, 3, 3), "strided": nn.Conv1d(D, 3, 3, stride=2),
    "gru": nn.GRU(D, 3, batch_first=True), "both": nn.GRU(D, 3, bidirectional=True, batch_first=True),
    "ltc": ncps.torch.LTC(D, 3), "cell": nn.GRUCell(D, 3), "norm": nn.LayerNorm(D), "time_norm": nn.LayerNorm((T, D)),
    "batch_norm": nn.BatchNorm1d(D, track_running_stats=False), "kept": nn.BatchNorm1d(D),
    "kept_gru": KeptGru(),
    "large": nn.Linear(D, 70000), "small": nn.Linear(D, 700),
}  # fmt: skip

# What the modules of the table keep from call to call.
KEPT: dict[str, Any] = {
    "n": 0, "rows": [], "first": None, "h": None, "count": torch.zeros(()), "ones": torch.ones(B, T, D),
    "full": deque([torch.zeros(B, T, D)] * 3, maxlen=3), "known": torch.randn(B, T, D),
}  # fmt: skip

CASES = (
    # the recording needs a value
    Case("record", "x * 2 if x.sum() > 0 else x", "torch.where(x.sum() > 0, x * 2, x)"),
    Case("record", "x * x.abs().max().item()", "x * x.abs().max()"),
    Case("record", "x * torch.where(x > 0)[0].numel()", "x * torch.where(x > 0, 1, 0).sum()"),
    Case("record", "x / float(x.std())", "x / x.std()"),
    Case("record", "x[x > 0].sum()", "torch.where(x > 0, x, 0.0).sum()"),
    Case("record", "torch.from_numpy(np.tanh(x.numpy()))", "torch.tanh(x)"),
    Case("record", "torch.tensor([x[0, 0, 0], x[1, 0, 0]])", "torch.stack([x[0, 0, 0], x[1, 0, 0]])"),
    Case("record", "torch.add(x, 1, out=torch.empty(B, T, D))", "torch.add(x, 1)"),
    Case(
        "record", "Scan(lambda u, h: (h, torch.cat([h, u])))(x, x[0])", "Scan(step)(x, x[0])[0]", equal=False
    ),
    Case("record", "x.clone().unsqueeze_(0)", "x.unsqueeze(0)"),
    Case("record", "x[0].clone().fill_diagonal_(0.0)", "torch.where(torch.eye(T, D) > 0, 0.0, x[0])"),
    # solvers and liquid networks
    Case("record", "odeint(decay, x, times)[-1]", "odeint(decay, x, times, method='rk4')[-1]", equal=False),
    Case(
        "record",
        "odeint(decay, x, 6 * times, method='implicit_adams')[-1]",
        "odeint(decay, x, 6 * times, method='explicit_adams', options={'step_size': 0.1, 'max_order': 5})[-1]",
        equal=False,
    ),
    Case(
        "record",
        "odeint(decay, x, times, method='euler', event_fn=lambda t, y: y.sum() - 1)[1][-1]",
        "odeint(decay, x, times, method='euler')[-1]",
        equal=False,
    ),
    Case(
        "record",
        "odeint(lambda t, y: -y if t < 0.5 else y, x, times, method='euler')[-1]",
        "odeint(lambda t, y: torch.where(t < 0.5, -y, y), x, times, method='euler')[-1]",
    ),
    Case(
        "record", "odeint(busy, x, times, method='euler')[-1]", "odeint(decay, x, times, method='euler')[-1]"
    ),
    Case(
        "record",
        "odeint(decay, x, x[0, 0].abs().cumsum(0), method='rk4', options={'step_size': 0.1})[-1]",
        "odeint(decay, x, x[0, 0].abs().cumsum(0), method='rk4')[-1]",
        equal=False,
    ),
    Case(
        "record",
        "self.ltc(x, timespans=x[:, :, 0].abs())[0]",
        "self.ltc(x[:1], timespans=x[:1, :, 0].abs())[0]",
        equal=False,
    ),
    # what a call leaves for the next one
    Case("record", "self.rows.append(x) or sum(self.rows)", "self.full.append(x) or sum(self.full)"),
    Case("record", "setattr(self, 'n', self.n + 1) or x / self.n", "x / self.count.add_(1)"),
    Case(
        "record",
        "setattr(self, 'first', x if self.first is None else self.first) or x - self.first",
        "x - self.known",
        equal=False,
    ),
    Case(
        "record",
        "setattr(self, 'h', torch.tanh(x + (1 if self.h is None else self.h))) or self.h",
        "self.ones.add_(x).tanh_()",
    ),
    Case("record", "x if self.count.add_(1) > 2 else -x", "torch.where(self.count.add_(1) > 2, x, -x)"),
    # operations
    Case("convert", "torch.fft.rfft(x, dim=1).abs()", "x.abs()", equal=False),
    Case("convert", "x.sort(1)[0][:, -1]", "x.amax(1)"),
    Case("convert", "x.topk(1, -1).values", "x.amax(-1, keepdim=True)"),
    Case("convert", "x.gather(2, x.argmax(2, keepdim=True))", "x.amax(2, keepdim=True)"),
    Case("convert", "x + torch.randn(D)", "x + torch.zeros(D)", equal=False),
    Case("convert", "F.dropout(x, 0.5)", "F.dropout(x, 0.5, training=self.training)", equal=False),
    Case("convert", "x.half() * 2", "x * 2", equal=False),
    Case("convert", "x * ((x > 0).to(torch.uint8) * 200)", "x * ((x > 0).float() * 200)"),
    Case("convert", "x * (x.argmax(2, keepdim=True) & 1)", "x * (x.argmax(2, keepdim=True) % 2)"),
    Case("convert", "F.max_pool1d(x.mT, 2, ceil_mode=True)", "F.max_pool1d(x.mT, 2)"),
    Case(
        "convert",
        "F.interpolate(x.mT, scale_factor=2, mode='linear')",
        "F.interpolate(x.mT, scale_factor=2, mode='nearest')",
        equal=False,
    ),
    Case("convert", "self.batch_norm(x.mT)", "self.kept(x.mT)", equal=False),
    Case(
        "convert", "torch.linalg.norm(x, 'nuc', (1, 2))", "torch.linalg.norm(x, 'fro', (1, 2))", equal=False
    ),
    Case("convert", "x.sum(-1, dtype=torch.int64)", "x.sum(-1)", equal=False),
    Case(
        "convert",
        "F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)",
        "F.scaled_dot_product_attention(x, x, x)",
        equal=False,
    ),
    Case("convert", "torch.tanh(x * 1j).imag", "torch.tanh(x)", equal=False),
    Case("convert", "x * 1j", "torch.view_as_real(x * 1j)", equal=False),
    Case("record", "x * hidden(x)", "x * (x > 0)"),
    Case("record", "nn.Parameter(x) * 2", "x * 2"),
    # step by step
    Case(
        "stream",
        "x - x.mean(1, keepdim=True)",
        "x - 0.1 * Scan(step)(x, x.new_zeros(B, D), 1, 1)[0]",
        equal=False,
    ),
    Case("stream", "x * self.count.add_(1)", "self.kept_gru(x)", equal=False),
    Case("stream", "F.softmax(x, 1)", "F.softmax(x, -1)", equal=False),
    Case("stream", "self.both(x)[0]", "self.gru(x)[0]", equal=False),
    Case("stream", "x.flip(1)", "x", equal=False),
    Case("stream", "self.strided(x.mT)", "self.conv(x.mT)", equal=False),
    Case(
        "stream",
        "F.conv_transpose1d(x.mT, torch.ones(D, 2, 2), stride=2)",
        "F.conv_transpose1d(x.mT, torch.ones(D, 4, 1)).mT.unflatten(2, (2, 2))",
        equal=False,
    ),
    Case("stream", "F.linear(x.mT, W)", "F.linear(x, V)", equal=False),
    Case(
        "stream",
        "F.scaled_dot_product_attention(x, x, x)",
        "F.scaled_dot_product_attention(x, x, x, is_causal=True)",
        equal=False,
    ),
    Case(
        "stream",
        "F.scaled_dot_product_attention(x, x, x, is_causal=True)",
        "F.scaled_dot_product_attention(x, x, x, band)",
        equal=False,
    ),
    Case(
        "stream",
        "torch.stack([x[:, : t + 1].sum(1) for t in range(T)], 1)",
        "Scan(step)(x, x.new_zeros(B, D), 1, 1)[0]",
    ),
    Case(
        "stream",
        "torch.stack([(t + 1) * self.cell(x[:, t]) for t in range(T)], 1)",
        "torch.stack([2 * self.cell(x[:, t]) for t in range(T)], 1)",
        equal=False,
    ),
    Case("stream", "self.time_norm(x)", "self.norm(x)", equal=False),
    Case("stream", "x.flatten(1)", "x.flatten(2)", equal=False),
    Case(
        "stream",
        "self.conv(F.pad(x.mT, (1, 1), mode='replicate'))",
        "self.conv(F.pad(x.mT, (1, 1), value=0.5))",
        equal=False,
    ),
    Case("stream", "torch.cat([x, x[:, :1]], 1)", "F.pad(x, (0, 0, 0, 1))", equal=False),
    Case(
        "stream",
        "F.max_pool1d(x.mT, 3, 1, padding=1)[..., -1]",
        "F.max_pool1d(F.pad(x.mT, (2, 0)), 3, 1)[..., -1]",
        equal=False,
    ),
    Case("stream", "x - x[:, -1:]", "x[:, 1:] - x[:, :-1]", equal=False),
    # the machine
    Case("fit", "self.large(x)", "self.small(x)", equal=False),
)
