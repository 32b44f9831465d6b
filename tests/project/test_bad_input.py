"""Bad input from end to end, as a user meets it: a trained module, its program, its files, its machine.

Every refusal here must be of the error family and say what, where and what to do, and whoever refused must be as it
was before. The single rules have their tests beside the code (test_core, test_container, test_config, test_program).
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ltc_compiler import (
    Config,
    ConfigError,
    GraphError,
    InputError,
    IsaMismatchError,
    LtcError,
    ProgramError,
    StateError,
    StreamingError,
    isa,
)
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_compiler.vm import VM
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import GatedLTC

STEPS = 6


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ltc, self.readout = GatedLTC(3, 5, steps=2), nn.Linear(5, 1)

    def forward(self, x: Tensor, elapsed: Tensor) -> Tensor:
        """x (batch, time, 3), elapsed (batch, time) -> (batch, time, 1)."""
        y: Tensor = self.readout(self.ltc(x, elapsed=elapsed)[0])
        return y


def sequence() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, STEPS, 3, generator=generator), torch.rand(1, STEPS, generator=generator)


@pytest.fixture(scope="module")
def whole() -> NNIR:
    """The model for a whole sequence."""
    torch.manual_seed(0)
    graph, _ = prepare_shape(Model().eval(), *sequence())
    return to_nnir(graph)


@pytest.fixture(scope="module")
def program(whole: NNIR) -> Program:
    """The model for one step."""
    return whole.streaming_transform(1)[0].to_program(Config.tiny_c2b8())


@pytest.fixture(scope="module")
def data(program: Program) -> bytes:
    return program.save_bytes()


def refused(kind: type[LtcError], call: Callable[[], object], what: str = "") -> LtcError:
    """The refusal of a call, which has all its parts."""
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert what in error.what
    assert error.what
    assert error.where
    assert error.remedy
    assert str(error) == f"{error.what}\n  where: {error.where}\n  remedy: {error.remedy}"
    return error


# --- calls of a machine ------------------------------------------------------------------------------------

X, DT = (t[:, 0] for t in sequence())

BAD_STEPS: dict[str, tuple[tuple[Any, ...], str]] = {
    "shape": ((torch.zeros(1, 4), DT), "x has shape (1, 4), expected (1, 3)"),
    "rank": ((torch.zeros(3), DT), "x has shape (3,), expected (1, 3)"),
    "whole sequence": (sequence(), f"x has shape (1, {STEPS}, 3), expected (1, 3)"),
    "batch": ((torch.zeros(2, 3), DT), "x has shape (2, 3)"),
    "nothing": ((), "takes 2 inputs, 0 given"),
    "float64": ((X.double(), DT), "x has dtype torch.float64"),
    "float16": ((X.half(), DT), "x has dtype torch.float16"),
    "integers": ((X.int(), DT), "x has dtype torch.int32"),
    "complex": ((X.numpy().astype(complex), DT), "x has dtype complex128"),
    "text": (("x", DT), "x is a str"),
    "objects": ((np.full((1, 3), None), DT), "x has dtype object"),
    "another device": ((X.to("meta"), DT), "x is a tensor on meta"),
    "gradient": ((X.clone().requires_grad_(), DT), "x is a tensor that requires grad"),
    "NaN elapsed": ((X, torch.full((1,), float("nan"))), "elapsed is nan at index (0,)"),
    "negative elapsed": ((X, torch.full((1,), -0.5)), "elapsed is -0.5 at index (0,)"),
    "minus infinity elapsed": ((X, torch.full((1,), -float("inf"))), "elapsed is -inf"),
}


def state_bits(vm: VM) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in vm.state.items()}


@pytest.mark.parametrize("name", BAD_STEPS)
@pytest.mark.parametrize("bit_accurate", [True, False])
def test_a_bad_step_leaves_no_trace(program: Program, name: str, bit_accurate: bool) -> None:
    inputs, what = BAD_STEPS[name]
    vm, untouched = program.to_vm(bit_accurate), program.to_vm(bit_accurate)
    for machine in (vm, untouched):
        machine.run(X, DT)
    before = state_bits(vm)
    refused(InputError, lambda: vm.run(*inputs), what)
    out = np.full((1, 1), 7, np.float32)
    refused(InputError, lambda: vm.run_into(inputs, out))
    assert out == 7
    assert state_bits(vm) == before
    assert np.asarray(vm.run(X, DT)).tobytes() == np.asarray(untouched.run(X, DT)).tobytes()


@pytest.mark.parametrize("at", range(STEPS))
@pytest.mark.parametrize("bad", [float("nan"), -1e-30])
def test_one_bad_elapsed_time_stops_a_sequence_before_it_begins(
    program: Program, at: int, bad: float
) -> None:
    x, elapsed = sequence()
    elapsed[0, at] = bad
    vm = program.to_vm()
    vm.run(X, DT)
    before = state_bits(vm)
    refused(InputError, lambda: vm.run_timesteps(x, elapsed), f"at index ({at}, 0)")
    assert state_bits(vm) == before


def test_zero_and_minus_zero_are_elapsed_times(program: Program) -> None:
    vm = program.to_vm()
    vm.run(X, DT)
    before = state_bits(vm)
    vm.run(X, torch.zeros(1))
    vm.run(X, -torch.zeros(1))
    assert state_bits(vm) == before  # and no time is no change


def test_a_bad_state_changes_none(program: Program) -> None:
    vm = program.to_vm()
    vm.run(X, DT)
    before, (name, array) = state_bits(vm), next(iter(vm.state.items()))
    for values, what in [
        ({"no such": array}, "has no state 'no such'"),
        ({name: array + 1, "no such": array}, "has no state 'no such'"),
        ({name: array[..., :-1]}, f"{name} has shape"),
        ({name: array.astype(np.float64)}, f"{name} has dtype float64"),
        ({name: None}, f"{name} is a NoneType"),
    ]:
        refused(StateError, lambda values=values: vm.set_state(values), what)  # type: ignore[misc]
        assert state_bits(vm) == before


# --- files of programs -------------------------------------------------------------------------------------


def test_damage_at_every_part_of_the_file_is_refused(data: bytes) -> None:
    """Every truncation up to the end of the tables and about 400 behind them."""
    for size in [*range(512), *range(512, len(data), max(1, len(data) // 400)), len(data) - 1]:
        refused(ProgramError, lambda size=size: Program.load_bytes(data[:size]))  # type: ignore[misc]
    refused(ProgramError, lambda: Program.load_bytes(data + b"\0"))
    refused(ProgramError, lambda: Program.load_bytes(data * 2))


def test_a_flipped_bit_is_refused_wherever_it_is(data: bytes) -> None:
    """Bytes all over the file, a different bit of each."""
    for n, at in enumerate([*range(56), *range(56, len(data), max(1, len(data) // 800))]):
        changed = bytearray(data)
        changed[at] ^= 1 << n % 8
        refused(ProgramError, lambda changed=changed: Program.load_bytes(bytes(changed)))  # type: ignore[misc]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_are_refused(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 5))):
        at = draw.draw(st.integers(0, len(data) - 1))
        changed[at] = data[at] ^ draw.draw(st.integers(1, 255))
    refused(ProgramError, lambda: Program.load_bytes(bytes(changed)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_other_bytes_are_refused(tail: bytes, magic: bool) -> None:
    refused(ProgramError, lambda: Program.load_bytes(b"LTCP" + tail if magic else tail))


FOREIGN: dict[str, bytes] = {
    "empty": b"",
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(200),
    "toml": Config.tiny_c1b8().to_bytes(),
    "elf": b"\x7fELF" + bytes(200),
    "magic alone": b"LTCP",
    "huge sizes": b"LTCP" + struct.pack("<I32sQII", 1, isa.isa_hash(), 2**63, 2**32 - 1, 0),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.ltcp"
    path.write_bytes(FOREIGN[name])
    assert refused(ProgramError, lambda: Program.load(path)).where.startswith(str(path))


def test_a_checkpoint_a_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.pt"
    torch.save(Model().state_dict(), checkpoint)
    assert zipfile.is_zipfile(checkpoint)
    refused(ProgramError, lambda: Program.load(checkpoint), "not a program")
    refused(ProgramError, lambda: Program.load(tmp_path), "cannot be read")
    refused(ProgramError, lambda: Program.load(tmp_path / "none"), "cannot be read")


@pytest.mark.parametrize("given_", ["LTCP", None, 7])
def test_what_is_not_bytes_is_refused(given_: Any) -> None:
    refused(ProgramError, lambda: Program.load_bytes(given_), f"a {type(given_).__name__} is given")


def test_bytes_come_in_any_buffer(data: bytes) -> None:
    for buffer in (bytearray(data), memoryview(data)):
        assert Program.load_bytes(buffer).save_bytes() == data


def test_a_program_of_another_table_is_refused_as_such(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that has an instruction under another name refuses the programs of this one."""
    changed = (*isa.INSTRUCTIONS[:-1], replace(isa.INSTRUCTIONS[-1], name="something_else"))
    monkeypatch.setattr(isa.table, "INSTRUCTIONS", changed)
    refused(IsaMismatchError, lambda: Program.load_bytes(data), "instruction set")
    monkeypatch.undo()
    Program.load_bytes(data)


# --- models, graphs, configurations ------------------------------------------------------------------------


def test_a_model_on_another_device_is_refused_and_stays_there() -> None:
    model = Model().eval().to("meta")
    refused(InputError, lambda: prepare_shape(model, *sequence()), "on the device meta, expected cpu")
    assert all(p.device.type == "meta" for p in model.parameters())


def test_inputs_that_are_no_tensors_are_refused() -> None:
    x, elapsed = sequence()
    refused(InputError, lambda: prepare_shape(Model().eval(), x.numpy(), elapsed), "a ndarray")
    refused(InputError, lambda: prepare_shape(Model().eval(), x.to("meta"), elapsed), "device meta")
    refused(InputError, lambda: prepare_shape(Model().eval(), x.long(), elapsed), "torch.int64")


@pytest.mark.parametrize("axis", [3, -4, [1], [1, 1, 1], [1, 5]])
def test_axes_that_are_not_there_are_refused(whole: NNIR, axis: Any) -> None:
    refused(StreamingError, lambda: whole.streaming_transform(axis))


@pytest.mark.parametrize("config", ["v80_c6b32", None, {"cores": 2}])
def test_what_is_no_config_is_refused(whole: NNIR, config: Any) -> None:
    error = refused(ConfigError, lambda: whole.to_program(config), "not a Config")
    assert "Config.preset" in error.remedy


def test_a_foreign_graph_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.nnir"
    path.write_bytes(FOREIGN["png"])
    assert str(path) in refused(GraphError, lambda: NNIR.load(path)).where
    assert str(tmp_path) in refused(GraphError, lambda: NNIR.load(tmp_path / "none")).where


def toml(old: str, new: str) -> bytes:
    text = Config.tiny_c1b8().to_bytes().decode()
    assert text.count(old) == 1
    return text.replace(old, new).encode()


BAD_CONFIGS: dict[str, tuple[bytes, str]] = {
    "unknown field": (toml("cores = 1\n", "cores = 1\nthreads = 2\n"), "unknown field threads"),
    "unknown latency": (toml("[latency]\n", "[latency]\nteleport = 1\n"), "unknown field latency.teleport"),
    "unknown table": (toml("[latency]\n", "[power]\nwatts = 1\n[latency]\n"), "unknown field power"),
    "missing field": (toml("cores = 1\n", ""), "missing field cores"),
    "misspelt field": (toml("cores = 1\n", "core = 1\n"), "unknown field core"),
    "too large": (toml("cores = 1\n", "cores = 17\n"), "cores is 17, not an integer from 1 to 16"),
    "negative": (toml("cores = 1\n", "cores = -1\n"), "cores is -1"),
    "text for a number": (toml("cores = 1\n", 'cores = "1"\n'), "cores is '1'"),
    "fraction": (toml("cores = 1\n", "cores = 1.5\n"), "cores is 1.5"),
    "true for a number": (toml("cores = 1\n", "cores = true\n"), "cores is True"),
    "no power of two": (
        toml("block_size = 8\n", "block_size = 12\n"),
        "block_size is 12, not a power of two",
    ),
    "not TOML": (b"cores: 1\n", "not a TOML text"),
    "png": (FOREIGN["png"], "not a TOML text"),
    "latency no table": (b"latency = 3\n", "latency is 3, not a table"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_bad_machine_is_refused_by_file_and_field(tmp_path: Path, name: str) -> None:
    content, what = BAD_CONFIGS[name]
    path = tmp_path / "machine.toml"
    path.write_bytes(content)
    assert str(path) in refused(ConfigError, lambda: Config.load(path), what).where


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_a_machine_by_accident(content: bytes) -> None:
    refused(ConfigError, lambda: Config.from_bytes(content))


def test_a_function_is_no_module() -> None:
    with pytest.raises(InputError, match=r"is a function, expected a torch\.nn\.Module"):
        prepare_shape(lambda x: x * 2, torch.randn(1, 3))  # type: ignore[arg-type]


def test_a_module_is_no_recorded_graph() -> None:
    with pytest.raises(GraphError, match=r"a Linear is given, expected a torch\.fx\.GraphModule"):
        to_nnir(torch.nn.Linear(3, 3))  # type: ignore[arg-type]
