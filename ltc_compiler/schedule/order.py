"""Order of instructions: list scheduling of every straight run between loop boundaries.

A core issues in order and a unit waits for its operands, so an instruction that waits must not stand before one that
could run. Each run is a graph of dependences over buffers, IO ports and link FIFOs; the instruction that can start
first goes first, and among equals the one with the longest path to the end of the run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from heapq import heappop, heappush

from .. import isa
from ..bytecode import Instr, Row
from ..config import Config
from . import machine
from .spans import Touch, distance, touches
from .virtual import Op, Ref


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


class Order(Enum):
    """EAGER takes the input for present; STATE_FIRST puts all that does not wait for it in front."""

    AS_WRITTEN = 0
    EAGER = 1
    STATE_FIRST = 2


FAR = 1 << 40  # cycles: later than anything else


def reorder(ops: list[Op], config: Config, order: Order) -> list[Op]:
    """The instructions with every run between loop boundaries sorted. Loop boundaries keep their positions."""
    if order is Order.AS_WRITTEN:
        return ops
    ordered: list[Op] = []
    for run in _runs(ops):
        ordered += run if run[0].row.unit == "control" else _sorted(run, config, order)
    return ordered


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


Fifo = tuple[int, int]  # sender, receiver


def _fifos(op: Op) -> list[Fifo]:
    """The link FIFOs that a send fills, or a receive empties."""
    if op.name == "send":
        mask = _number(op, "targets")
        return [(op.core, core) for core in range(mask.bit_length()) if mask >> core & 1]
    return [(_number(op, "source"), op.core)] if op.name == "receive" else []


def _number(op: Op, field: str) -> int:
    value = op.operands[field]
    assert isinstance(value, int)
    return value


class _Links:
    """The link FIFOs while instructions are chosen: rows leave in the order in which they were sent."""

    def __init__(self, tasks: list[Task], capacity: int) -> None:
        self.capacity = capacity
        self.rows: dict[Fifo, int] = defaultdict(int)
        self.queue: dict[Fifo, list[Task]] = defaultdict(list)
        self.partner: dict[
            tuple[Task, Fifo], Task
        ] = {}  # the receive that takes what a send puts into a FIFO
        sent: dict[Fifo, list[Task]] = defaultdict(list)
        for task in tasks:
            for fifo in _fifos(task.op):
                if task.op.name == "send":
                    sent[fifo].append(task)
                else:
                    self.partner[sent[fifo].pop(0), fifo] = task

    def allows(self, task: Task) -> bool:
        """Whether a send finds room, and whether a receive finds its rows in front."""
        fifos = _fifos(task.op)
        if task.op.name == "send":
            return all(self.rows[f] + _number(task.op, "rows") <= self.capacity for f in fifos)
        return all(self.queue[f][:1] == [task] for f in fifos)

    def take(self, task: Task) -> None:
        """Account for a chosen instruction."""
        for fifo in _fifos(task.op):
            if task.op.name == "send":
                self.rows[fifo] += _number(task.op, "rows")
                self.queue[fifo].append(self.partner[task, fifo])
            else:
                self.rows[fifo] -= _number(task.op, "rows")
                self.queue[fifo].pop(0)


def _depend(before: Task, after: Task, delay: int) -> None:
    before.after.append((after, delay))
    after.waits += 1


def _connect(tasks: list[Task], links: _Links, config: Config) -> None:
    """Enter the dependences over rows, ports and links, and every task's longest path to the end."""
    written: dict[Hashable, list[tuple[Task, Touch]]] = defaultdict(list)
    read: dict[Hashable, list[tuple[Task, Touch]]] = defaultdict(list)
    port: dict[Hashable, Task] = {}
    for task in tasks:
        reads, writes = (touches(task.op, config, task.busy, write) for write in (False, True))
        before: dict[Task, int] = {}
        for touch in reads:
            for other, was in written[touch.buffer]:
                if was.meets(touch):
                    before[other] = max(before.get(other, 0), distance(was, touch, other.latency))
        for touch in writes:
            for other, was in (*written[touch.buffer], *read[touch.buffer]):
                if was.meets(touch):
                    before.setdefault(other, 1)
        if task.op.row.unit in ("io_in", "io_out"):  # a core's port keeps the written order
            place = task.op.row.unit, task.op.core
            if place in port:
                before.setdefault(port[place], 1)
            port[place] = task
        for other, delay in before.items():
            if other is not task:
                _depend(other, task, delay)
        for touch in reads:
            read[touch.buffer].append((task, touch))
        for touch in writes:
            written[touch.buffer].append((task, touch))
            read[touch.buffer] = [(t, r) for t, r in read[touch.buffer] if not touch.covers(r)]
    for (send, _), receive in links.partner.items():
        _depend(send, receive, send.latency)
    for task in reversed(tasks):
        task.path = task.busy + task.latency
        task.path = max([task.path, *(t.path + d for t, d in task.after)])


class _Clock:
    """When a core can issue next, and when a unit is free. Neither goes back."""

    def __init__(self) -> None:
        self.issue: dict[int, int] = defaultdict(int)
        self.unit: dict[tuple[int, str], int] = defaultdict(int)

    def now(self, op: Op) -> int:
        """The earliest start of an instruction whose operands are there."""
        if op.core == isa.ALL_CORES:
            return 0
        return max(self.issue[op.core], self.unit[op.core, op.row.unit])


class _Available:
    """Instructions whose dependences are met. The first is the one that can start first; then the longest path counts.

    For each core and unit there are two heaps: `ripe` could start now and `later` waits for operands. Those that use
    links are few, and stand in a list, since the FIFOs decide anew each time which of them may go.
    """

    def __init__(self, clock: _Clock, links: _Links) -> None:
        self.clock = clock
        self.links = links
        self.held: list[Task] = []  # those on links
        self.ripe: dict[tuple[int, str], list[tuple[int, int, Task]]] = {}
        self.later: dict[tuple[int, str], list[tuple[int, int, int, Task]]] = {}

    def add(self, task: Task) -> None:
        if _fifos(task.op):
            self.held.append(task)
            return
        key = task.op.core, task.op.row.unit
        self.ripe.setdefault(key, [])
        heappush(self.later.setdefault(key, []), (task.ready, -task.path, task.index, task))

    def take_first(self) -> Task | None:
        """Remove and return the first; None if there is none that may go."""
        best: tuple[int, int, int, Task] | None = None
        for task in self.held:
            if self.links.allows(task):
                start = max(task.ready, self.clock.now(task.op))
                best = _first(best, (start, -task.path, task.index, task))
        for key, later in self.later.items():
            ripe = self.ripe[key]
            if not ripe and not later:
                continue
            now = self.clock.now((ripe or later)[0][-1].op)
            while later and later[0][0] <= now:
                heappush(ripe, heappop(later)[1:])
            best = _first(best, (now, *ripe[0]) if ripe else later[0])
        if best is None:
            return None
        task = best[-1]
        key = task.op.core, task.op.row.unit
        if _fifos(task.op):
            self.held.remove(task)
        else:
            _ = heappop(self.ripe[key]) if self.ripe[key] else heappop(self.later[key])
        return task


def _first(a: tuple[int, int, int, Task] | None, b: tuple[int, int, int, Task]) -> tuple[int, int, int, Task]:
    return b if a is None or b[:3] < a[:3] else a


def _sorted(run: list[Op], config: Config, order: Order) -> list[Op]:
    tasks = [_task(op, i, config) for i, op in enumerate(run)]
    links = _Links(tasks, config.link_fifo_rows)
    _connect(tasks, links, config)
    for task in tasks:
        if order is Order.STATE_FIRST and task.op.row.unit == "io_in":
            task.ready = FAR
    clock = _Clock()
    available = _Available(clock, links)
    for task in tasks:
        if not task.waits:
            available.add(task)
    left: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0] * config.issue_queue)
    result: list[Op] = []
    while (chosen := available.take_first()) is not None:
        links.take(chosen)
        core, name = chosen.op.core, chosen.op.row.unit
        start = max(chosen.ready, clock.now(chosen.op))
        queue = left[core, name]
        clock.issue[core] = max(clock.issue[core], queue.pop(0)) + config.latency.issue
        clock.unit[core, name] = start + chosen.busy
        queue.append(clock.unit[core, name])
        result.append(chosen.op)
        for task, delay in chosen.after:
            task.ready = max(task.ready, start + delay)
            task.waits -= 1
            if not task.waits:
                available.add(task)
    if available.held:
        return run  # a FIFO's head waits for something behind it; the written order never does
    assert len(result) == len(run), "the dependence graph has a cycle"
    return result
