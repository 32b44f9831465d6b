// How many lanes of each row anything reads, so that the steps of a small model leave the others alone: a row of 32 lanes
// that holds 16 elements costs no more than one of 16. What lies behind the last element of a row may be anything
// (docs/architecture.md), so that no result changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "program/program.h"
#include "vm/packing.h"

namespace ltc {

class LanesInUse {
public:
    // Of all models together. A program of very many rows is not looked at: every lane counts as used.
    LanesInUse(const Program& program, const Parameters& parameters);

    // Of a row, from its first to the last that is read; 0 if none is.
    std::uint32_t of(std::uint32_t core, std::int64_t row) const;

    // The same of a run of rows that follow each other, at an address of an instruction in loops of so many iterations.
    struct Run {
        std::uint32_t core;
        std::int64_t row;     // the first
        std::uint32_t rows;
        std::int64_t stride;  // from one iteration to the next
    };
    std::uint32_t of(const Run& run, std::uint32_t iterations) const;

private:
    // Lanes that are read of row `to` are read of row `from`, which they were computed from.
    struct Edge {
        std::uint32_t to, from;
    };
    class Reader;

    std::uint32_t number(std::uint32_t core, std::int64_t row) const { return first_[core] + static_cast<std::uint32_t>(row); }
    void follow(std::span<const Edge> edges);

    const std::uint32_t B_;
    std::vector<std::uint32_t> first_;  // by core: the number of its row 0; then of the first link
    std::vector<std::uint32_t> lanes_;  // by number; empty if the program was not looked at
};

}  // namespace ltc
