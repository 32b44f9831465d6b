// Which set of kernels a VM runs.
#pragma once

#include <cstddef>

#include "kernels/kernels.h"

namespace ltc {

// By name: sse2, avx2, avx512, avx512_bf16 (generic off x86-64). Without one, those that the environment variable LTC_SIMD
// names, or the widest that this CPU runs. Throws Refusal for a name that is unknown or that this CPU cannot run.
const Kernels& choose_kernels(const char* name = nullptr);

// Their names, the widest last: the n-th of those that this CPU runs; null behind the last.
const char* kernels_name(std::size_t n);

}  // namespace ltc
