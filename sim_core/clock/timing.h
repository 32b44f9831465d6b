// The clock of the machine: how many cycles a model of a program takes, found by walking its bytecode iteration by iteration
// with the latencies of its configuration. Values play no part: what a program takes does not depend on its data.
// ltc_compiler/oracle/clock.py is the same clock written apart; the two must agree to the cycle.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "host/interrupt.h"
#include "program/program.h"

namespace ltc {

// Executed instructions, and their beats, that a walk accepts: a minute or so.
inline constexpr std::uint64_t max_walk = 1ull << 33;

// Cycles from 0, when the first instruction may issue. Of several inferences, over all of them; `offered` of the first.
struct CycleReport {
    std::uint64_t total;               // every row is written and every output is out
    std::uint64_t offered;             // the host has its last input row ready: one per cycle from arrival on; 0 without
    std::uint64_t last_in;             // start of the last beat that took a row from the host; 0 without one
    std::uint64_t last_out;            // the last output row is out; `total` without one
    std::uint64_t instructions;        // executed over all cores; a loop counts once, its end once per iteration
    std::vector<std::uint64_t> busy;   // [core][isa::Unit]: cycles that beats held the unit
};

// What a beat waited for once the beat before it on its unit was over.
enum class Stall : std::uint8_t {
    none,
    unit,         // the unit was still at an earlier instruction
    host,         // the host's data was not there, or the host had not taken the rows that fill the output store
    link,         // a row was on its way through a link, or the link's FIFO was full
    accumulator,  // the adder was still at the accumulator
    operand,      // a row to read was not written yet
    overwrite,    // a row to write was still to be read, or to be written by an earlier instruction
    port,         // all read ports were taken by earlier instructions, or the unit's write port by an earlier beat
};
inline constexpr const char* stall_names[] = {"none", "unit", "host", "link", "accumulator", "operand", "overwrite", "port"};

// One executed instruction on one core; loop and end leave one record for every core.
struct TraceRecord {
    std::uint32_t index;  // in the program's code
    std::uint32_t core;
    std::uint32_t depth;  // loops around it; an end is in its own
    std::array<std::uint64_t, isa::max_loop_depth> iterations;  // of these loops, outermost first
    std::uint64_t issue;   // the queue of its unit takes the instruction
    std::uint64_t begin;   // the unit is free for it
    std::uint64_t start;   // of its first beat
    std::uint64_t end;     // the unit is free again
    std::uint64_t finish;  // its last effect: a row readable, a row at the other end of the link, a row out
    std::uint64_t busy;    // cycles that its beats held the unit
    std::uint64_t lost;    // cycles lost to `stall`, the cause that cost it most
    Stall stall;
};

// The host stopped a walk.
struct Interrupted {};

// Both throw Refusal for a model that is not there, an `arrival` from 2^62 on, and work beyond max_walk; and Interrupted.
// arrival: the cycle at which the host's data is there. inferences: that many, at least 1, follow each other as if the
// code stood in a loop, each with its data there.
CycleReport count_cycles(const Program& program, std::ptrdiff_t model, std::uint64_t arrival, std::uint64_t inferences,
                         Interrupt& interrupt);

// The first `limit` records of the same walk.
std::vector<TraceRecord> trace_cycles(const Program& program, std::ptrdiff_t model, std::uint64_t arrival,
                                      std::size_t limit, Interrupt& interrupt);

}  // namespace ltc
