// What the whole core knows about the machine: the sizes of a configuration, and the limits that the loader holds every
// program to. isa.gen.h is printed from ltc_compiler/isa.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "isa.gen.h"

namespace ltc {

// Section MACH of a program. Sizes of stores are those of one core, latencies are in cycles by isa::Latency.
struct Machine {
    std::uint32_t cores;
    std::uint32_t block_size;  // lanes of a row, a power of two
    std::uint32_t weight_blocks;
    std::uint32_t tensor_rows;
    std::uint32_t accumulators;
    std::uint32_t synapse_slots;
    std::uint32_t gather_entries;
    std::uint32_t instruction_slots;
    std::uint32_t link_fifo_rows;
    std::uint32_t fp32_beats;
    std::uint32_t issue_queue;  // instructions that a unit holds, the one at work included
    std::uint32_t read_ports;   // rows that a tensor store gives in a cycle
    bool fp32_matmul;
    bool fp8_weights;
    bool synapse_unit;
    std::array<std::uint32_t, isa::n_latencies> latencies;

    std::uint32_t latency(isa::Latency which) const { return latencies[static_cast<std::size_t>(which)]; }

    // Rows that n elements fill.
    std::uint64_t rows(std::uint64_t n) const { return (n + block_size - 1) / block_size; }
};

// Bounds that no program may pass, whatever its configuration says: they keep a hostile file from asking for memory
// or time that its size does not pay for.
namespace limits {
inline constexpr std::uint32_t cores = 16;
inline constexpr std::uint32_t min_block_size = 4;
inline constexpr std::uint32_t max_block_size = 128;
inline constexpr std::uint32_t store = 65536;  // rows, blocks, slots, entries or instructions of one core
inline constexpr std::uint32_t fifo_rows = 4096;
inline constexpr std::uint32_t accumulators = 64;
inline constexpr std::uint32_t issue_queue = 64;
inline constexpr std::uint32_t min_read_ports = 3;  // a select reads three rows at once
inline constexpr std::uint32_t max_read_ports = 16;
inline constexpr std::uint32_t cycles = 1000;            // any latency, and fp32_beats
inline constexpr std::uint32_t instructions = 1u << 20;  // of a program
inline constexpr std::uint32_t rank = 8;
inline constexpr std::uint32_t elements = 1u << 30;  // of a host array
inline constexpr std::uint64_t turns = 1ull << 40;   // of a loop nest, times the rows that an instruction touches
inline constexpr std::uint64_t checks = 1ull << 28;  // slots and entries that a program's instructions name
inline constexpr std::uint64_t spare = 1ull << 26;   // bytes of packed weights beyond four times the weight store
}  // namespace limits

}  // namespace ltc
