// See work.h.
#include "program/work.h"

#include <algorithm>
#include <array>
#include <string>

namespace ltc {

std::uint64_t times(std::uint64_t a, std::uint64_t b) {
    std::uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

std::uint64_t plus(std::uint64_t a, std::uint64_t b) {
    std::uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

namespace {

template <class Op>
concept Grid = requires(Op op) { op.dst_outer; op.n_outer; op.n_inner; };

template <Grid Op>
std::uint64_t count_beats(const Program&, const Instruction&, const Op& op) {
    return times(op.n_outer, op.n_inner);
}
std::uint64_t count_beats(const Program& p, const Instruction&, const isa::RowReduce& op) {
    return times(op.groups, p.machine.rows(op.k));
}
std::uint64_t count_beats(const Program&, const Instruction&, const isa::ColumnReduce& op) {
    return times(op.n_inner, op.k);
}
std::uint64_t count_beats(const Program& p, const Instruction&, const isa::Matmul& op) {
    return times(times(times(op.batch, op.m_rows), op.taps), p.machine.rows(op.k));
}
std::uint64_t count_beats(const Program& p, const Instruction& in, const isa::Synapse& op) {
    std::uint64_t slot = op.slots;
    for (std::uint32_t t = 0; t < op.targets; ++t) slot += p.cores[in.core].slots.run[slot];
    return slot - op.slots + op.v_rows;
}
std::uint64_t count_beats(const Program&, const Instruction&, const isa::Update& op) { return times(3, op.n); }
std::uint64_t count_beats(const Program&, const Instruction&, const isa::Gather& op) { return op.count; }
std::uint64_t count_beats(const Program&, const Instruction&, const isa::Transpose& op) {
    return plus(op.src_rows, op.dst_rows);
}
std::uint64_t count_beats(const Program&, const Instruction&, const isa::Send& op) { return op.rows; }
std::uint64_t count_beats(const Program&, const Instruction&, const isa::Receive& op) { return op.rows; }
std::uint64_t count_beats(const Program&, const Instruction&, const isa::Input& op) { return op.rows; }
std::uint64_t count_beats(const Program&, const Instruction&, const isa::Output& op) { return op.rows; }
std::uint64_t count_beats(const Program&, const Instruction&, const isa::Loop&) { return 0; }
std::uint64_t count_beats(const Program&, const Instruction&, const isa::End&) { return 0; }

}  // namespace

std::uint64_t beats_of(const Program& program, const Instruction& in) {
    switch (in.info().format) {
#define LTC_CASE(name) \
    case isa::Format::name: return count_beats(program, in, in.as<isa::name>());
        LTC_FORMATS(LTC_CASE)
#undef LTC_CASE
    }
    return 0;
}

Work work_of(const Program& program, const Model& model, std::uint64_t inferences) {
    std::array<std::uint64_t, isa::max_loop_depth + 1> executions{inferences};  // of what stands at each depth
    Work work{};
    for (std::uint32_t at = model.code_begin; at < model.code_end; ++at) {
        const Instruction& in = program.code[at];
        const bool inside = in.opcode == isa::Opcode::end;  // an end is executed once per iteration
        const std::uint64_t here = executions[in.depth + (inside ? 1 : 0)];
        work.instructions = plus(work.instructions, here);
        work.beats = plus(work.beats, times(here, beats_of(program, in)));
        if (in.opcode == isa::Opcode::loop) executions[in.depth + 1] = times(here, in.as<isa::Loop>().count);
    }
    return work;
}

Work check_work(const Program& program, const Model& model, std::uint64_t inferences, std::uint64_t most, const char* remedy) {
    const Work work = work_of(program, model, inferences);
    if (std::max(work.instructions, work.beats) > most)
        throw Refusal(RefusalKind::program,
                      "a run executes " + std::to_string(work.instructions) + " instructions and " + std::to_string(work.beats) +
                          " beats, more than " + std::to_string(most),
                      "the code of model '" + model.name + "'", remedy);
    return work;
}

}  // namespace ltc
