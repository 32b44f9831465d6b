"""States: where they lie, and how their new values replace the old ones.

The stages of a delay line lie one after the other, the oldest first, so a window of it is a run of rows that a product
reads in place. Where the machine has a ring for the line (rings.py), the new value takes the place of the oldest one,
and the addresses turn; else one instruction moves the whole line.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import numerics
from ltc_compiler.errors import GraphError
from ltc_compiler.ir.graph import Array, Graph, State
from ltc_compiler.schedule.rows.layout import View, element_rows, fresh, row_count
from ltc_compiler.schedule.rows.model import StateRows
from ltc_compiler.schedule.rows.virtual import Buffer, Kind, Ref
from ltc_compiler.schedule.select.lines import delay_lines
from ltc_compiler.schedule.select.lowering import Lowering
from ltc_compiler.schedule.spread.partition import state_places


def place_states(low: Lowering, graph: Graph) -> list[StateRows]:
    """Persistent rows for every state, in the host's layout: padding lanes are +0."""
    places = state_places(graph)
    lines = sorted(delay_lines(places), key=lambda line: -sum(s.value.type.size for s in line.stages))
    for line in lines:
        stages = line.stages
        data = np.concatenate([_rows(low, state, state.initial) for state in stages])
        plain = np.concatenate([_rows(low, s, s.initial if s.plain is None else s.plain) for s in stages])
        buffer = Buffer(
            len(data), (places[stages[0]] or low.build.cores)[0], Kind.STATE, data, original=plain
        )
        low.rings.turn(line, buffer, graph)
        ref = Ref(buffer)
        for state in stages:
            view = fresh(ref, state.value.shape, low.build.block)
            low.values.whole[state.value] = view
            ref = ref.at(view.total_rows)
    return [
        StateRows(s.name, s.value.shape, low.values.whole[s.value].ref, s.kind.value) for s in graph.states
    ]


def _rows(low: Lowering, state: State, initial: Array) -> NDArray[np.float32]:
    shape = state.value.shape
    width = shape[-1] if shape else 1
    rows = row_count(width, low.build.block)
    data = np.zeros((int(np.prod(shape[:-1], dtype=np.int64)), rows * low.build.block), np.float32)
    data[:, :width] = initial.reshape(-1, width)
    written: NDArray[Any] = numerics.write_fp32(data).reshape(-1, low.build.block)
    return written


@dataclass
class _Write:
    """The replacement of one state on one core."""

    old: View
    new: View
    source: str


def write_states(low: Lowering, graph: Graph) -> None:
    """The new values replace the old ones last, on every core that holds them."""
    for state in graph.states:
        if state.next is None:
            raise GraphError(
                f"state {state.name} has no next value", where=graph.name, remedy="set State.next"
            )
    places = state_places(graph)
    _copy_what_follows(low, graph)
    holders = [(s, _cores(low, s)) for s in graph.states]
    for core in sorted({core for _, cores in holders for core in cores}):
        writes = []
        for state, cores in holders:
            if core in cores:
                with low.build.on_cores(places[state]):
                    writes += _write(low, state, core)
        _emit(low, _in_order(low, _ascending([w for w in writes if w.new != w.old])))
    _hold_untouched(low, graph)


def _copy_what_follows(low: Lowering, graph: Graph) -> None:
    """Copies for delay lines: if the next value of a state is another state, that one needs a copy on every core that
    holds the first. Repeated until no copy is added, since that state may have a state as its next value too.
    """
    count = -1
    while count != len(low.values.resident.copies):
        count = len(low.values.resident.copies)
        for state in graph.states:
            following = None if state.next is None else low.values.whole.get(state.next)
            if following is None or following.ref.buffer.kind is not Kind.STATE:
                continue
            for core in _cores(low, state):
                if core != following.ref.buffer.core:
                    low.values.resident.view(low.build, following, core)


def _hold_untouched(low: Lowering, graph: Graph) -> None:
    """Rows for states that no instruction reads or writes: the host still does."""
    operands = [value for op in low.build.schedule.ops for value in op.operands.values()]
    touched = {value.buffer for value in operands if isinstance(value, Ref)}
    for state in graph.states:
        buffer = low.values.whole[state.value].ref.buffer
        if buffer not in touched:
            low.build.schedule.held.setdefault(buffer, 0)


def _cores(low: Lowering, state: State) -> list[int]:
    buffer = low.values.whole[state.value].ref.buffer
    return [buffer.core, *low.values.resident.cores(buffer)]


def _write(low: Lowering, state: State, core: int) -> list[_Write]:
    """The replacement of a state on a core; in a ring, of what falls out by what is new."""
    assert state.next is not None
    low.build.schedule.source, low.build.schedule.operation = f"state {state.name}", "state"
    home = low.values.whole[state.value]
    old = home if core == home.ref.buffer.core else low.values.resident.view(low.build, home, core)
    assert old is not None
    replaced = low.rings.new_rows(state, old) if old.ref.buffer.place else [(old, state.next)]
    return [
        _Write(rows, low.values.everywhere(value, [core])[core], low.build.schedule.source)
        for rows, value in replaced
    ]


def _ascending(writes: list[_Write]) -> list[_Write]:
    """Those to the rows of one line in their order, where the first of them stood: they may share an instruction. A
    stage that takes another's place stays where it is."""
    first: dict[Buffer, int] = {}
    for i, write in enumerate(writes):
        first.setdefault(write.old.ref.buffer, i)

    def key(entry: tuple[int, _Write]) -> tuple[int, int]:
        index, write = entry
        ref = write.old.ref
        shifted = write.new.ref.buffer is ref.buffer
        return (index, 0) if shifted else (first[ref.buffer], ref.offset)

    return [write for _, write in sorted(enumerate(writes), key=key)]


def _touched(view: View) -> list[tuple[Buffer, int]]:
    """The rows of a view."""
    rows, _ = element_rows(view)
    return [(view.ref.buffer, view.ref.offset + int(row)) for row in np.unique(rows)]


def _in_order(low: Lowering, writes: list[_Write]) -> list[_Write]:
    """The writes, ordered so that each old value is read before it is replaced; in a cycle, one is saved first."""
    owner = {place: i for i, w in enumerate(writes) for place in _touched(w.old)}
    replacing = [sorted({owner[p] for p in _touched(w.new) if p in owner}) for w in writes]
    readers = Counter(j for found in replacing for j in found)
    ready = [i for i in reversed(range(len(writes))) if not readers[i]]
    waiting = dict.fromkeys(range(len(writes)))
    ordered: list[_Write] = []
    while waiting:
        if ready:
            i = ready.pop()
            del waiting[i]
            ordered.append(writes[i])
        else:
            i = next(i for i in waiting if replacing[i])
            new = writes[i].new
            writes[i].new = low.build.new(new.shape, new.ref.buffer.core, new.uniform)
            low.build.copy(new, writes[i].new)
        for j in reversed(replacing[i]):
            readers[j] -= 1
            if not readers[j]:
                ready.append(j)
        replacing[i] = []
    return ordered


def _emit(low: Lowering, writes: list[_Write]) -> None:
    """One instruction per write; writes of consecutive rows share one."""
    while writes:
        first = writes.pop(0)
        low.build.schedule.source, low.build.schedule.operation = first.source, "state"
        if not (first.old.contiguous and first.new.contiguous) or first.new.ref.level:
            low.build.grid("state_write", [first.old, first.new], first.old.shape, precision=0)
            continue
        rows = first.old.total_rows
        while writes and _follows(writes[0], first, rows):
            rows += writes.pop(0).old.total_rows
        steps = {"dst_outer": 0, "dst_inner": 1, "a_outer": 0, "a_inner": 1, "n_outer": 1, "n_inner": rows}
        dst, new = first.old.ref, first.new.ref
        low.build.emit("state_write", dst.buffer.core, dst=dst, a=new, **steps, precision=0)


def _follows(write: _Write, first: _Write, rows: int) -> bool:
    """Whether both sides of a write lie `rows` rows behind those of the first one."""
    dense = write.old.contiguous and write.new.contiguous
    return dense and write.old.ref == first.old.ref.at(rows) and write.new.ref == first.new.ref.at(rows)
