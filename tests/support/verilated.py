"""Modules of rtl/ in small test benches, built by Verilator.

A bench in C++ is a program of its own. Where none is given, `stepping.cpp` drives the bench's two ports, `stimulus` and
`response`, with what Python gives for each cycle.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from folders import ROOT, TESTS
from numpy.typing import NDArray

RTL, UNITS = ROOT / "rtl", TESTS / "rtl" / "units"
ARITHMETIC = (RTL / "fp" / "fp.sv", *sorted(p for p in (RTL / "fp").glob("*.sv") if p.name != "fp.sv"))

# What is not used of a word, a table or a name is no fault; every width has to be right.
LINT = ("-Wall", "-Wno-UNUSEDSIGNAL", "-Wno-UNUSEDPARAM", "-Wno-VARHIDDEN", "-Wno-DECLFILENAME")
SPEED = ("-O3", "--unroll-count", "4", "--output-split", "20000")
OPTIONS = (*SPEED, "-CFLAGS", "-O2 -ffp-contract=off", "-j", "2")

needs_verilator = pytest.mark.skipif(
    shutil.which("verilator") is None, reason="Verilator is not installed (Debian's package: verilator)"
)


def build(
    top: str, sources: Sequence[Path], program: Path = UNITS / "stepping.cpp", **parameters: int
) -> Path:
    """The bench `top` with its C++ program, built once for the same files and parameters: the executable.

    Raises RuntimeError with the words of Verilator or of the compiler.
    """
    files = [*sources, program]
    settings = [f"-G{name}={value}" for name, value in parameters.items()]
    content = [path.read_bytes() for path in files] + [" ".join([top, *settings, *OPTIONS]).encode()]
    folder = ROOT / "build" / "rtl-units" / f"{top}-{hashlib.sha256(b''.join(content)).hexdigest()[:16]}"
    if (folder / "Vbench").is_file():
        return folder / "Vbench"
    scratch = folder.with_name(f"{folder.name}.{os.getpid()}")
    scratch.mkdir(parents=True)
    command = ["verilator", "--cc", "--exe", "--build", "--prefix", "Vbench", "--top", top, *LINT, *OPTIONS]
    command += ["--Mdir", str(scratch), *settings, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    if not folder.exists():
        scratch.rename(folder)
    return folder / "Vbench"


def step(bench: Path, stimulus: NDArray[np.uint32], folder: Path | None = None) -> NDArray[np.uint32]:
    """The words of `response` in each cycle, (cycles, words), while `stimulus` has those of (cycles, words).

    folder: where the bench finds the memories that it reads when it starts.
    """
    words = np.ascontiguousarray(stimulus, "<u4").tobytes()
    done = subprocess.run([bench], input=words, capture_output=True, cwd=folder, check=False)
    if done.returncode:
        raise RuntimeError(f"{bench}: {done.stderr.decode()[-3000:]}")
    return np.frombuffer(done.stdout, "<u4").reshape(len(stimulus), -1)
