// Sums of products of computed rows: each product a write, then rule 7, then a write, then the addend.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "kernels/semantics.h"

namespace ltc::LTC_ISA {
namespace {

// The sum over e below n of a[e * a_step] with the vector at b + e * b_step.
template <bool narrow, int W>
LTC_INLINE Floats<W> sum_of_products(const float* a, std::ptrdiff_t a_step, const float* b, std::ptrdiff_t b_step, std::ptrdiff_t n) {
    using V = Floats<W>;
    const auto factor = [](V x) { return narrow ? to_bf16(x) : x; };
    const auto term = [&](std::ptrdiff_t e) {
        return write_fp32(factor(ltc::splat<V>(a[e * a_step])) * factor(load<V>(b + e * b_step)));
    };
    const std::uint32_t chunks = chunks_of(static_cast<std::uint32_t>((n + 1) / 2));
    V sums[8];
    for (std::uint32_t c = 0; c < chunks; ++c) {
        V acc[8] = {};
        for (std::ptrdiff_t first = 16 * std::ptrdiff_t{c}; first < n; first += 128) {
            if (first + 16 <= n) {
#pragma GCC unroll 16
                for (std::ptrdiff_t e = 0; e < 16; ++e) acc[e / 2] = acc[e / 2] + term(first + e);
            } else {
                for (std::ptrdiff_t e = 0; first + e < n; ++e) acc[e / 2] = acc[e / 2] + term(first + e);
            }
        }
        sums[c] = adjacent_tree(acc);
    }
    return write_fp32(tree_of_chunks(sums, chunks));
}

template <bool bf16, bool narrow, int W>
inline const Step* product(Frame& f, const Step* step) {
    const ProductStep& p = step->product;
    float* dst = resolve(f, p.dst);
    const float *a = resolve(f, p.a), *b = resolve(f, p.b), *addend = resolve(f, p.addend);
    for (std::uint32_t i = 0; i < p.n_i; ++i, dst += p.dst_i, a += p.a_i, addend += p.addend_i)
        for (std::uint32_t l = 0; l < p.lanes; l += W) {
            const Floats<W> sum = sum_of_products<narrow, W>(a, p.a_j, b + l, p.b_j, p.n_j);
            store(dst + l, write<bf16>(sum + load<Floats<W>>(addend + l)));
        }
    return step + 1;
}

// B as columns: element e of the W rows from j on are the vector e of group j / W; rows behind the last are +0.
template <int W>
inline void turn(const ProductStep& p, const float* b) {
    float* to = p.turned;
    for (std::uint32_t j = 0; j < p.lanes; j += W)
        for (std::uint32_t e = 0; e < p.k; ++e, to += W)
            for (std::uint32_t l = 0; l < W; ++l) to[l] = j + l < p.n_j ? b[(j + l) * p.b_j + e] : 0.0f;
}

// The lanes of a vector go through rows that are not there with +0 for B, which an infinity of A would make a NaN of.
template <int W>
LTC_INLINE Floats<W> only_first(Floats<W> x, std::uint32_t n) {
    for (std::uint32_t l = n; l < W; ++l) x[l] = 0.0f;
    return x;
}

template <bool bf16, bool narrow, int W>
inline const Step* dot(Frame& f, const Step* step) {
    const ProductStep& p = step->product;
    float* dst = resolve(f, p.dst);
    const float *a = resolve(f, p.a), *addend = resolve(f, p.addend);
    turn<W>(p, resolve(f, p.b));
    for (std::uint32_t i = 0; i < p.n_i; ++i, dst += p.dst_i, a += p.a_i, addend += p.addend_i)
        for (std::uint32_t j = 0; j < p.lanes; j += W) {
            Floats<W> sum = sum_of_products<narrow, W>(a, 1, p.turned + std::size_t{j} * p.k, W, p.k);
            if (j + W > p.n_j) sum = only_first<W>(sum, p.n_j < j ? 0 : p.n_j - j);
            store(dst + j, write<bf16>(sum + load<Floats<W>>(addend + j)));
        }
    return step + 1;
}

template <>
struct Semantics<Opcode::product> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return step->product.narrow ? product<bf16, true, W>(f, step) : product<bf16, false, W>(f, step);
    }
};
template <>
struct Semantics<Opcode::dot> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return step->product.narrow ? dot<bf16, true, W>(f, step) : dot<bf16, false, W>(f, step);
    }
};

}  // namespace
}  // namespace ltc::LTC_ISA
