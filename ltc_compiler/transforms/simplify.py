"""Layout operations that do nothing, or that another one undoes: simplified as a graph is rebuilt.

One function per rule. A rule sees the node and its operands in the new graph, and returns the value that stands for the
result, or None. Every rule moves the same elements to the same places. A slice of a concatenation with a constant
stays: if it were folded, in fp64, a sequence that is no longer than its padding would round differently from its steps.
"""

from __future__ import annotations

from collections.abc import Callable

from ltc_compiler.ir.graph import Graph, Node, Value
from ltc_compiler.ir.ops import POINTWISE, add, broadcast_shapes, check_names

Simplify = Callable[[Graph, Node, tuple[Value, ...]], Value | None]


def producer(value: Value, op: str) -> Node | None:
    """The node that made `value`, if it is an `op`."""
    return value.node if value.node is not None and value.node.op == op else None


def simplify(graph: Graph, node: Node, operands: tuple[Value, ...]) -> Value | None:
    """The value that stands for the one result of `node`, or None to leave the node as it is."""
    rule = _RULES.get(node.op)
    return rule(graph, node, operands) if rule else None


def _reshape(graph: Graph, node: Node, operands: tuple[Value, ...]) -> Value | None:
    shape: tuple[int, ...] = node.attrs["shape"]
    x = operands[0]
    if x.shape == shape:
        return x
    inner = producer(x, "reshape")
    if inner is None:
        return None
    base = inner.operands[0]
    return base if base.shape == shape else add(graph, "reshape", base, shape=shape, source=node.source)


def _permute(graph: Graph, node: Node, operands: tuple[Value, ...]) -> Value | None:
    dims: tuple[int, ...] = node.attrs["dims"]
    x = operands[0]
    if dims == tuple(range(len(dims))):
        return x
    long = [d for d in dims if x.shape[d] > 1]
    if long == sorted(long):  # only axes of one element move: the order in memory is the same
        return add(graph, "reshape", x, shape=node.results[0].shape, source=node.source)
    inner = producer(x, "permute")
    if inner is None:
        return None
    composed = tuple(inner.attrs["dims"][d] for d in dims)
    base = inner.operands[0]
    identity = composed == tuple(range(len(dims)))
    return base if identity else add(graph, "permute", base, dims=composed, source=node.source)


def _slice(graph: Graph, node: Node, operands: tuple[Value, ...]) -> Value | None:
    x, axis = operands[0], node.attrs["axis"]
    start, stop, step = (node.attrs[k] for k in ("start", "stop", "step"))
    if step == 1 and stop - start == x.shape[axis]:
        return x
    inner = producer(x, "slice")
    if inner is not None and inner.attrs["axis"] == axis:
        outer_step = inner.attrs["step"]
        first = inner.attrs["start"] + start * outer_step
        last = first + (node.results[0].shape[axis] - 1) * step * outer_step
        step = step * outer_step if first < last else 1
        attrs = {"axis": axis, "start": first, "stop": last + 1, "step": step}
        return add(graph, "slice", inner.operands[0], source=node.source, **attrs)
    joined = producer(x, "concat")
    if joined is not None and joined.attrs["axis"] == axis:
        begin = 0
        for part in joined.operands:
            end = begin + part.shape[axis]
            if begin <= start and stop <= end and not part.is_constant:  # else see the file's head
                if step == 1 and stop - start == end - begin:
                    return part
                attrs = {"axis": axis, "start": start - begin, "stop": stop - begin, "step": step}
                return add(graph, "slice", part, source=node.source, **attrs)
            begin = end
    return None


def _concat(graph: Graph, node: Node, operands: tuple[Value, ...]) -> Value | None:
    return operands[0] if len(operands) == 1 else None


def _broadcast(graph: Graph, node: Node, operands: tuple[Value, ...]) -> Value | None:
    return operands[0] if operands[0].shape == node.attrs["shape"] else None


def _pointwise(graph: Graph, node: Node, operands: tuple[Value, ...]) -> Value | None:
    """Pointwise ops broadcast by themselves: they read what a broadcast read, if the result keeps its shape."""
    read = list(operands)
    for i, operand in enumerate(operands):
        inner = producer(operand, "broadcast")
        if inner is not None:
            shorter = [*read[:i], inner.operands[0], *read[i + 1 :]]
            if broadcast_shapes(*(v.shape for v in shorter)) == node.results[0].shape:
                read = shorter
    return None if read == list(operands) else add(graph, node.op, *read, source=node.source)


_RULES: dict[str, Simplify] = {
    "reshape": _reshape,
    "permute": _permute,
    "slice": _slice,
    "concat": _concat,
    "broadcast": _broadcast,
    **dict.fromkeys(sorted(POINTWISE), _pointwise),
}
check_names("_RULES in ltc_compiler/transforms/simplify.py", _RULES)
