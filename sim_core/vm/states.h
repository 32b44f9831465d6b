// The states of a program: in which rows of which cores they stand, and where among the floats that a stream keeps of them
// while it does not run. Those in rings are kept in the order of their places.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "program/program.h"

namespace ltc {

// `vectors` of `width` elements, each on row_lanes lanes.
struct StateRegion {
    // Constant rows of the program that are part of its initial value; what lies between them is zero.
    struct Initial {
        std::size_t at;  // of the region's floats
        std::span<const float> values;
    };
    State::Copy place;
    std::vector<State::Copy> copies;  // the same rows on other cores
    std::size_t vectors, width, row_lanes;
    std::size_t number;  // among the states of all models
    std::size_t first;   // of the floats of a stream
    std::vector<Initial> initial;

    std::size_t floats() const { return vectors * row_lanes; }
    void initialise(float* to) const noexcept;
};

class States {
public:
    explicit States(const Program& program);

    const std::vector<StateRegion>& of(std::size_t model) const { return by_model_[model]; }
    std::size_t models() const { return by_model_.size(); }
    std::size_t floats() const { return floats_; }  // of a stream: the states of all models

private:
    std::vector<std::vector<StateRegion>> by_model_;
    std::size_t floats_ = 0;
};

}  // namespace ltc
