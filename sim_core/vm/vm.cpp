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
      states_(*program_), parameters_(std::make_shared<const Parameters>(program, bit_accurate, kernels_)) {
    streams_.push_back(stream(true));
    benches_.push_back(bench());
}

VM::VM(const VM& other)
    : program_(other.program_), bit_accurate_(other.bit_accurate_), kernels_(other.kernels_), states_(*program_),
      parameters_(other.parameters_), own_rows_(other.own_rows_), groups_(other.groups_) {
    for (const auto& theirs : other.streams_) {
        Stream& mine = *streams_.emplace_back(stream(theirs->own != nullptr));
        mine.kept = theirs->kept;
        if (theirs->own == nullptr) continue;
        mine.kept.resize(states_.floats());
        for (std::size_t model = 0; model < states_.models(); ++model) {
            theirs->own->save(model, 0, mine.kept.data());
            mine.own->load(model, 0, mine.kept.data());
            mine.own->loaded(model);
        }
    }
    benches_.push_back(bench());
}

std::unique_ptr<Runner> VM::runner(std::uint32_t streams) const {
    return std::make_unique<Runner>(program_, parameters_, bit_accurate_, kernels_, states_, streams);
}

std::unique_ptr<VM::Stream> VM::stream(bool of_its_own) const {
    auto made = std::make_unique<Stream>();
    if (!of_its_own) made->kept.resize(states_.floats());
    else made->own = runner(1);
    for (std::size_t model = 0; model < states_.models(); ++model)
        for (const StateRegion& region : states_.of(model)) {
            if (region.initial.empty() && region.copies.empty()) continue;  // zero as it was made, and memory untouched
            region.initialise(rows(*made, region));
            if (of_its_own) made->own->changed(region);
        }
    return made;
}

VM::Bench VM::bench() const {
    Bench made;
    for (const Model& model : program_->models) {
        made.inputs.resize(std::max(made.inputs.size(), model.inputs.size()));
        made.outputs.resize(std::max(made.outputs.size(), model.outputs.size()));
    }
    return made;
}

void VM::point(Bench& bench, const Call& call, std::size_t stream, std::size_t step) const noexcept {
    const Model& m = program_->models[call.model];
    const std::size_t arrays = stream * call.steps + step;
    for (std::size_t i = 0; i < m.inputs.size(); ++i) bench.inputs[i] = call.inputs[i] + arrays * m.inputs[i].shape.elements();
    for (std::size_t o = 0; o < m.outputs.size(); ++o) bench.outputs[o] = call.outputs[o] + arrays * m.outputs[o].shape.elements();
}

void VM::advance(Bench& bench, std::size_t model) const noexcept {
    const Model& m = program_->models[model];
    for (std::size_t i = 0; i < m.inputs.size(); ++i) bench.inputs[i] += m.inputs[i].shape.elements();
    for (std::size_t o = 0; o < m.outputs.size(); ++o) bench.outputs[o] += m.outputs[o].shape.elements();
}

void VM::run_stream(const Call& call, std::size_t n, Bench& bench, Watch& watch) noexcept {
    Stream& stream = *streams_[n];
    Runner& runner = stream.own != nullptr ? *stream.own : *bench.single;
    const FlushGuard guard;
    stream.steps_done = 0;
    if (watch.raised()) return;
    if (stream.own == nullptr) runner.load(call.model, 0, stream.kept.data()), runner.loaded(call.model);
    point(bench, call, n, 0);
    for (; stream.steps_done < call.steps; ++stream.steps_done) {
        if (watch.poll() || !runner.step(call.model, bench.inputs.data(), bench.outputs.data(), watch)) break;
        advance(bench, call.model);
    }
    if (stream.own == nullptr) runner.save(call.model, 0, stream.kept.data());
}

float* VM::rows(Stream& stream, const StateRegion& region) noexcept {
    return stream.own != nullptr ? stream.own->rows(region) : stream.kept.data() + region.first;
}

Status VM::run(std::size_t model, const float* const* inputs, float* const* outputs, Interrupt& interrupt) noexcept {
    if (bad_elapsed_time(model, 1, inputs) != program_->models[model].inputs.size()) return Status::bad_elapsed_time;
    const FlushGuard guard;
    Watch watch(interrupt, true);
    return streams_.front()->own->step(model, inputs, outputs, watch) ? Status::ok : Status::interrupted;
}

Status VM::run_timesteps(std::size_t model, std::size_t steps, const float* const* inputs, float* const* outputs,
                         Interrupt& interrupt) noexcept {
    if (bad_elapsed_time(model, steps, inputs) != program_->models[model].inputs.size()) return Status::bad_elapsed_time;
    Watch watch(interrupt, true);
    run_stream({model, steps, inputs, outputs}, 0, benches_.front(), watch);
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
        for (const StateRegion& region : states_.of(model)) {
            region.initialise(rows(*stream, region));
            if (stream->own != nullptr) stream->own->changed(region);
        }
}

void VM::get_state(std::size_t model, std::size_t state, std::size_t stream, float* out) noexcept {
    const StateRegion& region = states_.of(model)[state];
    const float* from = rows(*streams_[stream], region);
    for (std::size_t v = 0; v < region.vectors; ++v) std::copy_n(from + v * region.row_lanes, region.width, out + v * region.width);
}

void VM::set_state(std::size_t model, std::size_t state, std::size_t stream, const float* in) noexcept {
    const StateRegion& region = states_.of(model)[state];
    float* to = rows(*streams_[stream], region);
    for (std::size_t v = 0; v < region.vectors; ++v)
        for (std::size_t l = 0; l < region.row_lanes; ++l)
            to[v * region.row_lanes + l] = l < region.width ? write_fp32(in[v * region.width + l]) : 0.0f;
    if (streams_[stream]->own != nullptr) streams_[stream]->own->changed(region);
}

}  // namespace ltc
