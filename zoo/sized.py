"""Models at the sizes that people train, by family: perceptrons, recurrent stacks, convolutions, liquid networks, ODEs.

A name is the family and its sizes: layers x width, taps k and dilation d of convolutions, "N steps at once" for a whole
sequence that does not stream.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from ncps.torch import LTC, CfC
from ncps.wirings import AutoNCP, FullyConnected, Wiring
from torch import Tensor, nn
from torch.nn import functional as F
from torchdiffeq import odeint

from ltc_torch import Fp8Weights, Fp32Activations
from ltc_torch.nn import PaddedConv1d, RMSNorm
from zoo.audio import AmplifierWaveNet
from zoo.row import ZooModel, by_name

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


# ---------------------------------------------------------------- modules


class Outputs(nn.Module):
    """A recurrent network from its initial state on: its outputs, without the final state."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x)[0]
        return y


class Readout(nn.Module):
    """LSTM layers and a linear map. (1, time, features) -> (1, time, outputs) and the final state."""

    def __init__(self, layers: int, hidden: int, features: int = 0, outputs: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features or hidden, hidden, layers, batch_first=True)
        self.readout = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.lstm(x, state)
        return self.readout(y), state


class Residual(nn.Module):
    """A causal convolution of the normalised input, added to the input. (1, channels, time) -> the same."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.norm, self.convolution = RMSNorm(channels), PaddedConv1d(channels, channels, taps)

    def forward(self, x: Tensor) -> Tensor:
        normalised = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return x + torch.relu(self.convolution(normalised))


class CausalLayer(nn.Module):
    """A causal convolution with a ReLU, added to the input. (1, channels, time) -> the same."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, taps)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.conv(F.pad(x, (self.conv.kernel_size[0] - 1, 0))))


class Solve(nn.Module):
    """A neural ODE with a field of one hidden layer, in steps of one method; `encode` and `decode` stand around it."""

    def __init__(self, width: int, steps: int, method: str, inputs: int = 0, outputs: int = 0) -> None:
        super().__init__()
        self.encode = nn.Linear(inputs, width) if inputs else nn.Identity()
        self.decode = nn.Linear(width, outputs) if outputs else nn.Identity()
        self.field = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.times, self.method = torch.linspace(0.0, 1.0, steps + 1), method

    def forward(self, x: Tensor) -> Tensor:
        solution = odeint(lambda t, h: self.field(h), self.encode(x), self.times, method=self.method)
        y: Tensor = self.decode(solution[-1])
        return y


class Precise(nn.Module):
    """A model with one of the regions of ltc_torch.precision around it."""

    def __init__(self, model: nn.Module, region: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self.model, self.region = model, region

    def forward(self, x: Tensor) -> Tensor:
        with self.region():
            y: Tensor = self.model(x)
        return y


def repeated(layers: int, make: Callable[[int], Iterable[nn.Module]]) -> nn.Sequential:
    """The modules of layer 0, of layer 1, and so on."""
    return nn.Sequential(*(module for i in range(layers) for module in make(i)))


def dense(*widths: int) -> nn.Sequential:
    """Linear layers, each with ReLU."""
    return nn.Sequential(*(module for pair in pairwise(widths) for module in (nn.Linear(*pair), nn.ReLU())))


def gated(hidden: int) -> nn.Module:
    """The network of examples/sine_ltc.py; the examples import each other by name."""
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    network: nn.Module = importlib.import_module("sine_ltc").LTC(hidden)
    return network


# ---------------------------------------------------------------- rows


def row(
    name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], axis: int | None = None
) -> ZooModel:
    """A model of one input; the family is the first word of the name."""
    streaming = None if axis is None else (axis,)
    return ZooModel(name, make, lambda: (torch.randn(shape),), streaming, family=name.split()[0])


def mlp(*widths: int) -> ZooModel:
    equal = len(set(widths)) == 1
    sizes = f"{len(widths) - 1}x{widths[0]}" if equal else "-".join(map(str, widths))
    return row(f"mlp {sizes}", lambda: dense(*widths), (1, widths[0]))


def slp(inputs: int, outputs: int) -> ZooModel:
    return row(f"slp {inputs}-{outputs}", lambda: dense(inputs, outputs), (1, inputs))


def recurrent(
    kind: type[nn.LSTM | nn.GRU], layers: int, width: int, features: int = 0, steps: int = 2
) -> ZooModel:
    sizes = f"{features}-{width}" if features else f"{layers}x{width}"
    features = features or width
    make = lambda: Outputs(kind(features, width, layers, batch_first=True))  # noqa: E731
    return row(f"{kind.__name__.lower()} {sizes}", make, (1, steps, features), 1)


def lstm(layers: int, width: int, features: int = 0, steps: int = 2) -> ZooModel:
    return recurrent(nn.LSTM, layers, width, features, steps)


def gru(layers: int, width: int) -> ZooModel:
    return recurrent(nn.GRU, layers, width)


def lstm_with_readout(layers: int, width: int) -> ZooModel:
    return row(f"lstm {layers}x{width}, readout", lambda: Outputs(Readout(layers, width)), (1, 2, width), 1)


def forecast(name: str, features: int, layers: int, hidden: int) -> ZooModel:
    make = lambda: Outputs(Readout(layers, hidden, features, outputs=1))  # noqa: E731
    return row(f"forecast {name}", make, (1, 2, features), 1)


def norm(layers: int, width: int) -> ZooModel:
    make = lambda _: (nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU())  # noqa: E731
    return row(f"norm {layers}x{width}", lambda: repeated(layers, make), (1, width))


def cnn(layers: int, channels: int, taps: int, dilation: int, steps: int = 3) -> ZooModel:
    """Causal convolutions with ReLU; the dilation grows from layer to layer."""
    make = lambda i: (PaddedConv1d(channels, channels, taps, dilation=dilation**i), nn.ReLU())  # noqa: E731
    name = f"cnn {layers}x{channels} k{taps} d{dilation}"
    return row(name, lambda: repeated(layers, make), (1, channels, steps), 2)


def residual(layers: int, channels: int, taps: int) -> ZooModel:
    make = lambda: repeated(layers, lambda _: [Residual(channels, taps)])  # noqa: E731
    return row(f"residual {layers}x{channels} k{taps}", make, (1, channels, 3), 2)


def cfc(units: int, features: int = 17) -> ZooModel:
    return row(f"cfc {units}", lambda: Outputs(CfC(features, units)), (1, 2, features), 1)


def ltc(wiring: str, make: Callable[[], Wiring], features: int = 17, steps: int = 2) -> ZooModel:
    return row(f"ltc {wiring}", lambda: Outputs(LTC(features, make())), (1, steps, features), 1)


def sparse(units: int, features: int = 17) -> ZooModel:
    return ltc(f"AutoNCP({units}, 8)", lambda: AutoNCP(units, 8, seed=1), features)


def full(units: int, features: int = 17, steps: int = 2) -> ZooModel:
    return ltc(f"FullyConnected({units})", lambda: FullyConnected(units, 8), features, steps)


def solve(width: int, steps: int, method: str, inputs: int = 0, outputs: int = 0) -> ZooModel:
    sizes = f"{inputs}-{width}-{outputs}" if inputs else f"{width}"
    make = lambda: Solve(width, steps, method, inputs, outputs)  # noqa: E731
    return row(f"solve {sizes}, {method} of {steps} steps", make, (1, inputs or width))


def named(model: ZooModel, more: str) -> ZooModel:
    return replace(model, name=f"{model.name}, {more}")


def whole(steps: int, model: ZooModel) -> ZooModel:
    """All steps of its example at once, without streaming."""
    return replace(named(model, f"{steps} steps at once"), streaming=None)


def precise(model: ZooModel, region: Callable[[], AbstractContextManager[None]], name: str) -> ZooModel:
    return replace(named(model, name), make=lambda: Precise(model.make(), region))


# ---------------------------------------------------------------- the lists


def _sweep() -> Iterator[ZooModel]:
    """Sizes that fill blocks and that do not, deep and shallow, with more and with fewer rows than cores."""
    for layers, width in (
        (1, 16), (1, 64), (1, 100), (2, 96), (3, 128), (8, 48), (2, 200), (1, 256), (2, 300), (3, 256), (12, 96),
        (4, 320), (1, 480), (3, 480), (2, 512), (1, 640), (6, 320), (2, 700), (3, 768),
    ):  # fmt: skip
        yield lstm(layers, width)
    for features, width in ((17, 128), (300, 64), (64, 400)):
        yield lstm(1, width, features)
    for layers, width in ((1, 32), (2, 64), (1, 160), (3, 200), (2, 256), (4, 384), (1, 512), (2, 640)):
        yield gru(layers, width)
    for widths in (
        [16] * 3, [64] * 4, [100] * 3, [128] * 2, [200] * 5, [256, 384, 384, 128], [300] * 3, [512] * 9, [640] * 4,
        [1000] * 3, [64, 1024, 64], [1024, 32, 1024], [20, 200, 400, 10], [768] * 6, [1500] * 2,
    ):  # fmt: skip
        yield mlp(*widths)
    for layers, width in ((2, 64), (3, 200), (4, 512), (2, 768)):
        yield norm(layers, width)
    for layers, channels, taps, dilation in (
        (1, 32, 3, 1), (3, 48, 5, 1), (4, 64, 3, 2), (3, 128, 8, 1), (4, 200, 4, 2), (6, 96, 2, 2), (2, 256, 16, 1),
        (3, 320, 3, 3),
    ):  # fmt: skip
        yield cnn(layers, channels, taps, dilation)
    for layers, channels, taps in ((2, 64, 4), (4, 160, 8), (3, 256, 5)):
        yield residual(layers, channels, taps)
    for units in (20, 64, 128, 256):
        yield cfc(units)


def _sized() -> Iterator[ZooModel]:
    yield from (mlp(*[512] * 5), slp(1024, 1024), lstm(1, 354), lstm(2, 128), lstm(4, 177))
    yield row("convolution 64x8", lambda: PaddedConv1d(64, 64, 8), (1, 64, 3), 2)
    yield from (sparse(32), sparse(64), full(32), full(64), full(128))
    yield row("gated 64", lambda: gated(64), (1, 1))
    yield solve(64, 4, "rk4", 17, 8)
    yield whole(20, lstm(1, 96, steps=20))
    yield precise(lstm(2, 128), Fp32Activations, "fp32")
    yield precise(mlp(256, 384, 384, 128), Fp8Weights, "fp8")
    yield precise(sparse(32), Fp32Activations, "fp32")
    # timed beside other runtimes
    yield named(sparse(32, 20), "20 inputs")
    yield named(ltc("FullyConnected(128)", lambda: FullyConnected(128), 8), "8 inputs, 128 outputs")
    yield named(cfc(64, 20), "20 inputs")
    yield from (lstm_with_readout(n, w) for n, w in ((2, 128), (3, 256), (3, 480), (6, 320), (3, 960)))
    yield row("mlp 256-384-384-128, linear end", lambda: dense(256, 384, 384, 128)[:-1], (1, 256))
    layers = lambda: repeated(3, lambda _: [CausalLayer(128, 8)])  # noqa: E731
    yield row("cnn 3x128 k8, added to its input", layers, (1, 128, 10), 2)
    yield row("wavenet, amplifier", AmplifierWaveNet, (1, 1, 8), 2)
    # the dimensions of the models of STAC-ML Markets; shaped like them, and unaudited
    yield from (forecast("A", 100, 2, 100), forecast("B", 250, 3, 200), forecast("C", 500, 4, 1000))
    yield from _growing()


def _growing() -> Iterator[ZooModel]:
    """From 10 thousand to 20 million parameters, wide and deep, long sequences and long solves."""
    yield from (mlp(*[n] * 4) for n in (256, 1024, 2560))
    yield slp(4096, 4096)
    yield mlp(*[64] * 201)
    yield from (lstm(3, n, steps=8) for n in (32, 96, 320, 960))
    yield from (named(full(n, 8, 8), "8 inputs") for n in (32, 128, 512, 1280))
    yield from (cnn(3, n, 8, 1, 16) for n in (20, 64, 256, 912))
    yield cnn(100, 32, 8, 1, 16)
    for n in (100, 1000, 10000):
        yield whole(n, lstm(1, 64, steps=n))
        yield whole(n, named(full(32, 8, n), "8 inputs"))
    yield from (whole(n, cnn(3, 64, 8, 1, n)) for n in (100, 400))
    yield from (solve(64, 1000, method) for method in ("euler", "rk4"))


SWEEP: dict[str, ZooModel] = by_name(_sweep())
SIZED: dict[str, ZooModel] = by_name(_sized())
