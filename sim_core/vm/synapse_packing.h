// The synapses of one instruction in the layout that kernels.h describes: paired where rule 11 is in bf16, else single.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "program/program.h"

namespace ltc {

struct PackedSynapses {
    std::vector<std::uint32_t> words, rows;  // SynapseStep::words and ::rows
};

// Which synapses: those of `targets` rows from slot `first` on.
struct SynapseRange {
    std::uint32_t first, targets;
};

// Whether all parameters are bf16.
bool have_bf16_parameters(const SlotStore& slots, std::uint32_t lanes, SynapseRange range);

// lanes: of a row of the program. W: of a vector of a row. The parameters must be bf16.
PackedSynapses pack_paired(const SlotStore& slots, std::uint32_t lanes, std::uint32_t W, SynapseRange range, bool mixes);

// originals: the fp32 originals of the store, [slot][mu, sigma, w, we][lane], in place of its parameters; or null.
PackedSynapses pack_single(const SlotStore& slots, std::uint32_t lanes, std::uint32_t W, SynapseRange range, const float* originals);

// What pack_paired made, in the layout for groups. rows: of vectors, all targets together.
std::vector<std::uint32_t> pack_for_group(const std::uint32_t* words, const std::uint32_t* rows, std::size_t n_rows, std::uint32_t W, bool mixes);

}  // namespace ltc
