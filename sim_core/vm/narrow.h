// Steps that leave alone the lanes that nothing reads.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kernels.h"
#include "vm/lanes_in_use.h"

namespace ltc {

class Narrow {
public:
    // lanes: of a native vector.
    Narrow(const Program& program, const Parameters& parameters, std::uint32_t lanes)
        : used_(program, parameters), B_(static_cast<std::uint32_t>(program.machine.block_size)), native_(lanes) {}

    // The step of an instruction in loops of so many iterations, by level.
    void apply(Step& step, const Instruction& i, std::span<const std::uint32_t> iterations) const;

private:
    struct Result;
    std::uint32_t lanes_of(const Result& result) const;
    std::uint64_t idle(const MatmulStep& m, const Result& result) const;

    const LanesInUse used_;
    const std::uint32_t B_, native_;
};

}  // namespace ltc
