// The activation units and the synapse: rules 9, 10 and 11 of docs/numerics.md.
// In bf16 a unit is a table of correctly rounded results, linked in from the table file. In fp32 it is the
// sequence of operations written here, each rounded once: the sequence is the definition, and
// ltc_compiler/numerics/activations.py holds the same one, written anew. Operand and result are
// architectural: a subnormal reads and returns as zero.
//
// F is float or a vector of floats (see numerics.h). e^x by the two-part reduction of Cody and Waite (1980);
// products with their rounding error after Dekker (1971).
#pragma once

#include "numerics.h"

#include <cstdint>

// In the order of enum Activation. Little-endian in the file, as every supported machine is.
extern "C" [[gnu::visibility("hidden")]] const std::uint16_t ltc_activation_tables[11][65536];

namespace ltc {

// The rows of the table file, in its order.
enum class Activation : std::uint8_t {
    sigmoid, tanh, exp, exp2, log, softplus, silu, gelu, gelu_tanh, reciprocal, rsqrt
};
inline constexpr std::size_t activation_count = 11;

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
LTC_INLINE F with_sign(F magnitude, F x) {
    return from_bits<F>(bits(magnitude) | (bits(x) & sign_bit));
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
    else return write_fp32(fp32::rsqrt(x));
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
