"""Products of the state alone, lent to cores that have less to do.

A recurrent cell adds two products: one waits for the input, the other depends on the state alone and is wanted late.
So does a streamed convolution. The rows of the second are computed on whichever cores the rest of the graph leaves
idle, and sent to the core that adds them. What waits for the input stays where it is, and crosses no more links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from ltc_compiler.bytecode.cost import row_tiles_in_flight
from ltc_compiler.config import Config
from ltc_compiler.ir.graph import Graph, Node, Value
from ltc_compiler.schedule.rows.layout import row_count
from ltc_compiler.schedule.spread.partition import Cut, ends_in, spread_rows


class RowTile(NamedTuple):
    """A row tile of a product: number `number` of those that core `owner` adds to its rows in a band."""

    band: int
    owner: int
    number: int


Producers = dict[Value, dict[int, list[RowTile]]]  # by product and core: what that core computes, in order


@dataclass(frozen=True)
class Division:
    """What decides which core computes which rows of a graph's products: where they are cut, the cores that own
    values, the grain of the bands, and the cores that may help."""

    cuts: dict[Value, tuple[Cut, ...]]
    cores: Sequence[int]
    grain: int
    helpers: Sequence[int]


def shared_products(graph: Graph, config: Config, division: Division) -> Producers:
    """Where the row tiles of state-only products are computed: by their owner while it has no more than its share of
    all beats, else by the core with the fewest. As many go together as the matrix unit needs to hide its adders."""
    early = {s.value for s in graph.states}
    uses = graph.uses()
    load = dict.fromkeys(division.helpers, 0)
    lent: list[Node] = []
    beats: dict[Node, int] = {}
    for node in graph.nodes:
        if all(v in early or v.is_constant for v in node.operands):
            early.update(node.results)
        if node.op != "linear":
            continue
        beats[node] = prod(node.results[0].shape[:-1]) * row_count(
            node.operands[1].shape[1], config.block_size
        )
        if node.results[0] in early and _can_be_lent(node, uses):
            lent.append(node)
        else:
            for row_tile in _row_tiles(node, config, division):
                load[row_tile.owner] += beats[node]
    wanted = {node: list(_row_tiles(node, config, division)) for node in lent}
    share = -(-(sum(load.values()) + sum(beats[n] * len(wanted[n]) for n in lent)) // len(load))
    together = min(config.accumulators, row_tiles_in_flight(config))
    producers: Producers = {}
    for node in lent:
        found = producers[node.results[0]] = {}
        for first in range(0, len(wanted[node]), together):
            group = wanted[node][first : first + together]
            cost = beats[node] * len(group)
            idle = min(load, key=lambda core: load[core])
            producer = (
                group[0].owner if load[group[0].owner] + cost <= max(share, load[idle] + cost) else idle
            )
            load[producer] += cost
            found.setdefault(producer, []).extend(group)
    return producers


def _row_tiles(node: Node, config: Config, division: Division) -> list[RowTile]:
    whole = ((0, node.results[0].shape[-1]),)
    cuts = division.cuts.get(node.results[0], whole)
    bands = spread_rows(cuts, config.block_size, node.cores or division.cores, division.grain)
    return [
        RowTile(number, owner, i)
        for number, band in enumerate(bands)
        for owner, own in band.items()
        for i in range(sum(stop - start for _, start, stop in own))
    ]


def _can_be_lent(node: Node, uses: dict[Value, list[Node]]) -> bool:
    bias = node.operands[2]
    readers = uses.get(node.results[0], [])
    return not node.cores and bias.is_constant and bias.type.rank == 1 and ends_in(node.results[0], readers)
