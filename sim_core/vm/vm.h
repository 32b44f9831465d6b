// A program loaded into the simulator with a state of its own: what a host calls. Everything is allocated when it is
// made; from then on nothing here allocates or throws, and a refused call leaves the state as it was.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/choose.h"
#include "program/program.h"
#include "vm/runner.h"
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
    std::size_t arena_bytes() const { return streams_.front()->own->executable().arena_bytes(); }
    std::size_t parameter_bytes() const { return parameters_->bytes(); }
    std::size_t steps() const { return streams_.front()->own->executable().steps(); }
    std::size_t streams() const { return streams_.size(); }
    std::uint32_t group() const;  // streams that the last batch ran together; 1: one by one

    // One inference. Each port has an array of its shape, fp32 in C order; outputs overlap no other array.
    Status run(std::size_t model, const float* const* inputs, float* const* outputs, Interrupt& interrupt) noexcept;

    // The same with `steps` arrays per port, one after the other. Every elapsed time is checked before the first step.
    Status run_timesteps(std::size_t model, std::size_t steps, const float* const* inputs, float* const* outputs,
                         Interrupt& interrupt) noexcept;

    // Makes the streams and threads of a batch; new streams are in the initial state. Allocates, and throws Refusal where the
    // memory does not hold them, std::bad_alloc or std::system_error: the streams are then those that there were.
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
    struct Stream {
        std::unique_ptr<Runner> own;  // holds its states; null: `kept` does
        std::vector<float> kept;
        std::size_t steps_done = 0;
    };
    // What a call hands to its threads.
    struct Call {
        std::size_t model, steps;
        const float* const* inputs;
        float* const* outputs;
    };
    // What a thread works with.
    struct Bench {
        std::unique_ptr<Runner> single;
        std::unique_ptr<Runner> groups[2];  // by size
        std::vector<const float*> inputs;   // of one time step
        std::vector<float*> outputs;
    };
    struct Batch;

    std::unique_ptr<Runner> runner(std::uint32_t streams) const;
    std::unique_ptr<Stream> stream(bool of_its_own) const;  // in the initial state
    Bench bench() const;
    static float* rows(Stream& stream, const StateRegion& region) noexcept;
    // The arrays of a bench are those of a stream from a step on, or those of the step after.
    void point(Bench& bench, const Call& call, std::size_t stream, std::size_t step) const noexcept;
    void advance(Bench& bench, std::size_t model) const noexcept;
    void run_stream(const Call& call, std::size_t n, Bench& bench, Watch& watch) noexcept;
    std::optional<std::size_t> group_of(std::size_t streams, std::size_t threads) const;

    std::shared_ptr<const Program> program_;  // without the stores that parameters_ holds packed
    bool bit_accurate_;
    const Kernels& kernels_;
    States states_;
    std::shared_ptr<const Parameters> parameters_;
    std::vector<std::unique_ptr<Stream>> streams_;
    std::vector<Bench> benches_;         // by thread
    std::optional<bool> own_rows_;       // whether a stream needs them; not yet looked at while there is one stream
    bool groups_ = false;                // whether a batch may run in groups
    std::optional<std::size_t> group_;   // of the batch that is prepared: an index of Bench::groups
    std::vector<std::size_t> turns_;     // that each of its groups has done; read and written as atomic
    WorkerPool pool_;
    Workers* workers_ = nullptr;
    std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
};

}  // namespace ltc
