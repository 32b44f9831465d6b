// The host side of a run: what is checked before the first instruction, the loop over time steps, and the state.
// FlushGuard stands around every execution, because torch or a fast-math library may have set the CPU to flush
// subnormals; the steps are called through pointers, so no arithmetic moves out of it.
#include "vm/vm.h"

#include <algorithm>
#include <utility>

#include "numerics/numerics.h"
#include "vm/self_test.h"

namespace ltc {

namespace {

// What a run needs of a program whose parameters are packed: in plain fp32, the originals of its constant rows.
std::shared_ptr<const Program> without_parameters(const Program& program, bool bit_accurate) {
    auto out = std::make_shared<Program>();
    out->machine = program.machine;
    out->code = program.code;
    out->models = program.models;
    out->fifo_rows = program.fifo_rows;
    out->has_shadow = program.has_shadow;
    for (const Core& core : program.cores) {
        Core& kept = out->cores.emplace_back();
        kept.tensor_rows = core.tensor_rows;
        kept.weight_blocks = core.weight_blocks;
        kept.synapse_slots = core.synapse_slots;
        kept.gather_entries = core.gather_entries;
        kept.slots.run = core.slots.run;  // how much a synapse does
        for (const ConstantRange& range : core.constants)
            kept.constants.push_back({range.row, range.rows, bit_accurate ? range.data : range.original, {}});
    }
    return out;
}

}  // namespace

VM::VM(const Program& program, bool bit_accurate, const Kernels& kernels)
    : program_(without_parameters(program, bit_accurate)), bit_accurate_(bit_accurate), kernels_(require_self_test(kernels)),
      parameters_(std::make_shared<const Parameters>(program, bit_accurate, kernels_)) {
    streams_.push_back(std::make_unique<Stream>(*this));
}

VM::VM(const VM& other)
    : program_(other.program_), bit_accurate_(other.bit_accurate_), kernels_(other.kernels_), parameters_(other.parameters_) {
    for (const auto& theirs : other.streams_) {
        Stream& mine = *streams_.emplace_back(std::make_unique<Stream>(*this));
        for (std::size_t model = 0; model < mine.regions.size(); ++model)
            for (std::size_t state = 0; state < mine.regions[model].size(); ++state) {
                const Region& region = mine.regions[model][state];
                std::copy_n(theirs->regions[model][state].home.now(), region.floats(), region.home.now());
                written(region);
            }
    }
}

VM::Stream::Stream(const VM& vm)
    : program(*vm.program_), executable(vm.program_, vm.parameters_, vm.bit_accurate_, vm.kernels_) {
    for (const Model& model : program.models) {
        inputs.resize(std::max(inputs.size(), model.inputs.size()));
        outputs.resize(std::max(outputs.size(), model.outputs.size()));
        std::vector<Region>& of_model = regions.emplace_back();
        for (const State& state : model.states) {
            Region& region = of_model.emplace_back(region_of(program, state, executable));
            if (executable.takes_long(regions.size() - 1)) region.kept.resize(region.floats());
            for (std::size_t c = 0; c < region.copies.size(); ++c) {
                for (const Region::Initial& part : constants_at(program, state.copies[c], region.floats()))
                    std::fill_n(region.copies[c].rows + part.at, part.values.size(), 0.0f);
                region.initialise(region.copies[c].rows);
                region.copies[c].written(region.floats());
            }
        }
    }
}

VM::Region VM::region_of(const Program& program, const State& state, Executable& executable) {
    const std::size_t width = state.shape.width(), row_lanes = program.machine.rows(width) * program.machine.block_size;
    Region region{executable.state(state.core, state.row), state.shape.vectors(), width, row_lanes, {}, {}, {}};
    region.initial = constants_at(program, {state.core, state.row}, region.floats());
    for (const State::Copy& c : state.copies) region.copies.push_back(executable.state(c.core, c.row));
    return region;
}

// The constant rows of a core that lie among so many floats from a row on.
std::vector<VM::Region::Initial> VM::constants_at(const Program& program, State::Copy place, std::size_t floats) {
    const std::size_t B = program.machine.block_size, begin = place.row, end = begin + floats / B;
    std::vector<Region::Initial> found;
    for (const ConstantRange& range : program.cores[place.core].constants) {
        const std::size_t first = std::max<std::size_t>(begin, range.row), last = std::min<std::size_t>(end, range.row + range.rows);
        if (first < last)
            found.push_back({(first - begin) * B, std::span(range.data).subspan((first - range.row) * B, (last - first) * B)});
    }
    return found;
}

void VM::Region::initialise(float* to) const noexcept {
    for (const Initial& part : initial) std::copy(part.values.begin(), part.values.end(), to + part.at);
}

// One inference; false, with the state as before, if the watch stopped it.
bool VM::Stream::step(std::size_t model, const float* const* from, float* const* to, Watch& watch) noexcept {
    const bool long_one = executable.takes_long(model);
    if (long_one) keep(model, false);
    if (executable.run(model, from, to, &watch)) return true;
    if (long_one) keep(model, true);
    return false;
}

// Keeps the state of a model, or restores it.
void VM::Stream::keep(std::size_t model, bool restore) noexcept {
    for (Region& region : regions[model])
        if (restore) {
            std::copy_n(region.kept.data(), region.floats(), region.home.now());
            written(region);
        } else {
            std::copy_n(region.home.now(), region.floats(), region.kept.data());
        }
}

void VM::Stream::run(std::size_t model, std::size_t steps, Watch& watch) noexcept {
    const Model& m = program.models[model];
    const FlushGuard guard;
    steps_done = 0;
    if (watch.raised()) return;
    for (; steps_done < steps; ++steps_done) {
        if (watch.poll() || !step(model, inputs.data(), outputs.data(), watch)) return;
        for (std::size_t i = 0; i < m.inputs.size(); ++i) inputs[i] += m.inputs[i].shape.elements();
        for (std::size_t o = 0; o < m.outputs.size(); ++o) outputs[o] += m.outputs[o].shape.elements();
    }
}

Status VM::run(std::size_t model, const float* const* inputs, float* const* outputs, Interrupt& interrupt) noexcept {
    if (bad_elapsed_time(model, 1, inputs) != program_->models[model].inputs.size()) return Status::bad_elapsed_time;
    const FlushGuard guard;
    Watch watch(interrupt, true);
    return streams_.front()->step(model, inputs, outputs, watch) ? Status::ok : Status::interrupted;
}

Status VM::run_timesteps(std::size_t model, std::size_t steps, const float* const* inputs, float* const* outputs,
                         Interrupt& interrupt) noexcept {
    const Model& m = program_->models[model];
    if (bad_elapsed_time(model, steps, inputs) != m.inputs.size()) return Status::bad_elapsed_time;
    Stream& stream = *streams_.front();
    std::copy_n(inputs, m.inputs.size(), stream.inputs.begin());
    std::copy_n(outputs, m.outputs.size(), stream.outputs.begin());
    Watch watch(interrupt, true);
    stream.run(model, steps, watch);
    return interrupt.raised() ? Status::interrupted : Status::ok;
}

void VM::prepare_batch(std::size_t streams, std::size_t threads) {
    workers_ = nullptr;
    streams_.reserve(streams);
    while (streams_.size() < streams) streams_.push_back(std::make_unique<Stream>(*this));
    if (threads > 1) workers_ = &pool_.of(threads);
}

struct VM::Batch {
    VM& vm;
    std::size_t model, steps;
    const float* const* inputs;
    float* const* outputs;

    static void run(void* context, std::size_t item, Watch& watch) noexcept {
        const Batch& batch = *static_cast<const Batch*>(context);
        Stream& stream = *batch.vm.streams_[item];
        const Model& m = stream.program.models[batch.model];
        for (std::size_t i = 0; i < m.inputs.size(); ++i)
            stream.inputs[i] = batch.inputs[i] + item * batch.steps * m.inputs[i].shape.elements();
        for (std::size_t o = 0; o < m.outputs.size(); ++o)
            stream.outputs[o] = batch.outputs[o] + item * batch.steps * m.outputs[o].shape.elements();
        stream.run(batch.model, batch.steps, watch);
    }
};

Status VM::run_batch(std::size_t model, std::size_t streams, std::size_t steps, const float* const* inputs,
                     float* const* outputs, Interrupt& interrupt) noexcept {
    if (bad_elapsed_time(model, streams * steps, inputs) != program_->models[model].inputs.size())
        return Status::bad_elapsed_time;
    Batch batch{*this, model, steps, inputs, outputs};
    if (workers_ != nullptr) {
        workers_->run(streams, &Batch::run, &batch, interrupt);
    } else {
        Watch watch(interrupt, true);
        for (std::size_t item = 0; item < streams; ++item) Batch::run(&batch, item, watch);
    }
    return interrupt.raised() ? Status::interrupted : Status::ok;
}

std::size_t VM::bad_elapsed_time(std::size_t model, std::size_t steps, const float* const* inputs) const noexcept {
    const std::vector<Port>& ports = program_->models[model].inputs;
    for (std::size_t i = 0; i < ports.size(); ++i) {
        if (ports[i].role != Role::elapsed_time) continue;
        for (std::size_t n = 0; n < steps * ports[i].shape.elements(); ++n) {
            const std::uint32_t u = bits(inputs[i][n]);  // no comparison of floats: the CPU may be flushing subnormals
            if (u >= infinity_bits && u != sign_bit) return i;
        }
    }
    return ports.size();
}

void VM::reset(std::size_t model) noexcept {
    for (const auto& stream : streams_)
        for (Region& region : stream->regions[model]) {
            std::fill_n(region.home.now(), region.floats(), 0.0f);
            region.initialise(region.home.now());
            written(region);
        }
}

void VM::written(const Region& region) noexcept {
    region.home.written(region.floats());
    for (const StatePlace& place : region.copies) {
        std::copy_n(region.home.now(), region.floats(), place.now());
        place.written(region.floats());
    }
}

void VM::get_state(std::size_t model, std::size_t state, std::size_t stream, float* out) noexcept {
    const Region& region = streams_[stream]->regions[model][state];
    for (std::size_t v = 0; v < region.vectors; ++v)
        std::copy_n(region.home.now() + v * region.row_lanes, region.width, out + v * region.width);
}

void VM::set_state(std::size_t model, std::size_t state, std::size_t stream, const float* in) noexcept {
    const Region& region = streams_[stream]->regions[model][state];
    for (std::size_t v = 0; v < region.vectors; ++v)
        for (std::size_t l = 0; l < region.row_lanes; ++l)
            region.home.now()[v * region.row_lanes + l] = l < region.width ? write_fp32(in[v * region.width + l]) : 0.0f;
    written(region);
}

}  // namespace ltc
