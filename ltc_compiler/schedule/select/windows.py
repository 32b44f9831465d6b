"""Products over several values side by side, which the matrix unit reads where they lie.

Such a value, a window, is never put together if products are all that reads it: a tap is a run of rows, and the
instruction steps from tap to tap. Taps that lie apart by an even number of rows are read in place, as those of a
delay line or of a sequence do, at any dilation; others are moved beside each other, whole rows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ltc_compiler.ir.graph import Graph, Value
from ltc_compiler.schedule.rows.layout import View, row_count
from ltc_compiler.schedule.rows.lowering import Lowering
from ltc_compiler.schedule.rows.shards import everywhere
from ltc_compiler.schedule.select.move import is_gap, take


@dataclass(frozen=True)
class Window:
    """Values of one width that a product reads side by side."""

    taps: tuple[Value, ...]


@dataclass(frozen=True)
class Taps:
    """What a product reads on a core: `count` taps, `step` rows apart, of which `first` is the first."""

    first: View
    count: int = 1
    step: int = 0


def find_windows(graph: Graph, block: int) -> dict[Value, Window]:
    """The concatenations that only products read, and whose parts would begin on rows of their own."""
    kept = {*graph.outputs, *(s.next for s in graph.states)}
    uses = graph.uses()
    found = {}
    for node in graph.nodes:
        if node.op != "concat" or node.attrs["axis"] != node.results[0].type.rank - 1:
            continue
        value = node.results[0]
        read = uses.get(value, [])
        if value in kept or not all(n.op == "linear" and value not in n.operands[1:] for n in read):
            continue
        window = _window(node.operands, block)
        if window is not None:
            found[value] = window
    return found


def _window(parts: Sequence[Value], block: int) -> Window | None:
    """The window of equally wide parts, or of such with gaps of one width between them."""
    gaps = parts[1::2] if len(parts) > 2 and is_gap(parts[1]) and not is_gap(parts[0]) else ()
    taps = parts[::2] if gaps else parts
    width = taps[0].shape[-1]
    room = width + (gaps[0].shape[-1] if gaps else 0)
    even = all(v.shape[-1] == width for v in taps) and all(
        is_gap(v) and v.shape[-1] == room - width for v in gaps
    )
    fits = len(gaps) in (0, len(taps) - 1) and row_count(width, block) * block == room
    return Window(tuple(taps)) if even and fits and len(taps) > 1 and width > 1 else None


def read_window(low: Lowering, window: Window, cores: Sequence[int]) -> dict[int, Taps]:
    """The taps on each core. What they are parts of is sent there once."""
    for root in dict.fromkeys(_root(low, v) for v in window.taps):
        everywhere(low, root, cores)
    return {core: _on(low, window, core) for core in cores}


def _root(low: Lowering, value: Value) -> Value:
    """The value that a tap is cut from along other axes than the last, if it is."""
    node = value.node
    while node is not None and node.op == "slice" and node.attrs["axis"] < value.type.rank - 1:
        value = node.operands[0]
        node = value.node
    return value


def _on(low: Lowering, window: Window, core: int) -> Taps:
    views = [low.vectors(_tap(low, v, core)) for v in window.taps]
    first, second = views[:2]
    step = second.ref.offset - first.ref.offset
    if all(v == replace(first, ref=first.ref.at(i * step)) for i, v in enumerate(views)):
        return Taps(first, len(views), step)
    together = low.new((*first.dims, len(views), first.width), core)
    inner = together.rows
    for i, view in enumerate(views):
        place = replace(together, ref=together.ref.at(i * inner), shape=view.shape, steps=together.steps[:-1])
        low.copy(view, place)
    whole = replace(together, shape=first.shape, steps=together.steps[:-1])
    return Taps(whole, len(views), inner)


def _tap(low: Lowering, value: Value, core: int) -> View:
    root = _root(low, value)
    if root is value:
        return everywhere(low, value, [core])[core]
    node = value.node
    assert node is not None
    a = node.attrs
    return take(low, _tap(low, node.operands[0], core), a["axis"], a["start"], a["stop"], a["step"])
