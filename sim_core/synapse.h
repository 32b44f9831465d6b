// The synapse unit: rule 11 of docs/numerics.md with lanes running over targets.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "semantics.h"

namespace ltc::LTC_ISA {
namespace {

// The presynaptic values of a step: picks those of a vector of lanes out of scratch. `registers` hold all of them, where
// the instruction set can pick from registers; with 0 they are read from memory.
template <int W, int registers>
struct NarrowSources {
    using V = Floats<W>;
    static constexpr std::uint32_t words = 3 * W;

    explicit NarrowSources(const std::uint32_t* scratch) : scratch_(scratch) {
        for (int i = 0; i < registers; ++i) values_[i] = load<U<V>>(scratch + scratch_zeros + i * W);
    }

    V pick(U<V> source) const {
        if constexpr (registers != 0)
            return from_bits<V>(pick_halves<V, registers>(values_, source));
        else
            return from_bits<V>(gather<2, V>(scratch_, source & 0xFFFFu) << 16);
    }

    // Rule 11 for one vector of lanes of one slot.
    LTC_INLINE void add(const std::uint32_t* p, V& num, V& den) const {
        const U<V> potential = load<U<V>>(p + W), weight = load<U<V>>(p + 2 * W);
        const V d = write_fp32(pick(load<U<V>>(p)) - first<V>(potential));
        const V s = sigmoid_bf16(round_architectural(second<V>(potential) * d));
        num = write_fp32(num + write_fp32(s * second<V>(weight)));
        den = write_fp32(den + write_fp32(s * first<V>(weight)));
    }

private:
    const std::uint32_t* scratch_;
    U<V> values_[registers + 1];
};

template <int W, bool bf16>
struct WideSources {
    using V = Floats<W>;
    static constexpr std::uint32_t words = 5 * W;

    explicit WideSources(const std::uint32_t* scratch) : scratch_(scratch) {}

    LTC_INLINE void add(const std::uint32_t* p, V& num, V& den) const {
        const V v = from_bits<V>(gather<4, V>(scratch_, load<U<V>>(p)));
        const V x = load<V>(p + 2 * W) * write_fp32(v - load<V>(p + W));
        const V s = bf16 ? sigmoid_bf16(round_architectural(x)) : activation_fp32<Activation::sigmoid>(x);
        num = write_fp32(num + write_fp32(s * load<V>(p + 4 * W)));
        den = write_fp32(den + write_fp32(s * load<V>(p + 3 * W)));
    }

private:
    const std::uint32_t* scratch_;
};

// Every target row, G vectors of its lanes at a time.
template <class Sources, int W, int G>
inline void synapse_rows(const SynapseStep& s, float* num_row, float* den_row) {
    using V = Floats<W>;
    const Sources sources(s.scratch);
    const std::uint32_t *slot = s.slots, *run = s.runs, slot_words = s.lanes / W * Sources::words;
    for (std::uint32_t t = 0; t < s.targets; ++t, num_row += s.lanes, den_row += s.lanes) {
        const std::uint32_t n = *run;
        for (std::uint32_t l = 0; l < s.lanes; l += W * G) {
            V num[G] = {}, den[G] = {};
            const std::uint32_t* p = slot + l / W * Sources::words;
            for (std::uint32_t i = 0; i < n; ++i, p += slot_words)
                for (std::uint32_t g = 0; g < G; ++g) sources.add(p + g * Sources::words, num[g], den[g]);
            for (std::uint32_t g = 0; g < G; ++g) {
                store(num_row + l + W * g, num[g]);
                store(den_row + l + W * g, den[g]);
            }
        }
        slot += std::size_t{n} * slot_words;
        run += n;
    }
}

template <class Sources, int W>
inline void synapse_rows(const SynapseStep& s, float* num, float* den) {
    if (s.lanes == W)
        synapse_rows<Sources, W, 1>(s, num, den);
    else
        synapse_rows<Sources, W, 2>(s, num, den);
}

template <>
struct Semantics<Opcode::synapse> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        const SynapseStep& s = step->synapse;
        float *num = resolve(f, s.num), *den = resolve(f, s.den);
        const float* v = resolve(f, s.v);
        std::uint32_t* values = s.scratch + scratch_zeros;
        for (std::uint32_t l = 0; l < scratch_zeros; ++l) s.scratch[l] = 0;
        if (bf16 && s.narrow) {
            for (std::uint32_t l = 0; l < s.sources; l += W) store(values + l / 2, pack_pairs<W>(load<Floats<W>>(v + l)));
            if (s.sources <= halves_in_registers<W>)
                synapse_rows<NarrowSources<W, 2>, W>(s, num, den);
            else if (s.sources <= 2 * halves_in_registers<W>)
                synapse_rows<NarrowSources<W, 4>, W>(s, num, den);
            else
                synapse_rows<NarrowSources<W, 0>, W>(s, num, den);
            return step + 1;
        }
        for (std::uint32_t l = 0; l < s.sources; l += W) {
            const Floats<W> x = load<Floats<W>>(v + l);
            store(values + l, bf16 ? round_architectural(x) : x);
        }
        synapse_rows<WideSources<W, bf16>, W>(s, num, den);
        return step + 1;
    }
};

}  // namespace
}  // namespace ltc::LTC_ISA
