"""CorePartition: where a region runs, what it stores there, that no bit changes, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ltc_torch
from ltc_compiler import NNIR, Config, ConfigError, ProgramBuilder
from ltc_compiler.program import Program
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from zoo import SMALL, build

CONFIG = Config.v80_c6b32()


class Placed(nn.Module):
    """A module whose forward runs on given cores, and a part before and after that the compiler places."""

    def __init__(self, inner: nn.Module, cores: Any) -> None:
        super().__init__()
        self.inner, self.cores = inner, cores

    def forward(self, *inputs: Any) -> Any:
        with ltc_torch.CorePartition(self.cores):
            return self.inner(*inputs)


def record(model: nn.Module, *inputs: Any) -> NNIR:
    return NNIR(to_nnir(prepare_shape(model.eval(), *inputs)[0]).graph)


def busy(program: Program) -> set[int]:
    """The cores that compute something: what moves rows and control aside."""
    aside = ("input", "output", "send", "receive", "move", "splat", "loop", "end")
    return {i.core for i in program.image.code if i.name not in aside}


def weights(program: Program) -> set[int]:
    return {k for k, core in enumerate(program.image.cores) if len(core.weights)}


@pytest.mark.parametrize(
    "name", ["mlp", "lstm", "ltc", "cfc", "tcn", "gated_ltc", "attention", "lstm_bidirectional"]
)
def test_a_region_runs_on_its_cores_and_changes_no_bit(name: str) -> None:
    model, inputs = build(SMALL[name])
    free = record(model, *inputs)
    placed = record(Placed(model, [4, 2]), *inputs)
    given = [x.numpy() for x in inputs if x is not None]
    programs = free.to_program(CONFIG), placed.to_program(CONFIG)
    assert busy(programs[1]) <= {4, 2}
    assert weights(programs[1]) <= {4, 2}
    assert 4 in busy(programs[1])
    results = [p.to_vm().run(*given) for p in programs]
    oracle = programs[1].to_oracle().run(*given)
    for free_y, y, z in zip(*map(_tuple, (*results, oracle)), strict=True):
        assert free_y.tobytes() == y.tobytes() == z.tobytes()


def _tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


@pytest.mark.parametrize("name", ["lstm", "ltc", "tcn", "user_scan"])
def test_a_streamed_region_keeps_its_state_where_it_runs(name: str) -> None:
    case = SMALL[name]
    model, inputs = build(case)
    assert case.streaming is not None
    steps = [record(m, *inputs).streaming_transform(case.streaming)[0] for m in (model, Placed(model, [3]))]
    free, placed = (s.to_program(CONFIG) for s in steps)
    assert busy(placed) == {3}
    assert {s.core for m in placed.image.models for s in m.states} == {3}
    vms = free.to_vm(), placed.to_vm()
    rng = np.random.default_rng(0)
    for _ in range(4):
        given = [rng.uniform(0.1, 1, v.shape).astype(np.float32) for v in steps[0].graph.inputs]
        for a, b in zip(*(_tuple(vm.run(*given)) for vm in vms), strict=True):
            assert a.tobytes() == b.tobytes()


class TwoRegions(nn.Module):
    """The same LSTM weights on one core, then a nested and a second region on others; the sum is nobody's."""

    def __init__(self, place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.place = place
        self.lstm, self.out, self.last = nn.LSTM(64, 64), nn.Linear(64, 96), nn.Linear(96, 8)

    def region(self, *cores: int) -> Any:
        return ltc_torch.CorePartition(cores) if self.place else torch.no_grad()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.region(5):
            h, _ = self.lstm(x)
            with self.region(1, 2, 3):
                a = torch.tanh(self.out(h))
            again, _ = self.lstm(h)
        with self.region(4):
            b = self.out(again).relu()
        return self.last(a + b * 0.5)


def test_regions_nest_and_hand_values_over() -> None:
    x = torch.randn(6, 1, 64, generator=torch.Generator().manual_seed(1))
    placed, free = (record(TwoRegions(p), x) for p in (True, False))
    program = placed.to_program(CONFIG)
    by_core: dict[int, set[str]] = {}
    for instruction in program.image.code:
        by_core.setdefault(instruction.core, set()).add(instruction.name)
    assert {1, 2, 3, 4, 5} <= weights(program)
    assert {"sigmoid", "matmul"} <= by_core[5]
    assert all("matmul" in by_core[k] and "sigmoid" not in by_core[k] for k in (1, 2, 3, 4))
    y = program.to_vm().run(x.numpy())
    assert y.tobytes() == free.to_program(CONFIG).to_vm().run(x.numpy()).tobytes()
    assert y.tobytes() == program.to_oracle().run(x.numpy()).tobytes()


def test_places_print_and_parse() -> None:
    x = torch.randn(6, 1, 64)
    nnir = record(TwoRegions(True), x)
    text = str(nnir)
    assert " on (1, 2, 3)" in text
    assert " on (5)" in text
    back = NNIR.parse(text)
    assert str(back) == text
    assert [n.cores for n in back.graph.walk()] == [n.cores for n in nnir.graph.walk()]


def test_a_core_that_is_not_there_is_refused_at_the_users_line() -> None:
    model, inputs = build(SMALL["mlp"])
    nnir = record(Placed(model, [7]), *inputs)
    with pytest.raises(ConfigError, match="CorePartition names core 7") as caught:
        nnir.to_program(CONFIG)
    assert ".py:" in caught.value.where
    assert "v80_c6b32 has 6" in caught.value.remedy
    elsewhere = record(Placed(model, [2]), *inputs)
    with pytest.raises(ConfigError, match=r"core 2, and the model 'Placed' may use \[0, 1\]"):
        ProgramBuilder(CONFIG).add_nnir(elsewhere, core_indices=[0, 1]).to_program()


@pytest.mark.parametrize("cores", [[], [-1], [1, 1], [0.5], [True], "ab"])
def test_what_names_no_cores_is_refused(cores: Any) -> None:
    with pytest.raises(ConfigError, match="CorePartition"):
        ltc_torch.CorePartition(cores)


def test_one_core_may_be_a_number_and_a_region_ends() -> None:
    model, inputs = build(SMALL["mlp"])
    assert {n.cores for n in record(Placed(model, 3), *inputs).graph.nodes} >= {(3,)}
    assert {n.cores for n in record(model, *inputs).graph.nodes} == {()}
