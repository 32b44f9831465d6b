// What stands behind the handles of ltc.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include "capi/error.h"
#include "program/metadata.h"
#include "vm/checked.h"

// What a file holds; VMs and batches share it.
struct ltc_program {
    std::shared_ptr<const ltc::Program> program;
    std::shared_ptr<const ltc::Metadata> metadata;
};

namespace ltc::capi {

// A machine that a handle runs, and room for the arrays of a call.
class Machine {
public:
    // Throws as CheckedVM does. kernels: as choose_kernels takes them.
    Machine(const ltc_program& program, bool bit_accurate, const char* kernels);
    // Hold a Lease on `other`.
    Machine(const Machine& other) = default;
    Machine& operator=(const Machine&) = delete;

    const Program& program() const { return vm_.program(); }
    const Metadata& metadata() const { return *metadata_; }
    const VM& vm() const { return vm_.vm(); }
    CheckedVM& checked() { return vm_; }

    // run(lease, inputs, outputs) executes a call on the arrays of the caller and returns a Fault.
    // streams, runs: of the call, for streams that have an end.
    struct Arrays {
        const ltc_input* inputs;
        std::size_t n_inputs;
        const ltc_output* outputs;
        std::size_t n_outputs;
    };
    template <class Run>
    ltc_status execute(std::size_t model, std::size_t streams, std::size_t runs, const Arrays& arrays, ltc_error* error, Run run) {
        CheckedVM::Lease lease(vm_);
        if (!lease.held()) return busy(error);
        if (const ltc_status status = begin(lease, model, streams, runs, arrays, error)) return status;
        Fault fault = run(lease, std::span<const HostArray>(in_.data(), std::min(arrays.n_inputs, in_.size())),
                          std::span<const HostArray>(out_.data(), std::min(arrays.n_outputs, out_.size())));
        if (!fault) return LTC_OK;
        if (fault.kind == FaultKind::count) fault.given = fault.side == Side::inputs ? arrays.n_inputs : arrays.n_outputs;
        return fail(error, fault, program(), model);
    }

    ltc_status reset(std::size_t model, ltc_error* error) noexcept;
    ltc_status get_state(std::size_t model, std::size_t stream, std::size_t state, float* data, std::size_t count, ltc_error* error) noexcept;
    ltc_status set_state(std::size_t model, std::size_t stream, std::size_t state, const float* data, std::size_t count, ltc_error* error) noexcept;

    ltc_status busy(ltc_error* error) const noexcept;

private:
    ltc_status begin(CheckedVM::Lease& lease, std::size_t model, std::size_t streams, std::size_t runs, const Arrays& arrays,
                     ltc_error* error) noexcept;
    ltc_status check_limit(CheckedVM::Lease& lease, std::size_t model, std::size_t streams, std::size_t runs, ltc_error* error) const noexcept;

    CheckedVM vm_;
    std::shared_ptr<const Metadata> metadata_;
    std::vector<HostArray> in_, out_;  // of the call that holds the lease; one more than any model has ports
};

inline std::ptrdiff_t signed_index(std::size_t index) { return static_cast<std::ptrdiff_t>(index); }

// Whether a model is there; fills the error if not.
inline ltc_status check_model(ltc_error* error, const Program& program, std::size_t model) noexcept {
    return model < program.models.size() ? LTC_OK : no_index(error, "model", model, program.models.size());
}

}  // namespace ltc::capi

struct ltc_vm : ltc::capi::Machine {
    using Machine::Machine;
};
