// The activation units and the synapse: rules 9, 10 and 11 of docs/numerics.md.
// In bf16 a unit is a table of correctly rounded results, linked in from the table file. In fp32 it is the
// sequence of operations written here, each rounded once: the sequence is the definition, and
// ltc_compiler/numerics/activations.py holds the same one, written anew. Operand and result are
// architectural: a subnormal reads and returns as zero.
//
// F is float or a vector of floats (see numerics.h). e^x by the two-part reduction of Cody and Waite (1980);
// products with their rounding error after Dekker (1971).
#pragma once

#include "numerics/numerics.h"

#include <cstdint>
#include <iterator>

// In the order of enum Activation. Little-endian in the file, as every supported machine is.
extern "C" [[gnu::visibility("hidden")]] const std::uint16_t ltc_activation_tables[15][65536];

namespace ltc {

// The rows of the table file, in its order.
enum class Activation : std::uint8_t {
    sigmoid, tanh, exp, exp2, log, softplus, silu, gelu, gelu_tanh, reciprocal, rsqrt, sin, cos, erf, atan
};
inline constexpr std::size_t activation_count = 15;

// --- bf16 (9) ---

// A subnormal or NaN pattern has the entry of the zero or NaN that it reads as.
[[gnu::always_inline]] inline std::uint16_t activation_bf16_bits(Activation which, std::uint16_t x) {
    return ltc_activation_tables[static_cast<std::size_t>(which)][x];
}
[[gnu::always_inline]] inline float activation_bf16(Activation which, float x) {
    return from_bf16_bits(activation_bf16_bits(which, bf16_bits(x)));
}

// --- fp32 (10) ---

namespace fp32 {

// Adding it leaves the nearest integer in the low bits of the sum.
inline constexpr float rounder = 0x1.8p+23f;
inline constexpr float log2_e = 0x1.715476p+0f, ln2_high = 0x1.63p-1f, ln2_low = -0x1.bd0106p-13f;
inline constexpr float exp_terms[] = {0x1.6a415ep-10f, 0x1.1239c6p-7f, 0x1.5558bcp-5f, 0x1.555492p-3f,
                                      0x1.fffffcp-2f};
inline constexpr float exp2_terms[] = {0x1.416b5ep-13f, 0x1.5f082ep-10f, 0x1.3b2de0p-7f, 0x1.c6af7cp-5f,
                                       0x1.ebfbdcp-3f,  0x1.62e430p-1f,  0x1p+0f};
inline constexpr float tanh_terms[] = {-0x1.6e0f08p-8f, 0x1.506ca2p-6f, -0x1.b7f9e2p-5f, 0x1.110536p-3f,
                                       -0x1.55552ap-2f};
inline constexpr float log1p_terms[] = {0x1.f090acp-3f, 0x1.b72ad8p-3f, 0x1.250514p-2f, 0x1.9996d8p-2f,
                                        0x1.555558p-1f};
inline constexpr float log_terms[] = {-0x1.38c910p-4f, 0x1.055e62p-3f, -0x1.0d8232p-3f, 0x1.22d936p-3f,
                                      -0x1.54728cp-3f, 0x1.99a01cp-3f, -0x1.000226p-2f, 0x1.555554p-2f};
inline constexpr float gelu_terms[] = {0x1.d8dd40p-16f, 0x1.2848e6p-16f, -0x1.32f5dcp-12f, 0x1.769baep-12f,
                                       0x1.175fc8p-9f,  -0x1.8faef0p-7f, 0x1.258c7ep-5f,   -0x1.336fdap-4f,
                                       0x1.f6ff12p-4f,  -0x1.4e102cp-3f, 0x1.6e9828p-4f};
inline constexpr float sin_terms[] = {0x1.c658f4p-19f, -0x1.a15c8ap-13f, 0x1.111240p-7f, -0x1.555556p-3f};
inline constexpr float cos_terms[] = {0x1.9b8ef8p-16f, -0x1.6c1244p-10f, 0x1.555554p-5f};
inline constexpr float atan_terms[] = {-0x1.039436p-4f, 0x1.b6a27cp-4f, -0x1.240f3ep-3f, 0x1.9996b4p-3f, -0x1.555554p-2f};
inline constexpr float erf_terms[] = {0x1.4e459cp-14f, -0x1.a5ba96p-11f, 0x1.54426ep-8f, -0x1.b80080p-6f,
                                      0x1.ce2d60p-4f,  -0x1.812740p-2f,  0x1.06eba8p-3f};
inline constexpr float log_erfc_terms[] = {0x1.9d892cp-13f, -0x1.908358p-9f, 0x1.6cfdc8p-6f, -0x1.aa2374p-4f,
                                           -0x1.462ca8p-1f, -0x1.20b434p+0f, -0x1.7433e8p-13f};
inline constexpr float half_pi = 0x1.921fb6p+0f, half_pi_low = -0x1.777a5cp-25f;
// The bits of 2 / pi behind 32 zeros, which stand for its whole part.
inline constexpr std::uint32_t two_over_pi[] = {0x00000000u, 0xA2F9836Eu, 0x4E441529u, 0xFC2757D1u,
                                                0xF534DDC0u, 0xDB629599u, 0x3C439041u, 0xFE5163ABu};
inline constexpr float tanh_split = 0x1.47ae14p-1f, root_half = 0x1.6a09e6p-1f;
inline constexpr float gelu_linear = 0x1.988454p+0f, gelu_linear_low = -0x1.857936p-25f;  // sqrt(8 / pi)
inline constexpr float gelu_cubic = 0x1.2444f2p-4f, gelu_cubic_low = 0x1.49b16ap-29f;     // times 0.044715
inline constexpr std::uint32_t log_split = 0x3F3504F3u;  // the bits of sqrt(1/2)

// Horner's rule from the highest term.
template <class F, std::size_t n>
LTC_INLINE F polynomial(const float (&terms)[n], F x) {
    F result = terms[0] * x + terms[1];
    for (std::size_t i = 2; i < n; ++i) result = result * x + terms[i];
    return result;
}

template <class F>
LTC_INLINE F at_most(F x, float ceiling) {
    return choose<F>(x > ceiling, splat<F>(ceiling), x);
}
template <class F>
LTC_INLINE F at_least(F x, float floor) {
    return choose<F>(x < floor, splat<F>(floor), x);
}
template <class F>
struct WithError {
    F value, error;
};

// fl(a * b) and its rounding error, from halves of 12 bits whose products are exact.
template <class F>
LTC_INLINE WithError<F> product(F a, F b) {
    const F a1 = from_bits<F>(bits(a) & 0xFFFFF000u), b1 = from_bits<F>(bits(b) & 0xFFFFF000u);
    const F a2 = a - a1, b2 = b - b1, p = a * b;
    return {p, ((a1 * b1 - p) + (a1 * b2 + a2 * b1)) + a2 * b2};
}

// m * 2^k, with k an integer in two's complement.
template <class F>
struct Scaled {
    F m;
    U<F> k;
};

// x = n * ln2 + r, with x clamped to -104..89; r then goes to exp_of.
template <class F>
LTC_INLINE Scaled<F> reduce(F x) {
    const F inside = at_most(at_least(x, -0x1.ap+6f), 0x1.64p+6f);
    const F shifted = inside * log2_e + rounder, n = shifted - rounder;
    return {(inside - n * ln2_high) - n * ln2_low, bits(shifted) - bits(rounder)};
}
// e^r for |r| up to a little over ln2 / 2: about 0.70 to 1.42.
template <class F>
LTC_INLINE F exp_of(F r) {
    return 1.0f + ((r * r) * polynomial(exp_terms, r) + r);
}

// By its exponent bits: zero below 2^-126 and infinity from 2^128 on.
template <class F>
LTC_INLINE F scale_or_flush(Scaled<F> y) {
    const I<F> u = (I<F>)(bits(y.m) + (y.k << 23)), top = I<F>{} + static_cast<std::int32_t>(infinity_bits);
    const I<F> capped = u > top ? top : u;
    return from_bits<F>((U<F>)(u < static_cast<std::int32_t>(smallest_normal) ? I<F>{} : capped));
}
// In two multiplications, of which only the last can round.
template <class F>
LTC_INLINE F scale(F m, U<F> k) {
    const U<F> first = (U<F>)((I<F>)k >> 1);
    return m * from_bits<F>((first + 127u) << 23) * from_bits<F>((k - first + 127u) << 23);
}

template <class F>
LTC_INLINE F exp(F x) {
    const Scaled<F> y = reduce(x);
    return choose<F>(x == x, scale_or_flush<F>({exp_of(y.m), y.k}), x);
}

template <class F>
LTC_INLINE F exp2(F x) {
    const F inside = at_most(at_least(x, -0x1.2cp+7f), 0x1p+7f);
    const F shifted = inside + rounder, r = inside - (shifted - rounder);
    const U<F> k = bits(shifted) - bits(rounder);
    return choose<F>(x == x, scale_or_flush<F>({polynomial(exp2_terms, r), k}), x);
}

template <class F>
LTC_INLINE F sigmoid(F x) {
    const F e = exp(neg(absolute(x)));
    return choose<F>(x < 0.0f, e, splat<F>(1.0f)) / (1.0f + e);
}

template <class F>
LTC_INLINE F tanh(F x) {
    const F a = absolute(x), z = a * a;
    const F near = (a * z) * polynomial(tanh_terms, z) + a;
    const F far = 1.0f - 2.0f / (exp(2.0f * at_most(a, 0x1.4p+3f)) + 1.0f);
    return with_sign(choose<F>(a < tanh_split, near, far), x);
}

template <class F>
LTC_INLINE F log(F operand) {
    const F x = write_fp32(operand), infinity = from_bits<F>(all<F>(infinity_bits));
    const U<F> t = bits(x) - log_split;
    const U<F> k = (U<F>)((I<F>)t >> 23);
    const F n = from_bits<F>(k + bits(rounder)) - rounder;  // k as a float, exact for |k| < 2^22
    const F f = from_bits<F>((t & 0x007FFFFFu) + log_split) - 1.0f, square = f * f;
    const F series = (square * f) * polynomial(log_terms, f) + n * ln2_low;
    const F inside = ((series - 0.5f * square) + f) + n * ln2_high;
    const F below = choose<F>(x < 0.0f, from_bits<F>(all<F>(nan_bits)), inside);
    const F edge = choose<F>(x == 0.0f, neg(infinity), below);
    return choose<F>((x == infinity) | (x != x), x, edge);
}

// max(x, 0) + log1p(e^-|x|), with log1p(e) = 2 atanh(e / (2 + e)).
template <class F>
LTC_INLINE F softplus(F x) {
    const F e = exp(neg(absolute(x))), s = e / (2.0f + e), z = s * s;
    return choose<F>(x > 0.0f, x, splat<F>(0.0f)) + ((s * z) * polynomial(log1p_terms, z) + 2.0f * s);
}

// x * sigmoid(u) for u of the sign of x; a = |x| clamped; y = e^-|u|. Tails keep all their bits.
template <class F>
LTC_INLINE F gate(F x, F a, Scaled<F> y) {
    const F below = 1.0f + scale<F>(y.m, y.k);
    return choose<F>(x < 0.0f, neg(scale<F>((a * y.m) / below, y.k)), x / below);
}

template <class F>
LTC_INLINE F silu(F x) {
    const F a = at_most(absolute(x), 0x1.ap+6f);
    const Scaled<F> y = reduce(neg(a));
    return gate<F>(x, a, {exp_of(y.m), y.k});
}

// x * sigmoid(sqrt(8/pi) (x + 0.044715 x^3)), the argument with its rounding errors.
template <class F>
LTC_INLINE F gelu_tanh(F x) {
    const F a = at_most(absolute(x), 0x1.6p+3f);
    const WithError<F> square = product(a, a), cubic = product(square.value, splat<F>(gelu_cubic));
    const F s = gelu_linear + cubic.value, back = s - cubic.value;
    const F error = (gelu_linear - back) + (cubic.value - (s - back));
    const F s_low = error + ((cubic.error + gelu_cubic * square.error) +
                             (gelu_linear_low + gelu_cubic_low * square.value));
    const WithError<F> u = product(a, s);
    const Scaled<F> y = reduce(neg(u.value));
    return gate<F>(x, a, {exp_of(y.m + neg(u.error + a * s_low)), y.k});
}

// x - |x| Phi(-|x|) or -|x| Phi(-|x|), Phi(-a) = e^(-a^2 / 2) g(t), t = (a/sqrt2 - 3) / (a/sqrt2 + 3).
template <class F>
LTC_INLINE F gelu(F x) {
    const F a = at_most(absolute(x), 0x1.ep+3f), z = a * root_half;
    const F g = polynomial(gelu_terms, (z - 3.0f) / (z + 3.0f));
    const WithError<F> square = product(a, a);
    const Scaled<F> y = reduce(-0.5f * square.value);
    const F tail = scale<F>((a * g) * exp_of(y.m + -0.5f * square.error), y.k);
    return choose<F>(x < 0.0f, neg(tail), x - tail);
}

// The high word of m * w, for m below 2^24.
template <class F>
LTC_INLINE U<F> high_word(U<F> m, U<F> w) {
    const U<F> m0 = m & 0xFFFFu, m1 = m >> 16, w0 = w & 0xFFFFu, w1 = w >> 16;
    const U<F> left = m0 * w1, right = m1 * w0;
    const U<F> carry = ((m0 * w0) >> 16) + (left & 0xFFFFu) + (right & 0xFFFFu);
    return m1 * w1 + (left >> 16) + (right >> 16) + (carry >> 16);
}

// Word first + i of 2 / pi and the one behind it, shifted left: a window of its bits; i is at most 4.
template <class F>
LTC_INLINE U<F> window(U<F> i, U<F> shift, std::size_t first) {
    U<F> high = all<F>(two_over_pi[first]), low = all<F>(two_over_pi[first + 1]);
    for (std::uint32_t k = 1; k <= 4; ++k) {
        const auto here = i == all<F>(k);
        high = here ? all<F>(two_over_pi[first + k]) : high;
        if (first + k + 1 < std::size(two_over_pi)) low = here ? all<F>(two_over_pi[first + k + 1]) : low;
    }
    return (high << shift) | ((low >> 1) >> (31u - shift));
}

// k as a float, exact for |k| < 2^22.
template <class F>
LTC_INLINE F whole(U<F> k) {
    return from_bits<F>(k + bits(rounder)) - rounder;
}

// |x| = quadrant * pi / 2 + r + low, with |r| up to a little over pi / 4 and quadrant mod 4.
template <class F>
struct Angle {
    F r, low;
    U<F> quadrant;
};

// After Payne and Hanek: of 2 / pi, only the bits that meet the mantissa of x below 4 and above 2^-94 are multiplied.
template <class F>
LTC_INLINE Angle<F> turn(F x) {
    const U<F> u = bits(x) & magnitude_bits, m = (u & 0x007FFFFFu) | smallest_normal, place = (u >> 23) - 120u;
    const U<F> i = place >> 5, shift = place & 31u, middle = window<F>(i, shift, 1);
    const U<F> product_low = m * middle, low = product_low + high_word<F>(m, window<F>(i, shift, 2));
    const U<F> carry = low < product_low ? all<F>(1u) : U<F>{};
    const U<F> high = m * window<F>(i, shift, 0) + high_word<F>(m, middle) + carry;  // quarter turns, in units of 2^-30
    const U<F> fraction = (high << 2) | (low >> 30), rest = low << 2;                // less the nearest: signed
    const F first = whole<F>((U<F>)((I<F>)fraction >> 16)) * 0x1p-16f, second = whole<F>(fraction & 0xFFFFu) * 0x1p-32f;
    const F tail = whole<F>(rest >> 16) * 0x1p-48f + whole<F>(rest & 0xFFFFu) * 0x1p-64f;
    const F sum = first + second, below = (second - (sum - first)) + tail;
    const F turns = sum + below, turns_low = below - (turns - sum);
    const WithError<F> r = product(turns, splat<F>(half_pi));
    const F r_low = r.error + (turns * half_pi_low + turns_low * half_pi), a = absolute(x);
    const auto small = a < 0.75f;
    return {choose<F>(small, a, r.value), choose<F>(small, F{}, r_low), small ? U<F>{} : (high + 0x20000000u) >> 30};
}

// The sine of x + quarters * pi / 2; the sign of a zero is that of x for 0 quarters.
template <class F>
LTC_INLINE F sine(F x, std::uint32_t quarters) {
    const Angle<F> t = turn(x);
    const F z = t.r * t.r, half = 0.5f * z, one = 1.0f - half;
    const F odd = t.r + ((t.r * z) * polynomial(sin_terms, z) + t.low);
    const F even = one + (((1.0f - one) - half) + ((z * z) * polynomial(cos_terms, z) - t.r * t.low));
    const U<F> q = t.quadrant + quarters, sign = (q & 2u) << 30;
    const F y = choose<F>((q & 1u) != U<F>{}, even, odd);
    const F turned = from_bits<F>(bits(y) ^ (quarters == 0 ? sign ^ (bits(x) & sign_bit) : sign));
    return choose<F>((bits(x) & magnitude_bits) < infinity_bits, turned, from_bits<F>(all<F>(nan_bits)));
}

// Odd polynomial, or 1 - e^log(erfc |x|).
template <class F>
LTC_INLINE F erf(F x) {
    const F a = write_fp32(absolute(x)), z = a * a;
    const F near = a + a * polynomial(erf_terms, z);
    const F far = 1.0f - exp(polynomial(log_erfc_terms, at_most(a, 4.0f)));
    return with_sign(choose<F>(a < 0x1.d70a3ep-1f, near, far), x);
}

// Of t = |x|, (|x| - 1) / (|x| + 1) or -1 / |x|, so that |t| <= tan(pi / 8), plus 0, pi / 4 or pi / 2.
template <class F>
LTC_INLINE F atan(F x) {
    const F a = absolute(x);
    const auto beyond = a > 0x1.3504f4p+1f, above = a > 0x1.a8279ap-2f;
    const F top = choose<F>(beyond, splat<F>(-1.0f), choose<F>(above, a - 1.0f, a));
    const F t = top / choose<F>(beyond, a, choose<F>(above, a + 1.0f, splat<F>(1.0f))), z = t * t;
    const F base = choose<F>(beyond, splat<F>(half_pi), choose<F>(above, splat<F>(0.5f * half_pi), F{}));
    const F low = choose<F>(beyond, splat<F>(half_pi_low), choose<F>(above, splat<F>(0.5f * half_pi_low), F{}));
    return with_sign(base + (t + ((t * z) * polynomial(atan_terms, z) + low)), x);
}

template <class F>
LTC_INLINE F reciprocal(F x) {
    return 1.0f / write_fp32(x);
}
template <class F>
LTC_INLINE F rsqrt(F x) {
    return 1.0f / ltc::sqrt(write_fp32(x));
}

}  // namespace fp32

// `which` known at compile time, so that a loop over lanes holds one sequence.
template <Activation which, class F>
LTC_INLINE F activation_fp32(F x) {
    using enum Activation;
    if constexpr (which == sigmoid) return write_fp32(fp32::sigmoid(x));
    else if constexpr (which == tanh) return write_fp32(fp32::tanh(x));
    else if constexpr (which == exp) return write_fp32(fp32::exp(x));
    else if constexpr (which == exp2) return write_fp32(fp32::exp2(x));
    else if constexpr (which == log) return write_fp32(fp32::log(x));
    else if constexpr (which == softplus) return write_fp32(fp32::softplus(x));
    else if constexpr (which == silu) return write_fp32(fp32::silu(x));
    else if constexpr (which == gelu) return write_fp32(fp32::gelu(x));
    else if constexpr (which == gelu_tanh) return write_fp32(fp32::gelu_tanh(x));
    else if constexpr (which == reciprocal) return write_fp32(fp32::reciprocal(x));
    else if constexpr (which == rsqrt) return write_fp32(fp32::rsqrt(x));
    else if constexpr (which == sin) return write_fp32(fp32::sine(x, 0));
    else if constexpr (which == cos) return write_fp32(fp32::sine(x, 1));
    else if constexpr (which == erf) return write_fp32(fp32::erf(x));
    else return write_fp32(fp32::atan(x));
}

// --- the synapse (11) ---

// One synapse on the running sums of its target; absent synapses are not evaluated. The bf16 form takes v and
// parameters that are bf16 already.
[[gnu::always_inline]] inline void synapse_bf16(float v, float mu, float sigma, float w, float we, float& num,
                                                float& den) {
    const float s = activation_bf16(Activation::sigmoid, sigma * write_fp32(v - mu));
    num = write_fp32(num + write_fp32(s * we));
    den = write_fp32(den + write_fp32(s * w));
}
template <class F>
LTC_INLINE void synapse_fp32(F v, F mu, F sigma, F w, F we, F& num, F& den) {
    const F s = activation_fp32<Activation::sigmoid>(write_fp32(sigma * write_fp32(v - mu)));
    num = write_fp32(num + write_fp32(s * we));
    den = write_fp32(den + write_fp32(s * w));
}

}  // namespace ltc
