"""The reference clock: the cycles that a program takes, counted in Python for the tests alone.

A core issues in order, and an instruction is a sequence of beats on one unit (beats.py). One rule of rows (read when
ready, touch nothing that an older instruction may still touch) and one of units (a beat at a time) give every cycle.
The simulator's count, sim_core/clock/timing.cpp, is written apart from this one and must equal it.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa
from ltc_compiler.bytecode import Image, Instr
from ltc_compiler.bytecode.cost import beats, latency, slots_walked
from ltc_compiler.bytecode.ports import Model, model_at
from ltc_compiler.bytecode.rings import turn
from ltc_compiler.errors import InputError, ProgramError
from ltc_compiler.oracle.beats import PATTERNS, Beat, Context, Outside

MAX_WORK = 1 << 33  # executed instructions, and their beats, that a walk accepts: a minute or two in C++


@dataclass(frozen=True)
class CycleReport:
    """Cycles of one inference; the count starts at 0 when its first instruction may issue.

    total: until every row is written and every output is out.
    offered: the host has its last input row ready, one row a cycle from its arrival on; 0 if there is no input.
    last_in: start of the last beat that took a row in from the host; 0 if there was none.
    last_out: the last output row is out; `total` if there was none.
    busy: busy[core][unit], in the order of isa.UNITS: cycles in which the unit was occupied by a beat.
    instructions: executed instructions, over all cores; a loop counts once, and its end once per iteration.
    """

    total: int
    offered: int
    last_in: int
    last_out: int
    busy: tuple[tuple[int, ...], ...]
    instructions: int

    @property
    def latency(self) -> int:
        """Cycles from the last input row offered to the last output row out; 0 if that is out before."""
        return max(0, self.last_out - self.offered)


def estimate(image: Image, model_index: int = 0, arrival: int = 0, inferences: int = 1) -> CycleReport:
    """Walk a model of `image` iteration by iteration and count its cycles.

    inferences: that many follow each other as if the code stood in a loop, each with its data there.

    image: legal code, as the loader of the simulator verifies it. arrival: the cycle at which the host's data is
    there: 0 gives the contiguous figure, and the `total` of that the spaced one. Raises InputError for a model that
    is not there or an arrival outside 0..2**62 - 1, and ProgramError beyond MAX_WORK executed instructions or beats.
    """
    model = model_at(image.models, model_index)
    if not 0 <= arrival < 1 << 62:
        raise InputError(f"arrival is {arrival}", where="arrival", remedy="use 0 to 2**62 - 1 cycles")
    code = image.code[model.begin : model.end]
    instructions = _check_work(image, code, inferences)
    offered = {}
    rows = 0
    for index, port in enumerate(model.inputs):
        offered[index] = arrival + rows
        rows += port.rows(image.config.block_size)
    walk = _Walk(image, offered)
    for _ in range(inferences):
        for instr, counters in _executed(code):
            walk.execute(instr, counters)
        walk.end_inference(model)
    return walk.report(instructions, arrival + rows - 1 if rows else 0)


def _executed(code: list[Instr]) -> Iterator[tuple[Instr, list[int]]]:
    """Every executed instruction in order, with the iteration of each enclosing loop, outermost first."""
    counters: list[int] = []
    loops: list[tuple[int, int]] = []  # first instruction of the body, number of iterations
    at = 0
    while at < len(code):
        instr = code[at]
        yield instr, counters
        at += 1
        if instr.name == "loop":
            loops.append((at, instr.number("count")))
            counters.append(0)
        elif instr.name == "end":
            body, count = loops[-1]
            counters[-1] += 1
            if counters[-1] < count:
                at = body
            else:
                loops.pop()
                counters.pop()


def _check_work(image: Image, code: list[Instr], inferences: int) -> int:
    """Executed instructions of `code`, found without executing it. Raises ProgramError beyond MAX_WORK."""
    executions = [inferences]
    instructions = work = 0
    for instr in code:
        slots = None
        if instr.name == "synapse":
            core = image.cores[instr.core]
            slots = sum(slots_walked(core, instr.number("slots"), instr.number("targets")))
        instructions += executions[-1]
        work += executions[-1] * beats(instr, image.config, slots)
        if instr.name == "loop":
            executions.append(executions[-1] * instr.number("count"))
        elif instr.name == "end":
            executions.pop()
    if max(instructions, work) > MAX_WORK:
        what = f"a run executes {instructions} instructions and {work} beats, more than {MAX_WORK}"
        raise ProgramError(what, where="the model's code", remedy="lower the trip counts of its loops")
    return instructions


class _Touched:
    """The rows that one instruction touches by its beats, field by field, and when."""

    def __init__(self) -> None:
        self._fields: defaultdict[tuple[bool, str], list[tuple[int, int]]] = defaultdict(list)

    def add(self, beat: Beat, start: int) -> None:
        for is_written, rows in ((False, beat.reads), (True, beat.writes)):
            for field, row in rows.items():
                self._fields[is_written, field].append((row, start))

    def intervals(self, written: bool | None) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """For each field, its rows and, for each, the start of the last beat that finds it among those to be touched.

        Those are all between the lowest and the highest row of a beat and the ones behind it. Both only close in, so
        the last beat for a row is the last whose lowest is not above it and whose highest is not below.
        """
        for (is_written, _), touches in self._fields.items():
            if written is not None and written is not is_written:
                continue
            rows, starts = np.array(touches).T
            lowest = np.minimum.accumulate(rows[::-1])[::-1]
            highest = np.maximum.accumulate(rows[::-1])[::-1]
            every = np.arange(lowest[0], highest[0] + 1)
            not_above = np.searchsorted(lowest, every, side="right")
            not_below = np.searchsorted(-highest, -every, side="right")
            last = np.minimum(not_above, not_below) - 1
            yield slice(int(lowest[0]), int(highest[0]) + 1), starts[last]


class _Walk:
    """The state of the machine's clock while a model is walked."""

    def __init__(self, image: Image, offered: dict[int, int]) -> None:
        cores = image.config.cores
        self._config = image.config
        self._outside = Outside(image, offered)
        self._last_ready = 0
        self._next_issue = [0] * cores
        self._turned = [0] * cores
        # for every unit, when the instructions that its queue can hold left it, the oldest first
        depth = image.config.issue_queue
        self._left = [{unit: deque([0] * depth, depth) for unit in isa.UNITS} for _ in range(cores)]
        self._busy = [dict.fromkeys(isa.UNITS, 0) for _ in range(cores)]
        # where the row of an address stands: what is kept of a row below is kept of that one
        self._stands = [np.arange(core.tensor_rows) for core in image.cores]
        self._ready: list[defaultdict[int, int]] = [defaultdict(int) for _ in range(cores)]
        # the last cycle in which a row stood among those that an older instruction had still to write, or to touch
        rows = max((c.tensor_rows for c in image.cores), default=0)
        self._to_be_written = np.full((cores, rows), -1)
        self._to_be_touched = np.full((cores, rows), -1)
        # by cycle: rows that each core reads, and the results that land from each unit
        self._reads: list[defaultdict[int, int]] = [defaultdict(int) for _ in range(cores)]
        self._landings: list[dict[str, set[int]]] = [{u: set() for u in isa.UNITS} for _ in range(cores)]

    def execute(self, instr: Instr, counters: list[int]) -> None:
        """Advance the clock by one instruction."""
        if instr.core == isa.ALL_CORES:
            self._next_issue = [t + self._config.latency.issue for t in self._next_issue]
            return
        row = instr.row_of_table
        left = self._left[instr.core][row.unit]
        issue = max(self._next_issue[instr.core], left[0])
        self._next_issue[instr.core] = issue + self._config.latency.issue
        earliest = max(issue, left[-1])
        until_written = latency(instr, self._config)
        sequence = PATTERNS[row.format.pattern](Context(self._outside, instr, counters))
        touched = _Touched()
        try:
            beat = next(sequence)
            while True:
                start = self._start((instr.core, row.unit), beat, earliest, until_written)
                touched.add(beat, start)
                self._busy[instr.core][row.unit] += beat.hold
                earliest = start + beat.hold
                beat = sequence.send(start)
        except StopIteration:
            left.append(earliest)
        stands = self._stands[instr.core]
        for rows, last in touched.intervals(written=True):
            until = self._to_be_written[instr.core]
            until[stands[rows]] = np.maximum(until[stands[rows]], last)
        for rows, last in touched.intervals(written=None):
            until = self._to_be_touched[instr.core]
            until[stands[rows]] = np.maximum(until[stands[rows]], last)

    def end_inference(self, model: Model) -> None:
        """An inference has issued: the addresses of its rings turn. What is in a queue keeps the rows that it has."""
        turn(self._stands, model.rings)
        rings = Counter(ring.core for ring in model.rings)
        for core, issue in enumerate(self._next_issue):  # a ring a cycle was made ready since the last turn
            self._turned[core] = max(issue, self._turned[core] + rings[core])
        self._next_issue = list(self._turned)
        self._outside.host.end_inference()

    def _start(self, place: tuple[int, str], beat: Beat, earliest: int, until_written: int) -> int:
        """The cycle at which `beat` starts on a core and unit, and what it does to its rows and ports."""
        core, unit = place
        ready, stands = self._ready[core], self._stands[core]
        read = [int(stands[r]) for r in beat.reads.values()]
        written = [int(stands[r]) for r in beat.writes.values()]
        start = max(earliest, beat.after)
        for r in read:
            start = max(start, ready[r], int(self._to_be_written[core, r]) + 1)
        for r in written:  # it lands after what was written there before
            start = max(start, ready[r] + 1 - until_written, int(self._to_be_touched[core, r]) + 1)
        # The ports that instructions before this one in the program left: the oldest goes first.
        reads, landings = self._reads[core], self._landings[core][unit]
        while reads[start] + len(beat.reads) > self._config.read_ports or (
            beat.writes and start + until_written in landings
        ):
            start += 1
        reads[start] += len(beat.reads)
        if beat.writes:
            landings.add(start + until_written)
        for r in written:
            ready[r] = start + until_written
            self._last_ready = max(self._last_ready, ready[r])
        return start

    def report(self, instructions: int, offered: int) -> CycleReport:
        last_out = self._outside.host.last_out
        total = max(self._last_ready, last_out)
        return CycleReport(
            total=total,
            offered=offered,
            last_in=self._outside.last_in,
            last_out=last_out or total,  # out after 1 cycle or more: 0 says that nothing was
            busy=tuple(tuple(b[unit] for unit in isa.UNITS) for b in self._busy),
            instructions=instructions,
        )
