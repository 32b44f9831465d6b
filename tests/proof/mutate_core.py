"""Plants faults in a copy of the C++ core, one at a time, and demands that a quick test file notices each.

    python tests/proof/mutate_core.py                all of them: about half an hour on two cores
    python tests/proof/mutate_core.py rounding bias  those whose names contain one of the words

The copy is built in build/mutants with the compiler flags of a release. Each fault compiles only what it touches, since
the sources and the build without a fault come back behind it, times included; its extension is kept under a name of its
own, and its tests run on that (LTC_CORE, tests/support/chosen_core.py) while the next one is built. The copy without a
fault must pass all the files first. A test that fails, crashes or never ends has noticed the fault. The faults stand in
core_faults.toml; tests/project/test_mutations.py plants those in the Python half.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from core_faults import FAULTS, Fault, edited
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
COPY = ROOT / "build" / "mutants" / "source"
BUILD = ROOT / "build" / "mutants" / "build"
CLEAN = ROOT / "build" / "mutants" / "clean"  # the build without a fault
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
    "SKBUILD_EDITABLE_SKIP": str(ROOT / "build" / "editable"),  # the working tree's own core is not needed
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


def core_with(fault: Fault | None) -> Path | str:
    """The extension with the fault, of a name of its own; the compiler's words if it does not build.

    Behind it the sources and the build are as without one, with the times that they had: ninja finds nothing to do.
    """
    edits = {} if fault is None else edited(fault.edits, COPY)
    clean = {COPY / file: (COPY / file).stat() for file in edits}
    texts = {path: path.read_bytes() for path in clean}
    for file, text in edits.items():
        (COPY / file).write_text(text, encoding="utf-8")
    complaint = build()
    kept = BUILD.parent / f"core_{'clean' if fault is None else FAULTS.index(fault)}.abi3.so"
    if not complaint:
        shutil.copy(BUILD / "_core.abi3.so", kept)
    if fault is None:
        shutil.rmtree(CLEAN, ignore_errors=True)
        shutil.copytree(BUILD, CLEAN, symlinks=True)
    else:
        for path, status in clean.items():
            path.write_bytes(texts[path])
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        shutil.rmtree(BUILD)
        shutil.copytree(CLEAN, BUILD, symlinks=True)
    return complaint or kept


def build() -> str:
    """Build the copy; the compiler's words if it does not build."""
    nanobind = run([sys.executable, "-m", "nanobind", "--cmake_dir"]).stdout.strip()
    configure = ["cmake", "-S", str(COPY), "-B", str(BUILD), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                 f"-DPython_EXECUTABLE={sys.executable}", f"-Dnanobind_DIR={nanobind}"]  # fmt: skip
    configured = (BUILD / "build.ninja").exists()
    for command in (() if configured else (configure,)) + (
        ["cmake", "--build", str(BUILD), "--target", "_core"],
    ):
        done = run(command)
        if done.returncode:
            return f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return ""


def test(core: Path, arguments: tuple[str, ...]) -> tuple[int, str]:
    """pytest's exit status on an extension, below 0 if it crashed or did not end, and its last line."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile", "whether"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    try:
        done = run(command, {"LTC_CORE": str(core)})
    except subprocess.TimeoutExpired:
        return -1, f"no end after {PATIENCE} s"
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", lines[-1])


def run(command: list[str], more: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = ENVIRONMENT | (more or {})
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


def judge(fault: Fault, core: Path) -> str:
    """Whether the tests of a fault notice it, in words."""
    begin = time.monotonic()
    status, summary = test(core, fault.tests)
    core.unlink()
    seen = status == 1 or status < 0  # 1: tests ran, and some failed; 2 and more: pytest did not run them
    took = f"{time.monotonic() - begin:.0f} s"
    return f"{'noticed' if seen else 'UNNOTICED'} by {' '.join(fault.tests)} ({took}): {summary}"


def main() -> None:
    """Prints a line for each fault; exit status 1 if one went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="plant only the faults whose names contain one of these")
    words = parser.parse_args().words
    faults = [f for f in FAULTS if not words or any(word in f.name for word in words)]
    for fault in faults:  # all of them before the first minute is spent
        edited(fault.edits, ROOT)
    copy_core()
    shutil.rmtree(BUILD, ignore_errors=True)
    clean = core_with(None)
    if isinstance(clean, str):
        sys.exit(clean)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        files = list(dict.fromkeys(f.tests for f in faults))
        results = zip(files, pool.map(lambda tests: test(clean, tests), files), strict=True)
        for tests, (status, summary) in tqdm(results, total=len(files), desc="without a fault", unit="test"):
            if status:
                pool.shutdown(cancel_futures=True)
                sys.exit(f"without a fault, {' '.join(tests)}: {summary}")
        judged: dict[str, Future[str]] = {}
        for fault in tqdm(faults, desc="building with one", unit="fault"):
            core = core_with(fault)
            if isinstance(core, str):
                judged[fault.name] = pool.submit(lambda words: f"DOES NOT BUILD\n{words}", core)
            else:
                judged[fault.name] = pool.submit(judge, fault, core)
            judged[fault.name].add_done_callback(
                lambda done, name=fault.name: tqdm.write(f"{name}: {done.result()}", file=sys.stdout)
            )
    missed = [name for name, result in judged.items() if not result.result().startswith("noticed")]
    if missed:
        sys.exit(
            f"{len(missed)} of {len(faults)} faults went unnoticed or did not build: {'; '.join(missed)}"
        )
    print(f"all {len(faults)} faults were noticed")


if __name__ == "__main__":
    main()
