// The clock in Python: _core.cycles and _core.trace. They convert and do nothing more.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <vector>

#include "clock/timing.h"
#include "python_interrupt.h"

namespace nb = nanobind;

namespace {

nb::dict cycles(const ltc::Program& program, Py_ssize_t model, std::uint64_t arrival, std::uint64_t inferences) {
    ltc::CycleReport report;
    ltc::PythonInterrupt interrupt;
    try {
        nb::gil_scoped_release unlocked;
        report = ltc::count_cycles(program, model, arrival, inferences, interrupt);
    } catch (const ltc::Interrupted&) {
        ltc::PythonInterrupt::raise();
    }
    nb::list busy;
    for (std::size_t core = 0; core < program.machine.cores; ++core) {
        nb::list units;
        for (std::size_t unit = 0; unit < ltc::isa::n_units; ++unit)
            units.append(report.busy[core * ltc::isa::n_units + unit]);
        busy.append(units);
    }
    nb::dict out;
    out["total"] = report.total;
    out["offered"] = report.offered;
    out["last_in"] = report.last_in;
    out["last_out"] = report.last_out;
    out["instructions"] = report.instructions;
    out["busy"] = busy;
    return out;
}

nb::list trace(const ltc::Program& program, Py_ssize_t model, std::uint64_t arrival, std::size_t limit) {
    std::vector<ltc::TraceRecord> records;
    ltc::PythonInterrupt interrupt;
    try {
        nb::gil_scoped_release unlocked;
        records = ltc::trace_cycles(program, model, arrival, limit, interrupt);
    } catch (const ltc::Interrupted&) {
        ltc::PythonInterrupt::raise();
    }
    nb::list out;
    for (const ltc::TraceRecord& r : records) {
        nb::list iterations;
        for (std::uint32_t level = 0; level < r.depth; ++level) iterations.append(r.iterations[level]);
        const char* stall = ltc::stall_names[static_cast<std::size_t>(r.stall)];
        out.append(nb::make_tuple(r.index, r.core, nb::tuple(iterations), r.issue, r.begin, r.start, r.end, r.finish,
                                  r.busy, stall, r.lost));
    }
    return out;
}

}  // namespace

void bind_timing(nb::module_& m) {
    m.def("cycles", &cycles, nb::arg("program"), nb::arg("model_index") = 0, nb::arg("arrival") = 0,
          nb::arg("inferences") = 1,
          nb::sig("def cycles(program: Program, model_index: int = 0, arrival: int = 0, inferences: int = 1) -> "
                  "dict[str, typing.Any]"),
          "Cycles of one inference, from the issue of its first instruction at 0; or of some that follow each other.\n\n"
          "arrival: the cycle at which the host's data is there. Keys: total (every row written, every output out),\n"
          "offered (the host has its last input row ready, one a cycle from arrival on; 0 without inputs),\n"
          "last_in (start of the last beat that took a row from the host; 0 without one), last_out (the last output\n"
          "row is out; total without one), instructions (executed, over all cores), busy ([core][unit of isa.UNITS]:\n"
          "cycles that beats held the unit). Releases the GIL. Raises InputError for a model that is not there, an\n"
          "arrival from 2**62 on or no inferences, ProgramError beyond 2**33 executed instructions or beats.");
    m.def("trace", &trace, nb::arg("program"), nb::arg("model_index") = 0, nb::arg("arrival") = 0,
          nb::arg("limit") = 10000,
          nb::sig("def trace(program: Program, model_index: int = 0, arrival: int = 0, limit: int = 10000) -> "
                  "list[tuple[int, int, tuple[int, ...], int, int, int, int, int, int, str, int]]"),
          "The first `limit` executed instructions of the same walk, in program order.\n\n"
          "Each is (index in the code, core, iterations of the enclosing loops, issue, begin, start, end, finish, busy,\n"
          "stall, cycles lost to it): begin is when its unit is free for it, start its first beat, end when its unit is\n"
          "free again; finish is its last effect, a row readable, a row at the far end of a link, a row out; busy counts\n"
          "the cycles that its beats held the unit; stall is the cause that cost it most: none, unit, host, link,\n"
          "accumulator, operand, overwrite or port. A loop or an end leaves one record per core. Raises as cycles().");
}
