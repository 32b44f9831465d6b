"""Every ONNX operator with a converter, under several settings: NNIR and onnxruntime agree, there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_cases import Case, check_model, model_of
from onnx_operators import CASES, STANDARD

from ltc_compiler.onnx.registry import CONVERTERS


@pytest.mark.parametrize("case", [*CASES, *STANDARD], ids=lambda c: c.id)
def test_an_operator_means_what_onnxruntime_computes(case: Case, tmp_path: Path) -> None:
    model, given = model_of(case)
    check_model(model, given, tmp_path, case.tolerance)


def test_every_converter_has_cases() -> None:
    sequences = {op for op in CONVERTERS if "Sequence" in op} - {"ReverseSequence"}  # in test_control.py
    assert set(CONVERTERS) - sequences == {case.op for case in CASES}
