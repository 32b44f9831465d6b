"""Solves whose ODE function reads its time by value, as neural CDEs do to find the piece of their path.

The paths are written as torchcde writes its own: the piece by bucketize of the detached time, the coefficients indexed
by it. Each step has its constants; the steps are still one scan.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from ltc_compiler import Config, UnsupportedError
from ltc_compiler.nnir import NNIR
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

CHANNELS, HIDDEN = 3, 6


class Path(nn.Module):
    """A linear or cubic path through knots at 0, 1, 2, ...; coefficients (batch, pieces, channels)."""

    knots: Tensor
    c0: Tensor
    c1: Tensor
    c2: Tensor

    def __init__(self, *coefficients: Tensor) -> None:
        super().__init__()
        for i, c in enumerate(coefficients):
            self.register_buffer(f"c{i}", c)
        self.register_buffer("knots", torch.arange(coefficients[0].size(-2) + 1.0))

    def derivative(self, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=self.c0.dtype)
        piece = torch.bucketize(t.detach(), self.knots).sub(1).clamp(0, self.c0.size(-2) - 1)
        within = t - self.knots[piece]
        if not hasattr(self, "c1"):
            return self.c0[..., piece, :]
        inner = 0.5 * self.c1[..., piece, :] + self.c2[..., piece, :] * within / 3
        return self.c0[..., piece, :] + inner * within


class Cde(nn.Module):
    """A neural CDE; `cut` makes a path of the observations (batch, time, channels)."""

    def __init__(self, cut: Callable[[Tensor], Path], adjoint: bool, ends: bool, **settings: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.field, self.start = nn.Linear(HIDDEN, HIDDEN * CHANNELS), nn.Linear(CHANNELS, HIDDEN)
        self.cut, self.ends, self.settings = cut, ends, settings
        self.odeint = odeint_adjoint if adjoint else odeint

    def forward(self, x: Tensor) -> Tensor:
        path = self.cut(x)

        class Field(nn.Module):
            def __init__(self, field: nn.Module) -> None:
                super().__init__()
                self.field, self.path = field, path

            def forward(self, t: Tensor, z: Tensor) -> Tensor:
                matrix = torch.tanh(self.field(z)).view(*z.shape[:-1], HIDDEN, CHANNELS)
                return (matrix @ self.path.derivative(t).unsqueeze(-1)).squeeze(-1)

        t = path.knots[[0, -1]] if self.ends else path.knots
        z: Tensor = self.odeint(Field(self.field), self.start(x[:, 0]), t, **self.settings)
        return z[-1] if self.ends else z.transpose(0, 1)


def linear(x: Tensor) -> Path:
    return Path(x[:, 1:] - x[:, :-1])


def cubic(x: Tensor) -> Path:
    """Hermite, with backward differences."""
    slope = x[:, 1:] - x[:, :-1]
    before = torch.cat([slope[:, :1], slope[:, :-1]], 1)
    return Path(before, 2 * (2 * slope - 2 * before), 3 * (before - slope))


def check(model: nn.Module, x: Tensor, steps: int) -> NNIR:
    graph, expected = prepare_shape(model.eval(), x)
    nnir = NNIR(to_nnir(graph).graph)
    np.testing.assert_allclose(nnir.run(x.numpy()), expected.detach().numpy(), atol=1e-5)
    scans = [n for n in nnir.graph.nodes if n.op == "scan"]
    assert sum(n.attrs["trip_count"] for n in scans) == steps
    return nnir


@pytest.mark.parametrize("cut", [linear, cubic])
@pytest.mark.parametrize(("method", "size", "steps"), [
    ("euler", None, 9), ("rk4", 1.0, 9), ("midpoint", 0.5, 18), ("heun3", 0.7, 13), ("explicit_adams", 1.0, 9),
])  # fmt: skip
def test_a_neural_cde_is_a_scan(
    cut: Callable[[Tensor], Path], method: str, size: float | None, steps: int
) -> None:
    options = {} if size is None else {"step_size": size}
    if method == "explicit_adams":
        options["max_order"] = 4
    model = Cde(cut, method != "heun3", method == "rk4", method=method, options=options)
    check(model, torch.randn(2, 10, CHANNELS), steps)


def test_a_neural_cde_streams_by_what_is_new() -> None:
    """Euler's steps read one increment each: step by step the bits are those of the whole path."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.field = nn.Linear(HIDDEN, HIDDEN * CHANNELS)
            self.register_buffer("knots", torch.arange(9.0))

        def forward(self, increments: Tensor) -> Tensor:
            path = Path(increments)

            def field(t: Tensor, z: Tensor) -> Tensor:
                matrix = torch.tanh(self.field(z)).view(*z.shape[:-1], HIDDEN, CHANNELS)
                here = path.derivative(t + 0.5)
                return (matrix @ here.unsqueeze(-1)).squeeze(-1)

            z: Tensor = odeint(field, torch.zeros(1, HIDDEN), self.knots, method="euler")
            return z[1:].transpose(0, 1)

    x = torch.randn(1, 8, CHANNELS)
    nnir = check(Steps(), x, 8)
    step, _ = nnir.streaming_transform(1)
    whole = nnir.to_program(Config.tiny_c1b8()).to_vm().run(x.numpy())
    vm = step.to_program(Config.tiny_c1b8()).to_vm()
    for t in range(8):
        assert vm.run(x[:, t].numpy()).tobytes() == whole[:, t].tobytes()


class Timed(nn.Module):
    """An ODE function of the input's pieces and its time."""

    def __init__(self, field: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.field = field

    def forward(self, x: Tensor) -> Tensor:
        t = torch.linspace(0, 3, 7)
        z: Tensor = odeint(lambda s, z: self.field(s, z, x), x[0], t, method="midpoint")
        return z


FIELDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "a number": lambda t, z, x: -z * float(t) + 0.5,
    "an index": lambda t, z, x: x[int(t) + 1] - z,
    "of a list": lambda t, z, x: [x[0], x[1], x[2], x[3]][int(t)] - z,
    "select": lambda t, z, x: x.select(0, int(t.item())) - torch.full_like(z, t.item()),
    "two indices": lambda t, z, x: x[int(t)] * x[int(t) + 1] - z,
    "a constant row": lambda t, z, x: torch.arange(8.0).view(4, 2)[int(t)] - z,
    "within": lambda t, z, x: torch.stack([x[int(t), 0], z[1]]),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_time_is_read_by_value(name: str) -> None:
    torch.manual_seed(2)
    check(Timed(FIELDS[name]), torch.randn(4, 2), 6)


@pytest.mark.parametrize(("field", "message"), [
    (lambda t, z, x: -z if t < 1 else torch.tanh(z), "at other times a step runs other operations"),
    (lambda t, z, x: -z if t < 1 else -z - x[1], "at other times a step runs .* operations"),
    (lambda t, z, x: z[[int(t) % 2, 0]], "follows from the time and is no tensor"),
    (lambda t, z, x: -z if z.sum() > 0 else z, "needs the value of a tensor that depends on the input"),
])  # fmt: skip
def test_steps_that_are_not_alike_are_refused(
    field: Callable[[Tensor, Tensor, Tensor], Tensor], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        prepare_shape(Timed(field), torch.randn(4, 2))
