// The rules of rings: each has two places or more and turns by fewer than all of them; the rings of a core lie apart in its
// rows in use, and are no more than the machine has; a ring holds whole states of its model and nothing else; an instruction
// reaches rows of one ring, of its own model, or of none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "program/program.h"

namespace ltc {

class RingMap {
public:
    // The states of the program lie in the rows in use, each on rows of its own. Throws Refusal.
    explicit RingMap(const Program& program);

    // Why an instruction of a model may not reach the rows from low to high of a core; null if it may.
    const char* fault(const Model& model, std::uint32_t core, std::uint64_t low, std::uint64_t high) const;

private:
    static constexpr std::uint32_t none = 0;
    struct Owner {
        std::uint32_t ring = none;  // its number, from 1 on
        std::uint32_t before = 0;   // rows of rings below this one
    };

    void place(const Ring& ring, std::uint32_t number, const std::string& where);
    bool whole(std::uint32_t core, std::uint64_t low, std::uint64_t high) const;
    void check_states();

    const Program& program_;
    std::vector<std::vector<Owner>> owners_;  // by core and row, and one more
    std::vector<const Model*> model_of_;      // by number
};

}  // namespace ltc
