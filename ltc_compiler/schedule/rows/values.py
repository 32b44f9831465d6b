"""Where the values of a graph lie while its instructions are selected, and how one gets to the cores that need it.

A value lies whole on its home core, or sharded: each core holds whole rows of the last axis, where a matrix product
left them. Row-by-row ops stay where their operands are. A value that every core needs whole is sent by each owner to
all the others at once; the home core collects a value only if something there reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ltc_compiler import numerics
from ltc_compiler.ir.graph import Node, Precision, Value
from ltc_compiler.schedule.rows.build import InstructionBuilder
from ltc_compiler.schedule.rows.layout import View
from ltc_compiler.schedule.rows.places import Location, RowRange, Sharded, part_of
from ltc_compiler.schedule.rows.resident import Resident


class Values:
    """The places of values: `whole` on the home core, or `sharded`, or both."""

    def __init__(self, build: InstructionBuilder) -> None:
        self._build = build
        self.whole: dict[Value, View] = {}
        self.sharded: dict[Value, Sharded] = {}
        self.resident = Resident()
        # What was made of a value since the loop around it began: a copy on another core, a part there.
        self._copies: dict[tuple[Value, int], View] = {}
        self._scattered: dict[tuple[Value, int, int, int], View] = {}

    def place(self, value: Value, where: Location) -> None:
        """Record where an op left its result."""
        assert where.shape == value.shape, f"%{value.name} has shape {value.shape} and lies as {where.shape}"
        if isinstance(where, View):
            self.whole[value] = where
        else:
            self.sharded[value] = where

    @contextmanager
    def loop_body(self) -> Iterator[None]:
        """For the body of a loop: its copies on other cores, or in all lanes, are not used after the loop."""
        kept = dict(self._copies), dict(self._scattered), dict(self._build.uniforms)
        yield
        self._copies, self._scattered, self._build.uniforms = kept

    # ------------------------------------------------------------ reading

    def view(self, value: Value) -> View:
        """Where a value lies on the home core; constants are placed when first read, parts collected."""
        home = self._build.home
        found = self.whole.get(value)
        if found is not None and found.ref.buffer.core == home:
            return found
        view = self.constant_rows(value) or self.everywhere(value, [home])[home]
        return self.whole.setdefault(value, view) if found is None else view

    def constant_rows(self, value: Value, core: int | None = None, lanes: slice = slice(None)) -> View | None:
        """The rows of some lanes of a value that is a constant, in its precision; None for other values."""
        array = value.constant()
        if array is None:
            return None
        part = array[..., lanes] if array.ndim else array
        if value.type.precision is not Precision.BF16:
            return self._build.constant(part, core)
        return self._build.constant(numerics.fold_bf16(part).astype(np.float64), core, part)

    def common_partition(self, node: Node) -> tuple[RowRange, ...] | None:
        """The partition of a row-by-row op's result: that of its sharded operands of the same shape, if they agree."""
        shape = node.results[0].shape
        operands = (self.sharded.get(v) for v in node.operands)
        found = {s.partition for s in operands if s is not None and s.shape == shape}
        return found.pop() if len(found) == 1 else None

    def operand_part(self, value: Value, rows: RowRange, shape: tuple[int, ...]) -> View:
        """What a core needs of an operand to compute its rows of a result of the given shape."""
        core, start, stop = rows
        sharded = self.sharded.get(value)
        if sharded is not None and sharded.shape == shape:
            for p in sharded.parts:
                if (p.core, p.start, p.stop) == rows:
                    return p.view
        width = value.shape[-1] if value.shape else 1
        block = self._build.block
        constant = self.constant_rows(
            value, core, slice(None) if width == 1 else slice(start * block, stop * block)
        )
        if constant is not None:
            return constant
        if width == 1:
            return self.everywhere(value, [core])[core]
        part = part_of(self.view(value), start, stop)
        if core == self._build.home:
            return part
        key = (value, *rows)
        if key not in self._scattered:
            self._scattered[key] = self._build.new(part.shape, core)
            self._build.send(part, [self._scattered[key]])
        return self._scattered[key]

    def everywhere(self, value: Value, cores: Sequence[int]) -> dict[int, View]:
        """The whole value on each of the cores; it travels once to those that lack it.

        A last axis of 1 fills every lane of its copies."""
        constants = {core: self.constant_rows(value, core) for core in cores}
        if value.is_constant:
            return {core: view for core, view in constants.items() if view is not None}
        found = {c: self._copies[value, c] for c in cores if (value, c) in self._copies}
        own = self.whole.get(value)
        if own is not None and own.ref.buffer.core in cores:
            found[own.ref.buffer.core] = own
        missing = [c for c in cores if c not in found]
        if missing and value in self.sharded:
            found |= self._gathered(self.sharded[value], missing)
            if self._build.home in missing and own is None:
                own = self.whole[value] = found[self._build.home]
        elif missing:
            assert own is not None, f"%{value.name} is read before it is made"
            found |= self._copied(own, missing)
        self._copies |= {(value, c): v for c, v in found.items() if v is not own}
        return found

    def _copied(self, view: View, cores: Sequence[int]) -> dict[int, View]:
        """A view on other cores: of rows that they hold by themselves, or of a copy that is sent to them."""
        build = self._build
        found = {}
        for core in cores:
            own = self.resident.view(build, view, core)
            if own is not None:
                found[core] = build.uniform(own) if own.width == 1 else own
        rest = [c for c in cores if c not in found]
        if rest:
            view = build.dense(build.uniform(view) if view.width == 1 else view)
            sent = {c: build.new(view.shape, c, view.uniform) for c in rest}
            build.send(view, list(sent.values()))
            found |= sent
        return found

    def _gathered(self, sharded: Sharded, targets: Sequence[int]) -> dict[int, View]:
        """The whole value on each target: every owner sends its rows to all of them at once."""
        whole = {c: self._build.new(sharded.shape, c) for c in targets}
        for part in sharded.parts:
            places = {c: part_of(view, part.start, part.stop) for c, view in whole.items()}
            self._build.send(part.view, [v for c, v in places.items() if c != part.core])
            if part.core in places:
                self._build.copy(part.view, places[part.core])
        return whole
