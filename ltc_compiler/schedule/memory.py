"""Static memory allocation: every buffer gets rows of its core for its life time, before the program runs.

Constants and states live for ever. A temporary lives from its first touch to its last; one that a loop carries from
iteration to iteration (it was touched before the loop, or is held for it) lives to the loop's end. Buffers whose lives
overlap never share a row. First fit in order of first touch.

A beat may not write a row before older instructions have begun to read it, so a row that is used again at once makes
its new owner wait. Rows therefore rest for a number of instructions before they are used again: as many as the store
has room for, from a few rests that are tried in turn.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError
from ltc_compiler.schedule.rows.virtual import Buffer, Kind, Op, Ref, RowUse, Schedule

RESTS = (
    1024,
    256,
    64,
    32,
    16,
    8,
    4,
    2,
    0,
)  # instructions that a row rests before it is used again, the longest first


@dataclass
class Life:
    """Positions in the merged order of a buffer's first and last touch."""

    buffer: Buffer
    first: int
    last: int


def live_ranges(schedule: Schedule) -> list[Life]:
    """The life of every buffer that an instruction touches, in order of first touch."""
    lives: dict[Buffer, Life] = {}
    for buffer, position in schedule.held.items():
        lives[buffer] = Life(buffer, position, position)
    for position, op in enumerate(schedule.ops):
        for value in op.operands.values():
            if isinstance(value, Ref):
                life = lives.setdefault(value.buffer, Life(value.buffer, position, position))
                life.last = max(life.last, position)
    loops = _loops(schedule.ops)
    for life in lives.values():
        for begin, end in loops:  # innermost first, so that one pass carries a life outwards
            if life.first < begin <= life.last < end:
                life.last = end
    return sorted(lives.values(), key=lambda life: (life.first, life.last))


def _loops(ops: list[Op]) -> list[tuple[int, int]]:
    """Begin and end of every loop, inner ones before those around them."""
    spans: list[tuple[int, int]] = []
    stack: list[int] = []
    for position, op in enumerate(ops):
        if op.name == "loop":
            stack.append(position)
        elif op.name == "end":
            spans.append((stack.pop(), position))
    return spans


def allocate(schedules: Sequence[Schedule], config: Config) -> list[RowUse]:
    """Set `row` of every buffer; returns the use of each core's rows.

    Constants and states of all models come first; the models never run at once, so their temporaries share the rest.
    Raises AllocationError where the tensor store is too small.
    """
    lives = [live_ranges(schedule) for schedule in schedules]
    uses = []
    for core in range(config.cores):
        own = [[life for life in model if life.buffer.core == core] for model in lives]
        top = 0
        for buffer in dict.fromkeys(life.buffer for model in own for life in model):
            if buffer.kind is not Kind.TEMPORARY:
                buffer.row = top
                top += buffer.rows
        temporary = [[life for life in model if life.buffer.kind is Kind.TEMPORARY] for model in own]
        rows = max((_place(model, top, config.tensor_rows) for model in temporary), default=top)
        uses.append(RowUse(rows, top + max(map(_live_at_once, temporary), default=0)))
        if rows > config.tensor_rows:
            raise AllocationError(
                f"tensor rows of core {core}",
                needed=rows,
                available=config.tensor_rows,
                where=f"configuration {config.name}",
                remedy="use a configuration with more tensor_rows, or make the model or its sequence smaller",
            )
    return uses


def _place(lives: list[Life], base: int, room: int) -> int:
    """Give rows above `base` with the longest rest that fits `room`; returns the first row that is never used."""
    for rest in RESTS:
        top = _first_fit(lives, base, rest)
        if top <= room:
            break
    return top


def _live_at_once(lives: list[Life]) -> int:
    """The rows of the lives that overlap, where these are the most."""
    changes = [(life.first, life.buffer.rows) for life in lives]
    changes += [(life.last + 1, -life.buffer.rows) for life in lives]
    return max(accumulate(rows for _, rows in sorted(changes)), default=0)


def _first_fit(lives: list[Life], base: int, rest: int) -> int:
    """First fit above `base`, rows resting in between; returns the first row that is never used."""
    active: list[tuple[int, int, int]] = []  # (row, end row, last position), by row
    top = base
    for life in lives:
        active = [a for a in active if a[2] + rest >= life.first]
        row = base
        for start, end, _ in active:
            if row + life.buffer.rows <= start:
                break
            row = max(row, end)
        life.buffer.row = row
        insort(active, (row, row + life.buffer.rows, life.last))
        top = max(top, row + life.buffer.rows)
    return top
