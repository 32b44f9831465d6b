// A VM for a host that may give it anything: every call looks at what it was given before anything changes, and throws
// Refusal. A binding turns its host's arrays into HostArrays, and does nothing more.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "host/interrupt.h"
#include "host/refusal.h"
#include "program/program.h"
#include "vm/vm.h"

namespace ltc {

// fp32 numbers in C order, and the lengths of their axes. An input is only read.
struct HostArray {
    float* data;
    std::span<const std::ptrdiff_t> dims;

    std::size_t elements() const {
        std::size_t n = 1;
        for (const std::ptrdiff_t d : dims) n *= static_cast<std::size_t>(d);
        return n;
    }
};

// Lengths of the axes in front of those of a port or a state: none, {steps}, or {streams, steps}.
using Leading = std::span<const std::size_t>;

enum class Side : bool { inputs, outputs };

// Refuses a number of arrays that is not that of the ports.
[[noreturn]] void refuse_count(std::span<const Port> ports, Side side, std::size_t given);

std::string text(std::span<const std::ptrdiff_t> dims);  // "(3, 4)": a shape as Python writes it

// Refuses what a host gave for the array of a port or state called `name`. given: what it is instead.
[[noreturn]] void refuse_array(const std::string& name, const Shape& shape, Leading leading, bool writable, const std::string& given);

class CheckedVM {
public:
    static constexpr std::size_t max_streams = 65536, max_threads = 1024;  // of a batch

    // Throws as VM does.
    explicit CheckedVM(const Program& program, bool bit_accurate = true, const Kernels& kernels = choose_kernels());
    // Hold a Lease on `other`.
    CheckedVM(const CheckedVM& other) = default;
    CheckedVM& operator=(const CheckedVM&) = delete;

    // What does not run: program, kernels, sizes.
    const VM& vm() const { return vm_; }
    std::size_t steps_done(std::ptrdiff_t stream) const { return vm_.steps_done(stream_at(stream)); }

    class Lease;

private:
    std::size_t stream_at(std::ptrdiff_t stream) const;

    VM vm_;
    std::vector<const float*> in_;  // of the call that holds the lease
    std::vector<float*> out_;
};

// The calls, for one thread at a time. The constructor throws Refusal, rather than waits, while another lease on the VM
// lives: of another thread, or of this one where a signal's handler calls the VM whose run it interrupts.
//
// Any index and any number may be given. Each port has one array, of the port's shape behind the leading axes of the call;
// outputs share no memory with each other or with inputs. A run returns false if the host interrupted it: every stream is
// then as after a whole number of steps. Runs allocate nothing but streams and threads that are new.
class CheckedVM::Lease {
public:
    explicit Lease(CheckedVM& vm) : vm_(vm), lease_(vm.vm_) {
        if (!lease_.held()) refuse_busy();
    }

    const Model& model(std::ptrdiff_t index) const { return model_at(vm_.vm_.program(), index); }
    const State& state(std::ptrdiff_t model, std::ptrdiff_t index) const;

    using Arrays = std::span<const HostArray>;
    // No leading axis.
    bool run(std::ptrdiff_t model, Arrays inputs, Arrays outputs, Interrupt& interrupt);
    // One: steps.
    bool run_timesteps(std::ptrdiff_t model, std::size_t steps, Arrays inputs, Arrays outputs, Interrupt& interrupt);
    // Two: streams, steps. From 1 to max_threads threads, at most max_streams streams.
    bool run_batch(std::ptrdiff_t model, std::size_t streams, std::size_t steps, Arrays inputs, Arrays outputs,
                   std::size_t threads, Interrupt& interrupt);

    void reset(std::ptrdiff_t model);
    void reset_all();
    // An array of the state's shape.
    void get_state(std::ptrdiff_t model, std::ptrdiff_t state, std::ptrdiff_t stream, HostArray out);
    void set_state(std::ptrdiff_t model, std::ptrdiff_t state, std::ptrdiff_t stream, HostArray in);

private:
    [[noreturn]] static void refuse_busy();
    // Puts the arrays where the VM takes them from.
    std::size_t prepare(std::ptrdiff_t model, Leading leading, Arrays inputs, Arrays outputs);
    // steps: of all streams together.
    bool finished(Status status, std::size_t model, std::size_t steps) const;
    [[noreturn, gnu::cold, gnu::noinline]] void refuse_elapsed_time(std::size_t model, std::size_t steps) const;

    CheckedVM& vm_;
    VM::Lease lease_;
};

}  // namespace ltc
