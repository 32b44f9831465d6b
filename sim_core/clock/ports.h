// Which ports are taken when: the read ports of a core's tensor store, and the host's port for output rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ltc {

// The ports of something: how many of them are used in which cycle. Whoever goes first asks first: the walk takes the
// instructions of a core in program order, because the oldest goes first at the read ports. Cycles may lie far apart, so
// they stand in a hash table; those before `past`, for which nobody asks any more, are dropped when it is full.
class Ports {
public:
    // The first cycle from `cycle` on with `n` of `ports` free.
    std::uint64_t first(std::uint64_t cycle, std::uint64_t n, std::uint64_t ports) const {
        while (slots_[find(cycle)].used + n > ports) ++cycle;
        return cycle;
    }

    void take(std::uint64_t cycle, std::uint64_t n, std::uint64_t past) {
        Slot& slot = slots_[find(cycle)];
        if (slot.used == 0 && ++filled_ > slots_.size() / 2) {
            --filled_;
            rebuild(past);
            return take(cycle, n, past);
        }
        slot = {cycle, slot.used + n};
    }

private:
    struct Slot {
        std::uint64_t cycle, used;  // used 0: an empty slot
    };

    std::size_t find(std::uint64_t cycle) const {
        const std::size_t mask = slots_.size() - 1;
        std::size_t at = static_cast<std::size_t>(cycle) & mask;
        while (slots_[at].used != 0 && slots_[at].cycle != cycle) at = (at + 1) & mask;
        return at;
    }

    void rebuild(std::uint64_t past) {
        std::vector<Slot> kept;
        for (const Slot& slot : slots_)
            if (slot.used != 0 && slot.cycle >= past) kept.push_back(slot);
        slots_.assign(kept.size() * 4 > slots_.size() ? slots_.size() * 2 : slots_.size(), Slot{});
        filled_ = kept.size();
        for (const Slot& slot : kept) slots_[find(slot.cycle)] = slot;
    }

    std::vector<Slot> slots_ = std::vector<Slot>(256);  // a power of two, at most half of them filled
    std::size_t filled_ = 0;
};

}  // namespace ltc
