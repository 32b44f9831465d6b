"""What an instruction waits for: rows that others write or read, the ports of its core, the link FIFOs."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable

from ltc_compiler.config import Config
from ltc_compiler.schedule.order.footprint import Touch, distance, touches
from ltc_compiler.schedule.order.tasks import Fifo, Task


class Links:
    """The link FIFOs while instructions are chosen: rows leave in the order in which they were sent."""

    def __init__(self, tasks: list[Task], capacity: int) -> None:
        self.capacity = capacity
        # the receive that takes what a send puts into a FIFO
        self.partner: dict[tuple[Task, Fifo], Task] = {}
        sent: dict[Fifo, list[Task]] = defaultdict(list)
        self.clear()
        for task in tasks:
            for fifo in task.fifos:
                if task.sends:
                    sent[fifo].append(task)
                else:
                    self.partner[sent[fifo].pop(0), fifo] = task

    def clear(self) -> None:
        """Nothing is sent yet."""
        self.rows: dict[Fifo, int] = defaultdict(int)
        self.queue: dict[Fifo, deque[Task]] = defaultdict(deque)

    def allows(self, task: Task) -> bool:
        """Whether a send finds room, and whether a receive finds its rows in front."""
        if task.sends:
            return max(map(self.rows.__getitem__, task.fifos)) + task.link_rows <= self.capacity
        queue = self.queue[task.fifos[0]]
        return bool(queue) and queue[0] is task

    def take(self, task: Task) -> None:
        """Account for a chosen instruction."""
        for fifo in task.fifos:
            if task.sends:
                self.rows[fifo] += task.link_rows
                self.queue[fifo].append(self.partner[task, fifo])
            else:
                self.rows[fifo] -= task.link_rows
                self.queue[fifo].popleft()


def _depend(before: Task, after: Task, delay: int) -> None:
    before.after.append((after, delay))
    after.waits += 1


def connect(tasks: list[Task], links: Links, config: Config) -> None:
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
        if task.op.row_of_table.unit in ("io_in", "io_out"):  # a core's port keeps the written order
            side = task.op.row_of_table.unit, task.op.core
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
