// See checked.h. What looks at a call takes no memory; what puts a fault into words stands apart from it.
#include "vm/checked.h"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <utility>

namespace ltc {
namespace {

[[noreturn]] void refuse_input(std::string what, std::string where, std::string remedy) {
    throw Refusal(RefusalKind::input, std::move(what), std::move(where), std::move(remedy));
}
[[noreturn]] void refuse_state(std::string what, std::string where, std::string remedy) {
    throw Refusal(RefusalKind::state, std::move(what), std::move(where), std::move(remedy));
}

bool fits(const HostArray& array, const Shape& shape, Leading leading) noexcept {
    if (array.flat) {
        std::size_t n = shape.elements();
        for (const std::size_t length : leading)
            if (__builtin_mul_overflow(n, length, &n)) return false;
        return array.count == n && (n == 0 || array.data != nullptr) &&
               reinterpret_cast<std::uintptr_t>(array.data) % alignof(float) == 0;
    }
    const std::size_t more = leading.size();
    if (array.dims.size() != more + shape.dims.size()) return false;
    for (std::size_t n = 0; n < more; ++n)
        if (static_cast<std::size_t>(array.dims[n]) != leading[n]) return false;
    for (std::size_t n = 0; n < shape.dims.size(); ++n)
        if (static_cast<std::size_t>(array.dims[n + more]) != shape.dims[n]) return false;
    return true;
}

Fault at(FaultKind kind, std::size_t index = 0, Side side = Side::outputs) noexcept {
    Fault fault;
    fault.kind = kind;
    fault.side = side;
    fault.index = static_cast<std::ptrdiff_t>(index);
    return fault;
}

Fault check_arrays(std::span<const Port> ports, Side side, Leading leading, std::span<const HostArray> arrays) noexcept {
    Fault fault;
    fault.side = side;
    if (arrays.size() != ports.size()) {
        fault.kind = FaultKind::count;
        fault.given = arrays.size();
        return fault;
    }
    for (std::size_t i = 0; i < arrays.size(); ++i)
        if (!fits(arrays[i], ports[i].shape, leading)) {
            fault.kind = FaultKind::array;
            fault.index = static_cast<std::ptrdiff_t>(i);
            fault.array = &arrays[i];
            std::ranges::copy(leading, fault.leading);
            fault.axes = leading.size();
            return fault;
        }
    return fault;
}

bool overlap(const HostArray& a, const HostArray& b) noexcept {
    const auto begin_a = reinterpret_cast<std::uintptr_t>(a.data), begin_b = reinterpret_cast<std::uintptr_t>(b.data);
    return begin_a < begin_b + b.elements() * sizeof(float) && begin_b < begin_a + a.elements() * sizeof(float);
}

std::size_t most_ports(const Program& program, std::vector<Port> Model::* side) {
    std::size_t most = 0;
    for (const Model& model : program.models) most = std::max(most, (model.*side).size());
    return most;
}

bool below(std::ptrdiff_t index, std::size_t size) noexcept { return static_cast<std::size_t>(index) < size; }

}  // namespace

// ---- words -----------------------------------------------------------------------------------------------------------

void refuse_count(std::span<const Port> ports, Side side, std::size_t given) {
    const std::string name = side == Side::inputs ? "inputs" : "outputs";
    refuse_input("the model has " + std::to_string(ports.size()) + " " + name + ", " + std::to_string(given) + " arrays given",
                 name, "give one array per port");
}

std::string text(std::span<const std::ptrdiff_t> dims) {
    std::string out = "(";
    for (std::size_t n = 0; n < dims.size(); ++n) out += (n != 0 ? ", " : "") + std::to_string(dims[n]);
    return out + (dims.size() == 1 ? ",)" : ")");
}

void refuse_array(const std::string& name, const Shape& shape, Leading leading, bool writable, const std::string& given) {
    std::vector<std::ptrdiff_t> dims(leading.begin(), leading.end());
    dims.insert(dims.end(), shape.dims.begin(), shape.dims.end());
    refuse_input(std::string("expected a ") + (writable ? "writable " : "") + "C-contiguous float32 array of shape " + text(dims) +
                     ", given: " + given,
                 name, "pass np.ascontiguousarray(x, dtype=np.float32)");
}

const State& state_at(const Program& program, std::ptrdiff_t model, std::ptrdiff_t index) {
    const std::vector<State>& states = model_at(program, model).states;
    if (!below(index, states.size()))
        refuse_state("no state " + std::to_string(index), "state index", "give an index below " + std::to_string(states.size()));
    return states[static_cast<std::size_t>(index)];
}

void CheckedVM::refuse(const Fault& fault, std::ptrdiff_t index) const {
    const auto at = static_cast<std::size_t>(fault.index);
    if (fault.kind == FaultKind::busy)
        refuse_state("the VM is running in another thread, or below a signal's handler", "VM",
                     "make one VM for each thread: they share the program");
    if (fault.kind == FaultKind::stream)
        refuse_state("no stream " + std::to_string(fault.index), "stream",
                     "give an index below " + std::to_string(vm_.streams()) + ", the most that run_batch has had");
    if (fault.kind == FaultKind::batch)
        refuse_input(std::to_string(at) + " streams on " + std::to_string(fault.given) + " threads", "run_batch",
                     "use at most " + std::to_string(max_streams) + " streams and from 1 to " + std::to_string(max_threads) + " threads");
    const Model& model = model_at(program(), index);  // refuses FaultKind::model
    if (fault.kind == FaultKind::state || fault.kind == FaultKind::state_array) {
        const State& state = state_at(program(), index, fault.index);  // refuses FaultKind::state
        refuse_array(state.name, state.shape, {}, fault.side == Side::outputs, "format f, shape " + text(fault.array->dims));
    }
    const std::vector<Port>& ports = fault.side == Side::inputs ? model.inputs : model.outputs;
    switch (fault.kind) {
        case FaultKind::count: refuse_count(ports, fault.side, fault.given);
        case FaultKind::array:
            refuse_array(ports[at].name, ports[at].shape, Leading(fault.leading, fault.axes), fault.side == Side::outputs,
                         "format f, shape " + text(fault.array->dims));
        case FaultKind::shares_input: refuse_input("it shares memory with an input", ports[at].name, "give an array of its own");
        case FaultKind::shares_output: refuse_input("it shares memory with another output", ports[at].name, "give an array of its own");
        case FaultKind::elapsed_time:
            refuse_input("an elapsed time is NaN, infinite or negative", ports[at].name,
                         "give the time since the previous step, finite and 0 or more");
        default: std::terminate();  // no call that was refused gives another
    }
}

// ---- runs ------------------------------------------------------------------------------------------------------------

CheckedVM::CheckedVM(const Program& program, bool bit_accurate, const Kernels& kernels)
    : vm_(program, bit_accurate, kernels), in_(most_ports(program, &Model::inputs)), out_(most_ports(program, &Model::outputs)) {}

std::size_t CheckedVM::steps_done(std::ptrdiff_t stream) const {
    if (!below(stream, vm_.streams())) refuse(at(FaultKind::stream, static_cast<std::size_t>(stream)), 0);
    return vm_.steps_done(static_cast<std::size_t>(stream));
}

Fault CheckedVM::Lease::prepare(std::ptrdiff_t index, Leading leading, Arrays inputs, Arrays outputs) noexcept {
    const Program& program = vm_.program();
    if (!below(index, program.models.size())) return at(FaultKind::model, static_cast<std::size_t>(index));
    const Model& model = program.models[static_cast<std::size_t>(index)];
    if (const Fault fault = check_arrays(model.inputs, Side::inputs, leading, inputs)) return fault;
    if (const Fault fault = check_arrays(model.outputs, Side::outputs, leading, outputs)) return fault;
    for (std::size_t o = 0; o < outputs.size(); ++o) {
        for (const HostArray& input : inputs)
            if (overlap(outputs[o], input)) return at(FaultKind::shares_input, o);
        for (std::size_t other = 0; other < o; ++other)
            if (overlap(outputs[o], outputs[other])) return at(FaultKind::shares_output, o);
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) vm_.in_[i] = inputs[i].data;
    for (std::size_t o = 0; o < outputs.size(); ++o) vm_.out_[o] = outputs[o].data;
    return {};
}

Fault CheckedVM::Lease::finished(Status status, std::ptrdiff_t model, std::size_t steps) const noexcept {
    if (status == Status::ok) return {};
    if (status == Status::interrupted) return at(FaultKind::interrupted);
    return at(FaultKind::elapsed_time, vm_.vm_.bad_elapsed_time(static_cast<std::size_t>(model), steps, vm_.in_.data()), Side::inputs);
}

Fault CheckedVM::Lease::run(std::ptrdiff_t model, Arrays inputs, Arrays outputs, Interrupt& interrupt) noexcept {
    if (const Fault fault = prepare(model, {}, inputs, outputs)) return fault;
    return finished(vm_.vm_.run(static_cast<std::size_t>(model), vm_.in_.data(), vm_.out_.data(), interrupt), model, 1);
}

Fault CheckedVM::Lease::run_timesteps(std::ptrdiff_t model, std::size_t steps, Arrays inputs, Arrays outputs,
                                      Interrupt& interrupt) noexcept {
    if (const Fault fault = prepare(model, std::span(&steps, 1), inputs, outputs)) return fault;
    const auto m = static_cast<std::size_t>(model);
    return finished(vm_.vm_.run_timesteps(m, steps, vm_.in_.data(), vm_.out_.data(), interrupt), model, steps);
}

Fault CheckedVM::Lease::prepare_batch(std::size_t streams, std::size_t threads) {
    if (streams > max_streams || threads - 1 >= max_threads) {
        Fault fault = at(FaultKind::batch, streams);
        fault.given = threads;
        return fault;
    }
    vm_.vm_.prepare_batch(streams, std::min(threads, std::max<std::size_t>(streams, 1)));
    return {};
}

Fault CheckedVM::Lease::run_batch(std::ptrdiff_t model, std::size_t streams, std::size_t steps, Arrays inputs, Arrays outputs,
                                  std::size_t threads, Interrupt& interrupt) {
    const std::size_t leading[] = {streams, steps};
    if (const Fault fault = prepare(model, leading, inputs, outputs)) return fault;
    if (const Fault fault = prepare_batch(streams, threads)) return fault;
    const auto m = static_cast<std::size_t>(model);
    return finished(vm_.vm_.run_batch(m, streams, steps, vm_.in_.data(), vm_.out_.data(), interrupt), model, streams * steps);
}

// ---- state -----------------------------------------------------------------------------------------------------------

Fault CheckedVM::Lease::reset(std::ptrdiff_t model) noexcept {
    if (!below(model, vm_.program().models.size())) return at(FaultKind::model, static_cast<std::size_t>(model));
    vm_.vm_.reset(static_cast<std::size_t>(model));
    return {};
}

void CheckedVM::Lease::reset_all() noexcept {
    for (std::size_t m = 0; m < vm_.program().models.size(); ++m) vm_.vm_.reset(m);
}

Fault CheckedVM::Lease::place(std::ptrdiff_t model, std::ptrdiff_t state, std::ptrdiff_t stream, const HostArray& array,
                              Side side) const noexcept {
    const Program& program = vm_.program();
    if (!below(model, program.models.size())) return at(FaultKind::model, static_cast<std::size_t>(model));
    const std::vector<State>& states = program.models[static_cast<std::size_t>(model)].states;
    if (!below(state, states.size())) return at(FaultKind::state, static_cast<std::size_t>(state));
    if (!below(stream, vm_.vm_.streams())) return at(FaultKind::stream, static_cast<std::size_t>(stream));
    if (fits(array, states[static_cast<std::size_t>(state)].shape, {})) return {};
    Fault fault = at(FaultKind::state_array, static_cast<std::size_t>(state), side);
    fault.array = &array;
    return fault;
}

Fault CheckedVM::Lease::get_state(std::ptrdiff_t model, std::ptrdiff_t state, std::ptrdiff_t stream, const HostArray& out) noexcept {
    if (const Fault fault = place(model, state, stream, out, Side::outputs)) return fault;
    vm_.vm_.get_state(static_cast<std::size_t>(model), static_cast<std::size_t>(state), static_cast<std::size_t>(stream), out.data);
    return {};
}

Fault CheckedVM::Lease::set_state(std::ptrdiff_t model, std::ptrdiff_t state, std::ptrdiff_t stream, const HostArray& in) noexcept {
    if (const Fault fault = place(model, state, stream, in, Side::inputs)) return fault;
    vm_.vm_.set_state(static_cast<std::size_t>(model), static_cast<std::size_t>(state), static_cast<std::size_t>(stream), in.data);
    return {};
}

}  // namespace ltc
