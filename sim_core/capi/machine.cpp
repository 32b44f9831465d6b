// What the calls of VMs and batches have in common. Nothing here allocates but the constructor.
#include "capi/handles.h"

namespace ltc::capi {
namespace {

std::size_t room(const Program& program, std::vector<Port> Model::* side) {
    std::size_t most = 0;
    for (const Model& model : program.models) most = std::max(most, (model.*side).size());
    return most + 1;
}

constexpr float max_count = 1 << 24;  // of a step counter

HostArray flat(float* data, std::size_t count) noexcept { return {data, {}, true, count}; }

}  // namespace

Machine::Machine(const ltc_program& program, bool bit_accurate, const char* kernels)
    : vm_(*program.program, bit_accurate, choose_kernels(kernels)), metadata_(program.metadata),
      in_(room(*program.program, &Model::inputs)), out_(room(*program.program, &Model::outputs)) {}

ltc_status Machine::busy(ltc_error* error) const noexcept {
    Fault fault;
    fault.kind = FaultKind::busy;
    return fail(error, fault, program(), 0);
}

ltc_status Machine::begin(CheckedVM::Lease& lease, std::size_t model, std::size_t streams, std::size_t runs, const Arrays& arrays,
                          ltc_error* error) noexcept {
    if (arrays.inputs == nullptr && arrays.n_inputs != 0) return null_argument(error, "inputs");
    if (arrays.outputs == nullptr && arrays.n_outputs != 0) return null_argument(error, "outputs");
    if (const ltc_status status = check_model(error, program(), model)) return status;
    for (std::size_t n = 0; n < std::min(arrays.n_inputs, in_.size()); ++n)
        in_[n] = flat(const_cast<float*>(arrays.inputs[n].data), arrays.inputs[n].count);  // an input is only read
    for (std::size_t n = 0; n < std::min(arrays.n_outputs, out_.size()); ++n) out_[n] = flat(arrays.outputs[n].data, arrays.outputs[n].count);
    return metadata_->models[model].limit == 0 ? LTC_OK : check_limit(lease, model, streams, runs, error);
}

// Whether the streams have room for so many further runs.
ltc_status Machine::check_limit(CheckedVM::Lease& lease, std::size_t model, std::size_t streams, std::size_t runs, ltc_error* error) const noexcept {
    const ModelMetadata& stream = metadata_->models[model];
    for (std::size_t n = 0; n < streams; ++n) {
        float counted;
        const Fault fault = lease.get_state(signed_index(model), signed_index(stream.counter), signed_index(n), flat(&counted, 1));
        if (fault) return fail(error, fault, program(), model);
        const char* const name = program().models[model].states[stream.counter].name.c_str();
        if (!(counted >= 0 && counted <= max_count))
            return fail(error, LTC_INPUT, name, "reset the state, or set it to one that was got", "the step counter holds no number of steps");
        const auto begun = static_cast<std::uint64_t>(counted);
        if (begun > stream.limit || runs > (stream.limit - begun) / stream.block)
            return fail(error, LTC_INPUT, name, "begin a new stream with a reset; or compile with a longer example, or tables='wrap'",
                        "a stream has %llu steps; %llu of them have run, and %zu more of %llu are given",
                        static_cast<unsigned long long>(stream.limit), static_cast<unsigned long long>(begun), runs,
                        static_cast<unsigned long long>(stream.block));
    }
    return LTC_OK;
}

ltc_status Machine::reset(std::size_t model, ltc_error* error) noexcept {
    CheckedVM::Lease lease(vm_);
    if (!lease.held()) return busy(error);
    if (!metadata_->can_reset)
        return fail(error, LTC_STATE, "reset", "compile it with generate_state_reset=True, or make a new handle", "the program has no state reset");
    if (model == LTC_ALL_MODELS) {
        lease.reset_all();
        return LTC_OK;
    }
    return fail(error, lease.reset(signed_index(model)), program(), model);
}

ltc_status Machine::get_state(std::size_t model, std::size_t stream, std::size_t state, float* data, std::size_t count, ltc_error* error) noexcept {
    CheckedVM::Lease lease(vm_);
    if (!lease.held()) return busy(error);
    const HostArray array = flat(data, count);
    return fail(error, lease.get_state(signed_index(model), signed_index(state), signed_index(stream), array), program(), model);
}

ltc_status Machine::set_state(std::size_t model, std::size_t stream, std::size_t state, const float* data, std::size_t count,
                              ltc_error* error) noexcept {
    CheckedVM::Lease lease(vm_);
    if (!lease.held()) return busy(error);
    const HostArray array = flat(const_cast<float*>(data), count);  // it is only read
    return fail(error, lease.set_state(signed_index(model), signed_index(state), signed_index(stream), array), program(), model);
}

}  // namespace ltc::capi
