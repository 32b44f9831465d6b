// See error.h.
#include "capi/error.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <system_error>

namespace ltc::capi {
namespace {

constexpr ltc_status status_of[] = {LTC_PROGRAM, LTC_ISA, LTC_INPUT, LTC_STATE, LTC_CONFIG, LTC_ARITHMETIC};  // by RefusalKind

template <std::size_t N>
void copy(char (&to)[N], const char* from) noexcept {
    std::snprintf(to, N, "%s", from);
}

ltc_status fail_array(ltc_error* error, const HostArray& array, const char* name, const Shape& shape, std::span<const std::size_t> leading) noexcept {
    unsigned long long count = shape.elements();
    char axes[160] = "";
    std::size_t at = 0;
    const auto append = [&](unsigned long long n) {
        if (at < sizeof axes) at += static_cast<std::size_t>(std::snprintf(axes + at, sizeof axes - at, "%s%llu", at == 0 ? "" : ", ", n));
    };
    for (const std::size_t n : leading) append(n), count *= n;
    for (const std::uint32_t n : shape.dims) append(n);
    if (array.count == count && array.data == nullptr) return fail(error, LTC_ARGUMENT, name, "give memory for it", "its pointer is NULL");
    if (array.count == count) return fail(error, LTC_INPUT, name, "align it", "its address is none of a float");
    return fail(error, LTC_INPUT, name, "ltc_port_info gives the count of one inference; steps and streams multiply it",
                "%llu numbers expected, of shape (%s), %zu given", count, axes, array.count);
}

}  // namespace

ltc_status fail(ltc_error* error, ltc_status status, const char* where, const char* remedy, const char* format, ...) noexcept {
    if (error == nullptr) return status;
    error->status = status;
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(error->what, sizeof error->what, format, arguments);
    va_end(arguments);
    copy(error->where, where);
    copy(error->remedy, remedy);
    return status;
}

ltc_status null_argument(ltc_error* error, const char* name) noexcept {
    return fail(error, LTC_ARGUMENT, name, "give what the header asks for", "it is NULL");
}

ltc_status no_index(ltc_error* error, const char* kind, std::size_t index, std::size_t count) noexcept {
    return fail(error, LTC_ARGUMENT, kind, "give an index below the number that there are", "no %s %zu: there are %zu", kind, index, count);
}

ltc_status wrong_size(ltc_error* error, const char* name, std::size_t given, std::size_t size) noexcept {
    return fail(error, LTC_VERSION, name, "begin with its LTC_..._INIT, and compile with the ltc.h of this library",
                "its size is %zu, this library's is %zu", given, size);
}

ltc_status fail(ltc_error* error, const Fault& fault, const Program& program, std::size_t index) noexcept {
    const auto at = static_cast<std::size_t>(fault.index);
    switch (fault.kind) {
        case FaultKind::none: return LTC_OK;
        case FaultKind::busy: return fail(error, LTC_BUSY, "handle", "make one handle for each thread: they share the weights",
                                          "another call on it is under way");
        case FaultKind::model: return no_index(error, "model", at, program.models.size());
        case FaultKind::state: return no_index(error, "state", at, program.models[index].states.size());
        case FaultKind::stream: return fail(error, LTC_ARGUMENT, "stream", "give an index below the number of streams", "no stream %zu", at);
        case FaultKind::batch: return fail(error, LTC_ARGUMENT, "options", "see ltc_batch_options for the limits", "%zu streams on %zu threads", at, fault.given);
        default: break;
    }
    const Model& model = program.models[index];
    const bool inputs = fault.side == Side::inputs;
    const std::vector<Port>& ports = inputs ? model.inputs : model.outputs;
    switch (fault.kind) {
        case FaultKind::state_array:
            return fail_array(error, *fault.array, model.states[at].name.c_str(), model.states[at].shape, {});
        case FaultKind::count:
            return fail(error, LTC_INPUT, inputs ? "inputs" : "outputs", "give one array a port, in their order",
                        "the model has %zu, %zu given", ports.size(), fault.given);
        case FaultKind::array:
            return fail_array(error, *fault.array, ports[at].name.c_str(), ports[at].shape, std::span(fault.leading, fault.axes));
        case FaultKind::shares_input:
        case FaultKind::shares_output:
            return fail(error, LTC_INPUT, ports[at].name.c_str(), "give an array of its own", "it shares memory with %s",
                        fault.kind == FaultKind::shares_input ? "an input" : "another output");
        case FaultKind::elapsed_time:
            return fail(error, LTC_INPUT, ports[at].name.c_str(), "give the time since the previous step, finite and 0 or more",
                        "an elapsed time is NaN, infinite or negative");
        default: return fail(error, LTC_INTERNAL, "run", "report it", "a fault without words");
    }
}

ltc_status of_exception(ltc_error* error) noexcept {
    try {
        throw;
    } catch (const Refusal& refusal) {
        return fail(error, status_of[static_cast<std::size_t>(refusal.kind)], refusal.where.c_str(), refusal.remedy.c_str(), "%s",
                    refusal.fact.c_str());
    } catch (const std::bad_alloc&) {
        return fail(error, LTC_MEMORY, "memory", "free some, or use a smaller program", "there is not enough memory");
    } catch (const std::length_error& problem) {
        return fail(error, LTC_MEMORY, "memory", "use a smaller program", "%s", problem.what());
    } catch (const std::system_error& problem) {
        return fail(error, LTC_MEMORY, "threads", "use fewer threads", "%s", problem.what());
    } catch (const std::exception& problem) {
        return fail(error, LTC_INTERNAL, "library", "report it", "%s", problem.what());
    } catch (...) {
        return fail(error, LTC_INTERNAL, "library", "report it", "an exception of an unknown kind");
    }
}

}  // namespace ltc::capi
