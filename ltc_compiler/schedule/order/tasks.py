"""An instruction as a task of the scheduler: its cost, its unit, and the link FIFOs that it uses."""

from __future__ import annotations

from dataclasses import dataclass, field

from ltc_compiler.bytecode import Instr, Row
from ltc_compiler.bytecode.cost import busy, latency, row_tiles_in_flight
from ltc_compiler.config import Config
from ltc_compiler.schedule.rows.virtual import Op, Ref

Fifo = tuple[int, int]  # sender, receiver
CoreUnit = tuple[int, str]  # core, unit


@dataclass(eq=False, slots=True)
class Task:
    """One instruction of a run, with its cost and its edges in the dependence graph.

    busy: the cycles of its beats. held: those that it holds its unit, waits for accumulators included. waits: on how
    many others it depends. after: those that depend on it, with the cycles from its start to theirs. path: the longest
    way to the end of the run. start: when it was chosen to start, no earlier than `release`.
    """

    op: Op
    index: int
    busy: int
    held: int
    latency: int
    unit: CoreUnit
    fifos: list[Fifo]
    waits: int = 0
    after: list[tuple[Task, int]] = field(default_factory=list)
    path: int = 0
    release: int = 0
    left: int = 0  # of `waits`, while an order is chosen
    ready: int = 0
    start: int = 0


def task_of(op: Op, index: int, config: Config) -> Task:
    operands = {k: Row(0) if isinstance(v, Ref) else v for k, v in op.operands.items()}
    instr = Instr(op.name, op.core, operands)
    held = cycles = busy(instr, config, op.slots)
    if op.row_of_table.format.pattern == "matrix" and cycles * config.block_size > 128 * _row_tiles(op):
        # few row tiles wait for their accumulators
        rows = min(config.accumulators, number(op, "m_rows"))
        held = cycles * max(rows, row_tiles_in_flight(config)) // rows
    return Task(op, index, cycles, held, latency(instr, config), (op.core, op.row_of_table.unit), _fifos(op))


def _row_tiles(op: Op) -> int:
    return number(op, "m_rows") * number(op, "batch")


def _fifos(op: Op) -> list[Fifo]:
    """The link FIFOs that a send fills, or a receive empties."""
    if op.name == "send":
        mask = number(op, "targets")
        return [(op.core, core) for core in range(mask.bit_length()) if mask >> core & 1]
    return [(number(op, "source"), op.core)] if op.name == "receive" else []


def number(op: Op, field: str) -> int:
    """An operand that is no row."""
    value = op.operands[field]
    assert isinstance(value, int)
    return value
