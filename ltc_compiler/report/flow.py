"""Who waits for whom: the critical path of an inference, the rows that pass between instructions, and live ranges.

The path is found per instruction, from the last output back to the arrival of the input. Each segment ends at the
earlier event that its instruction waited for longest, and the cycles between the two belong to it. The segments join
without gap or overlap, so that their cycles add up to the whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ltc_compiler.bytecode import Model
from ltc_compiler.bytecode.cost import latency, occupancy
from ltc_compiler.report.events import Code, Event

Location = tuple[int, int]  # core, row


class Cause(NamedTuple):
    """What an instruction waited for: until `cycle`, because of event number `event` (None: the host, or the start)."""

    cycle: int
    kind: str
    event: int | None
    at_issue: bool = False  # the event had to be issued; else it had to free its unit, or to deliver


class Segment(NamedTuple):
    """A part of the critical path: the `cycles` that event number `event` caused, and what they went to.

    parts: cycles by kind: "latency", from the last beat until the result is there; "unit", its beats; "port", the wait
    of an output for rows of other cores; the rest waited for the cause that the trace gives, or was "issue", the
    distance to the instruction before it.
    """

    event: int
    cycles: int
    parts: dict[str, int]


@dataclass(frozen=True, slots=True)
class LiveRange:
    """Rows [row, row + rows) of a core that hold what event `writer` wrote, from its start until the last reader ends.

    kind: "temporary", or "state" for rows that outlive the inference.
    """

    core: int
    row: int
    rows: int
    begin: int
    end: int
    writer: int
    kind: str


class Flow:
    """The dependences of a list of events, found by executing their reads and writes in program order.

    delivered: delivered[consumer] counts the rows that it read from each producer, both by event number.
    stalls: what each event waited for longest, by event number; "none" for one that did not wait.
    """

    def __init__(self, code: Code, model: Model, events: Sequence[Event]) -> None:
        self._code = code
        self._events = events
        self._issue: list[Cause] = []
        self._finish: list[Cause] = []
        self.delivered: list[Counter[int]] = []
        self.stalls: list[str] = []
        self.lives: list[LiveRange] = []
        size = code.config.block_size
        self._states = {
            (c, row + r) for s in model.states for c, row in s.places for r in range(s.rows(size))
        }
        self._walk()
        self.lives = sorted(_joined(self.lives), key=lambda life: (life.core, life.row, life.begin))

    # --- dependences ----------------------------------------------------------------------------------

    def _walk(self) -> None:
        self._last: dict[int, int] = {}  # core -> the event that issued last
        self._unit: defaultdict[tuple[int, str], list[int]] = defaultdict(
            list
        )  # core, unit -> the events on it
        self._writer: dict[Location, int] = {}
        self._readers: defaultdict[Location, list[int]] = defaultdict(list)
        self._sent: defaultdict[tuple[int, int], list[int]] = defaultdict(list)  # the send of every row
        self._popped: defaultdict[tuple[int, int], list[int]] = defaultdict(list)  # the receive of every row
        for number, event in enumerate(self._events):
            self._enter(number, event)
        for place in list(self._writer):
            self._close(place)

    def _enter(self, number: int, event: Event) -> None:
        unit = self._code.unit(event.index)
        self._issue.append(self._issue_cause(event, unit))
        reads = [(event.core, row) for row in self._code.rows(event.index, event.iterations, write=False)]
        writes = [(event.core, row) for row in self._code.rows(event.index, event.iterations, write=True)]
        producers = Counter(self._writer[place] for place in reads if place in self._writer)
        causes = [*self._waits(event, unit, producers), *self._overwrites(writes)]
        own = self._begin_cause(number, event, unit)
        cause = self._longest(event, own, causes) if event.waited else own
        self._finish.append(cause)
        self.stalls.append(cause.kind if cause is not own else _own_stall(event))
        self._exchange(number, event, unit, producers)
        self.delivered.append(producers)
        for place in reads:
            self._readers[place].append(number)
        for place in writes:
            self._close(place)
            self._writer[place] = number
        self._last[event.core] = number
        if unit != "control":
            self._unit[event.core, unit].append(number)

    def _issue_cause(self, event: Event, unit: str) -> Cause:
        """An instruction issues after the one before it, and when its unit's queue has a place."""
        before = self._unit[event.core, unit]
        place = len(before) - self._code.config.issue_queue
        if place >= 0 and unit != "control" and self._events[before[place]].end == event.issue:
            return Cause(event.issue, "unit", before[place])
        last = self._last.get(event.core)
        if last is None:
            return Cause(event.issue, "start", None)
        return Cause(self._events[last].issue, "issue", last, at_issue=True)

    def _begin_cause(self, number: int, event: Event, unit: str) -> Cause:
        """Its beats follow those of the instruction before it on its unit."""
        before = self._unit[event.core, unit]
        if before and self._events[before[-1]].end > event.issue:
            return Cause(self._events[before[-1]].end, "unit", before[-1])
        return Cause(event.issue, "unit", number, at_issue=True)

    def _longest(self, event: Event, own: Cause, causes: Sequence[Cause]) -> Cause:
        """The longest of the causes for which an event waited, of the kind that the trace gives, where it gives one."""
        felt = [c for c in causes if own.cycle < c.cycle < event.finish]
        if event.hint not in ("unit", "none"):
            felt = [c for c in felt if c.kind == event.hint]
        return max(felt, key=lambda c: c.cycle, default=own)

    def _waits(self, event: Event, unit: str, producers: Counter[int]) -> Iterator[Cause]:
        """Waiting for rows, for a link, for the host. A producer may still be at rows that this event does not read."""
        last_beat = event.end - occupancy(self._code[event.index], self._code.config)
        for producer in producers:
            yield Cause(min(self._events[producer].finish, last_beat), "operand", producer)
        if unit == "io_in":
            yield Cause(0, "host", None)
        for fifo in self._fifos(event):
            instr = self._code[event.index]
            if unit == "link_in":
                last = len(self._popped[fifo]) + instr.number("rows") - 1
                sender = self._sent[fifo][last]
                yield Cause(self._events[sender].finish, "link", sender)
            else:
                freed = len(self._sent[fifo]) + instr.number("rows") - 1 - self._code.config.link_fifo_rows
                if 0 <= freed < len(self._popped[fifo]):
                    receiver = self._popped[fifo][freed]
                    yield Cause(self._events[receiver].end, "link", receiver)

    def _overwrites(self, writes: Sequence[Location]) -> Iterator[Cause]:
        """Waiting until the rows to write were read."""
        for place in writes:
            for reader in self._readers[place]:
                yield Cause(self._events[reader].end, "overwrite", reader)

    def _fifos(self, event: Event) -> list[tuple[int, int]]:
        instr = self._code[event.index]
        if instr.name == "send":
            mask = instr.number("targets")
            return [(event.core, core) for core in range(self._code.config.cores) if mask >> core & 1]
        return [(instr.number("source"), event.core)] if instr.name == "receive" else []

    def _exchange(self, number: int, event: Event, unit: str, producers: Counter[int]) -> None:
        """Pass rows through the links."""
        for fifo in self._fifos(event):
            rows = self._code[event.index].number("rows")
            if unit == "link_in":
                first = len(self._popped[fifo])
                producers.update(self._sent[fifo][first : first + rows])
            (self._popped if unit == "link_in" else self._sent)[fifo] += [number] * rows

    # --- live ranges ----------------------------------------------------------------------------------

    def _close(self, place: Location) -> None:
        """What a row held is overwritten, or the inference is over: note how long it was needed."""
        readers = self._readers.pop(place, [])
        writer = self._writer.pop(place, None)
        if writer is None:
            return
        event = self._events[writer]
        kind = "state" if place in self._states else "temporary"
        end = max([event.finish, *(self._events[r].end for r in readers)])
        self.lives.append(LiveRange(*place, 1, event.start, end, writer, kind))

    # --- the critical path ----------------------------------------------------------------------------

    def critical_path(self) -> list[Segment]:
        """The segments in order, from the arrival of the host's data, or the start, to the last output, or effect."""
        units = [self._code.unit(event.index) for event in self._events]
        last = [n for n, unit in enumerate(units) if unit == "io_out"]
        last = last or [n for n, unit in enumerate(units) if unit not in ("control", "link_out")]
        number: int | None = max(last, key=lambda n: self._events[n].finish, default=None)
        if number is None:
            return []
        cycle, at_issue = self._events[number].finish, False
        segments: list[Segment] = []
        while number is not None and cycle > 0:
            cause = (self._issue if at_issue else self._finish)[number]
            if cause.cycle > cycle:  # it delivered a part before it took what it waited for
                cause = Cause(min(cycle, self._events[number].issue), "unit", number, at_issue=True)
            if cause.cycle < 0:  # done ahead: the inference begins with the arrival
                cause = Cause(0, cause.kind, None)
            segments.append(self._segment(number, cause, cycle, at_issue))
            cycle, number, at_issue = cause.cycle, cause.event, cause.at_issue
        return [segment for segment in reversed(segments) if segment.cycles]

    def _segment(self, number: int, cause: Cause, cycle: int, at_issue: bool) -> Segment:
        """What the cycles from a cause to `cycle` went to."""
        event, cycles = self._events[number], cycle - cause.cycle
        if at_issue:
            return Segment(number, cycles, {cause.kind: cycles})
        after = max(0, cycle - max(cause.cycle, event.end))
        at_port = min(after, self._at_port(event))
        work = min(cycles - after, event.busy)
        waited = cycles - after - work
        parts = Counter({"latency": after - at_port, "unit": work, "port": at_port})
        parts[self.stalls[number] if event.waited else "unit"] += waited
        return Segment(number, cycles, dict(+parts))

    def _at_port(self, event: Event) -> int:
        """Cycles that the last row of an output waited for rows of other cores at the host's port."""
        if self._code.unit(event.index) != "io_out":
            return 0
        return event.finish - (event.end - 1 + latency(self._code[event.index], self._code.config))


def _own_stall(event: Event) -> str:
    """The stall of an event that waited for no other event in particular."""
    if not event.waited:
        return "none"
    return event.hint if event.hint not in ("unit", "none") else "operand"


def _joined(lives: Sequence[LiveRange]) -> Iterator[LiveRange]:
    """Neighbouring rows with the same writer and the same end as one."""
    groups: dict[tuple[int, int, int, str], list[int]] = defaultdict(list)
    for life in lives:
        groups[life.writer, life.core, life.end, life.kind].append(life.row)
    begins = {life.writer: life.begin for life in lives}
    for (writer, core, end, kind), rows in groups.items():
        first = previous = None
        for row in [*sorted(rows), None]:
            if first is not None and previous is not None and row != previous + 1:
                yield LiveRange(core, first, previous + 1 - first, begins[writer], end, writer, kind)
                first = None
            first, previous = (row if first is None else first), row
