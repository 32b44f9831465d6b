"""Order of instructions: list scheduling of every straight run between loop boundaries.

A core issues in order and a unit waits for its operands, so an instruction that waits must not stand before one that
could run. Each run is a graph of dependences over buffers, IO ports and link FIFOs; the instruction that can start
first goes first, and among equals the one with the longest path to the end of the run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from .. import isa
from ..bytecode import Instr, Row
from ..config import Config
from . import machine
from .virtual import Op, Ref, Schedule


@dataclass(eq=False)
class Task:
    """One instruction of a run, with its cost and its place in the dependence graph."""

    op: Op
    index: int
    busy: int
    latency: int
    waits: int = 0
    after: list[tuple[Task, int]] = field(default_factory=list)
    ready: int = 0
    path: int = 0


def reorder(schedule: Schedule, config: Config) -> None:
    """Sort every run between loop boundaries, in place. Held buffers keep their positions: those are boundaries."""
    ordered: list[Op] = []
    for run in _runs(schedule.ops):
        ordered += run if run[0].row.unit == "control" else _sorted(run, config)
    schedule.ops[:] = ordered


def _runs(ops: list[Op]) -> Iterator[list[Op]]:
    run: list[Op] = []
    for op in ops:
        if op.row.unit == "control":
            if run:
                yield run
            yield [op]
            run = []
        else:
            run.append(op)
    if run:
        yield run


def _task(op: Op, index: int, config: Config) -> Task:
    operands = {k: Row(0) if isinstance(v, Ref) else v for k, v in op.operands.items()}
    instr = Instr(op.name, op.core, operands)
    return Task(op, index, machine.busy(instr, config, op.slots), machine.latency(instr, config))


def _resources(op: Op) -> tuple[list[Hashable], list[Hashable]]:
    """What an instruction reads and what it changes. IO ports and link FIFOs are changed in order."""
    reads: list[Hashable] = [r.buffer for r in op.refs(write=False)]
    writes: list[Hashable] = [r.buffer for r in op.refs(write=True)]
    if op.row.unit in ("io_in", "io_out"):
        writes.append(op.row.unit)
    if op.name == "send":
        mask = op.operands["targets"]
        assert isinstance(mask, int)
        writes += [("fifo", op.core, c) for c in range(mask.bit_length()) if mask >> c & 1]
    if op.name == "receive":
        writes.append(("fifo", op.operands["source"], op.core))
    return reads, writes


def _graph(run: list[Op], config: Config) -> list[Task]:
    tasks = [_task(op, i, config) for i, op in enumerate(run)]
    writer: dict[Hashable, list[Task]] = defaultdict(list)
    readers: dict[Hashable, list[Task]] = defaultdict(list)
    for task in tasks:
        reads, writes = _resources(task.op)
        before: dict[Task, int] = {}
        for r in reads:
            for w in writer[r]:
                before[w] = max(before.get(w, 0), _delay(w, task))
        for r in writes:
            for w in (*writer[r], *readers[r]):
                before.setdefault(w, 1)
        for other, delay in before.items():
            if other is not task:
                other.after.append((task, delay))
                task.waits += 1
        for r in reads:
            readers[r].append(task)
        for r in writes:
            writer[r].append(
                task
            )  # an instruction may fill a part of a buffer, so earlier writers still matter
            readers[r] = []
    for task in reversed(tasks):
        task.path = task.busy + task.latency
        task.path = max([task.path, *(t.path + d for t, d in task.after)])
    return tasks


def _delay(producer: Task, consumer: Task) -> int:
    """Cycles from the producer's start to the earliest useful start of the consumer; rows chain between
    row-by-row instructions."""
    rowwise = "elementwise"
    if producer.op.row.format.pattern == consumer.op.row.format.pattern == rowwise:
        return producer.latency
    return producer.busy - 1 + producer.latency


def _sorted(run: list[Op], config: Config) -> list[Op]:
    tasks = _graph(run, config)
    available = [t for t in tasks if not t.waits]
    issue: dict[int, int] = defaultdict(int)
    unit: dict[tuple[int, str], int] = defaultdict(int)
    result: list[Op] = []
    while available:
        chosen = min(available, key=lambda t: (_start(t, issue, unit), -t.path, t.index))
        available.remove(chosen)
        core, name = chosen.op.core, chosen.op.row.unit
        start = _start(chosen, issue, unit)
        issue[core] = max(issue[core], unit[core, name]) + config.latency.issue
        unit[core, name] = start + chosen.busy
        result.append(chosen.op)
        for task, delay in chosen.after:
            task.ready = max(task.ready, start + delay)
            task.waits -= 1
            if not task.waits:
                available.append(task)
    assert len(result) == len(run), "the dependence graph has a cycle"
    return result


def _start(task: Task, issue: dict[int, int], unit: dict[tuple[int, str], int]) -> int:
    core = task.op.core
    if core == isa.ALL_CORES:
        return task.ready
    return max(task.ready, issue[core], unit[core, task.op.row.unit])
