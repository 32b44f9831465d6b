"""Products of two computed tensors, row by row, for programs that have no room for all elementary products at once.

Such a product is a multiplication and a sum, and the multiplication's result is larger than either operand by a factor.
A scan along an axis that is not summed holds the elementary products of one row at a time. Every sum has the terms that
it had, in their order, so that no bit changes; the loop costs cycles.
"""

from __future__ import annotations

from collections.abc import Sequence

from ltc_compiler.ir.graph import Graph, Node, Type, Value, rewrite
from ltc_compiler.ir.ops import add, add_many
from ltc_compiler.transforms.simplify import producer

LEAST = 1 << 10  # elementary products below which a loop saves no room worth its cycles


def roll_products(graph: Graph) -> Graph | None:
    """The graph with its large products row by row; None if it has none."""
    rolled: list[Node] = []

    def rule(new: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
        product = producer(operands[0], "mul") if node.op == "sum" else None
        axis = None if product is None else _longest(node, product)
        if product is None or axis is None:
            return None
        rolled.append(node)
        return (_row_by_row(new, node, product, axis),)

    made = rewrite(graph, rule, into_bodies=False)
    return made if rolled else None


def _longest(node: Node, product: Node) -> int | None:
    """The longest axis that is not summed, if both factors are computed and there are many products."""
    shape = product.results[0].shape
    if any(v.is_constant for v in product.operands) or product.results[0].type.size < LEAST:
        return None
    axes = [a for a in range(len(shape) - 1) if a != node.attrs["axis"] and shape[a] > 1]
    return max(axes, key=lambda a: shape[a], default=None)


def _row_by_row(graph: Graph, node: Node, product: Node, axis: int) -> Value:
    shape, summed = product.results[0].shape, node.attrs["axis"]
    body = Graph("product")
    scanned: list[tuple[Value, int]] = []
    captured: list[Value] = []
    for value in product.operands:
        own = axis - (len(shape) - value.type.rank)
        if own >= 0 and value.shape[own] > 1:
            scanned.append((value, own))
        else:
            rest = value.shape if own < 0 else value.shape[:own] + value.shape[own + 1 :]
            whole = value if own < 0 else add(graph, "reshape", value, shape=rest, source=product.source)
            captured.append(whole)
    factors = _inputs(body, [_without(v.shape, own) for v, own in scanned] + [v.shape for v in captured])
    if scanned[0][0] is not product.operands[0]:
        factors.reverse()
    terms = add(body, "mul", *factors, source=product.source)
    body.nodes[-1].precision = product.precision
    keep = node.attrs["keepdims"]
    row = add(body, "sum", terms, axis=summed - (axis < summed), keepdims=keep, source=node.source)
    body.nodes[-1].precision = node.precision
    body.add_output(row)
    attrs = {
        "body": body,
        "carries": 0,
        "scanned": len(scanned),
        "trip_count": shape[axis],
        "in_axes": tuple(own for _, own in scanned),
        "out_axes": (axis - (summed < axis and not keep),),
    }
    return add_many(graph, "scan", [*(v for v, _ in scanned), *captured], attrs, node.source)[0]


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _inputs(body: Graph, shapes: Sequence[tuple[int, ...]]) -> list[Value]:
    return [body.add_input(Type(shape), f"factor{i}") for i, shape in enumerate(shapes)]
