// A product of few terms with one vector: all pairs of x stay in registers, so that a vector of outputs costs a load and a
// product for each pair, and no accumulator is computed that no pair reaches.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "kernels/matmul.h"

namespace ltc::LTC_ISA {
namespace {

constexpr std::uint32_t most_few_pairs = native == 16 ? 24 : 0;  // beside them a tree needs 6 registers, of 32

// An accumulator that one pair reaches. x stays in its register, and the weights in memory, where the instruction reads them.
[[gnu::always_inline]] inline Floats<native> sum_of_pair(const std::uint32_t* w, U<Floats<native>> x) {
    using V = Floats<native>;
#if defined(__AVX512BF16__)
    __m512 sum{};
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(__builtin_bit_cast(__m512i, x)), "m"(*reinterpret_cast<const __m512i_u*>(w)));
    return __builtin_bit_cast(V, sum);
#else
    return add_pair<true>(V{}, load<U<V>>(w), x);
#endif
}

// Keeps the sums in the order in which they are written: else the compiler computes all accumulators first, and there are
// not registers enough.
[[gnu::always_inline]] inline void in_order([[maybe_unused]] Floats<native>& sum) {
#if defined(__AVX512F__)
    asm("" : "+v"(sum));
#endif
}

// Rule 7: the accumulators from `first` on, `size` of them, summed. One pair reaches each of the first P, and none the
// others: they are +0 and change nothing, as no sum is -0.
template <int P, int first, int size>
[[gnu::always_inline]] inline Floats<native> sum_few(const std::uint32_t* w, const U<Floats<native>> (&x)[P]) {
    using V = Floats<native>;
    if constexpr (size == 1) {
        return sum_of_pair(w + first * native, x[first]);
    } else if constexpr (first + size / 2 >= P) {
        return sum_few<P, first, size / 2>(w, x);
    } else {
        V sum = sum_few<P, first, size / 2>(w, x);
        sum = sum + sum_few<P, first + size / 2, size / 2>(w, x);
        in_order(sum);
        return sum;
    }
}

// Where fused operations are exact no sum is subnormal, and it is written but once, with the bias: finish() without its
// first write.
template <bool bf16, class V>
LTC_INLINE V finish_exact(const MatmulStep& m, V y, V bias) {
    y = y + bias;
    if (m.relu) y = relu(write<false>(y));
    return write<bf16>(y);
}

template <int P, bool bf16>
const Step* few_terms(Frame& f, const Step* step) {
    using V = Floats<native>;
    const MatmulStep& m = step->matmul;
    const float *x = resolve(f, m.x), *bias = resolve(f, m.bias);
    if (!read_x<false, native>(m, m.scratch, x, in_one_piece)) return matmul<false, bf16>(f, step);
    U<V> pairs[P];
    for (int p = 0; p < P; ++p) pairs[p] = all<V>(m.scratch[p]);
    float* dst = resolve(f, m.dst);
    const std::uint32_t* w = m.weights;
    const std::size_t words = (std::size_t{m.lanes} + 15) / 16 * 8 * native;
    for (std::uint32_t o = 0; o < m.outputs; o += native, w += words)
        if (!idle(m, o)) store(dst + o, finish_exact<bf16>(m, sum_few<P, 0, 32>(w, pairs), load<V>(bias + o)));
    return step + 1;
}

// For so many pairs, at least 1, or more, whose weights are zeros. Null where there are too many.
template <bool bf16>
Handler few_terms_handler(std::uint32_t pairs) {
    if constexpr (most_few_pairs != 0) {
        if (pairs <= 1) return &few_terms<1, bf16>;
        if (pairs <= 2) return &few_terms<2, bf16>;
        if (pairs <= 4) return &few_terms<4, bf16>;
        if (pairs <= 8) return &few_terms<8, bf16>;
        if (pairs <= 12) return &few_terms<12, bf16>;
        if (pairs <= 16) return &few_terms<16, bf16>;
        if (pairs <= 20) return &few_terms<20, bf16>;
        if (pairs <= most_few_pairs) return &few_terms<24, bf16>;
    }
    return nullptr;
}

}  // namespace
}  // namespace ltc::LTC_ISA
