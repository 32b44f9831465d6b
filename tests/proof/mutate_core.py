"""Plants faults in a copy of the C++ core, one at a time, and demands that a quick test file notices each.

    python tests/proof/mutate_core.py                all of them: about a minute each on two cores
    python tests/proof/mutate_core.py rounding bias  those whose names contain one of the words

The copy is built in build/mutants with the compiler flags of a release; LTC_CORE puts it in place of the installed core
(tests/support/chosen_core.py). The copy without a fault must pass all the files first. A test that fails, crashes or
never ends has noticed the fault. The faults stand in core_faults.toml; tests/project/test_mutations.py plants those in
the Python half.
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

from core_faults import FAULTS, Edit, edited
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
COPY = ROOT / "build" / "mutants" / "source"
BUILD = ROOT / "build" / "mutants" / "build"
NEEDED = (
    "CMakeLists.txt",
    "sim_core",
    "configs",
    "ltc_compiler/isa",
    "ltc_compiler/activation_tables.bin",
)
BIN = Path(sys.executable).parent
PATIENCE = 900  # seconds for a build or a test; the slowest take a minute
ENVIRONMENT = os.environ | {
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "LTC_CORE": str(BUILD / "_core.abi3.so"),
    "SKBUILD_EDITABLE_SKIP": str(
        ROOT / "build" / "editable"
    ),  # the working tree's own core is not needed here
}


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
    """Write the edits into the copy."""
    for file, text in edited(edits, COPY).items():
        (COPY / file).write_text(text, encoding="utf-8")


def restore(edits: tuple[Edit, ...]) -> None:
    for file, _, _ in edits:
        shutil.copy(ROOT / file, COPY / file)  # not copy2: the time must be new, or nothing is built


def build() -> str:
    """Build the copy; the compiler's words if it does not build."""
    nanobind = run([sys.executable, "-m", "nanobind", "--cmake_dir"]).stdout.strip()
    configure = ["cmake", "-S", str(COPY), "-B", str(BUILD), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                 f"-DPython_EXECUTABLE={sys.executable}", f"-Dnanobind_DIR={nanobind}"]  # fmt: skip
    for command in (configure, ["cmake", "--build", str(BUILD), "--target", "_core"]):
        done = run(command)
        if done.returncode:
            return f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return ""


def test(arguments: tuple[str, ...]) -> tuple[int, str]:
    """pytest's exit status on the copy, below 0 if it crashed or did not end, and its last line."""
    try:
        done = run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments])
    except subprocess.TimeoutExpired:
        return -1, f"no end after {PATIENCE} s"
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", lines[-1])


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


def main() -> None:
    """Prints a line for each fault; exit status 1 if one went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="plant only the faults whose names contain one of these")
    words = parser.parse_args().words
    faults = [f for f in FAULTS if not words or any(word in f.name for word in words)]
    copy_core()
    for fault in faults:  # all of them before the first minute is spent
        edited(fault.edits, ROOT)

    if complaint := build():
        sys.exit(complaint)
    for tests in tqdm(list(dict.fromkeys(f.tests for f in faults)), desc="without a fault", unit="test"):
        status, summary = test(tests)
        if status:
            sys.exit(f"without a fault, {' '.join(tests)}: {summary}")
    missed = []
    for fault in tqdm(faults, desc="with one", unit="fault"):
        begin = time.monotonic()
        plant(fault.edits)
        if complaint := build():
            found = f"DOES NOT BUILD\n{complaint}"
        else:
            status, summary = test(fault.tests)
            seen = (
                status == 1 or status < 0
            )  # 1: tests ran, and some failed; 2 and more: pytest did not run them
            found = f"{'noticed' if seen else 'UNNOTICED'} by {' '.join(fault.tests)}: {summary}"
        restore(fault.edits)
        tqdm.write(f"{fault.name} ({time.monotonic() - begin:.0f} s): {found}", file=sys.stdout)
        if not found.startswith("noticed"):
            missed.append(fault.name)
    if missed:
        sys.exit(
            f"{len(missed)} of {len(faults)} faults went unnoticed or did not build: {'; '.join(missed)}"
        )
    print(f"all {len(faults)} faults were noticed")


if __name__ == "__main__":
    main()
