"""Random modules of PyTorch layers, run as their owners would: compiled, streamed, and continued beyond their example.

In plain fp32 the program must give what PyTorch gives: for the whole sequence, and step by step for a sequence that is
longer than the one recorded. `case(seed)` is one of them; tests/project/test_fuzz.py runs some, tests/proof/fuzz.py as
many as an hour takes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError, StreamingError, UnsupportedError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import GatedLTC

CONFIG = replace(Config.small_c2b16(), tensor_rows=1 << 16, gather_entries=1 << 16, weight_blocks=1 << 12)
WIDTHS = (1, 2, 3, 5, 7, 9, 15, 17, 20)
STEPS, LONGER = 8, 13
TOLERANCE = 2e-4  # of 1 + |y|


class Recurrent(nn.Module):
    """The sequence of a recurrent layer's outputs."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(1, time, features) -> (1, time, hidden)."""
        y: Tensor = self.layer(x)[0]
        return y


class Causal(nn.Module):
    """A convolution over time, padded in front."""

    def __init__(self, inputs: int, outputs: int, taps: int, dilation: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, taps, dilation=dilation, groups=groups)
        self.padding = (taps - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        """(1, time, features) -> (1, time, outputs)."""
        return self.conv(F.pad(x.transpose(1, 2), (self.padding, 0))).transpose(1, 2)


class Mixed(nn.Module):
    """Layers one behind the other, which may also see what an earlier one gave; one or two inputs and outputs."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.widths = [int(rng.choice(WIDTHS)) for _ in range(int(rng.integers(1, 3)))]
        self.layers, self.joins = nn.ModuleList(), []
        known = [sum(self.widths)]
        for _ in range(int(rng.integers(1, 5))):
            how = str(rng.choice(["plain", "plain", "cat", "zeros", "gate", "residual"]))
            other = int(rng.integers(len(known)))
            width = known[-1] + {"cat": known[other], "zeros": 3}.get(how, 0)
            layer, out = _layer(rng, width)
            self.layers.append(layer)
            self.joins.append((how, other, int(rng.integers(len(POINTWISE)))))
            known.append(out)
        self.second = int(rng.integers(len(known))) if rng.random() < 0.4 else None

    def forward(self, *inputs: Tensor) -> Any:
        """Arrays of (1, time, features) in and out."""
        known = [torch.cat(inputs, -1)]
        for layer, (how, other, function) in zip(self.layers, self.joins, strict=True):
            x = known[-1]
            if how == "cat":
                x = torch.cat([x, known[other]], -1)
            elif how == "zeros":
                x = F.pad(torch.sigmoid(x), (0, 3))
            y = POINTWISE[function](layer(x))
            if how == "gate":
                y = y * torch.sigmoid(known[other].mean(-1, keepdim=True))
            elif how == "residual" and y.shape == known[-1].shape:
                y = y + known[-1]
            known.append(y)
        return known[-1] if self.second is None else (known[-1], known[self.second])


def _half_twice(x: Tensor) -> Tensor:
    """The first half of the features, and again as many as there were."""
    return x[..., : (x.shape[-1] + 1) // 2].repeat(1, 1, 2)[..., : x.shape[-1]]


POINTWISE: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x,
    torch.tanh,
    torch.relu,
    F.gelu,
    lambda x: x.clamp(-0.5, 1.5),
    lambda x: torch.where(x > 0, x, 0.1 * x),
    lambda x: F.softmax(x, -1),
    lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.5),
    lambda x: x.flip(-1),
    lambda x: torch.stack([x, -x], -1).flatten(-2),
    _half_twice,
)


def _layer(rng: np.random.Generator, width: int) -> tuple[nn.Module, int]:
    """A layer that takes `width` features, and the width of what it gives."""
    kind, out = str(rng.choice(["linear", "linear", "rnn", "conv", "norm", "ltc"])), int(rng.choice(WIDTHS))
    layer: nn.Module
    if kind == "linear":
        layer = nn.Linear(width, out, bias=bool(rng.random() < 0.7))
    elif kind == "rnn":
        cell = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}[str(rng.choice(["LSTM", "GRU", "RNN"]))]
        layer = Recurrent(cell(width, out, int(rng.integers(1, 3)), batch_first=True))
    elif kind == "conv":
        depthwise = rng.random() < 0.4
        out = width if depthwise else out
        taps, dilation = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        layer = Causal(width, out, taps, dilation, width if depthwise else 1)
    elif kind == "norm":
        layer, out = nn.LayerNorm(width), width
    else:
        layer = Recurrent(GatedLTC(width, out, steps=2))
    for parameter in layer.parameters():  # weights of 0, -0 and 1 take ways of their own through the compiler
        if rng.random() < 0.15:
            nn.init.constant_(parameter, float(rng.choice([0.0, -0.0, 1.0])))
    return layer, out


def case(seed: int) -> str:
    """Compiles and runs one module. Returns how it went: "refused", or "whole" or "streamed" where it agreed."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    module = _module(rng)
    x = [torch.randn(1, LONGER, width) for width in module.widths]
    short = [a[:, :STEPS] for a in x]
    exact = copy.deepcopy(
        module
    ).double()  # a norm of features that hardly differ makes much of an error in fp32
    with torch.no_grad():
        expected = _arrays(module(*short)), _arrays(exact(*(a.double() for a in short)))
        longer = _arrays(module(*x)), _arrays(exact(*(a.double() for a in x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            traced, _ = prepare_shape(module, *short)
            whole = to_nnir(traced)
            program = whole.to_program(CONFIG, quick_compile=True)
        except (UnsupportedError, AllocationError):
            return "refused"
        _near(_arrays(program.to_vm(bit_accurate=False).run(*short)), expected, "the whole sequence")
        try:
            step, axes = whole.streaming_transform(1)
            streamed = step.to_program(CONFIG, quick_compile=True)
        except (StreamingError, AllocationError):
            return "whole"
    vm = streamed.to_vm(bit_accurate=False)
    halves = [_arrays(vm.run_timesteps(*[a[:, part] for a in x])) for part in (slice(0, 5), slice(5, LONGER))]
    dims = axes if isinstance(axes, tuple) else (axes,)
    joined = [np.concatenate(parts, dim) for *parts, dim in zip(*halves, dims, strict=True)]
    _near(joined, longer, "the stream")
    return "streamed"


def _module(rng: np.random.Generator) -> Mixed:
    """A module whose layers fit each other: drawn until PyTorch itself can run it."""
    while True:
        module = Mixed(rng).eval()
        try:
            with torch.no_grad():
                module(*[torch.zeros(1, 2, width) for width in module.widths])
        except RuntimeError:  # a function between two layers changed the width
            continue
        return module


def _arrays(result: Any) -> list[Any]:
    return [np.asarray(y) for y in (result if isinstance(result, tuple) else (result,))]


def _near(found: list[Any], expected: tuple[list[Any], list[Any]], what: str) -> None:
    """Near what PyTorch gives in fp64: within TOLERANCE, and ten times PyTorch's own error in fp32."""
    for i, (y, rounded, wanted) in enumerate(zip(found, *expected, strict=True)):
        assert y.shape == wanted.shape, f"{what}: output {i} has shape {y.shape}, not {wanted.shape}"
        slack = 10 * np.abs(rounded - wanted).max()
        far = ~(np.abs(y - wanted) <= TOLERANCE * (1 + np.abs(wanted)) + slack)
        assert not far.any(), f"{what}: output {i} is {y[far][:3]}, PyTorch gives {wanted[far][:3]}"
