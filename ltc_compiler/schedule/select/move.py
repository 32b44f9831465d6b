"""Selection for the ops that only move elements: views where the layout allows it, else moves of rows, else transposed
tiles, else a gather.

A gather is planned from the flat index of every element, so that one rule serves every shape and axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np

from ltc_compiler.ir.graph import Node, Value
from ltc_compiler.schedule.rows.build import InstructionBuilder
from ltc_compiler.schedule.rows.contents import gather_entries
from ltc_compiler.schedule.rows.layout import View, canonical_steps, element_rows, merge
from ltc_compiler.schedule.rows.places import Location
from ltc_compiler.schedule.rows.virtual import Ref
from ltc_compiler.schedule.select.lowering import Lowering
from ltc_compiler.schedule.select.plan import is_gap


def _flat(view: View) -> np.ndarray:
    return np.arange(int(np.prod(view.shape, dtype=np.int64))).reshape(view.shape)


def drop_axis(view: View, axis: int, index: int = 0) -> View:
    """The view at one index of an axis that is not the last: a row offset."""
    shape = view.shape[:axis] + view.shape[axis + 1 :]
    steps = view.steps[:axis] + view.steps[axis + 1 :]
    return replace(view, ref=view.ref.at(index * view.steps[axis]), shape=shape, steps=steps)


def reshape(build: InstructionBuilder, view: View, shape: tuple[int, ...]) -> View:
    """The same elements in row-major order."""
    steps = _reshaped_steps(view, shape)
    if steps is not None:
        return replace(view, shape=shape, steps=steps)
    return build.gather(view, shape, np.arange(int(np.prod(shape, dtype=np.int64))))


def _reshaped_steps(view: View, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Row steps of the reshaped view, or None where elements must change lanes."""
    width = shape[-1] if shape else 1
    whole_rows = view.block_step == 1 and view.width % view.block == 0 and width % view.block == 0
    if width != view.width and not whole_rows:
        return None
    rows = -(-width // view.block)
    if view.contiguous and (view.block_step == 1 or view.rows == 1):
        return canonical_steps(shape[:-1], rows)
    if width != view.width:
        return None
    return _regroup(view.dims, view.steps, shape[:-1])


def _regroup(dims: tuple[int, ...], steps: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...] | None:
    """Steps for leading axes that differ from the old ones by axes of size 1 alone; None for anything else."""
    kept = [(d, s) for d, s in zip(dims, steps, strict=True) if d != 1]
    if [d for d, _ in kept] != [d for d in new if d != 1]:
        return None
    remaining = iter(kept)
    return tuple(0 if d == 1 else next(remaining)[1] for d in new)


def permute(build: InstructionBuilder, view: View, dims: tuple[int, ...]) -> View:
    """Result axis i is operand axis dims[i]."""
    if not dims:
        return view
    shape = tuple(view.shape[d] for d in dims)
    if dims[-1] == len(dims) - 1 or view.width == shape[-1] == 1:
        steps = (*view.steps, 0)  # a last axis that leaves its place has one element
        return replace(view, shape=shape, steps=tuple(steps[d] for d in dims[:-1]))
    others = [d for d in dims[:-1] if d != len(dims) - 1]
    if min(view.width, shape[-1]) == 1 or view.uniform:
        return build.gather(view, shape, _flat(view).transpose(dims))
    return _transpose(build, view, dims, others)


def _transpose(build: InstructionBuilder, view: View, dims: tuple[int, ...], others: list[int]) -> View:
    """Axis dims[-1] and the last axis change places, in tiles of a block by a block and smaller ones at the edges."""
    dst = build.new(tuple(view.shape[d] for d in dims), view.ref.buffer.core)
    block, core = view.block, view.ref.buffer.core
    down, across = view.steps[dims[-1]], dst.steps[dims.index(len(dims) - 1)]
    outer = [(view.shape[d], (view.steps[d], dst.steps[dims.index(d)])) for d in others]
    for (i, n, high), (j, m, wide) in product(_tiles(dst.width, block), _tiles(view.width, block)):
        source = view.ref.at(i * block * down + j * view.block_step)
        target = dst.ref.at(j * block * across + i)
        tiles = [(n, (block * down, 1)), (m, (view.block_step, block * across))]
        for src, to in build.repeat(merge([*outer, *tiles]), [source, target]):
            rows: dict[str, int | Ref] = {"dst": to, "dst_step": across, "dst_rows": wide}
            build.emit("transpose", core, **rows, src=src, src_step=down, src_rows=high)
    return dst


def _tiles(width: int, block: int) -> list[tuple[int, int, int]]:
    """The whole blocks of an axis and the rest of it: first block, how many, elements of each."""
    whole, rest = divmod(width, block)
    return [t for t in ((0, whole, block), (whole, 1, rest)) if t[1] and t[2]]


def take(build: InstructionBuilder, view: View, axis: int, start: int, stop: int, step: int) -> View:
    """Elements start, start + step, ... below stop of an axis."""
    shape = list(view.shape)
    shape[axis] = len(range(start, stop, step))
    if axis < len(shape) - 1:
        steps = tuple(s * step if d == axis else s for d, s in enumerate(view.steps))
        return replace(view, ref=view.ref.at(start * view.steps[axis]), shape=tuple(shape), steps=steps)
    if view.block_step == 0 or view.uniform:
        return replace(view, shape=tuple(shape))
    if step == 1 and start % view.block == 0:
        return replace(view, ref=view.ref.at(start // view.block), shape=tuple(shape))
    return build.gather(view, tuple(shape), _flat(view)[..., start:stop:step])


def broadcast(build: InstructionBuilder, view: View, shape: tuple[int, ...]) -> View:
    """Repeat to a shape: new and stretched axes have row step 0."""
    stretched = bool(shape) and shape[-1] != view.width
    view = build.uniform(view) if stretched else view
    extra = len(shape) - len(view.shape)
    steps = [0] * (len(shape) - 1)
    for d in range(len(view.dims)):
        steps[extra + d] = view.steps[d] if view.shape[d] == shape[extra + d] else 0
    return replace(view, shape=shape, steps=tuple(steps), block_step=0 if stretched else view.block_step)


def concat(low: Lowering, values: Sequence[Value], axis: int, shape: tuple[int, ...]) -> View:
    """Operands side by side: as they lie if they do so already, else moves of whole rows where an operand starts on
    one, gathers where it does not. Zeros within a row cost nothing where a gather clears the row. A move would not do:
    it copies the lanes behind a vector too, which hold anything."""
    cleared = _gaps(values, low.build.block) if axis == len(shape) - 1 else set()
    views = [low.values.view(v) for v in values if v not in cleared]
    if axis == len(shape) - 1 and not cleared and _side_by_side(views):
        return replace(views[0], shape=shape, block_step=1)
    if axis < len(shape) - 1:
        return _stacked(low.build, views, axis, shape)
    dst = low.build.new(shape)
    start = 0
    for value in values:
        size = value.shape[axis]
        if value in cleared:
            start += size
            continue
        view = low.values.view(value)
        part = replace(dst, shape=view.shape)
        if start % dst.block == 0 and view.width != 1 and not (cleared and size % dst.block):
            low.build.copy(view, replace(part, ref=dst.ref.at(start // dst.block)))
        else:
            index = _flat(view)
            target = np.arange(start, start + size)
            _scatter_lanes(low.build, dst, view, index, target)
        start += size
    return dst


def _stacked(build: InstructionBuilder, views: Sequence[View], axis: int, shape: tuple[int, ...]) -> View:
    """Operands behind each other on another axis than the last; those that lie so already, as the stages of a delay
    line do, are moved at once."""
    dst = build.new(shape, uniform=shape[-1] == 1)
    runs = [views[0]]
    for view in views[1:]:
        last = runs[-1]
        dense = last.contiguous and view.contiguous and prod(view.shape[:axis]) == 1
        if dense and (last.uniform, last.ref.at(last.total_rows)) == (view.uniform, view.ref):
            joined = (*view.shape[:axis], last.shape[axis] + view.shape[axis], *view.shape[axis + 1 :])
            runs[-1] = replace(last, shape=joined, steps=canonical_steps(joined[:-1], last.rows))
        else:
            runs.append(view)
    start = 0
    for view in runs:
        build.copy(view, replace(dst, shape=view.shape, ref=dst.ref.at(start * dst.steps[axis])))
        start += view.shape[axis]
    return dst


def _gaps(values: Sequence[Value], block: int) -> set[Value]:
    """The zeros among values side by side that begin inside a row, behind something else, and end in the same row."""
    starts = np.cumsum([0, *(v.shape[-1] for v in values)])
    begins: dict[Value, list[int]] = {}
    for value, start in zip(values, starts, strict=False):
        begins.setdefault(value, []).append(int(start) % block)
    return {v for v, at in begins.items() if is_gap(v) and all(0 < a <= block - v.shape[-1] for a in at)}


def _side_by_side(views: list[View]) -> bool:
    """Whether each view begins in the row after the first vector of the view before it, as overlapping windows of a
    sequence do."""
    first = views[0]
    return all(
        (view.dims, view.steps) == (first.dims, first.steps)
        and view.ref == first.ref.at(i * first.rows)
        and (view.block_step == 1 or view.rows == 1)
        and not (view.uniform or view.width == 1)
        and (view.width == first.width or i == len(views) - 1)
        and (view.width % view.block == 0 or i == len(views) - 1)
        for i, view in enumerate(views)
    )


def _scatter_lanes(
    build: InstructionBuilder, dst: View, view: View, index: np.ndarray, target: np.ndarray
) -> None:
    """Write elements of a view into given positions of the last axis of dst; other lanes of a row keep theirs,
    or become +0 where the part is the first to reach the row."""
    rows, lanes = (a.reshape(-1) for a in element_rows(view))
    to_row, to_lane = element_rows(dst)
    to_row, to_lane = (a[..., target].reshape(-1) for a in (to_row, to_lane))
    src, out, clear, lane = gather_entries(
        to_row, (to_lane, lanes[index.ravel()]), rows[index.ravel()], True, build.block
    )
    first_row = target[0] // build.block
    if target[0] % build.block:
        shared = (out % dst.rows) == first_row
        clear = np.where(shared, 0, clear).astype(np.uint8)
    build.emit_gather(dst, view, (src, out, clear, lane))


def select_move(low: Lowering, node: Node) -> list[View]:
    """One of the layout ops on its first operand's view."""
    view = low.values.view(node.operands[0])
    a = node.attrs
    if node.op == "reshape":
        return [reshape(low.build, view, tuple(a["shape"]))]
    if node.op == "permute":
        return [permute(low.build, view, tuple(a["dims"]))]
    if node.op == "slice":
        return [take(low.build, view, a["axis"], a["start"], a["stop"], a["step"])]
    if node.op == "broadcast":
        return [broadcast(low.build, view, tuple(a["shape"]))]
    return [concat(low, node.operands, a["axis"], node.results[0].shape)]


def select_slice(low: Lowering, node: Node) -> Sequence[Location]:
    """A piece of a matrix product stands by itself; any other slice is a move."""
    pieces = low.pieces.get(node.operands[0])
    return select_move(low, node) if pieces is None else [pieces[node.attrs["start"], node.attrs["stop"]]]


def select_concat(low: Lowering, node: Node) -> Sequence[Location]:
    """Operands side by side, unless products alone read them, or a ring: these take them where they are."""
    value = node.results[0]
    return [] if value in low.plan.windows or value in low.rings.left_out else select_move(low, node)
