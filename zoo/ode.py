"""torchdiffeq inside forward: every fixed-step method, closures, modules, tuples of states, times of every kind."""

from __future__ import annotations

from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn
from torch.nn import functional as F
from torchdiffeq import odeint as integrate
from torchdiffeq import odeint_adjoint

from zoo.basic import B, D, H, T, x


class Closure(nn.Module):
    """A solve per time step in a Python loop; the ODE function closes over the input of the step."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.w_in, self.w_rec = nn.Linear(D, H), nn.Linear(H, H, bias=False)
        self.tau, self.level = nn.Parameter(torch.rand(H) + 0.5), nn.Parameter(torch.randn(H))
        self.method = method

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        h = inputs.new_zeros(inputs.shape[0], H)
        t = torch.linspace(0.0, 1.0, 4)
        rows = []
        for k in range(3):
            u = inputs[:, k]

            def f(_: Tensor, state: Tensor, u: Tensor = u) -> Tensor:
                gate = torch.sigmoid(self.w_in(u) + self.w_rec(state))
                return -(1 / F.softplus(self.tau) + gate) * state + gate * self.level

            h = integrate(f, h, t.to(h), method=self.method)[-1]
            rows.append(h)
        return torch.stack(rows, 1), h


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(H, H)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.linear(y)) * torch.cos(t) - y * 0.5


class Module(nn.Module):
    """The ODE function is a module, the solution is read at several times."""

    def __init__(
        self, times: list[float], method: str, adjoint: bool = False, tolerance: float = 1e-7, **options: Any
    ) -> None:
        super().__init__()
        self.field, self.encode = Field(), nn.Linear(D, H)
        self.times, self.method, self.options, self.tolerance = times, method, options, tolerance
        self.solve = odeint_adjoint if adjoint else torchdiffeq.odeint

    def forward(self, inputs: Tensor) -> Tensor:
        t = torch.tensor(self.times).to(inputs)
        settings = {"rtol": self.tolerance, "atol": self.tolerance, "options": self.options}
        y: Tensor = self.solve(self.field, self.encode(inputs), t, method=self.method, **settings)
        return y


class Pair(nn.Module):
    """A damped oscillator: a tuple of states, a decreasing time, the last state alone."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.rand(D))

    def forward(self, position: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
        def f(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            p, v = state
            return v, -self.k * p - 0.1 * v

        p, v = integrate(f, (position, speed), torch.tensor([1.0, 0.4, 0.1]).to(position), method="midpoint")
        return p[-1], v[1]


class InputTimes(nn.Module):
    """Times that are an input."""

    def __init__(self) -> None:
        super().__init__()
        self.field = Field()

    def forward(self, y0: Tensor, t: Tensor) -> Tensor:
        y: Tensor = integrate(self.constant, y0, t, method="heun3")
        return y[-1]

    def constant(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.field.linear(y)) - y * t


class SteadyState(nn.Module):
    """A solve that depends on constants and a capture alone."""

    def forward(self, drive: Tensor) -> Tensor:
        t, y0 = torch.linspace(0, 2, 9).to(drive), torch.zeros(B, D).to(drive)
        y: Tensor = integrate(lambda t, y: drive - y, y0, t, method="euler")
        return y.mean(0)


MODELS: dict[str, tuple[Any, ...]] = {
    **{
        f"ode_{m}": (lambda m=m: Closure(m), x(B, 3, D))
        for m in ("euler", "midpoint", "heun2", "heun3", "rk4")
    },
    "ode_module": (lambda: Module([0.0, 0.5, 1.0], "rk4", step_size=0.25), x(B, D)),
    "ode_one_time": (lambda: Module([0.0, 1.0], "rk4", step_size=0.3), x(B, D)),
    "ode_interpolated": (lambda: Module([0.0, 0.35, 0.4, 1.0], "euler", step_size=0.25), x(B, D)),
    "ode_cubic": (lambda: Module([0.0, 0.35, 0.4, 1.0], "heun2", step_size=0.25, interp="cubic"), x(B, D)),
    "ode_perturb": (lambda: Module([1.0, 0.3, 0.0], "rk4", perturb=True), x(B, D)),
    "ode_explicit_adams": (
        lambda: Module([0.0, 0.5, 2.0], "explicit_adams", step_size=0.125, max_order=5),
        x(B, D),
    ),
    # without a tolerance torchdiffeq corrects as often as it may; at this order it forgets nothing that is used
    "ode_implicit_adams": (
        lambda: Module(
            [0.0, 0.5, 1.0], "implicit_adams", tolerance=0.0, step_size=0.1, max_order=4, max_iters=2
        ),
        x(B, T, D),
        (1,),
    ),
    "ode_uneven": (lambda: Module([0.0, 0.35, 0.4, 1.0], "midpoint"), x(B, D)),
    "ode_adjoint": (lambda: Module([0.0, 0.5, 1.0], "heun2", True), x(B, T, D), (1,)),
    "ode_backwards": (lambda: Module([1.0, 0.0], "rk4", step_size=0.3), x(B, D)),
    "ode_pair": (Pair, lambda: (torch.randn(B, D), torch.randn(B, D))),
    "ode_input_times": (InputTimes, lambda: (torch.randn(B, H), torch.tensor([0.0, 0.3, 0.5, 1.1]))),
    "ode_captures": (SteadyState, x(B, D)),
}
