// The walk behind timing.h. A core is in order: an instruction issues when the one before it has issued and the queue
// of its unit has a place. Its beats follow those before it on its unit, a cycle apart or later, each as soon as its
// rows and ports allow. Nothing looks ahead: that a beat may start is known from what had begun the cycle before.
#include "clock/timing.h"

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <type_traits>
#include <utility>

#include "clock/clock.h"
#include "program/work.h"

namespace ltc {
namespace {

template <class Op>
concept Grid = requires(Op op) { op.dst_outer; op.n_outer; op.n_inner; };

// ---- the walk ---------------------------------------------------------------------------------------------------

template <bool traced>
class Walk {
public:
    Walk(const Program& program, std::uint64_t arrival, std::size_t limit, Interrupt& interrupt)
        : program_(program), machine_(program.machine), arrival_(arrival), limit_(limit), watch_(interrupt, true), cores_(machine_.cores),
          links_(std::size_t{machine_.cores} * machine_.cores), accumulator_(accumulator_slots()) {
        for (std::uint32_t c = 0; c < machine_.cores; ++c) {
            cores_[c].rows.resize(program.cores[c].tensor_rows);
            for (UnitClock& unit : cores_[c].units) {
                unit.freed.resize(machine_.issue_queue);
                unit.landings.resize(std::bit_ceil(longest_way()));
            }
        }
        for (LinkClock& link : links_) link.places.resize(machine_.link_fifo_rows);
        report_.busy.assign(std::size_t{machine_.cores} * isa::n_units, 0);
    }

    void run(const Model& model) {
        std::uint64_t rows = 0;
        input_rows_.clear();
        for (const Port& port : model.inputs) {
            input_rows_.push_back(rows);
            rows += program_.rows_of(port.shape);
        }
        report_.offered = rows ? arrival_ + rows - 1 : 0;
        for (std::uint32_t at = model.code_begin; at < model.code_end;) {
            const Instruction& in = program_.code[at];
            at_ = at;
            poll();
            if (in.info().unit == isa::Unit::control) {
                at = control(in, at);
            } else {
                execute(in);
                ++at;
            }
            if (traced && trace.size() >= limit_) return;
        }
        for (std::uint32_t c = 0; c < machine_.cores; ++c) cores_[c].turn(c, model.rings);
    }

    CycleReport report(std::uint64_t instructions) const {
        CycleReport out = report_;
        out.total = std::max(last_ready_, out.last_out);
        if (out.last_out == 0) out.last_out = out.total;  // an output takes a cycle or more: 0 says that none was
        out.instructions = instructions;
        return out;
    }

    std::vector<TraceRecord> trace;

private:
    void poll() {
        if (watch_.poll()) throw Interrupted();
    }

    // Row-tile contexts of the matrix unit times the input rows after which an accumulator is used again.
    std::size_t accumulator_slots() const { return std::size_t{machine_.accumulators} * period(); }
    std::uint32_t period() const { return std::max(1u, 128 / machine_.block_size); }

    // Cycles from the start of a beat to the landing of its result, and one more.
    std::size_t longest_way() const {
        return *std::max_element(machine_.latencies.begin(), machine_.latencies.end()) +
               std::size_t{isa::max_passes} * machine_.fp32_beats;
    }

    // Executes a loop or an end on every core; returns the index of the next instruction.
    std::uint32_t control(const Instruction& in, std::uint32_t at) {
        const std::uint64_t cost = machine_.latency(isa::Latency::issue);
        for (std::uint32_t c = 0; c < machine_.cores; ++c) {
            std::uint64_t& issue = cores_[c].next_issue;
            if constexpr (traced) {
                const std::uint32_t depth = in.depth + (in.opcode == isa::Opcode::end);
                const std::uint64_t end = issue + cost;
                if (trace.size() < limit_)
                    trace.push_back({at, c, depth, iterations(depth), issue, issue, issue, end, end, 0, 0, Stall::none});
            }
            issue += cost;
        }
        std::uint64_t& counter = counters_[in.depth + 1];
        if (in.opcode == isa::Opcode::loop) {
            counter = 0;
            return at + 1;
        }
        return ++counter < program_.code[in.match].as<isa::Loop>().count ? in.match + 1 : at + 1;
    }

    void execute(const Instruction& in) {
        const auto unit = static_cast<std::size_t>(in.info().unit);
        core_ = &cores_[in.core];
        UnitClock& queue = core_->units[unit];
        const std::uint64_t issue = std::max(core_->next_issue, queue.freed[queue.oldest]);
        const std::uint64_t begin = std::max(issue, queue.free);
        const std::uint64_t wanted = core_->next_issue;
        Beats<traced> beats(*core_, queue, pending_, machine_.read_ports, begin, delay(in), hold(in));
        finish_ = 0;
        switch (in.info().format) {
#define LTC_CASE(name) \
    case isa::Format::name: walk(in, in.as<isa::name>(), beats); break;
            LTC_FORMATS(LTC_CASE)
#undef LTC_CASE
        }
        pending_.settle(core_->rows);
        core_->next_issue = issue + machine_.latency(isa::Latency::issue);
        queue.leave(beats.next());
        report_.busy[in.core * isa::n_units + unit] += beats.busy;
        last_ready_ = std::max(last_ready_, beats.last_ready);
        if constexpr (traced) record(in, issue, begin, begin - wanted, beats);
    }

    void record(const Instruction& in, std::uint64_t issue, std::uint64_t begin, std::uint64_t waited, Beats<traced>& beats) {
        beats.lost[static_cast<std::size_t>(Stall::unit)] = waited;
        const auto worst = std::max_element(beats.lost.begin(), beats.lost.end());
        const Stall stall = *worst == 0 ? Stall::none : static_cast<Stall>(worst - beats.lost.begin());
        trace.push_back({at_, in.core, in.depth, iterations(in.depth), issue, begin, beats.first, beats.next(),
                         std::max(finish_, beats.last_ready), beats.busy, *worst, stall});
    }

    // The iterations of the enclosing loops, outermost first; 0 behind the innermost.
    std::array<std::uint64_t, isa::max_loop_depth> iterations(std::uint32_t depth) const {
        std::array<std::uint64_t, isa::max_loop_depth> out{};
        std::copy_n(counters_.begin() + 1, depth, out.begin());
        return out;
    }

    // Cycles from the start of a beat's last cycle until its row can be read. Inputs and outputs take longer on the cores
    // that are not beside the host.
    std::uint64_t delay(const Instruction& in) const {
        const isa::Unit unit = in.info().unit;
        const bool far = in.core != 0 && (unit == isa::Unit::io_in || unit == isa::Unit::io_out);
        return machine_.latency(latency(in)) + (far ? machine_.latency(isa::Latency::crossing) : 0);
    }

    // The class of the cycles from a beat's last cycle to its row being readable.
    static isa::Latency latency(const Instruction& in) {
        return is_fp32(in) ? in.info().latency_fp32 : in.info().latency;
    }

    // Cycles that a beat of fp32 operands holds the units that take it in several steps; 1 for every other.
    std::uint64_t hold(const Instruction& in) const {
        const std::uint32_t passes = in.info().passes;
        return passes > 0 && is_fp32(in) ? std::uint64_t{machine_.fp32_beats} * passes : 1;
    }

    // Whether its operands are fp32. The precision of other units is that of the result alone.
    static bool is_fp32(const Instruction& in) {
        constexpr auto wide = static_cast<std::uint32_t>(isa::Precision::fp32);
        switch (in.info().unit) {
            case isa::Unit::activation: return in.as<isa::Unary>().precision == wide;
            case isa::Unit::synapse: return in.as<isa::Synapse>().precision == wide;
            default: return true;
        }
    }

    std::int64_t address(const isa::Row& row) const {
        return std::int64_t{row.base} + static_cast<std::int64_t>(counters_[row.level]) * row.stride;
    }
    std::uint64_t first_row(const isa::Row& row) const { return static_cast<std::uint64_t>(address(row)); }

    // ---- the beats of each format ----

    template <std::size_t N>
    void grid(const std::array<Lattice, N>& sources, const Lattice& dst, std::uint32_t n_outer, std::uint32_t n_inner,
              Beats<traced>& beats) {
        for (std::uint32_t o = 0; o < n_outer; ++o) {
            poll();
            for (std::uint32_t i = 0; i < n_inner; ++i) {
                std::array<std::uint64_t, N> reads;
                for (std::size_t s = 0; s < N; ++s) reads[s] = sources[s].at(o, i);
                beats.beat(reads, Rows{dst.at(o, i)});
            }
        }
    }

    template <Grid Op>
    void walk(const Instruction&, const Op& op, Beats<traced>& beats) {
        const Lattice dst{address(op.dst), op.dst_outer, op.dst_inner};
        const Lattice a{address(op.a), op.a_outer, op.a_inner};
        if constexpr (requires { op.c; }) {
            const Lattice b{address(op.b), op.b_outer, op.b_inner}, c{address(op.c), op.c_outer, op.c_inner};
            grid<3>({a, b, c}, dst, op.n_outer, op.n_inner, beats);
        } else if constexpr (requires { op.b; }) {
            grid<2>({a, Lattice{address(op.b), op.b_outer, op.b_inner}}, dst, op.n_outer, op.n_inner, beats);
        } else {
            grid<1>({a}, dst, op.n_outer, op.n_inner, beats);
        }
    }

    void walk(const Instruction&, const isa::RowReduce& op, Beats<traced>& beats) {
        const Lattice src{address(op.src), op.src_step, 1}, dst{address(op.dst), op.dst_step, 0};
        const std::uint64_t last = machine_.rows(op.k) - 1;
        const std::uint64_t spacing = 2ull * machine_.latency(isa::Latency::accumulate_reduce);
        for (std::uint32_t g = 0; g < op.groups; ++g) {
            poll();
            std::array<std::uint64_t, 128 / limits::min_block_size> free{};  // by phase, as in the matrix unit
            for (std::uint64_t j = 0; j <= last; ++j) {
                std::uint64_t& accumulators = free[j % period()];
                beats.await(accumulators, Stall::accumulator);
                const Rows row{src.at(g, j)};
                const std::uint64_t start =
                    j < last ? beats.beat(row, no_rows) : beats.beat(row, Rows{dst.at(g, 0)});
                accumulators = start + spacing;
            }
        }
    }

    void walk(const Instruction&, const isa::ColumnReduce& op, Beats<traced>& beats) {
        const Lattice src{address(op.src), op.k_step, 1};
        const std::uint64_t dst = first_row(op.dst);
        const std::uint64_t spacing = machine_.latency(isa::Latency::accumulate_reduce);
        for (std::uint32_t i = 0; i < op.n_inner; ++i) {
            poll();
            std::array<std::uint64_t, 64> free{};  // of each accumulator, which two elements in a row add to
            for (std::uint32_t k = 0; k < op.k; ++k) {
                std::uint64_t& accumulator = free[k / 2 % free.size()];
                beats.await(accumulator, Stall::accumulator);
                const Rows row{src.at(k, i)};
                const std::uint64_t start = k + 1 < op.k ? beats.beat(row, no_rows) : beats.beat(row, Rows{dst + i});
                accumulator = start + spacing;
            }
        }
    }

    void walk(const Instruction&, const isa::Matmul& op, Beats<traced>& beats) {
        const Lattice dst{address(op.dst), op.dst_step, 1}, bias{address(op.bias), op.bias_step, 1};
        const std::uint64_t across = machine_.rows(op.k), last = op.taps * across - 1;
        const std::uint64_t spacing = 2ull * machine_.latency(isa::Latency::accumulate);
        for (std::uint32_t b = 0; b < op.batch; ++b) {
            const Lattice x{address(op.x) + std::int64_t{b} * op.x_step, op.tap_step, 1};
            for (std::uint32_t first = 0; first < op.m_rows; first += machine_.accumulators) {
                poll();
                const std::uint32_t group = std::min(machine_.accumulators, op.m_rows - first);
                // accumulator_[p * group + o]: from when on row tile `o` may use its accumulators of phase p again.
                std::fill_n(accumulator_.begin(), std::size_t{group} * period(), 0);
                std::size_t at = 0;
                for (std::uint64_t i = 0; i <= last; ++i) {
                    const std::uint64_t read = x.at(i / across, i % across);
                    for (std::uint32_t o = 0; o < group; ++o) {
                        beats.await(accumulator_[at], Stall::accumulator);
                        const std::uint64_t row = first + o;
                        const std::uint64_t start =
                            i < last ? beats.beat(Rows{read}, no_rows)
                                     : beats.beat(std::array{read, bias.at(b, row)}, Rows{dst.at(b, row)});
                        accumulator_[at++] = start + spacing;
                    }
                    if (at == std::size_t{group} * period()) at = 0;
                }
            }
        }
    }

    void walk(const Instruction& in, const isa::Synapse& op, Beats<traced>& beats) {
        const std::uint64_t v = first_row(op.v), num = first_row(op.num), den = first_row(op.den);
        const std::vector<std::uint32_t>& run = program_.cores[in.core].slots.run;
        for (std::uint32_t j = 0; j < op.v_rows; ++j) beats.beat(Rows{v + j}, no_rows, 0, 1);
        std::size_t slot = op.slots;
        for (std::uint32_t t = 0; t < op.targets; ++t) {
            for (std::uint32_t j = 1; j < run[slot]; ++j) beats.beat(no_rows, no_rows);
            beats.beat(no_rows, std::array{num + t, den + t});
            slot += run[slot];
        }
    }

    void walk(const Instruction&, const isa::Update& op, Beats<traced>& beats) {
        const auto row = [this](const isa::Row& first, std::int32_t step, std::uint32_t i) {
            return Lattice{address(first), step, 0}.at(i, 0);
        };
        for (std::uint32_t i = 0; i < op.n; ++i) {
            beats.beat(std::array{row(op.v, op.v_step, i), row(op.cm, op.cm_step, i), row(op.h, op.h_step, i)}, no_rows);
            beats.beat(std::array{row(op.leak, op.leak_step, i), row(op.conductance, op.conductance_step, i)}, no_rows, 3);
            beats.beat(std::array{row(op.num, op.num_step, i), row(op.den, op.den_step, i)}, Rows{row(op.dst, op.dst_step, i)}, 5);
        }
    }

    void walk(const Instruction& in, const isa::Gather& op, Beats<traced>& beats) {
        const EntryStore& entries = program_.cores[in.core].entries;
        const std::int64_t src = address(op.src), dst = address(op.dst);
        for (std::size_t e = op.entries; e < std::size_t{op.entries} + op.count; ++e)
            beats.beat(Rows{static_cast<std::uint64_t>(src + entries.src[e])},
                       Rows{static_cast<std::uint64_t>(dst + entries.dst[e])});
    }

    void walk(const Instruction&, const isa::Transpose& op, Beats<traced>& beats) {
        const Lattice src{address(op.src), op.src_step, 0}, dst{address(op.dst), op.dst_step, 0};
        for (std::uint32_t i = 0; i < op.src_rows; ++i) beats.beat(Rows{src.at(i, 0)}, no_rows);
        for (std::uint32_t j = 0; j < op.dst_rows; ++j) beats.beat(no_rows, Rows{dst.at(j, 0)});
    }

    void walk(const Instruction& in, const isa::Send& op, Beats<traced>& beats) {
        const std::uint64_t src = first_row(op.src);
        for (std::uint32_t j = 0; j < op.rows; ++j) {
            std::array<LinkClock::Place*, limits::max_cores> places;
            std::size_t n = 0;
            for (std::uint32_t target = 0; target < machine_.cores; ++target) {
                if (!(op.targets >> target & 1)) continue;
                LinkClock& link = links_[in.core * machine_.cores + target];
                places[n] = &link.take(link.in);
                beats.await(places[n++]->vacant, Stall::link);
            }
            finish_ = beats.beat(Rows{src + j}, no_rows) + machine_.latency(isa::Latency::link);
            for (std::size_t p = 0; p < n; ++p) places[p]->arrival = finish_;
        }
    }

    void walk(const Instruction& in, const isa::Receive& op, Beats<traced>& beats) {
        const std::uint64_t dst = first_row(op.dst);
        LinkClock& link = links_[op.source * machine_.cores + in.core];
        for (std::uint32_t j = 0; j < op.rows; ++j) {
            LinkClock::Place& place = link.take(link.out);
            beats.await(place.arrival, Stall::link);
            place.vacant = beats.beat(no_rows, Rows{dst + j}) + 1;
        }
    }

    void walk(const Instruction&, const isa::Input& op, Beats<traced>& beats) {
        const std::uint64_t dst = first_row(op.dst);
        for (std::uint32_t j = 0; j < op.rows; ++j) {
            beats.await(arrival_ + input_rows_[op.port] + op.first + j, Stall::host);
            report_.last_in = std::max(report_.last_in, beats.beat(no_rows, Rows{dst + j}));
        }
    }

    void walk(const Instruction& in, const isa::Output& op, Beats<traced>& beats) {
        const std::uint64_t src = first_row(op.src);
        for (std::uint32_t j = 0; j < op.rows; ++j) {
            const std::uint64_t out = beats.beat(Rows{src + j}, no_rows) + delay(in);
            report_.last_out = finish_ = std::max(out, report_.last_out + 1);
        }
    }

    void walk(const Instruction&, const isa::Loop&, Beats<traced>&) {}  // control() has them
    void walk(const Instruction&, const isa::End&, Beats<traced>&) {}

    const Program& program_;
    const Machine& machine_;
    std::uint64_t arrival_;
    std::size_t limit_;
    Watch watch_;
    std::uint32_t at_ = 0;
    CoreClock* core_ = nullptr;
    std::uint64_t finish_ = 0;  // of the current instruction, apart from the rows that it writes
    std::uint64_t last_ready_ = 0;
    std::array<std::uint64_t, isa::max_loop_depth + 1> counters_{};  // by level; level 0 stays 0
    std::vector<CoreClock> cores_;
    std::vector<LinkClock> links_;  // [source][target]
    Pending pending_;
    std::vector<std::uint64_t> accumulator_;
    std::vector<std::uint64_t> input_rows_;  // by port: rows that the host offers before its own
    CycleReport report_{};
};

const Model& checked_model(const Program& program, std::ptrdiff_t index, std::uint64_t arrival) {
    const Model& model = model_at(program, index);
    if (arrival >> 62)
        throw Refusal(RefusalKind::input, "arrival is " + std::to_string(arrival), "arrival",
                      "use 0 to 2**62 - 1 cycles");
    return model;
}

constexpr const char* fewer_iterations = "lower the trip counts of its loops";

}  // namespace

CycleReport count_cycles(const Program& program, std::ptrdiff_t model, std::uint64_t arrival, std::uint64_t inferences,
                         Interrupt& interrupt) {
    const Model& checked = checked_model(program, model, arrival);
    if (inferences == 0)
        throw Refusal(RefusalKind::input, "inferences is 0", "inferences", "count one inference or more");
    const std::uint64_t instructions = check_work(program, checked, inferences, max_walk, fewer_iterations).instructions;
    Walk<false> walk(program, arrival, 0, interrupt);
    for (std::uint64_t i = 0; i < inferences; ++i) walk.run(checked);
    return walk.report(instructions);
}

std::vector<TraceRecord> trace_cycles(const Program& program, std::ptrdiff_t model, std::uint64_t arrival,
                                      std::size_t limit, Interrupt& interrupt) {
    const Model& checked = checked_model(program, model, arrival);
    check_work(program, checked, 1, max_walk, fewer_iterations);
    Walk<true> walk(program, arrival, limit, interrupt);
    if (limit > 0) walk.run(checked);
    return std::move(walk.trace);
}

}  // namespace ltc
