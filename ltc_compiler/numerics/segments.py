"""The bf16 activations (9) as exact integer line segments: two small tables in place of one with 65,536 entries a unit.

The bits of a result are a line in the bits of the input over runs of mantissas. A *block* is the 128 mantissas of one
sign and exponent. It is cut into 2^splits runs of equal length, so that a run is found by the leading bits of the
mantissa, without a search. In a run, with `offset` the bits of the mantissa behind those,

    result = base + ((slope * offset + start) >> FRACTION)     modulo 2^16

gives the entry of the table exactly: no correction follows. The bits of a result are those of the table, and whoever
makes a machine of these tables, in hardware or in another language, needs integer arithmetic alone. Blocks that differ
in their base share their segments: the exponents of 1 / x, for example. An odd or an even function has the blocks of
positive inputs alone. A subnormal input is the zero of its sign, and a NaN gives the NaN: neither needs an entry.

Of sines and cosines of large numbers, neighbours have nothing in common, so there a segment is one entry.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltc_compiler.numerics.activations import ACTIVATIONS, ACTIVATIONS_BF16

FRACTION = 6
SLOPE_BITS = 12  # signed
START_BITS = 16 + FRACTION  # signed
MANTISSAS, EXPONENTS, SIGN = 128, 256, 0x8000
NAN, INFINITY = 0x7FC0, 0x7F80

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Segments:
    """Both tables of all functions, in the order of numerics.ACTIVATIONS.

    base, first, splits: (functions, 2 signs, 256 exponents), of the blocks; `first` is a block's first segment. slope,
    start: (segments,). odd, even: (functions,), whether f(-x) is -f(x), or f(x): then sign 1 has no blocks of its own.
    """

    base: I64
    first: I64
    splits: I64
    slope: I64
    start: I64
    odd: NDArray[np.bool_]
    even: NDArray[np.bool_]

    def evaluate(self, name: str, inputs: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The results of a function for bf16 bit patterns, by the two tables alone."""
        function = ACTIVATIONS.index(name)
        x = inputs.astype(np.int64)
        mirrored = self.odd[function] or self.even[function]
        sign, exponent, mantissa = x >> 15, x >> 7 & 0xFF, x & 0x7F
        block = (function, 0 * sign if mirrored else sign, exponent)
        length = MANTISSAS >> self.splits[block]
        segment = self.first[block] + mantissa // length
        line = self.slope[segment] * (mantissa % length) + self.start[segment]
        result = (self.base[block] + (line >> FRACTION)) & 0xFFFF
        if self.odd[function]:
            result ^= sign << 15
        is_nan = ((x & 0x7FFF) > INFINITY) | ((result & 0x7FFF) > INFINITY)
        return np.where(is_nan, NAN, result).astype(np.uint16)


def _table(name: str) -> I64:
    """A function's entries, (signs, exponents, mantissas), with those of NaN inputs as that of the infinity."""
    table = ACTIVATIONS_BF16[name].astype(np.int64).reshape(2, EXPONENTS, MANTISSAS).copy()
    table[:, 255] = table[:, 255, :1]
    return table


def _wrapped(difference: I64) -> I64:
    return (difference + SIGN) % (2 * SIGN) - SIGN


def _lines(runs: I64) -> tuple[NDArray[np.bool_], I64, I64]:
    """Whether each run, (..., length), is a line, and its slope and start; runs are relative to their block's base."""
    length = runs.shape[-1]
    if length == 1:
        return np.ones(runs.shape[:-1], bool), np.zeros(runs.shape[:-1], np.int64), runs[..., 0] << FRACTION
    relative = _wrapped(runs - runs[..., :1])
    mean = np.floor(relative[..., -1] * 2**FRACTION / (length - 1)).astype(np.int64)
    reach = 2**FRACTION // (length - 1) + 2
    slopes = mean[..., None] + np.arange(-reach, reach + 1)
    offset = np.arange(length)
    least = np.full(slopes.shape, -(2**40))
    most = -least
    for position in offset:  # start lies between both where every entry is met
        needed = (relative[..., position, None] << FRACTION) - slopes * position
        least, most = np.maximum(least, needed), np.minimum(most, needed + 2**FRACTION - 1)
    limit = 2 ** (SLOPE_BITS - 1)
    fits = (least <= most) & (-limit <= slopes) & (slopes < limit)
    chosen = np.argmax(fits, axis=-1)[..., None]
    slope = np.take_along_axis(slopes, chosen, -1)[..., 0]
    start = np.take_along_axis(least, chosen, -1)[..., 0] + (runs[..., 0] << FRACTION)
    half = 2 ** (START_BITS - 1)
    return fits.any(-1), slope, (start + half) % (2 * half) - half


def _block_lines(blocks: I64) -> tuple[I64, list[tuple[I64, I64]]]:
    """splits, and slopes with starts, of every block of (blocks, 128): the fewest segments that are exact."""
    relative = _wrapped(blocks - blocks[:, :1])
    splits = np.full(len(blocks), -1)
    lines: list[tuple[I64, I64]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))] * len(blocks)
    for power in range(8):
        open_blocks = np.flatnonzero(splits < 0)
        runs = relative[open_blocks].reshape(len(open_blocks), 2**power, MANTISSAS >> power)
        fits, slope, start = _lines(runs)
        for i in np.flatnonzero(fits.all(axis=1)):
            splits[open_blocks[i]] = power
            lines[open_blocks[i]] = (slope[i], start[i])
    return splits, lines


@functools.cache
def segments() -> Segments:
    """The tables, made from activation_tables.bin in a few seconds; the same every time."""
    shape = (len(ACTIVATIONS), 2, EXPONENTS)
    base, first, splits = (np.zeros(shape, np.int64) for _ in range(3))
    slopes: list[int] = []
    starts: list[int] = []
    places: dict[tuple[bytes, bytes], int] = {}
    odd, even = np.zeros(len(ACTIVATIONS), bool), np.zeros(len(ACTIVATIONS), bool)
    for function, name in enumerate(ACTIVATIONS):
        table = _table(name)
        is_nan = (table & 0x7FFF) > INFINITY
        odd[function] = bool((is_nan | (table[1] == table[0] ^ SIGN)).all())
        even[function] = not odd[function] and bool((table[1] == table[0]).all())
        signs = 1 if odd[function] or even[function] else 2
        blocks = table[:signs].reshape(-1, MANTISSAS)
        powers, lines = _block_lines(blocks)
        for block, (slope, start) in enumerate(lines):
            key = (slope.tobytes(), start.tobytes())
            if key not in places:
                places[key] = len(slopes)
                slopes += slope.tolist()
                starts += start.tolist()
            at = (function, block // EXPONENTS, block % EXPONENTS)
            base[at], first[at], splits[at] = blocks[block, 0], places[key], powers[block]
    return Segments(base, first, splits, np.array(slopes), np.array(starts), odd, even)
