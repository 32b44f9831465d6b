"""The executed instructions of one inference, and the rows that each of them touches.

The clock's trace says when an instruction ran, in which iteration of its loops. The code says which rows it reads and
writes in that iteration, and how many bytes it moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from ltc_compiler import isa
from ltc_compiler.bytecode import Image, Instr, Row
from ltc_compiler.bytecode.cost import slots_walked, store_bytes
from ltc_compiler.clock import Record

Iterations = tuple[int, ...]  # of the enclosing loops, outermost first


@dataclass(frozen=True, slots=True)
class Event:
    """One executed instruction on one core; its cycles count from the arrival of the host's data, negative before it.

    As clock.Record has it; hint is its stall.
    """

    index: int
    core: int
    issue: int
    begin: int
    start: int
    end: int
    finish: int
    busy: int
    hint: str
    iterations: Iterations

    @property
    def waited(self) -> int:
        """Cycles that its unit was kept waiting, before and between its beats."""
        return self.end - self.begin - self.busy

    @property
    def felt(self) -> int:
        """The waited cycles after the arrival of the host's data."""
        return max(0, self.end - max(self.begin, 0) - self.busy)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that one execution of an instruction reads from the stores of its core and writes to its tensor store."""

    read: int
    written: int


class Code:
    """The instructions of a program, as the report asks about them; answers are kept."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.config = image.config
        self._slots: dict[int, int] = {}
        self._rows: dict[tuple[int, bool, Iterations], tuple[int, ...]] = {}

    def __getitem__(self, index: int) -> Instr:
        return self.image.code[index]

    def unit(self, index: int) -> str:
        return self[index].row_of_table.unit

    def slots(self, index: int) -> int | None:
        """Synapse slots that a synapse instruction walks; None for every other."""
        instr = self[index]
        if instr.name != "synapse":
            return None
        if index not in self._slots:
            core = self.image.cores[instr.core]
            walked = slots_walked(core, instr.number("slots"), instr.number("targets"))
            self._slots[index] = sum(walked)
        return self._slots[index]

    def rows(self, index: int, iterations: Iterations, write: bool) -> tuple[int, ...]:
        """Rows of its core's tensor store that an execution reads, or writes, in ascending order."""
        instr = self[index]
        counting = [r for r in instr.operands.values() if isinstance(r, Row) and r.level]
        key = index, write, iterations if counting else ()
        if key not in self._rows:
            find = self._gather_rows if instr.name == "gather" else self._access_rows
            self._rows[key] = tuple(sorted(find(instr, iterations, write)))
        return self._rows[key]

    def _access_rows(self, instr: Instr, iterations: Iterations, write: bool) -> set[int]:
        found: set[int] = set()
        for access in instr.row_of_table.format.accesses:
            if access.write == write:
                base = instr.row(access.field).at(iterations)
                found.update(base + offset for offset in self._offsets(instr, access.extents))
        return found

    def _gather_rows(self, instr: Instr, iterations: Iterations, write: bool) -> set[int]:
        entries = self.image.cores[instr.core].entries
        field, column = ("dst", entries.dst) if write else ("src", entries.src)
        first, base = instr.number("entries"), instr.row(field).at(iterations)
        return {base + int(offset) for offset in column[first : first + instr.number("count")]}

    def _offsets(self, instr: Instr, extents: Iterable[tuple[str, str]]) -> Iterator[int]:
        dimensions = []
        for count, step in extents:
            size = isa.value_of(count, instr.number, self.config.block_rows)
            by = int(step) if step.isdigit() else instr.number(step)
            dimensions.append([i * by for i in range(size)])
        return (sum(offsets) for offsets in product(*dimensions))

    def traffic(self, index: int) -> Traffic:
        """Bytes of one execution: 4 per lane of a row, and what it reads of the store of its unit."""
        row = 4 * self.config.block_size
        iterations = (0,) * isa.MAX_LOOP_DEPTH  # the number of rows is the same in every iteration
        read, written = (row * len(self.rows(index, iterations, write)) for write in (False, True))
        return Traffic(read + store_bytes(self[index], self.config, self.slots(index)), written)


def events_of(trace: Sequence[Record], arrival: int) -> list[Event]:
    """The trace of a walk as events, in program order. arrival: the cycle at which the host's data came."""
    return [
        Event(
            index=r.index,
            core=r.core,
            issue=r.issue - arrival,
            begin=r.begin - arrival,
            start=r.start - arrival,
            end=r.end - arrival,
            finish=r.finish - arrival,
            busy=r.busy,
            hint=r.stall,
            iterations=r.iterations,
        )
        for r in trace
    ]
