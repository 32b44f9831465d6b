"""The regression gate of the schedule: exact cycles of fixed models on two boards, as text that a reviewer reads.

A change that makes a program faster or slower shows as a difference from tests/golden/cycles.txt. To accept it, run

    LTC_REFRESH_CYCLES=1 python -m pytest tests/schedule/test_cycles.py

and say in CHANGELOG.md why the figures moved. Weights are random: cycles do not depend on values.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import pairwise

import ncps.torch
import ncps.wirings
import numpy as np
import pytest
import torch
from folders import GOLDEN
from models import ZOO, build
from models.zoo import context
from programs_for_timing import simulated
from torch import Tensor, nn

from ltc_compiler import Config, ProgramBuilder
from ltc_compiler.nnir import NNIR
from ltc_compiler.oracle.clock import estimate
from ltc_compiler.program import Program
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import PaddedConv1d
from ltc_torch.precision import Fp8Weights, Fp32Activations

CYCLES = GOLDEN / "cycles.txt"
REFRESH = "LTC_REFRESH_CYCLES"
BOARDS = ("v80_c6b32", "ia_840f_c3b64")

# Models of the zoo: one step where they stream, else the whole.
SMALL = (
    "mlp_sequence", "activations", "reductions", "norms", "causal_convolutions", "strided_convolutions", "depthwise",
    "tcn", "wavenet", "attention", "causal_attention", "windowed_attention", "transformer_block", "state_space",
    "lstm", "lstm_two_layers", "lstm_projected", "lstm_bidirectional", "gru", "rnn_tanh", "ltc", "ltc_mixed",
    "ltc_spans", "ltc_explicit", "cfc", "cfc_pure", "cfc_no_gate", "cfc_wired", "gated_ltc", "gated_ltc_rk4",
    "ode_midpoint", "ode_rk4", "user_scan",
)  # fmt: skip


class First(nn.Module):
    """The first result of a recurrent network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x)[0]
        return y


def mlp(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers)


def lstm(layers: int, width: int) -> nn.Module:
    return First(nn.LSTM(width, width, layers, batch_first=True))


class Precise(nn.Module):
    """A model with one of the regions of ltc_torch.precision around it."""

    def __init__(self, model: nn.Module, region: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self.model, self.region = model, region

    def forward(self, x: Tensor) -> Tensor:
        with self.region():
            y: Tensor = self.model(x)
        return y


def liquid(wiring: ncps.wirings.Wiring) -> nn.Module:
    return First(ncps.torch.LTC(17, wiring))


# name -> the model, the shape of its input, and the axis along which it streams
LARGE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int | None]] = {
    "mlp 256-384-384-128": (lambda: mlp(256, 384, 384, 128), (1, 256), None),
    "mlp 4x512": (lambda: mlp(*[512] * 5), (1, 512), None),
    "slp 1024-1024": (lambda: mlp(1024, 1024), (1, 1024), None),
    "convolution 64x8": (lambda: PaddedConv1d(64, 64, 8), (1, 64, 3), 2),
    "lstm 1x354": (lambda: lstm(1, 354), (1, 2, 354), 1),
    "lstm 2x128": (lambda: lstm(2, 128), (1, 2, 128), 1),
    "lstm 4x177": (lambda: lstm(4, 177), (1, 2, 177), 1),
    "ltc AutoNCP(32, 8)": (lambda: liquid(ncps.wirings.AutoNCP(32, 8, seed=1)), (1, 2, 17), 1),
    "ltc FullyConnected(64)": (lambda: liquid(ncps.wirings.FullyConnected(64, 8)), (1, 2, 17), 1),
    "cfc 64": (lambda: First(ncps.torch.CfC(17, 64)), (1, 2, 17), 1),
    "gru 2x256": (lambda: First(nn.GRU(256, 256, 2, batch_first=True)), (1, 2, 256), 1),
    "lstm 1x96, 20 steps at once": (lambda: lstm(1, 96), (1, 20, 96), None),
    "lstm 2x128, fp32": (lambda: Precise(lstm(2, 128), Fp32Activations), (1, 2, 128), 1),
    "mlp 256-384-384-128, fp8": (lambda: Precise(mlp(256, 384, 384, 128), Fp8Weights), (1, 256), None),
    "ltc AutoNCP(32, 8), fp32": (
        lambda: Precise(liquid(ncps.wirings.AutoNCP(32, 8, seed=1)), Fp32Activations), (1, 2, 17), 1,
    ),
}  # fmt: skip
TOGETHER = ("lstm 2x128", "cfc 64")  # as two models of one program


def small_graph(name: str) -> NNIR:
    """One step, or one call, of a model of the zoo."""
    case = ZOO[name]
    model, inputs = build(case)
    nnir = to_nnir(prepare_shape(model, *inputs)[0], context=context(case, inputs))
    return nnir if case.streaming is None else nnir.streaming_transform(case.streaming)[0]


def large_graph(name: str) -> NNIR:
    """One step, or one call, of a model of LARGE."""
    torch.manual_seed(0)
    np.random.seed(0)
    make, shape, axis = LARGE[name]
    nnir = to_nnir(prepare_shape(make().eval(), torch.randn(shape))[0])
    return nnir if axis is None else nnir.streaming_transform(axis)[0]


def table() -> str:
    """A line a model and board: cycles spaced, contiguous and from one inference to the next, and instructions."""
    graphs = {name: small_graph(name) for name in SMALL} | {name: large_graph(name) for name in LARGE}
    lines = [
        f"{'model':28} {'board':14} {'spaced':>7} {'contiguous':>11} {'interval':>9} {'instructions':>13}"
    ]
    for name, nnir in graphs.items():
        lines += [row(name, nnir.to_program(Config.preset(board))) for board in BOARDS]
    for board in BOARDS:
        builder = ProgramBuilder(Config.preset(board))
        for name in TOGETHER:
            builder.add_nnir(graphs[name], name)
        program = builder.to_program()
        lines += [row(f"{name}, of {len(TOGETHER)} models", program, i) for i, name in enumerate(TOGETHER)]
    return "\n".join(lines) + "\n"


def row(name: str, program: Program, model: int = 0) -> str:
    """The line of a model, whose cycles the compiler's own clock counts like the simulator's."""
    assert simulated(program.image, model_index=model) == estimate(program.image, model)
    spaced, contiguous = (program.cycle_count_per_inference(model, mode) for mode in (True, False))
    interval, code = program.cycle_interval_per_inference(model), program.image.models[model]
    counts = f"{spaced:7} {contiguous:11} {interval:9g} {code.end - code.begin:13}"
    return f"{name:28} {program.hw_config.name:14} {counts}"


def difference(golden: str, found: str) -> str:
    """Nothing if they are equal, else the changed lines, old above new."""
    lines = difflib.unified_diff(golden.splitlines(), found.splitlines(), "golden", "found", lineterm="", n=0)
    return "\n".join(lines)


def test_cycles_are_those_that_were_accepted() -> None:
    found = table()
    if os.environ.get(REFRESH):
        CYCLES.write_text(found, encoding="utf-8")
        pytest.skip(f"{CYCLES.name} is written anew: read its difference, and say in CHANGELOG.md why")
    changed = difference(CYCLES.read_text(encoding="utf-8"), found)
    if changed:
        remedy = f"if they should, run this with {REFRESH}=1 and say in CHANGELOG.md why"
        pytest.fail(f"cycles changed; {remedy}\n{changed}", pytrace=False)


@pytest.mark.parametrize("name", LARGE)
def test_six_read_ports_are_enough(name: str) -> None:
    """What docs/machine.md says of the presets: with more ports these models would be no faster."""
    image = large_graph(name).to_program(Config.v80_c6b32()).image
    config = replace(image.config, read_ports=16)
    assert config.read_ports > image.config.read_ports == 6
    few, many = (
        Program(replace(image, config=c)).cycle_summary_per_inference() for c in (image.config, config)
    )
    assert few == many


def test_a_change_of_one_cycle_shows() -> None:
    golden = CYCLES.read_text(encoding="utf-8")
    line = golden.splitlines()[-1]
    spaced = line.split()[-4]
    slower = line.replace(f" {spaced} ", f" {int(spaced) + 1} ", 1)
    changed = difference(golden, golden.replace(line, slower))
    assert f"-{line}" in changed
    assert f"+{slower}" in changed
    assert difference(golden, golden) == ""
