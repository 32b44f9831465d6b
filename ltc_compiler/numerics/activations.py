"""The activation units: rules 9 and 10 of docs/numerics.md.

In bf16 a unit is a table of 65,536 correctly rounded results. In fp32 it is the sequence of operations
written here, each rounded once: the sequence is the definition, and the same one stands, written anew,
in sim_core/numerics/activations.h. Operand and result are architectural: a subnormal reads and returns as zero.

The fp32 sequences rest on known reductions: e^x = 2^k e^r with r by the two-part constant of W. J. Cody
and W. Waite (Software Manual for the Elementary Functions, 1980), angles by M. Payne and R. Hanek (Radian
reduction for trigonometric functions, 1983), and products with their rounding error after T. J. Dekker
(A floating-point technique for extending the available precision, 1971).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from ltc_compiler.errors import LtcError
from ltc_compiler.numerics.rounding import (
    F32,
    SIGN,
    U16,
    U32,
    bf16_bits,
    bits,
    from_bf16_bits,
    from_bits,
    quiet,
    write_fp32,
)

ACTIVATIONS: tuple[str, ...] = (
    "sigmoid", "tanh", "exp", "exp2", "log", "softplus", "silu", "gelu", "gelu_tanh", "reciprocal", "rsqrt",
    "sin", "cos", "erf", "atan",
)  # fmt: skip
"""The activation units, in the order of the rows of the table file."""

TABLE_SHA256 = "ff2c4b0068d5324724422a7d37d98026d69561b5a628aeb2ec078f7aa8cccbc0"


# --- activation units, bf16: the published table (9) --------------------------------------------------


@cache
def _table() -> U16:
    data = (resources.files("ltc_compiler") / "activation_tables.bin").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != TABLE_SHA256:
        raise LtcError(
            f"the activation table has SHA-256 {found}, expected {TABLE_SHA256}",
            where="ltc_compiler/activation_tables.bin",
            remedy="install the package again; tests/proof/generate_tables.py makes the file anew",
        )
    return np.frombuffer(data, "<u2").reshape(len(ACTIVATIONS), 1 << 16)


class _Tables(Mapping[str, U16]):
    """name -> uint16[65536], the bf16 result of every bf16 bit pattern; read and checked on first use."""

    def __getitem__(self, name: str) -> U16:
        if name not in ACTIVATIONS:
            raise KeyError(name)
        table: U16 = _table()[ACTIVATIONS.index(name)]
        return table

    def __iter__(self) -> Iterator[str]:
        return iter(ACTIVATIONS)

    def __len__(self) -> int:
        return len(ACTIVATIONS)


ACTIVATIONS_BF16: Mapping[str, U16] = _Tables()


def activation_bf16(name: str, x: npt.ArrayLike) -> F32:
    """The activation `name` of x rounded to bf16: correctly rounded, architectural (9)."""
    return from_bf16_bits(ACTIVATIONS_BF16[name][bf16_bits(x)])


# --- activation units, fp32: the normative sequences (10) ---------------------------------------------


def _c(*constants: str) -> tuple[np.float32, ...]:
    return tuple(np.float32(float.fromhex(text)) for text in constants)


ZERO, ONE, TWO, HALF = _c("0x0p+0", "0x1p+0", "0x1p+1", "0x1p-1")
(ROUNDER,) = _c("0x1.8p+23")  # adding it leaves the nearest integer in the low bits of the sum
LOG2_E, LN2_HIGH, LN2_LOW = _c("0x1.715476p+0", "0x1.63p-1", "-0x1.bd0106p-13")  # k * LN2_HIGH is exact
EXP_FLOOR, EXP_CEILING, EXP2_FLOOR, EXP2_CEILING = _c("-0x1.ap+6", "0x1.64p+6", "-0x1.2cp+7", "0x1p+7")
EXP_TERMS = _c("0x1.6a415ep-10", "0x1.1239c6p-7", "0x1.5558bcp-5", "0x1.555492p-3", "0x1.fffffcp-2")
EXP2_TERMS = _c(
    "0x1.416b5ep-13", "0x1.5f082ep-10", "0x1.3b2de0p-7", "0x1.c6af7cp-5", "0x1.ebfbdcp-3", "0x1.62e430p-1",
)  # fmt: skip
TANH_TERMS = _c("-0x1.6e0f08p-8", "0x1.506ca2p-6", "-0x1.b7f9e2p-5", "0x1.110536p-3", "-0x1.55552ap-2")
TANH_SPLIT, TANH_CEILING = _c("0x1.47ae14p-1", "0x1.4p+3")
LOG1P_TERMS = _c("0x1.f090acp-3", "0x1.b72ad8p-3", "0x1.250514p-2", "0x1.9996d8p-2", "0x1.555558p-1")
LOG_TERMS = _c(
    "-0x1.38c910p-4", "0x1.055e62p-3", "-0x1.0d8232p-3", "0x1.22d936p-3", "-0x1.54728cp-3", "0x1.99a01cp-3",
    "-0x1.000226p-2", "0x1.555554p-2",
)  # fmt: skip
LOG_SPLIT = np.uint32(0x3F3504F3)  # the bits of sqrt(1/2): mantissas are taken from there to twice that
GELU_TERMS = _c(
    "0x1.d8dd40p-16", "0x1.2848e6p-16", "-0x1.32f5dcp-12", "0x1.769baep-12", "0x1.175fc8p-9",
    "-0x1.8faef0p-7", "0x1.258c7ep-5", "-0x1.336fdap-4", "0x1.f6ff12p-4", "-0x1.4e102cp-3", "0x1.6e9828p-4",
)  # fmt: skip
ROOT_HALF, THREE, GELU_CEILING = _c("0x1.6a09e6p-1", "0x1.8p+1", "0x1.ep+3")
TANH_FORM_CEILING, SILU_CEILING = _c("0x1.6p+3", "0x1.ap+6")
GELU_LINEAR, GELU_LINEAR_LOW = _c("0x1.988454p+0", "-0x1.857936p-25")  # sqrt(8 / pi)
GELU_CUBIC, GELU_CUBIC_LOW = _c("0x1.2444f2p-4", "0x1.49b16ap-29")  # 0.044715 sqrt(8 / pi)
SIN_TERMS = _c("0x1.c658f4p-19", "-0x1.a15c8ap-13", "0x1.111240p-7", "-0x1.555556p-3")
COS_TERMS = _c("0x1.9b8ef8p-16", "-0x1.6c1244p-10", "0x1.555554p-5")
HALF_PI, HALF_PI_LOW, SIN_SPLIT = _c("0x1.921fb6p+0", "-0x1.777a5cp-25", "0x1.8p-1")
ATAN_TERMS = _c("-0x1.039436p-4", "0x1.b6a27cp-4", "-0x1.240f3ep-3", "0x1.9996b4p-3", "-0x1.555554p-2")
ATAN_SPLIT, ATAN_FAR = _c("0x1.a8279ap-2", "0x1.3504f4p+1")  # tan(pi / 8) and tan(3 pi / 8)
ERF_TERMS = _c(
    "0x1.4e459cp-14", "-0x1.a5ba96p-11", "0x1.54426ep-8", "-0x1.b80080p-6", "0x1.ce2d60p-4", "-0x1.812740p-2",
    "0x1.06eba8p-3",
)  # fmt: skip
LOG_ERFC_TERMS = _c(
    "0x1.9d892cp-13", "-0x1.908358p-9", "0x1.6cfdc8p-6", "-0x1.aa2374p-4", "-0x1.462ca8p-1", "-0x1.20b434p+0",
    "-0x1.7433e8p-13",
)  # fmt: skip
ERF_SPLIT, ERF_CEILING = _c("0x1.d70a3ep-1", "0x1p+2")
UPPER_HALF = np.uint32(0xFFFFF000)


def _polynomial(terms: tuple[np.float32, ...], x: F32) -> F32:
    """Horner's rule from the highest term."""
    result: F32 = terms[0] * x + terms[1]
    for term in terms[2:]:
        result = result * x + term
    return result


def _magnitude(x: F32) -> F32:
    return from_bits(bits(x) & ~SIGN)


def _with_sign(magnitude: F32, x: F32) -> F32:
    return from_bits(bits(magnitude) | (bits(x) & SIGN))


def _at_most(x: F32, ceiling: np.float32) -> F32:
    return np.where(x > ceiling, ceiling, x)


def _product(a: F32, b: F32 | np.float32) -> tuple[F32, F32]:
    """fl(a * b) and its rounding error, from halves of 12 bits whose products are exact."""
    a1, b1 = from_bits(bits(a) & UPPER_HALF), from_bits(bits(b) & UPPER_HALF)
    a2, b2 = a - a1, b - b1
    p = a * b
    return p, ((a1 * b1 - p) + (a1 * b2 + a2 * b1)) + a2 * b2


def _exp_parts(x: F32, low: F32 | None = None) -> tuple[F32, U32]:
    """m in about 0.70 to 1.42 and the integer k with m * 2^k = e^(x + low); x is clamped to -104..89."""
    x = _at_most(np.where(x < EXP_FLOOR, EXP_FLOOR, x), EXP_CEILING)
    shifted = x * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    if low is not None:
        r = r + low
    return ONE + ((r * r) * _polynomial(EXP_TERMS, r) + r), bits(shifted) - bits(ROUNDER)


def _scale_or_flush(m: F32, k: U32) -> F32:
    """m * 2^k by its exponent bits, zero below 2^-126 and infinity from 2^128 on."""
    u = (bits(m) + (k << np.uint32(23))).view(np.int32)
    return np.where(u < 0x00800000, np.int32(0), np.minimum(u, np.int32(0x7F800000))).view(np.float32)


def _scale(m: F32, k: U32) -> F32:
    """m * 2^k in two multiplications, of which only the last can round."""
    first = (k.view(np.int32) >> 1).view(np.uint32)
    bias, shift = np.uint32(127), np.uint32(23)
    return m * from_bits((first + bias) << shift) * from_bits((k - first + bias) << shift)


def _exp(x: F32) -> F32:
    return np.where(x == x, _scale_or_flush(*_exp_parts(x)), x)


def _exp2(x: F32) -> F32:
    inside = _at_most(np.where(x < EXP2_FLOOR, EXP2_FLOOR, x), EXP2_CEILING)
    shifted = inside + ROUNDER
    r = inside - (shifted - ROUNDER)
    m = _polynomial((*EXP2_TERMS, ONE), r)
    return np.where(x == x, _scale_or_flush(m, bits(shifted) - bits(ROUNDER)), x)


def _sigmoid(x: F32) -> F32:
    e = _exp(-_magnitude(x))
    return np.where(x < 0, e, ONE) / (ONE + e)


def _tanh(x: F32) -> F32:
    a = _magnitude(x)
    z = a * a
    near = (a * z) * _polynomial(TANH_TERMS, z) + a
    far = ONE - TWO / (_exp(TWO * _at_most(a, TANH_CEILING)) + ONE)
    return _with_sign(np.where(a < TANH_SPLIT, near, far), x)


def _log(x: F32) -> F32:
    x = write_fp32(x)
    t = bits(x) - LOG_SPLIT
    k = (t.view(np.int32) >> 23).astype(np.float32)
    f = from_bits((t & np.uint32(0x007FFFFF)) + LOG_SPLIT) - ONE
    square = f * f
    y = (square * f) * _polynomial(LOG_TERMS, f) + k * LN2_LOW
    y = ((y - HALF * square) + f) + k * LN2_HIGH
    infinity = np.float32(np.inf)
    y = np.where(x == 0, -infinity, np.where(x < 0, np.float32(np.nan), y))
    return np.where((x == infinity) | (x != x), x, y)


def _softplus(x: F32) -> F32:
    """max(x, 0) + log1p(e^-|x|), with log1p(e) = 2 atanh(e / (2 + e))."""
    e = _exp(-_magnitude(x))
    s = e / (TWO + e)
    z = s * s
    return np.where(x > 0, x, np.float32(0)) + ((s * z) * _polynomial(LOG1P_TERMS, z) + TWO * s)


def _gate(x: F32, a: F32, u: F32, low: F32 | None = None) -> F32:
    """x * sigmoid(u) for u of the sign of x; a and u are clamped magnitudes. Tails keep all their bits."""
    m, k = _exp_parts(-u, None if low is None else -low)
    below = ONE + _scale(m, k)
    return np.where(x < 0, -_scale((a * m) / below, k), x / below)


def _silu(x: F32) -> F32:
    a = _at_most(_magnitude(x), SILU_CEILING)
    return _gate(x, a, a)


def _gelu_tanh(x: F32) -> F32:
    """x * sigmoid(sqrt(8/pi) (x + 0.044715 x^3)), the argument with its rounding errors."""
    a = _at_most(_magnitude(x), TANH_FORM_CEILING)
    square, square_low = _product(a, a)
    cubic, cubic_low = _product(square, GELU_CUBIC)
    s = GELU_LINEAR + cubic
    back = s - cubic
    error = (GELU_LINEAR - back) + (cubic - (s - back))
    s_low = error + ((cubic_low + GELU_CUBIC * square_low) + (GELU_LINEAR_LOW + GELU_CUBIC_LOW * square))
    u, u_low = _product(a, s)
    return _gate(x, a, u, u_low + a * s_low)


def _gelu(x: F32) -> F32:
    """x - |x| Phi(-|x|) or -|x| Phi(-|x|).

    Phi(-a) = e^(-a^2 / 2) g(t), with t = (a/sqrt2 - 3) / (a/sqrt2 + 3).
    """
    a = _at_most(_magnitude(x), GELU_CEILING)
    z = a * ROOT_HALF
    g = _polynomial(GELU_TERMS, (z - THREE) / (z + THREE))
    square, square_low = _product(a, a)
    m, k = _exp_parts(-HALF * square, -HALF * square_low)
    tail = _scale((a * g) * m, k)
    return np.where(x < 0, -tail, x - tail)


def _reciprocal(x: F32) -> F32:
    return ONE / write_fp32(x)


def _rsqrt(x: F32) -> F32:
    root: F32 = np.sqrt(write_fp32(x))
    return ONE / root


# Row e holds, for the biased exponent e, the words of 2 / pi that meet a mantissa: its bits from 2^1 to 2^-94 after
# the point has moved by e - 150 places. A row below 120 is not read.
_TWO_OVER_PI = 0xA2F9836E_4E441529_FC2757D1_F534DDC0_DB629599_3C439041_FE5163AB  # 224 bits behind the point
_WINDOWS = np.array(
    [
        [(_TWO_OVER_PI << max(e - 120, 0) >> 160) >> place & 0xFFFFFFFF for place in (64, 32, 0)]
        for e in range(256)
    ],
    np.uint64,
)


def _quarter_turns(x: F32) -> tuple[F32, F32, U32]:
    """|x| in quarter turns, less the nearest whole number, as a sum of two; and that number mod 4.

    After M. Payne and R. Hanek (1983): the product of the mantissa with the window, mod 4.
    """
    u = bits(x) & ~SIGN
    mantissa = (u & np.uint32(0x007FFFFF) | np.uint32(0x00800000)).astype(np.uint64)
    high, middle, low = np.moveaxis(_WINDOWS[u >> np.uint32(23)], -1, 0)
    word = np.uint64(32)
    total = ((mantissa * high) << word) + mantissa * middle + (mantissa * low >> word)
    fraction = (total << np.uint64(2)).view(np.int64)
    pieces = [(fraction >> 48) if place == 48 else (fraction >> place) & 0xFFFF for place in (48, 32, 16, 0)]
    first, second, third, fourth = (
        piece.astype(np.float32) * np.float32(2.0 ** (place - 64))
        for piece, place in zip(pieces, (48, 32, 16, 0), strict=True)
    )
    s = first + second
    below = (second - (s - first)) + (third + fourth)
    turns = s + below
    quadrant = ((total >> np.uint64(61)) + np.uint64(1)) >> np.uint64(1) & np.uint64(3)
    return turns, below - (turns - s), quadrant.astype(np.uint32)


def _sine(x: F32, quarters: int) -> F32:
    """The sine of x + quarters * pi / 2. Up to 0.75 the angle is x itself."""
    a = _magnitude(x)
    turns, turns_low, quadrant = _quarter_turns(x)
    r, error = _product(turns, HALF_PI)
    low = error + (turns * HALF_PI_LOW + turns_low * HALF_PI)
    small = a < SIN_SPLIT
    r, low = np.where(small, a, r), np.where(small, np.float32(0), low)
    q = np.where(small, np.uint32(0), quadrant) + np.uint32(quarters)
    z = r * r
    odd = r + ((r * z) * _polynomial(SIN_TERMS, z) + low)
    half = HALF * z
    one = ONE - half
    even = one + (((ONE - one) - half) + ((z * z) * _polynomial(COS_TERMS, z) - r * low))
    y = bits(np.where(q & np.uint32(1), even, odd)) ^ (q & np.uint32(2)) << np.uint32(30)
    y = y if quarters else y ^ bits(x) & SIGN
    return np.where(a < np.float32(np.inf), from_bits(y), np.float32(np.nan))


def _sin(x: F32) -> F32:
    return _sine(x, 0)


def _cos(x: F32) -> F32:
    return _sine(x, 1)


def _erf(x: F32) -> F32:
    """An odd polynomial below 0.92, else 1 - e^L with a polynomial L for log(erfc |x|)."""
    a = write_fp32(_magnitude(x))
    near = a + a * _polynomial(ERF_TERMS, a * a)
    far = ONE - _exp(_polynomial(LOG_ERFC_TERMS, _at_most(a, ERF_CEILING)))
    return _with_sign(np.where(a < ERF_SPLIT, near, far), x)


def _atan(x: F32) -> F32:
    """An odd polynomial of |x|, of (|x| - 1) / (|x| + 1), or of -1 / |x|, plus 0, pi / 4 or pi / 2."""
    a = _magnitude(x)
    beyond, above = a > ATAN_FAR, a > ATAN_SPLIT

    def chosen(far: F32 | np.float32, middle: F32 | np.float32, near: F32 | np.float32) -> F32:
        return np.where(beyond, far, np.where(above, middle, near))

    t = chosen(-ONE, a - ONE, a) / chosen(a, a + ONE, ONE)
    z = t * t
    base = chosen(HALF_PI, HALF * HALF_PI, ZERO)
    low = chosen(HALF_PI_LOW, HALF * HALF_PI_LOW, ZERO)
    return _with_sign(base + (t + ((t * z) * _polynomial(ATAN_TERMS, z) + low)), x)


def _unit(sequence: Callable[[F32], F32]) -> Callable[[npt.ArrayLike], F32]:
    @quiet
    def apply(x: npt.ArrayLike) -> F32:
        return write_fp32(sequence(np.asarray(x, np.float32)))

    return apply


ACTIVATIONS_FP32: Mapping[str, Callable[[npt.ArrayLike], F32]] = {
    name: _unit(sequence)
    for name, sequence in zip(
        ACTIVATIONS,
        (
            _sigmoid,
            _tanh,
            _exp,
            _exp2,
            _log,
            _softplus,
            _silu,
            _gelu,
            _gelu_tanh,
            _reciprocal,
            _rsqrt,
            _sin,
            _cos,
            _erf,
            _atan,
        ),
        strict=True,
    )
}
"""name -> the fp32 unit: architectural operand and result, shape kept."""
