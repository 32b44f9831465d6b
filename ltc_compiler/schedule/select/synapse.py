"""Selection of synapses: rows of targets spread over the cores, each core on its synapse unit.

A machine without the unit does the same operations in the same order with moves, vector and activation instructions:
the bits are the same, as rule 11 of docs/numerics.md makes every operation an architectural write.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa
from ltc_compiler.ir.contents import contents_key
from ltc_compiler.ir.graph import Node, Precision
from ltc_compiler.schedule.rows.build import OPERAND_NAMES, InstructionBuilder
from ltc_compiler.schedule.rows.contents import gather_entries, synapse_slots
from ltc_compiler.schedule.rows.layout import fresh, leading
from ltc_compiler.schedule.rows.places import Location, Part, joined, part_shape
from ltc_compiler.schedule.rows.virtual import Buffer, Ref
from ltc_compiler.schedule.select.lowering import Lowering
from ltc_compiler.schedule.spread.partition import spread_rows

CHUNK = 64  # rows of synapses that are at work at once without the unit: what bounds the rows that they take

Slots = tuple[NDArray[Any], ...]  # sources, parameters, their originals, marks of the last


def select_synapse(low: Lowering, node: Node) -> Sequence[Location]:
    """Rows of targets spread over the cores, once for every vector of the batch; the sums stay where they are made."""
    arrays = low.parameters(node, 1)
    fp32 = node.operands[1].type.precision is Precision.FP32
    shape = node.results[0].shape
    (chunks,) = spread_rows([(0, shape[-1])], low.build.block, low.build.cores)
    vs = low.values.everywhere(node.operands[0], list(chunks))
    sums: tuple[list[Part], list[Part]] = ([], [])
    for core, ((_, start, stop),) in chunks.items():
        key = b"".join(map(contents_key, arrays)) + f"{start} {stop} {fp32}".encode()
        if key not in low.contents.slots:  # the unfolds of a step share them
            own = slice(start * low.build.block, stop * low.build.block)
            mu, sigma, w, we, mask = (a[:, own] for a in arrays)
            low.contents.slots[key] = synapse_slots(mu, sigma, w, we, mask, low.build.block, fp32)
        slots = low.contents.slots[key]
        num, den = (low.build.new(part_shape(shape, start, stop, low.build.block), core) for _ in sums)
        v = low.build.vectors(vs[core])
        emit = _on_the_unit if low.config.synapse_unit else _without_the_unit
        for refs in low.build.repeat(leading([num, den, v]), [num.ref, den.ref, v.ref]):
            emit(low.build, refs, num.rows, v.rows, slots, fp32, key)
        for parts, view in zip(sums, (num, den), strict=True):
            parts.append(Part(core, start, stop, view))
    return [joined(parts, shape, low.build.home) for parts in sums]


def _on_the_unit(
    build: InstructionBuilder,
    refs: Sequence[Ref],
    targets: int,
    v_rows: int,
    slots: Slots,
    fp32: bool,
    key: bytes,
) -> None:
    num, den, v = refs
    core = num.buffer.core
    address = build.contents.stores[core].slots.add_later(key, len(slots[3]), lambda: [slots])
    op = build.emit(
        "synapse",
        core,
        num=num,
        den=den,
        v=v,
        v_rows=v_rows,
        slots=address,
        targets=targets,
        precision=int(not fp32),
    )
    op.slots = len(slots[3])


# ---------------------------------------------------------------- without the unit


def _without_the_unit(
    build: InstructionBuilder,
    refs: Sequence[Ref],
    targets: int,
    v_rows: int,
    slots: Slots,
    fp32: bool,
    key: bytes,
) -> None:
    """Target rows of one depth go through their slots side by side: that hides the adder's latency."""
    num, den, v = refs
    core = num.buffer.core
    if num.level:  # a loop over the batch fills a part of the sums in every iteration
        build.schedule.hold(num.buffer)
        build.schedule.hold(den.buffer)
    source = v if fp32 else _rows(build, core, v_rows)
    if not fp32:
        _emit(build, "move", source, [v], (1, v_rows), bf16=True)
    ends = np.flatnonzero(slots[3])
    depths = np.diff(ends, prepend=-1)
    row, zero = 0, build.constant(np.zeros((1, 1)), core).ref
    for depth, group in groupby(depths.tolist()):
        rows = len(list(group))
        first = int(ends[row] - depth + 1)
        at = (
            first + np.arange(rows) * depth + np.arange(depth)[:, None]
        )  # (depth, rows): slot k of every target row
        sums = _accumulate(build, source, at, slots, fp32, zero)
        for i, to in enumerate((num, den)):
            _emit(build, "add", to.at(row), [(sums.at(i), 0, 2), (zero, 0, 0)], (1, rows))
        row += rows


def _accumulate(
    build: InstructionBuilder, v: Ref, at: NDArray[np.int64], slots: Slots, fp32: bool, begin: Ref
) -> Ref:
    """The sums of target rows of one depth, numerators and denominators alternating, from slots at[k] of each row."""
    depth, rows = at.shape
    core = begin.buffer.core
    sums = _rows(build, core, 2 * rows)
    step = max(1, CHUNK // rows)
    for first in range(0, depth, step):
        chunk = at[first : first + step]
        products = _products(build, core, v, chunk.reshape(-1), slots, fp32)
        if first == 0:
            _emit(build, "add", sums, [(begin, 0, 0), products], (1, 2 * rows))
            products, chunk = products.at(2 * rows), chunk[1:]
        if len(chunk):
            _emit(build, "add", (sums, 0, 1), [(sums, 0, 1), (products, 2 * rows, 1)], (len(chunk), 2 * rows))
    return sums


def _products(
    build: InstructionBuilder, core: int, v: Ref, at: NDArray[np.int64], slots: Slots, fp32: bool
) -> Ref:
    """s * we and s * w of some slots, alternating, with s = sigmoid(sigma * (v - mu))."""
    count = len(at)
    src, values, originals = slots[0][at], *(slots[i][at].astype(np.float64) for i in (1, 2))
    mu, sigma, w, we = (build.constant(values[:, i], core, originals[:, i]).ref for i in range(4))
    x, s, products = (_rows(build, core, n) for n in (count, count, 2 * count))
    _gather(build, x, v, src)
    _emit(build, "sub", x, [x, mu], (1, count))
    _emit(build, "mul", x, [sigma, x], (1, count), bf16=not fp32)
    _emit(build, "sigmoid", s, [x], (1, count), bf16=not fp32)
    for i, weight in enumerate((we, w)):
        _emit(build, "mul", (products.at(i), 0, 2), [s, weight], (1, count))
    return products


def _gather(build: InstructionBuilder, dst: Ref, v: Ref, src: NDArray[np.uint16]) -> None:
    """Row i of dst takes v's element src[i, lane] in each lane, and +0 where there is none."""
    row, lane = np.nonzero(src != isa.ABSENT)
    source = src[row, lane].astype(np.int64)
    empty = np.setdiff1d(np.arange(len(src)), row)
    for i in empty.tolist():
        _emit(build, "move", dst.at(i), [build.constant(np.zeros((1, 1)), dst.buffer.core).ref], (1, 1))
    if len(row):
        entries = gather_entries(row, (lane, source % build.block), source // build.block, True, build.block)
        view, place = (fresh(ref, (build.block,), build.block) for ref in (v, dst))
        build.emit_gather(place, view, entries)


def _rows(build: InstructionBuilder, core: int, count: int) -> Ref:
    return Ref(Buffer(count, core))


Operand = Ref | tuple[Ref, int, int]  # with its outer and inner step, 0 and 1 for a bare one


def _emit(
    build: InstructionBuilder,
    name: str,
    dst: Operand,
    sources: Sequence[Operand],
    counts: tuple[int, int],
    bf16: bool = False,
) -> None:
    """A row-by-row instruction on the core of its destination."""
    operands: dict[str, int | Ref] = {"n_outer": counts[0], "n_inner": counts[1], "precision": int(bf16)}
    for field, operand in zip(("dst", *OPERAND_NAMES), (dst, *sources), strict=False):
        ref, outer, inner = (operand, 0, 1) if isinstance(operand, Ref) else operand
        operands |= {field: ref, f"{field}_outer": outer, f"{field}_inner": inner}
    build.emit(name, (dst if isinstance(dst, Ref) else dst[0]).buffer.core, **operands)
