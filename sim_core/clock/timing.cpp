// The walk behind timing.h. A core is in order: an instruction issues when the one before it has issued and the queue
// of its unit has a place. Its beats follow those before it on its unit, a cycle apart or later, each as soon as its
// rows and ports allow. Nothing looks ahead: that a beat may start is known from what had begun the cycle before.
#include "clock/timing.h"

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <utility>

#include "clock/beat_times.h"
#include "clock/clock.h"
#include "clock/patterns.h"
#include "program/work.h"

namespace ltc {
namespace {

template <bool traced>
class Walk {
public:
    Walk(const Program& program, std::uint64_t arrival, std::size_t limit, Interrupt& interrupt)
        : program_(program), machine_(program.machine), limit_(limit), watch_(interrupt, true), cores_(machine_.cores),
          outside_{.links = std::vector<LinkClock>(std::size_t{machine_.cores} * machine_.cores), .arrival = arrival,
                   .input_rows = {}, .outputs = OutputTree(machine_.cores, machine_.output_rows)},
          patterns_(program, counters_, outside_, watch_) {
        for (std::uint32_t c = 0; c < machine_.cores; ++c) {
            cores_[c].rows.resize(program.cores[c].tensor_rows);
            for (UnitClock& unit : cores_[c].units) {
                unit.freed.resize(machine_.issue_queue);
                unit.landings.resize(std::bit_ceil(longest_way(machine_)));
            }
        }
        for (LinkClock& link : outside_.links) link.places.resize(machine_.link_fifo_rows);
        report_.busy.assign(std::size_t{machine_.cores} * isa::n_units, 0);
    }

    // One inference.
    void run(const Model& model) {
        std::uint64_t rows = 0;
        outside_.input_rows.clear();
        for (const Port& port : model.inputs) {
            outside_.input_rows.push_back(rows);
            rows += program_.rows_of(port.shape);
        }
        report_.offered = rows ? outside_.arrival + rows - 1 : 0;
        for (std::uint32_t at = model.code_begin; at < model.code_end;) {
            const Instruction& in = program_.code[at];
            at_ = at;
            if (watch_.poll()) throw Interrupted();
            if (in.info().unit == isa::Unit::control) {
                at = control(in, at);
            } else {
                execute(in);
                ++at;
            }
        }
        for (std::uint32_t c = 0; c < machine_.cores; ++c) cores_[c].turn(c, model.rings);
        outside_.outputs.settle();
        for (const Sent& sent : sent_) trace[sent.record].finish = outside_.outputs.left(sent.core, sent.place);
    }

    CycleReport report(std::uint64_t instructions) const {
        CycleReport out = report_;
        out.last_in = outside_.last_in;
        out.total = std::max(last_ready_, outside_.outputs.last_out);
        out.last_out = outside_.outputs.last_out;
        if (out.last_out == 0) out.last_out = out.total;  // an output takes a cycle or more: 0 says that none was
        out.instructions = instructions;
        return out;
    }

    std::vector<TraceRecord> trace;  // the first `limit` records. What is behind them is walked too: its rows may leave first

private:
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
        CoreClock& core = cores_[in.core];
        UnitClock& queue = core.units[unit];
        const std::uint64_t issue = std::max(core.next_issue, queue.freed[queue.oldest]);
        const std::uint64_t begin = std::max(issue, queue.free);
        const std::uint64_t wanted = core.next_issue;
        Beats<traced> beats(core, queue, pending_, machine_.read_ports, begin, delay_of(machine_, in), hold_of(machine_, in));
        patterns_.walk(in, beats);
        pending_.settle(core.rows);
        core.next_issue = issue + machine_.latency(isa::Latency::issue);
        queue.leave(beats.next());
        report_.busy[in.core * isa::n_units + unit] += beats.busy;
        last_ready_ = std::max(last_ready_, beats.last_ready);
        if (traced && trace.size() < limit_) record(in, issue, begin, begin - wanted, beats);
    }

    void record(const Instruction& in, std::uint64_t issue, std::uint64_t begin, std::uint64_t waited, Beats<traced>& beats) {
        beats.lost[static_cast<std::size_t>(Stall::unit)] = waited;
        const auto worst = std::max_element(beats.lost.begin(), beats.lost.end());
        const Stall stall = *worst == 0 ? Stall::none : static_cast<Stall>(worst - beats.lost.begin());
        trace.push_back({at_, in.core, in.depth, iterations(in.depth), issue, begin, beats.first, beats.next(),
                         std::max(beats.arrived, beats.last_ready), beats.busy, *worst, stall});
        if (in.info().unit == isa::Unit::io_out)
            sent_.push_back({trace.size() - 1, in.core, outside_.outputs.last_place(in.core)});
    }

    // The iterations of the enclosing loops, outermost first; 0 behind the innermost.
    std::array<std::uint64_t, isa::max_loop_depth> iterations(std::uint32_t depth) const {
        std::array<std::uint64_t, isa::max_loop_depth> out{};
        std::copy_n(counters_.begin() + 1, depth, out.begin());
        return out;
    }

    // An output in the trace, whose last row leaves when the inference is known.
    struct Sent {
        std::size_t record, core, place;
    };

    const Program& program_;
    const Machine& machine_;
    std::size_t limit_;
    Watch watch_;
    std::uint32_t at_ = 0;
    std::uint64_t last_ready_ = 0;
    Counters counters_{};
    std::vector<CoreClock> cores_;
    Outside outside_;
    Patterns<traced> patterns_;
    Pending pending_;
    std::vector<Sent> sent_;
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
