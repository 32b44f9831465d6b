// How long the beats of an instruction hold their unit, and how long their results are on their way.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "program/program.h"

namespace ltc {

// Whether its operands are fp32. The precision of other units is that of the result alone.
inline bool is_fp32(const Instruction& in) {
    constexpr auto wide = static_cast<std::uint32_t>(isa::Precision::fp32);
    switch (in.info().unit) {
        case isa::Unit::activation: return in.as<isa::Unary>().precision == wide;
        case isa::Unit::synapse: return in.as<isa::Synapse>().precision == wide;
        default: return true;
    }
}

// Cycles from the start of a beat's last cycle until its row can be read, or is in the output store. Inputs and outputs
// take longer on the cores that are not beside the host.
inline std::uint64_t delay_of(const Machine& machine, const Instruction& in) {
    const isa::Unit unit = in.info().unit;
    const bool far = in.core != 0 && (unit == isa::Unit::io_in || unit == isa::Unit::io_out);
    return machine.latency(is_fp32(in) ? in.info().latency_fp32 : in.info().latency) +
           (far ? machine.latency(isa::Latency::crossing) : 0);
}

// Cycles that a beat of fp32 operands holds the units that take it in several steps; 1 for every other.
inline std::uint64_t hold_of(const Machine& machine, const Instruction& in) {
    const std::uint32_t passes = in.info().passes;
    return passes > 0 && is_fp32(in) ? std::uint64_t{machine.fp32_beats} * passes : 1;
}

// Cycles from the start of any beat to the landing of its result, and one more.
inline std::size_t longest_way(const Machine& machine) {
    return *std::max_element(machine.latencies.begin(), machine.latencies.end()) +
           std::size_t{isa::max_passes} * machine.fp32_beats;
}

}  // namespace ltc
