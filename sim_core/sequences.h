// The bf16 sigmoid and tanh (9) without their tables: what networks spend their time in, in a few operations on whole
// vectors where a table would be a look-up for every lane. The tables stay the definition. These sequences give their
// values for every bf16 input, with fused operations or without: tests/test_core_units.py looks at all of them on every
// instruction set. Only the coefficients and the clamps were chosen for that; another polynomial of this degree misses.
// Included by kernels.cpp alone, once per instruction set, like lanes.h.
#pragma once

#include "lanes.h"

namespace ltc::LTC_ISA {
namespace {

// 2^f = 1 + f * (...) for |f| <= 1/2, to 2^-18; the highest term first.
inline constexpr float exp2_terms_bf16[] = {0x1.3a046ep-7f, 0x1.c9f048p-5f, 0x1.ec061ep-3f, 0x1.62dfbcp-1f};

// e^(x * scale / log2(e)) = (1 + f * series) * 2^k, with k in the exponent bits of a word.
template <class V>
struct Power {
    V f, series;
    U<V> k;
};
template <class V>
LTC_INLINE Power<V> power(V x, float scale) {
    const V rounder = splat<V>(fp32::rounder), factor = splat<V>(scale);
    const V shifted = fused(x, factor, rounder), f = fused(x, factor, rounder - shifted);
    V series = splat<V>(exp2_terms_bf16[0]);
    for (int i = 1; i < 4; ++i) series = fused(series, f, splat<V>(exp2_terms_bf16[i]));
    return {f, series, bits(shifted) << 23};
}

// A result of the sequences as bf16. None lies halfway between two bf16 values where the nearest is the upper one.
template <class V>
LTC_INLINE V nearest_bf16(V x) {
    return from_bits<V>((bits(x) + 0x7FFFu) & 0xFFFF0000u);
}

// x is bf16; a NaN stays one.
template <class V>
LTC_INLINE V sigmoid_bf16(V x) {
    const Power<V> e = power(fp32::at_most(x, 88.0f), -fp32::log2_e);
    const V y = from_bits<V>(bits(fused(e.series, e.f, splat<V>(1.0f))) + e.k);
    const V s = nearest_bf16(1.0f / (1.0f + y));
    return choose<V>(x < -87.25f, V{}, s);  // below 2^-126
}

template <class V>
LTC_INLINE V tanh_bf16(V x) {
    const Power<V> e = power(fp32::at_most(absolute(x), 5.0f), 2.0f * fp32::log2_e);
    const V scale = from_bits<V>(e.k + 0x3F800000u), y = fused(scale, e.series * e.f, scale - 1.0f);
    return fp32::with_sign(nearest_bf16(y / (y + 2.0f)), x);
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
