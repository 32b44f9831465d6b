"""Which instructions should start later than they could, so that they fill gaps in which their unit would wait.

A machine that was idle before the input came has done all work that depends on state alone by then. A machine that was
busy does that work first, and the input waits for it. But the instructions that wait for the input leave gaps: the
matrix unit waits for activations and links. Products of the state alone that are wanted late are therefore moved into
such gaps, where they cost nothing. Work that no output needs, such as shifting a delay line, goes into gaps too, or to
the very end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from ltc_compiler.schedule.order.tasks import CoreUnit, Task

Gap = list[int]  # first cycle, end
ENDLESS = 1 << 60
MARGIN = (
    4  # cycles between a product that fills a gap and what waits for the input: starts are estimates here
)


def postpone(tasks: list[Task], arrival: int, choose: Callable[[], bool]) -> None:
    """Set the releases of tasks that fit into gaps behind `arrival`, from which on the input is there.

    choose: gives every task a start, by the releases; False if it cannot.
    """
    wanted = _wanted(tasks)
    for task in tasks:
        if task not in wanted:
            task.release = 2 * arrival
    found = choose()
    for task in tasks:
        if task not in wanted:
            task.release = 0
    if not found:
        return
    gaps = _gaps([t for t in tasks if t in wanted and t.start >= arrival], arrival)
    _fill_with_early(tasks, wanted, arrival, gaps)
    _fill_with_rest(tasks, wanted, gaps)


def _wanted(tasks: list[Task]) -> set[Task]:
    """The tasks that an output depends on."""
    wanted: set[Task] = set()
    for task in reversed(tasks):
        if task.unit[1] == "io_out" or any(t in wanted for t, _ in task.after):
            wanted.add(task)
    return wanted


def _gaps(tasks: list[Task], arrival: int) -> dict[CoreUnit, list[Gap]]:
    """The cycles from `arrival` on in which none of the tasks is on a unit."""
    found: dict[CoreUnit, list[Gap]] = defaultdict(lambda: [[arrival, ENDLESS]])
    for task in sorted(tasks, key=lambda t: t.start):
        last = found[task.unit][-1]
        last[1] = task.start
        found[task.unit].append([task.start + task.held, ENDLESS])
    return found


def _fill_with_early(
    tasks: list[Task], wanted: set[Task], arrival: int, gaps: dict[CoreUnit, list[Gap]]
) -> None:
    """Products that wait for no input: each in the last gap that it fits into and that still comes in time."""
    late: dict[Task, int] = {}
    for task in reversed(tasks):
        if task in wanted and task.start < arrival:
            late[task] = min(
                (late.get(t, t.start) - delay for t, delay in task.after if t in wanted), default=0
            )
    early = [t for t in late if t.unit[1] == "matrix" and late[t] > arrival]
    for task in sorted(early, key=lambda t: (-late[t], -t.index)):
        for gap in reversed(gaps[task.unit]):
            if gap[1] < ENDLESS and gap[0] <= late[task] and gap[0] + task.held + MARGIN <= gap[1]:
                task.release = gap[0]
                gap[0] += task.held
                break


def _fill_with_rest(tasks: list[Task], wanted: set[Task], gaps: dict[CoreUnit, list[Gap]]) -> None:
    """Work that no output needs: each instruction in the first gap that it fits into after its operands are there."""
    ready: dict[Task, int] = defaultdict(int)
    for task in tasks:
        start = task.start
        if task not in wanted:
            start = ready[task]
            for gap in gaps[task.unit]:
                begin = max(gap[0], start)
                if begin + task.held <= gap[1]:
                    task.release = start = begin
                    gap[0] = begin + task.held
                    break
        for other, delay in task.after:
            ready[other] = max(ready[other], start + delay)
