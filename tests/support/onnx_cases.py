"""ONNX models of one node, and the check that NNIR and onnxruntime agree on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save
from onnx.shape_inference import infer_shapes

from ltc_compiler.nnir import NNIR

Array = NDArray[Any]


@dataclass(frozen=True)
class Const:
    """An operand that is an initializer."""

    value: Any
    dtype: Any = np.float32

    @property
    def array(self) -> Array:
        return np.asarray(self.value, self.dtype)


@dataclass(frozen=True)
class Case:
    """A node: operands are shapes of random inputs, arrays (inputs of those values), Const, or None (left out)."""

    op: str
    operands: Sequence[Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    opset: int = 20
    outputs: int = 1
    low: float = -2.0
    high: float = 2.0
    tag: str = ""
    tolerance: float = 1e-5

    @property
    def id(self) -> str:
        details = ",".join(f"{k}={v}" for k, v in self.attrs.items() if not hasattr(v, "node"))
        return "-".join(
            x for x in (self.op, self.tag, details, f"{self.opset}" if self.opset != 20 else "") if x
        )


def ints(*x: int) -> Const:
    return Const(x, np.int64)


def kind_of(array: Array) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def model_of(case: Case) -> tuple[Any, dict[str, Array]]:
    """The model, and an array for every input of it."""
    rng = np.random.default_rng(0)
    names, inputs, initializers, given = [], [], [], {}
    for i, operand in enumerate(case.operands):
        if operand is None:
            names.append("")
            continue
        names.append(f"in{i}")
        if isinstance(operand, Const):
            initializers.append(numpy_helper.from_array(operand.array, names[-1]))
            continue
        array = operand if isinstance(operand, np.ndarray) else rng.uniform(case.low, case.high, operand)
        array = np.asarray(array, bool if array.dtype == bool else np.float32)
        given[names[-1]] = array
        inputs.append(helper.make_tensor_value_info(names[-1], kind_of(array), list(array.shape)))
    results = [f"out{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op, names, results, name="node", **case.attrs)
    opsets = [helper.make_opsetid("", case.opset)]
    bare = helper.make_model(helper.make_graph([node], "one", inputs, [], initializers), opset_imports=opsets)
    known = {v.name: v for v in infer_shapes(bare, data_prop=True).graph.value_info}
    like_input = [
        helper.make_tensor_value_info(n, 1, list(given["in0"].shape)) for n in results if n not in known
    ]
    outputs = [*(known[n] for n in results if n in known), *like_input]
    graph = helper.make_graph([node], "one", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), given


def run_ort(path: Path | str, given: dict[str, Array]) -> list[Array]:
    """The outputs by onnxruntime, without its graph optimisations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    known = {i.name for i in session.get_inputs()} | {i.name for i in session.get_overridable_initializers()}
    return list(session.run(None, {k: v for k, v in given.items() if k in known}))


def run_nnir(nnir: NNIR, given: dict[str, Array]) -> list[Array]:
    results = nnir.run(*(given[v.name] for v in nnir.graph.inputs))
    return list(results) if isinstance(results, tuple) else [results]


def assert_close(found: Sequence[Array], expected: Sequence[Array], tolerance: float = 1e-5) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b.astype(np.float64), rtol=tolerance, atol=tolerance)


def check_model(model: Any, given: dict[str, Array], folder: Path, tolerance: float = 1e-5) -> NNIR:
    """Import, compare with onnxruntime, export, and compare again with what onnxruntime makes of that."""
    save(model, folder / "model.onnx")
    nnir = NNIR.from_onnx(folder / "model.onnx")
    expected = run_ort(folder / "model.onnx", given)
    assert_close(run_nnir(nnir, given), expected, tolerance)
    nnir.to_onnx(folder / "again.onnx")
    floats = {k: v.astype(np.float32) for k, v in given.items()}
    assert_close(run_ort(folder / "again.onnx", floats), expected, tolerance)
    return nnir


def recurrent_node(operator: str, gates: int, steps: int, features: int) -> Any:
    """A model of one recurrent node over (steps, 1, features), its lengths written down as exporters leave them."""
    rng, tensor = np.random.default_rng(3), numpy_helper.from_array
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, 1, features])
    if operator == "Scan":
        values = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, features]) for n in ("h", "u", "g", "y")
        ]
        nodes = [helper.make_node("Add", ["h", "u"], ["s"]), helper.make_node("Tanh", ["s"], ["g"]),
                 helper.make_node("Identity", ["g"], ["y"])]  # fmt: skip
        body = helper.make_graph(nodes, "body", values[:2], values[2:])
        made = [helper.make_node("Scan", ["h0", "x"], ["last", "z"], body=body, num_scan_inputs=1)]
        constants = [tensor(np.zeros((1, features), np.float32), "h0")]
        z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [steps, 1, features])
    else:
        w, r = (rng.standard_normal((1, gates * 8, n)).astype(np.float32) / 2 for n in (features, 8))
        made = [
            helper.make_node(operator, ["x", "w", "r"], ["y"], hidden_size=8),
            helper.make_node("Squeeze", ["y", "one"], ["z"]),
        ]
        constants = [tensor(w, "w"), tensor(r, "r"), tensor(np.array([1]), "one")]
        z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [steps, 1, 8])
    graph = helper.make_graph(made, "g", [x], [z], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
