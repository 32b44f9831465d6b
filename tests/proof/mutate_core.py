"""Plants faults in a copy of the C++ core, one at a time, and demands that a quick test file notices each.

    python tests/proof/mutate_core.py                all of them: about a minute each on two cores
    python tests/proof/mutate_core.py rounding bias  those whose names contain one of the words

The copy is built in build/mutants with the compiler flags of a release; LTC_CORE puts it in place of the installed core
(tests/conftest.py). The copy without a fault must pass all the files first. Faults in the Python half are planted by
tests/test_mutations.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COPY = ROOT / "build" / "mutants" / "source"
BUILD = ROOT / "build" / "mutants" / "build"
NEEDED = (
    "CMakeLists.txt",
    "sim_core",
    "configs",
    "ltc_compiler/isa.py",
    "ltc_compiler/isa_print.py",
    "ltc_compiler/activation_tables.bin",
)
BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "LTC_CORE": str(BUILD / "_core.abi3.so"),
    "SKBUILD_EDITABLE_SKIP": str(
        ROOT / "build" / "editable"
    ),  # the working tree's own core is not needed here
}


class Edit(NamedTuple):
    """`old` stands once in the file and becomes `new`."""

    file: str
    old: str
    new: str


class Fault(NamedTuple):
    name: str
    tests: tuple[str, ...]  # arguments of pytest
    edits: tuple[Edit, ...]


FAULTS = (
    Fault(
        "rounding: ties go away from zero",
        ("tests/test_numerics.py",),
        (
            Edit(
                "sim_core/numerics.h",
                "(u + 0x7FFFu + ((u >> 16) & 1u)) & 0xFFFF0000u",
                "(u + 0x8000u) & 0xFFFF0000u",
            ),
        ),
    ),
    Fault(
        "flush: subnormal results are stored",
        ("tests/test_numerics.py",),
        (Edit("sim_core/numerics.h", "magnitude < smallest_normal ? u & sign_bit : u", "u"),),
    ),
    Fault(
        "relu: the other zero",
        ("tests/test_numerics.py",),
        (Edit("sim_core/numerics.h", "maximum(x, splat<F>(0.0f))", "maximum(splat<F>(0.0f), x)"),),
    ),
    Fault(
        "summation: the adder tree adds halves, not neighbours",
        ("tests/test_core_runs.py", "-k", "sums_in_order"),
        (
            Edit(
                "sim_core/lanes.h",
                "((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]))",
                "((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))",
            ),
        ),
    ),
    Fault(
        "summation: odd terms before even ones",
        ("tests/test_differential.py", "-k", "test_every_instruction and matmul"),
        (
            Edit(
                "sim_core/lanes.h", "a = a + first<V>(w) * first<V>(x)", "a = a + second<V>(w) * second<V>(x)"
            ),
            Edit(
                "sim_core/lanes.h",
                "return a + second<V>(w) * second<V>(x)",
                "return a + first<V>(w) * first<V>(x)",
            ),
        ),
    ),
    Fault(
        "summation: fused products one exponent too far down",
        ("tests/test_core_units.py", "-k", "exactness"),
        (Edit("sim_core/packing.cpp", "-112 - exponent(least)", "-113 - exponent(least)"),),
    ),
    Fault(
        "summation: fused products one exponent too far up",
        ("tests/test_core_units.py", "-k", "exactness"),
        (Edit("sim_core/packing.cpp", "126 - exponent(largest)", "127 - exponent(largest)"),),
    ),
    Fault(
        "sigmoid: a coefficient off by one in the last place",
        ("tests/test_core_units.py", "-k", "table"),
        (Edit("sim_core/sequences.h", "0x1.62dfbcp-1f", "0x1.62dfc8p-1f"),),
    ),
    Fault(
        "synapse: absent ones count where their source is no number",
        ("tests/test_core_units.py", "-k", "synapses"),
        (
            Edit(
                "sim_core/synapse_packing.cpp",
                "to[4 * W + l] |= second != 0 ? sign_bit >> 16 : sign_bit;",
                "",
            ),
        ),
    ),
    Fault(
        "synapse: fused operations beside gates that are shut",
        ("tests/test_core_units.py", "-k", "synapses"),
        (Edit("sim_core/kernels.h", "open_gate = -40.0f", "open_gate = -80.0f"),),
    ),
    Fault(
        "synapse: fused operations on weights of any size",
        ("tests/test_core_units.py", "-k", "synapses"),
        (Edit("sim_core/kernels.h", "fused_weights = 0x1p-40f", "fused_weights = 0x1p-126f"),),
    ),
    Fault(
        "synapse: fused operations on slopes of any size",
        ("tests/test_core_units.py", "-k", "synapses"),
        (
            Edit(
                "sim_core/synapse_packing.cpp",
                "between(sigma, 0x1p-126f, 0x1p100f)",
                "between(sigma, 0x1p-126f, 0x1p127f)",
            ),
        ),
    ),
    Fault(
        "bias: in an accumulator from the start",
        ("tests/test_core_runs.py", "-k", "sums_in_order"),
        (
            Edit(
                "sim_core/matmul.h",
                "V a[N][pass] = {};",
                "V a[N][pass] = {};\n"
                "        for (std::size_t i = 0; first + begin == 0 && i < N; ++i) a[i][0] = bias;",
            ),
            Edit(
                "sim_core/matmul.h",
                "    std::uint32_t pairs;\n\n",
                "    std::uint32_t pairs;\n    V bias{};\n\n",
            ),
            Edit(
                "sim_core/matmul.h",
                "const auto sums = group.sum();",
                "group.bias = load<Floats<W>>(bias + o);\n        const auto sums = group.sum();",
            ),
            Edit("sim_core/matmul.h", "sums.of[i] + load<Floats<W>>(bias + o)", "sums.of[i]"),
        ),
    ),
    Fault(
        "gather: neighbouring lanes exchanged",
        ("tests/test_program.py", "-k", "test_file and gather"),
        (Edit("sim_core/packing.cpp", "lane != isa::absent ? lane :", "lane != isa::absent ? lane ^ 1 :"),),
    ),
    Fault(
        "latency: an accumulator is free after one addition, not two",
        ("tests/test_timing.py",),
        (
            Edit(
                "sim_core/timing.cpp",
                "2ull * machine_.latency(isa::Latency::accumulate)",
                "1ull * machine_.latency(isa::Latency::accumulate)",
            ),
        ),
    ),
    Fault(
        "latency: every activation takes the time of a table look-up",
        ("tests/test_timing_walks.py",),
        (Edit("sim_core/timing.cpp", "info.unit == isa::Unit::activation && fp32", "false && fp32"),),
    ),
    Fault(
        "guard: the settings of the process stay",
        ("tests/test_numerics_environment.py",),
        (Edit("sim_core/numerics.h", "saved_(read()) { write(plain); }", "saved_(read()) {}"),),
    ),
    Fault(
        "guard: the settings of the process are lost",
        ("tests/test_numerics_environment.py",),
        (Edit("sim_core/numerics.h", "~FlushGuard() { write(saved_); }", "~FlushGuard() {}"),),
    ),
    Fault(
        "guard: a sequence of steps runs without it",
        ("tests/test_numerics_environment.py",),
        (
            Edit(
                "sim_core/vm.cpp",
                "const FlushGuard guard;\n    for (std::size_t t = 0;",
                "for (std::size_t t = 0;",
            ),
        ),
    ),
    Fault(
        "self-test: what differs is let pass",
        ("tests/test_self_test.py",),
        (Edit("sim_core/self_test.cpp", "proof.found != proof.expected) differing", "false) differing"),),
    ),
    Fault(
        "self-test: tanh of a build differs in the last place",
        ("tests/test_self_test.py",),
        (
            Edit(
                "sim_core/activations.h", "tanh_terms[] = {-0x1.6e0f08p-8f", "tanh_terms[] = {-0x1.6e0f0ap-8f"
            ),
        ),
    ),
    Fault(
        "host: NaN passes for an elapsed time",
        ("tests/test_core_runs.py", "-k", "elapsed"),
        (Edit("sim_core/vm.cpp", "u > infinity_bits && u != sign_bit", "u > sign_bit"),),
    ),
)


def copy_core() -> None:
    """A fresh copy of what CMake needs, with new times: what an interrupted call built with a fault is built again."""
    shutil.rmtree(COPY, ignore_errors=True)
    for name in NEEDED:
        source, target = ROOT / name, COPY / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=shutil.copy)
        else:
            shutil.copy(source, target)


def plant(edits: tuple[Edit, ...]) -> None:
    """Write the edits into the copy; SystemExit if a text is not there any more, or twice."""
    for edit in edits:
        path = COPY / edit.file
        text = path.read_text(encoding="utf-8")
        if text.count(edit.old) != 1:
            sys.exit(
                f"{edit.file} has {edit.old!r} {text.count(edit.old)} times, expected once: mend {__file__}"
            )
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


def restore(edits: tuple[Edit, ...]) -> None:
    for file in {edit.file for edit in edits}:
        shutil.copy(ROOT / file, COPY / file)  # not copy2: the time must be new, or nothing is built


def build() -> float:
    """Build the copy; the seconds that it took. SystemExit with the compiler's words if it does not build."""
    begin = time.monotonic()
    nanobind = run([sys.executable, "-m", "nanobind", "--cmake_dir"]).stdout.strip()
    configure = ["cmake", "-S", str(COPY), "-B", str(BUILD), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                 f"-DPython_EXECUTABLE={sys.executable}", f"-Dnanobind_DIR={nanobind}"]  # fmt: skip
    for command in (configure, ["cmake", "--build", str(BUILD), "--target", "_core"]):
        done = run(command)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return time.monotonic() - begin


def test(arguments: tuple[str, ...]) -> tuple[int, str]:
    """pytest's exit status on the copy, and its last line."""
    done = run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments])
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", lines[-1])


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def main() -> None:
    """Prints a line for each fault; exit status 1 if one went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="plant only the faults whose names contain one of these")
    words = parser.parse_args().words
    faults = [f for f in FAULTS if not words or any(word in f.name for word in words)]
    copy_core()
    for fault in faults:  # all of them before the first minute is spent
        plant(fault.edits)
        restore(fault.edits)

    print(f"no fault: built in {build():.0f} s", flush=True)
    for tests in dict.fromkeys(f.tests for f in faults):
        status, summary = test(tests)
        print(f"  {' '.join(tests)}: {summary}", flush=True)
        if status:
            sys.exit("the core fails its tests without a fault")
    unnoticed = []
    for n, fault in enumerate(faults, start=1):
        print(f"[{n}/{len(faults)}] {fault.name}", flush=True)
        plant(fault.edits)
        seconds = build()
        status, summary = test(fault.tests)
        restore(fault.edits)
        noticed = status == 1  # 1: tests ran, and some failed
        print(
            f"  built in {seconds:.0f} s; {' '.join(fault.tests)}: {summary}: {'noticed' if noticed else 'UNNOTICED'}",
            flush=True,
        )
        if not noticed:
            unnoticed.append(fault.name)
    if unnoticed:
        sys.exit(f"{len(unnoticed)} of {len(faults)} faults went unnoticed: {'; '.join(unnoticed)}")
    print(f"all {len(faults)} faults were noticed")


if __name__ == "__main__":
    main()
