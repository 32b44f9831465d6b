// Which set of kernels a VM runs.
#pragma once

#include "kernels/kernels.h"

namespace ltc {

// The widest kernels that this CPU runs, or those that the environment variable LTC_SIMD names: sse2, avx2, avx512,
// avx512_bf16 (generic off x86-64). Throws Refusal for a name that is unknown or that this CPU cannot run.
const Kernels& choose_kernels();

}  // namespace ltc
