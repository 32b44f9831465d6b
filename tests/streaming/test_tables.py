"""Constants that vary along a stream: a row of a table for every step, and no step beyond the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ltc_torch
from ltc_compiler import Config, Program
from ltc_compiler.errors import InputError, ModelFileError, StreamingError
from ltc_compiler.nnir import NNIR
from ltc_torch import fx
from ltc_torch.nn import Scan
from zoo.basic import Apply

T, D = 7, 5


class Positions(nn.Module):
    """A table that is added in front of a recurrent layer, and one of angles; row 2 holds -0 and an infinity."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        table = torch.randn(T, D, generator=generator)
        table[2, 0], table[2, 1] = -0.0, 1e30
        self.table = nn.Parameter(table)
        self.gru = nn.GRU(D, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        angle = torch.arange(T)[:, None] * torch.tensor([1.0, 0.1])
        turned = x[..., :2] * angle.cos() - x[..., 2:4] * angle.sin()
        return self.gru((x + self.table).clamp(-3, 3))[0], turned * self.table[:, :2]


class AfterWindow(nn.Module):
    """A table that meets a stream which looks ahead, and one of another length behind a window."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.valid = nn.Conv1d(D, D, 3, padding=1), nn.Conv1d(D, D, 3)
        self.first, self.second = nn.Parameter(torch.randn(D, T)), nn.Parameter(torch.randn(D, T - 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.same(x.mT) + self.first, self.valid(x.mT) * self.second


class KnownTimes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        times = torch.linspace(0, 1, T)

        def step(now: tuple[Tensor, Tensor], h: Tensor) -> tuple[Tensor, Tensor]:
            u, t = now
            y = 0.5 * h + u * torch.sin(9 * t)
            return y, y

        return Scan(step)((x.transpose(0, 1), times), x.new_zeros(1, D))[0].transpose(0, 1)


def graph_of(module: nn.Module, x: Tensor) -> NNIR:
    return fx.nnir.to_nnir(fx.prepare_shape(module.eval(), x)[0])


def parts(made: Any) -> list[Any]:
    return list(made) if isinstance(made, tuple) else [made]


@pytest.mark.parametrize("module", [Positions(), AfterWindow()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("config", [Config.tiny_c1b8(), Config.v80_c6b32()], ids=lambda c: c.name)
def test_a_stream_has_the_bits_of_the_whole(module: nn.Module, config: Config) -> None:
    x = torch.randn(1, T, D, generator=torch.Generator().manual_seed(2))
    nnir = graph_of(module, x)
    whole = parts(nnir.to_program(config).to_vm().run(x.numpy()))
    program = nnir.streaming_transform(1)[0].to_program(config)
    for machine in (program.to_vm(), program.to_oracle()):
        for a, b in zip(whole, parts(machine.run_timesteps(x.numpy(), end=True)), strict=True):
            assert a.tobytes() == b.tobytes()


def test_known_times_stream_with_the_bits_of_the_whole() -> None:
    x = torch.randn(1, T, D)
    nnir = graph_of(KnownTimes(), x)
    whole = nnir.to_program(Config.tiny_c1b8()).to_vm().run(x.numpy())
    step = nnir.streaming_transform(1)[0]
    assert step.graph.step_limit == T
    assert step.to_program(Config.tiny_c1b8()).to_vm().run_timesteps(x.numpy()).tobytes() == whole.tobytes()


def added(tables: Literal["refuse", "wrap"]) -> tuple[Program, Tensor, Tensor]:
    x, table = torch.randn(1, T, D), torch.randn(T, D)

    class Added(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + table

    step = graph_of(Added(), x).streaming_transform(1, tables)[0]
    assert NNIR.parse(str(step)).graph.step_limit == step.graph.step_limit
    program = step.to_program(Config.tiny_c1b8())
    return Program.load_bytes(program.save_bytes()), x, table


def test_a_step_beyond_the_table_is_refused_and_changes_nothing() -> None:
    program, x, table = added("refuse")
    for machine in (program.to_vm(), program.to_oracle()):
        machine.run_timesteps(x[:, : T - 2].numpy())
        before = {name: array.copy() for name, array in machine.state.items()}
        with pytest.raises(
            InputError, match=rf"has {T} steps.*{T - 2} of\s+them have run, and 3 more"
        ) as error:
            machine.run_timesteps(x[:, :3].numpy())
        assert "tables='wrap'" in error.value.remedy
        assert all((machine.state[name] == array).all() for name, array in before.items())
        for t in (T - 2, T - 1):
            np.testing.assert_array_equal(machine.run(x[:, 0].numpy()), (x[:, 0] + table[t]).numpy())
        with pytest.raises(InputError, match="1 more"):
            machine.run(x[:, 0].numpy())
        machine.reset()
        np.testing.assert_array_equal(machine.run(x[:, 0].numpy()), (x[:, 0] + table[0]).numpy())


def test_an_evaluated_step_beyond_the_table_is_refused_and_changes_nothing() -> None:
    x, table = torch.randn(1, T, D), torch.randn(T, D)
    step = graph_of(Apply(lambda x: x + table), x).streaming_transform(1)[0]
    states = step.initial_states()
    for t in range(T):
        np.testing.assert_array_equal(
            step.run(x[:, 0].numpy(), states=states), (x[:, 0].double() + table[t]).numpy()
        )
    before = {name: array.copy() for name, array in states.items()}
    with pytest.raises(InputError, match=rf"has {T} steps.*{T} of\s+them have run, and 1 more"):
        step.run(x[:, 0].numpy(), states=states)
    assert all((states[name] == array).all() for name, array in before.items())


def test_a_limit_of_steps_goes_through_an_onnx_file(tmp_path: Path) -> None:
    x, table = torch.randn(1, T, D), torch.randn(T, D)
    step = graph_of(Apply(lambda x: x + table), x).streaming_transform(1)[0]
    step.to_onnx(tmp_path / "step.onnx")
    again = NNIR.from_onnx(tmp_path / "step.onnx")
    vm = again.to_program(Config.tiny_c1b8()).to_vm()
    for t in range(T):
        np.testing.assert_array_equal(vm.run(x[:, 0].numpy()), (x[:, 0] + table[t]).numpy())
    with pytest.raises(InputError, match=f"has {T} steps"):
        vm.run(x[:, 0].numpy())
    model = onnx.load(tmp_path / "step.onnx")
    note = next(p for i in model.graph.input for p in i.metadata_props if p.key == "ltc.step_limit")
    for wrong in ("0", "-3", "many", "1" * 10):
        note.value = wrong
        onnx.save(model, tmp_path / "wrong.onnx")
        with pytest.raises(ModelFileError, match="expected a number of steps"):
            NNIR.from_onnx(tmp_path / "wrong.onnx")


def test_a_late_output_comes_to_the_end_of_the_table() -> None:
    """The steps behind the end read nothing that counts: the graph runs them, as the machines do."""
    torch.manual_seed(3)
    x, table, conv = torch.randn(1, T, D), torch.randn(T, D), nn.Conv1d(D, D, 3, padding=1)
    module = Apply(lambda x: conv((x + table).mT).mT)
    step, _ = ltc_torch.stream(module.eval(), x, axis=1)
    wanted = module(x).detach().numpy()
    vm = step.to_program(Config.tiny_c1b8()).to_vm(bit_accurate=False)
    for found in (step.run_timesteps(x.numpy(), end=True), vm.run_timesteps(x.numpy(), end=True)):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_every_stream_of_a_batch_has_a_table_of_its_own() -> None:
    program, x, table = added("refuse")
    vm = program.to_vm()
    vm.run_timesteps(x[:, :4].numpy())
    streams = torch.randn(3, T - 3, 1, D)
    with pytest.raises(InputError, match="4 of"):
        vm.run_batch(streams.numpy())
    found = vm.run_batch(streams[:, :2].numpy())
    for n, first in enumerate((4, 0, 0)):
        np.testing.assert_array_equal(found[n, :, 0], (streams[n, :2, 0] + table[first : first + 2]).numpy())
    out = np.empty((1, D), np.float32)
    vm.run_into(x[:, 0].numpy(), out)
    with pytest.raises(InputError, match="1 more"):
        vm.run_into(x[:, 0].numpy(), out)


def test_a_table_that_wraps_begins_anew() -> None:
    program, _, table = added("wrap")
    x = torch.randn(1, 3 * T - 2, D)
    wanted = x + table.repeat(3, 1)[: 3 * T - 2]
    np.testing.assert_array_equal(program.to_vm().run_timesteps(x.numpy()), wanted.numpy())


def test_the_call_that_does_all_takes_the_choice() -> None:
    x, table = torch.randn(1, T, D), torch.randn(T, D)

    class Added(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x) + table[: x.shape[1]]

    with pytest.warns(UserWarning, match=f"its tables hold {T} steps"):
        assert ltc_torch.stream(Added().eval(), x, axis=1)[0].graph.step_limit == T
    step = ltc_torch.stream(Added().eval(), x, axis=1, tables="wrap", check=False)[0]
    assert step.graph.step_limit == 0
    with pytest.raises(StreamingError, match="tables is 'cut'"):
        graph_of(Added(), x).streaming_transform(1, "cut")  # type: ignore[arg-type]
