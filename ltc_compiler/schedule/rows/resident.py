"""Rows that several cores hold by themselves: what the host offers to all of them, and states that each keeps.

An input row is offered to every core at once, so a core that needs it takes it, instead of waiting for the home core
to pass it on. A state that other cores read whole lives on them too: its new value goes there when it is computed, and
the next inference starts without an exchange.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ltc_compiler.schedule.rows.layout import View
from ltc_compiler.schedule.rows.virtual import Buffer, Kind, Ref

if TYPE_CHECKING:
    from ltc_compiler.schedule.rows.lowering import Lowering


@dataclass
class Resident:
    """The buffers of the home core that other cores can have by themselves, and those that they have."""

    ports: dict[Buffer, tuple[int, str]] = field(
        default_factory=dict
    )  # of inputs: port, place for the report
    copies: dict[tuple[Buffer, int], Buffer] = field(
        default_factory=dict
    )  # by buffer of the home core, and core

    def cores(self, buffer: Buffer) -> list[int]:
        """The cores that hold a copy, in order."""
        return sorted(core for original, core in self.copies if original is buffer)

    def view(self, low: Lowering, view: View, core: int) -> View | None:
        """The view's rows on another core; None where it has to be sent them."""
        buffer = view.ref.buffer
        if (buffer, core) not in self.copies:
            if buffer.kind is Kind.STATE:
                self.copies[buffer, core] = Buffer(
                    buffer.rows, core, Kind.STATE, buffer.data, original=buffer.original
                )
            elif buffer in self.ports and not low.schedule.depth:
                self.copies[buffer, core] = self._take(low, buffer, core)
            else:
                return None
        return replace(view, ref=replace(view.ref, buffer=self.copies[buffer, core]))

    def _take(self, low: Lowering, buffer: Buffer, core: int) -> Buffer:
        """An input, from the host."""
        port, place = self.ports[buffer]
        copy = Buffer(buffer.rows, core)
        before = low.schedule.source, low.schedule.operation
        low.schedule.source, low.schedule.operation = place, "input"
        low.schedule.emit("input", core, dst=Ref(copy), rows=buffer.rows, port=port, first=0)
        low.schedule.source, low.schedule.operation = before
        return copy
