"""The builder of instructions: buffers and views, and the instructions that the selection of many ops needs.

It knows rows and cores, and no values of the graph: values.py says where those lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa
from ltc_compiler.ir.graph import Precision
from ltc_compiler.schedule.rows.contents import Contents, gather_entries, repeats
from ltc_compiler.schedule.rows.layout import (
    Axis,
    View,
    element_rows,
    fresh,
    iteration,
    leading,
    row_count,
)
from ltc_compiler.schedule.rows.virtual import Buffer, Op, Ref, Schedule

Floats = NDArray[np.float64]
UNROLL = 4  # longer repetitions become hardware loops where their addresses allow it
OPERAND_NAMES = ("a", "b", "c")


def precision_operand(precision: Precision) -> int:
    """The operand `precision` of an instruction whose results have this precision."""
    return int(precision is Precision.BF16)


class InstructionBuilder:
    """Appends the instructions of one model to its schedule. `cores`: where an op may be computed now."""

    def __init__(self, contents: Contents, cores: Sequence[int]) -> None:
        self.contents = contents
        self.config = contents.config
        self.block = contents.config.block_size
        self.schedule = Schedule()
        self.cores = tuple(cores)
        self.uniforms: dict[View, View] = {}  # of rows with a value in one lane: those with it in every lane

    @property
    def home(self) -> int:
        """The core that holds every value that is not sharded."""
        return self.cores[0]

    @contextmanager
    def on_cores(self, cores: tuple[int, ...]) -> Iterator[None]:
        """Build on these cores, as CorePartition asks; on those of the model if none are given."""
        before = self.cores
        self.cores = cores or before
        yield
        self.cores = before

    # ------------------------------------------------------------ buffers and views

    def rows(self, width: int) -> int:
        """Rows that `width` elements fill."""
        return row_count(width, self.block)

    def new(self, shape: tuple[int, ...], core: int | None = None, uniform: bool = False) -> View:
        """A canonical view of a new temporary, on the home core unless told otherwise."""
        view = fresh(Ref(Buffer(0, self.home if core is None else core)), shape, self.block, uniform)
        view.ref.buffer.rows = view.total_rows
        return view

    def constant(self, array: Floats, core: int | None = None, original: Floats | None = None) -> View:
        """The rows of a constant, on the home core unless told otherwise; see Contents.constant."""
        return self.contents.constant(array, self.home if core is None else core, original)

    # ------------------------------------------------------------ repetition

    def emit(self, name: str, core: int, **operands: int | Ref) -> Op:
        """Append an instruction; see Schedule.emit."""
        return self.schedule.emit(name, core, **operands)

    def repeat(self, axes: Sequence[Axis], refs: Sequence[Ref]) -> Iterator[list[Ref]]:
        """The references in every iteration of nested loops: hardware loops where possible, else unrolled."""
        if not axes:
            yield list(refs)
            return
        (count, steps), rest = axes[0], axes[1:]
        moved = list(zip(refs, steps, strict=True))
        free = all(ref.level == 0 for ref, step in moved if step)
        if count > UNROLL and free and self.schedule.depth < isa.MAX_LOOP_DEPTH:
            level = self.schedule.begin_loop(count)
            body = [replace(ref, stride=step, level=level) if step else ref for ref, step in moved]
            yield from self.repeat(rest, body)
            self.schedule.end_loop()
            return
        for k in range(count):
            yield from self.repeat(rest, [ref.at(k * step) for ref, step in moved])

    def grid(self, name: str, views: Sequence[View], shape: tuple[int, ...], **extra: int) -> None:
        """A row-by-row instruction over all rows of `shape`; views[0] is the destination."""
        axes = iteration(views, shape)
        outer, last = axes[:-2], axes[-2:]
        if len(last) == 1:
            last = [(1, tuple(0 for _ in views)), *last]
        (n_outer, outer_steps), (n_inner, inner_steps) = last
        for refs in self.repeat(outer, [v.ref for v in views]):
            operands: dict[str, int | Ref] = {"n_outer": n_outer, "n_inner": n_inner, **extra}
            names = ("dst", *OPERAND_NAMES)
            for field, ref, o, i in zip(names, refs, outer_steps, inner_steps, strict=False):
                operands |= {field: ref, f"{field}_outer": o, f"{field}_inner": i}
            self.emit(name, views[0].ref.buffer.core, **operands)

    # ------------------------------------------------------------ arithmetic, row by row

    def elementwise(
        self,
        name: str,
        views: Sequence[View],
        shape: tuple[int, ...],
        precision: Precision,
        dst: View | None = None,
    ) -> View:
        """dst = f(views), broadcast by NumPy's rule; a new view where `dst` is not given."""
        views = [self.beside(v, shape) for v in views]
        width = shape[-1] if shape else 1
        if dst is None:
            uniform = width == 1 and all(v.uniform for v in views)
            dst = self.new(shape, views[0].ref.buffer.core, uniform)
        self.grid(name, [dst, *views], shape, precision=precision_operand(precision))
        return dst

    def ltc_update(self, views: Sequence[View], shape: tuple[int, ...]) -> View:
        """One unfold of an LTC state by rule 12; views in the order of the op's operands."""
        views = [self.beside(v, shape) for v in views]
        dst = self.new(shape, views[0].ref.buffer.core)
        (*outer, (n, steps)) = iteration([dst, *views], shape)
        names = ("dst", "v", "num", "den", "leak", "conductance", "cm", "h")
        for refs in self.repeat(outer, [v.ref for v in (dst, *views)]):
            rows: dict[str, int | Ref] = dict(zip(names, refs, strict=True))
            moves = {f"{name}_step": step for name, step in zip(names, steps, strict=True)}
            self.emit("ltc_update", dst.ref.buffer.core, n=n, **rows, **moves)
        return dst

    def beside(self, view: View, shape: tuple[int, ...]) -> View:
        """A view whose rows can be read beside those of `shape`: a last axis of 1 stands in every lane."""
        return view if view.width != 1 or not shape or shape[-1] == 1 else self.uniform(view)

    def uniform(self, view: View) -> View:
        """The same values of a last axis of 1, in every lane of their rows."""
        assert view.width == 1
        if view.uniform:
            return view
        if view not in self.uniforms:
            dst = self.new(view.shape, view.ref.buffer.core, uniform=True)
            self.grid("splat", [dst, view], view.shape, precision=0, lane=0)
            self.uniforms[view] = dst
        return self.uniforms[view]

    # ------------------------------------------------------------ movement

    def copy(self, view: View, dst: View) -> None:
        """Move a view's rows into another view of the same shape, which may want uniform rows."""
        if dst.uniform and not view.uniform:
            self.grid("splat", [dst, view], dst.shape, precision=0, lane=0)
        else:
            self.grid("move", [dst, view], dst.shape, precision=0)

    def dense(self, view: View) -> View:
        """The view itself if its rows follow each other, else a copy whose rows do."""
        if view.contiguous:
            return view
        dst = self.new(view.shape, view.ref.buffer.core, view.uniform)
        self.copy(view, dst)
        return dst

    def vectors(self, view: View) -> View:
        """A view whose innermost vectors fill consecutive rows (leading axes may have any step)."""
        return view if view.block_step == 1 or view.rows == 1 else self.dense(view)

    def gather(self, view: View, shape: tuple[int, ...], index: NDArray[np.int64]) -> View:
        """A new tensor whose element e is element index[e] (flat) of `view`; a last axis of 1 fills every lane."""
        dst = self.new(shape, view.ref.buffer.core, uniform=not shape or shape[-1] == 1)
        to_row, to_lane = (a.ravel() for a in element_rows(replace(dst, uniform=False)))
        rows, lanes = (a.ravel()[index.ravel()] for a in element_rows(view))
        if dst.uniform:
            every = np.arange(self.block)
            to_row, rows, lanes = (np.repeat(a, self.block) for a in (to_row, rows, lanes))
            to_lane = np.tile(every, len(to_row) // self.block)
        self.emit_gather(dst, view, gather_entries(to_row, (to_lane, lanes), rows, True, self.block))
        return dst

    def emit_gather(self, dst: View, view: View, entries: tuple[NDArray[Any], ...]) -> None:
        """Instructions for planned entries: source row, destination row, clear, lanes; rows count from the views.

        Entries that repeat further on in the tensor are stored once.
        """
        entries, pieces = repeats(entries)
        core = view.ref.buffer.core
        address = self.contents.stores[core].entries.add(*entries)
        for n, src_step, dst_step in pieces:
            self.emit(
                "gather",
                core,
                dst=dst.ref.at(dst_step),
                dst_rows=int(entries[1][:n].max()) + 1,
                src=view.ref.at(src_step),
                src_rows=int(entries[0][:n].max()) + 1,
                entries=address,
                count=n,
            )

    def send(self, view: View, targets: Sequence[View]) -> None:
        """Copy a view's rows into views of the same shape on other cores."""
        if not targets:
            return
        view = self.vectors(view)
        views = [view, *targets]
        whole = all(v.contiguous for v in views)
        axes = [] if whole else leading(views)
        for source, *places in self.repeat(axes, [v.ref for v in views]):
            self._transfer(source, places, view.total_rows if whole else view.rows)

    def _transfer(self, src: Ref, places: Sequence[Ref], rows: int) -> None:
        """Send consecutive rows of a core to others, in pieces that fit the link FIFOs."""
        mask = sum(1 << ref.buffer.core for ref in places)
        for start in range(0, rows, self.config.link_fifo_rows):
            n = min(self.config.link_fifo_rows, rows - start)
            self.emit("send", src.buffer.core, src=src.at(start), rows=n, targets=mask)
            for ref in places:
                self.emit("receive", ref.buffer.core, dst=ref.at(start), rows=n, source=src.buffer.core)
