// Sums by rule 7 and maxima, along a row and down a column.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "kernels/semantics.h"

namespace ltc::LTC_ISA {
namespace {

inline float sum_of_row(const float* src, std::size_t k) {
    float a[64] = {};
    std::size_t e = 0;
    for (; e + 128 <= k; e += 128)
        for (std::uint32_t n = 0; n < 64; ++n) {
            a[n] += src[e + 2 * n];
            a[n] += src[e + 2 * n + 1];
        }
    for (std::size_t n = 0; e + n < k; ++n) a[n / 2] += src[e + n];
    for (std::uint32_t width = 32; width > 0; width /= 2)
        for (std::uint32_t n = 0; n < width; ++n) a[n] = a[2 * n] + a[2 * n + 1];
    return a[0];
}

template <bool bf16, int W, class Reduction>
inline const Step* row_reduce(Frame& f, const Step* step, Reduction reduction) {
    const RowReduceStep& r = step->row_reduce;
    float* dst = resolve(f, r.dst);
    const float* src = resolve(f, r.src);
    for (std::uint32_t g = 0; g < r.groups; ++g, dst += r.dst_step, src += r.src_step) {
        const Floats<W> v = write<bf16>(ltc::splat<Floats<W>>(reduction(src, r.k)));
        for (std::uint32_t l = 0; l < r.lanes; l += W) store(dst + l, v);
    }
    return step + 1;
}

template <>
struct Semantics<Opcode::row_sum> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return row_reduce<bf16, W>(f, step, [](const float* src, std::uint32_t k) { return sum_of_row(src, k); });
    }
};
template <>
struct Semantics<Opcode::row_max> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return row_reduce<bf16, W>(f, step, [](const float* src, std::uint32_t k) { return reduce_max(src, k); });
    }
};

template <int W>
LTC_INLINE Floats<W> sum_of_column(const float* src, std::ptrdiff_t k_step, std::ptrdiff_t k) {
    const std::uint32_t chunks = chunks_of(static_cast<std::uint32_t>((k + 1) / 2));
    Floats<W> sums[8];
    for (std::uint32_t c = 0; c < chunks; ++c) {
        Floats<W> a[8] = {};
        for (std::ptrdiff_t e = 16 * std::ptrdiff_t{c}; e < k; e += 128)
            for (std::ptrdiff_t n = 0; n < 16 && e + n < k; ++n) a[n / 2] = a[n / 2] + load<Floats<W>>(src + (e + n) * k_step);
        sums[c] = adjacent_tree(a);
    }
    return tree_of_chunks(sums, chunks);
}

template <int W>
LTC_INLINE Floats<W> maximum_of_column(const float* src, std::ptrdiff_t k_step, std::uint32_t k) {
    Floats<W> best = load<Floats<W>>(src);
    for (std::uint32_t e = 1; e < k; ++e) best = maximum(best, load<Floats<W>>(src + e * k_step));
    return best;
}

template <bool bf16, int W, class Reduction>
inline const Step* column_reduce(Frame& f, const Step* step, Reduction reduction) {
    const ColumnReduceStep& r = step->column_reduce;
    float* dst = resolve(f, r.dst);
    const float* src = resolve(f, r.src);
    for (std::uint32_t i = 0; i < r.n_inner; ++i, dst += r.lanes, src += r.lanes)
        for (std::uint32_t l = 0; l < r.lanes; l += W) store(dst + l, write<bf16>(reduction(src + l, r.k_step, r.k)));
    return step + 1;
}

template <>
struct Semantics<Opcode::column_sum> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return column_reduce<bf16, W>(f, step, [](const float* src, std::ptrdiff_t k_step, std::uint32_t k) {
            return sum_of_column<W>(src, k_step, k);
        });
    }
};
template <>
struct Semantics<Opcode::column_max> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return column_reduce<bf16, W>(f, step, [](const float* src, std::ptrdiff_t k_step, std::uint32_t k) {
            return maximum_of_column<W>(src, k_step, k);
        });
    }
};

}  // namespace
}  // namespace ltc::LTC_ISA
