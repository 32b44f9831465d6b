// A program made ready to run: every store unpacked into one arena in the layout that the kernels read, and its code
// decoded into steps with resolved addresses. All of that happens here, once; a run only follows the steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "kernels.h"
#include "program.h"

namespace ltc {

// The widest kernels that this CPU runs, or those that the environment variable LTC_SIMD names: sse2, avx2, avx512,
// avx512_bf16 (generic off x86-64). Throws Refusal for a name that is unknown or that this CPU cannot run.
const Kernels& choose_kernels();

class Executable {
public:
    // bit_accurate=false: every precision is fp32, weights and synapses are the fp32 originals; throws Refusal if the
    // program holds none.
    Executable(const Program& program, bool bit_accurate, const Kernels& kernels);
    Executable(const Executable&) = delete;
    Executable& operator=(const Executable&) = delete;

    void run(std::size_t model, const float* const* inputs, float* const* outputs) noexcept;

    float* row(std::uint32_t core, std::uint32_t row) { return rows_[core] + std::size_t{row} * B_; }
    std::size_t arena_bytes() const { return arena_bytes_; }
    std::size_t steps() const { return steps_.size(); }

private:
    class Allocator;
    struct Freer {
        void operator()(void* p) const { std::free(p); }
    };
    // What decides a packing: core, first block, k, m_rows, and whether a weight takes two blocks.
    using Packing = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t, bool>;
    using SynapsePacking = std::tuple<std::uint32_t, bool>;  // core, and whether the form is narrow: see SynapseStep
    struct Packed {
        std::uint32_t* words = nullptr;
        std::uint32_t x_low = 0, x_span = 0;  // see MatmulStep
    };

    void lay_out(Allocator& allocator);
    void find_packings();
    std::size_t packed_words(const Packing& packing) const;
    float weight(const Packing& packing, std::size_t output, std::size_t input) const;
    void pack_weights(const Packing& packing, Packed& packed) const;
    std::size_t slot_words(const SynapsePacking& packing) const;
    void pack_slots(const SynapsePacking& packing, std::uint32_t* out) const;
    void pack_entries(std::uint32_t core);
    void fill_constants();

    void build(const Model& model);
    Step step_of(const Instruction& i, const Model& model);
    GridStep grid(const Instruction& i) const;
    MatmulStep matmul(const Instruction& i);
    SynapsePacking synapse_packing(const Instruction& i) const;
    SynapseStep synapse(const Instruction& i) const;
    PortStep port(const Instruction& i, isa::Row row, std::uint32_t index, const std::vector<Port>& ports) const;
    LinkStep link(isa::Row row, std::uint32_t core, std::uint32_t rows, std::size_t source, std::size_t target) const;
    Address address(std::uint32_t core, isa::Row row) const;
    isa::Precision precision(std::uint32_t field) const;

    const Program& program_;
    const Kernels& kernels_;
    const bool bit_accurate_;
    const std::size_t B_;
    const std::uint32_t W_;  // lanes of a vector of a row

    std::unique_ptr<void, Freer> arena_;
    std::size_t arena_bytes_ = 0;
    std::vector<float*> rows_;  // by core, as the next three
    std::vector<std::uint32_t*> runs_;
    std::vector<std::int32_t*> entries_;
    std::map<Packing, Packed> weights_;
    std::map<SynapsePacking, std::uint32_t*> slots_;
    std::vector<Fifo*> fifos_;  // [source * cores + target]
    std::uint32_t* scratch_ = nullptr;
    std::size_t scratch_words_ = 1;

    std::vector<Step> steps_;
    std::vector<std::size_t> entry_;  // first step of each model
};

}  // namespace ltc
