"""A few cases of every fuzzer, always the same; tests/proof/fuzz.py runs as many as an hour takes."""

from __future__ import annotations

import fuzz_graphs
import fuzz_modules
import fuzz_onnx
import fuzz_programs
import fuzz_texts
import pytest


@pytest.mark.parametrize("block", range(4))
def test_damaged_programs_are_refused_or_run(block: int) -> None:
    outcomes = {fuzz_programs.case(seed) for seed in range(10 * block, 10 * block + 10)}
    assert outcomes & {"refused", "agreed"}


def test_damaged_texts_are_refused_or_read() -> None:
    assert {fuzz_texts.case(seed) for seed in range(150)} == {"refused", "read"}


@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_agree(seed: int) -> None:
    assert fuzz_graphs.case(seed) == "agreed"


@pytest.mark.parametrize("seed", range(4))
def test_random_modules_are_what_pytorch_makes_of_them(seed: int) -> None:
    assert fuzz_modules.case(seed) == "streamed"


def test_onnx_files_agree_or_are_refused() -> None:
    assert {fuzz_onnx.case(seed) for seed in range(60)} == {"refused", "agreed", "read"}
