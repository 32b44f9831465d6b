"""States and operations of a stream are called after the user's modules, in the machine, in reports and in pictures."""

from __future__ import annotations

from pathlib import Path

import ncps.torch
import onnx
import pytest
import torch
from onnx import helper
from onnx_cases import recurrent_node
from torch import Tensor, nn

from ltc_compiler import NNIR, Config
from ltc_torch import stream
from ltc_torch.nn import GatedLTC, PaddedConv1d, Scan

CONFIG = Config.small_c2b16()


class Model(nn.Module):
    """A layer over a convolution, its first result."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.encoder = PaddedConv1d(4, 4, 3), nn.ModuleDict({"layer": layer})

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.encoder["layer"](self.conv(x.mT).mT)[0]
        return y


class Pair(nn.Module):
    """A scan whose state is a nest."""

    def __init__(self) -> None:
        super().__init__()
        self.scan = Scan(
            lambda u, s: (s["slow"], {"slow": 0.9 * s["slow"] + u, "fast": (0.5 * s["fast"][0] + u,)})
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros = x.new_zeros(x.shape[0], x.shape[2])
        y, last = self.scan(x, {"slow": zeros, "fast": (zeros,)}, 1, 1)
        return y, last["fast"][0]


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (nn.LSTM(4, 8, 2, batch_first=True), ["layer0.h", "layer0.c", "layer1.h", "layer1.c"]),
        (nn.LSTM(4, 8, batch_first=True), ["h", "c"]),
        (nn.GRU(4, 8, 2, batch_first=True), ["layer0.h", "layer1.h"]),
        (nn.RNN(4, 8, batch_first=True), ["h"]),
        (ncps.torch.LTC(4, 5), ["h"]),
        (ncps.torch.CfC(4, 5, mixed_memory=True), ["h", "c"]),
        (GatedLTC(4, 5), ["scan.h"]),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_states_are_called_after_their_module(layer: nn.Module, names: list[str]) -> None:
    step, _ = stream(Model(layer).eval(), torch.randn(1, 6, 4), axis=1)
    expected = ["conv.delay1", "conv.delay2", *(f"encoder.layer.{name}" for name in names)]
    assert list(step.initial_states()) == expected
    assert list(NNIR.parse(str(step)).initial_states()) == expected
    assert list(step.to_program(CONFIG, quick_compile=True).to_vm().get_state()) == expected


def test_a_nest_names_its_parts() -> None:
    step, _ = stream(Pair().eval(), torch.randn(1, 6, 4), axis=1)
    assert set(step.initial_states()) == {"scan.h_slow", "scan.h_fast_0"}


def test_a_layer_that_is_the_model_has_no_path() -> None:
    step, _ = stream(nn.LSTM(4, 8, 2, batch_first=True).eval(), torch.randn(1, 6, 4), axis=1)
    assert list(step.initial_states()) == ["layer0.h", "layer0.c", "layer1.h", "layer1.c"]


def test_operations_are_called_after_the_layer_they_belong_to() -> None:
    layer = nn.LSTM(4, 8, 2, batch_first=True)
    step, _ = stream(Model(layer).eval(), torch.randn(1, 6, 4), axis=1)
    report = step.to_program(CONFIG, quick_compile=True).report()
    modules = {row["module"] for row in report.rows if row["op"] == "sigmoid"}
    assert modules == {"encoder.layer.layer0", "encoder.layer.layer1"}
    for text in (str(report), report._repr_html_()):
        assert "module" in text
        assert "encoder.layer.layer1" in text


def test_equal_layers_print_as_different_lines() -> None:
    model = nn.Sequential(*(PaddedConv1d(4, 4, 3) for _ in range(3))).eval()
    step, _ = stream(model, torch.randn(1, 4, 6), axis=2)
    assert list(step.initial_states()) == [f"{i}.delay{j}" for i in range(3) for j in (1, 2)]
    lines = str(step.to_program(CONFIG, quick_compile=True).report()).splitlines()
    head = next(line for line in lines if line.startswith("critical"))
    column = slice(head.index("module"), head.index("place"))
    assert {line[column].strip() for line in lines if " linear " in line} == {"0", "1", "2"}


def test_states_of_a_file_are_called_after_its_nodes(tmp_path: Path) -> None:
    model = recurrent_node("LSTM", 4, 6, 4)
    model.graph.node[0].name = "encoder/LSTM_1"
    onnx.save(
        helper.make_model(model.graph, opset_imports=model.opset_import, ir_version=8), tmp_path / "m.onnx"
    )
    step, _ = NNIR.from_onnx(tmp_path / "m.onnx").streaming_transform(0)
    assert all(name.startswith("encoder/LSTM_1.") for name in step.initial_states())
    assert len(step.initial_states()) == 2
