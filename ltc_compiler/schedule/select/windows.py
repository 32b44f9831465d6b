"""How a product reads a window (plan.py), tap by tap.

Taps that lie a constant number of rows apart are read in place: those of a delay line or of a sequence do, at any
dilation. Others are moved beside each other, whole rows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ltc_compiler.ir.graph import Value
from ltc_compiler.schedule.rows.layout import View
from ltc_compiler.schedule.select.lowering import Lowering
from ltc_compiler.schedule.select.move import take
from ltc_compiler.schedule.select.plan import Taps


@dataclass(frozen=True)
class TapRows:
    """What a product reads on a core: `count` taps that begin `step` rows apart; `first` is the first of them."""

    first: View
    count: int = 1
    step: int = 0


def read_window(low: Lowering, window: Taps, cores: Sequence[int]) -> dict[int, TapRows]:
    """The taps on each core. Taps that are slices of one value travel as that value, once."""
    for root in dict.fromkeys(_root(v) for v in window):
        low.values.everywhere(root, cores)
    return {core: _on(low, window, core) for core in cores}


def _root(value: Value) -> Value:
    """The value that a tap is cut from along other axes than the last, if it is."""
    node = value.node
    while node is not None and node.op == "slice" and node.attrs["axis"] < value.type.rank - 1:
        value = node.operands[0]
        node = value.node
    return value


def _on(low: Lowering, window: Taps, core: int) -> TapRows:
    views = [low.build.vectors(_tap(low, v, core)) for v in window]
    first, second = views[:2]
    step = second.ref.offset - first.ref.offset
    if all(v == replace(first, ref=first.ref.at(i * step)) for i, v in enumerate(views)):
        return TapRows(first, len(views), step)
    together = low.build.new((*first.dims, len(views), first.width), core)
    inner = together.rows
    for i, view in enumerate(views):
        place = replace(together, ref=together.ref.at(i * inner), shape=view.shape, steps=together.steps[:-1])
        low.build.copy(view, place)
    whole = replace(together, shape=first.shape, steps=together.steps[:-1])
    return TapRows(whole, len(views), inner)


def _tap(low: Lowering, value: Value, core: int) -> View:
    root = _root(value)
    if root is value:
        return low.values.everywhere(value, [core])[core]
    node = value.node
    assert node is not None
    a = node.attrs
    return take(low.build, _tap(low, node.operands[0], core), a["axis"], a["start"], a["stop"], a["step"])
