// The scoreboard of the clock: when rows, units, ports and places of the link FIFOs are free, and the one rule by which
// a beat starts: after the beat before it, after what it waits for, after older instructions are done with its rows
// (pending.h), after its sources are written, late enough that what it writes lands after what was written there
// before, and when there are ports for both.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include "clock/pending.h"
#include "clock/ports.h"
#include "clock/timing.h"

namespace ltc {

// A link's FIFO by its places, which are filled and emptied in order.
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
    // Its write port: landings[c mod size] is c if a result lands in cycle c. The beats of a unit start one after the
    // other, so a ring longer than any beat's way to its landing is enough.
    std::vector<std::uint64_t> landings;

    std::uint64_t& landing(std::uint64_t cycle) { return landings[cycle & (landings.size() - 1)]; }

    void leave(std::uint64_t cycle) {
        free = freed[oldest] = cycle;
        oldest = oldest + 1 == freed.size() ? 0 : oldest + 1;
    }
};

struct CoreClock {
    std::uint64_t next_issue = 0;
    std::array<UnitClock, isa::n_units> units;
    std::vector<RowClock> rows;  // by row address
    Ports reads;

    std::uint64_t turned = 0;  // when its rings turned last

    // An inference has issued. What is known of a row of a ring belongs to the address `advance` places below from here on.
    // How far each ring will have turned is written while an inference issues, a ring per cycle: the next one waits for that.
    void turn(std::uint32_t core, const std::vector<Ring>& rings) {
        std::uint64_t own = 0;
        for (const Ring& ring : rings) {
            if (ring.core != core) continue;
            ++own;
            const auto first = rows.begin() + ring.row;
            std::rotate(first, first + std::int64_t{ring.advance} * ring.rows, rows.begin() + static_cast<std::int64_t>(ring.end()));
        }
        turned = next_issue = std::max(next_issue, turned + own);
    }
};

// The beats of one instruction on its unit: for each, await() what it waits for apart from its rows, then beat().
template <bool traced>
class Beats {
public:
    // begin: the first beat starts no sooner. delay, hold: of every beat, unless it says otherwise.
    Beats(CoreClock& core, UnitClock& unit, Pending& pending, std::uint64_t read_ports, std::uint64_t begin,
          std::uint64_t delay, std::uint64_t hold)
        : next_(begin), delay_(delay), hold_(hold), read_ports_(read_ports), core_(core), unit_(unit), pending_(pending) {}

    void await(std::uint64_t cycle, Stall why) {
        if (cycle <= at_) return;
        at_ = cycle;
        if constexpr (traced) why_ = why;
    }

    // A whole beat: reads and writes some rows, and holds the unit for a number of cycles. What it writes can be read
    // `delay` cycles after its last cycle began. field: which field of the instruction the first row that it reads
    // belongs to; the others belong to those behind it.
    template <std::size_t R, std::size_t W>
    std::uint64_t beat(const std::array<std::uint64_t, R>& reads, const std::array<std::uint64_t, W>& writes,
                       std::size_t field = 0) {
        return beat(reads, writes, field, hold_);
    }

    template <std::size_t R, std::size_t W>
    std::uint64_t beat(const std::array<std::uint64_t, R>& reads, const std::array<std::uint64_t, W>& writes,
                       std::size_t field, std::uint64_t hold) {
        const std::uint64_t landing = delay_ + hold - 1;
        std::vector<RowClock>& rows = core_.rows;
        for (std::uint64_t row : reads) await(std::max(rows[row].ready, rows[row].readable), Stall::operand);
        for (std::uint64_t row : writes) {
            await(rows[row].writable, Stall::overwrite);
            if (rows[row].ready >= landing) await(rows[row].ready - landing + 1, Stall::overwrite);
        }
        const std::uint64_t wanted = std::max(at_, next_);
        const std::uint64_t start = take_ports<R, W>(wanted, landing);
        if constexpr (traced) note(wanted, start);
        for (std::size_t r = 0; r < R; ++r) pending_.read(field + r, reads[r], start);
        for (std::size_t w = 0; w < W; ++w) {
            pending_.write(w, writes[w], start);
            rows[writes[w]].ready = start + landing;
        }
        if constexpr (W > 0) last_ready = std::max(last_ready, start + landing);
        next_ = start + hold;
        busy += hold;
        at_ = 0;
        return start;
    }

    std::uint64_t next() const { return next_; }  // the unit is free from here on

    std::uint64_t last_ready = 0;  // a row that it wrote can be read, the latest of them
    std::uint64_t arrived = 0;     // a row that it sent is at the other end of its link, the latest of them
    std::uint64_t busy = 0;
    std::uint64_t first = 0;  // traced only: start of the first beat
    std::array<std::uint64_t, std::size(stall_names)> lost{};  // traced only: cycles by cause

private:
    // The first cycle from `cycle` on that has read ports for R rows, and the unit's write port `landing` cycles later.
    template <std::size_t R, std::size_t W>
    std::uint64_t take_ports(std::uint64_t cycle, std::uint64_t landing) {
        if constexpr (R > 0) cycle = core_.reads.first(cycle, R, read_ports_);
        if constexpr (W > 0) {
            while (unit_.landing(cycle + landing) == cycle + landing) {
                ++cycle;
                if constexpr (R > 0) cycle = core_.reads.first(cycle, R, read_ports_);
            }
            unit_.landing(cycle + landing) = cycle + landing;
        }
        if constexpr (R > 0) core_.reads.take(cycle, R, core_.next_issue);
        return cycle;
    }

    void note(std::uint64_t wanted, std::uint64_t start) {
        if (busy == 0) first = start;
        if (wanted > next_) lost[static_cast<std::size_t>(why_)] += wanted - next_;
        lost[static_cast<std::size_t>(Stall::port)] += start - wanted;
    }

    std::uint64_t next_;
    std::uint64_t delay_, hold_;
    std::uint64_t read_ports_;
    CoreClock& core_;
    UnitClock& unit_;
    Pending& pending_;
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
