"""Which core computes which rows of a matrix product.

Whole rows of blocks go to a core: a dot product is never split, so the bits do not depend on the choice. A product
whose result is only ever read in pieces (the gates of a cell) is cut there first: every piece starts on a row of its
own and is spread alike, so that what the pieces meet in stays on one core.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import ConfigError
from ..ir.graph import Graph, State, Value
from ..transforms.pieces import is_piece, overlapping
from .layout import row_count

Cut = tuple[int, int]
Chunk = tuple[Cut, int, int]  # a piece, and the rows of it that a core computes


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
    """The cores of every state: those where the user placed what makes its next value, else the first that reads it."""
    uses = graph.uses()
    places = {}
    for state in graph.states:
        maker = [state.next.node] if state.next is not None and state.next.node is not None else []
        places[state] = next((n.cores for n in (*maker, *uses.get(state.value, [])) if n.cores), ())
    return places


def cut_points(graph: Graph) -> dict[Value, tuple[Cut, ...]]:
    """The pieces of every linear whose readers are all slices of the last axis that do not overlap."""
    kept = {*graph.outputs, *(s.next for s in graph.states)}
    uses = graph.uses()
    cuts: dict[Value, tuple[Cut, ...]] = {}
    for node in graph.nodes:
        if node.op == "linear" and node.results[0] not in kept:
            value = node.results[0]
            readers = uses.get(value, [])
            if readers and all(is_piece(r, value) for r in readers) and not overlapping(readers):
                cuts[value] = tuple(sorted({(r.attrs["start"], r.attrs["stop"]) for r in readers}))
    return cuts


def spread_rows(cuts: Sequence[Cut], block: int, cores: Sequence[int]) -> dict[int, list[Chunk]]:
    """For every core that takes part, its chunks; the rows of a piece are shared out evenly, in order."""
    chunks: dict[int, list[Chunk]] = {}
    for cut in cuts:
        rows = row_count(cut[1] - cut[0], block)
        taking_part = cores[:rows]
        part, more = divmod(rows, len(taking_part))
        start = 0
        for i, core in enumerate(taking_part):
            stop = start + part + (i < more)
            chunks.setdefault(core, []).append((cut, start, stop))
            start = stop
    return chunks


def padded_rows(chunks: Sequence[Chunk], block: int) -> NDArray[np.int64]:
    """The weight's row for every output lane of a core's chunks, -1 for padding."""
    index = []
    for (first, end), start, stop in chunks:
        rows = np.arange(first + start * block, first + stop * block)
        index.append(np.where(rows < end, rows, -1))
    return np.concatenate(index)
