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

// The slots of all targets of a synapse instruction.
std::uint64_t walked(const Program& p, const Instruction& in) {
    const auto op = in.as<isa::Synapse>();
    std::uint64_t slot = op.slots;
    for (std::uint32_t t = 0; t < op.targets; ++t) slot += p.cores[in.core].slots.run[slot];
    return slot - op.slots;
}

std::uint64_t value_of(const Program& p, const Instruction& in, isa::Count count) {
    switch (count.kind) {
        case isa::CountKind::number: return count.value;
        case isa::CountKind::field: return in.operands[count.value];
        case isa::CountKind::rows: return p.machine.rows(in.operands[count.value]);
        case isa::CountKind::walked: return walked(p, in);
    }
    return 0;
}

}  // namespace

std::uint64_t beats_of(const Program& program, const Instruction& in) {
    const isa::BeatsInfo& beats = isa::beats[static_cast<std::size_t>(in.info().format)];
    std::uint64_t sum = 0;
    for (std::size_t phase = 0; phase < beats.n_phases; ++phase) {
        std::uint64_t product = 1;
        for (std::size_t f = 0; f < beats.phases[phase].n_factors; ++f)
            product = times(product, value_of(program, in, beats.phases[phase].factors[f]));
        sum = plus(sum, product);
    }
    return sum;
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
