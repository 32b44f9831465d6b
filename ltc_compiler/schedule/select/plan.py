"""What is decided about the products of a model before its instructions are selected.

Products over several values side by side read them where they lie. Such a value, a window, is never put together if
products are all that reads it: a tap is a run of rows, and the matrix instruction steps from tap to tap (windows.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltc_compiler.config import Config
from ltc_compiler.ir.graph import Graph, Value
from ltc_compiler.schedule.rows.layout import row_count
from ltc_compiler.schedule.select.sums_of_products import SumOfProducts, find_products
from ltc_compiler.schedule.spread.partition import Cut, Spread, cut_points, fused_relus, rotations
from ltc_compiler.schedule.spread.share import Division, Producers, shared_products

Taps = tuple[Value, ...]  # of a window: values of one width that a product reads side by side


class Plan:
    """What is decided, by the result of the product: cuts, the pieces that its rows are cut into; relus, the result of
    the relu that it applies itself; producers, which core computes which row tiles, where these are lent; rotations,
    the offset of the core that its rows begin on. windows: by the result of a concatenation, its taps. sums: those of
    products of computed values. spared: values that are never computed."""

    def __init__(self, config: Config, spread: Spread, helpers: Sequence[int]) -> None:
        """helpers: the cores that may compute what is lent."""
        self._config = config
        self.spread = spread
        self._helpers = tuple(helpers)
        self.cuts: dict[Value, tuple[Cut, ...]] = {}
        self.relus: dict[Value, Value] = {}
        self.windows: dict[Value, Taps] = {}
        self.sums: dict[Value, SumOfProducts] = {}
        self.spared: set[Value] = set()
        self.producers: Producers = {}
        self.rotations: dict[Value, int] = {}

    def add(self, graph: Graph, cores: Sequence[int]) -> None:
        """Decide for a graph, or the body of a loop, whose values belong to some cores."""
        block = self._config.block_size
        self.cuts |= cut_points(graph)
        self.relus |= fused_relus(graph)
        self.windows |= find_windows(graph, block)
        sums, spared = find_products(graph)
        self.sums |= sums
        self.spared |= spared
        if self.spread.rotate:
            self.rotations |= rotations(graph, self.cuts, block, len(cores))
        if self.spread.lending:
            division = Division(self.cuts, cores, self.spread.grain, self._helpers)
            self.producers |= shared_products(graph, self._config, division)


def find_windows(graph: Graph, block: int) -> dict[Value, Taps]:
    """The concatenations that only products read, and whose parts would begin on rows of their own."""
    kept = {*graph.outputs, *(s.next for s in graph.states)}
    uses = graph.uses()
    found = {}
    for node in graph.nodes:
        if node.op != "concat" or node.attrs["axis"] != node.results[0].type.rank - 1:
            continue
        value = node.results[0]
        read = uses.get(value, [])
        if value in kept or not all(n.op == "linear" and value not in n.operands[1:] for n in read):
            continue
        window = _window(node.operands, block)
        if window is not None:
            found[value] = window
    return found


def _window(parts: Sequence[Value], block: int) -> Taps | None:
    """The taps of a window: parts of one width, with or without gaps of one width between them."""
    gaps = parts[1::2] if len(parts) > 2 and is_gap(parts[1]) and not is_gap(parts[0]) else ()
    taps = parts[::2] if gaps else parts
    width = taps[0].shape[-1]
    room = width + (gaps[0].shape[-1] if gaps else 0)
    even = all(v.shape[-1] == width for v in taps) and all(
        is_gap(v) and v.shape[-1] == room - width for v in gaps
    )
    fits = len(gaps) in (0, len(taps) - 1) and row_count(width, block) * block == room
    return tuple(taps) if even and fits and len(taps) > 1 and width > 1 else None


def is_gap(value: Value) -> bool:
    """Whether a part of a concatenation is there for its width alone: zeros, of which none is -0."""
    array = value.constant()
    return array is not None and not array.any() and not np.signbit(array).any()
