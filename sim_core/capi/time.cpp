// The clock of the accelerator in C.
#include <algorithm>

#include "capi/handles.h"
#include "clock/timing.h"

using namespace ltc::capi;

namespace {

constexpr std::uint64_t settled = 8;  // inferences in a row after which the distance of two is that of all that follow

ltc::CycleReport walk(const ltc_program& program, std::size_t model, std::uint64_t arrival, std::uint64_t inferences = 1) {
    ltc::Interrupt nobody(nullptr, nullptr);
    return ltc::count_cycles(*program.program, signed_index(model), arrival, inferences, nobody);
}

// The cycle at which a model without outputs is done, and any other has its last row out.
std::uint64_t last(const ltc_program& program, std::size_t model, const ltc::CycleReport& report) {
    return program.program->models[model].outputs.empty() ? report.total : report.last_out;
}

std::uint64_t latency(const ltc_program& program, std::size_t model, std::uint64_t arrival) {
    const ltc::CycleReport report = walk(program, model, arrival);
    const std::uint64_t end = last(program, model, report);
    return end > report.offered ? end - report.offered : 0;  // state alone may be out before the input comes
}

double transfer_us(const ltc_program& program, const std::vector<ltc::Port>& ports) {
    double bytes = 0;
    for (const ltc::Port& port : ports) bytes += (port.precision == ltc::isa::Precision::bf16 ? 2.0 : 4.0) * static_cast<double>(port.shape.elements());
    return bytes == 0 ? 0 : program.metadata->host_latency_us + bytes / program.metadata->host_bytes_per_us;
}

}  // namespace

ltc_status ltc_program_cycles(const ltc_program* program, size_t model, ltc_cycles* cycles, ltc_error* error) {
    return guard(error, [&]() -> ltc_status {
        if (program == nullptr) return null_argument(error, "program");
        if (const ltc_status status = check_size(error, cycles, "cycles")) return status;
        if (const ltc_status status = check_model(error, *program->program, model)) return status;
        ltc_cycles found = LTC_CYCLES_INIT;
        found.spaced = latency(*program, model, walk(*program, model, 0).total);
        found.contiguous = latency(*program, model, 0);
        const std::uint64_t few = last(*program, model, walk(*program, model, 0, settled));
        const std::uint64_t many = last(*program, model, walk(*program, model, 0, 2 * settled));
        found.interval = static_cast<double>(many - few) / settled;
        found.spaced_us = static_cast<double>(found.spaced) / program->metadata->clock_mhz;
        found.contiguous_us = static_cast<double>(found.contiguous) / program->metadata->clock_mhz;
        const ltc::Model& ports = program->program->models[model];
        found.host_us = transfer_us(*program, ports.inputs) + transfer_us(*program, ports.outputs);
        *cycles = found;
        return LTC_OK;
    });
}

ltc_status ltc_program_trace(const ltc_program* program, size_t model, int spaced, ltc_trace_record* records, size_t capacity,
                             size_t* count, ltc_error* error) {
    return guard(error, [&]() -> ltc_status {
        if (program == nullptr) return null_argument(error, "program");
        if (records == nullptr && capacity != 0) return null_argument(error, "records");
        if (count == nullptr) return null_argument(error, "count");
        if (const ltc_status status = check_model(error, *program->program, model)) return status;
        const std::uint64_t arrival = spaced != 0 ? walk(*program, model, 0).total : 0;
        ltc::Interrupt nobody(nullptr, nullptr);
        const std::vector<ltc::TraceRecord> found = ltc::trace_cycles(*program->program, signed_index(model), arrival, capacity, nobody);
        static_assert(LTC_MAX_LOOP_DEPTH == ltc::isa::max_loop_depth);
        for (std::size_t n = 0; n < found.size(); ++n) {
            const ltc::TraceRecord& r = found[n];
            records[n] = {r.index, r.core, r.depth, 0, {}, r.issue, r.begin, r.start, r.end, r.finish, r.busy, r.lost,
                          program->program->code[r.index].info().name, ltc::stall_names[static_cast<std::size_t>(r.stall)]};
            std::copy_n(r.iterations.begin(), r.depth, records[n].iterations);
        }
        *count = found.size();
        return LTC_OK;
    });
}
