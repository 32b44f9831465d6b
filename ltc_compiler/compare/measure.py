"""How far an array of the machine is from the exact one: errors, units in the last place, and values that were lost.

An ulp of a format is that of the exact value, at the least that of 2^-126. Where one of two values is a NaN or an
infinity and the other is not the same, the error is infinite.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ltc_compiler.ir.graph import Array

DIGITS = {"bf16": 8, "fp32": 24}  # of the significand
MIN_EXPONENT = -126
ULP_BINS = (0.0, 0.5, 1.0, 2.0, 4.0, 16.0, 256.0)  # upper ends; one more bin holds what is above


class Figures(NamedTuple):
    """How far an array of the machine is from the exact one.

    Attributes:
        max: the largest absolute error.
        rms: the root mean square of the absolute errors.
        relative: rms over the root mean square of the exact values.
        bf16_ulps: how many errors, in ulps of bf16, fall into each bin of ULP_BINS, and above the last one.
        fp32_ulps: the same in ulps of fp32.
        saturated: infinities of the machine where the exact value is finite.
        flushed: zeros of the machine where the exact value is below 2^-126 and not zero.
        nans: NaNs of the machine where the exact value is none.
    """

    max: float
    rms: float
    relative: float
    bf16_ulps: tuple[int, ...]
    fp32_ulps: tuple[int, ...]
    saturated: int
    flushed: int
    nans: int


def measure(machine: Array, exact: Array) -> Figures:
    """The figures of two fp64 arrays of one shape."""
    error = errors(machine, exact)
    tiny = (exact != 0) & (np.abs(exact) < 2.0**MIN_EXPONENT)
    return Figures(
        float(error.max(initial=0.0)),
        rms(error),
        relative(machine, exact),
        _histogram(error, exact, DIGITS["bf16"]),
        _histogram(error, exact, DIGITS["fp32"]),
        int((np.isinf(machine) & np.isfinite(exact)).sum()),
        int((tiny & (machine == 0)).sum()),
        int((np.isnan(machine) & ~np.isnan(exact)).sum()),
    )


def errors(machine: Array, exact: Array) -> Array:
    """|machine - exact|: 0 where both are the same infinity or NaN, infinite where only one is."""
    with np.errstate(all="ignore"):
        error = np.abs(machine - exact)
    same = (machine == exact) | (np.isnan(machine) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))


def relative(machine: Array, exact: Array) -> float:
    """rms of the error over rms of the finite exact values; infinite for an error of a zero."""
    error = rms(errors(machine, exact))
    size = rms(np.where(np.isfinite(exact), exact, 0.0))
    return error / size if size else (np.inf if error else 0.0)


def rms(values: Array) -> float:
    """Root of the mean square; 0 for none. Scaled, so that it neither overflows nor underflows."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.mean((values / largest) ** 2)))


def _histogram(error: Array, exact: Array, digits: int) -> tuple[int, ...]:
    exponent = np.where(exact == 0, MIN_EXPONENT, np.frexp(exact)[1] - 1)
    ulp = np.ldexp(1.0, np.maximum(exponent, MIN_EXPONENT) - (digits - 1))
    bins = np.searchsorted(ULP_BINS, (error / ulp).ravel(), side="left")
    return tuple(int(n) for n in np.bincount(bins, minlength=len(ULP_BINS) + 1))
