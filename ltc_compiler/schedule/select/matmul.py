"""Selection of matrix products: the rows of the weight are spread over the cores, and a core may compute rows that
another one adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import numerics
from ltc_compiler.ir.contents import contents_key
from ltc_compiler.ir.graph import Node, Precision, Value
from ltc_compiler.schedule.rows.build import precision_operand
from ltc_compiler.schedule.rows.contents import digest, weight_blocks
from ltc_compiler.schedule.rows.layout import View, leading
from ltc_compiler.schedule.rows.places import Location, Part, joined, part_of, part_shape
from ltc_compiler.schedule.select.lowering import Lowering
from ltc_compiler.schedule.select.move import broadcast
from ltc_compiler.schedule.select.windows import TapRows, read_window
from ltc_compiler.schedule.spread.partition import Band, Chunk, padded_rows, spread_rows
from ltc_compiler.schedule.spread.share import RowTile

Constants = NDArray[Any]  # in fp64 or fp32
PIECE = 1 << 16  # elements of a weight that are packed at a time, in the CPU's nearest caches


def select_linear(low: Lowering, node: Node) -> Sequence[Location]:
    """Rows of the weight spread over the cores; the result stays where it is computed."""
    (weight,) = low.parameters(node, 1, 2)
    result = node.results[0]
    if node.operands[1].type.precision is Precision.FP32 and not low.config.fp32_matmul:
        raise low.refusal(
            "a matrix product in FP32, and this configuration has none",
            "use BF16 weights, or set fp32_matmul in the configuration",
        )
    if node.operands[1].type.precision is Precision.FP8_E4M3 and not low.config.fp8_weights:
        raise low.refusal(
            "a matrix product with FP8 weights, and this configuration has none",
            "leave Fp8Weights out, or set fp8_weights in the configuration",
        )
    cuts = low.plan.cuts.get(result, ((0, weight.shape[0]),))
    first_core = low.plan.rotations.get(result, 0)
    bands = spread_rows(
        cuts,
        low.build.block,
        (*low.build.cores[first_core:], *low.build.cores[:first_core]),
        low.plan.spread.grain,
    )
    parts: dict[tuple[int, int], list[Part]] = {cut: [] for cut in cuts}
    producers = low.plan.producers.get(result)
    cores = list(producers or dict.fromkeys(core for band in bands for core in band))
    xs = _factors(low, node.operands[0], cores)
    if producers:
        lent_product(low, node, xs, weight, bands, producers)
    for number, band in enumerate(bands):
        for core, own in band.items():
            if not producers:
                index = padded_rows(own, low.build.block)
                bias = addend(low, node, own, index, core, number)
                low.products[result, number, core] = matmul(low, node, xs[core], weight, bias, index)
            view = low.products[result, number, core]
            first = 0
            for cut, start, stop in own:
                shape = part_shape((*result.shape[:-1], cut[1] - cut[0]), start, stop, low.build.block)
                parts[cut].append(Part(core, start, stop, replace(view, ref=view.ref.at(first), shape=shape)))
                first += stop - start
    places = {
        cut: joined(p, (*result.shape[:-1], cut[1] - cut[0]), low.build.home) for cut, p in parts.items()
    }
    if result not in low.plan.cuts:
        return [places[cuts[0]]]
    low.pieces[result] = places
    return []


def _factors(low: Lowering, value: Value, cores: Sequence[int]) -> dict[int, TapRows]:
    """What a product reads on each core: the taps of a window, or one value."""
    window = low.plan.windows.get(value)
    if window is not None:
        return read_window(low, window, cores)
    return {
        core: TapRows(low.build.vectors(view)) for core, view in low.values.everywhere(value, cores).items()
    }


def lent_product(
    low: Lowering,
    node: Node,
    xs: dict[int, TapRows],
    weight: Constants,
    bands: Sequence[Band],
    producers: dict[int, list[RowTile]],
) -> None:
    """A product with a constant bias whose row tiles are lent: each core computes its row tiles in one instruction,
    and sends them to the cores that add them."""
    result = node.results[0]
    index = {
        (i, core): padded_rows(own, low.build.block)
        for i, band in enumerate(bands)
        for core, own in band.items()
    }
    for (band, owner), rows in index.items():
        low.products[result, band, owner] = low.build.new((*result.shape[:-1], len(rows)), owner)
    for producer, made in producers.items():
        rows = np.concatenate([index[m.band, m.owner].reshape(-1, low.build.block)[m.number] for m in made])
        whole = low.products.get((result, made[0].band, producer))
        if whole is not None and made == [RowTile(made[0].band, producer, i) for i in range(whole.rows)]:
            matmul(low, node, xs[producer], weight, constant_bias(low, node, rows, producer), rows, whole)
            continue
        view = matmul(low, node, xs[producer], weight, constant_bias(low, node, rows, producer), rows)
        for (band, owner, shift), run in groupby(enumerate(made), lambda m: (*m[1][:2], m[1].number - m[0])):
            positions = [position for position, _ in run]
            first, stop = positions[0], positions[-1] + 1
            part = part_of(view, first, stop)
            place = part_of(low.products[result, band, owner], first + shift, stop + shift)
            if owner == producer:
                low.build.copy(part, place)
            else:
                low.build.send(part, [place])


def constant_bias(low: Lowering, node: Node, index: NDArray[np.int64], core: int) -> View:
    """A product's bias at the weight's rows `index`, for every vector."""
    bias = node.operands[2].constant()
    assert bias is not None
    rows = low.build.constant(np.where(index >= 0, bias[index], 0.0), core)
    return broadcast(low.build, rows, (*node.results[0].shape[:-1], len(index)))


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
    return low.build.vectors(low.values.operand_part(value, (core, start, stop), node.results[0].shape))


def matmul(
    low: Lowering,
    node: Node,
    taps: TapRows,
    weight: Constants,
    bias: View,
    index: NDArray[np.int64],
    dst: View | None = None,
) -> View:
    """One core's matrix instruction (or a few, where the batch has no single row step) for the weight's rows `index`,
    -1 being a row of padding. The core is the one that x lies on."""
    x, made = taps.first, node.results[0]
    result = low.plan.relus.get(made, made)
    core = x.ref.buffer.core
    address = _weights(low, node, weight, index, core)
    if dst is None:
        dst = low.build.new((*x.dims, len(index)), core)
    axes = leading([dst, x, bias])
    outer, (batch, (dst_step, x_step, bias_step)) = axes[:-1], axes[-1] if axes else (1, (0, 0, 0))
    for to, source, added in low.build.repeat(outer, [dst.ref, x.ref, bias.ref]):
        low.build.emit(
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
            precision=precision_operand(result.type.precision),
            addend=int(not node.operands[2].is_constant),
            relu=int(made in low.plan.relus),
        )
    return dst


def _weights(low: Lowering, node: Node, weight: Constants, index: NDArray[np.int64], core: int) -> int:
    """The address of the weight's rows `index` on a core; their blocks are made when a program is written."""
    stored = node.operands[1].type.precision
    fp32 = stored is Precision.FP32
    tile = low.build.block  # `make` must not hold `low`, which would hold itself

    def make() -> Iterator[tuple[NDArray[np.uint16], NDArray[np.float32]]]:
        exponent = numerics.fp8_scale_exponent(weight) if stored is Precision.FP8_E4M3 else None
        step = max(tile, PIECE // weight.shape[1] // tile * tile)
        for own in (index[first : first + step] for first in range(0, len(index), step)):
            rows = np.where((own >= 0)[:, None], weight[own], 0.0)
            yield weight_blocks(rows, tile, fp32, exponent)

    words = low.build.rows(len(index)) * low.build.rows(weight.shape[1]) * (2 if fp32 else 1)
    key = contents_key(weight) + digest(index) + stored.value.encode()
    return low.contents.stores[core].weights.add_later(key, words, make)
