// Which rows need not pass through a link FIFO on their way from core to core: those that nothing overwrites, and no
// older row delays, between their send and their receive. The receive then copies them from where they stand.
#pragma once

#include <cstdint>
#include <vector>

#include "program/program.h"

namespace ltc {

struct DirectLinks {
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    // Both by instruction, from the first of the model on.
    std::vector<std::uint32_t> sender;   // of a receive: the send whose rows it copies, or none
    std::vector<std::uint32_t> targets;  // of a send: the cores whose FIFOs it fills after all
};

DirectLinks find_direct_links(const Program& program, const Model& model);

}  // namespace ltc
