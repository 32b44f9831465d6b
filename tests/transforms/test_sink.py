"""Transpositions between layers vanish, and no bit changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_compiler import NNIR, Config
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.transforms import pipeline
from ltc_compiler.transforms.sink import moved_elements, sink_transpositions
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

CHANNELS, TIME = 20, 12
Build = Callable[[], nn.Module]


class Chomped(nn.Module):
    """A causal convolution by padding on both sides and cutting the end off, with a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(CHANNELS, CHANNELS, 3, padding=4, dilation=2) for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.convolutions:
            x = F.relu(layer(x)[:, :, :-4]) + x
        return x


class Residual(nn.Module):
    """Normalised convolutions, a sum over what went past them, a mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm1d(CHANNELS) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.norms[0](self.layers[0](x)))
        return F.relu(x + self.norms[1](self.layers[1](y))).mean(-1)


class Gated(nn.Module):
    """The halves of one convolution gate each other; the result goes on with its features last."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.back = nn.Conv1d(CHANNELS, 2 * CHANNELS, 1), nn.Conv1d(CHANNELS, CHANNELS, 1)
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.wide(x).chunk(2, 1)
        return self.norm((self.back(torch.tanh(left) * torch.sigmoid(right)) * 0.5 + x).transpose(1, 2))


class Recall(nn.Module):
    """A row times a matrix that is computed: linear attention, retention."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.sigmoid(x[:, :, -1]).unsqueeze(1) @ torch.tanh(x)
        return y


MODELS: dict[str, tuple[Build, int]] = {  # how many times the elements of the input are turned
    "chomped": (Chomped, 2),
    "residual": (Residual, 1),
    "gated": (Gated, 1),
    "recall": (Recall, 0),
    "two convolutions over both axes": (
        lambda: nn.Sequential(nn.Unflatten(1, (4, CHANNELS // 4)), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU(),
                              nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU()), 2),
}  # fmt: skip


def converted(name: str) -> NNIR:
    torch.manual_seed(3)
    module = MODELS[name][0]().eval()
    return to_nnir(prepare_shape(module, torch.randn(1, CHANNELS, TIME))[0])


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_not_turned_back_and_forth(name: str) -> None:
    nnir = converted(name)
    elements = moved_elements(pipeline.run_pipeline(nnir.graph))
    assert elements <= MODELS[name][1] * CHANNELS * TIME < moved_elements(nnir.graph)


@pytest.mark.parametrize("name", MODELS)
def test_no_bit_changes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nnir = converted(name)
    config = Config.ip_core(2, 8)
    x = np.random.default_rng(0).standard_normal((1, CHANNELS, TIME)).astype(np.float32)
    found = nnir.to_program(config).to_vm().run(x)
    monkeypatch.setattr(pipeline, "PASSES", tuple(p for p in pipeline.PASSES if p.name != "sink"))
    before = nnir.to_program(config)
    assert np.array_equal(found, before.to_vm().run(x))


def test_overlapping_slices_stay_behind_their_transposition() -> None:
    """Turned one by one they would be more than what they are cut from: nothing is to be gained."""
    graph = Graph("windows")
    x = graph.add_input(Type((4, 9)), "x")
    turned = add(graph, "permute", x, dims=(1, 0))
    slices = [add(graph, "slice", turned, axis=0, start=i, stop=i + 7, step=1) for i in range(3)]
    graph.add_output(add(graph, "add", add(graph, "add", *slices[:2]), slices[2]), "y")
    assert sink_transpositions(graph) is graph


def test_a_value_that_stands_in_the_way_ends_the_way() -> None:
    """The other operand is not there the other way round: turning it instead would be no better."""
    graph = Graph("sum")
    x, y = graph.add_input(Type((4, 9)), "x"), graph.add_input(Type((9, 4)), "y")
    total = add(graph, "add", add(graph, "permute", x, dims=(1, 0)), y)
    graph.add_output(add(graph, "permute", add(graph, "relu", total), dims=(1, 0)), "z")
    sunk = sink_transpositions(graph)
    assert moved_elements(sunk) == moved_elements(graph) == 72
    given = np.random.default_rng(0).standard_normal((4, 9)), np.random.default_rng(1).standard_normal((9, 4))
    assert np.array_equal(NNIR(sunk).run(*given), NNIR(graph).run(*given))
