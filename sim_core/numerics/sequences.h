// The bf16 sigmoid and tanh (9) without their tables: what networks spend their time in, in a few operations on whole
// vectors where a table would be a look-up for every lane. The tables stay the definition. These sequences give their
// values for every bf16 input, with fused operations or without: tests/core/test_units.py looks at all of them on every
// instruction set. Only the coefficients and the clamps were chosen for that; another polynomial of this degree misses.
// Included by kernels.cpp alone, once per instruction set, like lanes.h.
#pragma once

#include "numerics/lanes.h"
#include "numerics/pieces.h"

namespace ltc::LTC_ISA {
namespace {

// 2^f = 1 + f * (...) for |f| <= 1/2, to 2^-18; the highest term first.
inline constexpr float exp2_terms_bf16[] = {0x1.3a046ep-7f, 0x1.c9f048p-5f, 0x1.ec061ep-3f, 0x1.62dfbcp-1f};

// e^(x * scale / log2(e)) = (1 + f * series) * 2^k, with k in the exponent bits of a word. Of several vectors step by step,
// which hides the latency of the steps.
template <class V, std::size_t N>
struct Powers {
    V f[N], series[N];
    U<V> k[N];
};
#define LTC_EACH _Pragma("GCC unroll 8") for (std::size_t i = 0; i < N; ++i)
template <class V, std::size_t N>
LTC_INLINE Powers<V, N> powers(const V (&x)[N], float scale) {
    const V rounder = splat<V>(fp32::rounder), factor = splat<V>(scale);
    Powers<V, N> e;
    V shifted[N];
    LTC_EACH shifted[i] = fused(x[i], factor, rounder);
    LTC_EACH e.f[i] = rounder - shifted[i];
    LTC_EACH e.f[i] = fused(x[i], factor, e.f[i]);
    LTC_EACH e.series[i] = splat<V>(exp2_terms_bf16[0]);
    for (int n = 1; n < 4; ++n) LTC_EACH e.series[i] = fused(e.series[i], e.f[i], splat<V>(exp2_terms_bf16[n]));
    LTC_EACH e.k[i] = bits(shifted[i]) << 23;
    return e;
}

// Vectors of 16 lanes pick coefficients out of 32 in two registers: a polynomial for every piece of the axis needs no
// division, and fewer steps one behind the other (pieces.h).
template <class V>
constexpr bool in_pieces = native == 16 && sizeof(V) == 64;

// Coefficient `index` mod 32.
template <class V>
LTC_INLINE V pick_piece([[maybe_unused]] const float (&table)[32], [[maybe_unused]] U<V> index) {
#if defined(__AVX512F__)
    if constexpr (in_pieces<V>)
        return __builtin_bit_cast(V, _mm512_permutex2var_ps(_mm512_load_ps(table), __builtin_bit_cast(__m512i, index), _mm512_load_ps(table + 16)));
#endif
    return V{};
}

// a where it is the smaller number of two, or the larger, both as signed integers.
template <class V>
LTC_INLINE I<V> at_most_bits(I<V> a, std::uint32_t b) {
    const I<V> most = (I<V>)all<V>(b);
    return a < most ? a : most;
}
template <class V>
LTC_INLINE I<V> at_least_bits(I<V> a, std::uint32_t b) {
    const I<V> least = (I<V>)all<V>(b);
    return a > least ? a : least;
}

// The sigmoid before it is rounded to nearest, even or otherwise; -87.25 <= x <= 88.
template <class V, std::size_t N>
LTC_INLINE void gates(V (&x)[N]) {
    const Powers<V, N> e = powers(x, -fp32::log2_e);
    const V one = splat<V>(1.0f);
    V y[N];
    LTC_EACH y[i] = fused(e.series[i], e.f[i], one);
    LTC_EACH y[i] = from_bits<V>(bits(y[i]) + e.k[i]);
    LTC_EACH y[i] = one + y[i];
    LTC_EACH x[i] = one / y[i];
}

// A result of the sequences as bf16. None lies halfway between two bf16 values where the nearest is the upper one.
template <class V>
LTC_INLINE V nearest_bf16(V x) {
    return from_bits<V>((bits(x) + 0x7FFFu) & 0xFFFF0000u);
}

// The sigmoid before it is rounded to nearest, for -87.25 <= x: x log2(e) is k + f, and the sigmoid a cubic in f times
// 2^min(k, 0). From k = -21 down the cubics are one.
template <class V>
LTC_INLINE V gate_in_pieces(V x) {
    constexpr std::uint32_t zero = __builtin_bit_cast(std::uint32_t, fp32::rounder);  // where k is 0
    const V rounder = splat<V>(fp32::rounder), factor = splat<V>(fp32::log2_e);
    const V inside = from_bits<V>((U<V>)at_most_bits<V>((I<V>)bits(x), bits(sigmoid_most)));
    const V k = fused(inside, factor, rounder), f = fused(inside, factor, rounder - k);
    const U<V> index = (U<V>)at_least_bits<V>((I<V>)bits(k), zero - 21);
    const V low = fused(pick_piece<V>(sigmoid_pieces[1], index), f, pick_piece<V>(sigmoid_pieces[0], index));
    const V high = fused(pick_piece<V>(sigmoid_pieces[3], index), f, pick_piece<V>(sigmoid_pieces[2], index));
    return from_bits<V>(bits(fused(f * f, high, low)) + ((U<V>)at_most_bits<V>((I<V>)bits(k), zero) << 23));
}

// x is bf16; a NaN stays one.
template <class V>
LTC_INLINE V sigmoid_bf16(V x) {
    if constexpr (in_pieces<V>) return choose<V>(x == x, choose<V>(x < -87.25f, V{}, nearest_bf16(gate_in_pieces(x))), x);
    V s[1] = {fp32::at_most(x, 88.0f)};
    gates(s);
    return choose<V>(x < -87.25f, V{}, nearest_bf16(s[0]));  // below 2^-126
}

// x is bf16; of a NaN any value.
template <class V>
LTC_INLINE V tanh_bf16(V x) {
    if constexpr (in_pieces<V>) {
        const V a = from_bits<V>((U<V>)at_most_bits<V>((I<V>)bits(absolute(x)), bits(tanh_most)));
        const U<V> index = bits(fused(a, splat<V>(tanh_scale), splat<V>(fp32::rounder)));
        const V slope = fused(pick_piece<V>(tanh_pieces[2], index), a, pick_piece<V>(tanh_pieces[1], index));
        return with_sign(nearest_bf16(fused(slope, a, pick_piece<V>(tanh_pieces[0], index))), x);
    }
    const V inside[1] = {fp32::at_most(absolute(x), 5.0f)};
    const Powers<V, 1> e = powers(inside, 2.0f * fp32::log2_e);
    const V scale = from_bits<V>(e.k[0] + 0x3F800000u), y = fused(scale, e.series[0] * e.f[0], scale - 1.0f);
    return with_sign(nearest_bf16(y / (y + 2.0f)), x);
}

// An activation instruction on architectural values.
template <Activation which, bool bf16, class V>
LTC_INLINE V activation(V x) {
    constexpr bool sequence = which == Activation::sigmoid || which == Activation::tanh;
    if constexpr (bf16 && sequence) {
        const V rounded = round_architectural(x);
        const V y = which == Activation::sigmoid ? sigmoid_bf16(rounded) : tanh_bf16(rounded);
        return choose<V>(x == x, y, x);  // the one NaN
    } else if constexpr (bf16) {
        return table<which>(x);
    } else {
        return activation_fp32<which>(x);
    }
}

}  // namespace
}  // namespace ltc::LTC_ISA
