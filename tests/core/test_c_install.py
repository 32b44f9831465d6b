"""libltc as it is installed: found by a compiler, by CMake and by pkg-config; and ltc.hpp."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import c_library as c
import native_builds
import numpy as np
import pytest
from folders import ROOT

from ltc_compiler import _core, libltc

SOURCES = ROOT / "tests" / "core" / "capi"
needs_an_installed_build = pytest.mark.skipif(
    bool(_core.build_info()["sanitized"]), reason="the sanitized build is not installed"
)
EXPECTED = ["LTC_PROGRAM LTC_PROGRAM 1", "LTC_VERSION", "unknown 1", "1", ""]


def output(*command: str | Path, **environment: str) -> str:
    whole = native_builds.without_preload() | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=whole)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def told(*options: str, module: str = "libltc") -> list[str]:
    """What `python -m ltc_compiler.libltc` prints, as a shell splits it."""
    command = [sys.executable, "-m", f"ltc_compiler.{module}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return shlex.split(done.stdout)


@needs_an_installed_build
def test_the_package_tells_a_compiler_what_it_needs(tmp_path: Path) -> None:
    source, program = str(SOURCES / "initialised.c"), tmp_path / "program"
    for options in (("--cflags", "--libs"), ("--cflags", "--static-libs")):
        output("gcc", "-std=c99", source, "-o", program, *told(*options))
        assert output(program).split("\n") == EXPECTED
    assert told("--cflags", "--libs", module="config") == told("--cflags", "--libs")
    included = Path(told("--cflags")[0].removeprefix("-I"))
    assert (included / "ltc.h").read_bytes() == c.HEADER.read_bytes()
    assert (included / "ltc.hpp").is_file()


def test_what_is_not_there_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert libltc.main([]) == 2
    assert "say what to print" in capsys.readouterr().err
    monkeypatch.setattr(libltc, "find_spec", lambda _: None)
    assert libltc.main(["--libs"]) == 1
    assert "libltc is not in this installation" in capsys.readouterr().err


@needs_an_installed_build
def test_cmake_finds_the_package(tmp_path: Path) -> None:
    for target in ("user_ltc", "user_static"):
        program = native_builds.build(SOURCES / "package", tmp_path, target, ltc_DIR=told("--cmake-dir")[0])
        assert output(program).split("\n") == EXPECTED
    assert "libltc.so" not in output("ldd", tmp_path / "user_static")


@needs_an_installed_build
@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="no pkg-config")
def test_pkg_config_finds_the_package(tmp_path: Path) -> None:
    folder, program = told("--pkg-config-dir")[0], tmp_path / "program"
    flags = output("pkg-config", "--cflags", "--libs", "ltc", PKG_CONFIG_PATH=folder).split()
    output("gcc", "-std=c99", str(SOURCES / "initialised.c"), "-o", program, *flags)
    libraries = os.pathsep.join(flag[2:] for flag in flags if flag.startswith("-L"))
    assert output(program, LD_LIBRARY_PATH=libraries).split("\n") == EXPECTED


@pytest.mark.parametrize("static", [False, True])
def test_objects_of_cpp_do_what_the_functions_do(static: bool, tmp_path: Path) -> None:
    program = c.program_of("elapsed")
    program.save(tmp_path / "elapsed.ltcp")
    runner = c.compiled(SOURCES / "objects.cpp", tmp_path / "objects", compiler="g++", static=static)
    lines = output(runner, tmp_path / "elapsed.ltcp").split("\n")
    vm, x, half = program.to_vm(), np.array([1, 2], np.float32), np.array(0.5, np.float32)
    first, second = vm.run(x, half), vm.run(x, half)
    assert lines == [
        f"1 tiny_c1b8 {program.model_name()} 1 elapsed_time",
        "1 3",
        f"first {first[0]:g} {first[1]:g}",
        f"copy {second[0]:g} {second[1]:g}",
        f"state {second[0]:g} {second[1]:g}",
        "moved 10.5 21",
        "steps 1.5 2 2.5 3",
        f"again {first[0]:g} {first[1]:g}",
        "batch 2 2 4 5",
        "kept 4 5",
        "LTC_INPUT inputs: inputs: the model has 2, 1 given; give one array a port, in their order",
        "LTC_ARGUMENT model: model: no model 1: there are 1; give an index below the number that there are",
        "LTC_FILE no file: no file: cannot be read: No such file or directory; give a file that Program.save wrote",
        lines[13],
        "LTC_ARGUMENT name: name: none of the 1 models is called 'none'; ltc_program_model gives their names",
        "0",
        "",
    ]
    assert lines[13].startswith("LTC_CONFIG kernels: kernels: there are no kernels none for this CPU")
