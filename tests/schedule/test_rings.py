"""States that turn as rings: which do, that no row is moved, and that nothing but cycles depends on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltc_compiler import NNIR, VM, Config, Program
from ltc_compiler.bytecode import Ring
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.oracle import Oracle
from ltc_torch import fx
from ltc_torch.nn import PaddedConv1d

F32 = NDArray[np.float32]
TINY = Config.tiny_c2b8()
WITHOUT = replace(TINY, rings=0)


class Dilated(nn.Module):
    """Two causal convolutions, the second of which reads every `dilation`-th step."""

    def __init__(self, dilation: int, channels: int = 8) -> None:
        super().__init__()
        torch.manual_seed(dilation)
        self.first = PaddedConv1d(3, channels, 2)
        self.second = PaddedConv1d(channels, channels, 3, dilation)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.tanh(self.first(x)))
        return y


def stepped(module: nn.Module) -> NNIR:
    """One step of a module of (1, 3, time)."""
    graph, _ = fx.prepare_shape(module.eval(), torch.zeros(1, 3, 6))
    return fx.nnir.to_nnir(graph).streaming_transform(2)[0]


def written_rows(program: Program) -> int:
    """Rows of states that an inference writes."""
    code = [i for i in program.image.code if i.name == "state_write"]
    return sum(i.number("n_outer") * i.number("n_inner") for i in code)


@pytest.mark.parametrize("dilation", [1, 5, 40])
def test_a_convolution_has_the_bits_of_moved_rows_and_moves_none(dilation: int) -> None:
    nnir = stepped(Dilated(dilation))
    turned, moved = (nnir.to_program(config) for config in (TINY, WITHOUT))
    places = sorted(ring.places for ring in turned.image.models[0].rings)
    assert places == ([2] if dilation == 1 else [2 * dilation])
    assert not moved.image.models[0].rings
    assert written_rows(turned) == 2  # one step of each convolution's input
    assert written_rows(moved) == 1 + 2 * dilation
    machines: list[VM | Oracle] = [turned.to_vm(), moved.to_vm(), turned.to_oracle()]
    rng = np.random.default_rng(dilation)
    for i, x in enumerate(rng.standard_normal((5 * dilation + 12, 1, 3)).astype(np.float32)):
        if i == dilation + 3:
            values = {n: rng.standard_normal(a.shape) for n, a in machines[0].state.items()}
            for machine in machines:
                machine.set_state({n: a.astype(np.float32) for n, a in values.items()})
        if i == 3 * dilation + 5:
            for machine in machines:
                machine.reset()
        y, *others = (machine.run(x) for machine in machines)
        assert all(y.tobytes() == other.tobytes() for other in others)
        state, *others = (machine.state for machine in machines)
        assert all(a.tobytes() == other[n].tobytes() for other in others for n, a in state.items())


def test_a_longer_line_takes_rows_and_nothing_else() -> None:
    short, long = (stepped(Dilated(d)).to_program(TINY) for d in (4, 400))
    assert short.cycle_interval_per_inference() == long.cycle_interval_per_inference()
    assert short.cycle_count_per_inference() == long.cycle_count_per_inference()
    assert len(short.image.code) == len(long.image.code)
    moved = stepped(Dilated(400)).to_program(WITHOUT)
    assert moved.cycle_interval_per_inference() > 800 > 4 * long.cycle_interval_per_inference()


def test_a_line_on_several_cores_turns_on_each() -> None:
    nnir = stepped(Dilated(3, channels=96))
    turned, moved = (nnir.to_program(config) for config in (TINY, WITHOUT))
    rings = turned.image.models[0].rings
    assert {ring.core for ring in rings} == {0, 1}
    machines = turned.to_vm(), moved.to_vm(), turned.to_oracle()
    for x in np.random.default_rng(1).standard_normal((15, 1, 3)).astype(np.float32):
        y, *others = (machine.run(x) for machine in machines)
        assert all(y.tobytes() == other.tobytes() for other in others)


def test_the_longest_lines_get_the_rings_that_there_are() -> None:
    module = nn.Sequential(PaddedConv1d(3, 8, 2, 4), nn.Tanh(), PaddedConv1d(8, 8, 2, 9))
    one = replace(TINY, rings=1)
    assert [r.places for r in stepped(module).to_program(one).image.models[0].rings] == [9]


def window(new: int, shape: tuple[int, ...], axis: int, read: bool) -> NNIR:
    """A state that loses its `new` oldest rows for those of the input. An output shows it, or its next value."""
    graph = Graph("window")
    part = tuple(new if a == axis else n for a, n in enumerate(shape))
    x = graph.add_input(Type(part), "x")
    rng = np.random.default_rng(5)
    state = graph.add_state(rng.standard_normal(shape), "window")
    kept = add(graph, "slice", state.value, axis=axis, start=new, stop=shape[axis], step=1)
    state.next = add(graph, "concat", kept, x, axis=axis)
    graph.add_output(add(graph, "neg", state.next if read else state.value), "y")
    return NNIR(graph)


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize(
    ("new", "shape", "axis"), [(1, (5, 3), 0), (2, (7, 20), 0), (3, (1, 4, 2, 9), 1), (1, (2, 1), 0)]
)
def test_a_window_of_rows_turns_by_those_that_are_new(
    new: int, shape: tuple[int, ...], axis: int, read: bool
) -> None:
    nnir = window(new, shape, axis, read)
    turned, moved = (nnir.to_program(config) for config in (TINY, WITHOUT))
    (ring,) = turned.image.models[0].rings
    assert (ring.places, ring.advance) == (shape[axis], new)
    assert written_rows(turned) == new * ring.rows
    machines = turned.to_vm(), moved.to_vm(), turned.to_oracle()
    part = turned.image.models[0].inputs[0].shape
    expected = machines[0].state["window"]
    for x in np.random.default_rng(2).standard_normal((12, *part)).astype(np.float32):
        following = np.concatenate([np.delete(expected, range(new), axis), x], axis)
        for machine in machines:
            assert np.array_equal(machine.run(x), -(following if read else expected))
            assert np.array_equal(machine.state["window"], following)
        expected = following


def test_what_only_turns_is_not_written() -> None:
    """Three states that pass their values around, and a table that comes around."""
    graph = Graph("around")
    a, b, c = (
        graph.add_state(np.full((1, 4), value), name) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))
    )
    a.next, b.next, c.next = b.value, c.value, a.value
    table = graph.add_state(np.arange(12.0).reshape(3, 4), "table")
    head, rest = (
        add(graph, "slice", table.value, axis=0, start=i, stop=j, step=1) for i, j in ((0, 1), (1, 3))
    )
    table.next = add(graph, "concat", rest, head, axis=0)
    graph.add_output(add(graph, "add", a.value, head), "y")
    program = NNIR(graph).to_program(TINY)
    assert sorted(program.image.models[0].rings, key=lambda r: r.row) == [
        Ring(0, program.image.models[0].rings[0].row, 3),
        Ring(0, program.image.models[0].rings[1].row, 3),
    ]
    assert written_rows(program) == 0
    for machine in (program.to_vm(), program.to_oracle()):
        for i in range(8):
            expected = np.arange(4) + 4 * (i % 3) + 1 + i % 3
            assert np.array_equal(machine.run(), expected[None])


@pytest.mark.parametrize(("new", "stages"), [(2, 5), (3, 9), (4, 6), (3, 4)])
def test_a_line_that_moves_on_by_several_stages_is_one_ring(new: int, stages: int) -> None:
    """As a program that takes several steps at once has it; the stages are given in any order."""
    graph = Graph("line")
    x = graph.add_input(Type((new, 5)), "x")
    line = [graph.add_state(np.full((1, 5), i), f"s{i}") for i in range(stages)]  # the newest first
    for i, state in enumerate(line):
        if i < new:
            state.next = add(graph, "slice", x, axis=0, start=new - 1 - i, stop=new - i, step=1)
        else:
            state.next = line[i - new].value
    graph.states[:] = [graph.states[i] for i in np.random.default_rng(new).permutation(stages)]
    graph.add_output(add(graph, "neg", add(graph, "concat", *(s.value for s in line[::-1]), axis=0)), "y")
    program = NNIR(graph).to_program(TINY)
    (ring,) = program.image.models[0].rings
    assert (ring.places, ring.advance, written_rows(program)) == (stages, new, new)
    assert sum(i.name == "state_write" for i in program.image.code) == 1
    machines = program.to_vm(), program.to_oracle()
    kept = np.arange(stages, dtype=np.float32)[::-1, None] + np.zeros((1, 5), np.float32)
    for step in np.random.default_rng(1).standard_normal((9, new, 5)).astype(np.float32):
        for machine in machines:
            assert np.array_equal(machine.run(step), -kept)
        kept = np.concatenate([kept, step])[-stages:]
