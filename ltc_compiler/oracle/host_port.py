"""The host's port for output rows, cycle by cycle: which row leaves when.

Rows wait in the output store of their core. In every cycle one of them leaves: of the oldest inference, and of the
lowest core of those that have one there.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heapify, heappop, heappush

Waiting = tuple[int, int, int]  # the cycle from which a row is there, its core, its number there


class HostPort:
    """Rows that leave, by the number that each has on its core, through all inferences.

    room: rows of a core that have been put out and not left. last_out: the last row is out; 0 without one.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._left: defaultdict[int, list[int]] = defaultdict(list)  # by core: when each row left
        self._waiting: list[Waiting] = []  # of the inference under way
        self._put: defaultdict[int, int] = defaultdict(int)  # by core: rows put out
        self._taken: set[int] = set()  # cycles in which a row left
        self.last_out = 0

    def earliest(self, core: int, way: int) -> int:
        """When a core may put out its next row. To the store it takes `way` cycles, and so does the word of a place."""
        before = self._put[core] - self._room
        return self._left[core][before] + way if before >= 0 else 0

    def put(self, core: int, there: int) -> None:
        """The next row of a core is in its store from cycle `there` on."""
        self._waiting.append((there, core, self._put[core]))
        self._put[core] += 1

    def end_inference(self) -> None:
        """All rows of an inference are known: let them leave."""
        coming, here, cycle = self._waiting, list[tuple[int, int]](), 0
        self._waiting = []
        heapify(coming)
        while coming or here:
            cycle = cycle + 1 if here else max(cycle + 1, coming[0][0])
            while coming and coming[0][0] <= cycle:
                _, core, number = heappop(coming)
                heappush(here, (core, number))
            if cycle not in self._taken:
                core, number = heappop(here)
                assert len(self._left[core]) == number, "the rows of a core leave in order"
                self._left[core].append(cycle)
                self._taken.add(cycle)
                self.last_out = max(self.last_out, cycle)
