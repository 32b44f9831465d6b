"""The law: the simulator and the reference machine agree bit for bit, on any program, input and state."""

from __future__ import annotations

import pytest
from both_machines import compare
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import DRAWN, draw

from ltc_compiler.errors import ConfigError
from ltc_compiler.program import Program


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 60), st.booleans())
def test_random_programs(seed: int, size: int, whole_rows: bool) -> None:
    compare(draw(seed, size, whole_rows=whole_rows), seed, bit_accurate=True)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 60))
def test_random_programs_in_plain_fp32(seed: int, size: int) -> None:
    compare(draw(seed, size), seed, bit_accurate=False)


@pytest.mark.parametrize("simd", ["sse2", "avx2", "avx512", "avx512_bf16"])
def test_every_instruction_set(simd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTC_SIMD", simd)
    try:
        found = Program(draw(0)).to_vm().metrics()["simd"]
    except ConfigError as error:
        pytest.skip(error.what)
    assert found == simd
    for seed in range(40):
        compare(draw(seed, 40, whole_rows=seed % 3 != 0), seed, bit_accurate=seed % 4 != 0)


@pytest.mark.parametrize("name", DRAWN)
def test_every_instruction(name: str) -> None:
    """Each instruction often, so that a fault in a rare one is found in every run."""
    for seed in range(8):
        compare(draw(seed, 12, names=(name, "move"), whole_rows=seed % 2 == 0), seed, bit_accurate=True)
        compare(draw(seed, 12, names=(name, "move")), seed, bit_accurate=False)
