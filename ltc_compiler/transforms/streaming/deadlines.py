"""How late an operation on a padded stream may be without making an output late.

What is computed from padding in front of a sequence can be there before its index: a stack of windows needs that. But
a value that comes early waits in a delay line of its own, where its operands may share one. So a first pass computes as
soon as possible, and from its outputs back every operation gets the latest step at which its readers still find it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ltc_compiler.ir.graph import Graph, Node, Value
from ltc_compiler.ir.ops import MOVES
from ltc_compiler.transforms.streaming.streamer import Kind, Stream


def deadlines(whole: Graph, env: Mapping[Value, Kind], steps: int) -> dict[Node, int]:
    """The offset of every node that computes on a stream with a history, given the kinds of a pass without delays."""
    latest: dict[Value, int] = {}
    for value in whole.outputs:
        kind = env[value]
        if isinstance(kind, Stream):
            _need(latest, value, max(kind.off, 0))
    found: dict[Node, int] = {}
    for node in reversed(whole.nodes):
        streams = {v: k for v in node.operands if isinstance(k := env[v], Stream)}
        if not streams:
            continue
        if moved := _moved(node, env, latest, steps):
            _need(latest, *moved)
            continue
        made = [k.off for v in node.results if isinstance(k := env[v], Stream)]
        off = made[0] if made else max(0, *(k.off for k in streams.values()))
        if off < 0:
            off = found[node] = min(0, *(latest.get(v, 0) for v in node.results))
        for value in streams:
            _need(latest, value, off)
    return found


def _need(latest: dict[Value, int], value: Value, off: int) -> None:
    latest[value] = min(latest.get(value, off), off)


def _moved(
    node: Node, env: Mapping[Value, Kind], latest: Mapping[Value, int], steps: int
) -> tuple[Value, int] | None:
    """The operand of an op that only moves the elements of one stream, and when it is needed."""
    if node.op not in MOVES:
        return None
    position, x = next((i, k) for i, v in enumerate(node.operands) if isinstance(k := env[v], Stream))
    value, made = node.operands[position], env[node.results[0]]
    along = node.attrs.get("axis") == x.axis
    if node.op == "concat" and not along:
        return None
    if not isinstance(made, Stream):  # the first element, or the last
        return value, 0 if x.off <= 0 and node.attrs["start"] == 0 else steps - x.length
    off = latest.get(node.results[0], max(made.off, 0))
    if node.op == "slice" and along:
        off -= node.attrs["start"]
    if node.op == "concat":
        off += sum(v.shape[x.axis] for v in node.operands[:position])
    return value, off
