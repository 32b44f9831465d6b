"""Solvers of torchdyn, torchode, torchcde and torchsde, by stand-ins with the names and signatures of the libraries."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltc_compiler import UnsupportedError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

TORCHDYN = """
import torch

class Midpoint:
    stepping_class = "fixed"
    def step(self, f, x, t, dt, k1=None, args=None):
        k1 = f(t, x)
        return None, x + dt * f(t + 0.5 * dt, x + 0.5 * dt * k1), None

class Adaptive(Midpoint):
    stepping_class = "adaptive"

def odeint(f, x, t_span, solver, atol=1e-3, rtol=1e-3, save_at=(), args={}):
    if isinstance(solver, str):
        solver = {"midpoint": Midpoint, "rk4": Midpoint, "dopri5": Adaptive}[solver]()
    if solver.stepping_class == "adaptive":
        if x.abs().max() > 100:
            raise RuntimeError
        t_span = torch.linspace(float(t_span[0]), float(t_span[-1]), 1001)
        return t_span, _fixed_odeint(f, x, t_span, solver)[1][[0, -1]]
    return _fixed_odeint(f, x, t_span, solver, save_at=save_at, args=args)

def _fixed_odeint(f, x, t_span, solver, save_at=(), args={}):
    save_at = save_at if len(save_at) else t_span
    t, dt, rows = t_span[0], t_span[1] - t_span[0], [x]
    for k in range(1, len(t_span)):
        _, x, _ = solver.step(f, x, t, dt, k1=None, args=args)
        t = t + dt
        if torch.isclose(t, save_at).sum():
            rows.append(x)
        if k < len(t_span) - 1:
            dt = t_span[k + 1] - t
    return save_at, torch.stack(rows)
"""
TORCHSDE = "def sdeint(sde, y0, ts, **kwargs):\n    return y0 + 0 * y0.new_empty(1).normal_()"
TORCHODE = """
class FixedStepController: pass
class IntegralController: pass
class AutoDiffAdjoint:
    def __init__(self, step_method, step_size_controller):
        self.step_method, self.step_size_controller = step_method, step_size_controller
    def solve(self, problem, term=None, dt0=None, args=None):
        y = problem
        for _ in range(4):
            y = y + dt0 * self.step_method(y)
        return y
"""


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> Any:
    module = types.ModuleType(name)
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class Solve(nn.Module):
    def __init__(self, solve: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.solve = nn.Linear(4, 4), solve

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.linear(y)) * torch.cos(t)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.solve(self.field, x)
        return y


@pytest.mark.parametrize("span", [[0, 0.25, 0.5, 0.75, 1.0], [0, 0.1, 0.5, 0.6, 1.0], [1.0, 0.5, 0.0]])
@pytest.mark.parametrize("ends", [False, True])
def test_fixed_steps_of_torchdyn_are_a_scan(
    span: list[float], ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = stand_in(monkeypatch, "torchdyn.numerics.odeint", TORCHDYN)
    t = torch.tensor(span)
    model = Solve(lambda f, x: library.odeint(f, x, t, "midpoint", save_at=t[[0, -1]] if ends else ())[1])
    graph, expected = prepare_shape(model.eval(), x := torch.randn(2, 4))
    nnir = to_nnir(graph)
    assert [n.attrs["trip_count"] for n in nnir.graph.nodes if n.op == "scan"] == [len(span) - 1]
    np.testing.assert_allclose(nnir.run(x.numpy()), expected.detach().numpy(), atol=1e-6)


def test_an_adaptive_solver_of_torchdyn_is_refused_with_steps_that_were_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = stand_in(monkeypatch, "torchdyn.numerics.odeint", TORCHDYN)
    model = Solve(lambda f, x: library.odeint(f, x, torch.tensor([0.0, 1.0]), "dopri5")[1])
    match = r"'dopri5' chooses its steps by values(.|\n)*torch.linspace\(0, 1, (9|17|33|65)\), whose last .* less than"
    with pytest.raises(UnsupportedError, match=match):
        prepare_shape(model.eval(), torch.randn(2, 4))


def test_adaptive_steps_of_torchode_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    library = stand_in(monkeypatch, "torchode.adjoints", TORCHODE)
    for controller, good in ((library.FixedStepController(), True), (library.IntegralController(), False)):
        model = Solve(
            lambda f, x, c=controller: library.AutoDiffAdjoint(torch.tanh, c).solve(x, dt0=0.1)
        ).eval()
        if good:
            graph, expected = prepare_shape(model, x := torch.randn(2, 4))
            np.testing.assert_allclose(to_nnir(graph).run(x.numpy()), expected.numpy(), atol=1e-6)
            continue
        with pytest.raises(
            UnsupportedError, match=r"IntegralController chooses its steps(.|\n)*FixedStepController"
        ):
            prepare_shape(model, torch.randn(2, 4))


def test_torchsde_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    library = stand_in(monkeypatch, "torchsde._core.sdeint", TORCHSDE)
    with pytest.raises(UnsupportedError, match=r"torchsde draws random numbers(.|\n)*backend='torchdiffeq'"):
        prepare_shape(Solve(lambda f, x: library.sdeint(None, x, None)).eval(), torch.randn(2, 4))


def test_coefficients_of_torchcde_are_made_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "def linear_interpolation_coeffs(x, t=None):\n    return x.nan_to_num() if x.isnan().any() else x"
    )
    library = stand_in(monkeypatch, "torchcde.interpolation_linear", source)
    with pytest.raises(
        UnsupportedError, match=r"missing values in the observations(.|\n)*outside of the model"
    ):
        prepare_shape(Solve(lambda f, x: library.linear_interpolation_coeffs(x)).eval(), torch.randn(2, 4))
    constant = torch.ones(2, 4)
    graph, _ = prepare_shape(
        Solve(lambda f, x: x * library.linear_interpolation_coeffs(constant)).eval(), constant
    )
    np.testing.assert_array_equal(to_nnir(graph).run(np.full((2, 4), 3.0)), 3.0)
