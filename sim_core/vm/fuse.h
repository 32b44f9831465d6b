// Runs of elementwise steps that one function of the kernels executes.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kernels.h"

namespace ltc {

// Gives the first step of each run in `steps` the function that executes the whole run. The steps stay as they are.
void fuse(std::span<Step> steps, const Kernels& kernels, std::uint32_t block_size);

}  // namespace ltc
