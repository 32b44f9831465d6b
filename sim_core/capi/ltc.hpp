// libltc in C++20: the handles of ltc.h as objects that free themselves, arrays as spans, refusals as exceptions. It is nothing
// but ltc.h and the standard library, all of it inline: the ABI between a program and libltc is that of C.
//
//     ltc::Program program("policy.ltcp");
//     ltc::VM vm(program);
//     vm.run(x, y);  // std::span, std::vector or std::array of float
//
// Real time: try_run and try_run_steps throw nothing and take no memory, as ltc_vm_run says; the others throw ltc::Error where a
// call is refused, and nothing else but std::bad_alloc. Threads: as in ltc.h.
#pragma once

#include <ltc.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace ltc {
inline namespace v1 {  // of LTC_API_VERSION: its own symbols, whatever else is linked

class Error : public std::runtime_error {
public:
    explicit Error(const ltc_error& error)
        : std::runtime_error(std::string(error.where) + ": " + error.what + "; " + error.remedy), status_(error.status), where_(error.where) {}
    ltc_status status() const noexcept { return status_; }
    const std::string& where() const noexcept { return where_; }

private:
    ltc_status status_;
    std::string where_;
};

// call(error) of a function of ltc.h. Throws Error unless it returns LTC_OK.
template <class Call>
void check(Call call) {
    ltc_error error = LTC_ERROR_INIT;
    if (call(&error) != LTC_OK) throw Error(error);
}

inline ltc_input input(std::span<const float> numbers) noexcept { return {numbers.data(), numbers.size()}; }
inline ltc_output output(std::span<float> numbers) noexcept { return {numbers.data(), numbers.size()}; }

using Inputs = std::span<const ltc_input>;
using Outputs = std::span<const ltc_output>;

template <auto Free>
struct Freed {
    template <class Handle>
    void operator()(Handle* handle) const noexcept {
        Free(handle);
    }
};

class Program {
public:
    explicit Program(const std::string& path, std::uint64_t max_work = std::uint64_t{1} << 33) {
        load(max_work, [&](const ltc_load_options* options, ltc_program** out, ltc_error* error) {
            return ltc_program_load(LTC_API_VERSION, path.c_str(), options, out, error);
        });
    }
    explicit Program(std::span<const std::byte> bytes, std::uint64_t max_work = std::uint64_t{1} << 33) {
        load(max_work, [&](const ltc_load_options* options, ltc_program** out, ltc_error* error) {
            return ltc_program_load_memory(LTC_API_VERSION, bytes.data(), bytes.size(), options, out, error);
        });
    }

    std::size_t models() const noexcept { return ltc_program_models(get()); }
    ltc_machine_info machine() const {
        ltc_machine_info info = LTC_MACHINE_INFO_INIT;
        check([&](ltc_error* error) { return ltc_program_machine(get(), &info, error); });
        return info;
    }
    ltc_model_info model(std::size_t model = 0) const {
        ltc_model_info info = LTC_MODEL_INFO_INIT;
        check([&](ltc_error* error) { return ltc_program_model(get(), model, &info, error); });
        return info;
    }
    std::size_t find(const std::string& name) const {
        std::size_t model = 0;
        check([&](ltc_error* error) { return ltc_program_find_model(get(), name.c_str(), &model, error); });
        return model;
    }
    ltc_port_info input(std::size_t index = 0, std::size_t model = 0) const { return port(ltc_program_input, index, model); }
    ltc_port_info output(std::size_t index = 0, std::size_t model = 0) const { return port(ltc_program_output, index, model); }
    ltc_port_info state(std::size_t index = 0, std::size_t model = 0) const { return port(ltc_program_state, index, model); }
    ltc_cycles cycles(std::size_t model = 0) const {
        ltc_cycles found = LTC_CYCLES_INIT;
        check([&](ltc_error* error) { return ltc_program_cycles(get(), model, &found, error); });
        return found;
    }
    std::vector<ltc_trace_record> trace(std::size_t limit, bool spaced = true, std::size_t model = 0) const {
        std::vector<ltc_trace_record> records(limit);
        std::size_t count = 0;
        check([&](ltc_error* error) { return ltc_program_trace(get(), model, spaced, records.data(), limit, &count, error); });
        records.resize(count);
        return records;
    }

    ltc_program* get() const noexcept { return handle_.get(); }

private:
    template <class Load>
    void load(std::uint64_t max_work, Load load) {
        ltc_load_options options = LTC_LOAD_OPTIONS_INIT;
        options.max_work = max_work;
        ltc_program* made = nullptr;
        check([&](ltc_error* error) { return load(&options, &made, error); });
        handle_.reset(made);
    }
    template <class Read>
    ltc_port_info port(Read read, std::size_t index, std::size_t model) const {
        ltc_port_info info = LTC_PORT_INFO_INIT;
        check([&](ltc_error* error) { return read(get(), model, index, &info, error); });
        return info;
    }

    std::unique_ptr<ltc_program, Freed<ltc_program_free>> handle_;
};

// Copies share the weights and go their own ways from the same state.
class VM {
public:
    explicit VM(const Program& program, const char* kernels = nullptr, bool plain_fp32 = false) {
        ltc_vm_options options = LTC_VM_OPTIONS_INIT;
        options.kernels = kernels;
        options.plain_fp32 = plain_fp32 ? 1 : 0;
        ltc_vm* made = nullptr;
        check([&](ltc_error* error) { return ltc_vm_create(program.get(), &options, &made, error); });
        handle_.reset(made);
    }
    VM(const VM& other) {
        ltc_vm* made = nullptr;
        check([&](ltc_error* error) { return ltc_vm_copy(other.get(), &made, error); });
        handle_.reset(made);
    }
    VM(VM&&) noexcept = default;
    VM& operator=(VM&&) noexcept = default;
    VM& operator=(const VM& other) { return *this = VM(other); }

    void run(Inputs inputs, Outputs outputs, std::size_t model = 0) {
        check([&](ltc_error* error) { return try_run(inputs, outputs, model, error); });
    }
    // One input and one output.
    void run(std::span<const float> x, std::span<float> y, std::size_t model = 0) {
        const ltc_input in = input(x);
        const ltc_output out = output(y);
        run(Inputs(&in, 1), Outputs(&out, 1), model);
    }
    void run_steps(std::size_t steps, Inputs inputs, Outputs outputs, std::size_t model = 0) {
        check([&](ltc_error* error) { return try_run_steps(steps, inputs, outputs, model, error); });
    }
    ltc_status try_run(Inputs inputs, Outputs outputs, std::size_t model = 0, ltc_error* error = nullptr) noexcept {
        return ltc_vm_run(get(), model, inputs.data(), inputs.size(), outputs.data(), outputs.size(), error);
    }
    ltc_status try_run_steps(std::size_t steps, Inputs inputs, Outputs outputs, std::size_t model = 0, ltc_error* error = nullptr) noexcept {
        return ltc_vm_run_steps(get(), model, steps, inputs.data(), inputs.size(), outputs.data(), outputs.size(), error);
    }

    void reset(std::size_t model = LTC_ALL_MODELS) {
        check([&](ltc_error* error) { return ltc_vm_reset(get(), model, error); });
    }
    void get_state(std::size_t state, std::span<float> numbers, std::size_t model = 0) const {
        check([&](ltc_error* error) { return ltc_vm_get_state(get(), model, state, numbers.data(), numbers.size(), error); });
    }
    void set_state(std::size_t state, std::span<const float> numbers, std::size_t model = 0) {
        check([&](ltc_error* error) { return ltc_vm_set_state(get(), model, state, numbers.data(), numbers.size(), error); });
    }
    const char* kernels() const noexcept { return ltc_vm_kernels(get()); }

    ltc_vm* get() const noexcept { return handle_.get(); }

private:
    std::unique_ptr<ltc_vm, Freed<ltc_vm_free>> handle_;
};

class Batch {
public:
    Batch(const Program& program, std::size_t streams, std::size_t threads = 1, const char* kernels = nullptr, bool plain_fp32 = false) {
        ltc_batch_options options = LTC_BATCH_OPTIONS_INIT;
        options.kernels = kernels;
        options.plain_fp32 = plain_fp32 ? 1 : 0;
        options.streams = streams;
        options.threads = threads;
        ltc_batch* made = nullptr;
        check([&](ltc_error* error) { return ltc_batch_create(program.get(), &options, &made, error); });
        handle_.reset(made);
    }

    // Arrays of (streams, steps, shape).
    void run(std::size_t steps, Inputs inputs, Outputs outputs, std::size_t model = 0) {
        check([&](ltc_error* error) {
            return ltc_batch_run(get(), model, steps, inputs.data(), inputs.size(), outputs.data(), outputs.size(), error);
        });
    }
    void reset(std::size_t model = LTC_ALL_MODELS) {
        check([&](ltc_error* error) { return ltc_batch_reset(get(), model, error); });
    }
    void get_state(std::size_t stream, std::size_t state, std::span<float> numbers, std::size_t model = 0) const {
        check([&](ltc_error* error) { return ltc_batch_get_state(get(), model, stream, state, numbers.data(), numbers.size(), error); });
    }
    void set_state(std::size_t stream, std::size_t state, std::span<const float> numbers, std::size_t model = 0) {
        check([&](ltc_error* error) { return ltc_batch_set_state(get(), model, stream, state, numbers.data(), numbers.size(), error); });
    }

    ltc_batch* get() const noexcept { return handle_.get(); }

private:
    std::unique_ptr<ltc_batch, Freed<ltc_batch_free>> handle_;
};

}  // namespace v1
}  // namespace ltc
