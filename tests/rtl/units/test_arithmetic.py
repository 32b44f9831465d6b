"""The arithmetic units of rtl/fp against the CPU's IEEE arithmetic; `make proof-rtl-units` takes more pairs."""

from __future__ import annotations

import subprocess

import pytest
from verilated import ARITHMETIC, UNITS, build, needs_verilator

SOURCES = (*ARITHMETIC, UNITS / "fp_bench.sv")


@needs_verilator
@pytest.mark.parametrize("stages", [1, 2])
def test_every_operation_agrees_with_the_cpu(stages: int) -> None:
    """Each number of registers is a pipeline of its own: results come that many cycles later, one every cycle."""
    bench = build("fp_bench", SOURCES, UNITS / "fp_bench.cpp", STAGES=stages)
    done = subprocess.run([bench, "200000", str(stages)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("0 wrong") == 13
