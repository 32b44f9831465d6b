"""Fixed-step solvers of torchdiffeq: every method, option and kind of grid, in fp64 against torchdiffeq itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from ltc_compiler import UnsupportedError
from ltc_torch import fixed_step
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.fx.rewrites.adams import weights

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


ADAPTIVE = ["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun", None]


@pytest.mark.parametrize("method", ADAPTIVE)
def test_an_adaptive_solve_is_refused_with_a_fixed_step_that_was_tried(method: str | None) -> None:
    """The remedy is followed to the letter, and costs what it said."""
    solve = Solve("rk4", torch.linspace(0, 2, 5), {}).eval()
    solve.jump = torch.tensor(9.0)
    solve.settings = {"rtol": 1e-5, "atol": 1e-6} | ({} if method is None else {"method": method})
    x = torch.randn(2, 4)
    with pytest.raises(
        UnsupportedError, match=f"{method or 'dopri5'}.* chooses its steps by values"
    ) as caught:
        prepare_shape(solve, x)
    found = re.search(
        r"ltc_torch\.fixed_step\('rk4', (\S+)\), which differs by less than (\S+) of", str(caught.value)
    )
    assert found is not None
    size, stated = map(float, found.groups())
    assert stated <= 1e-3
    with (
        pytest.warns(UserWarning, match="differs from the adaptive solution by"),
        fixed_step("rk4", size) as step,
    ):
        graph, expected = prepare_shape(solve, x)
    assert step.error is not None
    assert 0 < step.error < stated <= max(1e-5, 10 * step.error)
    adaptive = solve(x).detach().numpy()
    assert (
        np.abs(to_nnir(graph).run(x.numpy()) - adaptive).max() <= 1.01 * stated * np.abs(adaptive).max() * 1.5
    )
    assert torch.equal(expected, solve(x)) is False


def test_an_adaptive_solve_at_computed_times_is_refused_with_what_one_step_a_point_costs() -> None:
    class AtTimes(Solve):
        def forward(self, t: Tensor) -> Tensor:
            y: Tensor = odeint(self.field, torch.ones(1, 4), t, method="dopri5")
            return y

    with pytest.raises(
        UnsupportedError, match=r"method='rk4', which differs by less than \S+ of the largest element here"
    ):
        prepare_shape(AtTimes("rk4", torch.ones(2) * 9, {}).eval(), torch.linspace(0, 1, 5))


def test_a_solve_that_no_fixed_step_follows_says_the_best() -> None:
    """A decay a hundred times faster than the largest number of steps that is tried: the least error is told."""

    def forward(x: Tensor) -> Tensor:
        y: Tensor = odeint(
            lambda t, y: -100.0 * (y - torch.cos(50 * t)), x, torch.tensor([0.0, 1.0]), method="dopri5"
        )
        return y

    class Stiff(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    with pytest.raises(UnsupportedError) as caught:
        prepare_shape(Stiff(), torch.ones(1, 2))
    found = re.search(r"fixed_step\('rk4', (\S+)\), which differs by less than (\S+) of", str(caught.value))
    assert found is not None
    assert float(found[2]) > 0
