"""The law of blocks: N steps in one inference have the bits of N single ones, in outputs and in states."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from generators import random_graph
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_compiler import Config
from ltc_compiler.errors import InputError, StreamingError
from ltc_compiler.nnir import NNIR
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import PaddedConv1d
from zoo import SMALL, build, context
from zoo.basic import Apply

ROOM = replace(
    Config.v80_c6b32(), name="room", tensor_rows=1 << 15, gather_entries=1 << 15, weight_blocks=1 << 13,
    synapse_slots=1 << 12,
)  # fmt: skip
SMALLER = replace(Config.tiny_c1b8(), tensor_rows=1 << 16, gather_entries=1 << 16)

# Every kind of state: delay lines, windows, carries, both; counts and the end of a stream; times; loops in a step.
MODELS = (
    "causal_convolutions", "wavenet", "tcn", "unpadded", "pooling", "difference", "running_sum", "causal_heads",
    "windowed_attention", "state_space", "lstm_stack", "lstm_states", "gru", "cfc", "cfc_wired", "ltc_spans",
    "ltc_state", "gated_ltc_rk4", "ode_adjoint", "user_scan",
)  # fmt: skip


def parts(made: Any) -> list[Any]:
    return list(made) if isinstance(made, tuple) else [made]


def graph_of(module: nn.Module, *inputs: Tensor) -> NNIR:
    return to_nnir(prepare_shape(module.eval(), *inputs)[0])


def draw(step: NNIR, steps: int, seed: int = 0) -> list[np.ndarray]:
    """Inputs of so many steps; one that does not stream is the same in all of them."""
    rng = np.random.default_rng(seed)
    made = []
    for value, dim in zip(step.graph.inputs, step.graph.input_streaming_dims or (), strict=True):
        shape = value.shape if dim is None else (*value.shape[:dim], steps, *value.shape[dim:])
        x = rng.normal(size=shape).astype(np.float32)
        made.append(x if value.role.value == "plain" else np.abs(x))
    return made


def cut(step: NNIR, inputs: list[np.ndarray], begin: int, end: int) -> list[np.ndarray]:
    dims = step.graph.input_streaming_dims or ()
    return [x if dim is None else x.take(range(begin, end), dim) for x, dim in zip(inputs, dims, strict=True)]


def assert_same(a: Any, b: Any, single: Any, blocks: Any) -> None:
    for i, (x, y) in enumerate(zip(parts(a), parts(b), strict=True)):
        assert x.shape == y.shape
        assert x.tobytes() == y.tobytes(), f"output {i}"
    states, others = single.get_state(), blocks.get_state()
    assert list(states) == list(others)
    for name, value in states.items():
        assert value.tobytes() == others[name].tobytes(), f"state {name}"


def assert_law(whole: NNIR, axis: Any, block: int, config: Config, oracle: bool = False) -> None:
    """Three calls, the last with the end; a set state; the reference machine."""
    step, axes = whole.streaming_transform(axis)
    made, same_axes = whole.streaming_transform(axis, block=block)
    assert axes == same_axes
    assert made.graph.block == block
    one, many = (g.to_program(config, quick_compile=True) for g in (step, made))
    most = max((1, *(-t for t in step.graph.output_tails or ())))
    lengths = [block, 2 * block, block * math.ceil((most + 1) / block)]
    inputs = draw(step, sum(lengths))
    for bit_accurate in (True, False):
        single, blocks = one.to_vm(bit_accurate), many.to_vm(bit_accurate)
        begin = 0
        for i, length in enumerate(lengths):
            x = cut(step, inputs, begin, begin + length)
            begin += length
            end = i == len(lengths) - 1
            if i == 1:  # what one program leaves is what the other goes on from
                left = single.get_state(), blocks.get_state()
                single.set_state(left[1])
                blocks.set_state(left[0])
            assert_same(single.run_timesteps(*x, end=end), blocks.run_timesteps(*x, end=end), single, blocks)
        if oracle:
            blocks.reset()
            reference, x = many.to_oracle(bit_accurate), cut(step, inputs, 0, 2 * block)
            ends = most <= 2 * block
            a, b = (machine.run_timesteps(*x, end=ends) for machine in (reference, blocks))
            assert_same(a, b, reference, blocks)


@pytest.mark.parametrize("name", MODELS)
def test_a_block_has_the_bits_of_single_steps(name: str) -> None:
    row = SMALL[name]
    model, inputs = build(row)
    whole = to_nnir(prepare_shape(model, *inputs)[0], context=context(row, inputs))
    for block in (2, 3, 8):
        assert_law(whole, row.streaming, block, ROOM, oracle=block == 3)


@pytest.mark.parametrize("name", ["wavenet", "unpadded", "lstm_stack", "ltc_spans"])
def test_a_long_block_has_the_bits_of_single_steps(name: str) -> None:
    row = SMALL[name]
    model, inputs = build(row)
    assert_law(to_nnir(prepare_shape(model, *inputs)[0]), row.streaming, 64, ROOM)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_blocks_of_random_graphs(seed: int, block: int) -> None:
    whole = NNIR(random_graph(np.random.default_rng(seed), streamable=True))
    assume(not whole.streaming_transform(0)[0].graph.step_limit)  # as many steps as tables hold
    assert_law(whole, 0, block, SMALLER)


@pytest.mark.parametrize("name", ["wavenet", "ltc_spans"])
def test_a_block_of_one_step_is_the_step(name: str) -> None:
    row = SMALL[name]
    model, inputs = build(row)
    whole = to_nnir(prepare_shape(model, *inputs)[0])
    assert row.streaming is not None
    step, made = (
        whole.streaming_transform(row.streaming)[0],
        whole.streaming_transform(row.streaming, block=1)[0],
    )
    assert str(step) == str(made)
    assert step.to_program(ROOM).save_bytes() == made.to_program(ROOM).save_bytes()


class Late(nn.Module):
    """Two steps late and longer than its input at the end, beside what ends early and what is not late."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.more = nn.Conv1d(3, 4, 5, padding=2), nn.Conv1d(3, 2, 2, padding=2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = F.max_pool1d(self.same(x), 3, 1, padding=1)
        return y, self.more(x), x[..., :-3], x.cumsum(-1)


@pytest.mark.parametrize("block", [2, 3, 8])
def test_late_outputs_stand_in_the_places_of_their_inputs(block: int) -> None:
    torch.manual_seed(0)
    model, steps = Late(), 8 * block
    whole = graph_of(model, torch.randn(1, 3, 16))
    assert_law(whole, 2, block, ROOM, oracle=True)
    program = whole.streaming_transform(2, block=block)[0].to_program(ROOM)
    assert program.output_latencies == (3, 0, 0, 0)
    x = torch.randn(1, 3, steps)
    with torch.no_grad():
        expected = model(x)
    vm = program.to_vm(bit_accurate=False)
    calls = [vm.run_timesteps(x[..., : 4 * block]), vm.run_timesteps(x[..., 4 * block :], end=True)]
    for wanted, *found in zip(expected, *calls, strict=True):
        np.testing.assert_allclose(np.concatenate(found, 2), wanted.numpy(), atol=1e-4)
    aligned = vm.run_timesteps(x[..., :block], align=False)
    assert [y.shape[2] for y in aligned] == [block] * 4
    batch = program.to_vm().run_batch(np.stack([np.moveaxis(x.numpy(), 2, 0)] * 2), threads=1)
    alone = program.to_vm().run_timesteps(x)
    for many, one in zip(batch, alone, strict=True):
        for stream in many:
            assert np.moveaxis(stream, 0, 2).tobytes() == one.tobytes()


class Gain(nn.Module):
    """A gain that does not stream, the last step, and the first."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, h = self.gru(x * gain)
        return y - x[:, :1].sum(-1, keepdim=True), h, gain * 2


@pytest.mark.parametrize("block", [2, 5])
def test_what_does_not_stream_is_the_same_in_every_step(block: int) -> None:
    torch.manual_seed(0)
    whole = graph_of(Gain(), torch.randn(2, 9, 3), torch.randn(3))
    assert_law(whole, (1, None), block, ROOM, oracle=True)
    program = whole.streaming_transform((1, None), block=block)[0].to_program(ROOM)
    assert [program.input_shape(0, i) for i in (0, 1)] == [(2, block, 3), (3,)]
    assert [program.output_shape(0, i) for i in range(3)] == [(2, block, 4), (block, 1, 2, 4), (block, 3)]
    vm, x = program.to_vm(), np.ones((2, 2 * block, 3), np.float32)
    gains = np.repeat(np.array([[1, 2, 3], [4, 5, 6]], np.float32), block, 0)
    vm.run_timesteps(x, gains, input_timestep_dim=(1, 0))
    state = vm.get_state()
    gains[1] += 1
    with pytest.raises(InputError, match=f"does not stream varies within a block of {block} steps"):
        vm.run_timesteps(x, gains, input_timestep_dim=(1, 0))
    assert all(state[name].tobytes() == value.tobytes() for name, value in vm.get_state().items())


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.table


@pytest.mark.parametrize("block", [2, 4, 6, 8, 15])
def test_tables_give_a_row_to_every_step_of_a_block(block: int) -> None:
    torch.manual_seed(0)
    module = Positions()
    whole = graph_of(module, torch.randn(2, 6, 3))
    wrapped, _ = whole.streaming_transform(1, tables="wrap", block=block)
    assert "scan" not in str(wrapped)  # the rows of all steps are known at once
    x = draw(whole.streaming_transform(1)[0], max(2 * block, 6))[0]
    vm = wrapped.to_program(ROOM).to_vm(bit_accurate=False)
    found = np.concatenate([vm.run_timesteps(x[:, :block]), vm.run_timesteps(x[:, block : 2 * block])], 1)
    rows = module.table.detach().numpy()[np.arange(x.shape[1]) % 6]
    np.testing.assert_array_equal(found, (x * rows)[:, : 2 * block])
    if 6 % block:
        what = "is longer than the stream, which has 6" if block > 6 else "does not divide a stream of 6"
        with pytest.raises(StreamingError, match=what) as refused:
            whole.streaming_transform(1, block=block)
        assert "divides 6" in str(refused.value)
        return
    vm = whole.streaming_transform(1, block=block)[0].to_program(ROOM).to_vm(bit_accurate=False)
    np.testing.assert_array_equal(vm.run_timesteps(x[:, :6]), (x * rows)[:, :6])
    for more in (vm.run, vm.run_timesteps):
        with pytest.raises(InputError, match="has 6 steps"):
            more(x[:, :block])


def test_counts_and_ends_of_streams_need_no_loop() -> None:
    whole = graph_of(nn.Conv1d(3, 4, 5, padding=2), torch.randn(1, 3, 16))
    text = str(whole.streaming_transform(2, block=4)[0])
    assert 'count="step"' in text
    assert 'end="past_end"' in text
    assert "scan" not in text


def test_a_line_of_which_every_stage_is_read_is_laid_out_once() -> None:
    whole = graph_of(PaddedConv1d(8, 8, 9), torch.randn(1, 8, 32))
    made = whole.streaming_transform(2, block=16)[0].graph
    rows = [n for n in made.nodes if n.op == "concat" and n.attrs["axis"] == 0]
    assert [n.results[0].shape[0] for n in rows] == [8 + 16]


def test_convolutions_are_one_product_and_cycles_fall() -> None:
    row = SMALL["wavenet"]
    model, inputs = build(row)
    whole = to_nnir(prepare_shape(model, *inputs)[0])
    step, made = whole.streaming_transform(2)[0], whole.streaming_transform(2, block=16)[0]
    assert str(made).count("linear(") == str(step).count("linear(")
    assert "scan" not in str(made)
    one, many = step.to_program(ROOM), made.to_program(ROOM)
    assert many.cycle_interval_per_inference() < 16 / 2 * one.cycle_interval_per_inference()


@pytest.mark.parametrize("dilation", [4, 40])
def test_the_stages_of_a_line_are_moved_and_written_at_once(dilation: int) -> None:
    whole = graph_of(PaddedConv1d(32, 32, 3, dilation), torch.randn(1, 32, 16))
    program = whole.streaming_transform(2, block=16)[0].to_program(ROOM)
    code = [line.split()[2] for line in program.disassemble().splitlines() if not line.startswith(";")]
    assert code.count("state_write") == 1
    assert code.count("move") < 8


def test_a_recurrence_is_a_loop_of_the_machine() -> None:
    whole = graph_of(nn.LSTM(4, 8), torch.randn(9, 1, 4))
    few, many = (whole.streaming_transform(0, block=n)[0].to_program(ROOM) for n in (64, 128))
    assert few.metrics()["instructions"] == many.metrics()["instructions"]
    assert "loop" in many.disassemble()


def test_steps_that_are_no_whole_number_of_blocks_go_to_single_steps() -> None:
    whole = graph_of(nn.Sequential(PaddedConv1d(4, 8, 3), nn.Tanh()), torch.randn(1, 4, 9))
    made, step = whole.streaming_transform(2, block=4)[0], whole.streaming_transform(2)[0]
    blocks, single = made.to_program(ROOM), step.to_program(ROOM)
    x = draw(step, 11)[0]
    what = "11 steps are given, and a run of this program takes 4"
    for machine in (blocks.to_vm(), blocks.to_oracle(), made):
        with pytest.raises(InputError, match=what) as refused:
            machine.run_timesteps(x)
    with pytest.raises(InputError, match=what):
        blocks.to_vm().run_batch(np.moveaxis(x, 2, 0)[None])
    assert "give 8 of them" in str(refused.value)
    first, rest, all_single = blocks.to_vm(), single.to_vm(), single.to_vm()
    begun = first.run_timesteps(x[..., :8])
    assert first.steps_done() == 8
    rest.set_state(first.get_state())
    found = np.concatenate([begun, rest.run_timesteps(x[..., 8:])], 2)
    assert found.tobytes() == all_single.run_timesteps(x).tobytes()
    with pytest.raises(InputError, match="1 steps are given"):
        blocks.to_vm().run_batch(x[None, ..., 0])


def test_one_run_takes_a_block_as_it_lies_in_the_sequence() -> None:
    row = SMALL["wavenet"]
    model, inputs = build(row)
    whole = to_nnir(prepare_shape(model, *inputs)[0])
    made, step = whole.streaming_transform(2, block=4)[0], whole.streaming_transform(2)[0]
    x = draw(step, 8)[0]
    vm, out = made.to_program(ROOM).to_vm(), []
    for begin in (0, 4):
        out.append(vm.run(np.ascontiguousarray(x[..., begin : begin + 4])))
    single = step.to_program(ROOM).to_vm().run_timesteps(x)
    assert np.concatenate(out, 2).tobytes() == single.tobytes()
    np.testing.assert_allclose(made.run_timesteps(x), step.run_timesteps(x), atol=1e-9)


@pytest.mark.parametrize("block", [0, -1, 2.0, True, "4", None, 1 << 17])
def test_what_is_no_number_of_steps_is_refused(block: Any) -> None:
    whole = graph_of(nn.LSTM(4, 8), torch.randn(9, 1, 4))
    with pytest.raises(StreamingError, match=f"block is {block!r}"):
        whole.streaming_transform(0, block=block)


def test_a_module_state_is_carried_through_a_block() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.h = nn.LSTM(3, 4), None

        def forward(self, x: Tensor) -> Tensor:
            y, self.h = self.lstm(x, self.h)
            return y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = graph_of(Keeps(), torch.randn(5, 1, 3))
    assert_law(whole, 0, 3, ROOM, oracle=True)


def test_a_backward_layer_has_no_blocks_either() -> None:
    whole = graph_of(nn.LSTM(4, 8, bidirectional=True), torch.randn(9, 1, 4))
    with pytest.raises(StreamingError) as single:
        whole.streaming_transform(0)
    with pytest.raises(StreamingError) as blocks:
        whole.streaming_transform(0, block=4)
    assert str(single.value) == str(blocks.value)


def test_a_function_of_no_state_runs_in_blocks() -> None:
    assert_law(graph_of(Apply(lambda x: x.tanh() * 2), torch.randn(5, 3)), 0, 4, SMALLER, oracle=True)
