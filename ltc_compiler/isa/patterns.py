"""The iteration patterns: how many beats an instruction has, and when it touches which rows.

A count is the name of a u32 field; rows(F): the rows that F elements fill; a number; or WALKED. The scheduler, the
reports, the loader and the documentation read the patterns. The two clocks do not: each walks the beats by a
description of its own, and the tests compare the counts with both walks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

WALKED = "walked(slots)"  # the slots of all targets of a synapse, from its field `slots` on
# store -> bytes of an entry: so many times lanes ** power.
STORES = {"weight": (2, 2), "synapse": (18, 1), "gather": (2, 1)}


def value_of(count: str, number: Callable[[str], int], rows: Callable[[int], int]) -> int:
    """What a count is where `number` gives the value of a field, and `rows` the rows that so many elements fill."""
    if count.isdigit():
        return int(count)
    return rows(number(count[5:-1])) if count.startswith("rows(") else number(count)


@dataclass(frozen=True)
class Phase:
    """Beats that follow each other: as many as the product of the counts.

    each: fields of which every beat touches the next row, or rows; last: those that the last beat touches; loose: those
    of which nothing is said but that the phase touches them. store: that of which every beat reads an entry.
    narrow: a beat takes one cycle, even where operands are fp32.
    """

    beats: tuple[str, ...]
    each: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    store: str = ""
    narrow: bool = False

    def __post_init__(self) -> None:
        if self.store and self.store not in STORES:
            raise ValueError(f"a phase reads the store {self.store!r}, which is not one of {sorted(STORES)}")


@dataclass(frozen=True)
class Pattern:
    """The beats of one execution: the phases in order, as often as the product of `repeats`.

    interleaved: the one of `repeats` of which as many iterations as there are accumulators go on side by side, beat by
    beat. In a pattern of one phase, the fields that it does not name are touched in each beat.
    """

    phases: tuple[Phase, ...]
    repeats: tuple[str, ...] = ()
    interleaved: str = ""

    def __post_init__(self) -> None:
        if self.interleaved and (self.interleaved not in self.repeats or len(self.phases) != 1):
            raise ValueError(f"{self.interleaved!r} is interleaved: it must repeat a pattern of one phase")

    @property
    def counts(self) -> tuple[str, ...]:
        """All counts that the pattern names."""
        return (*self.repeats, *(count for phase in self.phases for count in phase.beats))

    def beats(self, value: Callable[[str], int]) -> list[int]:
        """The beats of each phase in one execution, where `value` gives those of the counts."""
        times = prod(value(count) for count in self.repeats)
        return [times * prod(value(count) for count in phase.beats) for phase in self.phases]

    def touch(self, field: str) -> tuple[int, str]:
        """The index of the phase that touches the rows of `field`, and how: each, last or loose."""
        for index, phase in enumerate(self.phases):
            for how in ("each", "last", "loose"):
                if field in getattr(phase, how):
                    return index, how
        if len(self.phases) != 1:
            raise ValueError(f"no phase touches {field!r}")
        return 0, "each"


_ROW_BY_ROW = Pattern((Phase(("rows",)),))
PATTERNS = {
    "elementwise": Pattern((Phase(("n_outer", "n_inner")),)),
    "row_reduce": Pattern((Phase(("rows(k)",), last=("dst",)),), repeats=("groups",)),
    "column_reduce": Pattern((Phase(("k",), loose=("dst", "src")),), repeats=("n_inner",)),
    "product": Pattern((Phase(("n_j",), loose=("dst", "a", "b", "addend")),), repeats=("n_i", "n_inner")),
    "dot": Pattern((Phase(("rows(k)",), loose=("dst", "a", "b", "addend")),), repeats=("n_i", "n_j")),
    "matrix": Pattern(
        (Phase(("taps", "rows(k)"), last=("bias", "dst"), store="weight"),),
        repeats=("batch", "m_rows"),
        interleaved="m_rows",
    ),
    "synapse": Pattern(
        (
            Phase(("v_rows",), each=("v",), narrow=True),
            Phase((WALKED,), loose=("num", "den"), store="synapse"),
        )
    ),
    "update": Pattern((Phase(("3",)),), repeats=("n",)),
    "gather": Pattern((Phase(("count",), loose=("dst", "src"), store="gather"),)),
    "transpose": Pattern((Phase(("src_rows",), each=("src",)), Phase(("dst_rows",), each=("dst",)))),
    "send": _ROW_BY_ROW,
    "receive": _ROW_BY_ROW,
    "input": _ROW_BY_ROW,
    "output": _ROW_BY_ROW,
    "loop": Pattern(()),
    "end": Pattern(()),
}
