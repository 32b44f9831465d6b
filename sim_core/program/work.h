// How much work an inference is: counted from its instructions and loops alone, without any data. Counts saturate at
// UINT64_MAX.
#pragma once

#include <cstdint>

#include "program/program.h"

namespace ltc {

struct Work {
    std::uint64_t instructions;  // executed; a loop counts once, its end once per iteration
    std::uint64_t beats;         // rows, blocks, slots and entries that they go through (docs/isa.md: patterns)
};

// Beats of one execution of an instruction; 0 for a loop and an end.
std::uint64_t beats_of(const Program& program, const Instruction& instruction);

// The work of so many inferences of a model.
Work work_of(const Program& program, const Model& model, std::uint64_t inferences = 1);

// The same. Throws Refusal, with `remedy`, for more than `most` instructions or beats.
Work check_work(const Program& program, const Model& model, std::uint64_t inferences, std::uint64_t most, const char* remedy);

std::uint64_t times(std::uint64_t a, std::uint64_t b);
std::uint64_t plus(std::uint64_t a, std::uint64_t b);

}  // namespace ltc
