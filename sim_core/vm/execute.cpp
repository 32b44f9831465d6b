// Builds an Executable: lays out and fills the arena, and lowers instructions to steps.
#include "vm/execute.h"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "numerics/numerics.h"
#include "program/work.h"
#include "vm/direct_links.h"
#include "vm/fuse.h"
#include "vm/poll_points.h"

namespace ltc {
namespace {

using isa::Opcode;

std::uint32_t pairs_of_group(std::size_t words, std::size_t targets) {
    return words == 0 ? 0 : static_cast<std::uint32_t>((words - targets) / group_pair_words);
}

}  // namespace

Executable::Executable(std::shared_ptr<const Program> program, std::shared_ptr<const Parameters> parameters, bool bit_accurate,
                       const Kernels& kernels, std::uint32_t streams)
    : program_(std::move(program)), parameters_(std::move(parameters)), kernels_(kernels), bit_accurate_(bit_accurate),
      B_(program_->machine.block_size), streams_(streams), row_(B_ * streams), rings_(*program_, row_), iterations_{1} {
    if (streams == 1) narrow_.emplace(*program_, *parameters_, kernels.lanes);
    std::size_t scratch = 1;
    for (const Model& model : program_->models)
        for (std::uint32_t at = model.code_begin; at < model.code_end; ++at)
            scratch = std::max(scratch, scratch_words(program_->code[at]));
    Pieces counted(nullptr);
    lay_out(counted, scratch);
    arena_ = std::make_unique<Block>(counted.used() + 2 * Pieces::line);  // kernels may read a vector past the last row
    Pieces pieces(arena_->data());
    lay_out(pieces, scratch);
    for (std::size_t core = 0; core < program_->cores.size(); ++core)
        for (const ConstantRange& range : program_->cores[core].constants)
            for (std::size_t at = 0; at < range.data.size(); at += B_)
                for (std::size_t stream = 0; stream < streams_; ++stream)
                    std::copy_n(range.data.data() + at, B_, rows_[core] + range.row * row_ + at * streams_ + stream * B_);
    rings_.fill(rows_);
    for (const Model& model : program_->models) {
        const Work work = work_of(*program_, model);
        takes_long_.push_back(times(std::max(work.beats, work.instructions), streams_) > short_beats);
        build(model, takes_long_.back());
    }
    for (const auto& [end, body] : std::exchange(bodies_, {})) steps_[end].loop.body = &steps_[body];
    rings_.bind(steps_);
}

bool Executable::run(std::size_t model, const float* const* inputs, float* const* outputs, Watch* watch,
                     const StreamGroup* group) noexcept {
    Frame frame{{}, inputs, outputs, watch, false, group};
    for (const Step* step = &steps_[entry_[model]]; step != nullptr;) step = step->run(frame, step);
    if (!frame.stopped) {
        rings_.turn(model);
        return true;
    }
    for (Fifo* fifo : fifos_)
        if (fifo != nullptr) fifo->count = 0;
    return false;
}

bool Executable::can_group(const Program& program, const Kernels& kernels) {
    return std::ranges::all_of(program.code, [&](const Instruction& i) {
        return kernels.group_handler(i.opcode, isa::Precision::fp32, program.machine.block_size) != nullptr;
    });
}

// ---- memory ----------------------------------------------------------------------------------------------------------

// What the handler of an instruction writes to while it runs.
std::size_t Executable::scratch_words(const Instruction& i) const {
    switch (i.info().format) {
        case isa::Format::Matmul:
            return std::size_t{2} * std::max(max_vectors, streams_) * padded_pairs(input_lanes(i, B_)) + scratch_spare;
        case isa::Format::Synapse: {
            const auto op = i.as<isa::Synapse>();
            const std::size_t one = scratch_zeros + 2 * std::max<std::size_t>(64, op.v_rows * B_);
            if (streams_ == 1) return one;
            const std::uint32_t pairs = pairs_of_group(parameters_->synapses_of_group(i).size(), op.targets * B_);
            return std::max((op.v_rows * B_ + pairs) * kernels_.lanes + pairs, one + (op.v_rows + 2 * op.targets) * B_ + 3 * scratch_spare);
        }
        case isa::Format::Dot: return (i.as<isa::Dot>().n_j + B_ - 1) / B_ * B_ * i.as<isa::Dot>().k;
        case isa::Format::RowReduce: return streams_ == 1 ? 0 : std::size_t{i.as<isa::RowReduce>().k} + B_ + scratch_spare;
        default: return 0;
    }
}

void Executable::lay_out(Pieces& pieces, std::size_t scratch) {
    rows_.clear(), fifos_.clear();
    scratch_ = pieces.take<std::uint32_t>(scratch);
    for (const Core& core : program_->cores) rows_.push_back(pieces.take<float>(core.tensor_rows * row_));
    rings_.lay_out(pieces);
    for (const std::uint32_t rows : program_->fifo_rows) {
        if (rows == 0) {
            fifos_.push_back(nullptr);
            continue;
        }
        fifos_.push_back(pieces.take<Fifo>(1));
        float* data = pieces.take<float>(rows * row_);
        if (arena_ != nullptr) *fifos_.back() = {data, rows, 0, 0};
    }
}

// ---- steps -----------------------------------------------------------------------------------------------------------

Address Executable::address(std::uint32_t core, isa::Row row) const {
    float* ring = rings_.row(core, row.base);
    return {ring != nullptr ? ring : rows_[core] + row.base * row_, row.stride * static_cast<std::ptrdiff_t>(row_), row.level};
}

// The step from row to row of an operand along a dimension of its rows, as its format has them, in floats; 0 where it is
// never taken, and may be any number.
std::ptrdiff_t Executable::along(const Instruction& i, std::size_t access, std::size_t dimension) const {
    const isa::ExtentInfo& extent = i.format().accesses[access].extents[dimension];
    const std::int32_t step = extent.step_word < 0 ? extent.step : i.step(static_cast<std::size_t>(extent.step_word));
    return i.operands[extent.count_word] == 1 ? 0 : step * static_cast<std::ptrdiff_t>(row_);
}

isa::Precision Executable::precision(std::uint32_t field) const {
    return bit_accurate_ ? static_cast<isa::Precision>(field) : isa::Precision::fp32;
}

void Executable::build(const Model& model, bool takes_long) {
    entry_.push_back(steps_.size());
    const DirectLinks links = find_direct_links(*program_, model);
    std::vector<std::size_t> loops;
    std::vector<Copy> copies;
    PollPoints polls(takes_long);
    for (std::uint32_t n = model.code_begin; n < model.code_end; ++n) {
        const Instruction& i = program_->code[n];
        if (i.opcode == Opcode::send) {
            const auto op = i.as<isa::Send>();
            for (std::uint32_t target = 0; target < program_->machine.cores; ++target) {
                if ((links.targets[n - model.code_begin] >> target & 1) == 0) continue;
                Step step = step_of(i, model);
                step.link = link(op.src, i.core, op.rows, i.core, target);
                append(step, isa::Format::Send, op.rows, polls);
            }
            continue;
        }
        const std::uint32_t sender = links.sender[n - model.code_begin];
        if (sender != DirectLinks::none) {
            copies.push_back({steps_.size(), program_->code[sender].core, i.core});
            append(copy(program_->code[sender], i), isa::Format::Unary, i.as<isa::Receive>().rows, polls);
            continue;
        }
        if (i.opcode == Opcode::loop) {
            steps_.push_back(step_of(i, model));
            loops.push_back(steps_.size());
            iterations_.push_back(i.as<isa::Loop>().count);
            polls.enter();
        } else if (i.opcode == Opcode::end) {
            const std::uint32_t iterations = program_->code[i.match].as<isa::Loop>().count;
            const std::size_t body = loops.back();
            loops.pop_back();
            iterations_.pop_back();
            if (unroll_copies(body, i.depth + 1, iterations, copies)) {
                if (polls.after_unrolled(iterations)) steps_.push_back(poll_step());
                continue;
            }
            if (polls.before_end(iterations)) steps_.push_back(poll_step());
            bodies_.emplace_back(steps_.size(), body);
            steps_.push_back(step_of(i, model));
        } else {
            const std::uint64_t beats = beats_of(*program_, i);
            for (const Step& piece : takes_long ? pieces_of(step_of(i, model), i, beats) : std::vector{step_of(i, model)})
                append(piece, i.info().format, std::min(beats, beats_at_once), polls);
            if (i.opcode == Opcode::state_write) rings_.append_mirror(steps_, i.as<isa::Unary>(), address(i.core, i.as<isa::Unary>().dst));
        }
    }
    Step stop{};
    stop.run = kernels_.stop;
    steps_.push_back(stop);
    if (streams_ == 1) fuse(std::span(steps_).subspan(entry_.back()), kernels_, static_cast<std::uint32_t>(B_));
}

void Executable::append(const Step& step, isa::Format format, std::uint64_t beats, PollPoints& polls) {
    steps_.push_back(step);
    rings_.follow(steps_.size() - 1, steps_.back(), format);
    if (polls.after(beats)) steps_.push_back(poll_step());
}

// The rows of a send as its receive takes them where no FIFO is needed.
Step Executable::copy(const Instruction& send, const Instruction& receive) const {
    const auto from = send.as<isa::Send>();
    Step step{};
    step.grid.at[0] = address(receive.core, receive.as<isa::Receive>().dst);
    step.grid.at[1] = address(send.core, from.src);
    step.grid.n_outer = step.grid.n_inner = 1;
    step.grid.lanes = static_cast<std::uint32_t>(from.rows * row_);
    step.run = kernels_.handler(Opcode::move, isa::Precision::fp32, static_cast<std::uint32_t>(B_));
    return step;
}

// Replaces a loop of nothing but copies by those copies, each over all iterations at once. Returns false, with nothing
// changed, for any other body, and if one copy could touch what another reads or writes.
bool Executable::unroll_copies(std::size_t body, std::uint32_t level, std::uint32_t count, std::vector<Copy>& copies) {
    const std::size_t n = steps_.size() - body;
    if (n == 0 || count > limits::store || copies.size() < n || copies[copies.size() - n].step != body) return false;
    for (std::size_t a = copies.size() - n; a < copies.size(); ++a) {
        if (steps_[copies[a].step].grid.n_outer != 1 || copies[a].source != copies.back().source) return false;
        for (std::size_t b = a + 1; b < copies.size(); ++b)
            if (copies[a].target == copies[b].target) return false;
    }
    steps_.erase(steps_.begin() + static_cast<std::ptrdiff_t>(body) - 1);
    rings_.erased(body - 1);
    for (std::size_t a = copies.size() - n; a < copies.size(); ++a) {
        GridStep& grid = steps_[--copies[a].step].grid;
        grid.n_outer = count;
        for (int operand = 0; operand < 2; ++operand)
            grid.outer[operand] = grid.at[operand].level == level ? std::exchange(grid.at[operand].stride, 0) : 0;
    }
    return true;
}

Step Executable::step_of(const Instruction& i, const Model& model) {
    Step step{};
    Opcode opcode = i.opcode;
    isa::Precision result = isa::Precision::fp32;
    const isa::FormatInfo& format = i.format();
    for (std::size_t f = 0; f < format.n_fields; ++f)
        if (format.fields[f].kind == isa::FieldKind::precision) result = precision(i.operands[format.fields[f].word]);
    const auto lanes = static_cast<std::uint32_t>(B_), row = static_cast<std::uint32_t>(row_);
    switch (i.info().format) {
        case isa::Format::Unary:
        case isa::Format::Binary:
        case isa::Format::Ternary:
        case isa::Format::Splat: step.grid = grid(i); break;
        case isa::Format::RowReduce: {
            const auto op = i.as<isa::RowReduce>();
            step.row_reduce = {address(i.core, op.dst), address(i.core, op.src), along(i, 0, 0),
                               along(i, 1, 0), op.groups, op.k, lanes};
            break;
        }
        case isa::Format::ColumnReduce: {
            const auto op = i.as<isa::ColumnReduce>();
            step.column_reduce = {address(i.core, op.dst), address(i.core, op.src), along(i, 1, 0), op.k, op.n_inner, row};
            break;
        }
        case isa::Format::WeightedSum: step.product = product(i); break;
        case isa::Format::Dot: step.product = dot(i); break;
        case isa::Format::Matmul:
            step.matmul = matmul(i);
            if (!bit_accurate_) opcode = Opcode::matmul_fp32;
            break;
        case isa::Format::Synapse: step.synapse = synapse(i); break;
        case isa::Format::Update: step.update = update(i); break;
        case isa::Format::Gather: {
            const auto op = i.as<isa::Gather>();
            step.gather = {address(i.core, op.dst), address(i.core, op.src), parameters_->entries(i.core) + op.entries * (2 + B_), op.count, lanes};
            break;
        }
        case isa::Format::Transpose: {
            const auto op = i.as<isa::Transpose>();
            step.transpose = {address(i.core, op.dst), address(i.core, op.src), along(i, 0, 0),
                              along(i, 1, 0), op.dst_rows, op.src_rows, lanes};
            break;
        }
        case isa::Format::Send: break;  // one step for each target: see build
        case isa::Format::Receive: {
            const auto op = i.as<isa::Receive>();
            step.link = link(op.dst, i.core, op.rows, op.source, i.core);
            break;
        }
        case isa::Format::Input: {
            const auto op = i.as<isa::Input>();
            step.port = port(i, op.dst, {op.port, op.first, op.rows}, model.inputs);
            result = precision(static_cast<std::uint32_t>(model.inputs[op.port].precision));
            break;
        }
        case isa::Format::Output: {
            const auto op = i.as<isa::Output>();
            step.port = port(i, op.src, {op.port, op.first, op.rows}, model.outputs);
            break;
        }
        case isa::Format::Loop: step.loop = {i.depth + 1u, 0, nullptr}; break;
        case isa::Format::End: step.loop = {i.depth + 1u, program_->code[i.match].as<isa::Loop>().count, nullptr}; break;
    }
    if (narrow_) narrow_->apply(step, i, iterations_);
    step.run = i.info().format == isa::Format::Matmul ? matmul_handler(step.matmul, opcode, result) : handler(opcode, result);
    return step;
}

// Runs of rows that follow each other in every operand become one long row: in ascending order, as the rows would be.
GridStep Executable::grid(const Instruction& i) const {
    const isa::FormatInfo& format = i.format();
    const auto row = static_cast<std::ptrdiff_t>(row_);
    GridStep g{};
    const isa::AccessInfo& first = format.accesses[0];
    g.n_outer = i.operands[first.extents[0].count_word];
    g.n_inner = i.operands[first.extents[1].count_word];
    g.lanes = static_cast<std::uint32_t>(row_);
    bool inner_follows = true, outer_follows = true;
    for (std::size_t n = 0; n < format.n_accesses; ++n) {
        g.at[n] = address(i.core, i.row(format.accesses[n].word));
        g.outer[n] = along(i, n, 0);
        g.inner[n] = along(i, n, 1);
        inner_follows &= g.inner[n] == row || g.n_inner == 1;
        outer_follows &= g.outer[n] == static_cast<std::ptrdiff_t>(g.n_inner) * row || g.n_outer == 1;
    }
    if (i.opcode == Opcode::splat) {
        g.lane = i.as<isa::Splat>().lane;
    } else if (inner_follows) {
        g.lanes *= std::exchange(g.n_inner, 1);
        if (outer_follows) g.lanes *= std::exchange(g.n_outer, 1);
    }
    return g;
}

ProductStep Executable::product(const Instruction& i) const {
    const auto op = i.as<isa::WeightedSum>();
    return {address(i.core, op.dst), address(i.core, op.a), address(i.core, op.b), address(i.core, op.addend),
            along(i, 0, 0), along(i, 1, 0) + std::ptrdiff_t{op.lane_i}, along(i, 1, 1) + std::ptrdiff_t{op.lane_j},
            along(i, 2, 0), along(i, 3, 0), nullptr, op.n_i, op.n_j, 0, static_cast<std::uint32_t>(op.n_inner * B_),
            op.narrow != 0 && bit_accurate_};
}

ProductStep Executable::dot(const Instruction& i) const {
    const auto op = i.as<isa::Dot>();
    return {address(i.core, op.dst), address(i.core, op.a), address(i.core, op.b), address(i.core, op.addend),
            along(i, 0, 0), along(i, 1, 0), 1, along(i, 2, 0), along(i, 3, 0), reinterpret_cast<float*>(scratch_), op.n_i,
            op.n_j, op.k, static_cast<std::uint32_t>((op.n_j + B_ - 1) / B_ * B_), op.narrow != 0 && bit_accurate_};
}

MatmulStep Executable::matmul(const Instruction& i) const {
    const auto op = i.as<isa::Matmul>();
    const Parameters::Weights& packed = parameters_->weights(i);
    const bool apart = std::abs(std::int64_t{op.dst_step}) >= std::int64_t{op.m_rows};
    return {address(i.core, op.dst), address(i.core, op.x), address(i.core, op.bias), along(i, 0, 0),
            along(i, 1, 0), along(i, 2, 0), along(i, 1, 1),
            packed.words, scratch_, op.k, tap_lanes(op.k, B_), input_lanes(i, B_), static_cast<std::uint32_t>(op.m_rows * B_),
            op.batch, op.addend != 0, op.relu != 0, apart, packed.x_low, packed.x_span, 0};
}

Handler Executable::handler(Opcode opcode, isa::Precision result) const {
    return (streams_ == 1 ? kernels_.handler : kernels_.group_handler)(opcode, result, static_cast<std::uint32_t>(B_));
}

Handler Executable::matmul_handler(const MatmulStep& m, Opcode opcode, isa::Precision result) const {
    const bool one_vector = streams_ == 1 && m.batch == 1 && m.lanes <= m.tap_lanes && m.outputs % kernels_.lanes == 0;
    Handler few = nullptr;
    if (opcode == Opcode::matmul && one_vector) few = kernels_.few_terms((m.lanes + 1) / 2, result);
    return few != nullptr ? few : handler(opcode, result);
}

SynapseStep Executable::synapse(const Instruction& i) const {
    const auto op = i.as<isa::Synapse>();
    const Parameters::Synapses& packed = parameters_->synapses(i);
    const auto lanes = static_cast<std::uint32_t>(B_);
    const auto of_group = streams_ == 1 ? std::span<const std::uint32_t>() : parameters_->synapses_of_group(i);
    return {address(i.core, op.num), address(i.core, op.den), address(i.core, op.v),
            packed.words, packed.rows, scratch_, op.v_rows * lanes, op.targets, lanes, packed.paired,
            of_group.data(), pairs_of_group(of_group.size(), op.targets * B_)};
}

// Rows that follow each other in every operand become one long row, in ascending order, as the rows would be.
UpdateStep Executable::update(const Instruction& i) const {
    const isa::FormatInfo& format = i.format();
    const auto row = static_cast<std::ptrdiff_t>(row_);
    UpdateStep u{};
    u.n = i.as<isa::Update>().n;
    u.lanes = static_cast<std::uint32_t>(row_);
    bool follows = true;
    for (std::size_t n = 0; n < format.n_accesses; ++n) {
        u.at[n] = address(i.core, i.row(format.accesses[n].word));
        u.step[n] = along(i, n, 0);
        follows &= u.step[n] == row || u.n == 1;
    }
    if (follows) u.lanes *= std::exchange(u.n, 1);
    return u;
}

LinkStep Executable::link(isa::Row row, std::uint32_t core, std::uint32_t rows, std::size_t source, std::size_t target) const {
    return {address(core, row), fifos_[source * program_->machine.cores + target], rows, static_cast<std::uint32_t>(row_)};
}

// Whole vectors, or the rows of one: then a single vector as wide as these rows are filled.
PortStep Executable::port(const Instruction& i, isa::Row at, PortRows rows, const std::vector<Port>& ports) const {
    const std::size_t width = ports[rows.port].shape.width(), across = program_->machine.rows(width);
    const std::size_t vector = rows.first / across, row = rows.first % across;
    PortStep step{address(i.core, at), rows.port, 1, 0, 0, vector * width + row * B_, ports[rows.port].shape.elements()};
    if (row == 0 && rows.rows % across == 0) {
        step.vectors = static_cast<std::uint32_t>(rows.rows / across);
        step.width = static_cast<std::uint32_t>(width);
        step.row_lanes = static_cast<std::uint32_t>(across * B_);
    } else {
        step.width = static_cast<std::uint32_t>(std::min(width, (row + rows.rows) * B_) - row * B_);
        step.row_lanes = static_cast<std::uint32_t>(rows.rows * B_);
    }
    return step;
}

}  // namespace ltc
