"""Rows of the home core that other cores have without a transfer: inputs, which the host offers to all, and states.

A core that needs an input row takes it from the host. A state that another core reads whole has a copy there: its new
value is written to both, so that the next inference starts without an exchange.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ltc_compiler.schedule.rows.build import InstructionBuilder
from ltc_compiler.schedule.rows.layout import View
from ltc_compiler.schedule.rows.virtual import Buffer, Kind, Ref


@dataclass
class Resident:
    """ports: of an input's buffer on the home core, its port and its place for the report. copies: by buffer of the
    home core, and other core."""

    ports: dict[Buffer, tuple[int, str]] = field(default_factory=dict)
    copies: dict[tuple[Buffer, int], Buffer] = field(default_factory=dict)

    def cores(self, buffer: Buffer) -> list[int]:
        """The cores that hold a copy, in order."""
        return sorted(core for original, core in self.copies if original is buffer)

    def view(self, build: InstructionBuilder, view: View, core: int) -> View | None:
        """The view's rows on another core; None where they have to be sent."""
        buffer = view.ref.buffer
        if (buffer, core) not in self.copies:
            if buffer.kind is Kind.STATE:
                self.copies[buffer, core] = replace(buffer, core=core)
            elif buffer in self.ports and not build.schedule.depth:
                self.copies[buffer, core] = self._take(build, buffer, core)
            else:
                return None
        return replace(view, ref=replace(view.ref, buffer=self.copies[buffer, core]))

    def _take(self, build: InstructionBuilder, buffer: Buffer, core: int) -> Buffer:
        """An input, from the host."""
        port, place = self.ports[buffer]
        copy = Buffer(buffer.rows, core)
        with build.schedule.working_on(place, "input"):
            build.emit("input", core, dst=Ref(copy), rows=buffer.rows, port=port, first=0)
        return copy
