"""Selection: the machine's side of every NNIR op, one function a family, one table over all of them.

A new op needs a row in ir/families/ and one in SELECTORS; the check below that fails the import otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import numerics
from ltc_compiler.ir.graph import Graph, Node, Precision, Value
from ltc_compiler.ir.ops import BINARY, TERNARY, UNARY, check_rows
from ltc_compiler.schedule.rows.contents import digest, weight_blocks
from ltc_compiler.schedule.rows.layout import View, iteration, leading
from ltc_compiler.schedule.rows.lowering import Lowering
from ltc_compiler.schedule.rows.shards import (
    Part,
    Place,
    Sharded,
    common_partition,
    everywhere,
    operand_part,
    part_of,
    part_shape,
    placed,
    send,
)
from ltc_compiler.schedule.select.loop import select_scan
from ltc_compiler.schedule.select.move import broadcast, reshape, select_move
from ltc_compiler.schedule.select.synapse import select_synapse
from ltc_compiler.schedule.select.windows import Taps, find_windows, read_window
from ltc_compiler.schedule.spread.partition import (
    Band,
    Chunk,
    clipped_products,
    cut_points,
    padded_rows,
    rotations,
    spread_rows,
)
from ltc_compiler.schedule.spread.share import Places, RowBlock, shared_products

Constants = NDArray[np.float64]
Selector = Callable[[Lowering, Node], Sequence[Place]]


def _bf16(value: Value) -> int:
    return int(value.type.precision is Precision.BF16)


def select_pointwise(low: Lowering, node: Node) -> Sequence[Place]:
    """An instruction of the same name, row by row, on every core that holds rows of the operands."""
    result = node.results[0]
    partition = common_partition(low, node)
    if partition is not None and node.cores and not {core for core, _, _ in partition} <= set(node.cores):
        partition = None
    if partition is None:
        return [_row_by_row(low, node, [low.view(v) for v in node.operands], result.shape)]
    for value in node.operands:
        if not value.shape or value.shape[-1] == 1:
            everywhere(low, value, [core for core, _, _ in partition])  # one message for all of them
    parts = []
    for rows in partition:
        views = [operand_part(low, v, rows, result.shape) for v in node.operands]
        shape = part_shape(result.shape, rows[1], rows[2], low.block)
        parts.append(Part(*rows, _row_by_row(low, node, views, shape)))
    return [Sharded(result.shape, tuple(parts))]


def _row_by_row(low: Lowering, node: Node, views: Sequence[View], shape: tuple[int, ...]) -> View:
    if node.op == "ltc_update":
        return low.ltc_update(views, shape)
    return low.elementwise(node.op, views, shape, node.results[0].type.precision)


def select_relu(low: Lowering, node: Node) -> Sequence[Place]:
    """Done where the product was finished, if it is one for this alone."""
    value = node.operands[0]
    if value not in low.clipped:
        return select_pointwise(low, node)
    return [low.shards[value] if value in low.shards else low.env[value]]


def select_linear(low: Lowering, node: Node) -> Sequence[Place]:
    """Rows of the weight spread over the cores; the result stays where it is computed."""
    (weight,) = low.parameters(node, 1, 2)
    result = node.results[0]
    if node.operands[1].type.precision is Precision.FP32 and not low.config.fp32_matmul:
        raise low.refuse(
            "a matrix product in FP32, and this configuration has none",
            "use BF16 weights, or set fp32_matmul in the configuration",
        )
    if node.operands[1].type.precision is Precision.FP8_E4M3 and not low.config.fp8_weights:
        raise low.refuse(
            "a matrix product with FP8 weights, and this configuration has none",
            "leave Fp8Weights out, or set fp8_weights in the configuration",
        )
    cuts = low.cuts.get(result, ((0, weight.shape[0]),))
    turn = low.rotations.get(result, 0)
    bands = spread_rows(cuts, low.block, (*low.cores[turn:], *low.cores[:turn]), low.grain)
    parts: dict[tuple[int, int], list[Part]] = {cut: [] for cut in cuts}
    makers = low.makers.get(result)
    cores = list(makers or dict.fromkeys(core for band in bands for core in band))
    xs = _factors(low, node.operands[0], cores)
    if makers:
        lent_product(low, node, xs, weight, bands, makers)
    for number, band in enumerate(bands):
        for core, own in band.items():
            if not makers:
                index = padded_rows(own, low.block)
                bias = addend(low, node, own, index, core, number)
                low.products[result, number, core] = matmul(low, node, xs[core], weight, bias, index)
            view = low.products[result, number, core]
            first = 0
            for cut, start, stop in own:
                shape = part_shape((*result.shape[:-1], cut[1] - cut[0]), start, stop, low.block)
                parts[cut].append(Part(core, start, stop, replace(view, ref=view.ref.at(first), shape=shape)))
                first += stop - start
    places = {cut: placed(low, p, (*result.shape[:-1], cut[1] - cut[0])) for cut, p in parts.items()}
    if result not in low.cuts:
        return [places[cuts[0]]]
    low.pieces[result] = places
    return []


def _factors(low: Lowering, value: Value, cores: Sequence[int]) -> dict[int, Taps]:
    """What a product reads on each core: the taps of a window, or one value."""
    window = low.windows.get(value)
    if window is not None:
        return read_window(low, window, cores)
    return {core: Taps(low.vectors(view)) for core, view in everywhere(low, value, cores).items()}


def lent_product(
    low: Lowering,
    node: Node,
    xs: dict[int, Taps],
    weight: Constants,
    bands: Sequence[Band],
    makers: dict[int, list[RowBlock]],
) -> None:
    """The rows of a product with a constant bias, on the cores that add them: each core computes what it makes in one
    go, and sends what others want."""
    result = node.results[0]
    index = {
        (i, core): padded_rows(own, low.block) for i, band in enumerate(bands) for core, own in band.items()
    }
    for (band, owner), rows in index.items():
        low.products[result, band, owner] = low.new((*result.shape[:-1], len(rows)), owner)
    for maker, made in makers.items():
        rows = np.concatenate([index[m.band, m.owner].reshape(-1, low.block)[m.number] for m in made])
        whole = low.products.get((result, made[0].band, maker))
        if whole is not None and made == [RowBlock(made[0].band, maker, i) for i in range(whole.rows)]:
            matmul(low, node, xs[maker], weight, constant_bias(low, node, rows, maker), rows, whole)
            continue
        view = matmul(low, node, xs[maker], weight, constant_bias(low, node, rows, maker), rows)
        for (band, owner, shift), run in groupby(enumerate(made), lambda m: (*m[1][:2], m[1].number - m[0])):
            positions = [position for position, _ in run]
            first, stop = positions[0], positions[-1] + 1
            part = part_of(view, first, stop)
            place = part_of(low.products[result, band, owner], first + shift, stop + shift)
            if owner == maker:
                low.copy(part, place)
            else:
                send(low, part, [place])


def constant_bias(low: Lowering, node: Node, index: NDArray[np.int64], core: int) -> View:
    """A product's bias at the weight's rows `index`, for every vector."""
    bias = node.operands[2].constant()
    assert bias is not None
    rows = low.constant(np.where(index >= 0, bias[index], 0.0), core)
    return broadcast(low, rows, (*node.results[0].shape[:-1], len(index)))


def addend(
    low: Lowering, node: Node, own: Sequence[Chunk], index: NDArray[np.int64], core: int, band: int
) -> View:
    """What a core adds to its rows of a product: a constant bias, a product that it holds, or rows of another value."""
    value = node.operands[2]
    bias = value.constant()
    if bias is not None and bias.ndim == 1:
        return constant_bias(low, node, index, core)
    if (value, band, core) in low.products:
        return low.products[value, band, core]
    ((_, start, stop),) = own
    return low.vectors(operand_part(low, value, (core, start, stop), node.results[0].shape))


def matmul(
    low: Lowering,
    node: Node,
    taps: Taps,
    weight: Constants,
    bias: View,
    index: NDArray[np.int64],
    dst: View | None = None,
) -> View:
    """One core's matrix instruction (or a few, where the batch has no single row step) for the weight's rows `index`,
    -1 being a row of padding. The core is the one that x lies on."""
    x = taps.first
    core = x.ref.buffer.core
    address = _weights(low, node, weight, index, core)
    if dst is None:
        dst = low.new((*x.dims, len(index)), core)
    axes = leading([dst, x, bias])
    outer, (batch, (dst_step, x_step, bias_step)) = axes[:-1], axes[-1] if axes else (1, (0, 0, 0))
    for to, source, added in low.repeat(outer, [dst.ref, x.ref, bias.ref]):
        low.schedule.emit(
            "matmul_fp32" if node.operands[1].type.precision is Precision.FP32 else "matmul",
            core,
            dst=to,
            dst_step=dst_step,
            x=source,
            x_step=x_step,
            taps=taps.count,
            tap_step=taps.step,
            bias=added,
            bias_step=bias_step,
            weights=address,
            k=x.width,
            m_rows=dst.rows,
            batch=batch,
            precision=_bf16(low.clipped.get(node.results[0], node.results[0])),
            addend=int(node.operands[2].constant() is None),
            relu=int(node.results[0] in low.clipped),
        )
    return dst


def _weights(low: Lowering, node: Node, weight: Constants, index: NDArray[np.int64], core: int) -> int:
    """The address of the weight's rows `index` on a core; their blocks are made when a program is written."""
    stored = node.operands[1].type.precision
    fp32 = stored is Precision.FP32

    def make() -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
        exponent = numerics.fp8_scale_exponent(weight) if stored is Precision.FP8_E4M3 else None
        rows = np.where((index >= 0)[:, None], weight[index], 0.0)
        return weight_blocks(rows, low.block, fp32, exponent)

    words = low.rows(len(index)) * low.rows(weight.shape[1]) * (2 if fp32 else 1)
    key = low.digests.of(weight) + digest(index) + stored.value.encode()
    return low.stores[core].weights.add_later(key, words, make)


def select_reduce(low: Lowering, node: Node) -> list[View]:
    """A reduction along the lanes, or lane by lane along rows."""
    name = {"sum": "sum", "amax": "max"}[node.op]
    view = low.view(node.operands[0])
    axis = node.attrs["axis"]
    shape = tuple(1 if d == axis else n for d, n in enumerate(view.shape))
    reduce = _reduce_lanes if axis == len(view.shape) - 1 else _reduce_rows
    kept = reduce(low, name, view, shape, axis, _bf16(node.results[0]))
    return [reshape(low, kept, node.results[0].shape)]


def _reduce_lanes(
    low: Lowering, name: str, view: View, shape: tuple[int, ...], axis: int, precision: int
) -> View:
    view = low.vectors(view)
    dst = low.new(shape, uniform=True)
    axes = leading([dst, view])
    outer, (groups, (dst_step, src_step)) = axes[:-1], axes[-1] if axes else (1, (0, 0))
    for to, source in low.repeat(outer, [dst.ref, view.ref]):
        low.schedule.emit(
            f"row_{name}",
            low.home,
            dst=to,
            dst_step=dst_step,
            src=source,
            src_step=src_step,
            groups=groups,
            k=view.width,
            precision=precision,
        )
    return dst


def _reduce_rows(
    low: Lowering, name: str, view: View, shape: tuple[int, ...], axis: int, precision: int
) -> View:
    dst = low.new(shape, uniform=view.uniform and view.width == 1)
    reduced = replace(view, shape=shape)
    axes = iteration([dst, reduced], shape)
    inner = axes.pop() if axes[-1][1] == (1, 1) else (1, (0, 0))
    if axes and axes[-1] == (1, (0, 0)):
        axes.pop()
    for to, source in low.repeat(axes, [dst.ref, view.ref]):
        low.schedule.emit(
            f"column_{name}",
            low.home,
            dst=to,
            src=source,
            k_step=view.steps[axis],
            k=view.shape[axis],
            n_inner=inner[0],
            precision=precision,
        )
    return dst


def select_slice(low: Lowering, node: Node) -> Sequence[Place]:
    """A piece of a matrix product stands by itself; any other slice is a move."""
    pieces = low.pieces.get(node.operands[0])
    return select_move(low, node) if pieces is None else [pieces[node.attrs["start"], node.attrs["stop"]]]


def select_concat(low: Lowering, node: Node) -> Sequence[Place]:
    """Operands side by side, unless products alone read them: these take them where they are."""
    return [] if node.results[0] in low.windows else select_move(low, node)


SELECTORS: dict[str, Selector] = {
    **dict.fromkeys((*UNARY, *BINARY, *TERNARY, "ltc_update"), select_pointwise),
    "relu": select_relu,
    **dict.fromkeys(("reshape", "permute", "broadcast"), select_move),
    "slice": select_slice,
    **dict.fromkeys(("sum", "amax"), select_reduce),
    "linear": select_linear,
    "concat": select_concat,
    "synapse": select_synapse,
    "scan": select_scan,
}

check_rows("SELECTORS in ltc_compiler/schedule/select/select.py", SELECTORS, beside=["constant"])


def lower_graph(low: Lowering, graph: Graph) -> None:
    """Select every node in order and record where its results lie."""
    low.cuts |= cut_points(graph)
    low.clipped |= clipped_products(graph)
    low.windows |= find_windows(graph, low.block)
    if low.rotate:
        low.rotations |= rotations(graph, low.cuts, low.block, len(low.cores))
    if low.lending:
        places = Places(low.cuts, low.cores, low.grain, low.all_cores)
        low.makers |= shared_products(graph, low.config, places)
    for node in graph.nodes:
        if node.op == "constant":
            continue
        before = low.schedule.source, low.schedule.operation
        low.schedule.source, low.schedule.operation = str(node.source), node.op
        with low.placed(node.cores):
            for value, place in zip(node.results, SELECTORS[node.op](low, node), strict=False):
                low.place(value, place)
        low.schedule.source, low.schedule.operation = before
