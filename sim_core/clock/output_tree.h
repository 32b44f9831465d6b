// The way of output rows to the host. A row stands in its core's output store until it leaves, and a tree joins the
// stores to the host's port, which takes one row a cycle with its tag: (port, row). Of the rows that are there, one of
// the oldest inference goes first, and among these one of the lowest core. So the rows of an inference leave as if those
// behind it did not exist, and settle() can tell when, once all of them are known.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "clock/ports.h"

namespace ltc {

class OutputTree {
public:
    // places: rows that a store holds; the loader lets no core put out more of them in an inference.
    OutputTree(std::size_t cores, std::size_t places) : places_(places), stores_(cores) {}

    // The cycle in which the row left that had the place of the core's next one; 0 if none had it.
    std::uint64_t vacated(std::size_t core) const {
        const Store& store = stores_[core];
        return store.rows < places_ ? 0 : store.left[store.rows % places_];
    }

    // The next row of a core is in its store from `cycle` on.
    void put(std::size_t core, std::uint64_t cycle) {
        Store& store = stores_[core];
        if (store.left.size() < places_) store.left.push_back(0);
        store.waiting.push_back({cycle, store.rows++ % places_});
    }

    // The place of the core's last row.
    std::size_t last_place(std::size_t core) const { return (stores_[core].rows - 1) % places_; }

    // An inference is over: its rows leave.
    void settle() {
        std::uint64_t begin = none;
        for (const Store& store : stores_)
            if (!store.waiting.empty()) begin = std::min(begin, store.waiting.front().cycle);
        for (std::uint64_t cycle = begin; (cycle = std::max(cycle, first_there())) != none; ++cycle) {
            cycle = port_.first(cycle, 1, 1);
            port_.take(cycle, 1, begin);  // no later inference has a row there before `begin`
            const auto there = [cycle](const Store& store) { return store.first_there() <= cycle; };
            Store& lowest = *std::find_if(stores_.begin(), stores_.end(), there);
            lowest.left[lowest.waiting[lowest.gone++].place] = cycle;
            last_out = std::max(last_out, cycle);
        }
        for (Store& store : stores_) {
            store.waiting.clear();
            store.gone = 0;
        }
    }

    // The cycle in which the row left that has had a place since the last settle().
    std::uint64_t left(std::size_t core, std::size_t place) const { return stores_[core].left[place]; }

    std::uint64_t last_out = 0;  // the last row is out; 0 without one

private:
    static constexpr std::uint64_t none = ~std::uint64_t{0};

    struct Row {
        std::uint64_t cycle;
        std::size_t place;
    };
    struct Store {
        std::uint64_t first_there() const { return gone < waiting.size() ? waiting[gone].cycle : none; }

        std::uint64_t rows = 0;           // put so far
        std::vector<std::uint64_t> left;  // by place: when the last row in it left
        std::vector<Row> waiting;         // of this inference; `gone` of them have left
        std::size_t gone = 0;
    };

    std::uint64_t first_there() const {
        std::uint64_t first = none;
        for (const Store& store : stores_) first = std::min(first, store.first_there());
        return first;
    }

    std::size_t places_;
    std::vector<Store> stores_;
    Ports port_;
};

}  // namespace ltc
