"""Files are replaced whole or not at all; programs, graphs and machines are copied as their users expect."""

from __future__ import annotations

import copy
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_programs import draw, inputs_of, op

from ltc_compiler import files
from ltc_compiler.bytecode import CoreImage, Image, Model, Port, Row, State
from ltc_compiler.config import Config
from ltc_compiler.errors import FileError, InputError, LtcError, StateError
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program

B = 8


def program() -> Program:
    """y = s; s = x."""
    code = [op("input", dst=Row(0)), op("output", src=Row(1)), op("state_write", dst=Row(1), a=Row(0))]
    model = Model("m", 0, 3, (Port("x", (B,)),), (Port("y", (B,)),), (State("s", (B,), 0, 1),))
    return Program(Image(Config.tiny_c1b8(), code, [CoreImage.empty(B, 2)], [model]))


def nnir() -> NNIR:
    graph = Graph("g")
    graph.add_output(add(graph, "tanh", graph.add_input(Type((2, 7)), "x")))
    return NNIR(graph)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "program": lambda path: program().save(path),
    "config": lambda path: Config.tiny_c1b8().save(path),
    "graph": lambda path: nnir().save(path),
    "onnx": lambda path: nnir().to_onnx(path),
    "trace": lambda path: program().save_trace(path),
    "page": lambda path: program().report().to_html(path),
    "json": lambda path: program().report().to_json(path),
    "csv": lambda path: program().report().to_csv(path),
    "comparison": lambda path: nnir().compare(Config.tiny_c1b8(), np.ones((2, 7))).to_csv(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_replaces_a_file_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _full_disk)
        with pytest.raises(FileError, match="No space left") as caught:
            WRITERS[name](path)
    assert str(path) in caught.value.where
    assert caught.value.remedy
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
    WRITERS[name](path)
    assert path.read_bytes() != b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def _full_disk(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_that_outgrows_its_limit_leaves_the_old_one(tmp_path: Path) -> None:
    """The system's own refusal, in the middle of writing."""
    path = tmp_path / "file"
    files.write_file(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(FileError, match="File too large"):
            files.write_file(path, bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


KILLED = """
import sys
from ltc_compiler.files import write_file
print("writing", flush=True)
for n in range(1_000_000):
    write_file(sys.argv[1], bytes([n % 251]) * 5_000_000)
"""


def test_a_process_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_file(path, bytes(5_000_000))
    for wait in (0.02, 0.05, 0.09):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(wait)
        child.kill()
        child.wait()
        child.stdout.close()
        data = path.read_bytes()
        assert len(data) == 5_000_000
        assert data.count(data[:1]) == len(data)


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to("target")
    files.write_file(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        files.write_file(tmp_path / "fresh", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640
    files.write_file(os.devnull, b"x")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize("path", ["missing/file", "a\0b", ".", "x" * 300])
def test_a_path_that_cannot_be_written_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        program().save(os.path.join(tmp_path, path))
    assert caught.value.where
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the super-user may write everything")
def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(FileError, match="read-only"):
        files.write_file(path, b"new")
    assert path.read_bytes() == b"old"


# ---- copies ----------------------------------------------------------------------------------------------------

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", COPIES)
def test_programs_graphs_and_configurations_are_copied(how: str) -> None:
    made = Program(draw(3))
    twin = COPIES[how](made)
    assert twin.save_bytes() == made.save_bytes()
    inputs = inputs_of(np.random.default_rng(0), made.image.models[0])
    for a, b in zip(twin.to_vm().run(*inputs), made.to_vm().run(*inputs), strict=True):
        assert a.tobytes() == b.tobytes()
    assert str(COPIES[how](nnir())) == str(nnir())
    assert COPIES[how](Config.v80_c6b32()) == Config.v80_c6b32()
    with pytest.raises(StateError):
        COPIES[how](program().without_reset()).to_vm().reset()


@pytest.mark.parametrize("how", ["copy", "deepcopy"])
@pytest.mark.parametrize("kind", ["vm", "oracle"])
def test_a_machine_and_its_copy_go_apart(how: str, kind: str) -> None:
    machine = program().to_vm() if kind == "vm" else program().to_oracle()
    machine.run(np.full(B, 3, np.float32))
    twin = COPIES[how](machine)
    assert (twin.run(np.full(B, 4, np.float32)) == 3).all()
    assert (machine.state["s"] == 3).all()
    assert (twin.state["s"] == 4).all()
    twin.reset()
    assert (machine.run(np.zeros(B, np.float32)) == 3).all()


def test_a_copy_has_all_streams() -> None:
    vm = program().to_vm()
    vm.run_batch(np.arange(3 * B, dtype=np.float32).reshape(3, B))
    twin = copy.copy(vm)
    vm.reset()
    assert [int(twin.get_state(stream=n)["s"][0]) for n in range(3)] == [0, B, 2 * B]


def test_a_vm_is_not_pickled() -> None:
    with pytest.raises(StateError, match="cannot be pickled") as caught:
        pickle.dumps(program().to_vm())
    assert "pickle the Program" in caught.value.remedy
    twin = pickle.loads(pickle.dumps(program().to_oracle()))
    assert isinstance(twin.run(np.zeros(B, np.float32)), np.ndarray)


# ---- arrays ------------------------------------------------------------------------------------------------------


def unaligned(*shape: int) -> Any:
    return np.ndarray(shape, np.float32, bytearray(4 * int(np.prod(shape)) + 1), offset=1)


def test_an_unaligned_array_is_as_good_as_any() -> None:
    vm, x = program().to_vm(), unaligned(B)
    x[:] = 5
    vm.run(x)
    assert (vm.state["s"] == 5).all()
    x[:] = 6
    vm.set_state({"s": x})
    assert (vm.run(x) == 6).all()
    many = unaligned(4, B)
    many[:] = 7
    assert (vm.run_timesteps(many)[1:] == 7).all()
    vm.run_batch(many)
    with pytest.raises(InputError, match="unaligned"):
        vm.run_into(x, unaligned(B))


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan, -1e-30])
def test_an_elapsed_time_is_finite(wrong: float) -> None:
    code = [op("input", dst=Row(0)), op("output", src=Row(0))]
    model = Model("m", 0, 2, (Port("dt", (), role="elapsed_time"),), (Port("y", ()),))
    made = Program(Image(Config.tiny_c1b8(), code, [CoreImage.empty(B, 2)], [model]))
    times = np.array([0, 1, wrong, 2], np.float32)
    vm, oracle = made.to_vm(), made.to_oracle()
    out = np.zeros((), np.float32)
    for call in (
        lambda: vm.run(times[2]), lambda: vm.run_into(times[2], out), lambda: vm.run_timesteps(times),
        lambda: vm.run_batch(times), lambda: oracle.run(times[2]), lambda: oracle.run_timesteps(times),
    ):  # fmt: skip
        with pytest.raises(InputError, match="an elapsed time is 0 or more, and finite"):
            call()
    with pytest.raises(LtcError, match="NaN, infinite or negative"):
        vm._vm.run(0, np.array(wrong, np.float32))
    vm.run(np.float32(3e38))
