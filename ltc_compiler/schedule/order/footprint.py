"""Which rows an instruction touches, and when: what the scheduler knows of its beats before rows have addresses.

A touch is a run of rows of a buffer, taken in order at a constant pace. The touches of two instructions say how many
cycles the later one must start after the earlier one so that none of its beats waits for a row.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from ltc_compiler import isa
from ltc_compiler.config import Config
from ltc_compiler.schedule.rows.layout import row_count
from ltc_compiler.schedule.rows.virtual import Buffer, Op, Ref


class Touch(NamedTuple):
    """Rows low to high of a buffer; `low` is touched `first` cycles after the instruction starts, `high` at `last`."""

    buffer: Buffer
    low: int
    high: int
    first: int
    last: int

    def at(self, row: int) -> float:
        """Cycles from the start until a row is touched."""
        if self.high == self.low:
            return self.first
        return self.first + (row - self.low) * (self.last - self.first) / (self.high - self.low)

    def covers(self, other: Touch) -> bool:
        """Whether this touches every row of the other."""
        return self.buffer is other.buffer and self.low <= other.low and other.high <= self.high

    def meets(self, other: Touch) -> bool:
        """Whether both touch a common row."""
        return self.buffer is other.buffer and self.low <= other.high and other.low <= self.high


def distance(written: Touch, read: Touch, latency: int) -> int:
    """Cycles from the start of what writes to the start of what reads, so that the reader finds its rows ready."""
    ends = max(written.low, read.low), min(written.high, read.high)
    return max(1, *(int(written.at(row) - read.at(row)) + latency for row in ends))


def touches(op: Op, config: Config, busy: int, write: bool) -> list[Touch]:
    """What an instruction writes, or reads; `busy` cycles pass from its first beat to behind its last."""
    found = []
    for access in op.row_of_table.format.accesses:
        ref = op.operands[access.field]
        if access.write == write and isinstance(ref, Ref):
            found.append(_touch(op, access, ref, config, busy))
    return found


def _touch(op: Op, access: isa.Access, ref: Ref, config: Config, busy: int) -> Touch:
    end = busy - 1
    slow = (end, end) if access.write else (0, 0)  # nothing is known of the order: written last, read first
    if ref.level:
        return Touch(ref.buffer, 0, ref.buffer.rows - 1, *slow)
    low = high = ref.offset
    ascending = True
    for count, step in access.extents:
        times, stride = _count(op, count, config), _step(op, step)
        low, high = low + min(0, (times - 1) * stride), high + max(0, (times - 1) * stride)
        ascending = ascending and (stride > 0 or times == 1)
    pace = _pace(op, access, config, end) if ascending and low < high else None
    return Touch(ref.buffer, low, high, *(pace or slow))


def _pace(op: Op, access: isa.Access, config: Config, end: int) -> tuple[int, int] | None:
    """When the first and the last row are touched; None where rows are not taken in order."""
    pattern = isa.PATTERNS[op.row_of_table.format.pattern]
    index, how = pattern.touch(access.field)
    if how == "loose":
        return None
    *before, beats = (
        prod(_count(op, count, config) for count in phase.beats) for phase in pattern.phases[: index + 1]
    )
    repeats = {count: _count(op, count, config) for count in pattern.repeats}
    step = 1  # cycles from one beat to the next; those of iterations that go on side by side are between them
    if pattern.interleaved:
        hold = (end + 1) // (beats * prod(repeats.values()))
        step = hold * min(config.accumulators, repeats[pattern.interleaved])
    first = sum(before)
    last_beat = first + (beats - 1) * step
    if how == "last":
        return last_beat, end
    again = prod(repeats[count] for count, _ in access.extents if count in repeats)
    to_the_end = index == len(pattern.phases) - 1 and not pattern.interleaved
    return first, end if again > 1 or to_the_end else last_beat


def _count(op: Op, name: str, config: Config) -> int:
    return isa.value_of(name, op.number, lambda n: row_count(n, config.block_size))


def _step(op: Op, step: str) -> int:
    return int(step) if step.isdigit() else op.number(step)
