"""A sum of a product and another value is computed by the product's own instruction.

`add(linear(x, W, 0), b)` becomes `linear(x, W, b)`: the matrix unit adds a row of b to the finished product in place of
the bias. Each operation rounds as before, so no bit changes. Of a sum of two products, the one that depends on an input
takes the other as its bias: the other, which a recurrent cell or a convolution computes from its state alone, can then
be computed before the input is there. In the body of a scan it is the one that depends on a carry.
"""

from __future__ import annotations

from ltc_compiler.ir.graph import Graph, Node, Precision, Value, rewrite
from ltc_compiler.ir.ops import add
from ltc_compiler.transforms.pieces import is_piece


def join_addends(graph: Graph) -> Graph:
    """Sums become biases of products, in bodies too."""
    planned = _planned(graph, carries=0)
    if not planned:
        return graph

    def rule(new: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if node not in planned:
            return None
        last = planned[node]
        product = operands[last].node
        assert product is not None
        x, weight = product.operands[:2]
        value = add(new, "linear", x, weight, operands[1 - last], source=node.source)
        new.nodes[-1].precision, new.nodes[-1].cores = product.precision, node.cores
        return (value,)

    return rewrite(graph, rule)


def _planned(graph: Graph, carries: int) -> dict[Node, int]:
    """The sums to join, each with the product that takes the other operand; the first inputs of a body are carries."""
    kept = {*graph.outputs, *(s.next for s in graph.states)}
    uses = graph.uses()
    early = _early(graph, carries)

    def used_once(value: Value) -> bool:
        return value not in kept and len(uses[value]) == 1

    planned: dict[Node, int] = {}
    for node in graph.nodes:
        if "body" in node.attrs:
            planned |= _planned(node.body, node.attrs["carries"])
        if node.op != "add" or node.precision not in (None, Precision.FP32):
            continue
        result = node.results[0]
        cut = result not in kept and all(is_piece(r, result) for r in uses.get(result, []))
        open_ends = [
            i
            for i, (value, other) in enumerate(zip(node.operands, node.operands[::-1], strict=True))
            if value.shape == other.shape
            and value is not other
            and used_once(value)
            and _without_bias(value, node.cores)
            and (not cut or (_is_product(other, node.cores) and used_once(other)))
        ]
        late = [i for i in open_ends if node.operands[i] not in early or node.operands[1 - i] in early]
        if late:
            planned[node] = late[0]
    return planned


def _is_product(value: Value, cores: tuple[int, ...]) -> bool:
    """Whether the value is a product that is computed on those cores."""
    return value.node is not None and value.node.op == "linear" and value.node.cores == cores


def _without_bias(value: Value, cores: tuple[int, ...]) -> bool:
    if value.node is None or not _is_product(value, cores):
        return False
    bias = value.node.operands[2].constant()
    return bias is not None and not bias.any()


def _early(graph: Graph, carries: int) -> set[Value]:
    """What can be computed first: it depends on states and on no input; in a body, on no carry."""
    early: set[Value] = {s.value for s in graph.states} | set(graph.inputs[carries:] if carries else ())
    for node in graph.nodes:
        if all(v in early or v.is_constant for v in node.operands):
            early.update(node.results)
    return early
