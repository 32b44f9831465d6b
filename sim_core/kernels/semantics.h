// What each instruction does, as the files beside this one define it: elementwise.h, matmul.h, reduce.h, synapse.h, and
// kernels.cpp for moves and control. Each reads like its row in docs/isa.md; lanes.h has the numeric rules. Nothing in
// them allocates, throws or checks: verify.cpp has shown that it need not.
// Included by kernels.cpp alone, once per instruction set, like lanes.h.
#pragma once

#include "kernels/kernels.h"
#include "numerics/lanes.h"
#include "numerics/sequences.h"

namespace ltc::LTC_ISA {
namespace {

using isa::Opcode;

inline float* resolve(const Frame& f, const Address& a) { return a.base + f.counter[a.level] * a.stride; }

// W elements of a host's vector of `width` from element l on, and zeros behind its last.
template <int W>
LTC_INLINE Floats<W> read_host(const float* host, std::uint32_t l, std::uint32_t width) {
    if (l + W <= width) return load<Floats<W>>(host + l);
    Floats<W> x{};
    for (std::uint32_t n = l; n < width; ++n) x[n - l] = host[n];
    return x;
}

// An elementwise instruction has `apply` on vectors of its sources; any other has `run` on a whole step. bf16 is the
// precision of the result, W the lanes of a vector of a row.
template <Opcode>
struct Semantics;

}  // namespace
}  // namespace ltc::LTC_ISA
