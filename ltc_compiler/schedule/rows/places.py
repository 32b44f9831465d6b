"""Where a value lies: whole on one core, or in parts on several, each of whole rows of the last axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ltc_compiler.schedule.rows.layout import View

RowRange = tuple[int, int, int]  # core, first row of the last axis, end


@dataclass(frozen=True)
class Part:
    """Rows [start, stop) of the last axis, on one core."""

    core: int
    start: int
    stop: int
    view: View


@dataclass(frozen=True)
class Sharded:
    """A value in parts, in order of rows; together they are the whole of it."""

    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def partition(self) -> tuple[RowRange, ...]:
        return tuple((p.core, p.start, p.stop) for p in self.parts)


Location = View | Sharded


def joined(parts: Sequence[Part], shape: tuple[int, ...], home: int) -> Location:
    """What the parts make up together: a plain view if one part on the home core is the whole."""
    return parts[0].view if len(parts) == 1 and parts[0].core == home else Sharded(shape, tuple(parts))


def part_shape(shape: tuple[int, ...], start: int, stop: int, block: int) -> tuple[int, ...]:
    """The shape of rows [start, stop) of the last axis."""
    return (*shape[:-1], min(stop * block, shape[-1]) - start * block)


def part_of(view: View, start: int, stop: int) -> View:
    """Rows [start, stop) of the last axis of a view."""
    shape = part_shape(view.shape, start, stop, view.block)
    return replace(view, ref=view.ref.at(start * view.block_step), shape=shape)
