// See poll_points.h.
#include "vm/poll_points.h"

#include <algorithm>
#include <array>
#include <utility>

#include "host/interrupt.h"
#include "program/work.h"

namespace ltc {
namespace {

const Step* poll(Frame& f, const Step* step) {
    if (f.watch == nullptr || !f.watch->poll()) return step + 1;
    f.stopped = true;
    return nullptr;
}

// The outermost count of a step, and the addresses that move with it, each by so many floats; count is null where there
// is none.
struct Outermost {
    std::uint32_t* count = nullptr;
    std::array<std::pair<Address*, std::ptrdiff_t>, 4> moved{};
};

Outermost outermost(Step& step, const Instruction& i) {
    switch (i.info().format) {
        case isa::Format::Unary:
        case isa::Format::Binary:
        case isa::Format::Ternary:
        case isa::Format::Splat: {
            GridStep& g = step.grid;
            return {&g.n_outer, {{{&g.at[0], g.outer[0]}, {&g.at[1], g.outer[1]}, {&g.at[2], g.outer[2]}, {&g.at[3], g.outer[3]}}}};
        }
        case isa::Format::RowReduce: {
            RowReduceStep& r = step.row_reduce;
            return {&r.groups, {{{&r.dst, r.dst_step}, {&r.src, r.src_step}}}};
        }
        case isa::Format::ColumnReduce: {
            ColumnReduceStep& r = step.column_reduce;
            return {&r.n_inner, {{{&r.dst, r.lanes}, {&r.src, r.lanes}}}};
        }
        case isa::Format::WeightedSum:
        case isa::Format::Dot: {
            ProductStep& p = step.product;
            return {&p.n_i, {{{&p.dst, p.dst_i}, {&p.a, p.a_i}, {&p.addend, p.addend_i}}}};
        }
        case isa::Format::Matmul: {
            MatmulStep& m = step.matmul;
            return {&m.batch, {{{&m.dst, m.dst_step}, {&m.x, m.x_step}, {&m.bias, m.bias_step}}}};
        }
        default: return {};
    }
}

}  // namespace

bool PollPoints::after(std::uint64_t beats) {
    Body& body = bodies_.back();
    body.beats = plus(body.beats, plus(beats, 1));
    if (!wanted_ || body.beats < beats_at_once) return false;
    body = {0, true};
    return true;
}

void PollPoints::enter() { bodies_.emplace_back(); }

bool PollPoints::before_end(std::uint64_t iterations) {
    const Body body = bodies_.back();
    const std::uint64_t all = times(plus(body.beats, 1), iterations);
    const bool here = wanted_ && !body.polled && all >= beats_at_once;
    bodies_.pop_back();
    Body& around = bodies_.back();
    if (here || body.polled)
        around = {body.beats, true};
    else
        around.beats = plus(around.beats, all);
    return here;
}

bool PollPoints::after_unrolled(std::uint64_t iterations) {
    const Body body = bodies_.back();
    bodies_.pop_back();
    return after(times(body.beats, iterations));
}

Step poll_step() {
    Step step{};
    step.run = &poll;
    return step;
}

std::vector<Step> pieces_of(const Step& step, const Instruction& i, std::uint64_t beats) {
    Step rest = step;
    const Outermost whole = outermost(rest, i);
    if (whole.count == nullptr || beats < 2 * beats_at_once) return {step};
    const std::uint64_t of_one = std::max<std::uint64_t>(1, beats / *whole.count);
    const auto most = static_cast<std::uint32_t>(std::max<std::uint64_t>(1, beats_at_once / of_one));
    std::vector<Step> pieces;
    for (std::uint32_t left = *whole.count; left > 0; left -= *whole.count) {
        *whole.count = std::min(most, left);
        pieces.push_back(rest);
        for (const auto& [address, floats] : whole.moved)
            if (address != nullptr) address->base += floats * static_cast<std::ptrdiff_t>(*whole.count);
    }
    return pieces;
}

}  // namespace ltc
