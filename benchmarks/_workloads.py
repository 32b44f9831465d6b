"""The models that step_latency.py times: as a user writes them, and as one step with the state as tensors.

`build` gives the user's module. `Step` takes (x, *states) and returns (y, *new states): what exporters and other
runtimes want. Both compute the same; the benchmark compares them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import sine_ltc
import torch
from ncps.torch import LTC, CfC
from ncps.wirings import AutoNCP, FullyConnected
from torch import Tensor, nn
from torch.nn import functional as F

import ltc_compiler
import ltc_torch.fx
from ltc_compiler.program import Program

CONFIG = "v80_c6b32"
SEQUENCE = 32  # steps of a workload that is a sequence


# ---------------------------------------------------------------- as a user writes them


class StackedLSTM(nn.Module):
    """LSTM layers and a linear readout."""

    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)
        self.readout = nn.Linear(hidden, 32)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """x (1, time, hidden) -> (1, time, 32)."""
        y, state = self.lstm(x, state)
        return self.readout(y), state


class CausalLayer(nn.Module):
    """A causal convolution with a ReLU and a residual."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """x (1, channels, time) -> the same."""
        return x + torch.relu(self.conv(F.pad(x, (self.conv.kernel_size[0] - 1, 0))))


class CausalCNN(nn.Sequential):
    """Layers of CausalLayer, on (1, time, channels) as the recurrent models are."""

    def __init__(self, layers: int, channels: int, kernel: int) -> None:
        super().__init__(*(CausalLayer(channels, kernel) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """x (1, time, channels) -> the same."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def mlp() -> nn.Module:
    """256-384-384-128 with ReLU."""
    return nn.Sequential(nn.Linear(256, 384), nn.ReLU(), nn.Linear(384, 384), nn.ReLU(), nn.Linear(384, 128))


# ---------------------------------------------------------------- one step


class Step(nn.Module):
    """(x, *states) -> (y, *new states). `states`: their initial values."""

    def __init__(self, model: nn.Module, states: list[Tensor]) -> None:
        super().__init__()
        self.model = model
        self.initial = states


class StatelessStep(Step):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.model(x),)


class GatedStep(Step):
    """The gated ODE LTC with its Euler steps written out."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        m = self.model
        tau = 0.1 + F.softplus(m.raw_tau)
        h = x.new_zeros(1, m.hidden)
        for _ in range(sine_ltc.EULER_STEPS):
            xh = torch.cat([x, h], -1)
            h = h + (1.0 / sine_ltc.EULER_STEPS) * (-h + m.drive(xh) * torch.sigmoid(m.gate(xh))) / tau
        return (m.readout(h),)


class CellStep(Step):
    """An ncps cell."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        return self.model.rnn_cell(x, h, 1.0)


class LSTMStep(Step):
    """The layers of an nn.LSTM, written out: nn.LSTM packs its weights anew in every call."""

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        lstm, out = self.model.lstm, []
        for n in range(lstm.num_layers):
            h, c = states[2 * n : 2 * n + 2]
            w_x, w_h, b_x, b_h = (
                getattr(lstm, f"{p}_l{n}") for p in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            i, f, g, o = (F.linear(x, w_x, b_x) + F.linear(h, w_h, b_h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            x = torch.sigmoid(o) * torch.tanh(c)
            out += [x, c]
        return self.model.readout(x), *out


class ConvStep(Step):
    """Each layer on its window; the state is all of the window but the newest column."""

    def forward(self, x: Tensor, *windows: Tensor) -> tuple[Tensor, ...]:
        out = []
        for layer, past in zip(self.model, windows, strict=True):
            window = torch.cat([past, x[:, :, None]], 2)
            out.append(window[:, :, 1:])
            x = x + torch.relu(layer.conv(window)[:, :, 0])
        return x, *out


class Unrolled(nn.Module):
    """SEQUENCE steps in one call: x (SEQUENCE, features) -> (y (SEQUENCE, outputs), *states)."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step, self.initial = step, step.initial

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """x (SEQUENCE, features)."""
        outputs = []
        for t in range(SEQUENCE):
            y, *states = self.step(x[t : t + 1], *states)
            outputs.append(y)
        return torch.cat(outputs), *states


# ---------------------------------------------------------------- workloads


class Workload(NamedTuple):
    """A model and how one call of it goes. kind names the step's form; batch rows of `features` are one input."""

    title: str
    kind: str
    build: Callable[[], nn.Module]
    features: int
    batch: int = 1
    sequence: bool = False

    @property
    def recurrent(self) -> bool:
        """Whether the user's module takes a time axis."""
        return self.kind not in ("gated", "mlp")

    @property
    def input_shape(self) -> tuple[int, int]:
        """Of what one call takes."""
        return (SEQUENCE if self.sequence else self.batch, self.features)


def _lstm(layers: int, hidden: int) -> Workload:
    return Workload(f"LSTM, {layers} layers of {hidden}", "lstm", lambda: StackedLSTM(layers, hidden), hidden)


WORKLOADS = {
    "W1": Workload("gated ODE LTC(64), 9 Euler steps", "gated", lambda: sine_ltc.LTC(64), 1),
    "W2": Workload("ncps LTC, AutoNCP(32, 8), 6 unfolds", "ltc", lambda: LTC(20, AutoNCP(32, 8, seed=1)), 20),
    "W2s": Workload(
        f"the same, {SEQUENCE} steps in a call", "ltc", lambda: LTC(20, AutoNCP(32, 8, seed=1)), 20, sequence=True
    ),
    "W3": Workload("ncps LTC, fully connected 128", "ltc", lambda: LTC(8, FullyConnected(128)), 8),
    "W4": Workload("ncps CfC(64)", "cfc", lambda: CfC(20, 64), 20),
    "W5a": _lstm(2, 128),
    "W5b": _lstm(3, 256),
    "W5c": _lstm(3, 480),
    "W5d": _lstm(6, 320),
    "W5e": _lstm(3, 960),
    "W6": Workload("MLP 256-384-384-128", "mlp", mlp, 256),
    "W6b4": Workload("the same, batch 4", "mlp", mlp, 256, batch=4),
    "W6b8": Workload("the same, batch 8", "mlp", mlp, 256, batch=8),
    "W7": Workload("causal CNN, 3 layers of 128, kernel 8", "conv", lambda: CausalCNN(3, 128, 8), 128),
}  # fmt: skip


def step_of(workload: Workload, model: nn.Module) -> nn.Module:
    """One call of the workload with its state as tensors."""
    if workload.kind == "mlp":
        return StatelessStep(model, [])
    if workload.kind == "gated":
        return GatedStep(model, [])
    if workload.kind == "lstm":
        size = 2 * model.lstm.num_layers, 1, model.lstm.hidden_size
        return LSTMStep(model, [*torch.zeros(size)])
    if workload.kind == "conv":
        conv = model[0].conv
        return ConvStep(model, [torch.zeros(1, conv.in_channels, conv.kernel_size[0] - 1) for _ in model])
    step = CellStep(model, [torch.zeros(1, model.state_size)])
    return Unrolled(step) if workload.sequence else step


class OverTime(nn.Module):
    """A recurrent model from its initial state on, outputs alone: what the compiler streams."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """x (1, time, features) -> (1, time, outputs)."""
        y = self.model(x)
        return y[0] if isinstance(y, tuple) else y


def compile_model(workload: Workload, model: nn.Module) -> Program:
    """The program of one step."""
    if workload.recurrent:
        traced, _ = ltc_torch.fx.prepare_shape(OverTime(model).eval(), torch.rand(1, 10, workload.features))
        nnir, _ = ltc_torch.fx.nnir.to_nnir(traced).streaming_transform(1)
    else:
        traced, _ = ltc_torch.fx.prepare_shape(model, torch.rand(workload.batch, workload.features))
        nnir = ltc_torch.fx.nnir.to_nnir(traced)
    return nnir.to_program(ltc_compiler.Config.preset(CONFIG))
