"""Values spread over the cores: each core holds whole rows of the last axis, where a matrix product left them.

Row-by-row ops stay where their operands are. A value that every core needs whole is sent by each owner to all the
others at once; the home core collects a value only if something there reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ltc_compiler.ir.graph import Node, Value
from ltc_compiler.schedule.rows.layout import View, leading
from ltc_compiler.schedule.rows.lowering import Lowering

Rows = tuple[int, int, int]  # core, first row of the last axis, end


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
    def partition(self) -> tuple[Rows, ...]:
        return tuple((p.core, p.start, p.stop) for p in self.parts)


Place = View | Sharded


def placed(low: Lowering, parts: Sequence[Part], shape: tuple[int, ...]) -> Place:
    """What the parts make up together: a plain view if one part on the home core is the whole."""
    return parts[0].view if len(parts) == 1 and parts[0].core == low.home else Sharded(shape, tuple(parts))


def part_shape(shape: tuple[int, ...], start: int, stop: int, block: int) -> tuple[int, ...]:
    """The shape of rows [start, stop) of the last axis."""
    return (*shape[:-1], min(stop * block, shape[-1]) - start * block)


def part_of(view: View, start: int, stop: int) -> View:
    """Rows [start, stop) of the last axis of a view."""
    shape = part_shape(view.shape, start, stop, view.block)
    return replace(view, ref=view.ref.at(start * view.block_step), shape=shape)


def common_partition(low: Lowering, node: Node) -> tuple[Rows, ...] | None:
    """How the result of a row-by-row op is spread: as its sharded operands of the same shape are, if they agree."""
    shape = node.results[0].shape
    found = {s.partition for v in node.operands if (s := low.shards.get(v)) is not None and s.shape == shape}
    return found.pop() if len(found) == 1 else None


def operand_part(low: Lowering, value: Value, rows: Rows, shape: tuple[int, ...]) -> View:
    """What a core needs of an operand to compute its rows of a result of the given shape."""
    core, start, stop = rows
    sharded = low.shards.get(value)
    if sharded is not None and sharded.shape == shape:
        for p in sharded.parts:
            if (p.core, p.start, p.stop) == rows:
                return p.view
    width = value.shape[-1] if value.shape else 1
    lanes = slice(None) if width == 1 else slice(start * low.block, stop * low.block)
    constant = low.constant_rows(value, core, lanes)
    if constant is not None:
        return constant
    if width == 1:
        return everywhere(low, value, [core])[core]
    part = part_of(low.view(value), start, stop)
    if core == low.home:
        return part
    key = (value, *rows)
    if key not in low.scattered:
        low.scattered[key] = low.new(part.shape, core)
        send(low, part, [low.scattered[key]])
    return low.scattered[key]


def everywhere(low: Lowering, value: Value, cores: Sequence[int]) -> dict[int, View]:
    """The whole value on each of the cores; it travels once to those that lack it.

    A last axis of 1 fills every lane of its copies."""
    constants = {core: low.constant_rows(value, core) for core in cores}
    if value.constant() is not None:
        return {core: view for core, view in constants.items() if view is not None}
    found = {c: low.copies[value, c] for c in cores if (value, c) in low.copies}
    own = low.env.get(value)
    if own is not None and own.ref.buffer.core in cores:
        found[own.ref.buffer.core] = own
    missing = [c for c in cores if c not in found]
    if missing and value in low.shards:
        found |= gather_parts(low, low.shards[value], missing)
        if low.home in missing and own is None:
            own = low.env[value] = found[low.home]
    elif missing:
        assert own is not None, f"%{value.name} is read before it is made"
        found |= _copies(low, own, missing)
    low.copies |= {(value, c): v for c, v in found.items() if v is not own}
    return found


def _copies(low: Lowering, view: View, cores: Sequence[int]) -> dict[int, View]:
    """A view on other cores: of rows that they hold by themselves, or of a copy that is sent to them."""
    found = {}
    for core in cores:
        own = low.resident.view(low, view, core)
        if own is not None:
            found[core] = low.uniform(own) if own.width == 1 else own
    rest = [c for c in cores if c not in found]
    if rest:
        view = low.dense(low.uniform(view) if view.width == 1 else view)
        sent = {c: low.new(view.shape, c, view.uniform) for c in rest}
        send(low, view, list(sent.values()))
        found |= sent
    return found


def gather_parts(low: Lowering, sharded: Sharded, targets: Sequence[int]) -> dict[int, View]:
    """The whole value on each target: every owner sends its rows to all of them at once."""
    whole = {c: low.new(sharded.shape, c) for c in targets}
    for part in sharded.parts:
        places = {c: part_of(view, part.start, part.stop) for c, view in whole.items()}
        send(low, part.view, [v for c, v in places.items() if c != part.core])
        if part.core in places:
            low.grid("move", [places[part.core], part.view], part.view.shape, precision=0)
    return whole


def send(low: Lowering, view: View, targets: Sequence[View]) -> None:
    """Copy a view's rows into views of the same shape on other cores."""
    if not targets:
        return
    view = low.vectors(view)
    views = [view, *targets]
    axes = leading(views)
    whole = all(v.contiguous for v in views)
    if whole:
        axes = []
    for source, *places in low.repeat(axes, [v.ref for v in views]):
        low.transfer(source, places, view.total_rows if whole else view.rows)
