"""Formats, rounding and architectural writes: rules 1, 3, 4, 5 and 13 of docs/numerics.md.

A bf16 value travels as the fp32 number that it equals. Whatever the machine stores went through
write_fp32 or to_bf16; those two are the only places where it rounds, flushes or replaces a NaN. The
arithmetic here is on bit patterns, so that nothing depends on a CPU.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ltc_compiler.errors import LtcError

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]

SIGN, MAGNITUDE = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
INFINITY_BITS, SMALLEST_NORMAL, NAN_BITS = np.uint32(0x7F800000), np.uint32(0x00800000), np.uint32(0x7FC00000)

quiet = np.errstate(all="ignore")
"""Overflow, underflow and NaN are results here, not accidents."""


def bits(x: npt.ArrayLike) -> U32:
    """The fp32 bit patterns of x."""
    return np.asarray(x, np.float32).view(np.uint32)


def from_bits(u: npt.ArrayLike) -> F32:
    """The fp32 values with the bit patterns u."""
    return np.asarray(u, np.uint32).view(np.float32)


def require_ieee() -> None:
    """Refuse to compute in a thread whose floating-point unit drops subnormal numbers (3).

    Raises LtcError. Some libraries switch that on for the whole thread, and NumPy cannot undo it.
    """
    tiny = from_bits(np.array([1], np.uint32))
    if float((from_bits(np.array([SMALLEST_NORMAL])) * np.float32(0.5))[0]) == 0.0 or not (tiny > 0).all():
        raise LtcError(
            "this thread flushes subnormal numbers to zero, so NumPy is not IEEE-754 here",
            where="floating-point control register of the calling thread",
            remedy="switch it off, with torch for example: torch.set_flush_denormal(False)",
        )


def _flush(u: U32) -> U32:
    magnitude = u & MAGNITUDE
    kept = np.where(magnitude < SMALLEST_NORMAL, u & SIGN, u)
    return np.where(magnitude > INFINITY_BITS, NAN_BITS, kept)


def write_fp32(x: npt.ArrayLike) -> F32:
    """fp32 as the machine stores it: subnormals become zero of their sign, every NaN 0x7FC00000 (4)."""
    return from_bits(_flush(bits(x)))


@quiet
def to_bf16(x: npt.ArrayLike) -> F32:
    """x rounded to nearest even bf16, as fp32 numbers; overflow gives infinity, then as write_fp32 (1, 4)."""
    u = bits(x)
    rounded = (u + np.uint32(0x7FFF) + ((u >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return from_bits(_flush(np.where((u & MAGNITUDE) > INFINITY_BITS, NAN_BITS, rounded)))


def bf16_bits(x: npt.ArrayLike) -> U16:
    """The 16-bit patterns of x rounded to bf16."""
    return (bits(to_bf16(x)) >> np.uint32(16)).astype(np.uint16)


def from_bf16_bits(u: npt.ArrayLike) -> F32:
    """The fp32 values of bf16 bit patterns, unchanged."""
    return from_bits(np.asarray(u, np.uint16).astype(np.uint32) << np.uint32(16))


@quiet
def fold_fp32(x: npt.ArrayLike) -> F32:
    """A constant folded in fp64, rounded once to architectural fp32 (13)."""
    return write_fp32(x if _is_fp32(x) else np.asarray(x, np.float64).astype(np.float32))


def _is_fp32(x: npt.ArrayLike) -> bool:
    """Whether an array came in fp32, so that there is nothing to round to it."""
    return isinstance(x, np.ndarray) and x.dtype == np.float32


def _odd_fp32(x: npt.ArrayLike) -> F32:
    """fp64 as fp32, rounded to odd.

    Rounding to nearest here and to a narrower format later would round twice; rounding to odd keeps the
    information that the later rounding needs (Boldo and Melquiond, Emulation of FMA and correctly rounded
    sums, 2008).
    """
    if _is_fp32(x):
        return np.asarray(x, np.float32)
    wide = np.asarray(x, np.float64)
    near = wide.astype(np.float32)
    u = bits(near)
    away = np.abs(near.astype(np.float64)) > np.abs(wide)
    inexact = (near != wide) & ((u & np.uint32(1)) == 0) & (near == near)
    step = np.where(away, u - np.uint32(1), u + np.uint32(1))
    return from_bits(np.where(inexact, step, u))


@quiet
def fold_bf16(x: npt.ArrayLike) -> F32:
    """A constant folded in fp64, rounded once to bf16 (13)."""
    return to_bf16(_odd_fp32(x))


@quiet
def fold_fp8(x: npt.ArrayLike, exponent: int) -> F32:
    """A constant folded in fp64, rounded once to fp8 E4M3 with the scale 2^exponent, as bf16 values (5, 13)."""
    return decode_fp8_e4m3(encode_fp8_e4m3(_odd_fp32(x), exponent), exponent)


def _power_of_two(exponent: int) -> np.float32:
    return np.float32(2.0**exponent)


def fp8_scale_exponent(x: npt.ArrayLike) -> int:
    """The s of a tensor's scale 2^s: the smallest in -120..120 with max|x| <= 448 * 2^s (5)."""
    finite = np.abs(np.asarray(x, np.float32))
    finite = finite[np.isfinite(finite)]
    if finite.size == 0 or not finite.max() > 0:
        return 0
    largest = bits(finite.max())
    field = int(largest >> np.uint32(23)) - 127
    above = int(largest & np.uint32(0x007FFFFF)) > 0x00600000  # 448 is 1.75 * 2^8
    return max(-120, min(120, field - 8 + int(above)))


@quiet
def encode_fp8_e4m3(x: npt.ArrayLike, exponent: int = 0) -> U8:
    """x / 2^exponent as fp8 E4M3FN: to nearest even, saturating at +-448; a NaN becomes 0x7F (5).

    exponent: -120..120, as fp8_scale_exponent gives it.
    """
    u = bits(np.asarray(x, np.float32) * _power_of_two(-exponent))
    magnitude = u & MAGNITUDE
    normal = (magnitude + np.uint32(0x7FFFF) + ((magnitude >> np.uint32(20)) & np.uint32(1))) >> np.uint32(20)
    normal = np.minimum(normal - np.uint32(120 << 3), np.uint32(0x7E))
    # Below 2^-6 the codes count steps of 2^-9: that is the ulp of 2^14, so one addition rounds.
    steps = bits(from_bits(magnitude) + np.float32(16384)) - bits(np.float32(16384))
    code = np.where(magnitude < bits(_power_of_two(-6)), steps, normal)
    code = np.where(magnitude > INFINITY_BITS, np.uint32(0x7F), code | ((u & SIGN) >> np.uint32(24)))
    return code.astype(np.uint8)


@quiet
def decode_fp8_e4m3(code: npt.ArrayLike, exponent: int = 0) -> F32:
    """The bf16 values of fp8 E4M3FN codes times 2^exponent, exact unless they leave bf16's range (5)."""
    u = np.asarray(code, np.uint8).astype(np.uint32)
    magnitude = u & np.uint32(0x7F)
    normal = from_bits((magnitude << np.uint32(20)) + np.uint32(120 << 23))
    small = magnitude.astype(np.float32) * _power_of_two(-9)
    value = np.where(magnitude < 8, small, normal)
    value = np.where(magnitude == 0x7F, from_bits(NAN_BITS), value)
    signed = from_bits(bits(value) | ((u & np.uint32(0x80)) << np.uint32(24)))
    return to_bf16(signed * _power_of_two(exponent))
