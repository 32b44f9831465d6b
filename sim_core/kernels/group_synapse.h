// The synapse unit on a group of streams: the lanes are streams. What single streams spend on lanes of targets that lack a
// synapse is saved, and no lane picks sources of its own; the values of a row are turned by tiles on the way in and out.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "kernels/group.h"
#include "kernels/synapse.h"

namespace ltc::LTC_ISA {
namespace {

// W vectors become W vectors of their lanes.
template <int W>
LTC_INLINE void turn_tile(Floats<W> (&rows)[W]) {
    I<Floats<W>> low{}, high{};
    for (int l = 0; l < W; ++l) {
        low[l] = l / 2 + (l % 2 != 0 ? W : 0);
        high[l] = low[l] + W / 2;
    }
    for (int round = 1; round < W; round *= 2) {
        Floats<W> turned[W];
#pragma GCC unroll 8
        for (int i = 0; i < W / 2; ++i) {
            turned[2 * i] = __builtin_shuffle(rows[i], rows[i + W / 2], low);
            turned[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + W / 2], high);
        }
        __builtin_memcpy(&rows, &turned, sizeof rows);
    }
}

// Pairs of one target on W streams, in the layout of group_pairs. Presynaptic values: [source][stream].
template <int W>
struct SourcesOfStreams {
    using V = Floats<W>;
    static constexpr std::uint32_t mu = 1, sigma = 5, w = 9, we = 10, pair_words = group_pair_words;
    const float* values;

    LTC_INLINE static U<V> word(const std::uint32_t* at) { return all<V>(*at); }

    LTC_INLINE void read(const std::uint32_t* p, std::uint32_t, V& a, V& b) const {
        const V x = load<V>(values + std::size_t{*p >> 16} * W), y = load<V>(values + std::size_t{*p & 0xFFFFu} * W);
#if defined(__AVX512BF16__)
        if constexpr (mixes_lanes<W>) {  // two lanes of the second, then two of the first
            a = __builtin_shufflevector(y, x, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
            b = __builtin_shufflevector(y, x, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
            return;
        }
#endif
        a = x, b = y;
    }
    LTC_INLINE static void both(const std::uint32_t* at, V& a, V& b) {
#if defined(__AVX512BF16__)
        if constexpr (mixes_lanes<W>) {
            const __m128 four = _mm_loadu_ps(reinterpret_cast<const float*>(at));
            a = b = __builtin_bit_cast(V, _mm512_maskz_broadcast_f32x4(0xFFFF, four));
            return;
        }
#endif
        a = from_bits<V>(all<V>(at[2])), b = from_bits<V>(all<V>(at[0]));
    }

    // Sums with lane n that of stream n.
    LTC_INLINE static V in_order(V sums) {
        if constexpr (mixes_lanes<W>) {  // as `read` and two roundings of halves leave the streams
            constexpr I<V> order = {0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15};
            return __builtin_shuffle(sums, order);
        }
        return sums;
    }
};

// W streams from the rows of the first of them on.
template <int W>
inline void synapses_of_streams(const SynapseStep& s, const StreamGroup& g, const float* v, float* num, float* den) {
    using V = Floats<W>;
    const OfStream at(g);
    auto* values = reinterpret_cast<float*>(s.scratch);
    I<V> large{};
    for (std::uint32_t l = 0; l < s.sources; l += W) {
        V tile[W];
        for (std::uint32_t n = 0; n < W; ++n) {
            tile[n] = round_architectural(load<V>(at(v, l) + n * g.lanes));
            large |= (bits(tile[n]) & magnitude_bits) >= bits(fused_potentials);
        }
        turn_tile<W>(tile);
        for (std::uint32_t n = 0; n < W; ++n) store(values + (l + n) * W, tile[n]);
    }
    const SourcesOfStreams<W> sources{values};
    const std::uint32_t *target = s.of_group, *p = target + s.targets * g.lanes;
    auto* gates = reinterpret_cast<std::uint32_t*>(values + s.sources * W);
    auto* shut = reinterpret_cast<std::uint8_t*>(gates + s.pairs_of_group * W);  // by group_pairs: fused operations are wrong
    for (std::uint32_t pair = 0; pair < s.pairs_of_group; pair += group_pairs) {
        Sums<W> sums;
        U<V> found[group_pairs];
        gates_of_pairs<true, group_pairs, W>(found, sums.marks, sources, p + pair * group_pair_words, pair);
        for (std::uint32_t n = 0; n < group_pairs; ++n) store(gates + (pair + n) * W, found[n]);
        shut[pair / group_pairs] = !sums.all_fuse();
    }
    const bool plain = any(large);
    std::uint32_t pair = 0;
    for (std::uint32_t t = 0; t < s.targets * g.lanes; t += W) {
        V nums[W], dens[W];
        for (std::uint32_t n = 0; n < W; ++n) {
            const std::uint32_t end = pair + (*target >> 1);
            bool fuse = !plain && (*target++ & 1) == 0;
            for (std::uint32_t c = pair / group_pairs; c * group_pairs < end; ++c) fuse = fuse && shut[c] == 0;
            Sums<W> sums;
            if (fuse) {
                for (std::uint32_t i = pair; i < end; ++i) {
                    const std::uint32_t* at = p + i * group_pair_words;
                    sums.template add<true>(load<U<V>>(gates + i * W), sources.word(at + sources.w), sources.word(at + sources.we));
                }
            } else {
                sums = sum_pairs<false, W>(sources, p + pair * group_pair_words, end - pair);
            }
            pair = end;
            nums[n] = sources.in_order(sums.num);
            dens[n] = sources.in_order(sums.den);
        }
        turn_tile<W>(nums);
        turn_tile<W>(dens);
        for (std::uint32_t n = 0; n < W; ++n) {
            store(at(num, t) + n * g.lanes, nums[n]);
            store(at(den, t) + n * g.lanes, dens[n]);
        }
    }
}

// One stream after the other, on copies of its rows in one piece.
template <bool bf16, int W>
const Step* synapses_stream_by_stream(Frame& f, const Step* step) {
    const StreamGroup& group = *f.group;
    const SynapseStep& s = step->synapse;
    const std::uint32_t lanes = s.targets * group.lanes;
    auto* v = reinterpret_cast<float*>(s.scratch + scratch_zeros + 2 * (s.sources > 64 ? s.sources : 64));
    float *num = v + s.sources + scratch_spare, *den = num + lanes + scratch_spare;
    Step one = *step;
    one.synapse.v = {v, 0, 0}, one.synapse.num = {num, 0, 0}, one.synapse.den = {den, 0, 0};
    float *to_num = resolve(f, s.num), *to_den = resolve(f, s.den);
    const float* from = resolve(f, s.v);
    for (std::uint32_t n = 0; n < group.active; ++n, from += group.lanes, to_num += group.lanes, to_den += group.lanes) {
        take_rows(group, v, from, s.sources);
        Semantics<Opcode::synapse>::run<bf16, W>(f, &one);
        put_rows(group, to_num, num, lanes);
        put_rows(group, to_den, den, lanes);
    }
    return step + 1;
}

template <>
struct GroupSemantics<Opcode::synapse> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        const StreamGroup& g = *f.group;
        const SynapseStep& s = step->synapse;
        if (!bf16 || s.of_group == nullptr) return synapses_stream_by_stream<bf16, W>(f, step);
        float *num = resolve(f, s.num), *den = resolve(f, s.den);
        const float* v = resolve(f, s.v);
        for (std::uint32_t n = 0; n < g.active; n += W, v += W * g.lanes, num += W * g.lanes, den += W * g.lanes)
            synapses_of_streams<W>(s, g, v, num, den);
        return step + 1;
    }
};

}  // namespace
}  // namespace ltc::LTC_ISA
