"""libltc as a C or C++ compiler and the linker see it: the header, the layout of its structs, the symbols.

And that the run path takes no memory, lock or system call, little stack, and nothing from the caller's modes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import c_library as c
import native_builds
import pytest
from core_images import kernel_names
from folders import ROOT
from ltcasm import file_image
from random_programs import draw

from ltc_compiler import _core
from ltc_compiler.program import Program

SOURCES = ROOT / "tests" / "core" / "capi"
SANITIZED = bool(_core.build_info()["sanitized"])
needs_a_plain_build = pytest.mark.skipif(
    SANITIZED, reason="the sanitizers take memory and stack of their own"
)

# The ABI. A change of a number here is a new LTC_API_VERSION: programs that are compiled already hold the old ones.
SIZES = """
ltc_status 4, ltc_error 1032, ltc_load_options 16, ltc_machine_info 40, ltc_model_info 48, ltc_port_info 120,
ltc_cycles 56, ltc_trace_record 120, ltc_input 16, ltc_output 16, ltc_vm_options 16, ltc_batch_options 32,
ltc_error.what 8, ltc_error.where 520, ltc_error.remedy 776, ltc_load_options.max_work 8,
ltc_machine_info.clock_mhz 16, ltc_machine_info.name 24, ltc_machine_info.configuration 32,
ltc_model_info.name 16, ltc_model_info.max_steps 32, ltc_model_info.can_reset 40,
ltc_port_info.shape 8, ltc_port_info.count 72, ltc_port_info.name 80, ltc_port_info.role 96,
ltc_port_info.streaming_axis 104, ltc_port_info.tail 112, ltc_cycles.interval 24, ltc_cycles.host_us 48,
ltc_trace_record.iterations 16, ltc_trace_record.issue 48, ltc_trace_record.stall 112,
ltc_vm_options.kernels 8, ltc_batch_options.streams 16, ltc_batch_options.threads 24
"""


def output(*command: str | Path) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=native_builds.without_preload()
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("compiler", ["gcc", "g++", "clang"])
def test_the_header_is_strict_c99_and_cpp(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None or (SANITIZED and compiler == "clang"):
        pytest.skip(f"no {compiler} that fits")
    source = SOURCES / "initialised.c"
    if compiler == "g++":
        source = tmp_path / "initialised.cpp"
        shutil.copy(SOURCES / "initialised.c", source)
    program = c.compiled(source, tmp_path / "program", compiler=compiler)
    assert output(program).split("\n") == ["LTC_PROGRAM LTC_PROGRAM 1", "LTC_VERSION", "unknown 1", "1", ""]


def test_structs_are_laid_out_as_they_always_were(tmp_path: Path) -> None:
    found = output(c.compiled(SOURCES / "layout.c", tmp_path / "layout"))
    assert found.split("\n")[:-1] == [line.strip() for line in SIZES.replace("\n", " ").split(",")]


@needs_a_plain_build
def test_the_shared_library_shows_the_functions_of_the_header_and_needs_the_c_library_alone() -> None:
    declared = set(re.findall(r"^LTC_API .*?\b(ltc_\w+)\(", c.HEADER.read_text(encoding="utf-8"), re.M))
    assert len(declared) > 25
    shown = output("nm", "-D", "--defined-only", c.shared()).split("\n")
    assert {line.split()[2] for line in shown if line} == declared
    needed = re.findall(r"NEEDED.*\[(.*)\]", output("readelf", "-d", c.shared()))
    assert set(needed) <= {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    assert re.findall(r"SONAME.*\[(.*)\]", output("readelf", "-d", c.shared())) == [f"libltc.so.{c.VERSION}"]
    assert c.library().ltc_api_version() == c.VERSION


def test_a_program_links_the_archive(tmp_path: Path) -> None:
    program = c.compiled(SOURCES / "initialised.c", tmp_path / "program", static=True)
    assert "LTC_PROGRAM" in output(program)
    assert "libltc" not in output("ldd", program)


# ---- real time ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An integrator with an elapsed time, and programs over most of the instruction table."""
    folder = tmp_path_factory.mktemp("programs")
    images = [file_image("elapsed"), *(draw(seed, 40) for seed in (1, 2, 5))]
    for n, image in enumerate(images):
        Program(replace(image)).save(folder / f"{n}.ltcp")
    return [str(folder / f"{n}.ltcp") for n in range(len(images))]


@needs_a_plain_build
def test_the_run_path_takes_no_memory_no_lock_and_no_system_call(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = c.compiled(SOURCES / "real_time.c", tmp_path / "counting", "-DCOUNT", "-lm")
    plain = c.compiled(SOURCES / "real_time.c", tmp_path / "plain", "-lm")
    if subprocess.run([plain, "one", files[0]], check=False).returncode != -9:
        pytest.skip("no filter of system calls here")
    for kernels in kernel_names():
        monkeypatch.setenv("LTC_SIMD", kernels)
        for file in files:
            assert output(counting, "memory", file) == "taken 0 locked 0 counted 1 wrong 0\n", kernels
            assert output(plain, "calls", file) == "no calls wrong 0\n", kernels


@needs_a_plain_build
def test_the_run_path_uses_little_stack(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = c.compiled(SOURCES / "real_time.c", tmp_path / "plain", "-lm", "-lpthread")
    for kernels in kernel_names():
        monkeypatch.setenv("LTC_SIMD", kernels)
        for file in files:
            _, used, _, wrong = output(plain, "stack", file).split()
            assert int(wrong) == 0
            assert int(used) <= 16 * 1024 + 4096  # with what a thread of the C library takes


def test_no_mode_of_the_caller_changes_a_bit_and_all_are_as_before(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = c.compiled(SOURCES / "real_time.c", tmp_path / "plain", "-lm")
    for kernels in kernel_names():
        monkeypatch.setenv("LTC_SIMD", kernels)
        for file in files:
            assert output(plain, "environment", file) == "differ 0 lost 0 wrong 0\n", kernels
