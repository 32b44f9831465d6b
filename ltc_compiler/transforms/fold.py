"""Constant folding: what depends on constants alone is computed once, here, in fp64, and rounded once, when stored.

Constants that a scan captures move into its body, where folding goes on; a scanned constant that is the same in every
step does so too, and what a scan of one step over constants begins with. A scan of one step is its body. A pointwise
operand that repeats along an axis is stored once.
Layout operations that do nothing go (simplify.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Node, Precision, Value, rewrite
from ltc_compiler.ir.ops import POINTWISE, add, broadcast_shapes
from ltc_compiler.ir.run import apply
from ltc_compiler.transforms.scans import Scan, inline
from ltc_compiler.transforms.simplify import simplify

NEUTRAL = {
    "add": 0.0,
    "sub": 0.0,
    "mul": 1.0,
    "div": 1.0,
}  # the operand, second where order matters, that changes nothing
MAX_FOLDED = 1 << 24  # elements: a larger result is left to be computed in the program


def fold(graph: Graph, layout: bool = True) -> Graph:
    """The graph with everything computed that depends on constants alone.

    layout: False leaves layout operations, and scans of one step, in place, for a pass that must see how an axis was
    made and what runs along it.
    """
    return rewrite(graph, partial(_rule, layout), into_bodies=False)


def evaluate_node(node: Node, operands: list[Array]) -> list[Array]:
    """The results of one node in fp64."""
    with np.errstate(all="ignore"):
        results = apply(node.op, operands, node.attrs)
    return [np.asarray(r, dtype=np.float64) for r in results]


def uniform(array: Array, axis: int) -> bool:
    """Whether all slices of `array` along `axis` are the same to the bit."""
    first = np.take(array, [0], axis)
    return bool(
        (np.ascontiguousarray(array).view(np.uint64) == np.ascontiguousarray(first).view(np.uint64)).all()
    )


def compact(array: Array) -> Array:
    """The smallest array that broadcasts to this one, of the same rank."""
    for axis in range(array.ndim):
        if array.shape[axis] > 1 and uniform(array, axis):
            array = np.take(array, [0], axis)
    return array


def _rule(layout: bool, graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if node.op == "constant":
        return None
    if node.op == "scan":
        return _scan(layout, graph, node, operands)
    arrays = _foldable(node, operands)
    if arrays is not None:
        results = evaluate_node(node, arrays)
        named = zip(results, node.results, strict=True)
        return tuple(graph.constant(array, value.name, node.source) for array, value in named)
    simple = _neutral(node, operands) or (simplify(graph, node, operands) if layout else None)
    if simple is not None:
        return (_keep_request(node, simple),)
    return _compact_operands(graph, node, operands) if node.op in POINTWISE else None


def _foldable(node: Node, operands: Sequence[Value]) -> list[Array] | None:
    """The operands of a node that is to be computed here, else None."""
    if not all(v.is_constant for v in operands) or sum(v.type.size for v in node.results) > MAX_FOLDED:
        return None
    return [a for a in (v.constant() for v in operands) if a is not None]


def _neutral(node: Node, operands: tuple[Value, ...]) -> Value | None:
    """The operand that x + 0, x - 0, x * 1 or x / 1 leaves as it is, but for the sign of a zero."""
    if node.op not in NEUTRAL or node.precision is Precision.BF16:
        return None
    a, b = operands
    for x, other in ((a, b), (b, a)) if node.op in ("add", "mul") else ((a, b),):
        array = other.constant()
        if array is not None and x.shape == node.results[0].shape and (array == NEUTRAL[node.op]).all():
            return x
    return None


def _keep_request(node: Node, value: Value) -> Value:
    if node.op in POINTWISE and value.node is not None and node.precision is not None:
        value.node.precision = node.precision
    return value


def _compact_operands(graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    read = list(operands)
    for i, operand in enumerate(operands):
        array = operand.constant()
        if array is None:
            continue
        small = compact(array)
        shapes = [small.shape if j == i else v.shape for j, v in enumerate(read)]
        if small.shape != array.shape and broadcast_shapes(*shapes) == node.results[0].shape:
            assert operand.node is not None
            read[i] = graph.constant(small, operand.name, operand.node.source)
    if read == list(operands):
        return None
    return (_keep_request(node, add(graph, node.op, *read, source=node.source, name=node.results[0].name)),)


def _scan(layout: bool, graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...]:
    arrays = _foldable(node, operands)
    if arrays is not None:
        whole = evaluate_node(node, arrays)
        return tuple(graph.constant(a, v.name, node.source) for a, v in zip(whole, node.results, strict=True))
    scan = Scan.of(node, operands)
    if scan.trip_count == 1 and layout:
        return _single_step(layout, graph, scan)
    constants = {c.input: c.operand for c in scan.captured if c.operand.is_constant}
    if scan.trip_count == 1 and all(s.operand.is_constant for s in scan.scanned):  # no stream runs along it
        constants.update((c.input, c.initial) for c in scan.carries if c.initial.is_constant)
    scan.captured = [c for c in scan.captured if c.input not in constants]
    for scanned in list(scan.scanned):
        array = scanned.operand.constant()
        if array is not None and uniform(array, scanned.axis):
            assert scanned.operand.node is not None
            step = np.take(array, 0, scanned.axis)
            constants[scanned.input] = graph.constant(step, scanned.operand.name, scanned.operand.node.source)
            scan.scanned.remove(scanned)
    results = scan.build(graph, constants)
    made = graph.nodes[-1]
    made.precision = node.precision
    made.attrs["body"] = fold(made.body, layout)
    return _constant_results(graph, made, [results[v] for v in node.results])


def _constant_results(graph: Graph, made: Node, results: list[Value]) -> tuple[Value, ...]:
    """Results that are the same constant after every step become constants."""
    for i, value in enumerate(results):
        array = made.body.outputs[value.index].constant()
        if array is None:
            continue
        if value.index >= made.attrs["carries"]:
            axis = made.attrs["out_axes"][value.index - made.attrs["carries"]]
            array = np.broadcast_to(np.expand_dims(array, axis), value.shape)
        results[i] = graph.constant(array, value.name, made.source)
    return tuple(results)


def _single_step(layout: bool, graph: Graph, scan: Scan) -> tuple[Value, ...]:
    """A scan of one step is its body: slices and stacks of one element are reshapes."""
    values = [c.initial for c in scan.carries]
    for s in scan.scanned:
        array = s.operand.constant()
        if array is not None:
            values.append(graph.constant(array.reshape(s.input.shape), s.operand.name, scan.source))
        else:
            values.append(add(graph, "reshape", s.operand, shape=s.input.shape, source=scan.source))
    values += [c.operand for c in scan.captured]
    outputs = inline(graph, scan.body, values, partial(_rule, layout))
    count = len(scan.carries)
    stacked = []
    for value, part in zip(outputs[count:], scan.stacked, strict=True):
        shape = (*value.shape[: part.axis], 1, *value.shape[part.axis :])
        stacked.append(add(graph, "reshape", value, shape=shape, source=scan.source))
    return (*outputs[:count], *stacked)
