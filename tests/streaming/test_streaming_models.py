"""The streaming rules as PyTorch users meet them: a model for each row, on the machine, step by step and whole.

tests/streaming/test_rules.py has the rules one by one on graphs; tests/models/test_machine.py streams the zoo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ncps.torch
import numpy as np
import pytest
import torch
import torchdiffeq
from recorded_models import Recorded, assert_streams, record, run_both
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_compiler import Config
from ltc_compiler.errors import StreamingError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import GatedLTC, PaddedConv1d, Scan
from zoo import ZooModel
from zoo.basic import Apply

B, T, D = 2, 7, 4
MACHINE = Config.tiny_c2b8()
MACHINE_WITH_ROOM = replace(
    Config.tiny_c1b8(), tensor_rows=1 << 14, weight_blocks=1 << 12, synapse_slots=1 << 12
)
W, BAND = torch.randn(5, B), torch.ones(T, T).tril().triu(-3)
V = torch.randn(5, D)
DISTANCE = torch.arange(T)[:, None] - torch.arange(T)  # how many steps ago a position was


def solve(x: Tensor) -> Tensor:
    y: Tensor = torchdiffeq.odeint(lambda t, y: torch.tanh(y) - x, x, torch.linspace(0, 1, 4), method="rk4")
    return y[-1]


def loop(state: Any, x: Tensor) -> Tensor:
    """A filter written as a loop; from a number its first iteration is one of its own."""
    states = []
    for t in range(T):
        state = 0.9 * state + torch.tanh(x[:, t])
        states.append(state)
    return torch.stack(states, 1)


def patches(x: Tensor) -> Tensor:
    """(B, 3, T * D)."""
    return F.unfold(x[:, None], (1, 3), padding=(0, 1))


def over_features(x: Tensor) -> Tensor:
    """A scan over another axis than time."""
    y: Tensor = Scan(lambda u, s: (s + u, s + u))(x, x[..., 0] * 0, 2, 2)[0]
    return y


class Frames(nn.Module):
    """Every step a picture: a convolution over the merged axes, and an LSTM over what it makes of the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.frame, self.lstm = nn.Conv2d(1, 3, 2), nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.frame(x.view(B * T, 1, 2, D // 2))).flatten(1)
        y, _ = self.lstm(y.view(B, T, -1))
        return y


# row of the rules -> (model, latency): x is (B, T, D), streamed along time; modules take it with channels first
WORKS: dict[str, tuple[Any, int]] = {
    "pointwise": (lambda x: torch.tanh(x) * 2 + x.exp(), 0),
    "where": (lambda x: torch.where(x > 0, x, -0.5), 0),
    "concatenation of features": (lambda x: torch.cat([x, x * 2], 2), 0),
    "different offsets get a delay line": (lambda x: x[:, 2:] * x[:, :-2] + x[:, 1:-1], 2),
    "linear": (nn.Linear(D, 3), 0),
    "matmul over another axis": (lambda x: x.permute(2, 1, 0) @ W.T, 0),
    "permute, squeeze, expand, view": (
        lambda x: x.permute(1, 0, 2).unsqueeze(1).expand(-1, 3, -1, -1).reshape(T, 3, B * D).transpose(0, 2),
        0,
    ),
    "convolution": (nn.Conv1d(D, 3, 3), 2),
    "dilated convolution": (nn.Conv1d(D, 3, 3, dilation=2), 4),
    "grouped convolution": (nn.Conv1d(D, 6, 2, groups=2), 1),
    "convolution padded on both sides": (nn.Conv1d(D, 3, 3, padding=1), 1),
    "padded convolution": (nn.Sequential(nn.ConstantPad1d((2, 0), 0.25), nn.Conv1d(D, 3, 3)), 0),
    "half padded convolution": (nn.Sequential(nn.ConstantPad1d((1, 0), 0.0), nn.Conv1d(D, 3, 3)), 1),
    "convolution of a late stream": (nn.Sequential(nn.Conv1d(D, 3, 2), nn.Tanh(), PaddedConv1d(3, 3, 2)), 1),
    "causal pooling": (lambda x: F.max_pool1d(F.pad(x.mT, (2, 0)), 3, 1) + F.avg_pool1d(x.mT, 1), 0),
    "pooling without padding": (lambda x: F.avg_pool1d(x.mT, 3, 1), 2),
    "slice": (lambda x: x[:, 2:], 2),
    "LSTM": (nn.LSTM(D, 5, batch_first=True), 0),
    "last value": (lambda x: x[:, -1] * 2, 0),
    "Scan": (lambda x: Scan(lambda u, s: (s, 0.5 * s + u))(x, x.new_zeros(B, D), 1, 1)[0], 0),
    "recurrence of a late stream": (lambda x: torch.cumsum(x[:, 1:] - x[:, :-1], 1), 1),
    "scan over another axis": (over_features, 0),
    "ODE solve within each step": (solve, 0),
    "cumulative sum": (lambda x: torch.cumsum(x, 1), 0),
    "causal attention": (lambda x: F.scaled_dot_product_attention(x, x * 2, x, is_causal=True), 0),
    "causal attention of a late stream": (lambda x: attend(x[:, 1:] - x[:, :-1]), 1),
    "windowed attention": (lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=BAND > 0), 0),
    "windowed attention, mask added": (
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.log(BAND)),
        0,
    ),
    "attention with a bias by distance": (
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.log(BAND) - 0.3 * DISTANCE),
        0,
    ),
    "attention written out": (
        lambda x: F.softmax((x @ x.mT / 2 - 0.3 * DISTANCE).masked_fill(BAND == 0, -1e9), -1) @ x,
        0,
    ),
    "attention by einsum": (
        lambda x: torch.einsum(
            "bts,bsd->btd", (torch.einsum("btd,bsd->bts", x, x) / 2 - 1e9 * (BAND == 0)).softmax(-1), x
        ),
        0,
    ),
    "batch and time merged": (
        lambda x: torch.tanh(F.layer_norm(F.linear(x.reshape(-1, D), V), (5,))).view(B, T, 5) + 1,
        0,
    ),
    "time and batch merged, and merged once more": (
        lambda x: (
            F.softmax(F.linear(x.transpose(0, 1).flatten(0, 1), V)[:, 1:].reshape(T * B, 2, 2), -1)
            .amax(2)
            .reshape(T, B, 2)
            .transpose(0, 1)
        ),
        0,
    ),
    "frames": (Frames(), 0),
    "patches of features": (lambda x: F.unfold(x[:, None], (1, 3), padding=(0, 1)).view(B, 3, T, D), 0),
    "patches over time": (lambda x: F.unfold(x[:, None], (3, 2)).view(B, 6, T - 2, D - 1), 2),
    "patches put back": (
        lambda x: F.fold(F.unfold(x[:, None], (1, 2), stride=(1, 2)), (T, D), (1, 2), stride=(1, 2)),
        0,
    ),
    "patches weighed": (
        lambda x: F.fold(patches(x).softmax(1) * patches(x), (T, D), (1, 3), padding=(0, 1)),
        0,
    ),
    "a product with patches": (lambda x: (V[:, :3] @ patches(x)).view(B, 5, T, D), 0),
    "a layer over patches": (
        lambda x: F.linear(patches(x).transpose(1, 2), V[:, :3]).transpose(1, 2).reshape(B, 5, T, D),
        0,
    ),
    "a convolution over time and features merged": (
        lambda x: F.conv1d(x.flatten(1)[:, None], V[:, :1, None], V[:, 1]).view(B, 5, T, D).relu(),
        0,
    ),
    "time and features merged, joined and cut": (
        lambda x: (
            torch.cat([x.flatten(1)[:, None], patches(x)[:, 1:]], 1).amax(1, keepdim=True).view(B, T, D)
        ),
        0,
    ),
    "a merged sum of two": (
        lambda x: (x.reshape(B * T, D) * x.flip(2).reshape(B * T, D) + x[..., :1].reshape(B * T, 1)).reshape(
            B, T, D
        ),
        0,
    ),
    "distance from the first value": (lambda x: torch.tanh(x - x[:, :1]) * x[:, :1].sum(2, keepdim=True), 0),
    "loop from the first value": (lambda x: loop(x[:, 0], x), 0),
    "loop from a number": (lambda x: loop(0.0, x), 0),
    "Scan from the first value": (lambda x: Scan(lambda u, s: (s * u, s + u))(x, x[:, 0] * 2, 1, 1)[0], 0),
    "running maximum": (lambda x: torch.cummax(x, 1).values, 0),
    "running log-sum-exp": (lambda x: torch.logcumsumexp(x, 1), 0),
    "einsum": (lambda x: torch.einsum("btd,ud,btd->btu", x, V, x), 0),
    "reduction of features": (lambda x: x.sum(2) + x.amax(-1), 0),
    "softmax of features": (lambda x: F.softmax(x, -1), 0),
    "layer norm": (nn.LayerNorm(D), 0),
    "sum over the batch": (lambda x: x.mean(0), 0),
}


def attend(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, is_causal=True)


def recorded(model: Any) -> tuple[Recorded, int]:
    """The model on (B, T, D), or on (B, D, T) for a module that takes channels first; and the streamed axis."""
    if isinstance(model, nn.Module):
        first = next(m for m in model.modules() if not isinstance(m, nn.Sequential))
        channels_first = isinstance(first, nn.Conv1d | nn.ConstantPad1d)
    else:
        model, channels_first = Apply(model), False
    axis = 2 if channels_first else 1
    case = ZooModel(
        "row", lambda: model, lambda: (torch.randn((B, D, T) if channels_first else (B, T, D)),), (axis,)
    )
    return record(case, "default"), axis


@pytest.mark.parametrize("row", WORKS)
def test_what_streams(row: str) -> None:
    model, late = WORKS[row]
    made, axis = recorded(model)
    latencies = made.nnir.streaming_transform(axis)[0].graph.output_latencies
    assert latencies is not None
    assert latencies[0] == late
    assert_streams(made, MACHINE, run_both(made.nnir.to_program(MACHINE), made.inputs))


def test_a_stream_that_runs_on_sees_the_last_positions() -> None:
    """After T steps the ring of causal attention has turned: the oldest position is forgotten."""
    step, _ = to_nnir(
        prepare_shape(Apply(attend).eval(), torch.randn(1, 4, D))[0], context=4
    ).streaming_transform(1)
    vm = step.to_program(MACHINE).to_vm()
    x = torch.randn(1, 11, D)
    y = np.stack([vm.run(x[:, t].numpy()) for t in range(11)], 1)
    mask = torch.ones(11, 11).tril().triu(-3) > 0
    expected = F.scaled_dot_product_attention(x, x, x, attn_mask=mask).numpy()
    assert np.abs(y - expected).max() < 1e-5


class Joined(nn.Module):
    """Inputs side by side into a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *x: Tensor) -> Tensor:
        y: Tensor = self.layer(torch.cat(x, -1))[0]
        return y


class Filter(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Linear(width, 13)

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        states, last = Scan(self._step)(u, u.new_zeros(u.shape[0], 13), 1, 1)
        return states, last

    def _step(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.a(u) + 0.5 * h
        return h, h


@pytest.mark.parametrize("widths", [(9, 9), (3, 3, 3), (20, 20, 20), (9, 5), (7, 20, 7)])
@pytest.mark.parametrize("layer", ["Filter", "LSTM", "GRU", "RNN", "LTC", "CfC", "GatedLTC"])
def test_a_window_is_one_in_both_forms(layer: str, widths: tuple[int, ...]) -> None:
    """Room is left behind the parts of a concatenation in the step if it is in the whole sequence."""
    torch.manual_seed(len(layer) + sum(widths))
    made: Callable[[int], nn.Module] = {
        "Filter": Filter,
        "LSTM": lambda d: nn.LSTM(d, 24, batch_first=True),
        "GRU": lambda d: nn.GRU(d, 24, batch_first=True),
        "RNN": lambda d: nn.RNN(d, 13, batch_first=True),
        "LTC": lambda d: ncps.torch.LTC(d, 5),
        "CfC": lambda d: ncps.torch.CfC(d, 9),
        "GatedLTC": lambda d: GatedLTC(d, 13),
    }[layer]
    x = [torch.randn(1, 12, w) for w in widths]
    nnir = to_nnir(prepare_shape(Joined(made(sum(widths))).eval(), *x)[0])
    whole = nnir.to_program(MACHINE_WITH_ROOM, quick_compile=True).to_vm().run(*x)
    step, axis = nnir.streaming_transform(1)
    assert axis == 1
    vm = step.to_program(Config.small_c2b16(), quick_compile=True).to_vm()
    found = np.stack([vm.run(*(a[:, t] for a in x)) for t in range(12)], 1)
    assert found.tobytes() == whole.tobytes()


def test_initial_states_are_inputs_of_the_first_step() -> None:
    """They are read in the first step after a reset, and in no other."""
    lstm = nn.LSTM(D, 5, batch_first=True).eval()
    x, h, c = torch.randn(B, T, D), torch.randn(1, B, 5), torch.randn(1, B, 5)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = lstm

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
            y: Tensor = self.lstm(x, (h, c))[0]
            return y

    whole = to_nnir(prepare_shape(Model().eval(), x, h, c)[0])
    y = whole.to_program(MACHINE).to_vm().run(x.numpy(), h.numpy(), c.numpy())
    vm = whole.streaming_transform((1, None, None))[0].to_program(MACHINE).to_vm()
    noise = np.full((1, B, 5), 9.0, np.float32)
    for _ in range(2):
        rows = [
            vm.run(x[:, t].numpy(), *((h.numpy(), c.numpy()) if t == 0 else (noise, noise))) for t in range(T)
        ]
        assert np.stack(rows, 1).tobytes() == y.tobytes()
        vm.reset()


# row -> (model, what the message says, the remedy)
REFUSED: dict[str, tuple[Callable[[Tensor], Any] | nn.Module, str, str]] = {
    "product over time": (lambda x: F.linear(x.mT, torch.ones(3, T)), "sums over the streamed axis", "causal"),
    "streams on different axes": (lambda x: x @ x.mT, "stream on different axes", "permute"),
    "attention to all": (lambda x: F.scaled_dot_product_attention(x, x, x), "different axes", "is_causal=True"),
    "merged axis": (lambda x: x.flatten(1), "merges or splits", "dimension of its own"),
    "stride": (lambda x: F.conv1d(x.mT, torch.ones(2, D, 3), stride=2), "changes the rate", "stride of 1"),
    "pooling with a stride": (lambda x: F.max_pool1d(x.mT, 2), "changes the rate", "stride of 1"),
    "every other step": (lambda x: x[:, ::2], "changes the rate", "stride of 1"),
    "one step": (lambda x: x[:, 2], "selects the fixed step 2 of 7", "-1"),
    "bidirectional": (nn.GRU(D, 3, batch_first=True, bidirectional=True), "fixed step", "bidirectional"),
    "flip": (lambda x: x.flip(1), "fixed step", "backwards"),
    "loop in Python": (lambda x: torch.stack([x[:, t] for t in range(T)], 1), "fixed step", "ltc_torch.nn.Scan"),
    "sum over time": (lambda x: x.sum(1), "reduces over all 7", "causal form"),
    "maximum over time": (lambda x: x.amax(1), "reduces over all 7", "causal form"),
    "softmax over time": (lambda x: F.softmax(x, 1), "reduces over all 7", "causal form"),
    "norm over time": (nn.LayerNorm((T, D)), "reduces over all 7", "causal form"),
    "end to end": (lambda x: torch.cat([x, x], 1), "end to end", "constants alone"),
    "reflection": (lambda x: F.pad(x.mT, (2, 0), mode="reflect"), "fixed step", "-1"),
    "attention with a bias by position": (
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.log(BAND) + torch.arange(T)[:, None]),
        "different axes",
        "is_causal=True",
    ),
    "distance from the end": (lambda x: x - x[:, -1:], "joins the last step", "each step"),
    "the sequence inside a step": (
        lambda x: Scan(lambda u, s: (s, s + u * x.sum(1)))(x, x.new_zeros(B, D), 1, 1)[0],
        "reads another stream whole",
        "its own slice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED)
def test_what_does_not_stream(row: str) -> None:
    model, what, remedy = REFUSED[row]
    model = model if isinstance(model, nn.Module) else Apply(model)
    nnir = to_nnir(prepare_shape(model.eval(), torch.randn(B, T, D))[0])
    with pytest.raises(StreamingError, match=what) as caught:
        nnir.streaming_transform(1)
    assert remedy in caught.value.remedy
    assert f"{__file__}:" in caught.value.where
