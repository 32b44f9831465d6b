// The matrix unit on a group of streams: x of all streams is read once, and a vector of outputs is finished for all of them
// before the next, so that its weights are read once for the group.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "kernels/group.h"
#include "kernels/matmul.h"

namespace ltc::LTC_ISA {
namespace {

constexpr std::uint32_t streams_at_once = 4;

// N streams from `s` on, and outputs from `o` on. w: their weights.
template <Products how, bool bf16, int N>
LTC_INLINE const std::uint32_t* multiply_streams(const MatmulStep& m, const StreamGroup& g, const std::uint32_t* w, std::size_t x_words,
                                                 float* dst, const float* bias, std::uint32_t s) {
    constexpr int W = native;
    Group<how, W, N> group{w, g.scratch + s * x_words, x_words, (m.lanes + 1) / 2};
    const auto sums = group.sum();
    for (std::uint32_t i = 0; i < N; ++i) {
        const std::size_t at = std::size_t{s + i} * g.lanes;
        store(dst + at, finish<bf16>(m, sums.of[i], load<Floats<W>>(bias + at)));
    }
    return group.w;
}

// The results of the vectors that are in scratch. exact: for each stream, whether fused operations are.
template <bool wide, bool bf16>
inline void multiply_group(const MatmulStep& m, const StreamGroup& g, std::uint64_t exact, float* dst, const float* bias) {
    constexpr Products of_all = wide ? Products::wide : Products::fused, of_one = wide ? Products::wide : Products::plain;
    constexpr std::uint64_t all_of_them = (1u << streams_at_once) - 1;
    const std::size_t x_words = (m.lanes + 15) / 16 * (wide ? 16 : 8);
    const OfStream at(g);
    const std::uint32_t* w = m.weights;
    for (std::uint32_t o = 0; o < m.outputs; o += native) {
        float* to = at(dst, o);
        const float* more = at(bias, o);
        const std::uint32_t* next = w;
        for (std::uint32_t s = 0; s < g.active; s += streams_at_once) {
            if (wide || (exact >> s & all_of_them) == all_of_them) {
                next = multiply_streams<of_all, bf16, streams_at_once>(m, g, w, x_words, to, more, s);
                continue;
            }
            for (std::uint32_t i = s; i < s + streams_at_once; ++i)  // out of range: only those streams go the long way
                next = exact >> i & 1 ? multiply_streams<of_all, bf16, 1>(m, g, w, x_words, to, more, i)
                                      : multiply_streams<of_one, bf16, 1>(m, g, w, x_words, to, more, i);
        }
        w = next;
    }
}

template <bool wide, bool bf16>
const Step* group_matmul(Frame& f, const Step* step) {
    const MatmulStep& m = step->matmul;
    const StreamGroup& g = *f.group;
    const std::size_t x_words = (m.lanes + 15) / 16 * (wide ? 16 : 8);
    const OfStream at(g);
    float* dst = resolve(f, m.dst);
    const float *x = resolve(f, m.x), *bias = resolve(f, m.bias);
    for (std::uint32_t b = 0; b < m.batch; ++b, dst += m.dst_step, x += m.x_step, bias += m.bias_step) {
        std::uint64_t exact = 0;
        for (std::uint32_t s = 0; s < g.streams; ++s)
            exact |= std::uint64_t{read_x<wide, native>(m, g.scratch + s * x_words, x + s * g.lanes, at)} << s;
        multiply_group<wide, bf16>(m, g, exact, dst, bias);
    }
    return step + 1;
}

template <>
struct GroupSemantics<Opcode::matmul> {
    template <bool bf16, int>
    static const Step* run(Frame& f, const Step* step) { return group_matmul<false, bf16>(f, step); }
};
template <>
struct GroupSemantics<Opcode::matmul_fp32> {
    template <bool bf16, int>
    static const Step* run(Frame& f, const Step* step) { return group_matmul<true, bf16>(f, step); }
};

}  // namespace
}  // namespace ltc::LTC_ISA
