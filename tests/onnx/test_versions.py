"""Every operator in every version of the standard from opset 7 on that onnxruntime runs, on inputs and on constants.

A case that is written for one version is tried in all others: where ONNX's checker takes it and onnxruntime computes
it, the import must compute the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import checker, defs, save
from onnx_cases import Case, Const, assert_close, ints, model_of, run_nnir, run_ort
from onnx_operators import CASES

from ltc_compiler.nnir import NNIR
from ltc_compiler.onnx.evaluate import FOLDABLE
from ltc_compiler.onnx.load import OLDEST_OPSET

# Versions that onnxruntime has no kernel for, or of other types alone; 18 of GroupNormalization and
# 10 of Upsample the standard withdrew.
UNRUN = {("Equal", 7), ("GroupNormalization", 18), ("Upsample", 10)}
UNRUN_CONSTANT = {("Compress", 9), ("Range", 27)}
NEWEST = 27  # of onnxruntime
WHOLE = Const([[3, -1, 2], [7, 5, -4]], np.int64)
REAL = Const([[0.5, -1.5, 2.5], [2.0, 0.0, -0.5]])
TRUTH = Const([[True, False, True], [False, False, True]], bool)
ONE, TWO = Const(1, np.int64), Const([2, 3, 4], np.int64)


def constant_cases() -> Iterator[Case]:
    """Shape arithmetic and the like: operators whose operands are all constants."""
    for op in ("Abs", "Neg", "Sign", "Identity", "Relu", "Not", "BitwiseNot", "Ceil", "Floor", "Round", "Erf",
               "Exp", "Sqrt", "Sin", "Cos", "Reciprocal", "Sigmoid", "Tanh", "Softplus", "Log", "IsNaN", "IsInf",
               "NonZero"):  # fmt: skip
        for x in (TRUTH,) if op == "Not" else (REAL, WHOLE, Const([[0.25, np.inf], [np.nan, 4.0]])):
            yield Case(op, [x], tag=str(x.array.dtype))
    for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Mod", "Pow", "Equal", "Greater", "Less", "GreaterOrEqual",
               "LessOrEqual", "BitwiseAnd", "BitwiseOr", "Sum", "Mean"):  # fmt: skip
        if op in ("Min", "Max", "Sum", "Mean"):
            yield Case(op, [REAL, Const(-REAL.array)])  # opset 7 takes equal shapes alone
        for x in (WHOLE, REAL):
            yield Case(op, [x, Const([[2, 3, 4]], x.dtype)], {"fmod": 1} if op == "Mod" and x is REAL else {})
    for op in ("And", "Or", "Xor"):
        yield Case(op, [TRUTH, Const([True, False, True], bool)])
    for to in (1, 6, 7, 9, 10, 11):
        yield from (Case("Cast", [x], {"to": to}) for x in (WHOLE, REAL, TRUTH))
    yield Case("CastLike", [REAL, ONE])
    for x in (WHOLE, REAL):
        yield from _moves(x)
        yield from _summaries(x)
    yield from _made()


def _moves(x: Const) -> Iterator[Case]:
    yield from (
        Case("Unsqueeze", [x], {"axes": a}, opset=11) for a in ([0], [1, 3], [3, 0], [-1], [0, -1], [-1, -2])
    )
    yield from (Case("Unsqueeze", [x, ints(*a)]) for a in ([0], [1, 3], [3, 0], [-1], [0, -1]))
    wide = Const(x.array.reshape(1, 6, 1), x.dtype)
    yield from (Case("Squeeze", [wide], {"axes": a}, opset=11) for a in ([0], [0, 2], [-1], [-1, 0]))
    yield from (Case("Squeeze", [wide, ints(*a)]) for a in ([0], [2, 0], [-1]))
    yield Case("Squeeze", [wide])
    yield Case("Concat", [x, x], {"axis": -1})
    yield Case("Concat", [x, x], {"axis": 0})
    yield from (Case("Gather", [x, i], {"axis": a}) for i in (ONE, ints(0, -1)) for a in (0, 1, -1))
    yield Case("GatherElements", [x, Const([[0, -1, 1]], np.int64)])
    yield Case("GatherElements", [x, Const([[0], [-1]], np.int64)], {"axis": 1})
    yield Case("GatherND", [x, Const([[0, 2], [1, -1]], np.int64)])
    yield Case("ScatterElements", [x, Const([[1, 0]], np.int64), Const([[8, 9]], x.dtype)], {"axis": 1})
    yield Case("ScatterND", [x, Const([[1]], np.int64), Const([[8, 9, 7]], x.dtype)])
    yield Case("Slice", [x], {"starts": [0, 1], "ends": [1, -1]}, opset=9)
    yield Case("Slice", [x], {"starts": [-2], "ends": [99], "axes": [-1]}, opset=9)
    yield Case("Slice", [x, ints(2), ints(-9), ints(-1), ints(-1)])
    yield Case("Slice", [x, ints(0), ints(2), ints(1)], opset=10)
    yield from (Case("Split", [x], {"split": [1, 2], "axis": a}, opset=11, outputs=2) for a in (1, -1))
    yield Case("Split", [x, ints(1, 2)], {"axis": 1}, outputs=2)
    yield Case("Split", [x], outputs=2, opset=13)
    yield Case("Split", [x], {"num_outputs": 2, "axis": 1}, outputs=2)
    yield Case("Reshape", [x, ints(0, -1, 1)])
    yield Case("Reshape", [x, ints(3, 2)], {"allowzero": 1})
    yield from (Case("Flatten", [x], {"axis": a}) for a in (0, 1, -1))
    yield Case("Transpose", [x])
    yield Case("Transpose", [x], {"perm": [0, 1]})
    yield Case("Trilu", [x], {"upper": 0})
    yield Case("Tile", [x, ints(2, 1)])
    yield Case("Expand", [x, ints(2, 2, 3)])
    yield Case("Where", [TRUTH, x, Const([[7, 8, 9]], x.dtype)])
    yield Case("Compress", [x, Const([True, False, True], bool)], {"axis": -1})
    yield Case("Clip", [x], {"min": -1.0, "max": 2.0}, opset=7)
    yield Case("Clip", [x, Const(-1, x.dtype), Const(2, x.dtype)])
    yield Case("Clip", [x, None, Const(2, x.dtype)])


def _summaries(x: Const) -> Iterator[Case]:
    for kind in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"):
        if "Log" in kind and x is WHOLE:
            continue  # withdrawn by the standard, and the reference refuses it
        y = Const(np.abs(x.array) + 1, x.dtype)
        yield from (Case(f"Reduce{kind}", [y], {"axes": a, "keepdims": k}, opset=11)
                    for a, k in (([0], 0), ([-1], 1), ([0, 1], 0)))  # fmt: skip
        yield from (Case(f"Reduce{kind}", [y, *a], {"keepdims": 0}) for a in ([], [ints(0)], [ints(-1)]))
        yield Case(f"Reduce{kind}", [y], {"noop_with_empty_axes": 1})
    for op in ("ArgMax", "ArgMin"):
        yield from (Case(op, [x], {"axis": a, "keepdims": k}) for a, k in ((0, 1), (1, 0), (-1, 0)))
        yield Case(op, [Const([1, 3, 3], x.dtype)], {"select_last_index": 1, "axis": -1})
    yield Case("CumSum", [x, Const(-1, np.int64)], {"exclusive": 1})
    yield Case("CumSum", [x, ONE], {"reverse": 1})
    yield Case("MatMul", [x, Const(x.array.T, x.dtype)])
    yield Case("Shape", [x])
    yield Case("Shape", [x], {"start": -1})
    yield Case("Size", [x])


def _made() -> Iterator[Case]:
    from onnx import numpy_helper

    value = numpy_helper.from_array(np.array([3], np.int64))
    yield Case("ConstantOfShape", [ints(2, 3)])
    yield Case("ConstantOfShape", [ints(2, 3)], {"value": value})
    yield Case("Range", [Const(7, np.int64), Const(-2, np.int64), Const(-3, np.int64)])
    yield Case("Range", [Const(0.0), Const(1.0), Const(0.25)])
    yield Case("DequantizeLinear", [Const([3, 200], np.uint8), Const(0.5), Const(128, np.uint8)])
    yield Case("DequantizeLinear", [Const([[3, 20], [4, 5]], np.int8), Const([0.5, 0.25])], {"axis": 0})
    yield Case("QuantizeLinear", [REAL, Const(0.5), Const(128, np.uint8)])


CONSTANT = list(constant_cases())


@cache
def versions(op: str) -> tuple[int, ...]:
    """The opsets in which an operator changed, from the oldest one taken on; of those after 18, which add types, the
    last."""
    since = {s.since_version for s in defs.get_all_schemas_with_history() if s.domain == "" and s.name == op}
    first = max((v for v in since if v <= OLDEST_OPSET), default=0)
    every = sorted(max(v, OLDEST_OPSET) for v in since if first <= v <= NEWEST)
    return tuple(v for v in every if v <= 18 or v == every[-1])


def agrees(case: Case, folder: Path) -> bool:
    """Whether a case exists for the checker and for onnxruntime; if so, the import must agree."""
    try:
        model, given = model_of(case)
        checker.check_model(model)
        save(model, folder / "model.onnx")
        expected = run_ort(folder / "model.onnx", given)
    except Exception:  # of another version: the errors of both are of many kinds
        return False
    found = run_nnir(NNIR.from_onnx(folder / "model.onnx"), given)
    assert_close(found, [y.astype(np.float64) for y in expected], case.tolerance)
    return True


def by_operator(cases: list[Case]) -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[case.op].append(case)
    return found


@pytest.fixture(autouse=True)
def quiet() -> None:
    ort.set_default_logger_severity(4)


@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_every_version_of_an_operator_is_taken(op: str, tmp_path: Path) -> None:
    cases: dict[str, list[Case]] = by_operator(CASES)
    for version in versions(op):
        tried = [agrees(replace(case, opset=version), tmp_path) for case in cases[op]]
        assert any(tried) != ((op, version) in UNRUN), f"opset {version}"


@pytest.mark.parametrize("op", sorted(FOLDABLE))
def test_every_version_of_an_operator_folds(op: str, tmp_path: Path) -> None:
    cases: dict[str, list[Case]] = by_operator(CONSTANT)
    for version in versions(op):
        tried = [agrees(replace(case, opset=version), tmp_path) for case in cases[op]]
        assert any(tried) != ((op, version) in UNRUN_CONSTANT), f"opset {version}"
