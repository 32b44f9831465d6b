"""libltc without Python: it is configured without nanobind, and a C++ program on it gives the bits of the VM."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import native_builds
import numpy as np
from core_images import kernel_names
from folders import ROOT
from random_programs import draw, inputs_of

from ltc_compiler import _core
from ltc_compiler.oracle.clock import estimate
from ltc_compiler.program import Program

STEPS = 5  # as in run_program.cpp


def built() -> Path:
    """The folder in which CMake built the core that is in use."""
    assert _core.__file__ is not None
    return next(folder for folder in Path(_core.__file__).parents if (folder / "CMakeCache.txt").is_file())


def test_a_program_in_cpp_gives_the_bits_of_the_vm(tmp_path: Path) -> None:
    runner = native_builds.build(
        ROOT / "tests" / "core" / "native", tmp_path / "build", "run_program", ltc_DIR=str(built())
    )
    linked = subprocess.run(
        ["ldd", runner], capture_output=True, text=True, check=True, env=native_builds.without_preload()
    )
    assert "libc.so" in linked.stdout
    assert "python" not in linked.stdout

    rng = np.random.default_rng(0)
    for seed in range(3):
        program = Program(draw(seed, 40))
        program.save(tmp_path / "program.ltcp")
        steps = [inputs_of(rng, program.image.models[0]) for _ in range(STEPS)]
        sequences = [np.stack(arrays) for arrays in zip(*steps, strict=True)]
        (tmp_path / "x").write_bytes(b"".join(x.tobytes() for x in sequences))
        expected = program.to_vm().run_timesteps(*sequences)
        for name in kernel_names():
            files = [str(tmp_path / file) for file in ("program.ltcp", "x", "y")]
            done = subprocess.run([runner, *files, name], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert int(done.stdout) == estimate(program.image).total
            assert (tmp_path / "y").read_bytes() == b"".join(y.tobytes() for y in expected)


def test_libltc_is_configured_without_nanobind_and_the_headers_of_python(tmp_path: Path) -> None:
    native_builds.configure(ROOT, tmp_path, LTC_PYTHON="OFF", CMAKE_DISABLE_FIND_PACKAGE_nanobind="TRUE")
    rules = (tmp_path / "build.ninja").read_text(encoding="utf-8")
    assert "libltc.a" in rules
    assert "nanobind" not in rules
    assert sysconfig.get_paths()["include"] not in rules
