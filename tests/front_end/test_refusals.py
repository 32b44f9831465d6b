"""What the front end refuses, by message: the user's line, the reason, and the rewrite that works."""

from collections.abc import Callable
from typing import Any

import ncps.torch
import ncps.wirings
import pytest
import torch
import torchdiffeq
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_compiler import GraphError, UnsupportedError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import Scan


class Apply(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def branch(x: Tensor) -> Tensor:
    return x * 2 if x.sum() > 0 else x - 1


def step_writes_outside(x: Tensor) -> Tensor:
    rows = x.new_zeros(4, 2) + x

    def step(u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        rows[0] = h
        return h, h + u

    Scan(step)(x, x[0])
    return rows


def growing_state(x: Tensor) -> Any:
    return Scan(lambda u, h: (h, torch.cat([h, h])))(x, x[0])


def solve(x: Tensor, scale: float = 1, **settings: Any) -> Tensor:
    t = scale * torch.linspace(0, 1, 5)
    return torchdiffeq.odeint(lambda t, y: -y, x, t, **settings)[-1]


T2 = torch.randn(4, 2)

# name -> (function, what the message says, the remedy it gives)
AT_ONCE: dict[str, tuple[Callable[..., Any], str, str]] = {
    "branch": (branch, "needs the value", "torch.where"),
    "item": (lambda x: x * x.sum().item(), "needs the value", "torch.where"),
    "float": (lambda x: x * float(x[0, 0]), "needs the value", "torch.where"),
    "numpy": (lambda x: torch.from_numpy(x.numpy()), "needs the value", "torch.where"),
    "nonzero": (lambda x: x.nonzero(), "needs the value", "torch.where"),
    "mask": (lambda x: x[x > 0], "indexing by a tensor that depends on the input", "torch.where"),
    "bound": (lambda x: x[: x.sum().long()], "indexing by a tensor that depends", "torch.where"),
    "tensor": (lambda x: torch.tensor([x[0, 0], x[0, 1]]), "copies the value", "torch.stack"),
    "out": (lambda x: torch.add(x, 1, out=torch.zeros(4, 2)), r"out=", "assign the returned"),
    "list write": (lambda x: x.__setitem__([0, 0], x[:2]), "index names twice", "name each once"),
    "diagonal write": (lambda x: x.fill_diagonal_(1), "no form that does not", "torch.where"),
    "shape write": (lambda x: x.t_(), "changes a tensor's shape in place", "use t"),
    "outer write": (step_writes_outside, "writes into a tensor from outside", "return the value"),
    "growing state": (growing_state, "states of a step have the shapes", "initial states"),
    "adaptive": (solve, "'dopri5' chooses its steps by values", "euler, midpoint"),
    "adams": (lambda x: solve(x, method="implicit_adams", scale=6), "do not converge", "explicit_adams"),
    "order": (
        lambda x: solve(x, method="explicit_adams", options={"max_order": 13}),
        "max_order=13",
        "at most 12",
    ),
    "event": (lambda x: solve(x, method="euler", event_fn=lambda t, y: y.sum()), "event_fn", "fixed times"),
    "interp": (lambda x: solve(x, method="euler", options={"interp": "quintic"}), "'quintic'", "'cubic'"),
    "perturb": (
        lambda x: torchdiffeq.odeint(lambda t, y: -y, x, x[:, 0], method="rk4", options={"perturb": True}),
        "perturb",
        "leave perturb out",
    ),
    "recorded grid": (
        lambda x: torchdiffeq.odeint(lambda t, y: -y, x, x[:, 0], method="euler", options={"step_size": 0.1}),
        "the number of steps follows from t",
        "one point per step",
    ),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_refused_while_recording(name: str) -> None:
    function, reason, remedy = AT_ONCE[name]
    with pytest.raises(UnsupportedError) as caught:
        prepare_shape(Apply(function).eval(), T2.clone())
    (entry,) = caught.value.entries
    assert reason in entry.reason
    assert remedy in entry.rewrite
    assert f"{__file__}:" in entry.where


def many(x: Tensor) -> Any:
    a = torch.erfinv(x)
    b = torch.special.bessel_j0(x)
    c = x + torch.randn(2)
    d = torch.sort(x)[0]
    e = x.half()
    f = x.cummax(0)[1]
    g = F.dropout(x, 0.5, training=True)
    return a + b, c * d, e, f, g, torch.fft.rfft(x).abs(), a * 3


def len_of(x: Tensor) -> Any:
    return (x > 9).sum()


SHAPES: dict[str, Callable[[Tensor], Any]] = {
    "where": lambda x: x * torch.where(x > 9)[0].numel(),
    "arange": lambda x: x * len(torch.arange(len_of(x))),
    "repeat_interleave": lambda x: x * torch.repeat_interleave(x[0], (x[0] > 9).long() + 1).numel(),
    "one_hot": lambda x: x * F.one_hot((x > 9).long()).shape[-1],
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_that_follows_from_values_is_refused(name: str) -> None:
    """Also where the inputs that are tried all give the same one."""
    with pytest.raises(
        UnsupportedError, match=f"{name}: gives a shape that follows from values of the input"
    ):
        prepare_shape(Apply(SHAPES[name]).eval(), torch.rand(3, 4))


def test_a_gradient_in_forward_is_refused() -> None:
    def force(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad((x**3).sum(), x)[0]

    with pytest.raises(UnsupportedError, match="takes a gradient while it runs"):
        prepare_shape(Apply(force).eval(), torch.rand(3, 4))


def test_a_choice_of_functions_by_a_value_is_refused() -> None:
    with pytest.raises(
        UnsupportedError, match=r"torch.cond: runs one of two functions by the value of a tensor"
    ):
        prepare_shape(
            Apply(lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))).eval(), torch.rand(3, 4)
        )


def test_everything_unsupported_is_reported_at_once() -> None:
    graph_module, _ = prepare_shape(Apply(many).eval(), T2)
    with pytest.raises(UnsupportedError) as caught:
        to_nnir(graph_module)
    entries = {e.node: e for e in caught.value.entries}
    assert set(entries) == {
        "erfinv",
        "special_bessel_j0",
        "randn",
        "sort",
        "half",
        "cummax",
        "dropout",
        "fft_rfft",
    }
    assert len(caught.value.entries) == len(entries)
    assert "random" in entries["randn"].reason
    assert "training=self.training" in entries["dropout"].rewrite or "random" in entries["dropout"].reason
    for node, text in {
        "erfinv": "a = torch.erfinv(x)",
        "sort": "d = torch.sort(x)[0]",
        "half": "e = x.half()",
    }.items():
        assert text in entries[node].where


def test_what_reads_a_refused_value_is_not_reported_again() -> None:
    graph_module, _ = prepare_shape(Apply(lambda x: torch.erfinv(x) * 2 + 1).eval(), T2)
    with pytest.raises(UnsupportedError, match="1 operation cannot be lowered"):
        to_nnir(graph_module)


def test_a_refusal_inside_a_scan_names_the_line_in_the_step() -> None:
    def step(u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return h, torch.erfinv(h + u)

    graph_module, _ = prepare_shape(Apply(lambda x: Scan(step)(x, x[0])).eval(), T2)
    with pytest.raises(UnsupportedError, match=r"torch\.erfinv\(h \+ u\)"):
        to_nnir(graph_module)


def test_an_unused_unsupported_operation_is_no_obstacle() -> None:
    def forward(x: Tensor) -> Tensor:
        torch.sort(x)
        torch.randn(3)
        return x + 1

    assert len(to_nnir(prepare_shape(Apply(forward).eval(), T2)[0]).graph.outputs) == 1


def test_elapsed_time_of_a_cell_must_not_meet_the_units() -> None:
    cell = ncps.torch.LTCCell(ncps.wirings.FullyConnected(3), 2).eval()
    graph_module, _ = prepare_shape(cell, torch.randn(3, 2), torch.randn(3, 3), torch.rand(3) + 0.1)
    with pytest.raises(UnsupportedError, match=r"\(batch, 1\)"):
        to_nnir(graph_module)


@pytest.mark.parametrize("batch", [3, 4])
@pytest.mark.parametrize("network", [ncps.torch.LTC, ncps.torch.CfC])
def test_spans_per_sample_are_refused(network: Any, batch: int) -> None:
    """ncps 1.0.1 gives them to the units where batch equals units, and fails on shapes elsewhere."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network(2, 3)

        def forward(self, x: Tensor, spans: Tensor) -> Tensor:
            y: Tensor = self.network(x, timespans=spans)[0]
            return y

    with pytest.raises(UnsupportedError, match="batch above 1") as caught:
        prepare_shape(Model().eval(), torch.randn(batch, 4, 2), torch.ones(batch, 4))
    assert "self.network(x, timespans=spans)" in str(caught.value)


def test_other_graphs_are_refused() -> None:
    with pytest.raises(GraphError, match="no shapes"):
        to_nnir(torch.fx.symbolic_trace(nn.Linear(2, 2)))


def test_precisions_must_match_the_tensors() -> None:
    graph_module, _ = prepare_shape(nn.Linear(2, 2).eval(), T2)
    with pytest.raises(GraphError, match="0 inputs_precisions for 1"):
        to_nnir(graph_module, [])
    with pytest.raises(GraphError, match="0 outputs_precisions for 1"):
        to_nnir(graph_module, None, [])
