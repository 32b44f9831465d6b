// The memory that inferences work in, for one stream or for a group of them. States come from what streams keep and go back
// there; between the two the runner holds them in its rows.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "vm/execute.h"
#include "vm/states.h"

namespace ltc {

class Runner {
public:
    // streams: of a group; 1: of a single stream.
    Runner(std::shared_ptr<const Program> program, std::shared_ptr<const Parameters> parameters, bool bit_accurate,
           const Kernels& kernels, const States& states, std::uint32_t streams);

    std::uint32_t streams() const { return executable_.streams(); }
    const Executable& executable() const { return executable_; }

    // The states of a model into the rows of the n-th stream, and back; `kept` holds those of all models. `loaded` ends a
    // load, of one stream or of several.
    void load(std::size_t model, std::uint32_t n, const float* kept) noexcept;
    void loaded(std::size_t model) noexcept;
    void save(std::size_t model, std::uint32_t n, float* kept) const noexcept;

    // A state of a single stream, which stays in its rows; behind a change of it, `changed`.
    float* rows(const StateRegion& region) const { return places_[region.number].front().now(); }
    void changed(const StateRegion& region) noexcept;

    // One inference of a single stream; false, with the state as before, if the watch stopped it.
    bool step(std::size_t model, const float* const* from, float* const* to, Watch& watch) noexcept;

    // One inference of the first `active` streams of a group, whose host arrays are `steps` apart; false if the watch stopped
    // it, and the states are then lost: load them again.
    bool step_of_group(std::size_t model, const float* const* from, float* const* to, std::uint32_t active, std::size_t steps,
                       Watch& watch) noexcept;

private:
    const States& states_;
    const std::size_t B_;
    Executable executable_;
    std::vector<std::vector<StatePlace>> places_;  // by number of a state: where it stands, and its copies on other cores
    std::vector<float> kept_;  // if a model takes long: its states before the inference that is under way
};

}  // namespace ltc
