"""Which states turn as rings (bytecode/rings.py): delay lines, and windows that lose their oldest rows for new ones.

A ring writes what is new and moves nothing, so it never takes more beats than its rows moved: every line and window
with two places or more becomes one, the longest first, until the machine has no more. In the VM a ring of two rows
costs what moving one does: a second copy of the new row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from ltc_compiler.ir.graph import Graph, State, Value
from ltc_compiler.schedule.rows.contents import Contents
from ltc_compiler.schedule.rows.layout import View
from ltc_compiler.schedule.rows.virtual import Buffer
from ltc_compiler.schedule.select.lines import Line

Piece = tuple[int, Value]  # what is new, and the place that it has now, as that of what falls out


@dataclass(frozen=True)
class Window:
    """A state whose next value is all of it but the oldest `advance` indices of an axis, and new ones behind them."""

    axis: int
    advance: int
    pieces: tuple[Piece, ...]


def window_of(state: State) -> Window | None:
    """How a state slides along the first of its axes that has more than one index, if it does."""
    node, shape = state.next.node if state.next is not None else None, state.value.shape
    axis = next((a for a, n in enumerate(shape[:-1]) if n > 1), None)
    if axis is None or node is None or node.op != "concat" or node.attrs["axis"] != axis:
        return None
    kept, *new = node.operands
    cut = kept.node
    if cut is None or cut.op != "slice" or cut.operands[0] is not state.value or not new:
        return None
    start, stop, step = (cut.attrs[name] for name in ("start", "stop", "step"))
    if (cut.attrs["axis"], stop, step) != (axis, shape[axis], 1) or start == 0:
        return None
    pieces, place = [], 0
    for value in new:
        pieces.append((place, value))
        place += value.shape[axis]
    return Window(axis, start, tuple(pieces))


class Rings:
    """The rings of a model. `left_out`: next values of windows that nothing else reads, so that nobody makes them."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.left_out: set[Value] = set()
        self._windows: dict[State, Window] = {}
        self._readers: Counter[Value | None] | None = None

    def turn(self, line: Line, buffer: Buffer, graph: Graph) -> None:
        """Let the buffer of a line of states turn, if that saves rows and the machine has a ring for it."""
        alone = len(line.stages) == 1
        window = window_of(line.stages[0]) if alone else None
        replaced = not alone and line.advance == len(line.stages)  # nothing in it would stay
        if self.contents.rings == 0 or replaced or (alone and window is None):
            return
        self.contents.rings -= 1
        if window is None:
            buffer.place, buffer.advance = buffer.rows // len(line.stages), line.advance
            return
        (state,) = line.stages
        buffer.place, buffer.advance = buffer.rows // state.value.shape[window.axis], window.advance
        self._windows[state] = window
        assert state.next is not None
        if self._readers is None:
            read = [v for node in graph.nodes for v in node.operands]
            self._readers = Counter([*read, *graph.outputs, *(s.next for s in graph.states)])
        if self._readers[state.next] == 1:
            self.left_out.add(state.next)

    def new_rows(self, state: State, home: View) -> list[tuple[View, Value]]:
        """Where the new rows of a state in a ring go, and the values that they hold; none where another stage of its
        line is written. home: the rows of the state on a core."""
        window, buffer = self._windows.get(state), home.ref.buffer
        if window is not None:
            step = home.steps[window.axis]
            return [(replace(home, ref=home.ref.at(p * step), shape=v.shape), v) for p, v in window.pieces]
        kept = buffer.rows - buffer.advance * buffer.place
        if home.ref.offset < kept:
            return []
        assert state.next is not None
        return [(replace(home, ref=home.ref.at(-kept)), state.next)]
