// The synapse unit on a group of streams.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "kernels/group.h"
#include "kernels/synapse.h"

namespace ltc::LTC_ISA {
namespace {

// One stream after the other, on copies of its rows in one piece.
template <bool bf16, int W>
const Step* synapses_stream_by_stream(Frame& f, const Step* step) {
    const StreamGroup& group = *f.group;
    const SynapseStep& s = step->synapse;
    const std::uint32_t lanes = s.targets * group.lanes;
    auto* v = reinterpret_cast<float*>(s.scratch + scratch_zeros + 2 * (s.sources > 64 ? s.sources : 64));
    float *num = v + s.sources + scratch_spare, *den = num + lanes + scratch_spare;
    Step one = *step;
    one.synapse.v = {v, 0, 0}, one.synapse.num = {num, 0, 0}, one.synapse.den = {den, 0, 0};
    float *to_num = resolve(f, s.num), *to_den = resolve(f, s.den);
    const float* from = resolve(f, s.v);
    for (std::uint32_t n = 0; n < group.active; ++n, from += group.lanes, to_num += group.lanes, to_den += group.lanes) {
        take_rows(group, v, from, s.sources);
        Semantics<Opcode::synapse>::run<bf16, W>(f, &one);
        put_rows(group, to_num, num, lanes);
        put_rows(group, to_den, den, lanes);
    }
    return step + 1;
}

template <>
struct GroupSemantics<Opcode::synapse> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) { return synapses_stream_by_stream<bf16, W>(f, step); }
};

}  // namespace
}  // namespace ltc::LTC_ISA
