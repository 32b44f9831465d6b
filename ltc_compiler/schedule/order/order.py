"""Order of instructions: list scheduling of every straight run between loop boundaries.

A core issues in order and a unit waits for its operands, so an instruction that waits must not stand before one that
could run. Each run is a graph of dependences over buffers, IO ports and link FIFOs; the instruction that can start
first goes first, and among equals the one with the longest path to the end of the run. gaps.py says what should start
later than it could.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from enum import Enum
from heapq import heappop, heappush

from ltc_compiler.config import Config
from ltc_compiler.schedule.order.footprint import Touch, distance, touches
from ltc_compiler.schedule.order.gaps import postpone
from ltc_compiler.schedule.order.tasks import CoreUnit, Fifo, Task, number, task_of
from ltc_compiler.schedule.rows.virtual import Op


class Order(Enum):
    """EAGER takes the input for present; STATE_FIRST puts what does not wait for it in front, or in the gaps behind."""

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


class _Links:
    """The link FIFOs while instructions are chosen: rows leave in the order in which they were sent."""

    def __init__(self, tasks: list[Task], capacity: int) -> None:
        self.capacity = capacity
        # the receive that takes what a send puts into a FIFO
        self.partner: dict[tuple[Task, Fifo], Task] = {}
        sent: dict[Fifo, list[Task]] = defaultdict(list)
        self.clear()
        for task in tasks:
            for fifo in task.fifos:
                if task.op.name == "send":
                    sent[fifo].append(task)
                else:
                    self.partner[sent[fifo].pop(0), fifo] = task

    def clear(self) -> None:
        """Nothing is sent yet."""
        self.rows: dict[Fifo, int] = defaultdict(int)
        self.queue: dict[Fifo, list[Task]] = defaultdict(list)

    def allows(self, task: Task) -> bool:
        """Whether a send finds room, and whether a receive finds its rows in front."""
        if task.op.name == "send":
            rows = number(task.op, "rows")
            return all(self.rows[f] + rows <= self.capacity for f in task.fifos)
        return all(self.queue[f][:1] == [task] for f in task.fifos)

    def take(self, task: Task) -> None:
        """Account for a chosen instruction."""
        for fifo in task.fifos:
            if task.op.name == "send":
                self.rows[fifo] += number(task.op, "rows")
                self.queue[fifo].append(self.partner[task, fifo])
            else:
                self.rows[fifo] -= number(task.op, "rows")
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
            side = task.op.row.unit, task.op.core
            if side in port:
                before.setdefault(port[side], 1)
            port[side] = task
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
        self.unit: dict[CoreUnit, int] = defaultdict(int)

    def now(self, unit: CoreUnit) -> int:
        """The earliest start of an instruction whose operands are there."""
        return max(self.issue[unit[0]], self.unit[unit])


class _Available:
    """Instructions whose dependences are met. The first is the one that can start first; then the longest path counts.

    For each core and unit there are two heaps: `ripe` could start now and `later` waits for operands. Those that use
    links are few, and stand in a list, since the FIFOs decide anew each time which of them may go.
    """

    def __init__(self, clock: _Clock, links: _Links) -> None:
        self.clock = clock
        self.links = links
        self.held: list[Task] = []  # those on links
        self.ripe: dict[CoreUnit, list[tuple[int, int, Task]]] = {}
        self.later: dict[CoreUnit, list[tuple[int, int, int, Task]]] = {}

    def add(self, task: Task) -> None:
        if task.fifos:
            self.held.append(task)
            return
        self.ripe.setdefault(task.unit, [])
        heappush(self.later.setdefault(task.unit, []), (task.ready, -task.path, task.index, task))

    def take_first(self) -> Task | None:
        """Remove and return the first; None if there is none that may go."""
        best: tuple[int, int, int, Task] | None = None
        for task in self.held:
            if self.links.allows(task):
                start = max(task.ready, self.clock.now(task.unit))
                best = _first(best, (start, -task.path, task.index, task))
        for key, later in self.later.items():
            ripe = self.ripe[key]
            if not ripe and not later:
                continue
            now = self.clock.now(key)
            while later and later[0][0] <= now:
                heappush(ripe, heappop(later)[1:])
            best = _first(best, (now, *ripe[0]) if ripe else later[0])
        if best is None:
            return None
        task = best[-1]
        if task.fifos:
            self.held.remove(task)
        else:
            _ = heappop(self.ripe[task.unit]) if self.ripe[task.unit] else heappop(self.later[task.unit])
        return task


def _first(a: tuple[int, int, int, Task] | None, b: tuple[int, int, int, Task]) -> tuple[int, int, int, Task]:
    return b if a is None or b[:3] < a[:3] else a


def _sorted(run: list[Op], config: Config, order: Order) -> list[Op]:
    tasks = [task_of(op, i, config) for i, op in enumerate(run)]
    links = _Links(tasks, config.link_fifo_rows)
    _connect(tasks, links, config)
    if order is Order.STATE_FIRST:
        for task in tasks:
            task.release = FAR if task.op.row.unit == "io_in" else 0
        postpone(tasks, FAR, lambda: _choose(tasks, links, config) is not None)
    chosen = _choose(tasks, links, config)
    # None: a FIFO's head waits for something behind it; the written order never does
    return run if chosen is None else [task.op for task in chosen]


def _choose(tasks: list[Task], links: _Links, config: Config) -> list[Task] | None:
    """The tasks in the order in which they start. None where links stop them all."""
    clock = _Clock()
    available = _Available(clock, links)
    links.clear()
    for task in tasks:
        task.left, task.ready = task.waits, task.release
        if not task.left:
            available.add(task)
    queues: dict[CoreUnit, list[int]] = defaultdict(lambda: [0] * config.issue_queue)
    result: list[Task] = []
    while (chosen := available.take_first()) is not None:
        links.take(chosen)
        core = chosen.unit[0]
        chosen.start = max(chosen.ready, clock.now(chosen.unit))
        queue = queues[chosen.unit]
        clock.issue[core] = max(clock.issue[core], queue.pop(0)) + config.latency.issue
        clock.unit[chosen.unit] = chosen.start + chosen.busy
        queue.append(chosen.start + chosen.busy)
        result.append(chosen)
        for task, delay in chosen.after:
            task.ready = max(task.ready, chosen.start + delay)
            task.left -= 1
            if not task.left:
                available.add(task)
    if available.held:
        return None
    assert len(result) == len(tasks), "the dependence graph has a cycle"
    return result
