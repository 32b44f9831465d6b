// The weights, synapses and gather patterns of a program in the layout that the kernels read: made once, read-only, and
// shared by all streams of a VM. A program's own stores are not needed afterwards.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <span>
#include <memory>
#include <tuple>
#include <vector>

#include "kernels/kernels.h"
#include "program/program.h"
#include "vm/synapse_packing.h"

namespace ltc {

// One block of zeroed memory; a large one lies on huge pages where the system has them, so that a walk through weights
// beyond the caches has fewer TLB misses. A large one takes physical memory only where it is written: a program may declare
// stores that it hardly uses. Throws std::bad_alloc.
class Block {
public:
    explicit Block(std::size_t bytes);
    ~Block();
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    void* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }

private:
    std::size_t bytes_;
    void* data_ = nullptr;
    void* mapping_ = nullptr;  // of mapped_ bytes, which data_ lies in; or null, and data_ came from the heap
    std::size_t mapped_ = 0;
};

// Hands out pieces of a block, each on a cache line. Without memory (null) it only counts.
class Pieces {
public:
    explicit Pieces(void* memory) : begin_(reinterpret_cast<std::uintptr_t>(memory)) {}

    template <class T>
    T* take(std::size_t n) {
        T* piece = reinterpret_cast<T*>(begin_ + used_);
        used_ += (n * sizeof(T) + line - 1) / line * line;
        return piece;
    }
    std::size_t used() const { return used_; }

    static constexpr std::size_t line = 64;

private:
    std::uintptr_t begin_;
    std::size_t used_ = 0;
};

// Product pairs of k terms, in whole chunks.
constexpr std::uint32_t padded_pairs(std::uint32_t k) { return (k / 2 + k % 2 + 7) / 8 * 8; }

// Lanes of the rows that k elements of a tap fill, and those of a matmul's whole input up to its last element: the
// verifier saw to it that there is a weight block for each of its rows.
constexpr std::uint32_t tap_lanes(std::uint32_t k, std::size_t block) {
    const auto lanes = static_cast<std::uint32_t>(block);
    return (k / lanes + (k % lanes != 0)) * lanes;
}
inline std::uint32_t input_lanes(const Instruction& i, std::size_t block) {
    const auto op = i.as<isa::Matmul>();
    return (op.taps - 1) * tap_lanes(op.k, block) + op.k;
}

class Parameters {
public:
    struct Weights {
        std::uint32_t* words = nullptr;
        std::uint32_t x_low = 0, x_span = 0;  // see MatmulStep
    };
    struct Synapses {  // see SynapseStep
        std::uint32_t *words = nullptr, *rows = nullptr;
        bool paired = false;
        PackedSynapses packed;  // until the memory is there
    };

    // bit_accurate=false: weights and synapses are the fp32 originals; throws Refusal if the program holds none.
    Parameters(const Program& program, bool bit_accurate, const Kernels& kernels);
    Parameters(const Parameters&) = delete;
    Parameters& operator=(const Parameters&) = delete;

    const Weights& weights(const Instruction& i) const { return weights_.at(packing(i)); }
    const Synapses& synapses(const Instruction& i) const { return synapses_.at(synapse_packing(i)); }
    // The same for groups, made when they are first asked for; empty for synapses that are not paired.
    std::span<const std::uint32_t> synapses_of_group(const Instruction& i) const;
    const std::int32_t* entries(std::uint32_t core) const { return entries_[core]; }
    std::size_t bytes() const { return block_->bytes(); }

private:
    // What decides a packing: core, first block, k, taps, m_rows, and whether a weight takes two blocks.
    struct Packing {
        std::uint32_t core, weights, k, taps, m_rows;
        bool two_blocks;
        auto operator<=>(const Packing&) const = default;
    };
    using SynapsePacking = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, bool>;  // core, first slot, targets, bf16

    static Packing packing(const Instruction& i);
    static SynapsePacking synapse_packing(const Instruction& i);
    void find_packings(const Program& program, bool mixes);
    void lay_out(Pieces& pieces, const Program& program);
    std::size_t packed_words(const Packing& packing) const;
    std::uint32_t lanes(const Packing& packing) const { return (packing.taps - 1) * tap_lanes(packing.k, B_) + packing.k; }
    float weight(const Program& program, const Packing& packing, std::size_t output, std::size_t input) const;
    void pack_weights(const Program& program, const Packing& packing, Weights& packed) const;
    Synapses pack_synapses(const Program& program, const SynapsePacking& packing, bool mixes) const;
    void pack_entries(const Program& program, std::uint32_t core) const;

    const bool bit_accurate_;
    const std::size_t B_, lanes_;
    const std::uint32_t W_;  // lanes of a vector of a row
    std::unique_ptr<Block> block_;
    std::vector<std::int32_t*> entries_;  // by core
    std::vector<Packing> order_;          // of weights_: as the code first reads them, so that memory is read forwards
    std::map<Packing, Weights> weights_;
    std::map<SynapsePacking, Synapses> synapses_;
    const bool mixes_;
    mutable std::mutex mutex_;  // of what is made late
    mutable std::map<SynapsePacking, std::vector<std::uint32_t>> of_group_;
};

}  // namespace ltc
