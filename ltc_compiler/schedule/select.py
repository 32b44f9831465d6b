"""Selection: the machine's side of every NNIR op, one function a family, one table over all of them.

A new op needs a row in ir/ops.py and one in SELECTORS; the check at the end of this file fails the import otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..ir.graph import Node, Precision, Value
from ..ir.ops import BINARY, OPS, UNARY
from .layout import View
from .lowering import HOME, Lowering, leading
from .move import reshape, select_move
from .partition import output_rows_per_core
from .scan import select_scan
from .stores import synapse_slots, weight_blocks

Selector = Callable[[Lowering, Node], list[View]]

FOLDED_ONLY = ("sin", "cos")  # the machine has no unit for them


def _bf16(value: Value) -> int:
    return int(value.type.precision is Precision.BF16)


def select_pointwise(low: Lowering, node: Node) -> list[View]:
    """An instruction of the same name, row by row."""
    result = node.results[0]
    views = [low.view(v) for v in node.operands]
    return [low.elementwise(node.op, views, result.shape, result.type.precision)]


def select_folded(low: Lowering, node: Node) -> list[View]:
    """An op that exists for constant folding alone."""
    raise UnsupportedError.single(
        f"{node.op} of a value that depends on an input: the machine has no unit for it",
        where=str(node.source),
        rewrite="compute it on the host and pass it as an input, or make its argument constant",
        node=node.op,
    )


def parameters(low: Lowering, node: Node, first: int) -> list[NDArray[np.float64]]:
    """The operands from `first` on, which must be constants."""
    arrays = [v.constant() for v in node.operands[first:]]
    if any(a is None for a in arrays):
        raise low.refuse(
            f"{node.op} takes constant parameters and one of them depends on an input",
            "make the weights parameters or buffers of the module",
        )
    return [a for a in arrays if a is not None]


def select_linear(low: Lowering, node: Node) -> list[View]:
    """Rows of the weight spread over the cores; each core sends its part of the result home."""
    weight, bias = parameters(low, node, 1)
    result = node.results[0]
    fp32 = node.operands[1].type.precision is Precision.FP32
    if fp32 and not low.config.fp32_matmul:
        raise low.refuse(
            "a matrix product in FP32, and this configuration has none",
            "use BF16 weights, or set features.fp32_matmul",
        )
    x = low.vectors(low.view(node.operands[0]))
    dst = low.new(result.shape)
    batch = int(np.prod(x.dims, dtype=np.int64))
    for core, start, stop in output_rows_per_core(low.config, dst.rows, x.rows, batch, fp32):
        rows = slice(start * low.block, min(stop * low.block, weight.shape[0]))
        part = (
            replace(dst, ref=dst.ref.at(start))
            if core == HOME
            else low.new((*result.shape[:-1], rows.stop - rows.start), core)
        )
        matmul(low, node, low.on_core(x, core), part, weight[rows], bias[rows], stop - start, fp32)
        if core != HOME:
            for target, source in low.repeat(leading([dst, part]), [dst.ref.at(start), part.ref]):
                low.transfer(source, target, stop - start)
    return [dst]


def matmul(
    low: Lowering,
    node: Node,
    x: View,
    dst: View,
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    m_rows: int,
    fp32: bool,
) -> None:
    """One core's matrix instruction (or a few, where the batch has no single row step)."""
    core = dst.ref.buffer.core
    address = low.stores[core].weights.add(*weight_blocks(weight, low.block, fp32))
    bias_ref = low.constant(bias.reshape(1, -1) if bias.size > 1 else np.full(1, bias.item()), core).ref
    axes = leading([dst, x])
    outer, (batch, (dst_step, x_step)) = axes[:-1], axes[-1] if axes else (1, (0, 0))
    for to, source in low.repeat(outer, [dst.ref, x.ref]):
        low.schedule.emit(
            "matmul_fp32" if fp32 else "matmul",
            core,
            dst=to,
            dst_step=dst_step,
            x=source,
            x_step=x_step,
            bias=bias_ref,
            weights=address,
            k=weight.shape[1],
            m_rows=m_rows,
            batch=batch,
            precision=_bf16(node.results[0]),
        )


def select_synapse(low: Lowering, node: Node) -> list[View]:
    """The synapse unit, once for every vector of the batch."""
    if not low.config.synapse_unit:
        raise low.refuse(
            "a synapse op, and this configuration has no synapse unit", "set features.synapse_unit"
        )
    mu, sigma, w, we, mask = parameters(low, node, 1)
    fp32 = node.operands[1].type.precision is Precision.FP32
    v = low.vectors(low.view(node.operands[0]))
    num, den = (low.new(r.shape) for r in node.results)
    src, values, originals, last = synapse_slots(mu, sigma, w, we, mask, low.block, fp32)
    address = low.stores[HOME].slots.add(src, values, originals, last)
    for n, d, source in low.repeat(leading([num, den, v]), [num.ref, den.ref, v.ref]):
        op = low.schedule.emit(
            "synapse",
            HOME,
            num=n,
            den=d,
            v=source,
            v_rows=v.rows,
            slots=address,
            targets=num.rows,
            precision=int(not fp32),
        )
        op.slots = len(last)
    return [num, den]


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
            HOME,
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
    from .layout import iteration

    dst = low.new(shape, uniform=view.uniform and view.width == 1)
    reduced = replace(view, shape=shape)
    axes = iteration([dst, reduced], shape)
    inner = axes.pop() if axes[-1][1] == (1, 1) else (1, (0, 0))
    if axes and axes[-1] == (1, (0, 0)):
        axes.pop()
    for to, source in low.repeat(axes, [dst.ref, view.ref]):
        low.schedule.emit(
            f"column_{name}",
            HOME,
            dst=to,
            src=source,
            k_step=view.steps[axis],
            k=view.shape[axis],
            n_inner=inner[0],
            precision=precision,
        )
    return dst


SELECTORS: dict[str, Selector] = {
    **{name: select_pointwise for name in (*UNARY, *BINARY, "select") if name not in FOLDED_ONLY},
    **dict.fromkeys(FOLDED_ONLY, select_folded),
    **dict.fromkeys(("reshape", "permute", "slice", "broadcast", "concat"), select_move),
    **dict.fromkeys(("sum", "amax"), select_reduce),
    "linear": select_linear,
    "synapse": select_synapse,
    "scan": select_scan,
}

_missing = sorted(set(OPS) - set(SELECTORS) - {"constant"})
assert not _missing, f"ops without selection: {_missing}"


def lower_nodes(low: Lowering, nodes: list[Node]) -> None:
    """Select every node in order and record where its results lie."""
    for node in nodes:
        if node.op == "constant":
            continue
        before = low.schedule.source
        low.schedule.source = str(node.source)
        views = SELECTORS[node.op](low, node)
        low.env.update(zip(node.results, views, strict=True))
        low.schedule.source = before
