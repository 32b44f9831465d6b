"""Operators, orders of summation, synapses and the LTC update: rules 2, 6, 7, 11, 12 and 15 of docs/numerics.md.

An operator is one IEEE-754 operation and returns its raw result; so do the sums. The caller makes the
result architectural with write_fp32 or to_bf16, as its instruction says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ltc_compiler.numerics.activations import ACTIVATIONS_FP32, activation_bf16
from ltc_compiler.numerics.rounding import (
    F32,
    MAGNITUDE,
    NAN_BITS,
    SIGN,
    bits,
    from_bits,
    quiet,
    to_bf16,
    write_fp32,
)

ACCUMULATORS = 64
FMOD_LIMIT = np.float32(2.0**40)

# --- operators: one IEEE-754 operation each (2, 6) ----------------------------------------------------


def _binary(operation: Callable[..., Any]) -> Callable[[npt.ArrayLike, npt.ArrayLike], F32]:
    @quiet
    def apply(a: npt.ArrayLike, b: npt.ArrayLike) -> F32:
        result: F32 = np.asarray(operation(np.asarray(a, np.float32), np.asarray(b, np.float32)), np.float32)
        return result

    return apply


add, sub, mul, div = (_binary(f) for f in (np.add, np.subtract, np.multiply, np.divide))
lt, le, gt, ge = (_binary(f) for f in (np.less, np.less_equal, np.greater, np.greater_equal))
eq, ne = _binary(np.equal), _binary(np.not_equal)


@quiet
def sqrt(x: npt.ArrayLike) -> F32:
    return np.asarray(np.sqrt(np.asarray(x, np.float32)))


def neg(x: npt.ArrayLike) -> F32:
    return from_bits(bits(x) ^ SIGN)


def absolute(x: npt.ArrayLike) -> F32:
    return from_bits(bits(x) & MAGNITUDE)


@quiet
def floor(x: npt.ArrayLike) -> F32:
    return np.asarray(np.floor(np.asarray(x, np.float32)))


@quiet
def round_even(x: npt.ArrayLike) -> F32:
    """The nearest whole number, of two the even one, with the sign of x (15)."""
    return np.asarray(np.rint(np.asarray(x, np.float32)))


@quiet
def fmod(a: npt.ArrayLike, b: npt.ArrayLike) -> F32:
    """a less the multiple of b that a / b, cut to a whole number, tells: exact; NaN for |a| / |b| from 2^40 on (15)."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    near = np.abs(a) / np.abs(b) < FMOD_LIMIT
    return np.where(near, np.fmod(a, b), from_bits(NAN_BITS))


@quiet
def maximum(a: npt.ArrayLike, b: npt.ArrayLike) -> F32:
    """NaN if either is NaN, else a > b ? a : b; so of two zeros the second (6)."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return np.where((a != a) | (b != b), from_bits(NAN_BITS), np.where(a > b, a, b))


@quiet
def minimum(a: npt.ArrayLike, b: npt.ArrayLike) -> F32:
    """NaN if either is NaN, else a < b ? a : b (6)."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return np.where((a != a) | (b != b), from_bits(NAN_BITS), np.where(a < b, a, b))


def relu(x: npt.ArrayLike) -> F32:
    return maximum(x, np.float32(0))


def select(condition: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> F32:
    """a where the condition is not zero, a NaN included; else b."""
    chosen = np.asarray(condition, np.float32) != 0
    return np.where(chosen, np.asarray(a, np.float32), np.asarray(b, np.float32))


# --- orders of summation (7) --------------------------------------------------------------------------


@quiet
def tree_sum(x: npt.ArrayLike) -> F32:
    """The sum over the last axis, (..., K) -> (...), in the order of rule 7, not yet written.

    Term k goes to accumulator (k // 2) mod 64, k ascending; then a balanced tree of adjacent pairs.
    """
    x = np.asarray(x, np.float32)
    beats = -(-x.shape[-1] // (2 * ACCUMULATORS))
    padded = np.zeros((*x.shape[:-1], beats * 2 * ACCUMULATORS), np.float32)
    padded[..., : x.shape[-1]] = x  # an accumulator is never -0, so that adding +0 is to add nothing
    terms = padded.reshape(*x.shape[:-1], beats, ACCUMULATORS, 2)
    total: F32 = np.zeros((*x.shape[:-1], ACCUMULATORS), np.float32)
    for beat in range(beats):
        total = total + terms[..., beat, :, 0]
        total = total + terms[..., beat, :, 1]
    while total.shape[-1] > 1:
        total = total[..., 0::2] + total[..., 1::2]
    return total[..., 0]


@quiet
def dot(
    w: npt.ArrayLike,
    x: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    k: int | None = None,
    fp32: bool = False,
) -> F32:
    """Products of w (M, K) with x (..., K), giving (..., M) in the order of rule 7, not yet written.

    bias: (M,), added last. k: only the first k terms exist. fp32: operands are read as fp32; without it
    they are read as bf16, which changes nothing for operands that are bf16 already.
    """
    read = np.asarray if fp32 else to_bf16
    w = read(np.asarray(w, np.float32)[..., :k])
    x = read(np.asarray(x, np.float32)[..., :k])
    total = tree_sum(w * x[..., None, :])
    return total if bias is None else total + np.asarray(bias, np.float32)


def reduce_max(x: npt.ArrayLike) -> F32:
    """The maximum over the last axis, (..., K) -> (...), K >= 1, by rule 6 in ascending order."""
    x = np.asarray(x, np.float32)
    result: F32 = x[..., 0]
    for position in range(1, x.shape[-1]):
        result = maximum(result, x[..., position])
    return result


# --- synapses and the LTC update (11, 12) -------------------------------------------------------------


@quiet
def synapse(
    v: npt.ArrayLike,
    src: npt.ArrayLike,
    mu: npt.ArrayLike,
    sigma: npt.ArrayLike,
    w: npt.ArrayLike,
    we: npt.ArrayLike,
    fp32: bool = False,
    valid: npt.ArrayLike | None = None,
    start: tuple[npt.ArrayLike, npt.ArrayLike] = (0.0, 0.0),
) -> tuple[F32, F32]:
    """Numerator and denominator (..., targets) of the synapses on each target, every operation written (11).

    v: (..., sources). src: (slots, targets) integers, ascending along a target's slots; mu, sigma, w, we:
    the same shape; valid: the slots that exist, all without it. start: what the two sums begin with.
    fp32: fp32 parameters and fp32 sigmoid; without it parameters and v are read as bf16.
    """
    read = np.asarray if fp32 else to_bf16
    v, src = read(np.asarray(v, np.float32)), np.asarray(src)
    mu, sigma, w, we = (read(np.asarray(p, np.float32)) for p in (mu, sigma, w, we))
    exists = np.ones(src.shape, bool) if valid is None else np.asarray(valid, bool)
    shape = (*v.shape[:-1], src.shape[1])
    num, den = (np.broadcast_to(np.asarray(s, np.float32), shape) for s in start)
    for slot in range(src.shape[0]):
        x = sigma[slot] * write_fp32(v[..., np.where(exists[slot], src[slot], 0)] - mu[slot])
        s = ACTIVATIONS_FP32["sigmoid"](write_fp32(x)) if fp32 else activation_bf16("sigmoid", x)
        num = np.where(exists[slot], write_fp32(num + write_fp32(s * we[slot])), num)
        den = np.where(exists[slot], write_fp32(den + write_fp32(s * w[slot])), den)
    return num + np.float32(0), den + np.float32(0)


def ltc_update(
    v: npt.ArrayLike,
    num: npt.ArrayLike,
    den: npt.ArrayLike,
    *,
    leak: npt.ArrayLike,
    conductance: npt.ArrayLike,
    cm: npt.ArrayLike,
    h: npt.ArrayLike,
) -> F32:
    """One unfold of the LTC state v in the delta form, each operation an architectural write (12).

    num, den: from synapse. leak: gleak * vleak; conductance: gleak + eps; both folded. cm: capacitance.
    h: elapsed time times the written reciprocal of the number of unfolds.
    """
    n = write_fp32(add(leak, num))
    d = write_fp32(add(conductance, den))
    drive = write_fp32(mul(h, write_fp32(sub(n, write_fp32(mul(d, v))))))
    inertia = write_fp32(add(cm, write_fp32(mul(h, d))))
    return write_fp32(add(v, write_fp32(div(drive, inertia))))
