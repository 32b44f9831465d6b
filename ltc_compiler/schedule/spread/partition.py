"""Which core computes which rows of a matrix product.

Whole rows of blocks go to a core: a dot product is never split, so the bits do not depend on the choice. A product
whose result is only ever read in pieces (the gates of a cell) is cut there first: every piece starts on a row of its
own and is spread in the same way, so that an op on several pieces finds its rows of all of them on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltc_compiler.config import Config
from ltc_compiler.errors import ConfigError
from ltc_compiler.ir.graph import Graph, Node, State, Value
from ltc_compiler.schedule.rows.layout import row_count
from ltc_compiler.transforms.pieces import is_piece, overlapping


@dataclass(frozen=True)
class Spread:
    """How a model is spread over the machine.

    cores: it uses the first so many of its cores, 0: all of them. grain: its products are cut into bands of so many
    rows per core, 0: one band. lending: products of the state alone may be computed on its other cores (share.py).
    rotate: each product begins on another core, so that rows that are left over are shared out too.
    """

    cores: int = 0
    grain: int = 0
    lending: bool = False
    rotate: bool = False


Cut = tuple[int, int]
Chunk = tuple[Cut, int, int]  # a piece, and the rows of it that a core computes
Band = dict[int, list[Chunk]]  # by core


def check_places(graph: Graph, cores: Sequence[int], config: Config) -> None:
    """Raises ConfigError for a CorePartition with a core that the model may not use, at the user's place."""
    for node in graph.walk():
        missing = sorted(set(node.cores) - set(cores))
        if missing:
            raise ConfigError(
                f"CorePartition names core {missing[0]}, and the model {graph.name!r} may use {list(cores)}",
                where=str(node.source),
                remedy=f"place it on one of these, or use more cores: {config.name} has {config.cores}",
            )


def state_places(graph: Graph) -> dict[State, tuple[int, ...]]:
    """The cores of every state: those on which the user placed the op that makes its next value, else the first placed
    op that reads it; none where neither is placed."""
    uses = graph.uses()
    places = {}
    for state in graph.states:
        maker = [state.next.node] if state.next is not None and state.next.node is not None else []
        places[state] = next((n.cores for n in (*maker, *uses.get(state.value, [])) if n.cores), ())
    return places


def cut_points(graph: Graph) -> dict[Value, tuple[Cut, ...]]:
    """The pieces of every linear that is read in pieces alone: by slices of the last axis that do not overlap. A linear
    whose one reader is another, which adds it, is cut as that one is."""
    kept = {*graph.outputs, *(s.next for s in graph.states)}
    uses = graph.uses()
    cuts: dict[Value, tuple[Cut, ...]] = {}
    for node in reversed(graph.nodes):
        if node.op == "linear" and node.results[0] not in kept:
            value = node.results[0]
            readers = uses.get(value, [])
            if ends_in(value, readers):
                cuts[value] = cuts.get(readers[0].results[0], ((0, value.shape[-1]),))
            elif (
                _cuttable(node, uses)
                and readers
                and all(is_piece(r, value) for r in readers)
                and not overlapping(readers)
            ):
                cuts[value] = tuple(sorted({(r.attrs["start"], r.attrs["stop"]) for r in readers}))
    return cuts


def fused_relus(graph: Graph) -> dict[Value, Value]:
    """The linears whose one reader is a relu, which the matrix unit applies itself, with the results of the relus."""
    kept = {*graph.outputs, *(s.next for s in graph.states)}
    fused: dict[Value, Value] = {}
    for value, readers in graph.uses().items():
        if value.node is None or value.node.op != "linear" or value in kept or len(readers) != 1:
            continue
        if readers[0].op == "relu" and readers[0].cores == value.node.cores:
            fused[value] = readers[0].results[0]
    return fused


def _cuttable(node: Node, uses: dict[Value, list[Node]]) -> bool:
    """Whether a product's bias can be cut as the product is: a constant, or a product that nothing else reads."""
    bias = node.operands[2]
    if bias.is_constant:
        return bias.type.rank == 1
    return bias.node is not None and bias.node.op == "linear" and ends_in(bias, uses[bias])


def ends_in(value: Value, readers: Sequence[Node]) -> bool:
    """Whether the one reader of a product is another product that adds it."""
    if value.node is None or len(readers) != 1 or readers[0].op != "linear":
        return False
    return readers[0].operands[2] is value and readers[0].cores == value.node.cores


def spread_rows(cuts: Sequence[Cut], block: int, cores: Sequence[int], grain: int = 0) -> list[Band]:
    """For every band and every core that takes part in it, its chunks; the rows of a piece are shared out evenly, in
    order.

    grain: rows of a piece per core and band, so that the first rows of a result are whole on all cores before the last
    are begun. 0: one band.
    """
    count = max((_bands(cut, block, cores, grain) for cut in cuts), default=1)
    bands: list[Band] = [{} for _ in range(count)]
    for cut in cuts:
        rows = row_count(cut[1] - cut[0], block)
        height = rows if count == 1 else grain * len(cores)
        for band, start in zip(bands, range(0, rows, height), strict=False):
            in_band = min(height, rows - start)
            taking_part = cores[:in_band]
            part, more = divmod(in_band, len(taking_part))
            for i, core in enumerate(taking_part):
                stop = start + part + (i < more)
                band.setdefault(core, []).append((cut, start, stop))
                start = stop
    return bands


def _bands(cut: Cut, block: int, cores: Sequence[int], grain: int) -> int:
    return -(-row_count(cut[1] - cut[0], block) // (grain * len(cores))) if grain else 1


def rotations(graph: Graph, cuts: dict[Value, tuple[Cut, ...]], block: int, cores: int) -> dict[Value, int]:
    """For every product, the offset of the core that its rows begin on: the cores that get a row more than others
    change from product to product.

    Products that end in each other have one offset. Other products that meet may then lie apart and have to be sent:
    this is for models that fill the weight stores."""
    found: dict[Value, int] = {}
    uses = graph.uses()
    extra = 0
    for node in reversed(graph.nodes):
        if node.op != "linear":
            continue
        value = node.results[0]
        readers = uses.get(value, [])
        if ends_in(value, readers):
            found[value] = found[readers[0].results[0]]
            continue
        first, end = cuts.get(value, ((0, value.shape[-1]),))[0]  # all pieces leave over as many
        found[value] = 0 if node.cores else extra % cores
        extra += row_count(end - first, block)
    return found


def padded_rows(chunks: Sequence[Chunk], block: int) -> NDArray[np.int64]:
    """The weight's row for every output lane of a core's chunks, -1 for padding."""
    index = []
    for (first, end), start, stop in chunks:
        rows = np.arange(first + start * block, first + stop * block)
        index.append(np.where(rows < end, rows, -1))
    return np.concatenate(index)
