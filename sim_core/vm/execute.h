// A program made ready to run: rows and links on one arena, and its code decoded into steps with resolved addresses.
// All of that happens here, once; a run only follows the steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "host/interrupt.h"
#include "kernels/kernels.h"
#include "program/program.h"
#include "vm/narrow.h"
#include "vm/packing.h"
#include "vm/poll_points.h"
#include "vm/rings.h"

namespace ltc {

class Executable {
public:
    // parameters: of that program, packed for the same kernels and accuracy. Of the program itself, code, models, constants
    // and the lengths of runs of slots are read; its weights, slots and entries may be gone. bit_accurate=false: every
    // precision is fp32. streams: more than one make a group, for a program whose instructions can_group.
    Executable(std::shared_ptr<const Program> program, std::shared_ptr<const Parameters> parameters, bool bit_accurate,
               const Kernels& kernels, std::uint32_t streams = 1);
    Executable(const Executable&) = delete;
    Executable& operator=(const Executable&) = delete;

    // Returns whether the model ran to its end. Only one that takes long polls the watch and may be stopped; its rows then
    // hold anything.
    bool run(std::size_t model, const float* const* inputs, float* const* outputs, Watch* watch,
             const StreamGroup* group = nullptr) noexcept;

    // Whether these kernels run every instruction of a program for a group.
    static bool can_group(const Program& program, const Kernels& kernels);
    std::uint32_t streams() const { return streams_; }
    StreamGroup group() const { return {streams_, static_cast<std::uint32_t>(B_), static_cast<std::ptrdiff_t>(row_), streams_, 0, scratch_}; }

    // Whether the model may take longer than a host waits for an answer: it then polls its watch now and then.
    bool takes_long(std::size_t model) const { return takes_long_[model]; }

    StatePlace state(std::uint32_t core, std::uint32_t row) {
        float* at = address(core, {row, 0, 0}).base;
        return {at, rings_.of(at)};
    }
    std::size_t arena_bytes() const { return arena_->bytes(); }
    std::size_t steps() const { return steps_.size(); }

private:
    std::size_t scratch_words(const Instruction& i) const;
    void lay_out(Pieces& pieces, std::size_t scratch_words);
    void build(const Model& model, bool takes_long);
    void append(const Step& step, isa::Format format, std::uint64_t beats, PollPoints& polls);
    Step step_of(const Instruction& i, const Model& model);
    Handler handler(isa::Opcode opcode, isa::Precision result) const;
    Handler matmul_handler(const MatmulStep& m, isa::Opcode opcode, isa::Precision result) const;
    struct Copy {  // a step that copies rows of a core to another
        std::size_t step;
        std::uint32_t source, target;
    };
    Step copy(const Instruction& send, const Instruction& receive) const;
    bool unroll_copies(std::size_t body, std::uint32_t level, std::uint32_t count, std::vector<Copy>& copies);
    GridStep grid(const Instruction& i) const;
    ProductStep product(const Instruction& i) const;
    ProductStep dot(const Instruction& i) const;
    MatmulStep matmul(const Instruction& i) const;
    SynapseStep synapse(const Instruction& i) const;
    UpdateStep update(const Instruction& i) const;
    struct PortRows {
        std::uint32_t port, first, rows;
    };
    PortStep port(const Instruction& i, isa::Row at, PortRows rows, const std::vector<Port>& ports) const;
    LinkStep link(isa::Row row, std::uint32_t core, std::uint32_t rows, std::size_t source, std::size_t target) const;
    Address address(std::uint32_t core, isa::Row row) const;
    std::ptrdiff_t along(const Instruction& i, std::size_t access, std::size_t dimension) const;
    isa::Precision precision(std::uint32_t field) const;

    const std::shared_ptr<const Program> program_;
    const std::shared_ptr<const Parameters> parameters_;
    const Kernels& kernels_;
    const bool bit_accurate_;
    const std::size_t B_;
    const std::uint32_t streams_;
    const std::size_t row_;  // floats of a row of all streams

    Rings rings_;
    std::optional<Narrow> narrow_;           // of a single stream
    std::vector<std::uint32_t> iterations_;  // of the loops around the instruction that is lowered, by level
    std::unique_ptr<Block> arena_;
    std::vector<float*> rows_;   // by core
    std::vector<Fifo*> fifos_;   // [source * cores + target]
    std::uint32_t* scratch_ = nullptr;

    std::vector<Step> steps_;
    std::vector<std::pair<std::size_t, std::size_t>> bodies_;  // the steps of an end, and of its loop's body
    std::vector<std::size_t> entry_;                           // first step of each model
    std::vector<bool> takes_long_;                             // by model
};

}  // namespace ltc
