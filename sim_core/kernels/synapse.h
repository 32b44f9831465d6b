// The synapse unit: rule 11 of docs/numerics.md with lanes running over targets. SynapseStep in kernels.h has the layouts,
// and says when a row may take fused operations.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "kernels/semantics.h"

namespace ltc::LTC_ISA {
namespace {

// What the next operation of a sum sees of x: a zero has either sign here, and a NaN any payload, until the end of a sum.
template <class V>
LTC_INLINE V without_subnormals(V x) {
    return choose<V>(absolute(x) < 0x1p-126f, V{}, x);
}
template <class V>
LTC_INLINE V add_written(V sum, V product) {
    return without_subnormals(sum + without_subnormals(product));
}
template <class V>
LTC_INLINE V end_of_sum(V sum) {
    return write_fp32(sum + 0.0f);
}

// ---- single slots ----------------------------------------------------------------------------------------------------

template <int W, bool bf16>
inline void single_rows(const SynapseStep& step, float* num_row, float* den_row) {
    using V = Floats<W>;
    const std::uint32_t *slot = step.words, slot_words = 5 * step.lanes;
    for (std::uint32_t t = 0; t < step.targets; ++t, num_row += step.lanes, den_row += step.lanes) {
        const std::uint32_t n = step.rows[t];
        for (std::uint32_t l = 0; l < step.lanes; l += W) {
            V num{}, den{};
            const std::uint32_t* p = slot + 5 * l;
            for (std::uint32_t i = 0; i < n; ++i, p += slot_words) {
                const V v = from_bits<V>(gather<4, V>(step.scratch, load<U<V>>(p)));
                const V x = load<V>(p + 2 * W) * without_subnormals(v - load<V>(p + W));
                const V s = bf16 ? sigmoid_bf16(round_architectural(x)) : activation_fp32<Activation::sigmoid>(x);
                num = add_written(num, s * load<V>(p + 4 * W));
                den = add_written(den, s * load<V>(p + 3 * W));
            }
            store(num_row + l, end_of_sum(num));
            store(den_row + l, end_of_sum(den));
        }
        slot += std::size_t{n} * slot_words;
    }
}

// ---- pairs of slots --------------------------------------------------------------------------------------------------

// Parameters of a pair that each lane has for itself: mu, sigma, w and we, behind so many words for its sources.
template <int W, std::uint32_t source_words>
struct OfLanes {
    using V = Floats<W>;
    static constexpr std::uint32_t mu = source_words, sigma = mu + 2 * W, w = sigma + 2 * W, we = w + W, pair_words = we + W;

    LTC_INLINE static void both(const std::uint32_t* at, V& a, V& b) { a = load<V>(at), b = load<V>(at + W); }
    LTC_INLINE static U<V> word(const std::uint32_t* at) { return load<U<V>>(at); }
};

// Presynaptic values of a pair: all lanes have the same two, listed ahead of the pairs.
template <int W>
struct SharedSources : OfLanes<W, 0> {
    using V = Floats<W>;
    const float* values;
    const std::uint32_t* list;

    LTC_INLINE void read(const std::uint32_t*, std::uint32_t pair, V& a, V& b) const {
        const float *first = values + list[2 * pair], *second = values + list[2 * pair + 1];
#if defined(__AVX512BF16__)
        if constexpr (mixes_lanes<W>) {  // of four lanes, two for the second slot and two for the first
            a = b = __builtin_bit_cast(V, _mm512_mask_broadcastss_ps(_mm512_set1_ps(*first), 0x3333, _mm_load_ss(second)));
            return;
        }
#endif
        a = splat<V>(*first), b = splat<V>(*second);
    }
};

// Each lane picks its own: out of registers that hold all, or with 0 of them from memory.
template <int W, int registers>
struct PickedSources : OfLanes<W, W> {
    using V = Floats<W>;
    const float* values;
    U<V> halves[4];

    LTC_INLINE void read(const std::uint32_t* p, std::uint32_t, V& a, V& b) const {
        const U<V> index = load<U<V>>(p);
        if constexpr (registers != 0) {
            const U<V> picked = pick_halves<V, registers>(halves, index);
            a = first<V>(picked), b = second<V>(picked);
        } else {
            a = from_bits<V>(gather<4, V>(values, index >> 16));
            b = from_bits<V>(gather<4, V>(values, index & 0xFFFFu));
        }
    }
};

// What lies above almost_shut as unsigned numbers, up to and with these many, is an x below open_gate whose gate is no zero.
template <class Word>
constexpr Word almost_shut = static_cast<Word>(__builtin_bit_cast(std::uint32_t, open_gate) >> (32 - 8 * sizeof(Word)));
template <class Word>
constexpr Word almost_shut_span =
    static_cast<Word>((__builtin_bit_cast(std::uint32_t, -87.25f) >> (32 - 8 * sizeof(Word))) - almost_shut<Word>);

template <class U>
LTC_INLINE U least(U a, U b) {
    return a < b ? a : b;
}

// The gates of N pairs as bf16, those of a pair in the halves of a word. Without `fuse` an x may be NaN. With it, `marks`
// becomes the least of how far an x, rounded, lies above almost_shut; in halves where lanes are mixed.
template <bool fuse, int W, std::size_t N>
LTC_INLINE void paired_gates(U<Floats<W>> (&s)[N], Floats<W> (&x)[2 * N], U<Floats<W>>& marks) {
    using V = Floats<W>;
    V inside[2 * N];
#if defined(__AVX512BF16__)
    if constexpr (mixes_lanes<W>) {
        using Halves = typename Vector<2 * W>::Halves;
        using Signed = typename Vector<2 * W>::SignedHalves;
        Halves rounded[N];
#pragma GCC unroll 4
        for (std::size_t g = 0; g < N; ++g) rounded[g] = __builtin_bit_cast(Halves, round_both(x[2 * g], x[2 * g + 1]));
#pragma GCC unroll 4
        for (std::size_t g = 0; g < N; ++g) {
            using Half = std::uint16_t;
            if constexpr (fuse) {
                const Halves above = rounded[g] - static_cast<Half>(almost_shut<Half> + 1);
                marks = __builtin_bit_cast(U<V>, least(__builtin_bit_cast(Halves, marks), above));
            }
            const Signed below = least(__builtin_bit_cast(Signed, rounded[g]), Signed{} + std::int16_t{0x42B0});            // 88
            const U<V> both = __builtin_bit_cast(U<V>, least(__builtin_bit_cast(Halves, below), Halves{} + Half{0xC2B0}));  // -88
            inside[2 * g] = second<V>(both), inside[2 * g + 1] = first<V>(both);
        }
        gates(inside);
#pragma GCC unroll 4
        for (std::size_t g = 0; g < N; ++g) {
            if constexpr (!fuse) {
                const U<V> both = __builtin_bit_cast(U<V>, rounded[g]);
                const V a = second<V>(both), b = first<V>(both);
                inside[2 * g] = choose<V>(a == a, inside[2 * g], a), inside[2 * g + 1] = choose<V>(b == b, inside[2 * g + 1], b);
            }
            s[g] = round_both(inside[2 * g], inside[2 * g + 1]);
        }
        return;
    }
#endif
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 2 * N; ++i) {
        x[i] = round_architectural(x[i]);
        if constexpr (fuse) marks = least(marks, bits(x[i]) - (almost_shut<std::uint32_t> + 1));
        inside[i] = fp32::at_least(fp32::at_most(x[i], 88.0f), -88.0f);
    }
    gates(inside);
#pragma GCC unroll 8
    for (std::size_t i = 0; i < 2 * N; ++i) inside[i] = choose<V>(x[i] < -87.25f, V{}, nearest_bf16(inside[i]));
#pragma GCC unroll 4
    for (std::size_t g = 0; g < N; ++g) s[g] = bits(inside[2 * g]) | bits(inside[2 * g + 1]) >> 16;
}

// The sums of one vector of targets.
template <int W>
struct Sums {
    using V = Floats<W>;
    V num{}, den{};
    U<V> marks = ~U<V>{};

    // Whether fused operations were right.
    bool all_fuse() const {
        if constexpr (mixes_lanes<W>)
            return !any(__builtin_bit_cast(typename Vector<2 * W>::Halves, marks) < almost_shut_span<std::uint16_t>);
        else
            return !any(marks < almost_shut_span<std::uint32_t>);
    }

    // The first synapse of a pair, then the second.
    template <bool fuse>
    LTC_INLINE void add(U<V> s, U<V> w, U<V> we) {
        if constexpr (fuse) {
            num = add_pair<true>(num, we, s);
            den = add_pair<true>(den, w, s);
        } else {
            add_one(first<V>(s), w & 0xFFFF0000u, first<V>(we));
            add_one(second<V>(s), w << 16, second<V>(we));
        }
    }
    LTC_INLINE void end() { num = end_of_sum(num), den = end_of_sum(den); }

private:
    LTC_INLINE void add_one(V s, U<V> w, V we) {
        const auto there = w != sign_bit;
        num = add_written(num, choose<V>(there, s * we, V{}));
        den = add_written(den, choose<V>(there, s * from_bits<V>(w), V{}));
    }
};

// The gates of the pairs from `pair` on, which stand at p, N of them.
template <bool fuse, std::size_t N, int W, class Sources>
LTC_INLINE void gates_of_pairs(U<Floats<W>> (&s)[N], U<Floats<W>>& marks, const Sources& sources, const std::uint32_t* p, std::uint32_t pair) {
    using V = Floats<W>;
    V x[2 * N];
#pragma GCC unroll 4
    for (std::uint32_t g = 0; g < N; ++g) {
        const std::uint32_t* at = p + g * Sources::pair_words;
        V mu[2];
        sources.read(at, pair + g, x[2 * g], x[2 * g + 1]);
        Sources::both(at + Sources::mu, mu[0], mu[1]);
        x[2 * g] = x[2 * g] - mu[0], x[2 * g + 1] = x[2 * g + 1] - mu[1];
        if constexpr (!fuse) x[2 * g] = without_subnormals(x[2 * g]), x[2 * g + 1] = without_subnormals(x[2 * g + 1]);
    }
#pragma GCC unroll 4
    for (std::uint32_t g = 0; g < N; ++g) {
        V sigma[2];
        Sources::both(p + g * Sources::pair_words + Sources::sigma, sigma[0], sigma[1]);
        x[2 * g] = sigma[0] * x[2 * g], x[2 * g + 1] = sigma[1] * x[2 * g + 1];
    }
    paired_gates<fuse, W, N>(s, x, marks);
}

// Pairs from `pair` on, N of them; moves p past them.
template <bool fuse, std::size_t N, int W, class Sources>
LTC_INLINE void add_pairs(Sums<W>& sums, const Sources& sources, const std::uint32_t*& p, std::uint32_t pair) {
    U<Floats<W>> s[N];
    gates_of_pairs<fuse, N, W>(s, sums.marks, sources, p, pair);
#pragma GCC unroll 4
    for (std::uint32_t g = 0; g < N; ++g, p += Sources::pair_words)
        sums.template add<fuse>(s[g], Sources::word(p + Sources::w), Sources::word(p + Sources::we));
}

template <bool fuse, int W, class Sources>
[[gnu::noinline]] Sums<W> sum_pairs(const Sources& sources, const std::uint32_t* p, std::uint32_t pairs) {
    Sums<W> sums;
    std::uint32_t pair = 0;
    constexpr std::uint32_t at_once = fuse ? 3 : 4;
    for (; pair + at_once <= pairs; pair += at_once) add_pairs<fuse, at_once>(sums, sources, p, pair);
    for (; pair < pairs; ++pair) add_pairs<fuse, 1>(sums, sources, p, pair);
    if constexpr (!fuse) sums.end();
    return sums;
}

// A row of targets; moves p past its pairs.
template <int W, class Sources>
LTC_INLINE Sums<W> sum_row(const Sources& sources, const std::uint32_t*& p, std::uint32_t pairs, bool plain) {
    const std::uint32_t* begin = p;
    p += std::size_t{pairs} * Sources::pair_words;
    if (!plain) {
        const Sums<W> sums = sum_pairs<true, W>(sources, begin, pairs);
        if (sums.all_fuse()) [[likely]] return sums;
    }
    return sum_pairs<false, W>(sources, begin, pairs);
}

template <int W, int registers>
inline void paired_rows(const SynapseStep& step, float* num, float* den, bool plain) {
    const auto* values = reinterpret_cast<const float*>(step.scratch + scratch_zeros);
    PickedSources<W, registers> picked{{}, values, {}};
    for (int i = 0; i < registers; ++i) picked.halves[i] = load<U<Floats<W>>>(step.scratch + scratch_zeros + step.sources + i * W);
    const std::uint32_t *p = step.words, *row = step.rows;
    for (std::uint32_t l = 0; l < step.targets * step.lanes; l += W, ++row) {
        const std::uint32_t pairs = *row >> 2;
        const bool plain_row = plain || (*row & row_is_plain) != 0;
        Sums<W> sums;
        if ((*row & row_shares_sources) != 0) {
            const SharedSources<W> shared{{}, values, p};
            p += shared_words(pairs);
            sums = sum_row<W>(shared, p, pairs, plain_row);
        } else {
            sums = sum_row<W>(picked, p, pairs, plain_row);
        }
        store(num + l, sums.num);
        store(den + l, sums.den);
    }
}

template <>
struct Semantics<Opcode::synapse> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        using V = Floats<W>;
        const SynapseStep& s = step->synapse;
        float *num = resolve(f, s.num), *den = resolve(f, s.den);
        const float* v = resolve(f, s.v);
        std::uint32_t *values = s.scratch + scratch_zeros, *halves = values + s.sources;
        for (std::uint32_t l = 0; l < scratch_zeros; ++l) s.scratch[l] = 0;
        I<V> large{};
        for (std::uint32_t l = 0; l < s.sources; l += W) {
            const V x = bf16 ? round_architectural(load<V>(v + l)) : load<V>(v + l);
            large |= (bits(x) & magnitude_bits) >= bits(fused_potentials);
            store(values + l, x);
        }
        if (!bf16 || !s.paired) {
            single_rows<W, bf16>(s, num, den);
            return step + 1;
        }
        const bool plain = any(large);
        if (s.sources > 2 * halves_in_registers<W>) {
            paired_rows<W, 0>(s, num, den, plain);
            return step + 1;
        }
        if constexpr (halves_in_registers<W> != 0) {
            for (std::uint32_t l = 0; l < s.sources; l += W) {
                const auto pairs = pack_pairs<W>(load<V>(v + l));
                store(halves + l / 2, (pairs << 16) | (pairs >> 16));
            }
            if (s.sources <= halves_in_registers<W>)
                paired_rows<W, 2>(s, num, den, plain);
            else
                paired_rows<W, 4>(s, num, den, plain);
        }
        return step + 1;
    }
};

}  // namespace
}  // namespace ltc::LTC_ISA
