// What the whole core knows about the machine, printed from ltc_compiler/isa, and the limits that the loader holds every
// program to.
#pragma once

#include <cstdint>

#include "isa.gen.h"
#include "machine.gen.h"

namespace ltc {

using isa::Machine;

// Bounds that no program may pass, whatever its configuration says: they keep a hostile file from asking for memory
// or time that its size does not pay for.
namespace limits {
using namespace isa::limits;
inline constexpr std::uint32_t instructions = 1u << 20;  // of a program
inline constexpr std::uint32_t rank = 8;
inline constexpr std::uint32_t elements = 1u << 30;  // of a host array
inline constexpr std::uint64_t iterations = 1ull << 40;  // of a loop nest, times the rows that an instruction touches
inline constexpr std::uint64_t checks = 1ull << 28;  // slots and entries that a program's instructions name
inline constexpr std::uint64_t spare = 1ull << 26;   // bytes of packed weights beyond four times the weight store
}  // namespace limits

}  // namespace ltc
