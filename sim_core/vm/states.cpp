// See states.h.
#include "vm/states.h"

#include <algorithm>

namespace ltc {
namespace {

// The constant rows of a core that lie among so many floats from a row on.
std::vector<StateRegion::Initial> constants_at(const Program& program, State::Copy place, std::size_t floats) {
    const std::size_t B = program.machine.block_size, begin = place.row, end = begin + floats / B;
    std::vector<StateRegion::Initial> found;
    for (const ConstantRange& range : program.cores[place.core].constants) {
        const std::size_t first = std::max<std::size_t>(begin, range.row), last = std::min<std::size_t>(end, range.row + range.rows);
        if (first < last)
            found.push_back({(first - begin) * B, std::span(range.data).subspan((first - range.row) * B, (last - first) * B)});
    }
    return found;
}

}  // namespace

void StateRegion::initialise(float* to) const noexcept {
    std::fill_n(to, floats(), 0.0f);
    for (const Initial& part : initial) std::copy(part.values.begin(), part.values.end(), to + part.at);
}

States::States(const Program& program) {
    std::size_t number = 0;
    for (const Model& model : program.models) {
        std::vector<StateRegion>& regions = by_model_.emplace_back();
        for (const State& state : model.states) {
            const std::size_t width = state.shape.width(), row_lanes = program.machine.rows(width) * program.machine.block_size;
            StateRegion& region = regions.emplace_back(
                StateRegion{{state.core, state.row}, state.copies, state.shape.vectors(), width, row_lanes, number++, floats_, {}});
            region.initial = constants_at(program, region.place, region.floats());
            floats_ += region.floats();
        }
    }
}

}  // namespace ltc
