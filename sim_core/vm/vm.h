// A program loaded into the simulator with a state of its own: what a host calls. Everything is allocated when it is
// made; from then on nothing here allocates or throws, and a refused call leaves the state as it was.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "kernels/choose.h"
#include "program/program.h"
#include "vm/execute.h"
#include "vm/workers.h"

namespace ltc {

enum class Status : std::uint8_t {
    ok,
    bad_elapsed_time,  // an elapsed time is NaN, infinite or negative; nothing was executed
    interrupted,       // the host stopped it: every stream is as after a whole number of steps
};

class VM {
public:
    // Throws Refusal for plain fp32 of a program without originals, and for kernels that fail their self-test. Of `program`'s
    // weights, synapses and gather patterns it keeps the packed form alone.
    explicit VM(const Program& program, bool bit_accurate = true, const Kernels& kernels = choose_kernels());
    // A copy with as many streams in the same states. The parameters are shared: nobody writes them. Hold a Lease on `other`.
    VM(const VM& other);
    VM& operator=(const VM&) = delete;

    // A VM is for one thread at a time: hold a Lease around every call below. It fails, rather than waits, if another
    // thread holds one. VMs share nothing and may run at once.
    class Lease {
    public:
        explicit Lease(VM& vm) : vm_(vm), held_(!vm.busy_.test_and_set(std::memory_order_acquire)) {}
        ~Lease() {
            if (held_) vm_.busy_.clear(std::memory_order_release);
        }
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        bool held() const { return held_; }

    private:
        VM& vm_;
        bool held_;
    };

    const Program& program() const { return *program_; }
    bool bit_accurate() const { return bit_accurate_; }
    const Kernels& kernels() const { return kernels_; }
    std::size_t arena_bytes() const { return streams_.front()->executable.arena_bytes(); }
    std::size_t parameter_bytes() const { return parameters_->bytes(); }
    std::size_t steps() const { return streams_.front()->executable.steps(); }
    std::size_t streams() const { return streams_.size(); }

    // One inference. Each port has an array of its shape, fp32 in C order; outputs overlap no other array.
    Status run(std::size_t model, const float* const* inputs, float* const* outputs, Interrupt& interrupt) noexcept;

    // The same with `steps` arrays per port, one after the other. Every elapsed time is checked before the first step.
    Status run_timesteps(std::size_t model, std::size_t steps, const float* const* inputs, float* const* outputs,
                         Interrupt& interrupt) noexcept;

    // Makes the streams and threads of a batch; new streams are in the initial state. Allocates, and throws std::bad_alloc or
    // std::system_error, the streams then being those that there were.
    void prepare_batch(std::size_t streams, std::size_t threads);

    // run_timesteps for each of `streams` streams, on the threads that prepare_batch made: the arrays of a port lie one after
    // the other, stream by stream. Stream 0 is the one that the other calls run.
    Status run_batch(std::size_t model, std::size_t streams, std::size_t steps, const float* const* inputs,
                     float* const* outputs, Interrupt& interrupt) noexcept;

    // Steps of a stream that the last run_timesteps or run_batch executed: fewer than asked for if it was interrupted.
    std::size_t steps_done(std::size_t stream) const { return streams_[stream]->steps_done; }

    void reset(std::size_t model) noexcept;  // every stream to the initial state

    // An array of the state's shape; a value set is flushed as every host load is.
    void get_state(std::size_t model, std::size_t state, std::size_t stream, float* out) noexcept;
    void set_state(std::size_t model, std::size_t state, std::size_t stream, const float* in) noexcept;

    // Index of an input whose `steps` arrays hold an elapsed time that is NaN, infinite or negative; inputs.size() if none.
    std::size_t bad_elapsed_time(std::size_t model, std::size_t steps, const float* const* inputs) const noexcept;

private:
    // A state on the arena: `vectors` of `width`, each on row_lanes lanes.
    struct Region {
        // Constant rows of the program that are part of its initial value; what lies between them is zero.
        struct Initial {
            std::size_t at;  // of the region's floats
            std::span<const float> values;
        };
        StatePlace home;
        std::size_t vectors, width, row_lanes;
        std::vector<Initial> initial;
        std::vector<StatePlace> copies;  // the same rows on other cores
        std::vector<float> kept;     // of a model that takes long: the rows before the inference that is under way

        std::size_t floats() const { return vectors * row_lanes; }
        void initialise(float* to) const noexcept;  // over zeros
    };
    // A state of its own, and the memory that one inference works in.
    struct Stream {
        explicit Stream(const VM& vm);
        void run(std::size_t model, std::size_t steps, Watch& watch) noexcept;  // from inputs and outputs, which it moves on
        bool step(std::size_t model, const float* const* from, float* const* to, Watch& watch) noexcept;
        void keep(std::size_t model, bool restore) noexcept;

        const Program& program;
        Executable executable;
        std::vector<std::vector<Region>> regions;  // by model, by state
        std::vector<const float*> inputs;          // of one time step
        std::vector<float*> outputs;
        std::size_t steps_done = 0;
    };
    struct Batch;

    std::shared_ptr<const Program> program_;  // without the stores that parameters_ holds packed
    bool bit_accurate_;
    const Kernels& kernels_;
    static void written(const Region& region) noexcept;  // at home: to the other cores too
    static std::vector<Region::Initial> constants_at(const Program& program, State::Copy place, std::size_t floats);
    static Region region_of(const Program& program, const State& state, Executable& executable);

    std::shared_ptr<const Parameters> parameters_;
    std::vector<std::unique_ptr<Stream>> streams_;
    WorkerPool pool_;
    Workers* workers_ = nullptr;
    std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
};

}  // namespace ltc
