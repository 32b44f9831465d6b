// See checked.h.
#include "vm/checked.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace ltc {
namespace {

[[noreturn]] void refuse_input(std::string what, std::string where, std::string remedy) {
    throw Refusal(RefusalKind::input, std::move(what), std::move(where), std::move(remedy));
}

bool fits(std::span<const std::ptrdiff_t> dims, const Shape& shape, Leading leading) {
    const std::size_t more = leading.size();
    if (dims.size() != more + shape.dims.size()) return false;
    for (std::size_t n = 0; n < more; ++n)
        if (static_cast<std::size_t>(dims[n]) != leading[n]) return false;
    for (std::size_t n = 0; n < shape.dims.size(); ++n)
        if (static_cast<std::size_t>(dims[n + more]) != shape.dims[n]) return false;
    return true;
}

// What refuses stands apart from what looks, which every call runs through.
[[noreturn, gnu::cold, gnu::noinline]] void refuse_shape(const HostArray& array, const std::string& name, const Shape& shape,
                                                         Leading leading, bool writable) {
    refuse_array(name, shape, leading, writable, "format f, shape " + text(array.dims));
}
[[noreturn, gnu::cold, gnu::noinline]] void refuse_shared(const Port& port, const char* with) {
    refuse_input(std::string("it shares memory with ") + with, port.name, "give an array of its own");
}

void check_array(const HostArray& array, const std::string& name, const Shape& shape, Leading leading, bool writable) {
    if (!fits(array.dims, shape, leading)) refuse_shape(array, name, shape, leading, writable);
}

void check_arrays(std::span<const Port> ports, Side side, Leading leading, std::span<const HostArray> arrays) {
    if (arrays.size() != ports.size()) refuse_count(ports, side, arrays.size());
    for (std::size_t i = 0; i < arrays.size(); ++i)
        check_array(arrays[i], ports[i].name, ports[i].shape, leading, side == Side::outputs);
}

bool overlap(const HostArray& a, const HostArray& b) {
    const auto begin_a = reinterpret_cast<std::uintptr_t>(a.data), begin_b = reinterpret_cast<std::uintptr_t>(b.data);
    return begin_a < begin_b + b.elements() * sizeof(float) && begin_b < begin_a + a.elements() * sizeof(float);
}

std::size_t most_ports(const Program& program, std::vector<Port> Model::* side) {
    std::size_t most = 0;
    for (const Model& model : program.models) most = std::max(most, (model.*side).size());
    return most;
}

}  // namespace

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

CheckedVM::CheckedVM(const Program& program, bool bit_accurate, const Kernels& kernels)
    : vm_(program, bit_accurate, kernels), in_(most_ports(program, &Model::inputs)), out_(most_ports(program, &Model::outputs)) {}

std::size_t CheckedVM::stream_at(std::ptrdiff_t stream) const {
    if (stream < 0 || static_cast<std::size_t>(stream) >= vm_.streams())
        throw Refusal(RefusalKind::state, "no stream " + std::to_string(stream), "stream",
                      "give an index below " + std::to_string(vm_.streams()) + ", the most that run_batch has had");
    return static_cast<std::size_t>(stream);
}

void CheckedVM::Lease::refuse_busy() {
    throw Refusal(RefusalKind::state, "the VM is running in another thread, or below a signal's handler", "VM",
                  "make one VM for each thread: they share the program");
}

const State& CheckedVM::Lease::state(std::ptrdiff_t model, std::ptrdiff_t index) const {
    const std::vector<State>& states = this->model(model).states;
    if (index < 0 || static_cast<std::size_t>(index) >= states.size())
        throw Refusal(RefusalKind::state, "no state " + std::to_string(index), "state index",
                      "give an index below " + std::to_string(states.size()));
    return states[static_cast<std::size_t>(index)];
}

// ---- runs ------------------------------------------------------------------------------------------------------------

std::size_t CheckedVM::Lease::prepare(std::ptrdiff_t index, Leading leading, Arrays inputs, Arrays outputs) {
    const Model& model = this->model(index);
    check_arrays(model.inputs, Side::inputs, leading, inputs);
    check_arrays(model.outputs, Side::outputs, leading, outputs);
    for (std::size_t o = 0; o < outputs.size(); ++o) {
        for (const HostArray& input : inputs)
            if (overlap(outputs[o], input)) refuse_shared(model.outputs[o], "an input");
        for (std::size_t other = 0; other < o; ++other)
            if (overlap(outputs[o], outputs[other])) refuse_shared(model.outputs[o], "another output");
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) vm_.in_[i] = inputs[i].data;
    for (std::size_t o = 0; o < outputs.size(); ++o) vm_.out_[o] = outputs[o].data;
    return static_cast<std::size_t>(index);
}

bool CheckedVM::Lease::finished(Status status, std::size_t model, std::size_t steps) const {
    if (status == Status::bad_elapsed_time) refuse_elapsed_time(model, steps);
    return status == Status::ok;
}

void CheckedVM::Lease::refuse_elapsed_time(std::size_t model, std::size_t steps) const {
    const std::size_t port = vm_.vm_.bad_elapsed_time(model, steps, vm_.in_.data());
    refuse_input("an elapsed time is NaN, infinite or negative", vm_.vm_.program().models[model].inputs[port].name,
                 "give the time since the previous step, finite and 0 or more");
}

bool CheckedVM::Lease::run(std::ptrdiff_t model, Arrays inputs, Arrays outputs, Interrupt& interrupt) {
    const std::size_t m = prepare(model, {}, inputs, outputs);
    return finished(vm_.vm_.run(m, vm_.in_.data(), vm_.out_.data(), interrupt), m, 1);
}

bool CheckedVM::Lease::run_timesteps(std::ptrdiff_t model, std::size_t steps, Arrays inputs, Arrays outputs, Interrupt& interrupt) {
    const std::size_t m = prepare(model, std::span(&steps, 1), inputs, outputs);
    return finished(vm_.vm_.run_timesteps(m, steps, vm_.in_.data(), vm_.out_.data(), interrupt), m, steps);
}

bool CheckedVM::Lease::run_batch(std::ptrdiff_t model, std::size_t streams, std::size_t steps, Arrays inputs, Arrays outputs,
                                 std::size_t threads, Interrupt& interrupt) {
    const std::size_t leading[] = {streams, steps};
    const std::size_t m = prepare(model, leading, inputs, outputs);
    if (streams > max_streams || threads - 1 >= max_threads)
        refuse_input(std::to_string(streams) + " streams on " + std::to_string(threads) + " threads", "run_batch",
                     "use at most " + std::to_string(max_streams) + " streams and from 1 to " + std::to_string(max_threads) + " threads");
    vm_.vm_.prepare_batch(streams, std::min(threads, std::max<std::size_t>(streams, 1)));
    return finished(vm_.vm_.run_batch(m, streams, steps, vm_.in_.data(), vm_.out_.data(), interrupt), m, streams * steps);
}

// ---- state -----------------------------------------------------------------------------------------------------------

void CheckedVM::Lease::reset(std::ptrdiff_t index) {
    model(index);
    vm_.vm_.reset(static_cast<std::size_t>(index));
}

void CheckedVM::Lease::reset_all() {
    for (std::size_t m = 0; m < vm_.vm_.program().models.size(); ++m) vm_.vm_.reset(m);
}

void CheckedVM::Lease::get_state(std::ptrdiff_t model, std::ptrdiff_t state, std::ptrdiff_t stream, HostArray out) {
    const State& found = this->state(model, state);
    check_array(out, found.name, found.shape, {}, true);
    vm_.vm_.get_state(static_cast<std::size_t>(model), static_cast<std::size_t>(state), vm_.stream_at(stream), out.data);
}

void CheckedVM::Lease::set_state(std::ptrdiff_t model, std::ptrdiff_t state, std::ptrdiff_t stream, HostArray in) {
    const State& found = this->state(model, state);
    check_array(in, found.name, found.shape, {}, false);
    vm_.vm_.set_state(static_cast<std::size_t>(model), static_cast<std::size_t>(state), vm_.stream_at(stream), in.data);
}

}  // namespace ltc
