"""From an NNIR graph to an ONNX file (opset 20) that any runtime computes and any viewer opens.

A scan becomes an ONNX Scan; one over nothing runs along a constant of as many zeros as it has steps. A synapse op is
written out. A state becomes an input with its initial value as the default, and an output with its next value.
Everything is fp32: precisions are this compiler's business. Elapsed times, states, the steps by which an output is
late, and how many steps a stream may have, are marked in the metadata.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from typing import Any

import numpy as np

from ltc_compiler.errors import ModelFileError, UnsupportedError
from ltc_compiler.files import write_file
from ltc_compiler.frontend.names import NAMES, OPERANDS, parsed
from ltc_compiler.ir.graph import Array, Graph, Node, Role, Value
from ltc_compiler.ir.ops import OPS, check_rows, scan_parts
from ltc_compiler.onnx.load import LATE, LIMIT, ROLE, STATE, STATE_KIND, require_onnx
from ltc_compiler.onnx.streams import STREAM, stream_note

OPSET, IR_VERSION = 20, 10


class Writer:
    """Writes the nodes of one graph; bodies have writers of their own that share names and constants."""

    def __init__(self, root: Writer | None = None) -> None:
        self.nodes: list[Any] = []
        self.names: dict[Value, str] = {}
        self.taken: set[str] = set() if root is None else root.taken
        self.initializers: list[Any] = [] if root is None else root.initializers
        self.given: dict[bytes, str] = {} if root is None else root.given

    def fresh(self, wish: str) -> str:
        """A name that nothing has yet."""
        name, suffix = wish or "v", 0
        while name in self.taken:
            suffix += 1
            name = f"{wish or 'v'}_{suffix}"
        self.taken.add(name)
        return name

    def constant(self, array: Array, wish: str = "c") -> str:
        """An initializer; equal ones are written once."""
        from onnx import numpy_helper

        key = repr((array.dtype.str, array.shape)).encode() + array.tobytes()
        if key not in self.given:
            self.given[key] = self.fresh(wish)
            self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), self.given[key]))
        return self.given[key]

    def floats(self, x: Any, wish: str = "c") -> str:
        with np.errstate(over="ignore"):
            return self.constant(np.array(x, dtype=np.float32), wish)

    def ints(self, *x: int) -> str:
        return self.constant(np.array(x, dtype=np.int64), "sizes")

    def emit(self, op: str, *inputs: str, wish: str = "", outputs: int = 1, **attributes: Any) -> list[str]:
        from onnx import helper

        names = [self.fresh(wish or op.lower()) for _ in range(outputs)]
        given = {
            k: v for k, v in attributes.items() if v != []
        }  # an empty list has no type, and is the default
        self.nodes.append(helper.make_node(op, list(inputs), names, name=names[0], **given))
        return names

    def one(self, op: str, *inputs: str, **attributes: Any) -> str:
        return self.emit(op, *inputs, **attributes)[0]

    def call(self, call: ast.Call, operands: Mapping[str, str], wish: str = "") -> str:
        """The result of an expression of NAMES, of operands by what it calls them."""
        inputs = []
        for part in call.args:
            if isinstance(part, ast.Call):
                inputs.append(self.call(part, operands))
            else:
                inputs.append(operands[part.id] if isinstance(part, ast.Name) else self.floats(_number(part)))
        attributes = {str(k.arg): _number(k.value) for k in call.keywords}
        return self.one(ast.unparse(call.func), *inputs, wish=wish, **attributes)

    def graph(self, graph: Graph) -> None:
        for node in graph.nodes:
            value = node.results[0]
            if node.op == "constant":
                self.names[value] = self.floats(node.attrs["value"], value.name or "c")
                continue
            results = WRITERS[node.op](self, node, [self.names[v] for v in node.operands])
            self.names.update(zip(node.results, results, strict=True))

    def outputs(self, values: Sequence[Value], wishes: Sequence[str]) -> list[str]:
        """Results of a graph under names of their own, whatever they are copies of."""
        return [self.one("Identity", self.names[v], wish=w) for v, w in zip(values, wishes, strict=True)]


def _number(part: ast.expr) -> Any:
    assert isinstance(part, ast.Constant)
    return part.value


# ---------------------------------------------------------------- one function per op

Write = Callable[[Writer, Node, list[str]], list[str]]


def _expression(op: str) -> Write:
    """The writer of an op of NAMES, whose expression is checked now."""
    row, arity = NAMES[op], OPS[op].arity
    assert isinstance(arity, int)
    if not row.onnx:
        return partial(_refuse, row.refused)
    call, operands = parsed(op), OPERANDS[arity]

    def write(w: Writer, node: Node, x: list[str]) -> list[str]:
        given, wish = dict(zip(operands, x, strict=True)), node.results[0].name
        if row.truth:
            return w.emit("Cast", w.call(call, given), to=1, wish=wish)
        return [w.call(call, given, wish)]

    return write


def _refuse(reason: str, w: Writer, node: Node, x: list[str]) -> list[str]:
    rewrite = "write the operation with others, or save the NNIR by NNIR.save"
    raise UnsupportedError.single(reason, where=str(node.source), rewrite=rewrite, node=f"{node.op} in ONNX")


def _ltc_update(w: Writer, node: Node, x: list[str]) -> list[str]:
    """v + (h * (N - D * v)) / (cm + h * D), with N = leak + num and D = conductance + den."""
    v, num, den, leak, conductance, cm, h = x
    n, d = w.one("Add", leak, num), w.one("Add", conductance, den)
    drive = w.one("Mul", h, w.one("Sub", n, w.one("Mul", d, v)))
    inertia = w.one("Add", cm, w.one("Mul", h, d))
    return w.emit("Add", v, w.one("Div", drive, inertia), wish=node.results[0].name)


def _linear(w: Writer, node: Node, x: list[str]) -> list[str]:
    _, weight, bias = (v.constant() for v in node.operands)
    matrix = w.one("Transpose", x[1], perm=[1, 0]) if weight is None else w.floats(weight.T, "weight")
    product = w.emit("MatMul", x[0], matrix)
    if bias is not None and not bias.any():
        return product
    return w.emit("Add", product[0], x[2], wish=node.results[0].name)


def _synapse(w: Writer, node: Node, x: list[str]) -> list[str]:
    """The sums over the sources of s * we and s * w, with s = sigmoid(sigma * (v - mu)), where the mask is not 0."""
    v, mu, sigma, *weights = x[:5]
    column = w.one("Unsqueeze", v, w.ints(-1))
    s = w.one("Sigmoid", w.one("Mul", sigma, w.one("Sub", column, mu)))
    results = []
    for i, name in ((1, weights[1]), (0, weights[0])):
        array, mask = node.operands[3 + i].constant(), node.operands[5].constant()
        if array is not None and mask is not None:
            there = w.floats(array * (mask != 0), "synapses")
        else:
            there = w.one("Where", w.one("Equal", x[5], w.floats(0.0)), w.floats(0.0), name)
        results += w.emit("ReduceSum", w.one("Mul", s, there), w.ints(-2), keepdims=0)
    return results


def _reduce(w: Writer, node: Node, x: list[str]) -> list[str]:
    op = "ReduceSum" if node.op == "sum" else "ReduceMax"
    axis, keep = w.ints(node.attrs["axis"]), int(node.attrs["keepdims"])
    return w.emit(op, x[0], axis, keepdims=keep, wish=node.results[0].name)


def _layout(w: Writer, node: Node, x: list[str]) -> list[str]:
    a, wish = node.attrs, node.results[0].name
    if node.op == "reshape":
        return w.emit("Reshape", x[0], w.ints(*a["shape"]), wish=wish)
    if node.op == "broadcast":
        return w.emit("Expand", x[0], w.ints(*a["shape"]), wish=wish)
    if node.op == "permute":
        return w.emit("Transpose", x[0], perm=list(a["dims"]), wish=wish)
    if node.op == "concat":
        return w.emit("Concat", *x, axis=a["axis"], wish=wish)
    bounds = (w.ints(a[k]) for k in ("start", "stop", "axis", "step"))
    return w.emit("Slice", x[0], *bounds, wish=wish)


def _scan(w: Writer, node: Node, x: list[str]) -> list[str]:
    from onnx import helper

    body, a = node.body, node.attrs
    inner = Writer(w)
    carries, scanned, captured = scan_parts(x, a)
    formal, slices, outside = scan_parts(body.inputs, a)
    inner.names = dict(zip(outside, captured, strict=True))
    in_axes, dummy = list(a["in_axes"]), []
    inner.names |= {v: inner.fresh(v.name) for v in (*formal, *slices)}
    inputs = [_info(inner.names[v], v.shape) for v in (*formal, *slices)]
    if not scanned:
        scanned, in_axes, dummy = (
            [w.floats(np.zeros(a["trip_count"]), "steps")],
            [0],
            [_info(inner.fresh("step"), ())],
        )
    inner.graph(body)
    wishes = [f"{v.name or 'y'}_next" if i < len(carries) else v.name for i, v in enumerate(body.outputs)]
    names = inner.outputs(body.outputs, wishes)
    outputs = [_info(n, v.shape) for n, v in zip(names, body.outputs, strict=True)]
    graph = helper.make_graph(inner.nodes, inner.fresh(body.name), [*inputs, *dummy], outputs)
    return w.emit(
        "Scan", *carries, *scanned, body=graph, num_scan_inputs=len(scanned), scan_input_axes=in_axes,
        scan_output_axes=list(a["out_axes"]), outputs=len(node.results), wish=node.results[0].name,
    )  # fmt: skip


WRITERS: dict[str, Write] = {
    **{op: _expression(op) for op in NAMES},
    **dict.fromkeys(["reshape", "broadcast", "permute", "concat", "slice"], _layout),
    **dict.fromkeys(["sum", "amax"], _reduce),
    "linear": _linear,
    "ltc_update": _ltc_update,
    "synapse": _synapse,
    "scan": _scan,
}
check_rows("WRITERS in ltc_compiler/onnx/export.py", WRITERS, beside=["constant"])


# ---------------------------------------------------------------- the file


def _info(name: str, shape: Sequence[int]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _note(info: Any, key: str, value: str) -> Any:
    entry = info.metadata_props.add()
    entry.key, entry.value = key, value
    return info


def model_of(graph: Graph) -> Any:
    """The ModelProto of a graph."""
    from onnx import helper, numpy_helper

    w = Writer()
    inputs = []
    for value in graph.inputs:
        w.names[value] = w.fresh(value.name)
        inputs.append(_info(w.names[value], value.shape))
        if value.role is not Role.PLAIN:
            _note(inputs[-1], ROLE, value.role.value)
    for state in graph.states:
        w.names[state.value] = w.fresh(state.name)
    names = [w.fresh(n) for n in (*graph.output_names, *(f"{s.name}.next" for s in graph.states))]
    w.graph(graph)
    values = [*graph.outputs, *(s.next for s in graph.states if s.next is not None)]
    for name, value in zip(names, values, strict=True):
        w.nodes.append(helper.make_node("Identity", [w.names[value]], [name], name=name))
    for state, following in zip(graph.states, names[len(graph.outputs) :], strict=True):
        name = w.names[state.value]
        info = _note(_info(name, state.initial.shape), STATE, following)
        inputs.append(_note(info, STATE_KIND, state.kind.value))
        if graph.step_limit and state.name == graph.step_counter:
            _note(info, LIMIT, str(graph.step_limit))
        w.initializers.append(numpy_helper.from_array(state.initial.astype(np.float32), name))
    outputs = [_info(n, v.shape) for n, v in zip(names, values, strict=True)]
    for info, steps in zip(outputs, graph.output_latencies or (), strict=False):
        if steps:
            _note(info, LATE, str(steps))
    proto = helper.make_graph(w.nodes, graph.name or "main", inputs, outputs, w.initializers)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ltc-compiler"
    )
    states = {s.name: w.names[s.value] for s in graph.states}
    stream = stream_note(graph, [w.names[v] for v in graph.inputs], names[: len(graph.outputs)], states)
    return model if stream is None else _note(model, STREAM, stream)


def write(graph: Graph, path: str | PathLike[str]) -> None:
    """Write a graph as an ONNX file. Raises UnsupportedError for an op that ONNX cannot express, ModelFileError for a
    file that is too large, and FileError."""
    require_onnx()
    model = model_of(graph)
    if model.ByteSize() >= 1 << 31:
        raise ModelFileError("a file of 2 GB or more is no ONNX file", where=fspath(path),
                             remedy="export parts of the model, or save the NNIR by NNIR.save")  # fmt: skip
    write_file(path, model.SerializeToString())
