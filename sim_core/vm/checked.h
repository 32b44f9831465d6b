// A VM for a host that may give it anything: every call looks at what it was given before anything changes, and says what
// is wrong as a Fault, which takes no memory. A binding turns its host's arrays into HostArrays and a Fault into an error of
// its host: an exception (`refuse`) or a code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "host/interrupt.h"
#include "host/refusal.h"
#include "program/program.h"
#include "vm/vm.h"

namespace ltc {

// fp32 numbers in C order, and the lengths of their axes; or `flat`, and nothing but their number. An input is only read.
struct HostArray {
    float* data;
    std::span<const std::ptrdiff_t> dims;
    bool flat = false;
    std::size_t count = 0;  // of a flat one

    std::size_t elements() const {
        if (flat) return count;
        std::size_t n = 1;
        for (const std::ptrdiff_t d : dims) n *= static_cast<std::size_t>(d);
        return n;
    }
};

// Lengths of the axes in front of those of a port or a state: none, {steps}, or {streams, steps}.
using Leading = std::span<const std::size_t>;

enum class Side : bool { inputs, outputs };

enum class FaultKind : std::uint8_t {
    none,
    interrupted,     // by the host: every stream is as after a whole number of steps
    busy,            // another call is under way
    model,           // there is no model `index`
    state,           // there is no state `index` of the model
    stream,          // there is no stream `index`
    count,           // `given` arrays for the ports of a side
    array,           // the array of port `index` has another shape, or stands where no float may
    state_array,     // or that of state `index`
    shares_input,    // output `index` shares memory with an input
    shares_output,   // or with another output
    elapsed_time,    // input `index` holds a time that is NaN, infinite or negative
    batch,           // `index` streams on `given` threads
};

// Why a call was not executed; but for `interrupted`, nothing has changed.
struct Fault {
    FaultKind kind = FaultKind::none;
    Side side = Side::inputs;
    std::ptrdiff_t index = 0;
    std::size_t given = 0;
    const HostArray* array = nullptr;     // of the call, where kind is array
    std::size_t leading[2] = {}, axes = 0;  // of the call: lengths, and how many of them count

    explicit operator bool() const { return kind != FaultKind::none; }
};

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
    const Program& program() const { return vm_.program(); }
    // Throws Refusal for a stream that is not there.
    std::size_t steps_done(std::ptrdiff_t stream) const;

    // Throws the Refusal that a fault is; model: of the call.
    [[noreturn]] void refuse(const Fault& fault, std::ptrdiff_t model) const;

    class Lease;

private:
    VM vm_;
    std::vector<const float*> in_;  // of the call that holds the lease
    std::vector<float*> out_;
};

// The calls, for one thread at a time: `held` is false, and no call may be made, while another lease on the VM lives: of
// another thread, or of this one where a signal's handler calls the VM whose run it interrupts.
//
// Any index and any number may be given. Each port has one array, of the port's shape behind the leading axes of the call;
// outputs share no memory with each other or with inputs. Nothing here allocates or throws but prepare_batch.
class CheckedVM::Lease {
public:
    explicit Lease(CheckedVM& vm) noexcept : vm_(vm), lease_(vm.vm_) {}

    bool held() const { return lease_.held(); }

    using Arrays = std::span<const HostArray>;
    // No leading axis.
    Fault run(std::ptrdiff_t model, Arrays inputs, Arrays outputs, Interrupt& interrupt) noexcept;
    // One: steps.
    Fault run_timesteps(std::ptrdiff_t model, std::size_t steps, Arrays inputs, Arrays outputs, Interrupt& interrupt) noexcept;
    // Two: streams, steps. From 1 to max_threads threads, at most max_streams streams. Allocates what is new: throws as
    // VM::prepare_batch does, with every state as it was.
    Fault run_batch(std::ptrdiff_t model, std::size_t streams, std::size_t steps, Arrays inputs, Arrays outputs,
                    std::size_t threads, Interrupt& interrupt);
    // Makes the streams and threads, so that run_batch allocates nothing.
    Fault prepare_batch(std::size_t streams, std::size_t threads);

    Fault reset(std::ptrdiff_t model) noexcept;
    void reset_all() noexcept;
    // An array of the state's shape.
    Fault get_state(std::ptrdiff_t model, std::ptrdiff_t state, std::ptrdiff_t stream, const HostArray& out) noexcept;
    Fault set_state(std::ptrdiff_t model, std::ptrdiff_t state, std::ptrdiff_t stream, const HostArray& in) noexcept;

private:
    // Puts the arrays where the VM takes them from.
    Fault prepare(std::ptrdiff_t model, Leading leading, Arrays inputs, Arrays outputs) noexcept;
    // steps: of all streams together.
    Fault finished(Status status, std::ptrdiff_t model, std::size_t steps) const noexcept;
    Fault place(std::ptrdiff_t model, std::ptrdiff_t state, std::ptrdiff_t stream, const HostArray& array, Side side) const noexcept;

    CheckedVM& vm_;
    VM::Lease lease_;
};

// The state of an index; throws Refusal if there is none.
const State& state_at(const Program& program, std::ptrdiff_t model, std::ptrdiff_t index);

}  // namespace ltc
