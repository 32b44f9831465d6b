// Where a model that takes long looks at its watch (interrupt.h): between steps, so that what runs shorter pays nothing, and
// in pieces of a step that alone takes long.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "program/program.h"

namespace ltc {

// Beats between two looks, and those of a model that needs none: a few milliseconds.
inline constexpr std::uint64_t beats_at_once = 1u << 14, short_beats = 1u << 16;

// Follows the code of a model and says where a look belongs.
class Looks {
public:
    explicit Looks(bool wanted) : wanted_(wanted) {}

    bool behind(std::uint64_t beats);        // a step of so many
    void enter();                          // a loop's body
    bool before_end(std::uint64_t turns);  // of the body, at its end
    bool behind_unrolled(std::uint64_t turns);  // or, where steps for all turns took the loop's place

private:
    struct Body {
        std::uint64_t beats = 0;  // since the last look, or since it began
        bool looked = false;
    };
    bool wanted_;
    std::vector<Body> bodies_{Body{}};
};

// A step that looks at the watch of its frame.
Step look_step();

// The step of an instruction of so many beats as several, one behind the other, of about beats_at_once each. A step whose
// beats no outer count divides stays whole: it has no more than a store has rows, slots or entries.
std::vector<Step> pieces_of(const Step& step, const Instruction& i, std::uint64_t beats);

}  // namespace ltc
