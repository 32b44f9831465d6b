// The rules of a program that run() relies on, so that it can do without any check:
//  - loops are balanced, at most max_loop_depth deep, and no nest has more than limits::iterations iterations;
//  - no count of an instruction is above limits::store, not even where its steps are 0 and it repeats one row: so that
//    32 bits hold the elements and rows that a kernel counts;
//  - every row, over all iterations of its loops, lies in the rows in use; blocks, slots, entries and ports exist;
//  - state rows are written by state_write alone, constant rows by nothing; rows that one instruction both reads and
//    writes in an order that a machine may choose (matmul, gather, transpose) do not overlap;
//  - a link FIFO never runs over or empty: a loop body leaves every FIFO as it found it, so one walk proves all iterations;
//  - no access passes an end of a ring (rings.h);
//  - the features that an instruction needs are there, every output is written, and the code fits its store.
#include <algorithm>
#include <optional>

#include "program/program.h"
#include "program/rings.h"
#include "program/work.h"

namespace ltc {
namespace {

using isa::Opcode;

// The rows of one access in a loop's first iteration, and how far they move from one iteration to the next.
struct Span {
    std::int64_t low, high;
    std::int64_t stride;
    std::uint32_t level;
};

class Verifier {
public:
    explicit Verifier(Program& program) : p_(program), m_(program.machine) {}

    void run() {
        if (p_.models.empty()) refuse_program("the program has no model", "section MODL");
        p_.fifo_rows.assign(std::size_t{m_.cores} * m_.cores, 0);
        map_rows();
        rings_.emplace(p_);
        std::uint32_t end = 0;
        for (const Model& model : p_.models) {
            if (model.code_begin < end || model.code_end < model.code_begin || model.code_end > p_.code.size())
                refuse_program("model " + model.name + ": instructions " + std::to_string(model.code_begin) + " to " +
                                   std::to_string(model.code_end) + " are out of order or do not exist", "section MODL");
            end = model.code_end;
            check_inputs(model);
            walk(model);
        }
        count_instructions();
    }

private:
    enum RowKind : std::uint8_t { free_row, constant_row, state_row };

    [[noreturn]] void refuse(const std::string& what) const { refuse_program(what, name_of(p_, index_)); }
    void require(bool holds, const char* what) const {
        if (!holds) refuse(what);
    }

    // before_[core][kind][r]: how many rows below r are of that kind.
    void map_rows() {
        std::vector<std::vector<std::uint8_t>> kinds;
        for (const Core& core : p_.cores) {
            kinds.emplace_back(core.tensor_rows, free_row);
            for (const ConstantRange& range : core.constants)
                std::fill_n(kinds.back().begin() + range.row, range.rows, constant_row);
        }
        for (const Model& model : p_.models)
            for (const State& state : model.states) {
                const std::string where = "state " + state.name + " of model " + model.name;
                map_state(kinds, {state.core, state.row}, p_.rows_of(state.shape), where);
                for (const State::Copy& copy : state.copies) map_state(kinds, copy, p_.rows_of(state.shape), where);
            }
        for (const auto& core : kinds) {
            Counts counts{std::vector<std::uint32_t>(core.size() + 1), std::vector<std::uint32_t>(core.size() + 1)};
            for (std::size_t r = 0; r < core.size(); ++r) {
                counts.constants[r + 1] = counts.constants[r] + (core[r] == constant_row);
                counts.states[r + 1] = counts.states[r] + (core[r] == state_row);
            }
            before_.push_back(std::move(counts));
        }
    }

    void map_state(std::vector<std::vector<std::uint8_t>>& kinds, const State::Copy& place, std::uint64_t rows,
                   const std::string& where) const {
        if (place.core >= m_.cores) refuse_program("core " + std::to_string(place.core) + " does not exist", where);
        auto& core = kinds[place.core];
        if (place.row + rows > core.size()) refuse_program("its rows are not among the rows in use", where);
        for (std::uint64_t r = place.row; r < place.row + rows; ++r) {
            if (core[r] == state_row) refuse_program("it shares row " + std::to_string(r) + " with another state", where);
            core[r] = state_row;
        }
    }

    void walk(const Model& model) {
        fifo_.assign(p_.fifo_rows.size(), 0);
        written_.clear();
        written_.resize(model.outputs.size());
        put_out_.assign(m_.cores, 0);
        std::vector<std::uint32_t> open;
        std::vector<std::vector<std::int64_t>> at_entry;
        iterations_.assign(1, 1);
        total_iterations_.assign(1, 1);
        for (index_ = model.code_begin; index_ < model.code_end; ++index_) {
            Instruction& i = p_.code[index_];
            const bool control = i.opcode == Opcode::loop || i.opcode == Opcode::end;
            require(control ? i.core == isa::all_cores : i.core < m_.cores, "its core does not exist");
            i.depth = static_cast<std::uint8_t>(open.size());
            if (i.opcode == Opcode::loop) {
                const std::uint32_t count = i.as<isa::Loop>().count;
                require(open.size() < isa::max_loop_depth, "loops are nested too deeply");
                require(count >= 1, "a loop of no iterations");
                require(count <= limits::iterations / total_iterations_.back(), "the loop nest has more than 2^40 iterations");
                open.push_back(index_);
                at_entry.push_back(fifo_);
                iterations_.push_back(count);
                total_iterations_.push_back(total_iterations_.back() * count);
            } else if (i.opcode == Opcode::end) {
                require(!open.empty(), "an end without its loop");
                require(at_entry.back() == fifo_, "the loop's body does not leave every link FIFO as it found it");
                i.depth = static_cast<std::uint8_t>(open.size() - 1);
                i.match = open.back();
                p_.code[open.back()].match = index_;
                open.pop_back();
                at_entry.pop_back();
                iterations_.pop_back();
                total_iterations_.pop_back();
            } else {
                check(i, model);
            }
        }
        if (!open.empty()) refuse_program("a loop has no end", name_of(p_, open.back()));
        if (std::any_of(fifo_.begin(), fifo_.end(), [](std::int64_t n) { return n != 0; }))
            refuse_program("rows are left in a link FIFO when the model ends", "model " + model.name);
        check_outputs(model);
    }

    // Every row of an output is written, and by one core: rows of different cores do not leave in the order of the code.
    void check_outputs(const Model& model) {
        for (std::size_t o = 0; o < written_.size(); ++o) {
            const auto refuse = [&](std::uint64_t row, const char* what) {
                refuse_program("row " + std::to_string(row) + " of output " + model.outputs[o].name + what, "model " + model.name);
            };
            std::sort(written_[o].begin(), written_[o].end());
            std::uint64_t missing = 0;
            std::vector<std::uint64_t> ends(m_.cores);  // of the runs of each core
            for (const auto& [first, end, core] : written_[o]) {
                if (first > missing) break;
                for (std::uint32_t c = 0; c < m_.cores; ++c)
                    if (c != core && ends[c] > first) refuse(first, " is written by two cores");
                ends[core] = std::max(ends[core], end);
                missing = std::max(missing, end);
            }
            if (missing < p_.rows_of(model.outputs[o].shape)) refuse(missing, " is never written");
        }
    }

    std::uint64_t count_of(const Instruction& i, const isa::ExtentInfo& extent) const {
        const std::uint32_t n = i.operands[extent.count_word];
        return extent.count_is_elements ? m_.rows(n) : n;
    }

    Span span_of(const Instruction& i, const isa::AccessInfo& access) const {
        const isa::Row row = i.row(access.word);
        require(row.level <= i.depth, "a row address names a loop that is not around it");
        require(row.level != 0 || row.stride == 0, "a row address has a stride but no loop");
        Span span{row.base, row.base, row.stride, row.level};
        for (std::size_t e = 0; e < access.n_extents; ++e) {
            const isa::ExtentInfo& extent = access.extents[e];
            const std::int64_t step = extent.step_word < 0 ? extent.step : i.step(static_cast<std::size_t>(extent.step_word));
            extend(span, step, count_of(i, extent));
        }
        return span;
    }

    // step is at most 2^31 and count below 2^32, so that the product fits; a sum never gets past the first refusal.
    void extend(Span& span, std::int64_t step, std::uint64_t count) const {
        const std::int64_t reach = step * static_cast<std::int64_t>(count - 1);
        (reach < 0 ? span.low : span.high) += reach;
        require(span.low >= 0 && span.high < std::int64_t{limits::store}, "its rows reach outside the rows in use");
    }

    Span all_iterations(Span span) const {
        extend(span, span.stride, iterations_[span.level]);
        return {span.low, span.high, 0, 0};
    }

    // Whether two accesses of one instruction can touch the same row in the same iteration.
    bool may_meet(const Span& a, const Span& b) const {
        if (a.stride != 0 && b.stride != 0 && a.level != b.level) {
            const Span x = all_iterations(a), y = all_iterations(b);
            return x.low <= y.high && y.low <= x.high;
        }
        std::int64_t low = b.low - a.high, high = b.high - a.low, d = a.stride - b.stride;
        if (d == 0) return low <= 0 && high >= 0;
        if (d < 0) {
            d = -d;
            std::swap(low, high);
            low = -low, high = -high;
        }
        const std::int64_t first = low <= 0 ? 0 : (low + d - 1) / d;
        return first < static_cast<std::int64_t>(iterations_[a.stride != 0 ? a.level : b.level]) && first * d <= high;
    }

    void check(const Instruction& i, const Model& model) {
        const isa::FormatInfo& format = i.format();
        std::uint64_t work = total_iterations_.back(), seen = 0;
        for (std::size_t n = 0; n < format.n_accesses; ++n)
            for (std::size_t e = 0; e < format.accesses[n].n_extents; ++e) {
                const isa::ExtentInfo& extent = format.accesses[n].extents[e];
                const std::uint64_t count = count_of(i, extent);
                require(count >= 1, "a count is zero");
                require(count <= limits::store, "a count is above 65536, the rows of the largest store");
                if (seen >> extent.count_word & 1) continue;
                seen |= 1ull << extent.count_word;
                require(count <= limits::iterations / work, "it touches more than 2^40 rows");
                work *= count;
            }
        for (std::size_t n = 0; n < format.n_accesses; ++n) check_access(i, format.accesses[n], model);
        check_operands(i, model);
    }

    void check_access(const Instruction& i, const isa::AccessInfo& access, const Model& model) const {
        const Core& core = p_.cores[i.core];
        const Span span = all_iterations(span_of(i, access));
        if (span.high >= core.tensor_rows)
            refuse(std::string(access.field) + " reaches row " + std::to_string(span.high) + ", core " +
                   std::to_string(i.core) + " uses " + std::to_string(core.tensor_rows));
        const char* fault = rings_->fault(model, i.core, static_cast<std::uint64_t>(span.low), static_cast<std::uint64_t>(span.high));
        if (fault != nullptr) refuse(fault);
        if (!access.write) return;
        const auto low = static_cast<std::size_t>(span.low), end = static_cast<std::size_t>(span.high) + 1;
        const Counts& before = before_[i.core];
        const std::size_t states = before.states[end] - before.states[low];
        if (i.opcode == Opcode::state_write)
            require(states == end - low, "it writes rows that are no state");
        else
            require(states == 0, "it writes rows of the state; only state_write may");
        require(before.constants[end] == before.constants[low], "it writes constant rows");
    }

    void check_operands(const Instruction& i, const Model& model) {
        switch (i.info().format) {
            case isa::Format::Splat: return require(i.as<isa::Splat>().lane < m_.block_size, "its lane does not exist");
            case isa::Format::WeightedSum: return check_product(i);
            case isa::Format::Dot: return check_apart(i);
            case isa::Format::Matmul: return check_matmul(i);
            case isa::Format::Synapse: return check_synapse(i);
            case isa::Format::Gather: return check_gather(i);
            case isa::Format::Transpose: return check_transpose(i);
            case isa::Format::Send: return check_send(i);
            case isa::Format::Receive: return check_receive(i);
            case isa::Format::Input: {
                const auto in = i.as<isa::Input>();
                return check_port(model.inputs, in.port, in.first, in.rows);
            }
            case isa::Format::Output: {
                const auto out = i.as<isa::Output>();
                check_port(model.outputs, out.port, out.first, out.rows);
                written_[out.port].push_back({out.first, std::uint64_t{out.first} + out.rows, i.core});
                put_out_[i.core] = plus(put_out_[i.core], times(out.rows, total_iterations_.back()));
                return require(put_out_[i.core] <= m_.output_rows, "its core puts out more than output_rows rows in an inference");
            }
            default: return;  // elementwise instructions and reductions: their accesses say it all
        }
    }

    bool accesses_meet(const Instruction& i, std::size_t a, std::size_t b) const {
        return may_meet(span_of(i, i.format().accesses[a]), span_of(i, i.format().accesses[b]));
    }

    void check_product(const Instruction& i) const {
        const auto op = i.as<isa::WeightedSum>();
        const std::uint64_t last = std::uint64_t{op.n_i - 1} * op.lane_i + std::uint64_t{op.n_j - 1} * op.lane_j;
        require(last < op.a_lanes, "a lane of A is not below a_lanes");
        check_apart(i);
    }

    // A sum of products is written while later ones read their factors.
    void check_apart(const Instruction& i) const {
        require(!accesses_meet(i, 0, 1), "dst overlaps a");
        require(!accesses_meet(i, 0, 2), "dst overlaps b");
    }

    void check_matmul(const Instruction& i) const {
        const auto op = i.as<isa::Matmul>();
        const bool wide = i.opcode == Opcode::matmul_fp32;
        require(!wide || m_.fp32_matmul, "the machine has no fp32_matmul");
        const std::uint64_t stored = p_.cores[i.core].weight_blocks;
        const std::uint64_t blocks = std::uint64_t{op.taps} * op.m_rows * m_.rows(op.k);
        require(op.weights + blocks * (wide ? 2 : 1) <= stored, "its weight blocks do not exist");
        require(!accesses_meet(i, 0, 1), "dst overlaps x");
        require(!accesses_meet(i, 0, 2), "dst overlaps bias");
    }

    void check_synapse(const Instruction& i) {
        require(m_.synapse_unit, "the machine has no synapse_unit");
        const auto op = i.as<isa::Synapse>();
        const SlotStore& store = p_.cores[i.core].slots;
        const std::uint64_t sources = std::uint64_t{op.v_rows} * m_.block_size;
        std::uint64_t slot = op.slots;
        for (std::uint32_t t = 0; t < op.targets; ++t) {
            require(slot < store.run.size() && store.run[slot] != 0, "its slots do not exist, or none is marked last");
            const std::uint64_t end = slot + store.run[slot];
            spend(end - slot);
            for (; slot < end; ++slot)
                require(store.max_src[slot] < sources, "a slot reads a source outside v");
        }
        require(!accesses_meet(i, 0, 1), "num overlaps den");
    }

    void check_gather(const Instruction& i) {
        const auto op = i.as<isa::Gather>();
        const EntryStore& store = p_.cores[i.core].entries;
        require(op.count >= 1, "a count is zero");
        require(std::uint64_t{op.entries} + op.count <= store.src.size(), "its entries do not exist");
        spend(op.count);
        for (std::size_t e = op.entries; e < std::size_t{op.entries} + op.count; ++e) {
            require(store.src[e] >= 0 && static_cast<std::uint32_t>(store.src[e]) < op.src_rows, "an entry reads outside src_rows");
            require(store.dst[e] >= 0 && static_cast<std::uint32_t>(store.dst[e]) < op.dst_rows, "an entry writes outside dst_rows");
        }
        require(!accesses_meet(i, 0, 1), "dst overlaps src");
    }

    void check_transpose(const Instruction& i) const {
        const auto op = i.as<isa::Transpose>();
        require(std::max(op.src_rows, op.dst_rows) <= m_.block_size, "it transposes more rows than a row has lanes");
        require(!accesses_meet(i, 0, 1), "dst overlaps src");
    }

    void spend(std::uint64_t checks) {
        checks_ += checks;
        require(checks_ <= limits::checks, "the instructions name more than 2^28 slots and entries");
    }

    void check_send(const Instruction& i) {
        const auto op = i.as<isa::Send>();
        require(op.targets != 0 && op.targets >> m_.cores == 0, "its targets do not exist");
        require((op.targets >> i.core & 1) == 0, "it sends to its own core");
        for (std::uint32_t target = 0; target < m_.cores; ++target) {
            if ((op.targets >> target & 1) == 0) continue;
            const std::size_t f = std::size_t{i.core} * m_.cores + target;
            fifo_[f] += op.rows;
            require(fifo_[f] <= m_.link_fifo_rows, "a link FIFO runs over");
            p_.fifo_rows[f] = std::max(p_.fifo_rows[f], static_cast<std::uint32_t>(fifo_[f]));
        }
    }

    void check_receive(const Instruction& i) {
        const auto op = i.as<isa::Receive>();
        require(op.source < m_.cores && op.source != i.core, "its source does not exist");
        std::int64_t& level = fifo_[std::size_t{op.source} * m_.cores + i.core];
        level -= op.rows;
        require(level >= 0, "it pops rows that were not sent");
    }

    void check_port(const std::vector<Port>& ports, std::uint32_t port, std::uint64_t first, std::uint64_t rows) const {
        require(port < ports.size(), "its port does not exist");
        const Shape& shape = ports[port].shape;
        require(first + rows <= p_.rows_of(shape), "its rows do not fit the shape of its port");
        const std::uint64_t across = m_.rows(shape.width());
        const bool vectors = first % across == 0 && rows % across == 0, inside = first % across + rows <= across;
        require(vectors || inside, "its rows are neither whole vectors nor rows of one vector");
    }

    void check_inputs(const Model& model) const {
        std::uint64_t rows = 0;
        for (const Port& port : model.inputs) rows += p_.rows_of(port.shape);
        if (rows > m_.input_rows)
            refuse_program("the inputs of model " + model.name + " fill " + std::to_string(rows) +
                               " rows, input_rows is " + std::to_string(m_.input_rows), "section MODL");
    }

    void count_instructions() const {
        std::vector<std::uint64_t> used(m_.cores);
        for (const Instruction& i : p_.code)
            for (std::size_t c = 0; c < used.size(); ++c) used[c] += i.core == c || i.core == isa::all_cores;
        for (std::size_t c = 0; c < used.size(); ++c)
            if (used[c] > m_.instruction_slots)
                refuse_program(std::to_string(used[c]) + " instructions, instruction_slots is " +
                                   std::to_string(m_.instruction_slots), "core " + std::to_string(c));
    }

    struct Counts {
        std::vector<std::uint32_t> constants, states;
    };

    Program& p_;
    const Machine& m_;
    std::uint32_t index_ = 0;
    std::uint64_t checks_ = 0;
    std::vector<Counts> before_;
    std::optional<RingMap> rings_;
    std::vector<std::int64_t> fifo_;            // rows in each FIFO where the walk stands
    struct Run {
        std::uint64_t first, end;
        std::uint32_t core;
        auto operator<=>(const Run&) const = default;
    };
    std::vector<std::vector<Run>> written_;  // runs of rows of every output
    std::vector<std::uint64_t> put_out_;     // rows by core
    std::vector<std::uint64_t> iterations_;          // by level; level 0 is no loop and counts 1
    std::vector<std::uint64_t> total_iterations_;    // of the nest down to a level
};

}  // namespace

void verify(Program& program) { Verifier(program).run(); }

}  // namespace ltc
