"""The activation units and the synapse: NumPy against C++ bit for bit, and both against mpmath."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from samples_for_numerics import NANS, core, f32, nearest, same_bits, same_number, sample

from ltc_compiler import numerics


@pytest.mark.parametrize("name", numerics.ACTIVATIONS)
def test_activations_agree(name: str) -> None:
    x = sample(250_001)
    for shift in range(4):
        same_bits(numerics.ACTIVATIONS_FP32[name](x[shift:]), core.activation_fp32(name, x[shift:]))
    same_bits(numerics.activation_bf16(name, x), core.activation_bf16(name, x))


def test_the_table_is_the_published_one() -> None:
    assert set(numerics.ACTIVATIONS_BF16) == set(numerics.ACTIVATIONS)
    rows = b"".join(numerics.ACTIVATIONS_BF16[name].tobytes() for name in numerics.ACTIVATIONS)
    assert hashlib.sha256(rows).hexdigest() == numerics.TABLE_SHA256


def cubic(x: Any) -> Any:
    return x + mpmath.mpf("0.044715") * x**3


MATHEMATICS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "tanh": mpmath.tanh,
    "exp": mpmath.exp,
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "log": mpmath.log,
    "softplus": lambda x: mpmath.log(1 + mpmath.exp(x)),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: x * mpmath.ncdf(x),
    "gelu_tanh": lambda x: x / (1 + mpmath.exp(-mpmath.sqrt(8 / mpmath.pi) * cubic(x))),
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "erf": mpmath.erf,
    "atan": mpmath.atan,
}  # fmt: skip
ULPS = {"sigmoid": 2.41, "tanh": 1.31, "exp": 1.0, "exp2": 1.08, "log": 0.87, "softplus": 2.8, "silu": 3.4,
        "gelu": 6.04, "gelu_tanh": 3.41, "reciprocal": 0.5, "rsqrt": 1.5, "sin": 1.1,
        "cos": 1.1, "erf": 1.4, "atan": 2.0}  # fmt: skip


@pytest.mark.parametrize("name", numerics.ACTIVATIONS)
def test_activations_against_mpmath(name: str) -> None:
    """bf16: the correctly rounded value. fp32: within the bound that docs/numerics.md states."""
    rng = np.random.default_rng(7)
    points = np.concatenate(
        [rng.standard_normal(150) * 4, rng.uniform(-100, 100, 100), 2.0 ** rng.uniform(-30, 7, 50)]
    )
    points = np.abs(points) if name in ("log", "rsqrt") else points
    x = numerics.to_bf16(points)
    bf16, fp32 = numerics.activation_bf16(name, x), numerics.ACTIVATIONS_FP32[name](x)
    with mpmath.workprec(400):
        for point, table, unit in zip(x, bf16, fp32, strict=True):
            value = MATHEMATICS[name](mpmath.mpf(float(point)))
            exact = Fraction(int(value.man)) * Fraction(2) ** int(value.exp) * (-1 if value._mpf_[0] else 1)
            assert int(numerics.bits(table)) == nearest(exact, exact < 0, 16)
            ulp = Fraction(2) ** (max(math.frexp(float(value))[1], -125) - 24)
            if abs(exact) >= Fraction(2) ** -126 and abs(exact) < Fraction(2) ** 128:
                assert abs(Fraction(float(unit)) - exact) <= Fraction(ULPS[name]) * ulp


LIMITS = {  # at -infinity, -0, +0, +infinity
    "sigmoid": (0.0, 0.5, 0.5, 1.0),
    "tanh": (-1.0, -0.0, 0.0, 1.0),
    "exp": (0.0, 1.0, 1.0, np.inf),
    "exp2": (0.0, 1.0, 1.0, np.inf),
    "log": (np.nan, -np.inf, -np.inf, np.inf),
    "softplus": (0.0, math.log(2), math.log(2), np.inf),
    "silu": (-0.0, -0.0, 0.0, np.inf),
    "gelu": (-0.0, -0.0, 0.0, np.inf),
    "gelu_tanh": (-0.0, -0.0, 0.0, np.inf),
    "reciprocal": (-0.0, -np.inf, np.inf, 0.0),
    "rsqrt": (np.nan, -np.inf, np.inf, 0.0),
    "sin": (np.nan, -0.0, 0.0, np.nan),
    "cos": (np.nan, 1.0, 1.0, np.nan),
    "erf": (-1.0, -0.0, 0.0, 1.0),
    "atan": (-math.pi / 2, -0.0, 0.0, math.pi / 2),
}


@pytest.mark.parametrize("name", numerics.ACTIVATIONS)
def test_limits_of_activations(name: str) -> None:
    x = np.array([-np.inf, -0.0, 0.0, np.inf], np.float32)
    limits = np.array(LIMITS[name], np.float32)
    same_bits(numerics.activation_bf16(name, x), numerics.to_bf16(limits))
    same_number(numerics.ACTIVATIONS_FP32[name](x), limits)
    for unit in (numerics.ACTIVATIONS_FP32[name], lambda v: numerics.activation_bf16(name, v)):
        assert (numerics.bits(unit(NANS[:4].view(np.float32))) == 0x7FC00000).all()
        subnormal = np.array([0x00012345, 0x80012345], np.uint32).view(np.float32)
        same_bits(unit(subnormal), unit(np.array([0.0, -0.0], np.float32)))


def test_no_activation_returns_a_subnormal() -> None:
    for name in numerics.ACTIVATIONS:
        magnitude = numerics.ACTIVATIONS_BF16[name] & 0x7FFF
        assert not ((magnitude > 0) & (magnitude < 0x80)).any()
        result = numerics.bits(numerics.ACTIVATIONS_FP32[name](sample(100_000))) & 0x7FFFFFFF
        assert not ((result > 0) & (result < 0x00800000)).any()


# --- synapses and the LTC update ---


@pytest.mark.parametrize("fp32", [False, True])
def test_synapse_agrees_and_is_the_written_sequence(fp32: bool) -> None:
    rng = np.random.default_rng(11)
    slots, targets, sources = 9, 21, 30
    read = numerics.write_fp32 if fp32 else numerics.to_bf16
    v = numerics.write_fp32(rng.standard_normal(sources) * 3)
    mu, sigma, w, we = (read(rng.standard_normal((slots, targets)) * s) for s in (1, 4, 1, 1))
    src = np.sort(rng.integers(0, sources, (slots, targets)), axis=0)
    valid = rng.random((slots, targets)) < 0.7
    num, den = numerics.synapse(v, src, mu, sigma, w, we, fp32, valid)
    same_bits(
        np.stack([num, den]),
        core.synapse(v, np.where(valid, src, -1).astype(np.int32), mu, sigma, w, we, fp32),
    )
    for target in range(targets):
        total = [0.0, 0.0]
        for slot in np.flatnonzero(valid[:, target]):
            here = (slot, target)
            u = v[src[here]] if fp32 else numerics.to_bf16(v[src[here]])
            x = f32(float(sigma[here]) * f32(float(u) - float(mu[here])))
            s = numerics.ACTIVATIONS_FP32["sigmoid"](x) if fp32 else numerics.activation_bf16("sigmoid", x)
            total = [f32(t + f32(float(s) * float(p[here]))) for t, p in zip(total, (we, w), strict=True)]
        assert total == [float(num[target]), float(den[target])]


def test_an_absent_synapse_is_not_evaluated() -> None:
    nan = np.full((2, 1), np.nan, np.float32)
    num, den = numerics.synapse(
        [1.0], [[0], [0]], nan, nan, nan, nan, valid=[[False], [False]], start=(2.0, 3.0)
    )
    assert (float(num[0]), float(den[0])) == (2.0, 3.0)


@pytest.mark.parametrize("h", [0.0, 1e-7])
def test_ltc_update_rests_at_dt_zero_and_creeps_at_a_tiny_one(h: float) -> None:
    after = numerics.ltc_update(0.25, 1.5, 2.5, leak=0.1, conductance=0.3, cm=0.5, h=h)
    assert float(after) == 0.25 if h == 0 else 0.25 < float(after) < 0.25 + 4e-7


@given(hnp.arrays(np.uint32, (7, 20), elements=st.integers(0, 2**32 - 1)))
def test_ltc_update_agrees(raw: Any) -> None:
    columns = numerics.write_fp32(raw.view(np.float32))
    v, num, den, leak, conductance, cm, h = columns
    mine = numerics.ltc_update(v, num, den, leak=leak, conductance=conductance, cm=cm, h=h)
    same_bits(mine, core.ltc_update(columns))


def test_ltc_update_writes_every_operation() -> None:
    """d * v = 2^-127 is flushed, so that all of n = 2^-125 is left; h, d, cm then scale it to 2^-65."""
    v, d, n, h = 2.0**-67, 2.0**-60, 2.0**-125, 2.0**100
    expected = np.array([v + 2.0**-65], np.float32)
    same_bits(numerics.ltc_update([v], [n], [d], leak=0.0, conductance=0.0, cm=0.0, h=h), expected)
    columns = np.array([[v], [n], [d], [0], [0], [0], [h]], np.float32)
    same_bits(core.ltc_update(columns), expected)
