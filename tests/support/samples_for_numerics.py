"""Numbers, comparisons and single roundings that the tests of the numeric contract share."""

from __future__ import annotations

import importlib
import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np

from ltc_compiler import numerics

core: Any = importlib.import_module("ltc_compiler._core").numerics

EDGES = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 2.0**-126, -(2.0**-126), 2.0**-127, 2.0**-149, 3.4028235e38,
     3.3895314e38, 3.3961776e38, -87.33655, -87.3365, 88.72284, 88.72283, -104, 104, 0.64, 0.5, -127.5,
     127.99999, 128, -126, 448, 449, 464, 465, 2.0**-10, 3 * 2.0**-10, -13.2, -10.1, -9.9, 15, -15, 11, 1e-30],
    np.float32,
)  # fmt: skip
NANS = np.array(
    [0x7F800001, 0x7FC00001, 0xFFC00000, 0xFFFFFFFF, 0x00800000, 0x007FFFFF, 0x807FFFFF], np.uint32
)


def sample(count: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Every edge, then bit patterns and plain numbers at random."""
    rng = np.random.default_rng(seed)
    anything = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    usual = (rng.standard_normal(count) * rng.choice([0.1, 1, 5, 40], count)).astype(np.float32)
    return np.concatenate([EDGES, NANS.view(np.float32), anything, usual])


def same_number(a: Any, b: Any) -> None:
    """Equal bits, except that one NaN is as good as another: a raw result may carry any."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    assert np.array_equal(numerics.bits(numerics.select(a != a, np.nan, a)),
                          numerics.bits(numerics.select(b != b, np.nan, b)))  # fmt: skip


def same_bits(a: Any, b: Any) -> None:
    assert np.array_equal(numerics.bits(a), numerics.bits(b))


def f32(x: float) -> float:
    """x rounded to fp32 by struct; beyond the range, infinity."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", x))[0])
    except OverflowError:
        return math.copysign(math.inf, x)


def nearest(value: Fraction, negative: bool, low_bits: int) -> int:
    """The fp32 pattern, `low_bits` of it zero, nearest to value: ties to even, flushed. By bisection."""

    def number(step: int) -> Fraction:
        """The step-th number of the format from zero on; it goes on where infinity stands."""
        precision = 23 - low_bits
        exponent, mantissa = divmod(step, 1 << precision)
        lead = (1 << precision) + mantissa if exponent else mantissa
        return Fraction(lead) * Fraction(2) ** (max(exponent, 1) - 127 - precision)

    low, high = 0, 0xFF << (23 - low_bits)
    magnitude = min(abs(value), number(high))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if number(middle) <= magnitude else (low, middle)
    below, above = magnitude - number(low), number(high) - magnitude
    step = high if above < below or (above == below and high % 2 == 0) else low
    pattern = step << low_bits
    return (pattern if pattern >= 0x00800000 else 0) | (0x80000000 if negative else 0)
