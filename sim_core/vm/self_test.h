// What a VM proves before its first run: that the kernels chosen for this CPU, as this compiler built them, give the bits
// of the contract. One small program runs every arithmetic instruction on fixed numbers; the hash of each result is pinned.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace ltc {

struct Proof {
    std::string name;  // "sigmoid fp32": an instruction and its precision
    std::uint64_t found, expected;
};

// One for each pinned hash. LTC_SELF_TEST=NAME in the environment spoils the expectation of that one, so that a test can
// see the refusal.
std::vector<Proof> self_test(const Kernels& kernels);

// Throws Refusal, naming what differs; remembers kernels that have passed. About a millisecond, once per process.
const Kernels& require_self_test(const Kernels& kernels);

}  // namespace ltc
