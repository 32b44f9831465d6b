"""The clock of the C++ core: every cycle that Python knows of comes through here.

The compiler asks it which of its schedules is the fastest, a Program how long an inference takes, and a report when
each instruction ran. oracle/clock.py counts the same from the same rules, for the tests alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from typing import Any

from ltc_compiler._core import Program as CoreProgram
from ltc_compiler._core import cycles, trace
from ltc_compiler.bytecode import Image

SETTLED = 8  # inferences in a row after which the distance of two is that of all that follow


@dataclass(frozen=True, slots=True)
class Record:
    """One executed instruction on one core; a loop or an end leaves one record per core.

    iterations: of the enclosing loops, outermost first; an end is in its own loop. issue: the queue of its unit takes
    it. begin: the unit is free for it. start: its first beat. end: the unit is free again. finish: its last effect, a
    row readable, a row at the far end of a link, a row out. busy: cycles that its beats held the unit. stall: the
    cause that cost it most; lost: the cycles of that.
    """

    index: int
    core: int
    iterations: tuple[int, ...]
    issue: int
    begin: int
    start: int
    end: int
    finish: int
    busy: int
    stall: str
    lost: int


class Clock:
    """The cycles of the models of one program. `core`: the image as the C++ core holds it, decoded and verified."""

    def __init__(self, image: Image, core: CoreProgram) -> None:
        self._models = image.models
        self._core = core

    @classmethod
    def of(cls, image: Image) -> Clock:
        """The clock of an image that no Program holds. Raises ProgramError if it breaks a rule of the machine."""
        return cls(image, CoreProgram.parse(image.to_bytes() if image.file is None else image.file))

    def summary(self, model_index: int, spaced: bool) -> dict[str, Any]:
        """One inference in cycles; Program.cycle_summary_per_inference says what the keys mean."""
        arrival = 0
        found = dict(cycles(self._core, model_index, arrival))
        if spaced:
            arrival = int(found["total"])
            found = dict(cycles(self._core, model_index, arrival))
        late = self._last(model_index, found) - found["offered"]
        return {
            "latency": max(0, late),
            "arrival": arrival,
            **found,
        }  # state alone may be out before the input comes

    def latency(self, model_index: int, spaced: bool) -> int:
        """Cycles from the last input row in to the last output row out."""
        return int(self.summary(model_index, spaced)["latency"])

    def mean_latency(self) -> float:
        """The geometric mean of the latencies of all models, spaced and contiguous: a share gained in one of them is
        worth as much as the same share lost in another."""
        counts = [self.latency(m, spaced) for m in range(len(self._models)) for spaced in (True, False)]
        return exp(sum(log(max(1, count)) for count in counts) / len(counts))

    def mean_interval(self) -> float:
        """The geometric mean of the intervals of all models."""
        counts = [self.interval(m) for m in range(len(self._models))]
        return exp(sum(log(max(1, count)) for count in counts) / len(counts))

    def interval(self, model_index: int) -> float:
        """Cycles from one inference to the next where they follow each other without a pause."""
        few, many = (cycles(self._core, model_index, 0, n) for n in (SETTLED, 2 * SETTLED))
        return int(self._last(model_index, many) - self._last(model_index, few)) / SETTLED

    def trace(self, model_index: int, arrival: int, limit: int) -> list[Record]:
        """The first `limit` executed instructions, in program order. arrival: as in the summary."""
        return [Record(*found) for found in trace(self._core, model_index, arrival, limit)]

    def _last(self, model_index: int, summary: dict[str, Any]) -> int:
        """The cycle at which a model without outputs is done, and any other has its last row out."""
        return int(summary["last_out" if self._models[model_index].outputs else "total"])
