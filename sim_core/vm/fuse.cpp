// See fuse.h. A run goes vector by vector through all its steps. So no step may touch a lane of another vector that another
// step writes: operands have the same place or none in common.
#include "vm/fuse.h"

#include <algorithm>
#include <functional>

namespace ltc {
namespace {

// One row, or several that follow each other, at places that no loop moves.
bool is_flat(const GridStep& g, std::uint32_t operands) {
    return g.n_outer == 1 && g.n_inner == 1 && std::all_of(g.at, g.at + operands, [](const Address& a) { return a.stride == 0; });
}

bool overlap(const float* a, const float* b, std::uint32_t lanes) {
    return a != b && std::less<>()(a, b + lanes) && std::less<>()(b, a + lanes);
}

// Whether operand k of step n reads what step `from` wrote.
bool reads(std::span<const Step> steps, std::size_t n, std::size_t k, std::size_t from) {
    const float* row = steps[from].grid.at[0].base;
    const auto overwritten = [&](const Step& step) { return step.grid.at[0].base == row; };
    return steps[n].grid.at[1 + k].base == row && std::none_of(&steps[from] + 1, &steps[n], overwritten);
}

bool matches(std::span<const Step> steps, const FusedRun& run) {
    for (std::size_t n = 0; n < run.count; ++n) {
        const FusedStep& wanted = run.steps[n];
        const GridStep& g = steps[n].grid;
        if (steps[n].run != wanted.run || g.lanes != steps[0].grid.lanes || !is_flat(g, 1 + wanted.operands)) return false;
        for (std::size_t k = 0; k < wanted.operands; ++k)
            if (wanted.sources[k] >= 0 && !reads(steps, n, k, static_cast<std::size_t>(wanted.sources[k]))) return false;
    }
    for (std::size_t n = 0; n < run.count; ++n)
        for (std::size_t m = 0; m < run.count; ++m)
            for (std::size_t k = 0; k <= run.steps[m].operands; ++k)
                if (overlap(steps[n].grid.at[0].base, steps[m].grid.at[k].base, steps[0].grid.lanes)) return false;
    return true;
}

}  // namespace

void fuse(std::span<Step> steps, const Kernels& kernels, std::uint32_t block_size) {
    const std::span<const FusedRun> runs = kernels.fused(block_size);
    for (std::size_t n = 0; n < steps.size();) {
        const auto fits = [&](const FusedRun& run) { return run.count <= steps.size() - n && matches(steps.subspan(n, run.count), run); };
        const auto run = std::find_if(runs.begin(), runs.end(), fits);
        if (run == runs.end()) {
            ++n;
        } else {
            steps[n].run = run->run;
            n += run->count;
        }
    }
}

}  // namespace ltc
