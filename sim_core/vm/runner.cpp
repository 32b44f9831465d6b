// See runner.h.
#include "vm/runner.h"

#include <algorithm>
#include <utility>

namespace ltc {

Runner::Runner(std::shared_ptr<const Program> program, std::shared_ptr<const Parameters> parameters, bool bit_accurate,
               const Kernels& kernels, const States& states, std::uint32_t streams)
    : states_(states), B_(program->machine.block_size),
      executable_(std::move(program), std::move(parameters), bit_accurate, kernels, streams) {
    for (std::size_t model = 0; model < states_.models(); ++model)
        for (const StateRegion& region : states_.of(model)) {
            std::vector<StatePlace>& places = places_.emplace_back();
            places.push_back(executable_.state(region.place.core, region.place.row));
            for (const State::Copy& c : region.copies) places.push_back(executable_.state(c.core, c.row));
        }
    if (streams > 1) return;  // what it is loaded from is its copy
    for (std::size_t model = 0; model < states_.models(); ++model)
        if (executable_.takes_long(model)) kept_.resize(states_.floats());
}

void Runner::load(std::size_t model, std::uint32_t n, const float* kept) noexcept {
    const std::size_t row = B_ * executable_.streams();
    for (const StateRegion& region : states_.of(model))
        for (const StatePlace& place : places_[region.number]) {
            float* to = place.now() + n * B_;
            for (std::size_t l = 0; l < region.floats(); l += B_, to += row) std::copy_n(kept + region.first + l, B_, to);
        }
}

void Runner::loaded(std::size_t model) noexcept {
    for (const StateRegion& region : states_.of(model))
        for (const StatePlace& place : places_[region.number]) place.written(region.floats() * executable_.streams());
}

void Runner::save(std::size_t model, std::uint32_t n, float* kept) const noexcept {
    const std::size_t row = B_ * executable_.streams();
    for (const StateRegion& region : states_.of(model)) {
        const float* from = places_[region.number].front().now() + n * B_;
        for (std::size_t l = 0; l < region.floats(); l += B_, from += row) std::copy_n(from, B_, kept + region.first + l);
    }
}

void Runner::changed(const StateRegion& region) noexcept {
    const std::vector<StatePlace>& places = places_[region.number];
    for (const StatePlace& place : places) {
        if (&place != &places.front()) std::copy_n(places.front().now(), region.floats(), place.now());
        place.written(region.floats());
    }
}

bool Runner::step(std::size_t model, const float* const* from, float* const* to, Watch& watch) noexcept {
    const bool long_one = executable_.takes_long(model);
    if (long_one) save(model, 0, kept_.data());
    if (executable_.run(model, from, to, &watch, nullptr)) return true;
    if (long_one) load(model, 0, kept_.data()), loaded(model);
    return false;
}

bool Runner::step_of_group(std::size_t model, const float* const* from, float* const* to, std::uint32_t active, std::size_t steps,
                           Watch& watch) noexcept {
    StreamGroup group = executable_.group();
    group.active = active;
    group.steps = steps;
    return executable_.run(model, from, to, &watch, &group);
}

}  // namespace ltc
