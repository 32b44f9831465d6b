// What is pending of older instructions: for each field of one, the interval of the rows that it has still to read or
// to write. A younger beat may read a row from the cycle after the one in which the row left the last interval of rows
// to be written, and write it from the cycle after the one in which it left the last interval of any kind. Hardware keeps
// two bounds a field and steps them with the beats; the walk, which knows when each beat of an instruction started,
// turns them into two times a row.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ltc {

struct RowClock {
    std::uint64_t ready = 0;     // the first cycle at which what was written last can be read
    std::uint64_t readable = 0;  // no older instruction has it among its rows to be written from here on
    std::uint64_t writable = 0;  // nor among its rows to be read
};

// The rows that the beats of one instruction read and write, by field, until settle() hands them to the scoreboard.
class Pending {
public:
    void read(std::size_t field, std::uint64_t row, std::uint64_t start) { note(reads_[field], row, start); }
    void write(std::size_t field, std::uint64_t row, std::uint64_t start) { note(writes_[field], row, start); }

    void settle(std::vector<RowClock>& rows) {
        for (std::vector<Touch>& field : reads_) {
            leave(field, [&](std::uint64_t row, std::uint64_t from) {
                rows[row].writable = std::max(rows[row].writable, from);
            });
        }
        for (std::vector<Touch>& field : writes_) {
            leave(field, [&](std::uint64_t row, std::uint64_t from) {
                rows[row].writable = std::max(rows[row].writable, from);
                rows[row].readable = std::max(rows[row].readable, from);
            });
        }
    }

private:
    struct Touch {
        std::uint64_t row, start;
    };
    static constexpr std::size_t most_reads = 7, most_writes = 2;  // of an update, of a synapse
    static constexpr std::size_t many = std::size_t{1} << 17;      // more than a tensor store has rows

    // Of a row that is touched several times the last counts alone, so an instruction of any number of beats needs no
    // more memory than one that touches every row.
    void note(std::vector<Touch>& field, std::uint64_t row, std::uint64_t start) {
        if (field.size() == many) drop_all_but_last(field);
        field.push_back({row, start});
    }

    void drop_all_but_last(std::vector<Touch>& field) {
        seen_.assign(many, false);
        auto kept = field.end();
        for (auto touch = field.end(); touch != field.begin();) {
            --touch;
            if (seen_[touch->row]) continue;
            seen_[touch->row] = true;
            *--kept = *touch;
        }
        field.erase(field.begin(), kept);
    }

    // Calls left(row, cycle) for every row of the interval: `cycle` is the one behind the last beat whose remaining
    // rows, its own included, have `row` between them. The last beats come first, so the interval only grows.
    template <class Left>
    static void leave(std::vector<Touch>& field, Left left) {
        if (field.empty()) return;
        std::uint64_t low = field.back().row + 1, high = field.back().row;  // [low, high]: none yet
        for (auto touch = field.rbegin(); touch != field.rend(); ++touch) {
            while (low > touch->row) left(--low, touch->start + 1);
            while (high < touch->row) left(++high, touch->start + 1);
        }
        field.clear();
    }

    std::vector<bool> seen_;
    std::array<std::vector<Touch>, most_reads> reads_;
    std::array<std::vector<Touch>, most_writes> writes_;
};

}  // namespace ltc
