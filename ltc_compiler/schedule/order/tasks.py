"""An instruction as a task of the scheduler: its cost, its unit, and the link FIFOs that it uses."""

from __future__ import annotations

from dataclasses import dataclass, field

from ltc_compiler.bytecode.cost import busy, latency, row_tiles_in_flight
from ltc_compiler.config import Config
from ltc_compiler.schedule.rows.virtual import Op

Fifo = tuple[int, int]  # sender, receiver
CoreUnit = tuple[int, str]  # core, unit


@dataclass(eq=False, slots=True)
class Task:
    """One instruction of a run, with its cost and its edges in the dependence graph.

    busy: the cycles of its beats. held: those that it holds its unit, waits for accumulators included. link_rows: those
    that it sends, or receives. waits: on how many others it depends. after: those that depend on it, with the cycles
    from its start to theirs. path: the longest way to the end of the run. start: when it was chosen to start, no
    earlier than `release`.
    """

    op: Op
    index: int
    busy: int
    held: int
    latency: int
    unit: CoreUnit
    fifos: list[Fifo]
    sends: bool
    link_rows: int
    waits: int = 0
    after: list[tuple[Task, int]] = field(default_factory=list)
    path: int = 0
    release: int = 0
    left: int = 0  # of `waits`, while an order is chosen
    ready: int = 0
    start: int = 0


def task_of(op: Op, index: int, config: Config) -> Task:
    """The task of an instruction that stands at `index` of its run."""
    held = cycles = busy(op, config, op.slots)
    if op.row_of_table.format.pattern == "matrix" and cycles * config.block_size > 128 * _row_tiles(op):
        # few row tiles wait for their accumulators
        rows = min(config.accumulators, op.number("m_rows"))
        held = cycles * max(rows, row_tiles_in_flight(config)) // rows
    fifos, unit = _fifos(op), (op.core, op.row_of_table.unit)
    rows = op.number("rows") if fifos else 0
    return Task(op, index, cycles, held, latency(op, config), unit, fifos, op.name == "send", rows)


def _row_tiles(op: Op) -> int:
    return op.number("m_rows") * op.number("batch")


def _fifos(op: Op) -> list[Fifo]:
    """The link FIFOs that a send fills, or a receive empties."""
    if op.name == "send":
        mask = op.number("targets")
        return [(op.core, core) for core in range(mask.bit_length()) if mask >> core & 1]
    return [(op.number("source"), op.core)] if op.name == "receive" else []
