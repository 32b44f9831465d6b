"""The models that step_latency.py times, of the zoo: as a user writes them, and as one step with the state as tensors.

`module_of` gives the user's module. `Step` takes (x, *states) and returns (y, *new states): what exporters and other
runtimes want. Both compute the same; the benchmark compares them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import sine_ltc
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ltc_compiler
from ltc_compiler.program import Program
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from zoo import ZOO, ZooModel, build
from zoo.sized import Outputs

CONFIG = "v80_c6b32"
LSTMS = ("lstm", "forecast")  # families that are an nn.LSTM and a readout
SEQUENCE = 32  # steps of a workload that is a sequence


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
    """A model of the zoo, and how one call of it goes: `batch` rows are one input, or SEQUENCE steps of a sequence."""

    title: str
    model: str
    batch: int = 1
    sequence: bool = False
    config: str = CONFIG

    @property
    def row(self) -> ZooModel:
        return ZOO[self.model]

    @property
    def kind(self) -> str:
        """The family, which names the form of the step."""
        return self.row.family

    @property
    def recurrent(self) -> bool:
        """Whether the user's module takes a time axis."""
        return self.row.streaming is not None

    @property
    def input_shape(self) -> tuple[int, int]:
        """Of what one call takes."""
        (example,) = self.row.inputs()
        features = [n for axis, n in enumerate(example.shape) if (axis,) != self.row.streaming][-1]
        return (SEQUENCE if self.sequence else self.batch, features)

    def build(self) -> nn.Module:
        """The model in eval mode."""
        return build(self.row)[0]


WORKLOADS = {
    "W1": Workload("gated ODE LTC(64), 9 Euler steps", "gated 64"),
    "W2": Workload("ncps LTC, AutoNCP(32, 8), 6 unfolds", "ltc AutoNCP(32, 8), 20 inputs"),
    "W2s": Workload(f"the same, {SEQUENCE} steps in a call", "ltc AutoNCP(32, 8), 20 inputs", sequence=True),
    "W3": Workload("ncps LTC, fully connected 128", "ltc FullyConnected(128), 8 inputs, 128 outputs"),
    "W4": Workload("ncps CfC(64)", "cfc 64, 20 inputs"),
    "W5a": Workload("LSTM, 2 layers of 128", "lstm 2x128, readout"),
    "W5b": Workload("LSTM, 3 layers of 256", "lstm 3x256, readout"),
    "W5c": Workload("LSTM, 3 layers of 480", "lstm 3x480, readout"),
    "W5d": Workload("LSTM, 6 layers of 320", "lstm 6x320, readout"),
    "W5e": Workload("LSTM, 3 layers of 960", "lstm 3x960, readout"),
    "W6": Workload("MLP 256-384-384-128", "mlp 256-384-384-128, linear end"),
    "W6b4": Workload("the same, batch 4", "mlp 256-384-384-128, linear end", batch=4),
    "W6b8": Workload("the same, batch 8", "mlp 256-384-384-128, linear end", batch=8),
    "W7": Workload("causal CNN, 3 layers of 128, kernel 8", "cnn 3x128 k8, added to its input"),
    "W8a": Workload("forecast A: LSTM, 2 layers of 100", "forecast A"),
    "W8b": Workload("forecast B: LSTM, 3 layers of 200", "forecast B"),
    "W8c": Workload("forecast C: LSTM, 4 layers of 1000", "forecast C", config="wide_c8b32"),
}


def module_of(model: nn.Module) -> nn.Module:
    """The module that a user writes: a recurrent one returns its state too."""
    return model.network if isinstance(model, Outputs) else model


def step_of(workload: Workload, model: nn.Module) -> nn.Module:
    """One call of a user's module with its state as tensors."""
    if workload.kind == "mlp":
        return StatelessStep(model, [])
    if workload.kind == "gated":
        return GatedStep(model, [])
    if workload.kind in LSTMS:
        size = 2 * model.lstm.num_layers, 1, model.lstm.hidden_size
        return LSTMStep(model, [*torch.zeros(size)])
    if workload.kind == "cnn":
        conv = model[0].conv
        return ConvStep(model, [torch.zeros(1, conv.in_channels, conv.kernel_size[0] - 1) for _ in model])
    step = CellStep(model, [torch.zeros(1, model.state_size)])
    return Unrolled(step) if workload.sequence else step


def compile_model(workload: Workload, model: nn.Module) -> Program:
    """The program of one step of what `Workload.build` made."""
    inputs = workload.row.inputs() if workload.recurrent else (torch.rand(workload.input_shape),)
    nnir = to_nnir(prepare_shape(model, *inputs)[0])
    if workload.recurrent:
        nnir, _ = nnir.streaming_transform(workload.row.streaming)
    return nnir.to_program(ltc_compiler.Config.preset(workload.config))
