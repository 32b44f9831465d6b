// Sums by rule 7 and maxima, along a row and down a column.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include <utility>

#include "kernels/semantics.h"

namespace ltc::LTC_ISA {
namespace {

// The elements from `first` on, and zeros behind the last of k.
template <int W>
LTC_INLINE Floats<W> elements(const float* src, std::uint32_t first, std::uint32_t k) {
    if (first >= k) return Floats<W>{};
    const auto left = static_cast<std::int32_t>(k - first);
    return choose<Floats<W>>(iota<Floats<W>>() < left, load<Floats<W>>(src + first), Floats<W>{});
}

// Every second lane of two vectors that follow each other, from lane `from` on.
template <int from, int W, int... n>
LTC_INLINE Floats<W> every_second(Floats<W> a, Floats<W> b, std::integer_sequence<int, n...>) {
    return __builtin_shufflevector(a, b, (2 * n + from)...);
}
template <int from, int W>
LTC_INLINE Floats<W> every_second(Floats<W> a, Floats<W> b) {
    return every_second<from, W>(a, b, std::make_integer_sequence<int, W>());
}

// Lane l of the result is the sum of lanes l and l ^ distance.
template <int distance, int W, int... n>
LTC_INLINE Floats<W> add_lanes(Floats<W> a, std::integer_sequence<int, n...>) {
    return a + __builtin_shufflevector(a, a, (n ^ distance)...);
}

// The tree of adjacent lanes, in every lane. A sum is the same either way round.
template <int W, int distance = 1>
LTC_INLINE Floats<W> tree_of_lanes(Floats<W> a) {
    if constexpr (distance == W)
        return a;
    else
        return tree_of_lanes<W, 2 * distance>(add_lanes<distance, W>(a, std::make_integer_sequence<int, W>()));
}

// Rule 7, in every lane. A lane is an accumulator, or the sum of adjacent ones. Those that no element reaches, and the zeros
// behind the last element, change nothing, as no sum is -0.
template <int W>
LTC_INLINE Floats<W> sum_of_row(const float* src, std::uint32_t k) {
    using V = Floats<W>;
    const std::uint32_t all = (k + 2 * W - 1) / (2 * W), vectors = all < accumulators / W ? all : accumulators / W;
    V a[accumulators / W];
    for (std::uint32_t v = 0; v < vectors; ++v) {
        V sum{};
        for (std::uint32_t e = 2 * W * v; e < k; e += 2 * accumulators) {
            const V x = elements<W>(src, e, k), y = elements<W>(src, e + W, k);
            sum = sum + every_second<0, W>(x, y);
            sum = sum + every_second<1, W>(x, y);
        }
        a[v] = sum;
    }
    for (std::uint32_t n = vectors; n > 1; n = (n + 1) / 2)
        for (std::uint32_t i = 0; 2 * i < n; ++i) {
            const V more = 2 * i + 1 < n ? a[2 * i + 1] : V{};
            a[i] = every_second<0, W>(a[2 * i], more) + every_second<1, W>(a[2 * i], more);
        }
    return tree_of_lanes<W>(a[0]);
}

// reduction(src, k): in every lane.
template <bool bf16, int W, class Reduction>
inline const Step* row_reduce(Frame& f, const Step* step, Reduction reduction) {
    const RowReduceStep& r = step->row_reduce;
    float* dst = resolve(f, r.dst);
    const float* src = resolve(f, r.src);
    for (std::uint32_t g = 0; g < r.groups; ++g, dst += r.dst_step, src += r.src_step) {
        const Floats<W> v = write<bf16>(reduction(src, r.k));
        for (std::uint32_t l = 0; l < r.lanes; l += W) store(dst + l, v);
    }
    return step + 1;
}

template <>
struct Semantics<Opcode::row_sum> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return row_reduce<bf16, W>(f, step, [](const float* src, std::uint32_t k) { return sum_of_row<W>(src, k); });
    }
};
template <>
struct Semantics<Opcode::row_max> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return row_reduce<bf16, W>(f, step, [](const float* src, std::uint32_t k) { return ltc::splat<Floats<W>>(reduce_max(src, k)); });
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
