// VMs in C. The calls between ltc_vm_run and ltc_vm_set_state are for real time: ltc.h says what that means.
#include "capi/handles.h"

using namespace ltc::capi;

namespace {

constexpr ltc_vm_options default_vm_options = LTC_VM_OPTIONS_INIT;

}  // namespace

ltc_status ltc_vm_create(const ltc_program* program, const ltc_vm_options* options, ltc_vm** out, ltc_error* error) {
    return guard(error, [&]() -> ltc_status {
        if (out == nullptr) return null_argument(error, "out");
        *out = nullptr;
        if (program == nullptr) return null_argument(error, "program");
        if (options == nullptr) options = &default_vm_options;
        if (const ltc_status status = check_size(error, options, "options")) return status;
        *out = new ltc_vm(*program, options->plain_fp32 == 0, options->kernels);
        return LTC_OK;
    });
}

ltc_status ltc_vm_copy(ltc_vm* vm, ltc_vm** out, ltc_error* error) {
    return guard(error, [&]() -> ltc_status {
        if (out == nullptr) return null_argument(error, "out");
        *out = nullptr;
        if (vm == nullptr) return null_argument(error, "vm");
        const ltc::CheckedVM::Lease lease(vm->checked());
        if (!lease.held()) return vm->busy(error);
        *out = new ltc_vm(*vm);
        return LTC_OK;
    });
}

void ltc_vm_free(ltc_vm* vm) { delete vm; }

const char* ltc_vm_kernels(const ltc_vm* vm) { return vm == nullptr ? nullptr : vm->vm().kernels().name; }

ltc_status ltc_vm_run(ltc_vm* vm, size_t model, const ltc_input* inputs, size_t n_inputs, const ltc_output* outputs, size_t n_outputs,
                      ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    if (vm == nullptr) return null_argument(error, "vm");
    return vm->execute(model, 1, 1, {inputs, n_inputs, outputs, n_outputs}, error, [&](auto& lease, auto in, auto out) {
        ltc::Interrupt nobody(nullptr, nullptr);
        return lease.run(signed_index(model), in, out, nobody);
    });
}

ltc_status ltc_vm_run_steps(ltc_vm* vm, size_t model, size_t steps, const ltc_input* inputs, size_t n_inputs, const ltc_output* outputs,
                            size_t n_outputs, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    if (vm == nullptr) return null_argument(error, "vm");
    return vm->execute(model, 1, steps, {inputs, n_inputs, outputs, n_outputs}, error, [&](auto& lease, auto in, auto out) {
        ltc::Interrupt nobody(nullptr, nullptr);
        return lease.run_timesteps(signed_index(model), steps, in, out, nobody);
    });
}

ltc_status ltc_vm_reset(ltc_vm* vm, size_t model, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    return vm == nullptr ? null_argument(error, "vm") : vm->reset(model, error);
}

ltc_status ltc_vm_get_state(ltc_vm* vm, size_t model, size_t state, float* data, size_t count, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    return vm == nullptr ? null_argument(error, "vm") : vm->get_state(model, 0, state, data, count, error);
}

ltc_status ltc_vm_set_state(ltc_vm* vm, size_t model, size_t state, const float* data, size_t count, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    return vm == nullptr ? null_argument(error, "vm") : vm->set_state(model, 0, state, data, count, error);
}
