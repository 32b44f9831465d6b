"""The numeric contract, rule by rule: NumPy against C++ bit for bit, and both against what they must mean.

What they must mean comes from elsewhere: ml_dtypes for the formats, exact fractions for single roundings,
and a slow loop for the order of summation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from float_environment import PLAIN, SETTINGS, X86_ONLY, set_mxcsr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from samples_for_numerics import core, f32, nearest, same_bits, same_number, sample

from ltc_compiler import numerics
from ltc_compiler.errors import LtcError

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero):RuntimeWarning")

UNARY = ("write_fp32", "to_bf16", "neg", "absolute", "relu", "sqrt", "floor", "round_even")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum", "lt", "le", "gt", "ge", "eq", "ne", "fmod")

floats = st.integers(0, 2**32 - 1).map(lambda u: np.array(u, np.uint32).view(np.float32))
arrays = hnp.arrays(np.uint32, st.integers(1, 300), elements=st.integers(0, 2**32 - 1)).map(
    lambda u: u.view(np.float32)
)


# --- the two halves ---


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shift", range(4))  # so that each value passes the vector and the scalar form
def test_unary_operators_agree(name: str, shift: int) -> None:
    x = sample(100_001)[shift:]
    compare = same_bits if name in ("write_fp32", "to_bf16", "neg", "absolute", "relu") else same_number
    compare(getattr(numerics, name)(x), getattr(core, name)(x))


@pytest.mark.parametrize("name", BINARY)
def test_binary_operators_agree(name: str) -> None:
    a, b = (np.array(p, np.float32) for p in zip(*itertools.product(sample(20), repeat=2), strict=True))
    a, b = np.concatenate([a, sample(100_000, 2)]), np.concatenate([b, sample(100_000, 3)])
    same_number(getattr(numerics, name)(a, b), getattr(core, name)(a, b))
    same_number(getattr(numerics, name)(a[:9], b[:9]), getattr(core, name)(a[:9], b[:9]))


@given(arrays, arrays, arrays)
def test_select_agrees(condition: Any, a: Any, b: Any) -> None:
    n = min(len(condition), len(a), len(b))
    same_bits(numerics.select(condition[:n], a[:n], b[:n]), core.select(condition[:n], a[:n], b[:n]))


@pytest.mark.parametrize("exponent", [-120, -7, 0, 3, 120])
def test_fp8_agrees(exponent: int) -> None:
    x = np.concatenate([sample(50_000), (sample(50_000) * np.float32(2.0**exponent))])
    assert np.array_equal(numerics.encode_fp8_e4m3(x, exponent), core.encode_fp8_e4m3(x, exponent))
    codes = np.arange(256, dtype=np.uint8)
    same_bits(numerics.decode_fp8_e4m3(codes, exponent), core.decode_fp8_e4m3(codes, exponent))


# --- formats and writes ---


def test_bf16_is_rounded_as_ml_dtypes_rounds() -> None:
    x = sample(500_000)
    expected = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    expected = np.where(np.abs(expected) < 2.0**-126, np.copysign(np.float32(0), expected), expected)
    same_number(numerics.to_bf16(x), expected)


def test_every_written_nan_is_one_nan() -> None:
    nans = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert set(numerics.bits(numerics.write_fp32(nans))) == {0x7FC00000}
    assert set(numerics.bits(numerics.to_bf16(nans))) == {0x7FC00000}
    assert set(numerics.bf16_bits(nans)) == {0x7FC0}


@pytest.mark.parametrize(
    ("pattern", "fp32", "bf16"),
    [
        (0x007FFFFF, 0x00000000, 0x0080),  # just below 2^-126: fp32 flushes it, bf16 rounds it up first
        (0x807FFFFF, 0x80000000, 0x8080),
        (0x007F7FFF, 0x00000000, 0x0000),
        (0x00000001, 0x00000000, 0x0000),
        (0x80000001, 0x80000000, 0x8000),
        (0x3F808000, 0x3F808000, 0x3F80),  # halfway: to even, down
        (0x3F818000, 0x3F818000, 0x3F82),  # halfway: to even, up
        (0x7F7F7FFF, 0x7F7F7FFF, 0x7F7F),
        (0x7F7F8000, 0x7F7F8000, 0x7F80),  # overflow
        (0xFF7FFFFF, 0xFF7FFFFF, 0xFF80),
    ],
)
def test_writes_at_the_edges(pattern: int, fp32: int, bf16: int) -> None:
    x = numerics.from_bits([pattern])
    assert int(numerics.bits(numerics.write_fp32(x))[0]) == fp32
    assert int(numerics.bf16_bits(x)[0]) == bf16


def test_bf16_patterns_come_back() -> None:
    u = np.arange(1 << 16, dtype=np.uint16)
    back = numerics.bf16_bits(numerics.from_bf16_bits(u))
    normal = ((u & 0x7FFF) >= 0x0080) & ((u & 0x7FFF) <= 0x7F80)
    assert np.array_equal(back[normal], u[normal])


def test_fp8_codes_are_those_of_ml_dtypes() -> None:
    codes = np.arange(256, dtype=np.uint8)
    values = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    same_number(numerics.decode_fp8_e4m3(codes), values)
    finite = ~np.isnan(values)
    assert np.array_equal(numerics.encode_fp8_e4m3(values)[finite], codes[finite])


def test_fp8_rounds_as_ml_dtypes_and_saturates() -> None:
    x = sample(200_000)
    x = np.concatenate([x, np.linspace(-0.02, 0.02, 4097, dtype=np.float32)])
    inside = np.abs(x) <= 448
    expected = x[inside].astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    assert np.array_equal(numerics.encode_fp8_e4m3(x[inside]), expected)
    big = np.array([449, 464, 465, 1e30, np.inf], np.float32)
    assert (numerics.encode_fp8_e4m3(big) == 0x7E).all()
    assert (numerics.encode_fp8_e4m3(-big) == 0xFE).all()
    assert numerics.encode_fp8_e4m3(np.float32(np.nan)) == 0x7F


@given(arrays)
def test_fp8_scale_is_the_least_that_does_not_saturate(x: Any) -> None:
    exponent = numerics.fp8_scale_exponent(x)
    largest = float(np.abs(x[np.isfinite(x)], dtype=np.float64).max(initial=0))
    if largest == 0:
        assert exponent == 0
    else:
        assert largest <= math.ldexp(448, exponent)
        assert exponent == -120 or largest > math.ldexp(448, exponent - 1)


@pytest.mark.parametrize("s", [-119, -3, 0, 5, 119])
def test_fp8_scale_at_its_steps(s: int) -> None:
    largest = np.array([448 * 2.0**s], np.float32)
    assert numerics.fp8_scale_exponent(largest) == s
    assert numerics.fp8_scale_exponent(np.nextafter(largest, np.float32(np.inf))) == s + 1


@given(st.floats(allow_nan=False, allow_subnormal=True))
def test_constants_round_once(x: float) -> None:
    if math.isinf(x):
        assert float(numerics.fold_bf16(x)) == x
        return
    for fold, low_bits in ((numerics.fold_fp32, 0), (numerics.fold_bf16, 16)):
        assert int(numerics.bits(fold(x))) == nearest(Fraction(x), math.copysign(1, x) < 0, low_bits)


# --- operators ---


EXACT: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
}


@pytest.mark.parametrize("name", EXACT)
@given(a=floats, b=floats)
@settings(max_examples=200)
def test_an_operator_is_one_rounding(name: str, a: Any, b: Any) -> None:
    if not (np.isfinite(a) and np.isfinite(b)) or (name == "div" and b == 0):
        return
    exact = EXACT[name](Fraction(float(a)), Fraction(float(b)))
    if exact == 0:
        return  # the sign of a zero is the business of the comparison with C++
    mine = numerics.write_fp32(getattr(numerics, name)(a, b))
    assert int(numerics.bits(mine)) == nearest(exact, exact < 0, 0)


def test_intermediates_underflow_gradually() -> None:
    tiny = numerics.mul(np.float32(2.0**-100), np.float32(2.0**-40))
    assert float(tiny) == 2.0**-140
    assert float(numerics.write_fp32(tiny)) == 0
    assert core.mul(np.array([2.0**-100], np.float32), np.array([2.0**-40], np.float32))[0] == np.float32(
        2.0**-140
    )


def test_maximum_and_minimum_of_zeros_and_nans() -> None:
    zero, minus = np.float32(0), np.float32(-0.0)
    for f in (numerics.maximum, numerics.minimum):
        assert int(numerics.bits(f(zero, minus))) == 0x80000000
        assert int(numerics.bits(f(minus, zero))) == 0
        assert np.isnan(f(np.nan, 1))
        assert np.isnan(f(1, np.nan))
    assert int(numerics.bits(numerics.relu(minus))) == 0
    assert np.isnan(numerics.relu(np.nan))


def test_comparisons_with_nan_and_select() -> None:
    for name in ("lt", "le", "gt", "ge", "eq"):
        assert float(getattr(numerics, name)(np.nan, np.nan)) == 0
    assert float(numerics.ne(np.nan, np.nan)) == 1
    assert float(numerics.select(np.nan, 2, 3)) == 2
    assert float(numerics.select(-0.0, 2, 3)) == 3


# --- whole numbers ---


def test_remainders_are_exact() -> None:
    """Against the remainder of fractions, for quotients of every size, near whole numbers, and small numbers."""
    rng = np.random.default_rng(17)
    b = np.ldexp(rng.uniform(0.5, 1, 3000), rng.integers(-125, 85, 3000)).astype(np.float32)
    a = (b * np.exp2(rng.uniform(-2, 39.9, 3000)) * rng.choice([-1, 1], 3000)).astype(np.float32)
    a[:1000] = (b * rng.integers(1, 5000, 3000))[:1000].astype(np.float32)
    a[:300] = np.nextafter(a[:300], np.float32(np.inf) * rng.choice([-1, 1], 300).astype(np.float32))
    found = core.fmod(a, b)
    for x, y, r in zip(a, b, found, strict=True):
        exact = abs(Fraction(float(x))) % abs(Fraction(float(y)))
        assert Fraction(float(abs(r))) == exact, (x, y)
        assert np.signbit(r) == np.signbit(x)


def test_remainders_of_special_values() -> None:
    a = np.array([5, -5, 5, np.inf, 1, np.nan, 1, 0, -0.0, 2.0**41, 2.0**40, 3e38, -3e38], np.float32)
    b = np.array([np.inf, -np.inf, 0, 3, np.nan, 1, -0.0, 3, 3, 1.5, 1, 2.9e38, 1e38], np.float32)
    wanted = np.array([5, -5, *[np.nan] * 5, 0, -0.0, np.nan, np.nan, 1e37, -3e38 + 2e38], np.float32)
    wanted[-2:] = np.fmod(a[-2:], b[-2:])
    for half in (numerics.fmod, core.fmod):
        same_number(half(a, b), wanted)


# --- orders of summation ---


def slow_dot(w: Any, x: Any, bias: float | None) -> float:
    """Rule 7 as it is written; fp64 holds a product or sum of two fp32 well enough to be rounded again."""
    accumulator = [0.0] * 64
    for j in range((len(w) + 1) // 2):
        for k in (2 * j, 2 * j + 1):
            if k < len(w):
                accumulator[j % 64] = f32(accumulator[j % 64] + f32(float(w[k]) * float(x[k])))
    while len(accumulator) > 1:
        accumulator = [f32(a + b) for a, b in zip(accumulator[0::2], accumulator[1::2], strict=True)]
    return accumulator[0] if bias is None else f32(accumulator[0] + bias)


@pytest.mark.parametrize("spread", [3, 20, 45, 80])
@pytest.mark.parametrize("k", [0, 1, 2, 63, 64, 127, 128, 129, 130, 300, 512])
def test_dot_is_the_written_order(k: int, spread: int) -> None:
    rng = np.random.default_rng(k * 100 + spread)
    scale = 2.0 ** rng.integers(-spread, spread + 1, (4, max(k, 1)))
    w = numerics.to_bf16(rng.standard_normal((3, k)) * scale[:3, :k])
    x = numerics.to_bf16(rng.standard_normal(k) * scale[3, :k])
    bias = numerics.write_fp32(rng.standard_normal(3))
    mine = numerics.dot(w, x, bias)
    same_number(mine, [slow_dot(row, x, float(b)) for row, b in zip(w, bias, strict=True)])
    same_number(numerics.dot(w, x), core.dot(w, np.ascontiguousarray(x)))
    same_number(numerics.tree_sum(w), [slow_dot(row, np.ones(k), None) for row in w])


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_sums_of_anything_agree(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.integers(0, 2**32, (5, k), dtype=np.uint32).view(np.float32)
    x = sample(k, seed)[:k] if seed % 2 else rng.standard_normal(k).astype(np.float32)
    same_number(numerics.dot(w, x, fp32=True), core.dot(w, x))
    same_number(numerics.tree_sum(w), core.tree_sum(w))
    same_bits(numerics.reduce_max(w), core.reduce_max(w))


def test_dot_reads_bf16_limits_k_and_takes_leading_axes() -> None:
    rng = np.random.default_rng(5)
    w, x = rng.standard_normal((6, 40)).astype(np.float32), rng.standard_normal((2, 3, 40)).astype(np.float32)
    whole = numerics.dot(w, x, k=33)
    assert whole.shape == (2, 3, 6)
    same_bits(whole, numerics.dot(numerics.to_bf16(w[:, :33]), numerics.to_bf16(x[..., :33]), fp32=True))
    same_bits(whole[1, 2], numerics.dot(w, x[1, 2], k=33))
    assert (numerics.bits(whole) != numerics.bits(numerics.dot(w, x, k=33, fp32=True))).any()


def test_a_sum_is_never_minus_zero_and_takes_a_minus_zero_bias() -> None:
    minus = np.array([[-0.0] * 5], np.float32)
    assert int(numerics.bits(numerics.tree_sum(minus))[0]) == 0
    assert int(numerics.bits(numerics.dot(minus, np.ones(5), np.array([-0.0], np.float32)))[0]) == 0


# --- the floating-point unit ---


def test_the_guard_restores_the_arithmetic_and_then_the_mode() -> None:
    assert core.flush_guard_holds()


@X86_ONLY
def test_flushing_threads_are_refused() -> None:
    set_mxcsr(SETTINGS["flush"])
    try:
        with pytest.raises(LtcError, match="flushes subnormal numbers"):
            numerics.require_ieee()
    finally:
        set_mxcsr(PLAIN)
    numerics.require_ieee()
