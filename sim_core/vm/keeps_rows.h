// Whether a stream needs rows of its own, because a run may read rows that an earlier run left behind, other than states, or
// leaves the copies of a state on other cores with other values. No compiled program does; code of any other origin may.
#pragma once

#include "program/program.h"
#include "vm/packing.h"

namespace ltc {

// Follows every iteration of every loop. True also where that is more than some million rows, or cannot be told.
bool keeps_rows(const Program& program, const Parameters& parameters);

}  // namespace ltc
