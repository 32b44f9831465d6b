"""Fixed-step solvers of torchdiffeq: every method, option and kind of grid, in fp64 against torchdiffeq itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from ltc_compiler import UnsupportedError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.adams import weights
from ltc_torch.fx.nnir import to_nnir

GRIDS = {
    "even": torch.linspace(0, 2, 9, dtype=torch.float64),
    "uneven": torch.tensor([0, 0.1, 0.15, 0.4, 0.6, 1.0, 1.2], dtype=torch.float64),
    "backwards": torch.linspace(1, 0, 6, dtype=torch.float64),
    "one step": torch.tensor([0.0, 0.5], dtype=torch.float64),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "step_size": {"step_size": 0.07},
    "cubic": {"step_size": 0.09, "interp": "cubic"},
    "perturbed cubic": {"step_size": 0.09, "interp": "cubic", "perturb": True},
    "constructor": {"grid_constructor": lambda f, y, t: torch.cat([t[:1], (t[:-1] + t[1:]) / 2, t[-1:]])},
    "perturb": {"perturb": True},
    "order": {"max_order": 5, "max_iters": 2},
}


class Solve(nn.Module):
    """A solution with a jump of the ODE at a point of every grid, so that `perturb` shows."""

    def __init__(self, method: str, t: Tensor, options: dict[str, Any]) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.linear, self.t, self.jump = nn.Linear(4, 4), t, t[1]
        self.settings: dict[str, Any] = {"method": method, "options": options}
        if method not in ("euler", "midpoint", "heun2", "heun3", "rk4"):  # correct as often as allowed
            self.settings |= {"rtol": 0.0, "atol": 0.0}

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        late = (t > self.jump).to(y)
        return torch.tanh(self.linear(y)) * torch.cos(t) - y * (0.5 + late)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = odeint(self.field, x, self.t, **self.settings)
        return y


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def difference(method: str, t: Tensor, options: dict[str, Any]) -> float:
    graph, expected = prepare_shape(Solve(method, t, options).eval(), x := torch.randn(2, 4))
    return float(np.abs(to_nnir(graph).run(x.numpy()) - expected.detach().numpy()).max())


PLAIN = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams")
# Every method with every option, each on two grids in turn; every grid meets every method and every option.
CASES = [
    (m, o, list(GRIDS)[(i + j + k) % 4])
    for i, m in enumerate(PLAIN)
    for j, o in enumerate(OPTIONS)
    for k in (0, 1)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "options", "grid"), CASES)
def test_a_solve_is_torchdiffeqs(method: str, options: str, grid: str) -> None:
    tolerance = 1e-8 if method == "explicit_adams" else 1e-12  # order 11 multiplies rounding by 591 a step
    assert difference(method, GRIDS[grid], OPTIONS[options]) < tolerance


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("grid", GRIDS)
def test_implicit_adams_is_torchdiffeqs_at_an_order_that_forgets_nothing(grid: str) -> None:
    """Corrections as often as allowed; a slope that is then forgotten is none that order 4 reads."""
    for method in ("implicit_adams", "fixed_adams"):
        for options in ({"max_order": 4}, {"max_order": 4, "max_iters": 1, "step_size": 0.06}):
            assert difference(method, GRIDS[grid], options) < 1e-12


@pytest.mark.filterwarnings("ignore")
def test_implicit_adams_that_converges_is_near() -> None:
    t = torch.linspace(0, 0.2, 21)
    solve = Solve("implicit_adams", t, {})
    solve.settings |= {"rtol": 1e-7, "atol": 1e-9}
    solve.jump = t[-1] + 1
    graph, expected = prepare_shape(solve.eval(), x := torch.randn(2, 4))
    assert np.abs(to_nnir(graph).run(x.numpy()) - expected.detach().numpy()).max() < 1e-7


@pytest.mark.parametrize("implicit", [False, True])
def test_weights_integrate_every_polynomial_of_their_order(implicit: bool) -> None:
    for order in range(1, 13):
        nodes = np.arange(order) * -1.0 + implicit
        for power in range(order):
            given = sum(w * node**power for w, node in zip(weights(order, implicit), nodes, strict=True))
            assert given == pytest.approx(1 / (power + 1), abs=1e-9 * 10.0 ** max(0, power - 2))


def test_a_high_explicit_order_is_noted() -> None:
    with pytest.warns(UserWarning, match="multiplies the rounding of slopes by 23; .*max_order"):
        prepare_shape(Solve("explicit_adams", GRIDS["uneven"], {}).eval(), torch.randn(2, 4))


def test_an_implicit_solve_that_diverges_is_refused() -> None:
    with (
        pytest.warns(UserWarning, match="did not converge"),
        pytest.raises(UnsupportedError, match="explicit_adams"),
    ):
        prepare_shape(Solve("implicit_adams", 6 * GRIDS["uneven"], {}).eval(), torch.randn(2, 4))
