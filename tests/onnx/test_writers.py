"""The ONNX writer's tables: what every pointwise op is written as, and what an op meets that lacks a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from ltc_compiler import UnsupportedError
from ltc_compiler.frontend import names
from ltc_compiler.frontend.names import NAMES, Names
from ltc_compiler.ir import ops
from ltc_compiler.ir.graph import Graph, Source, Type
from ltc_compiler.ir.ops import BY_ARITY, add, check_names, check_rows
from ltc_compiler.ir.run import evaluate
from ltc_compiler.nnir import NNIR
from ltc_compiler.onnx import export

ARITY = {op: arity for arity, rows in BY_ARITY.items() for op in rows}


def of_one_op(op: str) -> Graph:
    graph = Graph("one")
    operands = [graph.add_input(Type((2, 25)), name) for name in names.OPERANDS[ARITY[op]]]
    graph.add_output(add(graph, op, *operands, source=Source("cell", "model.py", 12, "y = f(x)")))
    return graph


@pytest.mark.parametrize("op", ARITY)
def test_an_op_is_written_as_what_it_means(op: str, tmp_path: Path) -> None:
    graph, rng = of_one_op(op), np.random.default_rng(3)
    given = [np.where(rng.random(v.shape) < 0.3, 1.0, rng.uniform(0.1, 3, v.shape)) for v in graph.inputs]
    given[0] = np.where(rng.random(given[0].shape) < 0.3, 0.0, given[0]) if op == "select" else given[0]
    expected = evaluate(graph, given)[0]
    NNIR(graph).to_onnx(tmp_path / "one.onnx")
    session = ort.InferenceSession(tmp_path / "one.onnx", providers=["CPUExecutionProvider"])
    feeds = {v.name: x.astype(np.float32) for v, x in zip(graph.inputs, given, strict=True)}
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, rtol=2e-6, atol=2e-6)


def test_an_op_without_an_expression_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NAMES, "atan", Names("", "", refused="ONNX rounds it as nobody knows"))
    monkeypatch.setitem(export.WRITERS, "atan", export._expression("atan"))
    with pytest.raises(
        UnsupportedError, match=r"atan in ONNX: ONNX rounds(.|\n)*model.py:12(.|\n)*NNIR.save"
    ):
        NNIR(of_one_op("atan")).to_onnx(tmp_path / "one.onnx")


def test_a_table_that_lacks_an_op_names_it() -> None:
    short = set(ops.OPS) - {"atan", "scan"}
    with pytest.raises(ImportError, match=r"^SHORT in a/file.py has no row for these ops: atan, scan$"):
        check_rows("SHORT in a/file.py", short)
    check_rows("SHORT in a/file.py", short, beside=["atan", "scan"])
    with pytest.raises(ImportError, match=r"^LONG in a/file.py has rows for what is no op: atn$"):
        check_names("LONG in a/file.py", {"atn", "scan"})


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("Atan(y)", "y is none of the operands x"),
        ("x", "x calls no operator"),
        ("Mul(x, x * 2)", r"x \* 2 calls no operator"),
        ("Gelu(x, approximate=x)", "an attribute is no constant"),
        ("Atan(x", "was never closed"),
    ],
)
def test_a_wrong_expression_fails_at_import(
    expression: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NAMES, "atan", Names("", expression))
    with pytest.raises(ImportError, match=f"atan in NAMES(.|\n)*{complaint}"):
        export._expression("atan")
