// Vectors of floats as the kernels use them; the numeric contract on them is numerics.h and activations.h.
// Included by kernels.cpp alone, once per instruction set. Everything has internal linkage: the linker keeps one copy of
// an inline function, and it could be one that this CPU cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "activations.h"
#include "numerics.h"

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

template <class V>
LTC_INLINE V pick(const float* from, U<V> index) {
    return from_bits<V>(gather<4, V>(from, index));
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

template <Activation which, bool bf16, class V>
LTC_INLINE V activation(V x) {
    if constexpr (bf16)
        return table<which>(x);
    else
        return activation_fp32<which>(x);
}

// Rule 7 takes the 64 accumulators in chunks of 8, which stay in registers. A chunk that no term reaches is +0 and
// changes nothing, as no sum of the tree is -0: it is left out.
LTC_INLINE std::uint32_t chunks_of(std::uint32_t pairs) { return pairs > 56 ? 8 : (pairs + 7) / 8; }

template <class V>
LTC_INLINE V tree_of_8(const V (&a)[8]) {
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
