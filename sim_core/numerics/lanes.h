// Vectors of floats as the kernels use them; the numeric contract on them is numerics.h and activations.h.
// Included by kernels.cpp alone, once per instruction set. Everything has internal linkage: the linker keeps one copy of
// an inline function, and it could be one that this CPU cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "numerics/activations.h"
#include "numerics/numerics.h"

namespace ltc::LTC_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int native = 16;
#elif defined(__AVX2__)
constexpr int native = 8;
#else
constexpr int native = 4;
#endif

template <int W>
struct Vector {
    typedef float type __attribute__((vector_size(4 * W)));
    typedef std::uint64_t Pairs __attribute__((vector_size(4 * W)));
    typedef std::uint32_t Words __attribute__((vector_size(2 * W)));
    typedef std::uint16_t Halves __attribute__((vector_size(2 * W)));
    typedef std::int16_t SignedHalves __attribute__((vector_size(2 * W)));
};
template <int W>
using Floats = typename Vector<W>::type;

template <class V, class T>
LTC_INLINE V load(const T* p) {
    static_assert(sizeof(T) == 4);
    V v{};
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
template <class V, class T>
LTC_INLINE void store(T* p, V v) {
    __builtin_memcpy(p, &v, sizeof v);
}

// from[index] in every lane; index times `scale` bytes, and whatever follows in the word for a scale of 2.
template <int scale, class V>
LTC_INLINE U<V> gather(const void* from, U<V> index) {
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 64)
        return __builtin_bit_cast(U<V>, _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), 0xFFFF,
                                                                    __builtin_bit_cast(__m512i, index), from, scale));
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(V) == 32)
        return __builtin_bit_cast(U<V>, _mm256_i32gather_epi32(static_cast<const int*>(from), __builtin_bit_cast(__m256i, index), scale));
#endif
    const char* bytes = static_cast<const char*>(from);
    for (std::size_t i = 0; i < sizeof(V) / sizeof(float); ++i) {
        std::uint32_t word = 0;
        __builtin_memcpy(&word, bytes + std::size_t{index[i]} * scale, scale);
        index[i] = word;
    }
    return index;
}

// Lane `index` of a row of `lanes` floats, for each lane; any value where the index is negative.
template <class V>
LTC_INLINE V pick(const float* row, [[maybe_unused]] std::uint32_t lanes, U<V> index) {
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 64)
        if (lanes <= 32)
            return __builtin_bit_cast(V, _mm512_permutex2var_ps(__builtin_bit_cast(__m512, load<V>(row)), __builtin_bit_cast(__m512i, index),
                                                                __builtin_bit_cast(__m512, load<V>(row + (lanes - 16)))));
#endif
    return from_bits<V>(gather<4, V>(row, (I<V>)index < 0 ? U<V>{} : index));
}

// Sources that two registers hold as halves, where lanes can be picked out of registers.
#if defined(__AVX512BW__)
template <int W>
constexpr std::uint32_t halves_in_registers = W == 16 ? 64 : 0;
#else
template <int W>
constexpr std::uint32_t halves_in_registers = 0;
#endif

// The halves that those of `index` index, in registers that begin at `values`.
template <class V, int registers>
LTC_INLINE U<V> pick_halves([[maybe_unused]] const U<V> (&values)[4], U<V> index) {
#if defined(__AVX512BW__)
    if constexpr (sizeof(V) == 64) {
        const auto at = [&](int i) { return __builtin_bit_cast(__m512i, values[i]); };
        const __m512i halves = __builtin_bit_cast(__m512i, index);
        const __m512i low = _mm512_permutex2var_epi16(at(0), halves, at(1));
        if constexpr (registers == 2) return __builtin_bit_cast(U<V>, low);
        const __mmask32 upper = _mm512_test_epi16_mask(halves, _mm512_set1_epi16(64));
        return __builtin_bit_cast(U<V>, _mm512_mask_blend_epi16(upper, low, _mm512_permutex2var_epi16(at(2), halves, at(3))));
    }
#endif
    return index;
}

// fl(w * x + a): equal to a product and a sum where the product is exact.
template <class V>
LTC_INLINE V fused(V w, V x, V a) {
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 64) return __builtin_bit_cast(V, _mm512_fmadd_ps(__builtin_bit_cast(__m512, w), __builtin_bit_cast(__m512, x), __builtin_bit_cast(__m512, a)));
#endif
#if defined(__FMA__)
    if constexpr (sizeof(V) == 32) return __builtin_bit_cast(V, _mm256_fmadd_ps(__builtin_bit_cast(__m256, w), __builtin_bit_cast(__m256, x), __builtin_bit_cast(__m256, a)));
    if constexpr (sizeof(V) == 16) return __builtin_bit_cast(V, _mm_fmadd_ps(__builtin_bit_cast(__m128, w), __builtin_bit_cast(__m128, x), __builtin_bit_cast(__m128, a)));
#endif
    return w * x + a;
}

// Lane l holds l.
template <class V>
LTC_INLINE I<V> iota() {
    I<V> lane{};
    for (std::size_t i = 0; i < sizeof(V) / sizeof(float); ++i) lane[i] = static_cast<std::int32_t>(i);
    return lane;
}

// Whether a bit is set in any word.
template <class Words>
LTC_INLINE bool any(Words words) {
#if defined(__AVX512F__)
    if constexpr (sizeof words == 64) {
        const __m512i set = __builtin_bit_cast(__m512i, words);
        return _mm512_test_epi32_mask(set, set) != 0;
    }
#endif
#if defined(__AVX2__)
    if constexpr (sizeof words == 32) {
        const __m256i set = __builtin_bit_cast(__m256i, words);
        return _mm256_testz_si256(set, set) == 0;
    }
#endif
    std::uint64_t set = 0;
    for (std::size_t i = 0; i < sizeof words; i += 8) {
        std::uint64_t part = 0;
        __builtin_memcpy(&part, reinterpret_cast<const char*>(&words) + i, 8);
        set |= part;
    }
    return set != 0;
}

// Two bf16 values in a word, the first in its high half.
template <class V>
LTC_INLINE V first(U<V> pair) {
    return from_bits<V>(pair & 0xFFFF0000u);
}
template <class V>
LTC_INLINE V second(U<V> pair) {
    return from_bits<V>(pair << 16);
}

// Rule 7: the two products of a pair on their accumulator. `exact` says that no product or partial sum can be subnormal
// and no product overflows, so that fused operations give the same bits.
template <bool exact, class V>
LTC_INLINE V add_pair(V a, U<V> w, U<V> x) {
#if defined(__AVX512BF16__)
    if constexpr (exact && sizeof(V) == 64)
        return __builtin_bit_cast(V, _mm512_dpbf16_ps(__builtin_bit_cast(__m512, a), __builtin_bit_cast(__m512bh, w), __builtin_bit_cast(__m512bh, x)));
#endif
    if constexpr (exact) return fused(second<V>(w), second<V>(x), fused(first<V>(w), first<V>(x), a));
    a = a + first<V>(w) * first<V>(x);
    return a + second<V>(w) * second<V>(x);
}

// add_pair with one pair of x in every lane, which stays in memory.
template <bool exact, class V>
LTC_INLINE V add_pair_of(V a, U<V> w, const std::uint32_t* x) {
#if defined(__AVX512BF16__)
    if constexpr (exact && sizeof(V) == 64) {
        __m512 sum = __builtin_bit_cast(__m512, a);
        asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(__builtin_bit_cast(__m512i, w)), "m"(*x));
        return __builtin_bit_cast(V, sum);
    }
#endif
    return add_pair<exact>(a, w, all<V>(*x));
}

// The bits of a value of the arena rounded to bf16; below them whatever was there. It is no subnormal, and a NaN is the
// one NaN: neither needs care.
template <class V>
LTC_INLINE U<V> rounded_bits(V x) {
    const U<V> u = bits(x);
    return u + 0x7FFFu + ((u >> 16) & 1u);
}

template <class V>
LTC_INLINE V round_architectural(V x) {
    return from_bits<V>(rounded_bits(x) & 0xFFFF0000u);
}

// Two vectors as bf16 halves of one, those of `a` in the lower half of the register: lane i of the result then holds lanes
// 2i and 2i+1 of `a`, or of `b`, and second() and first() of it are vectors of mixed lanes. Subnormals become zeros.
#if defined(__AVX512BF16__)
template <int W>
constexpr bool mixes_lanes = W == 16;
[[gnu::always_inline]] inline U<Floats<16>> round_both(Floats<16> a, Floats<16> b) {
    return __builtin_bit_cast(U<Floats<16>>, _mm512_cvtne2ps_pbh(__builtin_bit_cast(__m512, b), __builtin_bit_cast(__m512, a)));
}
#else
template <int W>
constexpr bool mixes_lanes = false;
#endif

// Consecutive values of the arena rounded to bf16, two in a word.
template <int W>
LTC_INLINE typename Vector<W>::Words pack_pairs(Floats<W> x) {
    using Words = typename Vector<W>::Words;
#if defined(__AVX512BF16__)
    if constexpr (W == 16) {
        const Words w = __builtin_bit_cast(Words, _mm512_cvtneps_pbh(__builtin_bit_cast(__m512, x)));
        return w << 16 | w >> 16;
    }
#endif
    using Pairs = typename Vector<W>::Pairs;
    const Pairs p = __builtin_bit_cast(Pairs, rounded_bits(x));
    return __builtin_convertvector((p & 0xFFFF0000u) | (p >> 48), Words);
}

// Where either value of a pair is neither 0 nor of a magnitude with bits from low to low + span, all in bf16 bits.
template <int W>
LTC_INLINE typename Vector<W>::Words outside_of(typename Vector<W>::Words pairs, std::uint32_t low, std::uint32_t span) {
    using Halves = typename Vector<W>::Halves;
    const Halves magnitude = __builtin_bit_cast(Halves, pairs) & std::uint16_t{0x7FFF};
    const Halves above = magnitude - static_cast<std::uint16_t>(low);
    return __builtin_bit_cast(typename Vector<W>::Words, (above > static_cast<std::uint16_t>(span)) & (magnitude != 0));
}

// An architectural write (4), in the precision of the instruction.
template <bool bf16, class V>
LTC_INLINE V write(V x) {
    return bf16 ? to_bf16(x) : write_fp32(x);
}

// Rule 9. The table has an entry for every subnormal, so that rounding need not flush. No index is above that of -inf:
// a gather that reads an entry and the one behind it stays inside the table.
template <Activation which, class V>
LTC_INLINE V table(V x) {
    const U<V> u = bits(x);
    const U<V> rounded = u + 0x7FFFu + ((u >> 16) & 1u);
    const U<V> index = ((u & magnitude_bits) > infinity_bits ? all<V>(nan_bits) : rounded) >> 16;
    return from_bits<V>(gather<2, V>(ltc_activation_tables[static_cast<std::size_t>(which)], index) << 16);
}

// Rule 7 takes the 64 accumulators in chunks of 8, which stay in registers. A chunk that no term reaches is +0 and
// changes nothing, as no sum of the tree is -0: it is left out.
LTC_INLINE std::uint32_t chunks_of(std::uint32_t pairs) { return pairs > 56 ? 8 : (pairs + 7) / 8; }

template <class V>
LTC_INLINE V adjacent_tree(const V (&a)[4]) {
    return (a[0] + a[1]) + (a[2] + a[3]);
}
template <class V>
LTC_INLINE V adjacent_tree(const V (&a)[8]) {
    return ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]));
}
template <class V>
LTC_INLINE V tree_of_chunks(V (&sums)[8], std::uint32_t chunks) {
    for (std::uint32_t n = 1; n < 8; n *= 2)
        for (std::uint32_t i = 0; i + n < chunks; i += 2 * n) sums[i] = sums[i] + sums[i + n];
    return sums[0];
}

}  // namespace
}  // namespace ltc::LTC_ISA
