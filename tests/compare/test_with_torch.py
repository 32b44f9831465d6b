"""What PyTorch computes on the way, beside what the machines do: the right value per operation, step and iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ncps.torch import CfC
from torch import Tensor, nn
from torchdiffeq import odeint

import ltc_torch
from ltc_compiler import Config
from ltc_compiler.compare import Observed
from ltc_compiler.ir.graph import Graph, Source, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR

CONFIG = Config.small_c2b16()


class Stacked(nn.Module):
    """Two layers and a readout: many calls at one line."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTM(6, 10, 2, batch_first=True), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cell(x)[0])


class Convolved(nn.Module):
    """The time axis last, where the compiler has the features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv(nn.functional.pad(x, (2, 0))))
        return y * y


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 12)
        self.outer = nn.Linear(12, 3)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(y))) - 0.1 * y


class Solved(nn.Module):
    """Stages and steps of a solver: a call in the body of a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.field = Field()

    def forward(self, y: Tensor) -> Tensor:
        return odeint(self.field, y, torch.linspace(0, 1, 5), method="rk4")


def unwrap(result: Any) -> list[dict[str, Any]]:
    return [row for row in result.rows if row["op"] not in ("input", "state")]


@pytest.mark.parametrize(
    ("model", "shape", "axis"),
    [(Stacked, (1, 7, 6), 1), (lambda: CfC(5, 8, batch_first=True), (1, 7, 5), 1), (Solved, (2, 3), None)],
    ids=["lstm", "cfc", "ode"],
)
def test_every_operation_has_its_value(model: Any, shape: tuple[int, ...], axis: int | None) -> None:
    torch.manual_seed(0)
    module, x = model().eval(), torch.randn(shape)
    for streaming in dict.fromkeys((None, axis)):
        result = ltc_torch.compare(module, x, config=CONFIG, streaming=streaming, what_if=0, optimize=False)
        for row in unwrap(result):
            assert row["torch_max_error"] is not None, row
            assert row["torch_rms_error"] <= row["torch_max_error"] < 1e-6  # PyTorch in fp32
            assert row["max_error"] > 10 * row["torch_max_error"]  # the machine, with its roundings to bf16
        assert "torch max" in str(result)


@pytest.mark.parametrize("streaming", [None, 2])
def test_a_value_is_found_in_whatever_order_its_axes_are(streaming: int | None) -> None:
    torch.manual_seed(0)
    module, x = Convolved().eval(), torch.randn(1, 4, 9)
    result = ltc_torch.compare(module, x, config=CONFIG, streaming=streaming, what_if=0, optimize=False)
    found = {row["op"] for row in unwrap(result) if row["torch_max_error"] is not None}
    assert {"tanh", "mul"} <= found
    assert all(row["torch_max_error"] < 1e-6 for row in unwrap(result) if row["torch_max_error"] is not None)


def test_what_no_call_computes_stays_empty() -> None:
    """A layer norm is one call; its sums and roots are the compiler's."""
    torch.manual_seed(0)
    result = ltc_torch.compare(nn.LayerNorm(12).eval(), torch.randn(3, 12), config=CONFIG, what_if=0)
    rows = unwrap(result)
    assert rows[-1]["torch_max_error"] < 1e-6
    assert any(row["torch_max_error"] is None for row in rows[:-1])


@pytest.mark.parametrize(("off", "seen"), [(0.0, 0.0), (1e-4, 1e-4), (0.01, None)])
def test_the_error_of_a_value_is_measured(off: float, seen: float | None) -> None:
    """Two values at one line: each gets its own; one that is far from both is nobody's."""
    here = Source("net", "model.py", 3, "y = -x * 2")
    g = Graph("g")
    x = g.add_input(Type((4, 8)), "x")
    y = add(g, "neg", x, source=here)
    g.add_output(add(g, "mul", y, g.constant(2.0), source=here))
    inputs = np.random.default_rng(0).uniform(1, 2, (4, 8)).astype(np.float32)
    exact = -inputs.astype(np.float64)
    moved = np.ones((4, 8))
    moved[1, 2] += off * np.sqrt(32)  # of the root mean square
    observed = [Observed(here, (2 * exact)[None]), Observed(here, (exact * moved)[None])]
    negated, doubled = unwrap(NNIR(g).compare(CONFIG, inputs, observed=observed, what_if=0))
    assert doubled["torch_max_error"] == 0
    if seen is None:
        assert negated["torch_max_error"] is None
    else:
        assert negated["torch_max_error"] == pytest.approx(-exact[1, 2] * seen * np.sqrt(32), rel=1e-6)
