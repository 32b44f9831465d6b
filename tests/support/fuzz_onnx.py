"""Random ONNX graphs against onnxruntime, and damaged ONNX files, refused by the error family or with a meaning left.

`case(seed)` is one of either kind; tests/project/test_fuzz.py runs some, tests/proof/fuzz.py as many as an hour takes.
"""

from __future__ import annotations

import random
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_cases import run_ort

from ltc_compiler.errors import FaultError, LtcError, UnsupportedError
from ltc_compiler.nnir import NNIR

UNARY: dict[str, dict[str, float]] = {
    "Relu": {}, "Tanh": {}, "Sigmoid": {}, "Neg": {}, "Abs": {}, "Softplus": {}, "Elu": {"alpha": 0.7}, "Erf": {},
    "LeakyRelu": {"alpha": 0.2}, "HardSigmoid": {}, "Selu": {}, "Softsign": {}, "Identity": {}, "Exp": {}, "Floor": {},
    "Sign": {}, "Celu": {}, "ThresholdedRelu": {},
}  # fmt: skip
STEPS = ("unary", "unary", "binary", "constant", "matmul", "softmax", "reduce", "transpose", "slice", "concat", "pad",
         "reshape", "unsqueeze", "gather", "where", "norm", "clip")  # fmt: skip
BINARY = ("Add", "Sub", "Mul", "Max", "Min", "Mean", "Sum")
TOLERANCE = 1e-4  # of 1 + |y|
OTHERS = ("Loop", "LSTM", "Nothing", "", "Cast", "Resize")
BORDERS = (-(1 << 63), -(1 << 31), -2, -1, 0, 1, 2, 3, 7, 1 << 16, 1 << 31, (1 << 63) - 1)


class Builder:
    """A model that grows node by node; `values` are (name, shape) of what may be read."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.values: list[tuple[str, tuple[int, ...]]] = []

    def constant(self, array: Any) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, op: str, inputs: list[str], shape: tuple[int, ...], **attrs: Any) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attrs))
        self.values.append((name, shape))

    def weights(self, *shape: int) -> str:
        array = self.rng.uniform(-1, 1, shape).astype(np.float32)
        if self.rng.random() < 0.2:
            array[...] = self.rng.choice([0.0, -0.0, 1.0])
        return self.constant(array)

    def grow(self) -> None:
        rng = self.rng
        x, shape = self.values[int(rng.integers(len(self.values)))]
        rank, axis = len(shape), int(rng.integers(len(shape)))
        other = [name for name, s in self.values if s == shape]
        match str(rng.choice(STEPS)):
            case "unary":
                op = str(rng.choice(list(UNARY)))
                self.add(op, [x], shape, **UNARY[op])
            case "binary":
                self.add(str(rng.choice(BINARY)), [x, str(rng.choice(other))], shape)
            case "constant":
                part = tuple(d if rng.random() < 0.6 else 1 for d in shape)[int(rng.integers(rank)) :]
                order = [x, self.weights(*part)][:: int(rng.choice([1, -1]))]
                self.add(str(rng.choice(BINARY[:5])), order, shape)
            case "matmul":
                width = int(rng.integers(1, 12))
                self.add("MatMul", [x, self.weights(shape[-1], width)], (*shape[:-1], width))
            case "softmax":
                self.add(str(rng.choice(["Softmax", "LogSoftmax"])), [x], shape, axis=axis - rank)
            case "reduce":
                op, keep = (
                    str(rng.choice(["ReduceMean", "ReduceMax", "ReduceL2"])),
                    rng.random() < 0.5 or rank == 1,
                )
                reduced = (*shape[:axis], *([1] if keep else []), *shape[axis + 1 :])
                self.add(op, [x, self.ints(axis)], reduced, keepdims=int(keep))
            case "transpose":
                perm = [int(p) for p in rng.permutation(rank)]
                self.add("Transpose", [x], tuple(shape[p] for p in perm), perm=perm)
            case "slice":
                start, step = int(rng.integers(shape[axis])), int(rng.choice([1, 1, 2]))
                kept = len(range(start, shape[axis], step))
                ends = self.ints(int(rng.choice([shape[axis], 1 << 31])))
                inputs = [x, self.ints(start), ends, self.ints(axis), self.ints(step)]
                self.add("Slice", inputs, (*shape[:axis], kept, *shape[axis + 1 :]))
            case "concat":
                joined = (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])
                self.add("Concat", [x, str(rng.choice(other))], joined, axis=axis)
            case "pad":
                ahead, behind = int(rng.integers(3)), int(rng.integers(3))
                pads = [ahead * (i == axis) for i in range(rank)] + [
                    behind * (i == axis) for i in range(rank)
                ]
                padded = (*shape[:axis], ahead + shape[axis] + behind, *shape[axis + 1 :])
                self.add("Pad", [x, self.ints(*pads), self.constant(np.float32(0.5))], padded)
            case "reshape":
                self.add("Reshape", [x, self.ints(-1, shape[-1])], (int(np.prod(shape[:-1])), shape[-1]))
            case "unsqueeze" if rank < 4:
                self.add("Unsqueeze", [x, self.ints(axis)], (*shape[:axis], 1, *shape[axis:]))
            case "gather":
                picked = [int(i) for i in rng.integers(-shape[axis], shape[axis], int(rng.integers(1, 5)))]
                self.add(
                    "Gather",
                    [x, self.ints(*picked)],
                    (*shape[:axis], len(picked), *shape[axis + 1 :]),
                    axis=axis,
                )
            case "where":
                self.nodes.append(helper.make_node("Greater", [x, self.weights(1)], [f"b{len(self.nodes)}"]))
                self.add("Where", [self.nodes[-1].output[0], x, str(rng.choice(other))], shape)
            case "norm":
                self.add("LayerNormalization", [x, self.weights(shape[-1])], shape, axis=-1)
            case "clip":
                self.add("Clip", [x, self.constant(np.float32(-0.5)), self.constant(np.float32(0.75))], shape)


def random_model(rng: np.random.Generator) -> tuple[ModelProto, dict[str, Any]]:
    """A model of a few nodes, and arrays for its inputs."""
    b = Builder(rng)
    given = {}
    for i in range(int(rng.integers(1, 3))):
        shape = tuple(int(d) for d in rng.integers(1, 8, int(rng.integers(1, 4))))
        b.values.append((f"x{i}", shape))
        given[f"x{i}"] = rng.uniform(-2, 2, shape).astype(np.float32)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in b.values]
    while len(b.nodes) < int(rng.integers(1, 8)):
        b.grow()
        if np.prod(b.values[-1][1]) > 4000:
            b.values.pop()
            b.nodes.pop()
    read = {name for node in b.nodes for name in node.input}
    ends = [v for v in b.values if v[0] not in read and v[0] not in given] or [b.values[-1]]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ends]
    graph = helper.make_graph(b.nodes, "g", inputs, outputs, b.initializers)
    opset = helper.make_opsetid("", int(rng.choice([18, 19, 20, 21])))
    return helper.make_model(graph, opset_imports=[opset], ir_version=10), given


def case(seed: int) -> str:
    """One file. Returns how it went: "refused", "agreed" with onnxruntime, or "read" for a damaged one."""
    rng = np.random.default_rng(seed)
    model, given = random_model(rng)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        if seed % 2:
            path.write_bytes(_damaged(random.Random(seed), model))
            return _read(path)
        path.write_bytes(model.SerializeToString())
        return _compare(path, given)


def _compare(path: Path, given: dict[str, Any]) -> str:
    try:
        nnir = NNIR.from_onnx(path)
    except UnsupportedError:
        return "refused"
    found = nnir.run(*(given[v.name] for v in nnir.graph.inputs))
    for y, expected in zip(
        found if isinstance(found, tuple) else (found,), run_ort(path, given), strict=True
    ):
        assert y.shape == expected.shape, f"shape {y.shape}, not {expected.shape}"
        near = np.abs(y - expected) <= TOLERANCE * (1 + np.abs(expected))
        same = near | (np.isnan(y) & np.isnan(expected)) | (y == expected)
        assert same.all(), f"{y[~same][:3]}, onnxruntime gives {expected[~same][:3]}"
    return "agreed"


def _read(path: Path) -> str:
    try:
        nnir = NNIR.from_onnx(path)
    except FaultError:
        raise
    except LtcError as error:
        refusal = str(error)
    else:
        assert str(NNIR.parse(str(nnir))) == str(nnir)
        return "read"
    assert len(refusal) < 20_000
    return "refused"


def _damaged(rng: random.Random, model: ModelProto) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice((_attribute, _tensor, _node, _graph))(rng, model)
    data = bytearray(model.SerializeToString())
    if rng.random() < 0.3:
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.05:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def _attribute(rng: random.Random, model: ModelProto) -> None:
    found = [a for node in model.graph.node for a in node.attribute]
    if found:
        attribute = rng.choice(found)
        attribute.i = rng.choice(BORDERS)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(BORDERS)
        if rng.random() < 0.2:
            attribute.type = rng.randrange(12)


def _tensor(rng: random.Random, model: ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    kind = rng.randrange(4)
    if kind == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(BORDERS)
    elif kind == 1:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind == 2:
        tensor.data_type = rng.randrange(30)
    elif tensor.data_type == TensorProto.INT64:
        tensor.raw_data = np.array(rng.choice(BORDERS), np.int64).tobytes() * (len(tensor.raw_data) // 8)


def _node(rng: random.Random, model: ModelProto) -> None:
    node = rng.choice(model.graph.node)
    names = [v for n in model.graph.node for v in (*n.input, *n.output)]
    kind = rng.randrange(5)
    if kind == 0:
        node.op_type = rng.choice([*(n.op_type for n in model.graph.node), *OTHERS])
    elif kind == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, "", "missing"])
    elif kind == 2:
        node.output[0] = rng.choice(names)
    elif kind == 3:
        node.input.append(rng.choice(names))
    elif node.input:
        node.input.pop()


def _graph(rng: random.Random, model: ModelProto) -> None:
    kind = rng.randrange(4)
    value = rng.choice([*model.graph.input, *model.graph.output])
    shape = value.type.tensor_type.shape
    if kind == 0 and shape.dim:
        shape.dim[rng.randrange(len(shape.dim))].dim_value = rng.choice(BORDERS)
    elif kind == 1:
        value.type.tensor_type.elem_type = rng.randrange(24)
    elif kind == 2:
        model.opset_import[0].version = rng.choice((0, 1, 6, 7, 12, 13, 99, -1))
    else:
        value.name = rng.choice([v.name for v in model.graph.input] + ["", "\x00"])
