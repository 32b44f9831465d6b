// The batches of a VM: streams in groups, whose rows lie side by side and go through the steps together, or one by one.
//
// A thread takes turns of some steps of a group. It loads the states of the streams into rows of its own, so that a stream
// keeps its states and nothing else. A turn of a model that takes long is a single step: one that is stopped in its middle
// is as if it had not begun, for the streams still hold the states that were loaded.
#include <algorithm>
#include <atomic>
#include <fstream>
#include <limits>
#include <new>
#include <string>
#include <thread>

#include "host/refusal.h"
#include "numerics/numerics.h"
#include "vm/keeps_rows.h"
#include "vm/vm.h"

namespace ltc {
namespace {

constexpr std::uint32_t group_sizes[] = {16, 32};
constexpr std::size_t least_grouped = 8;      // streams: fewer run one by one
constexpr std::size_t steps_of_turn = 8;      // so that a thread which is held up holds up no whole sequence
constexpr std::size_t most_state = 1u << 14;  // floats: streams of more keep rows of their own, and copy none of it
constexpr std::size_t most_arena = 1u << 22;  // bytes of a stream's rows, of which a thread holds those of a whole group

// Bytes that this machine can give, as far as it says.
std::size_t free_memory() {
    std::ifstream file("/proc/meminfo");
    for (std::string name; file >> name;) {
        std::size_t kilobytes;
        if (name == "MemAvailable:" && file >> kilobytes) return kilobytes * 1024;
        file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    return std::numeric_limits<std::size_t>::max();
}

[[noreturn]] void refuse_memory(std::size_t streams, std::size_t bytes) {
    throw Refusal(RefusalKind::input,
                  std::to_string(streams) + " new streams take " + std::to_string(bytes) + " bytes, more than there is memory",
                  "run_batch", "give fewer streams at once; those that a VM has had stay as they are");
}

}  // namespace

struct VM::Batch {
    VM& vm;
    Call call;
    std::size_t streams, size, groups, turn;  // size: streams of a group; turn: steps

    static void run_one(void* context, std::size_t item, std::size_t thread, Watch& watch) noexcept {
        const Batch& batch = *static_cast<const Batch*>(context);
        batch.vm.run_stream(batch.call, item, batch.vm.benches_[thread], watch);
    }

    static void run_turn(void* context, std::size_t item, std::size_t thread, Watch& watch) noexcept {
        const Batch& batch = *static_cast<const Batch*>(context);
        const std::size_t group = item % batch.groups, turn = item / batch.groups;
        const std::atomic_ref<std::size_t> done(batch.vm.turns_[group]);
        while (done.load(std::memory_order_acquire) != turn) {  // another thread is at the turn before
            if (watch.raised()) return;
            std::this_thread::yield();
        }
        if (watch.raised()) return;
        batch.run_steps(group, turn * batch.turn, batch.vm.benches_[thread], watch);
        done.store(turn + 1, std::memory_order_release);
    }

private:
    void run_steps(std::size_t group, std::size_t begin, Bench& bench, Watch& watch) const noexcept {
        const std::size_t first = group * size, end = std::min(call.steps, begin + turn);
        const auto active = static_cast<std::uint32_t>(std::min(size, streams - first));
        Runner& runner = *bench.groups[*vm.group_];
        const FlushGuard guard;
        for (std::uint32_t n = 0; n < active; ++n) {
            Stream& stream = *vm.streams_[first + n];
            if (stream.own != nullptr) stream.own->save(call.model, 0, stream.kept.data());
            runner.load(call.model, n, stream.kept.data());
        }
        runner.loaded(call.model);
        vm.point(bench, call, first, begin);
        std::size_t step = begin;
        for (; step < end && !watch.poll(); ++step) {
            if (!runner.step_of_group(call.model, bench.inputs.data(), bench.outputs.data(), active, call.steps, watch)) return;
            vm.advance(bench, call.model);
        }
        for (std::uint32_t n = 0; n < active; ++n) {
            Stream& stream = *vm.streams_[first + n];
            runner.save(call.model, n, stream.kept.data());
            if (stream.own != nullptr) stream.own->load(call.model, 0, stream.kept.data()), stream.own->loaded(call.model);
            stream.steps_done = step;
        }
    }
};

// Which size a group has that so many streams make, if they make any: two groups for each thread keep all of them at work.
std::optional<std::size_t> VM::group_of(std::size_t streams, std::size_t threads) const {
    if (!groups_ || streams < least_grouped) return {};
    return streams >= 2 * group_sizes[1] * threads ? 1 : 0;
}

std::uint32_t VM::group() const { return group_.has_value() ? group_sizes[*group_] : 1; }

void VM::prepare_batch(std::size_t streams, std::size_t threads) {
    if (streams > 1 && !own_rows_.has_value()) {
        own_rows_ = states_.floats() > most_state || keeps_rows(*program_, *parameters_);
        groups_ = !*own_rows_ && arena_bytes() <= most_arena && Executable::can_group(*program_, kernels_);
    }
    const bool of_its_own = own_rows_.value_or(false);
    if (streams > streams_.size()) {
        const std::size_t fresh = streams - streams_.size();
        const std::size_t bytes = fresh * (states_.floats() * sizeof(float) + sizeof(Stream) + (of_its_own ? arena_bytes() : 0));
        if (!of_its_own && bytes > limits::spare && bytes > free_memory()) refuse_memory(fresh, bytes);
        try {
            std::vector<std::unique_ptr<Stream>> made;
            while (made.size() < fresh) made.push_back(stream(of_its_own));
            streams_.reserve(streams);
            std::ranges::move(made, std::back_inserter(streams_));
        } catch (const std::bad_alloc&) {
            refuse_memory(fresh, bytes);
        }
    }
    const std::optional<std::size_t> group = group_of(streams, threads);
    while (benches_.size() < threads) benches_.push_back(bench());
    for (std::size_t n = 0; n < threads; ++n) {
        Bench& bench = benches_[n];
        if (group.has_value()) {
            if (bench.groups[*group] == nullptr) bench.groups[*group] = runner(group_sizes[*group]);
        } else if (streams > 1 && !of_its_own && bench.single == nullptr) {
            bench.single = runner(1);
        }
    }
    if (group.has_value()) {
        turns_.resize(std::max(turns_.size(), streams / group_sizes[*group] + 1));
        for (std::size_t n = 0; n < streams; ++n) streams_[n]->kept.resize(states_.floats());  // for the one with rows of its own
    }
    workers_ = threads > 1 ? &pool_.of(threads) : nullptr;
    group_ = group;
}

Status VM::run_batch(std::size_t model, std::size_t streams, std::size_t steps, const float* const* inputs,
                     float* const* outputs, Interrupt& interrupt) noexcept {
    if (bad_elapsed_time(model, streams * steps, inputs) != program_->models[model].inputs.size())
        return Status::bad_elapsed_time;
    for (std::size_t n = 0; n < streams; ++n) streams_[n]->steps_done = 0;
    Batch batch{*this, {model, steps, inputs, outputs}, streams, 1, streams, steps};
    std::size_t items = streams;
    if (group_.has_value()) {
        batch.size = group_sizes[*group_];
        batch.groups = (streams + batch.size - 1) / batch.size;
        batch.turn = benches_.front().groups[*group_]->executable().takes_long(model) ? 1 : steps_of_turn;
        items = batch.groups * ((steps + batch.turn - 1) / batch.turn);
        std::ranges::fill(turns_, std::size_t{0});
    }
    const Workers::Task task = group_.has_value() ? &Batch::run_turn : &Batch::run_one;
    if (workers_ != nullptr) {
        workers_->run(items, task, &batch, interrupt);
    } else {
        Watch watch(interrupt, true);
        for (std::size_t item = 0; item < items; ++item) task(&batch, item, 0, watch);
    }
    return interrupt.raised() ? Status::interrupted : Status::ok;
}

}  // namespace ltc
