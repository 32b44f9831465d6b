"""Chooses the format in which every value is stored; the last pass, and the only one that looks at formats.

The default policy: what a matrix product or a synapse reads as weights is BF16, and so is what the bf16 activation
units return; all else is FP32: states, carries, sums, pointwise mathematics, biases, times and time constants. A
node's own precision request (`Node.precision`) overrides it: FP32 makes a linear or a synapse read FP32, FP8 stores a
linear's weight in eight bits, and on any other op the request is the format of the result.
"""

from __future__ import annotations

from dataclasses import replace

from ltc_compiler.errors import GraphError
from ltc_compiler.ir.graph import Graph, Node, Precision, Type, Value, copy_node, empty_copy
from ltc_compiler.ir.ops import MOVES, check_names
from ltc_compiler.ir.verify import describe
from ltc_compiler.transforms.cleanup import eliminate_dead_code

BF16_UNITS = frozenset({"sigmoid", "tanh", "silu", "gelu", "gelu_tanh"})
WEIGHTS = {"linear": (1,), "synapse": (1, 2, 3, 4, 5)}  # operands that follow the precision of the op
check_names("BF16_UNITS and WEIGHTS in ltc_compiler/transforms/precisions.py", {*BF16_UNITS, *WEIGHTS})


def assign_precision(graph: Graph) -> Graph:
    """The graph with every type's precision set. Raises GraphError for a request that nothing can store."""
    return eliminate_dead_code(_assign(graph, [v.type.precision for v in graph.inputs]))


def _assign(graph: Graph, inputs: list[Precision]) -> Graph:
    new = empty_copy(graph)
    env: dict[Value, Value] = {}
    for value, precision in zip(graph.inputs, inputs, strict=True):
        env[value] = new.add_input(Type(value.shape, precision), value.name, value.role)
    for state in graph.states:
        env[state.value] = new.copy_state(state)
    for node in graph.nodes:
        operands = [env[v] for v in node.operands]
        _check_request(node)
        for position in WEIGHTS.get(node.op, ()):
            operands[position] = _stored(new, operands[position], node.precision or Precision.BF16)
        if node.op == "scan":
            results = _scan(new, node, operands)
        else:
            results = copy_node(new, node, operands)
            for value in results:
                value.type = Type(value.shape, _result(node, operands))
        env.update(zip(node.results, results, strict=True))
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        new.add_output(env[value], name)
    for old, made in zip(graph.states, new.states, strict=True):
        made.next = env[old.next] if old.next is not None else None
    return new


def _check_request(node: Node) -> None:
    if node.precision is Precision.FP8_E4M3 and node.op != "linear":
        raise GraphError(f"{describe(node)} is wanted in FP8, in which weights of a linear alone are stored",
                         where=str(node.source), remedy="ask for FP32 or BF16")  # fmt: skip


def _stored(graph: Graph, value: Value, precision: Precision) -> Value:
    """A copy of a constant in that format. What is no constant stays as it is: the instruction rounds as it reads."""
    if not value.is_constant or value.type.precision is precision:
        return value
    assert value.node is not None
    copy = copy_node(graph, value.node, ())[0]
    copy.type = Type(copy.shape, precision)
    return copy


def _result(node: Node, operands: list[Value]) -> Precision:
    if node.op in MOVES:
        return operands[0].type.precision
    if node.op == "concat":
        narrow = all(v.type.precision is Precision.BF16 for v in operands)
        return Precision.BF16 if narrow else Precision.FP32
    if node.op in WEIGHTS or node.op == "constant":
        return Precision.FP32
    return node.precision or (Precision.BF16 if node.op in BF16_UNITS else Precision.FP32)


def _scan(graph: Graph, node: Node, operands: list[Value]) -> tuple[Value, ...]:
    carries = node.attrs["carries"]
    inputs = [Precision.FP32] * carries + [v.type.precision for v in operands[carries:]]
    body = _assign(node.body, inputs)
    results = copy_node(graph, replace(node, attrs={**node.attrs, "body": body}), operands)
    for i, value in enumerate(results):
        precision = Precision.FP32 if i < carries else body.outputs[i].type.precision
        value.type = Type(value.shape, precision)
    return results
