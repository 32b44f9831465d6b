// The scoreboard of timing.cpp: when rows, units and places of the link FIFOs are free, and the one rule by which a
// beat starts: after the beat before it, after what it waits for, after its sources are written, and late enough that
// what it writes lands after every read and write of that row before it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include "timing.h"

namespace ltc {

struct RowClock {
    std::uint64_t ready = 0;      // the first cycle at which what was written last can be read
    std::uint64_t last_read = 0;  // start of the last beat that read it
};

// A link's FIFO by its places, which are filled and emptied in turn.
struct LinkClock {
    struct Place {
        std::uint64_t arrival = 0;  // the row in it can be received from here on
        std::uint64_t vacant = 0;   // it can be filled from here on
    };
    std::vector<Place> places;
    std::size_t in = 0, out = 0;

    Place& take(std::size_t& cursor) {
        Place& place = places[cursor];
        cursor = cursor + 1 == places.size() ? 0 : cursor + 1;
        return place;
    }
};

// A unit works on one instruction at a time and holds a few more that were issued to it.
struct UnitClock {
    std::uint64_t free = 0;            // the last instruction's last beat is over
    std::vector<std::uint64_t> freed;  // the same of as many instructions as the queue holds, the oldest at `oldest`
    std::size_t oldest = 0;

    void leave(std::uint64_t cycle) {
        free = freed[oldest] = cycle;
        oldest = oldest + 1 == freed.size() ? 0 : oldest + 1;
    }
};

struct CoreClock {
    std::uint64_t next_issue = 0;
    std::array<UnitClock, isa::n_units> units;
    std::vector<RowClock> rows;
};

// The beats of one instruction on its unit: for each, await() what it waits for apart from its rows, then beat().
template <bool traced>
class Beats {
public:
    Beats(RowClock* rows, std::uint64_t issue, std::uint64_t delay) : next_(issue), delay_(delay), rows_(rows) {}

    void await(std::uint64_t cycle, Stall why) {
        if (cycle <= at_) return;
        at_ = cycle;
        if constexpr (traced) why_ = why;
    }

    // A whole beat: reads and writes some rows, and holds the unit for `hold` cycles. What it writes can be read
    // `delay` cycles after its last cycle began.
    template <std::size_t R, std::size_t W>
    std::uint64_t beat(const std::array<std::uint64_t, R>& reads, const std::array<std::uint64_t, W>& writes,
                       std::uint64_t hold = 1) {
        const std::uint64_t landing = delay_ + hold - 1;
        for (std::uint64_t row : reads) await(rows_[row].ready, Stall::operand);
        for (std::uint64_t row : writes) {
            const std::uint64_t used = std::max(rows_[row].ready, rows_[row].last_read);
            if (used >= landing) await(used - landing + 1, Stall::overwrite);
        }
        const std::uint64_t start = std::max(at_, next_);
        if constexpr (traced) note(start);
        for (std::uint64_t row : reads) rows_[row].last_read = std::max(rows_[row].last_read, start);
        for (std::uint64_t row : writes) rows_[row].ready = start + landing;
        if constexpr (W > 0) last_ready = std::max(last_ready, start + landing);
        next_ = start + hold;
        busy += hold;
        at_ = 0;
        return start;
    }

    std::uint64_t next() const { return next_; }  // the unit is free from here on

    std::uint64_t last_ready = 0;  // a row that it wrote can be read, the latest of them
    std::uint64_t busy = 0;
    std::uint64_t first = 0;  // traced only: start of the first beat
    std::array<std::uint64_t, std::size(stall_names)> lost{};  // traced only: cycles by cause

private:
    void note(std::uint64_t start) {
        if (busy == 0) first = start;
        if (start > next_) lost[static_cast<std::size_t>(why_)] += start - next_;
    }

    std::uint64_t next_;
    std::uint64_t delay_;
    RowClock* rows_;
    std::uint64_t at_ = 0;
    Stall why_ = Stall::none;
};

using Rows = std::array<std::uint64_t, 1>;
inline constexpr std::array<std::uint64_t, 0> no_rows{};

// A row and its two steps over a grid.
struct Lattice {
    std::int64_t base, outer, inner;
    std::uint64_t at(std::uint64_t o, std::uint64_t i) const {
        const std::int64_t row = base + static_cast<std::int64_t>(o) * outer + static_cast<std::int64_t>(i) * inner;
        return static_cast<std::uint64_t>(row);
    }
};

}  // namespace ltc
