"""When instructions start, as the scheduler plans it: the clock's rules at the grain of instructions.

The plan knows units, queues, latencies and the rows that pass from one instruction to the next. It leaves out what
depends on single beats or on addresses: the ports of the tensor store, and rows that are used again for another value.
Where it does not know in which order rows are touched, it takes them as written last and read first, which may be too
late a start. The clock counts beat by beat, and alone says how long a program takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ltc_compiler.config import Config
from ltc_compiler.schedule.order.dependences import Links, connect
from ltc_compiler.schedule.order.tasks import CoreUnit, Task, task_of
from ltc_compiler.schedule.rows.virtual import Op


class Cores:
    """When each core can issue next, and when each unit is free. Neither goes back."""

    def __init__(self, config: Config) -> None:
        self._issue_latency = config.latency.issue
        self._issue: dict[int, int] = defaultdict(int)
        self._unit: dict[CoreUnit, int] = defaultdict(int)
        self._queues: dict[CoreUnit, list[int]] = defaultdict(lambda: [0] * config.issue_queue)

    def now(self, unit: CoreUnit) -> int:
        """The earliest start of an instruction whose operands are there."""
        return max(self._issue[unit[0]], self._unit[unit])

    def start(self, task: Task) -> None:
        """Start a task, in `task.start`; what depends on it is ready accordingly later."""
        task.start = max(task.ready, self.now(task.unit))
        core, queue, end = task.unit[0], self._queues[task.unit], task.start + task.busy
        self._issue[core] = max(self._issue[core], queue.pop(0)) + self._issue_latency
        self._unit[task.unit] = end
        queue.append(end)
        for other, delay in task.after:
            other.ready = max(other.ready, task.start + delay)


class Planned(NamedTuple):
    """When an instruction starts, in cycles from the beginning of its run, and the positions of what it waits for."""

    start: int
    waits: tuple[int, ...]


def runs(ops: Sequence[Op]) -> Iterator[list[Op]]:
    """The straight runs between loop boundaries, and each boundary by itself."""
    run: list[Op] = []
    for op in ops:
        if op.row_of_table.unit == "control":
            if run:
                yield run
            yield [op]
            run = []
        else:
            run.append(op)
    if run:
        yield run


def planned(ops: Sequence[Op], config: Config) -> list[Planned | None]:
    """The plan of every instruction in the order in which they stand; None for loop boundaries."""
    found: list[Planned | None] = []
    for run in runs(ops):
        if run[0].row_of_table.unit == "control":
            found.append(None)
            continue
        tasks = [task_of(op, len(found) + i, config) for i, op in enumerate(run)]
        connect(tasks, Links(tasks, config.link_fifo_rows), config)
        cores = Cores(config)
        waits: dict[Task, set[int]] = {task: set() for task in tasks}
        for task in tasks:
            cores.start(task)
            for other, _ in task.after:
                waits[other].add(task.index)
        found += [Planned(task.start, tuple(sorted(waits[task]))) for task in tasks]
    return found
