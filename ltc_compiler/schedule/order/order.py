"""Order of instructions: list scheduling of every straight run between loop boundaries.

A core issues in order and a unit waits for its operands, so an instruction that waits must not stand before one that
could run. Each run is a graph of dependences over buffers, IO ports and link FIFOs; the instruction that can start
first goes first, and among equals the one with the longest path to the end of the run. gaps.py chooses what
starts later than it could.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property
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


class Sorter:
    """The instructions of a schedule, to be put into several orders: what they wait for is found once."""

    def __init__(self, ops: list[Op], config: Config) -> None:
        self.ops = ops
        self.config = config

    def ordered(self, order: Order) -> list[Op]:
        """The instructions with every run between loop boundaries sorted. Loop boundaries keep their positions."""
        if order is Order.AS_WRITTEN:
            return self.ops
        return [op for run in self._runs for op in (run.ordered(order) if isinstance(run, _Run) else run)]

    @cached_property
    def _runs(self) -> list[_Run | list[Op]]:
        """The runs; a loop boundary by itself stays a list."""
        found = runs(self.ops)
        return [ops if ops[0].row_of_table.unit == "control" else _Run(ops, self.config) for ops in found]


Entry = tuple[int, int, int, Task]  # its start, its path with a minus, its index: the least goes first


class _Waiting:
    """Instructions of one unit whose dependences are met: `ripe` could start now, `later` waits for operands. The few
    that use links stand in a list, because which of them may go depends on what the FIFOs hold at the time."""

    def __init__(self) -> None:
        self.held: list[Task] = []  # those on links
        self.ripe: list[tuple[int, int, Task]] = []
        self.later: list[Entry] = []

    def add(self, task: Task) -> None:
        if task.fifos:
            self.held.append(task)
        else:
            heappush(self.later, (task.ready, -task.path, task.index, task))

    def remove_first(self, task: Task) -> None:
        """Take out what `first` returned."""
        if task.fifos:
            self.held.remove(task)
        else:
            _ = heappop(self.ripe) if self.ripe else heappop(self.later)

    def first(self, now: int, links: Links) -> Entry | None:
        """The first that may go; `now`: when the unit is free."""
        allowed = (t for t in self.held if links.allows(t))
        best = min(((max(t.ready, now), -t.path, t.index, t) for t in allowed), default=None)
        while self.later and self.later[0][0] <= now:
            heappush(self.ripe, heappop(self.later)[1:])
        if not self.ripe and not self.later:
            return best
        other = (now, *self.ripe[0]) if self.ripe else self.later[0]
        return other if best is None or other < best else best


class _Available:
    """Instructions whose dependences are met. The first is the one that can start first; then the longest path counts.

    The first of a unit is kept until its core issues, one of its core's links moves, or another one joins it.
    """

    def __init__(self, cores: Cores, links: Links) -> None:
        self.cores = cores
        self.links = links
        self.units: dict[CoreUnit, _Waiting] = {}
        self.of_core: dict[int, list[CoreUnit]] = {}
        self.first: dict[CoreUnit, Entry] = {}
        self.stale: set[CoreUnit] = set()

    def add(self, task: Task) -> None:
        if task.unit not in self.units:
            self.units[task.unit] = _Waiting()
            self.of_core.setdefault(task.unit[0], []).append(task.unit)
        self.units[task.unit].add(task)
        self.stale.add(task.unit)

    def take_first(self) -> Task | None:
        """Remove and return the first; None if there is none that may go. The caller starts it before the next call."""
        for unit in self.stale:
            entry = self.units[unit].first(self.cores.now(unit), self.links)
            if entry is None:
                self.first.pop(unit, None)
            else:
                self.first[unit] = entry
        self.stale.clear()
        if not self.first:
            return None
        task = min(self.first.values())[-1]
        self.units[task.unit].remove_first(task)
        for core in {task.unit[0], *(core for fifo in task.fifos for core in fifo)}:
            self.stale.update(self.of_core.get(core, ()))
        return task

    def stuck(self) -> bool:
        """Whether links stop any."""
        return any(waiting.held for waiting in self.units.values())


class _Run:
    """Instructions between loop boundaries, as tasks that know what they wait for."""

    def __init__(self, ops: list[Op], config: Config) -> None:
        self.ops, self.config = ops, config
        self.tasks = [task_of(op, i, config) for i, op in enumerate(ops)]
        self.links = Links(self.tasks, config.link_fifo_rows)
        connect(self.tasks, self.links, config)

    def ordered(self, order: Order) -> list[Op]:
        """EAGER or STATE_FIRST."""
        for task in self.tasks:
            late = order is Order.STATE_FIRST and task.op.row_of_table.unit == "io_in"
            task.release = FAR if late else 0
        if order is Order.STATE_FIRST:
            postpone(self.tasks, FAR, lambda: self._choose() is not None)
        chosen = self._choose()
        # None: a FIFO's head waits for something behind it; the written order never does
        return self.ops if chosen is None else [task.op for task in chosen]

    def _choose(self) -> list[Task] | None:
        """The tasks in the order in which they start. None where links stop them all."""
        cores = Cores(self.config)
        available = _Available(cores, self.links)
        self.links.clear()
        for task in self.tasks:
            task.left, task.ready = task.waits, task.release
            if not task.left:
                available.add(task)
        result: list[Task] = []
        while (chosen := available.take_first()) is not None:
            self.links.take(chosen)
            cores.start(chosen)
            result.append(chosen)
            for task, _ in chosen.after:
                task.left -= 1
                if not task.left:
                    available.add(task)
        if available.stuck():
            return None
        assert len(result) == len(self.tasks), "the dependence graph has a cycle"
        return result
