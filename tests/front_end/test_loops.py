"""Loops over time in Python: rolled up into scans that stream, or left as they were written."""

from __future__ import annotations

from typing import Any

import ncps.torch
import ncps.wirings
import numpy as np
import pytest
import torch
import torchdiffeq
from recorded_models import assert_streams, error, record, run_both
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_compiler import Config
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.fx.reroll.rolled import as_scan
from zoo import ZooModel

B, T, D, H = 2, 6, 4, 8
MACHINE = Config.tiny_c2b8()


class Parts(nn.Module):
    """What the loops below are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.second = nn.LSTMCell(D, H), nn.GRUCell(D, H), nn.GRUCell(H, H)
        self.w, self.u, self.readout = nn.Linear(D, H), nn.Linear(H, H), nn.Linear(H, 3)
        self.tau, self.h0 = nn.Parameter(torch.rand(H)), nn.Parameter(torch.randn(1, H))
        self.ltc = ncps.torch.LTCCell(ncps.wirings.AutoNCP(8, 3), D)


class Appended(Parts):
    def forward(self, x: Tensor) -> Tensor:
        h, c, outputs = torch.zeros(B, H), torch.zeros(B, H), []
        for t in range(x.size(1)):
            h, c = self.lstm(x[:, t], (h, c))
            outputs.append(self.readout(h))
        return torch.stack(outputs, 1)


class NoState(Parts):
    """The cell makes its first state itself; the outputs are joined by cat, and the last state is returned."""

    def forward(self, x: Tensor) -> Any:
        h, outputs = None, []
        for u in x.unbind(1):
            h = self.gru(u, h)
            outputs.append(h.unsqueeze(1))
        return torch.cat(outputs, dim=1), h


class LearnedState(Parts):
    """A leaky integrator from a parameter; only the last state matters."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.h0.expand(B, -1)
        for t in range(x.shape[1]):
            h = h + 0.1 * (torch.tanh(self.w(x[:, t, :]) + self.u(h)) - h / F.softplus(self.tau))
        y: Tensor = self.readout(h)
        return y


class Filled(Parts):
    def forward(self, x: Tensor) -> Tensor:
        out, h = torch.zeros(B, x.shape[1], H), x.new_zeros(B, H)
        for t in range(x.shape[1]):
            h = torch.tanh(self.w(x[:, t]) + self.u(h))
            out[:, t] = h
        y: Tensor = self.readout(out)
        return y


class Layers(Parts):
    """The second loop reads the list that the first one made."""

    def forward(self, x: Tensor) -> Tensor:
        inputs = [x[:, t] for t in range(x.shape[1])]
        for cell in (self.gru, self.second):
            h, outputs = torch.zeros(B, H), []
            for u in inputs:
                h = cell(u, h)
                outputs.append(h)
            inputs = outputs
        return torch.stack(inputs, 1)


class Differences(Parts):
    """Each iteration reads this step and the one before."""

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = torch.zeros(B, H), []
        for t in range(1, x.shape[1]):
            h = h + self.w(x[:, t] - x[:, t - 1]) * torch.sigmoid(self.u(h))
            outputs.append(h)
        return torch.stack(outputs, dim=1)


class Unfolds(Parts):
    """A loop inside the loop; over a tensor, time first."""

    def forward(self, x: Tensor) -> Any:
        h, outputs = torch.zeros(B, H), []
        for u in x.transpose(0, 1):
            for _ in range(3):
                h = h + 0.3 * torch.tanh(self.w(u) + self.u(h))
            outputs.append(h)
        return torch.stack(outputs).transpose(0, 1), outputs[-1]


class Lags(Parts):
    """A filter of second order: an iteration reads the outputs of the two iterations before."""

    def forward(self, x: Tensor) -> Tensor:
        outputs = [torch.zeros(B, D), torch.ones(B, D)]
        for t in range(x.shape[1]):
            outputs.append(0.5 * outputs[-1] - 0.2 * outputs[-2] + x[:, t])
        return torch.stack(outputs[2:], 1)


class Kept(Parts):
    """Slices of one element, and two results."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h, states, gates = torch.zeros(B, 1, H), [], []
        for t in range(x.shape[1]):
            z = torch.sigmoid(self.u(h))
            h = z * h + (1 - z) * torch.tanh(self.w(x[:, t : t + 1, :]))
            states.append(h)
            gates.append(z)
        return {"h": torch.cat(states, 1), "z": torch.cat(gates, 1)}


class Zipped(Parts):
    """Two sequences side by side, both cut before the loop."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(B, H)
        outputs: list[Tensor] = []
        for u, gate in zip(self.w(x).unbind(1), torch.sigmoid(self.w(x) - 1).unbind(1), strict=True):
            h = self.second(u, h) * gate
            outputs += [h[:, None]]
        return torch.cat(outputs, 1)


class Solves(Parts):
    def forward(self, x: Tensor) -> Tensor:
        h, times = torch.zeros(B, H), torch.linspace(0, 1, 3)
        outputs: list[Tensor] = []
        for t in range(x.shape[1]):
            u = self.w(x[:, t])
            h = torchdiffeq.odeint(lambda _, y: torch.tanh(self.u(y) + u) - y, h, times, method="rk4")[-1]  # noqa: B023
            outputs.append(h)
        return torch.stack(outputs, 1)


class Between(Parts):
    """An ODE-RNN: the state, constant at first, is solved forward before each input is looked at."""

    def forward(self, x: Tensor) -> Tensor:
        h, times = torch.zeros(B, H), torch.linspace(0, 1, 3)
        outputs: list[Tensor] = []
        for t in range(x.shape[1]):
            h = torchdiffeq.odeint(lambda _, y: torch.tanh(self.u(y)) - y, h, times, method="rk4")[-1]
            h = self.gru(x[:, t], h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class Ticks(Parts):
    """A cell that stays one node runs on constants first."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(B, 8)
        outputs: list[Tensor] = []
        for t in range(x.shape[1]):
            _, h = self.ltc(torch.ones(B, D), h)
            h = h + self.w(x[:, t])
            outputs.append(h)
        return torch.stack(outputs, 1)


class OneOfBatch(Parts):
    """A controller without a batch: its reads name an element of the first axis, too."""

    def forward(self, x: Tensor) -> Tensor:
        integral, last = torch.zeros(D), torch.zeros(D)
        outputs: list[Tensor] = []
        for t in range(x.shape[1]):
            error = x[1, t]
            integral = (integral + 0.1 * error).clamp(-1, 1)
            outputs.append(error + integral + (error - last) / 0.1)
            last = error
        return torch.stack(outputs)


class Liquid(Parts):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(B, 8)
        outputs: list[Tensor] = []
        for t in range(x.shape[1]):
            y, h = self.ltc(x[:, t], h)
            outputs.append(y)
        return torch.stack(outputs, 1)


class Backwards(Parts):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(B, H)
        outputs: list[Tensor] = []
        for t in reversed(range(x.shape[1])):
            h = self.gru(x[:, t], h)
            outputs.insert(0, h)
        return torch.stack(outputs, 1)


STREAM = (
    Appended,
    NoState,
    LearnedState,
    Filled,
    Layers,
    Differences,
    Unfolds,
    Lags,
    Kept,
    Zipped,
    Solves,
    Between,
    Ticks,
    OneOfBatch,
    Liquid,
)


def scans(model: type[Parts], steps: int = T) -> tuple[int, int]:
    """The scans over time of a model, and all its nodes."""
    graph = to_nnir(prepare_shape(model().eval(), torch.randn(B, steps, D))[0]).graph
    return sum(n.op == "scan" and n.attrs["scanned"] > 0 for n in graph.nodes), sum(1 for _ in graph.walk())


@pytest.mark.parametrize("model", STREAM, ids=lambda m: m.__name__)
def test_a_loop_streams(model: type[Parts]) -> None:
    """On both machines, step by step as the whole sequence; and the graph does not grow with the sequence."""
    made = record(ZooModel(model.__name__, model, lambda: (torch.randn(B, T, D),), (1,)), "default")
    outputs = run_both(made.nnir.to_program(MACHINE), made.inputs)
    assert error(outputs, made.expected) < 0.02
    assert_streams(made, MACHINE, outputs)
    assert scans(model, 5)[1] == scans(model, 9)[1]


def test_a_backward_loop_is_rolled_too() -> None:
    assert scans(Backwards)[0] == 1
    made = record(ZooModel("backwards", Backwards, lambda: (torch.randn(B, T, D),)), "fp32")
    assert error([made.nnir.run(*made.inputs)], made.expected) < 1e-5


class Schedule(Parts):
    """The iterations differ by a number that Python computes."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(B, H)
        for t in range(x.shape[1]):
            h = h * (0.5 + 0.1 * t) + self.w(x[:, t])
        return h


class Skips(Parts):
    """Every other iteration does something else."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(B, H)
        for t in range(x.shape[1]):
            h = torch.tanh(h + self.w(x[:, t])) if t % 2 else h + self.w(x[:, t])
        return h


class Attends(Parts):
    """An iteration reads all iterations before it."""

    def forward(self, x: Tensor) -> Tensor:
        states = [self.w(x[:, 0])]
        for t in range(1, x.shape[1]):
            states.append(torch.tanh(self.w(x[:, t]) + torch.stack(states).sum(0)))
        return torch.stack(states, 1)


@pytest.mark.parametrize("model", [Schedule, Skips, Attends], ids=lambda m: m.__name__)
def test_iterations_that_differ_stay_unrolled(model: type[Parts]) -> None:
    assert scans(model)[0] == 0
    made = record(ZooModel(model.__name__, model, lambda: (torch.randn(B, T, D),)), "fp32")
    assert error([made.nnir.run(*made.inputs)], made.expected) < 1e-5


def test_a_graph_that_computes_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hypothesis is executed: a loop whose body was found wrongly leaves the recording as it was."""

    def wrong(module: Any, loop: Any) -> Any:
        made = as_scan(module, loop)
        body: Any = made.get_submodule(next(n for n, _ in made.named_children() if n.startswith("_loop_")))
        node = next(n for n in body.graph.nodes if n.target is torch.tanh)
        node.target = torch.sigmoid
        body.recompile()
        return made

    assert scans(LearnedState)[0] == 1
    monkeypatch.setattr("ltc_torch.fx.reroll.reroll.as_scan", wrong)
    assert scans(LearnedState)[0] == 0
    x = torch.randn(B, T, D)
    graph, expected = prepare_shape(LearnedState().eval(), x)
    assert np.abs(to_nnir(graph).run(x.numpy()) - expected.detach().numpy()).max() < 1e-5


class JoinedTwice(Parts):
    def forward(self, x: Tensor) -> Tensor:
        """A concatenation that another one holds twice, and once more behind it."""
        grown = torch.cat([x, self.w(x)], -1)
        return torch.cat([torch.cat([grown, grown], -1), grown], -1)


def test_a_part_that_is_joined_twice_stays() -> None:
    made = record(ZooModel("JoinedTwice", JoinedTwice, lambda: (torch.randn(B, T, D),)), "fp32")
    assert error([made.nnir.run(*made.inputs)], made.expected) < 1e-5
