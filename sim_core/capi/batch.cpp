// Batches in C.
#include <cstddef>

#include "capi/handles.h"

using namespace ltc::capi;

struct ltc_batch : Machine {
    ltc_batch(const ltc_program& program, const ltc_batch_options& options)
        : Machine(program, options.plain_fp32 == 0, options.kernels), streams(options.streams), threads(options.threads) {}
    const std::size_t streams, threads;
};

ltc_status ltc_batch_create(const ltc_program* program, const ltc_batch_options* options, ltc_batch** out, ltc_error* error) {
    return guard(error, [&]() -> ltc_status {
        if (out == nullptr) return null_argument(error, "out");
        *out = nullptr;
        if (program == nullptr) return null_argument(error, "program");
        if (const ltc_status status = check_size(error, options, "options")) return status;
        if (options->streams == 0) return fail(error, LTC_ARGUMENT, "options", "give at least one stream", "a batch of no streams");
        auto batch = std::make_unique<ltc_batch>(*program, *options);
        ltc::CheckedVM::Lease lease(batch->checked());
        const ltc::Fault fault = lease.prepare_batch(options->streams, options->threads);
        if (fault) return fail(error, fault, batch->program(), 0);
        *out = batch.release();
        return LTC_OK;
    });
}

void ltc_batch_free(ltc_batch* batch) { delete batch; }

ltc_status ltc_batch_run(ltc_batch* batch, size_t model, size_t steps, const ltc_input* inputs, size_t n_inputs, const ltc_output* outputs,
                         size_t n_outputs, ltc_error* error) {
    return guard(error, [&]() -> ltc_status {
        if (batch == nullptr) return null_argument(error, "batch");
        return batch->execute(model, batch->streams, steps, {inputs, n_inputs, outputs, n_outputs}, error, [&](auto& lease, auto in, auto out) {
            ltc::Interrupt nobody(nullptr, nullptr);
            return lease.run_batch(signed_index(model), batch->streams, steps, in, out, batch->threads, nobody);
        });
    });
}

ltc_status ltc_batch_reset(ltc_batch* batch, size_t model, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    return batch == nullptr ? null_argument(error, "batch") : batch->reset(model, error);
}

ltc_status ltc_batch_get_state(ltc_batch* batch, size_t model, size_t stream, size_t state, float* data, size_t count, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    return batch == nullptr ? null_argument(error, "batch") : batch->get_state(model, stream, state, data, count, error);
}

ltc_status ltc_batch_set_state(ltc_batch* batch, size_t model, size_t stream, size_t state, const float* data, size_t count, ltc_error* error) {
    if (!known(error)) return LTC_VERSION;
    return batch == nullptr ? null_argument(error, "batch") : batch->set_state(model, stream, state, data, count, error);
}
