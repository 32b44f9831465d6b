"""Order of instructions: list scheduling of every straight run between loop boundaries.

A core issues in order and a unit waits for its operands, so an instruction that waits must not stand before one that
could run. Each run is a graph of dependences over buffers, IO ports and link FIFOs; the instruction that can start
first goes first, and among equals the one with the longest path to the end of the run. gaps.py chooses what
starts later than it could.
"""

from __future__ import annotations

from enum import Enum
from heapq import heappop, heappush

from ltc_compiler.config import Config
from ltc_compiler.schedule.order.dependences import Links, connect
from ltc_compiler.schedule.order.estimate import Cores, runs
from ltc_compiler.schedule.order.gaps import postpone
from ltc_compiler.schedule.order.tasks import CoreUnit, Task, task_of
from ltc_compiler.schedule.rows.virtual import Op


class Order(Enum):
    """AS_WRITTEN changes nothing. EAGER schedules as if the input were there from the start. STATE_FIRST puts what does
    not wait for the input before everything that does, or into the gaps behind."""

    AS_WRITTEN = 0
    EAGER = 1
    STATE_FIRST = 2


FAR = 1 << 40  # cycles: later than anything else


def reorder(ops: list[Op], config: Config, order: Order) -> list[Op]:
    """The instructions with every run between loop boundaries sorted. Loop boundaries keep their positions."""
    if order is Order.AS_WRITTEN:
        return ops
    ordered: list[Op] = []
    for run in runs(ops):
        ordered += run if run[0].row_of_table.unit == "control" else _sorted(run, config, order)
    return ordered


class _Available:
    """Instructions whose dependences are met. The first is the one that can start first; then the longest path counts.

    Per core and unit there are two heaps: `ripe` could start now and `later` waits for operands. The few that use links
    stand in a list, because which of them may go depends on what the FIFOs hold at the time.
    """

    def __init__(self, cores: Cores, links: Links) -> None:
        self.cores = cores
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
                start = max(task.ready, self.cores.now(task.unit))
                best = _first(best, (start, -task.path, task.index, task))
        for key, later in self.later.items():
            ripe = self.ripe[key]
            if not ripe and not later:
                continue
            now = self.cores.now(key)
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
    links = Links(tasks, config.link_fifo_rows)
    connect(tasks, links, config)
    if order is Order.STATE_FIRST:
        for task in tasks:
            task.release = FAR if task.op.row_of_table.unit == "io_in" else 0
        postpone(tasks, FAR, lambda: _choose(tasks, links, config) is not None)
    chosen = _choose(tasks, links, config)
    # None: a FIFO's head waits for something behind it; the written order never does
    return run if chosen is None else [task.op for task in chosen]


def _choose(tasks: list[Task], links: Links, config: Config) -> list[Task] | None:
    """The tasks in the order in which they start. None where links stop them all."""
    cores = Cores(config)
    available = _Available(cores, links)
    links.clear()
    for task in tasks:
        task.left, task.ready = task.waits, task.release
        if not task.left:
            available.add(task)
    result: list[Task] = []
    while (chosen := available.take_first()) is not None:
        links.take(chosen)
        cores.start(chosen)
        result.append(chosen)
        for task, _ in chosen.after:
            task.left -= 1
            if not task.left:
                available.add(task)
    if available.held:
        return None
    assert len(result) == len(tasks), "the dependence graph has a cycle"
    return result
