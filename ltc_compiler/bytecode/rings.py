"""Rings: rows of a core whose addresses turn by some places with every inference, so that a delay line moves no row.

A row address that lies in a ring is a logical one: place 0 is the oldest. With n inferences of the model behind it,
logical place p stands at place (p + n · advance) mod places. So the rows written to the first `advance` places are the
last ones in the next inference, and all the others have moved up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltc_compiler.bytecode.reader import RECOMPILE
from ltc_compiler.errors import ProgramError


@dataclass(frozen=True, slots=True)
class Ring:
    """`places` places of `rows` rows each on a core, from `row` on; an inference turns it by `advance` of them."""

    core: int
    row: int
    places: int
    rows: int = 1
    advance: int = 1

    def __post_init__(self) -> None:
        if min(self.core, self.row) < 0 or self.rows < 1 or not 1 <= self.advance < self.places:
            raise ProgramError(
                f"a ring of {self.places} places of {self.rows} rows at row {self.row} of core {self.core} turns by"
                f" {self.advance} places",
                where="rings", remedy="give it rows, two places or more, and let it turn by fewer than all of them",
            )  # fmt: skip

    @property
    def end(self) -> int:
        """The row behind its last one."""
        return self.row + self.places * self.rows

    @property
    def span(self) -> slice:
        """Its rows on the core."""
        return slice(self.row, self.end)

    def holds(self, low: int, high: int) -> bool:
        """Whether the rows from low to high lie in it; ProgramError if only some of them do."""
        if high < self.row or low >= self.end:
            return False
        if low < self.row or high >= self.end:
            raise ProgramError(
                f"rows {low} to {high} of core {self.core} pass an end of the ring of rows {self.row} to"
                f" {self.end - 1}",
                where="rings", remedy=RECOMPILE,
            )  # fmt: skip
        return True


def check_rings(rings: Iterable[Ring], rows: int, most: int, core: int) -> None:
    """Raises ProgramError unless the rings of a core lie in its `rows` rows, apart, and are no more than `most`."""
    own = sorted((ring for ring in rings if ring.core == core), key=lambda ring: ring.row)
    if len(own) > most:
        raise ProgramError(
            f"{len(own)} rings on core {core}, the machine has {most}", where="rings", remedy=RECOMPILE
        )
    end = 0
    for ring in own:
        if ring.row < end or ring.end > rows:
            fault = (
                "overlaps another" if ring.row < end else f"is longer than the store: {rows} rows are in use"
            )
            raise ProgramError(
                f"the ring of rows {ring.row} to {ring.end - 1} of core {core} {fault}",
                where="rings",
                remedy=RECOMPILE,
            )
        end = ring.end


def turn(stands: Sequence[NDArray[np.int64]], rings: Iterable[Ring]) -> None:
    """An inference of the model with these rings is over. stands[core][row]: where what a row address names is kept."""
    for ring in rings:
        rows = stands[ring.core][ring.span]
        rows[:] = np.roll(rows, -ring.advance * ring.rows)
