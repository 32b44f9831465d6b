// The host side of a run: what is looked at before the first instruction, the loop over time steps, and the state.
// FlushGuard stands around every execution, because torch or a fast-math library may have set the CPU to flush
// subnormals; the steps are called through pointers, so no arithmetic moves out of it.
#include "vm.h"

#include <algorithm>
#include <utility>

#include "numerics.h"
#include "self_test.h"

namespace ltc {

VM::VM(std::shared_ptr<const Program> program, bool bit_accurate)
    : program_(std::move(program)), bit_accurate_(bit_accurate), kernels_(require_self_test(choose_kernels())),
      executable_(*program_, bit_accurate, kernels_) {
    for (const Model& model : program_->models) {
        inputs_.resize(std::max(inputs_.size(), model.inputs.size()));
        outputs_.resize(std::max(outputs_.size(), model.outputs.size()));
        std::vector<Region>& regions = regions_.emplace_back();
        for (const State& state : model.states) {
            const std::size_t width = state.shape.width();
            Region region{executable_.row(state.core, state.row), state.shape.vectors(), width,
                          program_->machine.rows(width) * program_->machine.block_size, {}};
            region.initial.assign(region.rows, region.rows + region.vectors * region.row_lanes);
            regions.push_back(std::move(region));
        }
    }
}

Status VM::run(std::size_t model, const float* const* inputs, float* const* outputs) noexcept {
    if (bad_elapsed_time(model, 1, inputs) != program_->models[model].inputs.size()) return Status::bad_elapsed_time;
    const FlushGuard guard;
    executable_.run(model, inputs, outputs);
    return Status::ok;
}

Status VM::run_timesteps(std::size_t model, std::size_t steps, const float* const* inputs, float* const* outputs) noexcept {
    const Model& m = program_->models[model];
    if (bad_elapsed_time(model, steps, inputs) != m.inputs.size()) return Status::bad_elapsed_time;
    std::copy_n(inputs, m.inputs.size(), inputs_.begin());
    std::copy_n(outputs, m.outputs.size(), outputs_.begin());
    const FlushGuard guard;
    for (std::size_t t = 0; t < steps; ++t) {
        executable_.run(model, inputs_.data(), outputs_.data());
        for (std::size_t i = 0; i < m.inputs.size(); ++i) inputs_[i] += m.inputs[i].shape.elements();
        for (std::size_t o = 0; o < m.outputs.size(); ++o) outputs_[o] += m.outputs[o].shape.elements();
    }
    return Status::ok;
}

std::size_t VM::bad_elapsed_time(std::size_t model, std::size_t steps, const float* const* inputs) const noexcept {
    const std::vector<Port>& ports = program_->models[model].inputs;
    for (std::size_t i = 0; i < ports.size(); ++i) {
        if (ports[i].role != Role::elapsed_time) continue;
        for (std::size_t n = 0; n < steps * ports[i].shape.elements(); ++n) {
            const std::uint32_t u = bits(inputs[i][n]);  // no comparison of floats: the CPU may be flushing subnormals
            if (u > infinity_bits && u != sign_bit) return i;
        }
    }
    return ports.size();
}

void VM::reset(std::size_t model) noexcept {
    for (Region& region : regions_[model]) std::copy(region.initial.begin(), region.initial.end(), region.rows);
}

void VM::get_state(std::size_t model, std::size_t state, float* out) noexcept {
    const Region& region = regions_[model][state];
    for (std::size_t v = 0; v < region.vectors; ++v)
        std::copy_n(region.rows + v * region.row_lanes, region.width, out + v * region.width);
}

void VM::set_state(std::size_t model, std::size_t state, const float* in) noexcept {
    const Region& region = regions_[model][state];
    for (std::size_t v = 0; v < region.vectors; ++v)
        for (std::size_t l = 0; l < region.row_lanes; ++l)
            region.rows[v * region.row_lanes + l] = l < region.width ? write_fp32(in[v * region.width + l]) : 0.0f;
}

}  // namespace ltc
