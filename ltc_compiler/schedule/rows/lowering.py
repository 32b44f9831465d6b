"""The workshop of instruction selection: where values lie, and the instructions that many ops need.

`Lowering` owns the growing schedule, the stores of every core and the view of every value. Values live on core 0;
what another core needs is sent there. The rules for single ops are in select.py, move.py, scan.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa, numerics
from ltc_compiler.config import Config
from ltc_compiler.errors import UnsupportedError
from ltc_compiler.ir.graph import Node, Precision, Value
from ltc_compiler.schedule.rows.contents import CoreStores, Digests, Group, gather_entries, repeats
from ltc_compiler.schedule.rows.layout import Axis, View, element_rows, fresh, iteration, pack, row_count
from ltc_compiler.schedule.rows.resident import Resident
from ltc_compiler.schedule.rows.virtual import Buffer, Kind, Ref, Schedule
from ltc_compiler.schedule.spread.share import Makers

if TYPE_CHECKING:
    from ltc_compiler.schedule.rows.shards import Sharded
    from ltc_compiler.schedule.select.windows import Window

Floats = NDArray[np.float64]
UNROLL = 4  # longer repetitions become hardware loops where their addresses allow it
OPERAND_NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class Spread:
    """How a model is spread over the machine: over the first `cores` of its cores (0: all of them), in bands of `grain`
    rows a core (partition.py), with products of the state lent to its other cores (share.py). rotate: the cores take
    turns at the rows that are left over."""

    cores: int = 0
    grain: int = 0
    lending: bool = False
    rotate: bool = False


class Lowering:
    """State of one compilation. `env` maps an NNIR value to its view on its home core."""

    def __init__(self, config: Config, digests: Digests | None = None) -> None:
        self.config = config
        self.digests = digests or Digests()
        self.block = config.block_size
        self.stores = [CoreStores() for _ in range(config.cores)]
        self.slots: dict[bytes, Group] = {}  # synapse slots by their parameters and rows of targets
        self.constants: dict[tuple[bytes, tuple[int, ...], int], View] = {}
        self.begin_model((0,), Spread())

    def begin_model(self, cores: Sequence[int], spread: Spread) -> None:
        """Start another model on some of the cores: a schedule of its own, on the same stores and constants."""
        self.all_cores = tuple(cores)
        self.cores = self.all_cores[: spread.cores or None]
        self.grain, self.lending, self.rotate = spread.grain, spread.lending, spread.rotate
        self.home = self.cores[0]  # the core that holds every value that is not spread
        self.schedule = Schedule()
        self.env: dict[Value, View] = {}
        self.shards: dict[Value, Sharded] = {}
        self.cuts: dict[Value, tuple[tuple[int, int], ...]] = {}
        self.pieces: dict[Value, dict[tuple[int, int], View | Sharded]] = {}
        self.clipped: dict[Value, Value] = {}  # products that end in a relu
        self.windows: dict[Value, Window] = {}  # what only products read, from several places
        self.resident = Resident()
        # The rows of a matrix product in a band, on a core; and where the rows of some of them are computed.
        self.products: dict[tuple[Value, int, int], View] = {}
        self.makers: Makers = {}
        self.rotations: dict[Value, int] = {}
        # What was made of a value since the loop around it began: on another core, a part there, in every lane.
        self.copies: dict[tuple[Value, int], View] = {}
        self.scattered: dict[tuple[Value, int, int, int], View] = {}
        self.uniforms: dict[View, View] = {}

    @contextmanager
    def placed(self, cores: tuple[int, ...]) -> Iterator[None]:
        """Select on these cores, the home first, as CorePartition asks; on those of the model if none are given."""
        before = self.cores, self.home
        if cores:
            self.cores, self.home = cores, cores[0]
        yield
        self.cores, self.home = before

    # ------------------------------------------------------------ buffers and views

    def rows(self, width: int) -> int:
        return row_count(width, self.block)

    def new(self, shape: tuple[int, ...], core: int | None = None, uniform: bool = False) -> View:
        """A canonical view of a new temporary, on the home core unless told otherwise."""
        view = fresh(Ref(Buffer(0, self.home if core is None else core)), shape, self.block, uniform)
        view.ref.buffer.rows = view.total_rows
        return view

    def constant(self, array: Floats, core: int | None = None, original: Floats | None = None) -> View:
        """The rows of a constant, stored once a core. A last axis of 1 fills every lane. original: the array before it
        was rounded to bf16, which the plain fp32 machine holds instead."""
        core = self.home if core is None else core
        data = pack(array, self.block)
        exact = data if original is None else pack(original, self.block)
        key = (data.tobytes() + exact.tobytes(), array.shape, core)
        if key not in self.constants:
            buffer = Buffer(len(data), core, Kind.CONSTANT, data, original=exact)
            uniform = array.ndim == 0 or array.shape[-1] == 1
            self.constants[key] = fresh(Ref(buffer), array.shape, self.block, uniform)
        return self.constants[key]

    def constant_rows(self, value: Value, core: int | None = None, lanes: slice = slice(None)) -> View | None:
        """The rows of some lanes of a value that is a constant, in its precision; None for other values."""
        array = value.constant()
        if array is None:
            return None
        part = array[..., lanes] if array.ndim else array
        if value.type.precision is not Precision.BF16:
            return self.constant(part, core)
        return self.constant(numerics.fold_bf16(part).astype(np.float64), core, part)

    def view(self, value: Value) -> View:
        """Where a value lies on the home core; constants are placed when first read, parts collected."""
        found = self.env.get(value)
        if found is not None and found.ref.buffer.core == self.home:
            return found
        from ltc_compiler.schedule.rows.shards import everywhere

        view = self.constant_rows(value) or everywhere(self, value, [self.home])[self.home]
        return self.env.setdefault(value, view) if found is None else view

    def place(self, value: Value, where: View | Sharded) -> None:
        """Record where an op left its result."""
        assert where.shape == value.shape, f"%{value.name} has shape {value.shape} and lies as {where.shape}"
        if isinstance(where, View):
            self.env[value] = where
        else:
            self.shards[value] = where

    def caches(self) -> tuple[dict[Any, View], ...]:
        """What a loop's body adds to these is of no use behind the loop."""
        return dict(self.copies), dict(self.scattered), dict(self.uniforms)

    def restore(self, caches: tuple[dict[Any, View], ...]) -> None:
        """Forget what the body added."""
        self.copies, self.scattered, self.uniforms = caches

    # ------------------------------------------------------------ repetition

    def repeat(self, axes: Sequence[Axis], refs: Sequence[Ref]) -> Iterator[list[Ref]]:
        """The references in every turn of nested repetitions: hardware loops where possible, else unrolled."""
        if not axes:
            yield list(refs)
            return
        (count, steps), rest = axes[0], axes[1:]
        moved = list(zip(refs, steps, strict=True))
        free = all(ref.level == 0 for ref, step in moved if step)
        if count > UNROLL and free and self.schedule.depth < isa.MAX_LOOP_DEPTH:
            level = self.schedule.begin_loop(count)
            turn = [replace(ref, stride=step, level=level) if step else ref for ref, step in moved]
            yield from self.repeat(rest, turn)
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
            self.schedule.emit(name, views[0].ref.buffer.core, **operands)

    # ------------------------------------------------------------ pieces that many ops need

    def elementwise(
        self,
        name: str,
        views: Sequence[View],
        shape: tuple[int, ...],
        precision: Precision,
        dst: View | None = None,
    ) -> View:
        """dst = f(views), broadcast by NumPy's rule; a new view where `dst` is not given."""
        views = [self.spread(v, shape) for v in views]
        width = shape[-1] if shape else 1
        if dst is None:
            uniform = width == 1 and all(v.uniform for v in views)
            dst = self.new(shape, views[0].ref.buffer.core, uniform)
        self.grid(name, [dst, *views], shape, precision=int(precision is Precision.BF16))
        return dst

    def ltc_update(self, views: Sequence[View], shape: tuple[int, ...]) -> View:
        """One unfold of an LTC state by rule 12; views in the order of the op's operands."""
        views = [self.spread(v, shape) for v in views]
        dst = self.new(shape, views[0].ref.buffer.core)
        (*outer, (n, steps)) = iteration([dst, *views], shape)
        names = ("dst", "v", "num", "den", "leak", "conductance", "cm", "h")
        for refs in self.repeat(outer, [v.ref for v in (dst, *views)]):
            rows: dict[str, int | Ref] = dict(zip(names, refs, strict=True))
            moves = {f"{name}_step": step for name, step in zip(names, steps, strict=True)}
            self.schedule.emit("ltc_update", dst.ref.buffer.core, n=n, **rows, **moves)
        return dst

    def spread(self, view: View, shape: tuple[int, ...]) -> View:
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
        self.gather_into(dst, view, index, clear=True)
        return dst

    def gather_into(self, dst: View, view: View, index: NDArray[np.int64], clear: bool) -> None:
        """As `gather`, into an existing view; without `clear` the lanes that are not named keep their values."""
        to_row, to_lane = (a.ravel() for a in element_rows(replace(dst, uniform=False)))
        rows, lanes = (a.ravel()[index.ravel()] for a in element_rows(view))
        if dst.uniform:
            every = np.arange(self.block)
            to_row, rows, lanes = (np.repeat(a, self.block) for a in (to_row, rows, lanes))
            to_lane = np.tile(every, len(to_row) // self.block)
        self.emit_gather(dst, view, gather_entries(to_row, (to_lane, lanes), rows, clear, self.block))

    def emit_gather(
        self, dst: View, view: View, entries: tuple[NDArray[Any], ...], count: int | None = None
    ) -> None:
        """Instructions for planned entries: source row, destination row, clear, lanes; rows count from the views.

        Entries that repeat further on in the tensor are stored once. `count`: only the first so many are walked.
        """
        entries, turns = repeats(entries) if count is None else (entries, [(count, 0, 0)])
        core = view.ref.buffer.core
        address = self.stores[core].entries.add(*entries)
        for n, src_step, dst_step in turns:
            self.schedule.emit(
                "gather",
                core,
                dst=dst.ref.at(dst_step),
                dst_rows=int(entries[1][:n].max()) + 1,
                src=view.ref.at(src_step),
                src_rows=int(entries[0][:n].max()) + 1,
                entries=address,
                count=n,
            )

    def transfer(self, src: Ref, places: Sequence[Ref], rows: int) -> None:
        """Send consecutive rows of a core to others, in pieces that fit the link FIFOs."""
        mask = sum(1 << ref.buffer.core for ref in places)
        for start in range(0, rows, self.config.link_fifo_rows):
            n = min(self.config.link_fifo_rows, rows - start)
            self.schedule.emit("send", src.buffer.core, src=src.at(start), rows=n, targets=mask)
            for ref in places:
                core = ref.buffer.core
                self.schedule.emit("receive", core, dst=ref.at(start), rows=n, source=src.buffer.core)

    def parameters(self, node: Node, first: int, end: int | None = None) -> list[NDArray[np.float64]]:
        """The operands from `first` on, to below `end`, which must be constants."""
        arrays = [v.constant() for v in node.operands[first:end]]
        if any(a is None for a in arrays):
            raise self.refuse(
                f"{node.op} takes constant parameters and one of them depends on an input",
                "make the weights parameters or buffers of the module",
            )
        return [a for a in arrays if a is not None]

    def refuse(self, what: str, rewrite: str) -> UnsupportedError:
        """The error for something that the machine cannot do, at the user's current place."""
        return UnsupportedError.single(what, where=self.schedule.source, rewrite=rewrite)
