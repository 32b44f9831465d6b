"""Selection: the machine's side of every NNIR op, one function per family, one table over all of them.

A new op needs a row in ir/families/ and one in SELECTORS; the check at the end of this file fails the import otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ltc_compiler import isa
from ltc_compiler.ir.graph import Node
from ltc_compiler.ir.ops import POINTWISE, check_rows
from ltc_compiler.schedule.rows.build import InstructionBuilder, precision_operand
from ltc_compiler.schedule.rows.layout import View, iteration, leading
from ltc_compiler.schedule.rows.places import Location, Part, Sharded, part_shape
from ltc_compiler.schedule.select.loop import select_scan
from ltc_compiler.schedule.select.lowering import Lowering, Selector
from ltc_compiler.schedule.select.matmul import select_linear
from ltc_compiler.schedule.select.move import reshape, select_concat, select_move, select_slice
from ltc_compiler.schedule.select.product import select_product
from ltc_compiler.schedule.select.synapse import select_synapse


def select_pointwise(low: Lowering, node: Node) -> Sequence[Location]:
    """An instruction of the same name, row by row, on every core that holds rows of the operands."""
    result = node.results[0]
    partition = low.values.common_partition(node)
    if partition is not None and node.cores and not {core for core, _, _ in partition} <= set(node.cores):
        partition = None
    if partition is None:
        return [_row_by_row(low, node, [low.values.view(v) for v in node.operands], result.shape)]
    for value in node.operands:
        if not value.shape or value.shape[-1] == 1:
            low.values.everywhere(value, [core for core, _, _ in partition])  # one message for all of them
    parts = []
    for rows in partition:
        views = [low.values.operand_part(v, rows, result.shape) for v in node.operands]
        shape = part_shape(result.shape, rows[1], rows[2], low.build.block)
        parts.append(Part(*rows, _row_by_row(low, node, views, shape)))
    return [Sharded(result.shape, tuple(parts))]


def _row_by_row(low: Lowering, node: Node, views: Sequence[View], shape: tuple[int, ...]) -> View:
    if node.op == "ltc_update":
        return low.build.ltc_update(views, shape)
    return low.build.elementwise(node.op, views, shape, node.results[0].type.precision)


def select_relu(low: Lowering, node: Node) -> Sequence[Location]:
    """Nothing where the product that it reads applies it, else as any pointwise op."""
    value = node.operands[0]
    if value not in low.plan.relus:
        return select_pointwise(low, node)
    return [low.values.sharded[value] if value in low.values.sharded else low.values.whole[value]]


def select_reduce(low: Lowering, node: Node) -> list[View]:
    """A reduction along the lanes, or lane by lane along rows; or a sum of products."""
    if node.results[0] in low.plan.sums:
        return select_product(low, node)
    name = {"sum": "sum", "amax": "max"}[node.op]
    view = low.values.view(node.operands[0])
    axis = node.attrs["axis"]
    shape = tuple(1 if d == axis else n for d, n in enumerate(view.shape))
    reduce = _reduce_lanes if axis == len(view.shape) - 1 else _reduce_rows
    kept = reduce(low.build, name, view, shape, axis, precision_operand(node.results[0].type.precision))
    return [reshape(low.build, kept, node.results[0].shape)]


def _reduce_lanes(
    build: InstructionBuilder, name: str, view: View, shape: tuple[int, ...], axis: int, precision: int
) -> View:
    view = build.vectors(view)
    dst = build.new(shape, uniform=True)
    axes = leading([dst, view])
    outer, (groups, (dst_step, src_step)) = axes[:-1], axes[-1] if axes else (1, (0, 0))
    for to, source in build.repeat(outer, [dst.ref, view.ref]):
        build.emit(
            f"row_{name}",
            build.home,
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
    build: InstructionBuilder, name: str, view: View, shape: tuple[int, ...], axis: int, precision: int
) -> View:
    dst = build.new(shape, uniform=view.uniform and view.width == 1)
    reduced = replace(view, shape=shape)
    axes = iteration([dst, reduced], shape)
    inner = axes.pop() if axes[-1][1] == (1, 1) else (1, (0, 0))
    if axes and axes[-1] == (1, (0, 0)):
        axes.pop()
    for to, source in build.repeat(axes, [dst.ref, view.ref]):
        build.emit(
            f"column_{name}",
            build.home,
            dst=to,
            src=source,
            k_step=view.steps[axis],
            k=view.shape[axis],
            n_inner=inner[0],
            precision=precision,
        )
    return dst


SELECTORS: dict[str, Selector] = {
    **dict.fromkeys(sorted(POINTWISE & set(isa.BY_NAME)), select_pointwise),
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
