// The rings of a program (program.h) in the memory of one stream or of a group. A ring's rows lie on the arena twice, one copy behind the
// other: from any place on, all its places follow each other, and kernels see plain rows. What writes to a ring is followed
// by a step that writes the other copy. The addresses of the steps that touch a ring are set after every inference: its
// length costs nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "program/program.h"
#include "vm/packing.h"

namespace ltc {

// One ring; sizes in floats.
struct RingRows {
    float* first;      // of the first copy
    std::size_t size;  // of a copy
    std::size_t step;  // that an inference turns it by
    std::size_t at;    // of logical place 0, less than size

    bool holds(const float* row) const { return row >= first && row < first + size; }  // as it stands at the start

    // Writes what stands in rows that follow each other to the other copy of each.
    void mirror(const float* from, std::size_t floats) const noexcept;
};

// Rows of a state as they stand at the start, and the ring that they lie in, or null.
struct StatePlace {
    float* rows;
    RingRows* ring;

    float* now() const { return ring == nullptr ? rows : rows + ring->at; }
    void written(std::size_t floats) const noexcept {
        if (ring != nullptr) ring->mirror(now(), floats);
    }
};

class Rings {
public:
    Rings(const Program& program, std::size_t row);  // row: floats of one, of all streams of a group
    Rings(const Rings&) = delete;
    Rings& operator=(const Rings&) = delete;

    void lay_out(Pieces& pieces);
    void fill(const std::vector<float*>& rows) noexcept;  // from where they would lie if they were none, by core

    // The row of a ring as it stands at the start; null for a row of none.
    float* row(std::uint32_t core, std::uint32_t row) const;
    RingRows* of(const float* row);  // the ring of such a row, or null

    // Steps of a growing list: one that is there now, one behind a state_write to `dst` if that is in a ring, which writes the
    // other copy of its rows, and one that is taken out again.
    void follow(std::size_t at, Step& step, isa::Format format);
    void append_mirror(std::vector<Step>& steps, const isa::Unary& write, Address dst);
    void erased(std::size_t at);
    void bind(std::vector<Step>& steps);  // the list is whole, and stays where it is

    void turn(std::size_t model) noexcept {  // an inference of the model is over
        for (std::size_t r = of_model_[model]; r < of_model_[model + 1]; ++r) turn(rings_[r]);
    }

private:
    struct Follower {  // an address, and what it is at the start
        float** base;
        float* first;
    };
    struct Turning {
        Ring place;
        RingRows rows;
        std::size_t begin, end;  // of its followers
    };
    struct Noted {  // an address of a step, before the list of steps is whole
        std::size_t ring, step, offset;
    };

    static constexpr std::size_t none = SIZE_MAX;
    std::size_t index_of(const float* row) const;
    void note(std::size_t at, const Step& step, const Address& address);
    void turn(Turning& ring) noexcept;

    const std::size_t row_;
    std::vector<Turning> rings_;          // model by model
    std::vector<std::size_t> of_model_;  // the first of each, and the end
    std::vector<std::size_t> by_row_;    // by core and row
    std::vector<Noted> noted_;
    std::vector<Follower> followers_;  // ring by ring
};

}  // namespace ltc
