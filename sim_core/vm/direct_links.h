// Sends that need no link FIFO: where nothing can overwrite the rows between a send and its receive, and no older rows wait
// in the FIFO, the receive copies them from the sender's rows.
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
