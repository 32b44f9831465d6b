// See keeps_rows.h. Every row has a number for what it holds: two rows of one number hold the same, and 0 is what an earlier
// run left.
#include "vm/keeps_rows.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <span>
#include <vector>

namespace ltc {
namespace {

constexpr std::uint64_t most_rows = 1u << 22;  // that the walk touches: some ten milliseconds

class RunOfRows {
public:
    RunOfRows(const Program& program, const Parameters& parameters, const Model& model)
        : p_(program), parameters_(parameters), model_(model), fifos_(program.fifo_rows.size()) {
        for (const Core& core : p_.cores) {
            rows_.emplace_back(core.tensor_rows, 0);
            for (const ConstantRange& range : core.constants) fill({static_cast<std::uint32_t>(rows_.size() - 1), range.row}, range.rows);
        }
        for (const State& state : model.states) {
            const std::uint64_t n = p_.rows_of(state.shape);
            fill({state.core, state.row}, n);
            for (const State::Copy& copy : state.copies) std::ranges::copy(at({state.core, state.row}, n), at(copy, n).begin());
        }
    }

    // Whether the run reads a row that it has not written, parts a state from its copies, or is too long to tell.
    bool keeps() {
        std::uint64_t steps = 0;
        for (std::uint32_t n = model_.code_begin; n < model_.code_end; ++n) {
            const Instruction& i = p_.code[n];
            if (++steps > most_rows || touched_ > most_rows) return true;
            if (i.opcode == isa::Opcode::loop) {
                counter_[i.depth + 1u] = 0;
            } else if (i.opcode == isa::Opcode::end) {
                if (++counter_[i.depth + 1u] < std::int64_t{p_.code[i.match].as<isa::Loop>().count}) n = i.match;
            } else if (!follow(i)) {
                return true;
            }
        }
        return std::ranges::any_of(model_.states, [&](const State& state) {
            const std::uint64_t n = p_.rows_of(state.shape);
            return std::ranges::any_of(state.copies, [&](const State::Copy& copy) {
                const State::Copy home{state.core, state.row};
                return !std::ranges::equal(at(copy, n), at(home, n)) || !turn_alike(home, copy);
            });
        });
    }

private:
    using Number = std::uint32_t;
    using Rows = std::vector<Number>;

    std::span<Number> at(State::Copy place, std::size_t n) { return std::span(rows_[place.core]).subspan(place.row, n); }
    // Whether two places lie in rings of one form, or both in none.
    bool turn_alike(State::Copy a, State::Copy b) const {
        const auto ring_of = [&](State::Copy place) {
            return std::ranges::find_if(model_.rings, [&](const Ring& r) { return r.core == place.core && r.holds(place.row); });
        };
        const auto x = ring_of(a), y = ring_of(b), none = model_.rings.end();
        if (x == none || y == none) return x == y;
        return x->places == y->places && x->rows == y->rows && x->advance == y->advance && a.row - x->row == b.row - y->row;
    }
    void fill(State::Copy place, std::size_t n) {
        for (Number& number : at(place, n)) number = ++last_;
    }
    std::int64_t first_row(const isa::Row& row) const { return row.base + counter_[row.level] * row.stride; }

    // Each of these returns false at a row that is read and that an earlier run left.
    bool follow(const Instruction& i) {
        switch (i.opcode) {
            case isa::Opcode::gather: return gather(i);
            case isa::Opcode::send: return send(i);
            case isa::Opcode::receive: return receive(i);
            default: break;
        }
        if (i.opcode == isa::Opcode::move || i.opcode == isa::Opcode::state_write) return move(i);
        const isa::FormatInfo& format = i.format();
        for (const bool write : {false, true})
            for (std::size_t n = 0; n < format.n_accesses; ++n) {
                if (format.accesses[n].write != write) continue;
                for (Number* row : places(i, format.accesses[n])) {
                    if (!write && *row == 0) return false;
                    if (write) *row = ++last_;
                }
            }
        return touched_ <= most_rows;
    }

    // The rows of an access, in order.
    std::vector<Number*> places(const Instruction& i, const isa::AccessInfo& access) {
        std::uint64_t count[std::size(isa::AccessInfo{}.extents)] = {1, 1, 1};
        std::int64_t step[std::size(count)] = {};
        for (std::size_t n = 0; n < access.n_extents; ++n) {
            const isa::ExtentInfo& e = access.extents[n];
            step[n] = e.step_word < 0 ? e.step : i.step(static_cast<std::size_t>(e.step_word));
            count[n] = e.count_is_elements ? p_.machine.rows(i.operands[e.count_word]) : i.operands[e.count_word];
        }
        std::vector<Number*> found;
        std::int64_t first = first_row(i.row(access.word));
        for (std::uint64_t a = 0; a < count[0]; ++a, first += step[0]) {
            std::int64_t second = first;
            for (std::uint64_t b = 0; b < count[1]; ++b, second += step[1]) {
                std::int64_t row = second;
                for (std::uint64_t c = 0; c < count[2] && ++touched_ <= most_rows; ++c, row += step[2])
                    found.push_back(&rows_[i.core][static_cast<std::size_t>(row)]);
            }
        }
        return found;
    }

    // Row by row: a row may be read that was written before.
    bool move(const Instruction& i) {
        const isa::FormatInfo& format = i.format();
        const bool rounds = static_cast<isa::Precision>(i.as<isa::Unary>().precision) == isa::Precision::bf16;
        const std::vector<Number*> a = places(i, format.accesses[0]), b = places(i, format.accesses[1]);
        const std::vector<Number*>&to = format.accesses[0].write ? a : b, &from = format.accesses[0].write ? b : a;
        for (std::size_t n = 0; n < std::min(to.size(), from.size()); ++n) {
            if (*from[n] == 0) return false;
            *to[n] = rounds ? rounded(*from[n]) : *from[n];
        }
        return touched_ <= most_rows;
    }

    Number rounded(Number number) {
        const auto found = rounded_.find(number);
        if (found != rounded_.end()) return found->second;
        const Number result = ++last_;
        rounded_[number] = rounded_[result] = result;
        return result;
    }

    // An entry that keeps lanes reads the row that it writes.
    bool gather(const Instruction& i) {
        const auto op = i.as<isa::Gather>();
        const std::size_t B = p_.machine.block_size;
        const std::int32_t* entry = parameters_.entries(i.core) + op.entries * (2 + B);
        Rows& rows = rows_[i.core];
        const auto row_of = [&](const isa::Row& row, std::int32_t floats) {
            return static_cast<std::size_t>(first_row(row) + floats / static_cast<std::int32_t>(B));
        };
        for (std::uint32_t n = 0; n < op.count; ++n, entry += 2 + B, ++touched_) {
            const std::span lanes(entry + 2, B);
            if (std::ranges::any_of(lanes, [](std::int32_t l) { return l >= 0; }) && rows[row_of(op.src, entry[0])] == 0) return false;
            Number& to = rows[row_of(op.dst, entry[1])];
            if (std::ranges::find(lanes, lane_keep) != lanes.end() && to == 0) return false;
            to = ++last_;
        }
        return true;
    }

    bool send(const Instruction& i) {
        const auto op = i.as<isa::Send>();
        for (std::uint32_t target = 0; target < p_.machine.cores; ++target) {
            if ((op.targets >> target & 1) == 0) continue;
            std::deque<Number>& fifo = fifos_[std::size_t{i.core} * p_.machine.cores + target];
            for (const Number number : at({i.core, static_cast<std::uint32_t>(first_row(op.src))}, op.rows))
                if (fifo.push_back(number), ++touched_, number == 0) return false;
        }
        return true;
    }
    bool receive(const Instruction& i) {
        const auto op = i.as<isa::Receive>();
        std::deque<Number>& fifo = fifos_[std::size_t{op.source} * p_.machine.cores + i.core];
        for (Number& number : at({i.core, static_cast<std::uint32_t>(first_row(op.dst))}, op.rows)) {
            number = fifo.front();
            fifo.pop_front();
            ++touched_;
        }
        return true;
    }

    const Program& p_;
    const Parameters& parameters_;
    const Model& model_;
    std::array<std::int64_t, isa::max_loop_depth + 1> counter_{};
    std::vector<Rows> rows_;                 // by core
    std::vector<std::deque<Number>> fifos_;  // [source * cores + target]
    std::map<Number, Number> rounded_;       // what is left of a row when it is rounded to bf16
    Number last_ = 0;
    std::uint64_t touched_ = 0;
};

}  // namespace

bool keeps_rows(const Program& program, const Parameters& parameters) {
    return std::ranges::any_of(program.models, [&](const Model& model) { return RunOfRows(program, parameters, model).keeps(); });
}

}  // namespace ltc
