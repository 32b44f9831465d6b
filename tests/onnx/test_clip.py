"""`clip` of an ONNX LSTM, by the text of the standard: it bounds the input of every activation, the memory's too.

onnxruntime gives the memory to its activation as it is, so the reference is written here, from the equations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, save

from ltc_compiler.nnir import NNIR

CLIP, TIME, BATCH, INPUTS, HIDDEN = 0.4, 20, 4, 3, 4
RNG = np.random.default_rng(1)
W, R, B, P = (
    (RNG.standard_normal(shape) * 1.5).astype(np.float32)
    for shape in ((1, 4 * HIDDEN, INPUTS), (1, 4 * HIDDEN, HIDDEN), (1, 8 * HIDDEN), (1, 3 * HIDDEN))
)
X = np.repeat(
    3 * RNG.standard_normal((1, BATCH, INPUTS)).astype(np.float32), TIME, 0
)  # so that the memory grows


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def by_the_standard(peepholes: bool, clip_memory: bool = True) -> Any:
    def cut(x: Any) -> Any:
        return np.clip(x, -CLIP, CLIP)

    w, r, b = W[0].astype(float), R[0].astype(float), B[0].astype(float)
    pi, po, pf = np.split(P[0].astype(float) if peepholes else np.zeros(3 * HIDDEN), 3)
    h, c, rows = np.zeros((BATCH, HIDDEN)), np.zeros((BATCH, HIDDEN)), []
    for x in X.astype(float):
        i, o, f, g = np.split(x @ w.T + h @ r.T + b[: 4 * HIDDEN] + b[4 * HIDDEN :], 4, axis=1)
        c = sigmoid(cut(f + pf * c)) * c + sigmoid(cut(i + pi * c)) * np.tanh(cut(g))
        h = sigmoid(cut(o + po * c)) * np.tanh(cut(c) if clip_memory else c)
        rows.append(h)
    return np.stack(rows)[:, None]


@pytest.mark.parametrize("peepholes", [False, True])
def test_clip_bounds_the_memory_too(peepholes: bool, tmp_path: Path) -> None:
    names = ["X", "W", "R", "B", *(["", "", "", "P"] if peepholes else [])]
    node = helper.make_node("LSTM", names, ["Y"], hidden_size=HIDDEN, clip=CLIP)
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, (TIME, 1, BATCH, HIDDEN))],
        [numpy_helper.from_array(a, n) for a, n in ((W, "W"), (R, "R"), (B, "B"), (P, "P")) if n in names],
    )
    path = tmp_path / "lstm.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    given = NNIR.from_onnx(path).run(X)
    np.testing.assert_allclose(given, by_the_standard(peepholes), rtol=1e-5, atol=1e-6)
    assert np.abs(given - by_the_standard(peepholes, clip_memory=False)).max() > 1e-3, "it makes a difference"
