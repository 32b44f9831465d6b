// Where a model that takes long polls its watch (interrupt.h): between steps, so that what takes less pays nothing, and
// between the pieces of a step that takes long by itself.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "program/program.h"

namespace ltc {

// Beats between two polls, and those up to which a model needs none: a few milliseconds.
inline constexpr std::uint64_t beats_at_once = 1u << 14, short_beats = 1u << 16;

// Follows the code of a model and says where to poll.
class PollPoints {
public:
    explicit PollPoints(bool wanted) : wanted_(wanted) {}

    // The calls follow the code; each bool says whether to poll at that place.
    bool after(std::uint64_t beats);                // a step of so many beats
    void enter();                                   // into a loop's body
    bool before_end(std::uint64_t iterations);      // of the body of a loop of so many iterations
    bool after_unrolled(std::uint64_t iterations);  // the same, where its steps took the loop's place

private:
    struct Body {
        std::uint64_t beats = 0;  // since the last poll, or since it began
        bool polled = false;
    };
    bool wanted_;
    std::vector<Body> bodies_{Body{}};
};

// A step that polls the watch of its frame.
Step poll_step();

// The step of an instruction of so many beats as several steps of about beats_at_once each. A step without an outer count
// to divide stays whole: it has no more beats than a store has rows, slots or entries.
std::vector<Step> pieces_of(const Step& step, const Instruction& i, std::uint64_t beats);

}  // namespace ltc
