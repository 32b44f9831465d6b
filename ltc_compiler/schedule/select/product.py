"""Selection of sums of products (sums_of_products.py): an instruction for a matrix, and loops around it for a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltc_compiler.ir.graph import Node
from ltc_compiler.schedule.rows.layout import Axis, View, merge
from ltc_compiler.schedule.rows.virtual import Ref
from ltc_compiler.schedule.select.lowering import Lowering
from ltc_compiler.schedule.select.sums_of_products import SumOfProducts


def select_product(low: Lowering, node: Node) -> list[View]:
    """`product` or `dot`, as often as there are loops around the two indices that one of them has."""
    result = node.results[0]
    p = low.plan.sums[result]
    left, right = (low.build.vectors(low.values.view(f.value)) for f in (p.left, p.right))
    dst = low.build.new(result.shape)
    zeros = low.build.constant(np.zeros(p.shape[p.lanes]))
    outer, (n_i, (dst_i, a_i, _)) = _loops(p, node, (dst, left, right))
    a_steps, b_steps = p.left.steps(left), p.right.steps(right)
    for to, a, b in low.build.repeat(outer, [dst.ref, left.ref, right.ref]):
        rows: dict[str, int | Ref] = {
            "dst": to, "dst_i": dst_i, "a": a, "a_i": a_i, "b": b, "addend": zeros.ref, "addend_i": 0, "n_i": n_i,
            "narrow": 0, "precision": 0,
        }  # fmt: skip
        if p.along:
            counts = {"n_j": p.shape[p.lanes], "b_j": b_steps[p.lanes], "k": p.shape[p.axis]}
            low.build.emit("dot", low.build.home, **rows, **counts)
            continue
        summed = p.left.lanes == p.axis
        low.build.emit(
            "product",
            low.build.home,
            **rows,
            a_j=a_steps[p.axis],
            lane_i=int(p.inner is not None),
            lane_j=int(summed),
            a_lanes=1 if p.left.lanes is None else p.shape[p.left.lanes],
            b_j=b_steps[p.axis],
            n_j=p.shape[p.axis],
            n_inner=dst.rows,
        )
    return [dst]


def _loops(p: SumOfProducts, node: Node, views: Sequence[View]) -> tuple[list[Axis], Axis]:
    """The loops over all axes of the result but its lanes, and the one that an instruction makes itself, of i: through
    the lanes of `left`, or else through axes that `right` has not. Steps of the result, of left, of right."""
    dst, left, right = views
    axes: list[Axis] = []
    own: Axis = (1, (0, 0, 0))
    to = iter(dst.steps)
    for d, (count, a, b) in enumerate(zip(p.shape, p.left.steps(left), p.right.steps(right), strict=True)):
        if d == p.axis:
            if node.attrs["keepdims"]:
                next(to)
            continue
        if d == p.lanes:
            continue
        step = (count, (next(to), a, b))
        if d == p.inner:
            own = step
        else:
            axes.append(step)
    merged = merge(axes) if axes else []
    if p.inner is None:
        free = [axis for axis in merged if axis[1][2] == 0]
        if free:
            own = max(free, key=lambda axis: axis[0])
            merged.remove(own)
    return [axis for axis in merged if axis[0] > 1], own
