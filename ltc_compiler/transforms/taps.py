"""The taps of a window are padded, so that each begins where a row begins and is read where it lies.

A product over a concatenation of equally wide values, such as the taps of a convolution, would need them packed without
gaps. Here each is padded with zeros, and the weights with zeros where they meet them. The padded width may not depend
on the machine: the position of an element in the dot product decides which accumulator it is added to, and so the last
bit of the result (docs/numerics.md, rule 7).

For the same reason it may not depend on whether the sequence is compiled whole or streamed. So windows are found on the
graph as it was imported, before any other pass and before the streaming transform, where both are still one graph.
"""

from __future__ import annotations

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Node, Value, rewrite
from ltc_compiler.ir.ops import add
from ltc_compiler.transforms.simplify import producer

ROW = 32  # lanes of most machines; narrower taps are packed as powers of two are


def padded(width: int) -> int:
    """The positions that a tap of `width` elements takes: a power of two, or a multiple of ROW."""
    return 1 << (width - 1).bit_length() if width <= ROW else -(-width // ROW) * ROW


def pad_windows(graph: Graph) -> Graph:
    """Pad the operands of products over values of one width; the windows of a step graph were padded before."""
    return graph if graph.input_streaming_dims is not None else rewrite(graph, _rule)


def _rule(graph: Graph, node: Node, operands: tuple[Value, ...]) -> tuple[Value, ...] | None:
    if node.op != "linear":
        return None
    joined = producer(operands[0], "concat")
    weight = operands[1].stored()
    if joined is None or weight is None or joined.attrs["axis"] != operands[0].type.rank - 1:
        return None
    width = joined.operands[0].shape[-1]
    if len(joined.operands) < 2 or any(v.shape[-1] != width for v in joined.operands):
        return None
    gap = padded(width) - width
    if not gap:
        return None
    zeros = graph.constant(np.zeros((*operands[0].shape[:-1], gap)))
    first, *others = joined.operands
    parts = [first, *(v for tap in others for v in (zeros, tap))]
    x = add(graph, "concat", *parts, axis=joined.attrs["axis"], source=joined.source)
    graph.nodes[-1].precision, graph.nodes[-1].cores = joined.precision, joined.cores
    spread = graph.constant(_spread(weight, len(joined.operands), gap), operands[1].name, node.source)
    value = add(graph, "linear", x, spread, operands[2], source=node.source, name=node.results[0].name)
    graph.nodes[-1].precision, graph.nodes[-1].cores = node.precision, node.cores
    return (value,)


def _spread(weight: Array, taps: int, gap: int) -> Array:
    """The weight (M, taps * width) with columns of zeros after each tap but the last."""
    wide = np.pad(weight.reshape(len(weight), taps, -1), ((0, 0), (0, 0), (0, gap)))
    return wide.reshape(len(weight), -1)[:, : wide.shape[1] * wide.shape[2] - gap]
