"""What a program holds before it runs: on each core constants in rows, weight blocks, synapse slots, gather entries.

Equal contents are stored once: weights shared by two ops, or by two models, have one address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa, numerics
from ltc_compiler.config import Config
from ltc_compiler.schedule.rows.layout import View, fresh, pack, row_count
from ltc_compiler.schedule.rows.virtual import Buffer, Kind, Ref

Floats = NDArray[np.float32]
PIECE = 512  # entries of a gather up to which nothing is looked for that repeats


Group = tuple[NDArray[Any], ...]  # every array's leading axis counts items


def digest(*arrays: NDArray[Any]) -> bytes:
    """The key of arrays by type, shape and contents."""
    found = sha256()
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.digest()


@dataclass(eq=False)
class Store:
    """Items appended in groups; a group that is there already is found again by its key."""

    size: int = 0
    largest: int = 0  # of the groups
    parts: list[Callable[[], Iterable[Group]]] = field(default_factory=list)
    known: dict[bytes, int] = field(default_factory=dict)

    def add(self, *arrays: NDArray[Any]) -> int:
        """The address of a group of items."""
        return self.add_later(digest(*arrays), len(arrays[0]), lambda: [arrays])

    def add_later(self, key: bytes, size: int, make: Callable[[], Iterable[Group]]) -> int:
        """The address of a group of `size` items, which is made in pieces, when it is needed. key: of what it will
        hold."""
        if key not in self.known:
            self.known[key] = self.size
            self.parts.append(make)
            self.size += size
            self.largest = max(self.largest, size)
        return self.known[key]

    def fill(self, *columns: NDArray[Any]) -> None:
        """Write all items into arrays of that size, piece by piece; nothing is kept."""
        at = 0
        for part in self.parts:
            for piece in part():
                for column, array in zip(columns, piece, strict=True):
                    column[at : at + len(array)] = array
                at += len(piece[0])

    def column(self, i: int, empty: NDArray[Any]) -> NDArray[Any]:
        """All items of one array; `empty` gives dtype and item shape where there are none."""
        made = [piece for part in self.parts for piece in part()]
        if len(made) > 1:
            made = [tuple(np.concatenate(columns) for columns in zip(*made, strict=True))]
        self.parts = [lambda: made]  # made and joined once
        return made[0][i] if made else empty


@dataclass(eq=False)
class CoreStores:
    """The three stores of one core."""

    weights: Store = field(default_factory=Store)
    slots: Store = field(default_factory=Store)
    entries: Store = field(default_factory=Store)


class Contents:
    """The contents of one program; its models share them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stores = [CoreStores() for _ in range(config.cores)]
        self.constants: dict[tuple[bytes, tuple[int, ...], int], View] = {}
        self.rings = config.rings  # that may still be made; a core has no more than one of each
        self.slots: dict[bytes, Group] = {}  # synapse slots by their parameters and rows of targets

    def constant(
        self, array: NDArray[np.float64], core: int, original: NDArray[np.float64] | None = None
    ) -> View:
        """The rows of a constant, stored once per core. A last axis of 1 fills every lane. original: the array before
        it was rounded to bf16, which the plain fp32 machine holds instead."""
        block = self.config.block_size
        data = pack(array, block)
        exact = data if original is None else pack(original, block)
        key = (data.tobytes() + exact.tobytes(), array.shape, core)
        if key not in self.constants:
            buffer = Buffer(len(data), core, Kind.CONSTANT, data, original=exact)
            uniform = array.ndim == 0 or array.shape[-1] == 1
            self.constants[key] = fresh(Ref(buffer), array.shape, block, uniform)
        return self.constants[key]


def weight_blocks(
    weight: NDArray[Any], block: int, fp32: bool, fp8_exponent: int | None = None
) -> tuple[NDArray[np.uint16], Floats]:
    """Blocks of a weight (M, K), in fp64 or fp32, output row major, and their fp32 originals.

    bf16: one block each. fp32: the high halves, then the low halves. fp8_exponent: the values are those of fp8 times
    two to that power, which bf16 holds exactly.
    """
    rows, columns = (row_count(n, block) for n in weight.shape)
    padded = np.zeros((rows * block, columns * block), weight.dtype)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    wide = padded.reshape(rows, block, columns, block).transpose(0, 2, 1, 3).reshape(-1, block, block)
    tiles = np.ascontiguousarray(numerics.fold_fp32(wide))
    if not fp32:
        stored = numerics.fold_bf16(wide) if fp8_exponent is None else numerics.fold_fp8(wide, fp8_exponent)
        return (stored.view(np.uint32) >> np.uint32(16)).astype(np.uint16), tiles
    words = tiles.view(np.uint32)
    halves = np.stack([(words >> 16).astype(np.uint16), (words & 0xFFFF).astype(np.uint16)], 1)
    shadow = np.stack([tiles, np.zeros_like(tiles)], 1)
    return halves.reshape(-1, block, block), shadow.reshape(-1, block, block)


def synapse_slots(
    mu: NDArray[np.float64],
    sigma: NDArray[np.float64],
    w: NDArray[np.float64],
    we: NDArray[np.float64],
    mask: NDArray[np.float64],
    block: int,
    fp32: bool,
) -> tuple[NDArray[Any], ...]:
    """Slots (src, parameters, originals, last) of (sources, targets) synapses: for each row of targets as many slots
    as its largest fan-in, each lane's sources ascending."""
    targets = mask.shape[1]
    lanes, sources = np.nonzero(mask.T)  # by target, then by source
    fan_in = np.bincount(lanes, minlength=targets)
    depths = [max(1, *fan_in[first : first + block]) for first in range(0, targets, block)]
    ends = np.cumsum(depths)
    rank = np.arange(len(lanes)) - np.repeat(np.cumsum(fan_in) - fan_in, fan_in)
    slot = (ends - depths)[lanes // block] + rank
    src = np.full((ends[-1], block), isa.ABSENT, np.uint16)
    src[slot, lanes % block] = sources
    wide = np.zeros((ends[-1], 4, block))
    for i, array in enumerate((mu, sigma, w, we)):
        wide[slot, i, lanes % block] = array[sources, lanes]
    last = np.zeros(ends[-1], np.uint8)
    last[ends - 1] = 1
    exact = numerics.fold_fp32(wide)
    return src, exact if fp32 else numerics.fold_bf16(wide), exact, last


def gather_entries(
    out_row: NDArray[np.int64],
    out_lane: Sequence[NDArray[np.int64]],
    source: NDArray[np.int64],
    clear: bool,
    block: int,
) -> tuple[NDArray[Any], ...]:
    """Entries (src, dst, clear, lane) that copy elements: element e goes from row source[e], lane out_lane[1][e] to
    row out_row[e], lane out_lane[0][e]. One entry per pair of rows. clear: the first entry of a destination row zeroes
    the lanes that it does not set."""
    to_lane, from_lane = out_lane
    pairs = np.stack([out_row, source], 1)
    unique, which = np.unique(pairs, axis=0, return_inverse=True)
    lanes = np.full((len(unique), block), isa.ABSENT, np.uint16)
    lanes[which.ravel(), to_lane] = from_lane
    first = np.r_[True, unique[1:, 0] != unique[:-1, 0]]
    clears = (first & clear).astype(np.uint8)
    return unique[:, 1].astype(np.int32), unique[:, 0].astype(np.int32), clears, lanes


def repeats(entries: tuple[NDArray[Any], ...]) -> tuple[tuple[NDArray[Any], ...], list[tuple[int, int, int]]]:
    """A gather whose pattern repeats with even steps through its rows, in pieces: the entries of one piece, and of each
    piece how many of them it takes and its offset in rows of source and destination."""
    src, dst, clear, lane = entries
    total = len(src)
    first = np.flatnonzero(np.r_[True, dst[1:] != dst[:-1]])  # of each destination row
    if total <= PIECE or len(first) < 2:
        return entries, [(total, 0, 0)]
    ends = np.r_[first[1:], total]
    known: dict[bytes, int] = {}
    patterns = np.array(
        [
            known.setdefault(
                (src[b:e] - src[b]).tobytes() + clear[b:e].tobytes() + lane[b:e].tobytes(), int(b)
            )
            for b, e in zip(first, ends, strict=True)
        ]
    )
    rows = np.stack([patterns, src[first], dst[first]])
    period = _period(rows)
    if period is None:
        return entries, [(total, 0, 0)]
    _, src_step, dst_step = rows[:, period] - rows[:, 0]
    count = max(1, PIECE // int(ends[period - 1]))  # as many periods as fill a piece
    starts = np.r_[first[:: period * count], total]
    pieces = [
        (int(e - b), i * count * int(src_step), i * count * int(dst_step))
        for i, (b, e) in enumerate(pairwise(starts))
    ]
    return tuple(column[: starts[1]] for column in entries), pieces


def _period(rows: NDArray[np.int64]) -> int | None:
    """The number of rows (pattern, source, destination) after which the patterns repeat, always with the same steps."""
    for period in np.flatnonzero(rows[0, 1:] == rows[0, 0]) + 1:
        step = rows[:, period:] - rows[:, :-period]
        if (step == step[:, :1]).all() and step[0, 0] == 0 and (step[:, 0] >= 0).all():
            return int(period)
    return None
