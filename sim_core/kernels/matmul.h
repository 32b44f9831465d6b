// The matrix unit: rule 7 of docs/numerics.md with lanes running over outputs.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "kernels/semantics.h"

namespace ltc::LTC_ISA {
namespace {

// How a matmul computes: fp32 operands; bf16 operands; bf16 operands for which fused operations are exact.
enum class Products { wide, plain, fused };

// A group of outputs with N vectors of x: their dot products. The accumulators of a pass stay in registers: 8, which are
// a chunk, for each vector; with many vectors a chunk takes two passes of 4.
template <Products how, int W, int N>
struct Group {
    using V = Floats<W>;
    struct Sums {
        V of[N];
        LTC_INLINE friend Sums operator+(const Sums& a, const Sums& b) {
            Sums sums;
            for (int i = 0; i < N; ++i) sums.of[i] = a.of[i] + b.of[i];
            return sums;
        }
    };
    static constexpr bool wide = how == Products::wide;
    static constexpr std::size_t pair_words = wide ? 2 * W : W;
    static constexpr std::uint32_t pass = N > 2 ? 4 : 8;

    const std::uint32_t *w, *x;
    std::size_t x_words;  // from one vector to the next
    std::uint32_t pairs;

    // The accumulators of the chunks from `first` on, n of them, summed; moves w past their weights. Chunks that no term
    // reaches are +0 and change nothing, as no sum is -0.
    template <std::uint32_t first = 0, std::uint32_t n = 8>
    LTC_INLINE Sums sum() {
        if constexpr (n == 1) {
            return sum_chunk(8 * first);
        } else {
            const Sums sums = sum<first, n / 2>();
            return 8 * (first + n / 2) < pairs ? sums + sum<first + n / 2, n / 2>() : sums;
        }
    }

    LTC_INLINE void skip() { w += (pairs + 7) / 8 * 8 * pair_words; }

private:
    LTC_INLINE Sums sum_chunk(std::uint32_t first) {
        const std::uint32_t rounds = (pairs - first + 63) / 64;
        Sums sums = sum_pass<0>(first, rounds);
        if constexpr (pass == 4) sums = sums + sum_pass<4>(first, rounds);
        w += rounds * 8 * pair_words;
        return sums;
    }

    // The accumulators first + begin to first + begin + pass - 1, of the chunk whose weights are at w, summed.
    template <std::uint32_t begin>
    LTC_INLINE Sums sum_pass(std::uint32_t first, std::uint32_t rounds) const {
        V a[N][pass] = {};
        const std::uint32_t *weights = w + begin * pair_words, *terms = x + pair_words / W * (first + begin);
        for (std::uint32_t r = 0; r < rounds; ++r, weights += 8 * pair_words, terms += pair_words / W * 64)
#pragma GCC unroll 8
            for (std::uint32_t n = 0; n < pass; ++n)
#pragma GCC unroll 4
                for (std::size_t i = 0; i < N; ++i)
                    add(a[i][n], weights + n * pair_words, terms + i * x_words + pair_words / W * n);
        Sums sums;
#pragma GCC unroll 4
        for (int i = 0; i < N; ++i) sums.of[i] = adjacent_tree(a[i]);
        return sums;
    }

    LTC_INLINE static void add(V& a, const std::uint32_t* w, const std::uint32_t* x) {
        if constexpr (wide) {
            a = a + load<V>(w) * from_bits<V>(all<V>(x[0]));
            a = a + load<V>(w + W) * from_bits<V>(all<V>(x[1]));
        } else {
            a = add_pair_of<how == Products::fused>(a, load<U<V>>(w), x);
        }
    }
};

// x as the matrix unit reads it: tap behind tap in whole rows, with zeros behind the k elements of each, behind the last
// up to a multiple of 16. A tap's zeros may reach over the one that is written next. Whether fused operations are exact.
// at(x, l): where lane l of the rows of a tap that begins at x stands.
template <bool wide, int W, class At>
LTC_INLINE bool read_x(const MatmulStep& m, std::uint32_t* out, const float* x, At at) {
    using V = Floats<W>;
    const std::uint32_t k = m.k, lanes = m.lanes, tap_lanes = m.tap_lanes, low = m.x_low >> 16, span = m.x_span >> 16;
    typename Vector<W>::Words outside{};
    [[maybe_unused]] typename Vector<2 * W>::Words outside_of_two{};
    for (std::uint32_t first = 0; first < lanes; first += tap_lanes, x += m.tap_step) {
        const std::uint32_t end = first + tap_lanes < lanes ? tap_lanes : (lanes + 15) / 16 * 16 - first;
        std::uint32_t l = 0;
#if defined(__AVX512BF16__)
        if constexpr (!wide && mixes_lanes<W>)
            for (; l + 2 * W <= k; l += 2 * W) {
                const U<V> halves = round_both(load<V>(at(x, l)), load<V>(at(x, l + W)));
                outside_of_two |= outside_of<2 * W>(halves, low, span);
                store(out + (first + l) / 2, halves << 16 | halves >> 16);
            }
#endif
        for (; l < end; l += W) {
            V v = load<V>(at(x, l));
            if (l + W > k) v = choose<V>(iota<V>() < static_cast<std::int32_t>(k) - static_cast<std::int32_t>(l), v, V{});
            if constexpr (wide) {
                store(out + first + l, v);
            } else {
                const auto pairs = pack_pairs<W>(v);
                outside |= outside_of<W>(pairs, low, span);
                store(out + (first + l) / 2, pairs);
            }
        }
    }
    return !wide && !any(outside) && !any(outside_of_two);
}

LTC_INLINE const float* in_one_piece(const float* x, std::uint32_t l) { return x + l; }

// A product's way to its row: the bias, or another row to the finished product; relu.
template <bool bf16, class V>
LTC_INLINE V finish(const MatmulStep& m, V y, V bias) {
    if (m.addend) y = write<false>(y);
    y = y + bias;
    if (m.relu) y = relu(write<false>(y));
    return write<bf16>(y);
}

// Whether nothing reads the vector of outputs from `o` on.
LTC_INLINE bool idle(const MatmulStep& m, std::uint32_t o) { return o / native < 64 && (m.idle >> o / native & 1) != 0; }

// The results of N vectors, which are in scratch.
template <Products how, bool bf16, int N>
inline void multiply(const MatmulStep& m, float* dst, const float* bias) {
    constexpr int W = native;
    Group<how, W, N> group{m.weights, m.scratch, (m.lanes + 15) / 16 * (how == Products::wide ? 16 : 8), (m.lanes + 1) / 2};
    for (std::uint32_t o = 0; o < m.outputs; o += W) {
        if (idle(m, o)) {
            group.skip();
            continue;
        }
        const auto sums = group.sum();
        for (int i = 0; i < N; ++i) {
            float* to = dst + i * m.dst_step + o;
            const float* more = bias + i * m.bias_step + o;
            if (o + W <= m.outputs) {
                store(to, finish<bf16>(m, sums.of[i], load<Floats<W>>(more)));
            } else {  // rows narrower than a vector
                for (std::uint32_t n = 0; n < m.outputs - o; ++n) to[n] = finish<bf16>(m, float{sums.of[i][n]}, more[n]);
            }
        }
    }
}

template <bool wide, bool bf16, int N>
inline void multiply(const MatmulStep& m, float* dst, const float* x, const float* bias) {
    const std::size_t words = (m.lanes + 15) / 16 * (wide ? 16 : 8);
    bool exact = true;
    for (int i = 0; i < N; ++i) exact &= read_x<wide, native>(m, m.scratch + static_cast<std::size_t>(i) * words, x + i * m.x_step, in_one_piece);
    if constexpr (wide)
        multiply<Products::wide, bf16, N>(m, dst, bias);
    else if (exact)
        multiply<Products::fused, bf16, N>(m, dst, bias);
    else
        multiply<Products::plain, bf16, N>(m, dst, bias);
}

template <bool wide, bool bf16>
const Step* matmul(Frame& f, const Step* step) {
    const MatmulStep& m = step->matmul;
    float* dst = resolve(f, m.dst);
    const float *x = resolve(f, m.x), *bias = resolve(f, m.bias);
    std::size_t b = 0;
    const auto multiply_by = [&]<int N>() {
        for (; b + N <= m.batch; b += N, dst += N * m.dst_step, x += N * m.x_step, bias += N * m.bias_step)
            multiply<wide, bf16, N>(m, dst, x, bias);
    };
    if (m.apart) {
        multiply_by.template operator()<4>();
        multiply_by.template operator()<2>();
    }
    multiply_by.template operator()<1>();
    return step + 1;
}

template <>
struct Semantics<Opcode::matmul> {
    template <bool bf16, int>
    static const Step* run(Frame& f, const Step* step) { return matmul<false, bf16>(f, step); }
};
template <>
struct Semantics<Opcode::matmul_fp32> {
    template <bool bf16, int>
    static const Step* run(Frame& f, const Step* step) { return matmul<true, bf16>(f, step); }
};

}  // namespace
}  // namespace ltc::LTC_ISA
