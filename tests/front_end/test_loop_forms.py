"""Forms in which people write a loop over time: each becomes a scan, streams with the bits of the whole, and equals
PyTorch on a sequence longer than the example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltc_compiler import Config
from ltc_compiler.errors import StreamingError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

B, T, D, H = 2, 6, 3, 8
LOOPS: dict[str, Callable[..., Any]] = {}


class Parts(nn.Module):
    """What the loops are made of, and one of them as the forward."""

    def __init__(self, loop: Callable[..., Any]) -> None:
        super().__init__()
        self.loop = loop
        self.gru, self.second, self.lstm = nn.GRUCell(D, H), nn.GRUCell(H, H), nn.LSTMCell(D, H)
        self.w, self.u, self.o = nn.Linear(D, H), nn.Linear(H, H), nn.Linear(H, 2)
        self.h0 = nn.Parameter(torch.randn(H))
        self.register_buffer("leak", torch.tensor(0.25))

    def forward(self, x: Tensor) -> Any:
        return self.loop(self, x)


def loop(function: Callable[..., Any]) -> Callable[..., Any]:
    LOOPS[function.__name__] = function
    return function


# ---------------------------------------------------------------- outputs


@loop
def three_outputs(m: Any, x: Tensor) -> Any:
    a, b, c = torch.zeros(B, x.shape[1], H), torch.empty(B, x.shape[1], 2), torch.zeros(x.shape[1], B, H)
    h = s = torch.zeros(B, H)
    for t in range(x.shape[1]):
        h, s = m.lstm(x[:, t], (h, s))
        a[:, t, :] = h
        b[:, t] = m.o(h)
        c[t] = s
    return a, b, c.transpose(0, 1)


@loop
def read_back_behind_zeros(m: Any, x: Tensor) -> Any:
    """Two constants of one tensor: the state that the loop starts from, and the element in front of it."""
    y = torch.zeros_like(x)
    for t in range(1, x.shape[1]):
        y[:, t] = x[:, t] + 0.5 * y[:, t - 1]
    return y


@loop
def two_fields_of_one_output(m: Any, x: Tensor) -> Any:
    a, h = torch.zeros(B, x.shape[1], H + 3), torch.zeros(B, H)
    for t in range(x.shape[1]):
        h = m.gru(x[:, t], h)
        a[:, t, :H] = h
        a[:, t, H + 1 :] = m.o(h)
    return a


@loop
def an_output_that_holds_the_state(m: Any, x: Tensor) -> Any:
    a = torch.zeros(B, x.shape[1] + 1, H)
    a[:, 0] = m.h0
    for t in range(x.shape[1]):
        a[:, t + 1] = m.gru(x[:, t], a[:, t])
    return a[:, 1:]


@loop
def an_output_written_through_views(m: Any, x: Tensor) -> Any:
    a, b, h = torch.zeros(B, x.shape[1], H), torch.empty(x.shape[1], B, 2), torch.zeros(B, H)
    for t in range(x.shape[1]):
        h = m.gru(x[:, t], h)
        a[:, t].copy_(h)
        b.select(0, t).copy_(m.o(h))
    return a, b.transpose(0, 1)


@loop
def growing_from_nothing(m: Any, x: Tensor) -> Any:
    h, out = torch.zeros(B, H), torch.empty(B, 0, H)
    for t in range(x.shape[1]):
        h = m.gru(x[:, t], h)
        out = torch.cat([out, h.unsqueeze(1)], 1)
    return out


@loop
def growing_from_none(m: Any, x: Tensor) -> Any:
    h, out = torch.zeros(B, H), None
    for t in range(x.shape[1]):
        h = m.gru(x[:, t], h)
        out = h[None] if out is None else torch.cat((out, h[None]), dim=0)
    assert out is not None
    return out.transpose(0, 1)


@loop
def growing_from_the_first_state(m: Any, x: Tensor) -> Any:
    h = torch.zeros(B, H)
    out = h[:, None]
    for t in range(x.shape[1]):
        h = m.gru(x[:, t], h)
        out = torch.cat((out, h[:, None]), 1)
    return out[:, 1:]


@loop
def a_list_for_each_layer(m: Any, x: Tensor) -> Any:
    h, outputs = [torch.zeros(B, H), torch.zeros(B, H)], [[], []]  # type: ignore[var-annotated]
    for t in range(x.shape[1]):
        u = x[:, t]
        for k, cell in enumerate((m.gru, m.second)):
            u = h[k] = cell(u, h[k])
            outputs[k].append(u)
    return torch.stack(outputs[0], 1), torch.stack(outputs[1], 1)


# ---------------------------------------------------------------- windows


@loop
def windows_of_the_input(m: Any, x: Tensor) -> Any:
    padded, h, out = nn.functional.pad(x, (0, 0, 2, 0)), torch.zeros(B, H), []
    for t in range(x.shape[1]):
        h = torch.tanh(m.w(padded[:, t : t + 3].mean(1)) + m.u(h))
        out.append(h)
    return torch.stack(out, 1)


@loop
def windows_of_the_last_axis(m: Any, x: Tensor) -> Any:
    padded, out = nn.functional.pad(x.mT, (1, 0)), []
    for t in range(x.shape[1]):
        out.append((padded[..., t : t + 2] * m.h0[:2]).sum(-1))
    return torch.stack(out, 1)


# ---------------------------------------------------------------- states


@loop
def a_learned_state_without_a_batch(m: Any, x: Tensor) -> Any:
    h, out = m.h0, []
    for t in range(x.shape[1]):
        h = torch.sigmoid(h) * 0.5 * h + m.w(x[:, t])
        out.append(h)
    return torch.stack(out, 1)


@loop
def a_learned_state_in_a_product(m: Any, x: Tensor) -> Any:
    h, out = m.h0, []
    for t in range(x.shape[1]):
        h = torch.tanh(m.w(x[:, t]) + m.u(h))
        out.append(h)
    return torch.stack(out, 1)


@loop
def a_state_that_is_a_number(m: Any, x: Tensor) -> Any:
    h, out = torch.zeros(()), []
    for t in range(x.shape[1]):
        h = 0.9 * h + m.w(x[:, t])
        out.append(h)
    return torch.stack(out, 1)


@loop
def a_state_written_in_place(m: Any, x: Tensor) -> Any:
    h, out = torch.zeros(B, H), []
    for t in range(x.shape[1]):
        h *= 0.9
        h += m.w(x[:, t])
        out.append(h.clone())
    return torch.stack(out, 1)


@loop
def a_state_filled_with_a_tensor(m: Any, x: Tensor) -> Any:
    v, out = torch.full((B, H), m.leak, dtype=torch.float32), []
    for t in range(x.shape[1]):
        v = v + torch.full((B, H), m.leak) * (m.w(x[:, t]) - v)
        out.append(v)
    return torch.stack(out, 1)


@dataclass
class State:
    h: Tensor
    c: Tensor


@loop
def a_state_in_a_dataclass(m: Any, x: Tensor) -> Any:
    state, out = State(torch.zeros(B, H), torch.zeros(B, H)), []
    for t in range(x.shape[1]):
        state = State(*m.lstm(x[:, t], (state.h, state.c)))
        out.append({"h": state.h})
    return torch.stack([o["h"] for o in out], 1)


@loop
def a_state_that_is_compared_with_none(m: Any, x: Tensor) -> Any:
    h, out = torch.zeros(0), []
    for t in range(x.shape[1]):
        u = m.w(x[:, t])
        if h != None and h.shape != u.shape:  # noqa: E711 - as libraries of spiking neurons do
            h = torch.zeros_like(u)
        h = 0.5 * h + u
        out.append(h)
    return torch.stack(out, 1)


@loop
def a_first_step_of_its_own(m: Any, x: Tensor) -> Any:
    h = torch.tanh(m.w(x[:, 0]))
    out = [h]
    for t in range(1, x.shape[1]):
        h = m.gru(x[:, t], h)
        out.append(h)
    return torch.stack(out, 1)


@loop
def two_states_cut_from_one(m: Any, x: Tensor) -> Any:
    h, s = torch.zeros(B, 2, H).chunk(2, dim=1)
    out = []
    for t in range(x.shape[1]):
        h = torch.relu(m.w(x[:, t, None]) + 0.5 * h)
        s = torch.tanh(m.u(h) + s * m.h0)
        out.append(s)
    return torch.cat(out, dim=1)


@loop
def as_many_states_as_steps(m: Any, x: Tensor) -> Any:
    states, out = list(torch.zeros(x.shape[1], B, H).unbind(0))[:4], []
    for u in x.unbind(1):
        u = m.w(u)
        for k in range(len(states)):
            u = states[k] = torch.tanh(m.u(u) + states[k])
        out.append(u)
    return torch.stack(out, 1)


@loop
def a_weight_written_in_place(m: Any, x: Tensor) -> Any:
    m.h0.data.clamp_(-0.5, 0.5)
    h, out = torch.zeros(B, H), []
    for t in range(x.shape[1]):
        h = torch.relu(m.w(x[:, t]) + h * m.h0)
        out.append(h)
    return torch.stack(out, 1)


# ---------------------------------------------------------------- spikes


@loop
def a_comparison_of_the_state(m: Any, x: Tensor) -> Any:
    mem, out = torch.zeros(B, H), []
    for t in range(x.shape[1]):
        reset = (mem > 0.2).float()
        mem = 0.9 * mem + m.w(x[:, t]) - reset
        out.append(mem)
    return torch.stack(out, 1)


@loop
def a_choice_by_the_state(m: Any, x: Tensor) -> Any:
    mem, out = torch.zeros(B, H), []
    for t in range(x.shape[1]):
        mem = torch.where(mem > 0.3, torch.zeros_like(mem), mem) * 0.9 + m.w(x[:, t])
        out.append((mem > 0.3).float())
    return torch.stack(out, 1)


@loop
def a_reset_in_place(m: Any, x: Tensor) -> Any:
    mem, out = torch.zeros(B, H), []
    for t in range(x.shape[1]):
        mem = mem * 0.9 + m.w(x[:, t])
        spikes = mem > 0.3
        mem[spikes] = 0.0
        out.append(spikes.float())
    return torch.stack(out, 1)


@loop
def a_neuron_of_two_states(m: Any, x: Tensor) -> Any:
    v, i, out = torch.full((B, H), m.leak), torch.zeros(B, H), []
    for t in range(x.shape[1]):
        decayed = v + 0.1 * (m.leak - v + i)
        z = (decayed - 0.3 > 0).to(x.dtype)
        v, i = (1 - z) * decayed + z * m.leak, 0.8 * i + m.w(x[:, t])
        out.append(z + 0 * v)
    return torch.stack(out, 1)


# ---------------------------------------------------------------- checks


def outputs_of(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_rolled_and_streams(name: str) -> None:
    torch.manual_seed(5)
    model, x = Parts(LOOPS[name]).eval(), torch.randn(B, T, D)
    nnir = to_nnir(prepare_shape(model, x)[0])
    assert any(n.op == "scan" for n in nnir.graph.nodes)
    step, _ = nnir.streaming_transform(1)
    program = step.to_program(Config.tiny_c2b8(), quick_compile=True)
    whole = nnir.to_program(Config.tiny_c2b8(), quick_compile=True).to_vm().run(x.numpy())
    steps = program.to_vm().run_timesteps(x.numpy())
    for a, b in zip(outputs_of(whole), outputs_of(steps), strict=True):
        assert np.array_equal(a, b)
    longer = torch.randn(B, 3 * T, D)
    wanted = outputs_of(model(longer))
    found = outputs_of(program.to_vm(bit_accurate=False).run_timesteps(longer.numpy()))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("taps", [3, 5])
def test_a_filter_that_sums_slices_is_no_loop_over_them(taps: int) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        rest = x.shape[1] - taps + 1
        y = x[:, :rest] * 0
        for k in range(taps):
            y = torch.tanh(y + x[:, k : k + rest])
        return y

    nnir = to_nnir(prepare_shape(Parts(forward).eval(), torch.randn(B, T, D))[0])
    step, _ = nnir.streaming_transform(1)
    assert step.graph.output_latencies == (taps - 1,)


def test_blocks_written_into_empty_are_their_join() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        z = torch.empty(B, x.shape[1], D + H + 2)
        z[..., :D] = x
        h = m.w(x)
        z[..., D : D + H] = h
        z[..., D + H :] = m.o(h)
        return z

    graph_module, _ = prepare_shape(Parts(forward).eval(), torch.randn(B, T, D))
    nodes = [n for n in to_nnir(graph_module).graph.nodes if n.op != "constant"]
    assert [n.op for n in nodes] == ["linear", "linear", "concat"]


def test_a_part_is_read_before_the_tensor_is_full() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        z = torch.zeros(B, 4, D)
        z[:, 0], z[:, 1:3] = x[:, 0], x[:, 1:3]
        early = z[:, 0] + z[:, 3]
        z[:, 0] *= 2
        z[:, 2:] = z[:, 0, None] + z[:, 1, None]
        return z, early, z[:, 1:]

    x = torch.randn(B, T, D)
    model = Parts(forward).eval()
    nnir = to_nnir(prepare_shape(model, x)[0])
    for a, b in zip(nnir.run(x.numpy()), model(x), strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-6)


# ---------------------------------------------------------------- refusals


def counting(m: Any, x: Tensor) -> Any:
    h, out = torch.zeros(B, H), []
    for t in range(x.shape[1]):
        h = m.gru(x[:, t] * (t + 1), h)
        out.append(h)
    return torch.stack(out, 1)


def other_in_one_iteration(m: Any, x: Tensor) -> Any:
    h, out = torch.zeros(B, H), []
    for t in range(x.shape[1]):
        h = m.gru(x[:, t], h)
        if t == 1:
            h = torch.relu(h)
        out.append(h)
    return torch.stack(out, 1)


def running_mean(m: Any, x: Tensor) -> Any:
    total, out = 0.0, []
    for t in range(x.shape[1]):
        total = total + m.w(x[:, t])
        out.append(total / (t + 1))
    return torch.stack(out, 1)


def backwards(m: Any, x: Tensor) -> Any:
    h = torch.zeros(B, H)
    out: list[Tensor] = []
    for t in reversed(range(x.shape[1])):
        h = m.gru(x[:, t], h)
        out.insert(0, h)
    return torch.stack(out, 1)


def a_loop_over_features_and_padding(m: Any, x: Tensor) -> Any:
    """The loop differs, and is no loop over time: what keeps this from streaming is the padding."""
    y = sum((x[..., k] * (k + 1) for k in range(D)), torch.zeros(B, T))
    return nn.functional.pad(y[:, None], (1, 1), mode="replicate")


def a_loop_over_features_and_a_step(m: Any, x: Tensor) -> Any:
    y = sum((x[..., k] * (k + 1) for k in range(D)), torch.zeros(B, T))
    return y * x[:, 3, :1]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (a_loop_over_features_and_padding, "^concat: repeats the last step of a sequence at its end"),
        (a_loop_over_features_and_a_step, "^slice: selects the fixed step 3"),
        (counting, r"mul \(line \d+: h = m.gru.*\) has 2 in iteration 1 and \d in iteration \d"),
        (
            other_in_one_iteration,
            r"iteration 2 has no relu \(line \d+: h = torch.relu\(h\)\), iteration 1 has",
        ),
        (running_mean, r"div \(line \d+: out.append.*\) has 2 in iteration 1 and \d in iteration \d"),
        (backwards, "a loop goes backwards in time"),
    ],
)
def test_a_loop_that_stays_written_out_says_why(function: Callable[..., Any], message: str) -> None:
    nnir = to_nnir(prepare_shape(Parts(function).eval(), torch.randn(B, T, D))[0])
    with pytest.raises(StreamingError, match=message) as caught:
        nnir.streaming_transform(1)
    assert "test_loop_forms.py" in caught.value.where
    assert caught.value.remedy
