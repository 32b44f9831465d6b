// See direct_links.h. verify.cpp has shown that a loop's body leaves every FIFO as it found it: a walk in the order of the
// code knows whether one is empty.
#include "vm/direct_links.h"

#include <algorithm>

namespace ltc {
namespace {

constexpr std::uint32_t lookahead = 256;  // instructions between a send and its receive

// The receive on core `target` that takes the rows of the send at n; none if an instruction in between may overwrite them
// in the sender's store, or if a loop begins or ends there.
std::uint32_t receive_of(const Program& program, const Model& model, const DirectLinks& links, std::uint32_t n, std::uint32_t target) {
    const Instruction& send = program.code[n];
    const std::uint32_t end = std::min(model.code_end, n + lookahead);
    for (std::uint32_t at = n + 1; at < end; ++at) {
        const Instruction& i = program.code[at];
        const isa::Format format = i.info().format;
        if (format == isa::Format::Loop || format == isa::Format::End) return DirectLinks::none;
        if (i.core == send.core) {
            if (format != isa::Format::Send && format != isa::Format::Output) return DirectLinks::none;  // it may write them
        } else if (format == isa::Format::Receive && i.core == target && i.as<isa::Receive>().source == send.core &&
                   links.sender[at - model.code_begin] == DirectLinks::none) {
            return i.as<isa::Receive>().rows == send.as<isa::Send>().rows ? at : DirectLinks::none;
        }
    }
    return DirectLinks::none;
}

}  // namespace

DirectLinks find_direct_links(const Program& program, const Model& model) {
    const std::uint32_t cores = program.machine.cores, count = model.code_end - model.code_begin;
    DirectLinks links{std::vector<std::uint32_t>(count, DirectLinks::none), std::vector<std::uint32_t>(count, 0)};
    std::vector<std::uint64_t> waiting(std::size_t{cores} * cores, 0);  // rows in each FIFO
    for (std::uint32_t n = model.code_begin; n < model.code_end; ++n) {
        const Instruction& i = program.code[n];
        if (i.opcode == isa::Opcode::send) {
            const auto op = i.as<isa::Send>();
            for (std::uint32_t target = 0; target < cores; ++target) {
                if ((op.targets >> target & 1) == 0) continue;
                std::uint64_t& rows = waiting[std::size_t{i.core} * cores + target];
                const std::uint32_t receive = rows == 0 ? receive_of(program, model, links, n, target) : DirectLinks::none;
                if (receive != DirectLinks::none) {
                    links.sender[receive - model.code_begin] = n;
                } else {
                    links.targets[n - model.code_begin] |= 1u << target;
                    rows += op.rows;
                }
            }
        } else if (i.opcode == isa::Opcode::receive && links.sender[n - model.code_begin] == DirectLinks::none) {
            const auto op = i.as<isa::Receive>();
            waiting[std::size_t{op.source} * cores + i.core] -= op.rows;
        }
    }
    return links;
}

}  // namespace ltc
