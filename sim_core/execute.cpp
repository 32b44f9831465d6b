// Builds an Executable: chooses the kernels, lays out and fills the arena, and lowers instructions to steps.
#include "execute.h"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "numerics.h"

namespace ltc {
namespace {

using isa::Opcode;

struct Choice {
    const Kernels& kernels;
    bool supported;
};

std::vector<Choice> choices() {  // the widest last
#ifdef __x86_64__
    const bool wide = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool wider = wide && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512cd");
    return {{sse2::kernels, true}, {avx2::kernels, wide}, {avx512::kernels, wider},
            {avx512_bf16::kernels, wider && __builtin_cpu_supports("avx512bf16")}};
#else
    return {{generic::kernels, true}};
#endif
}

std::uint32_t pairs_of(std::uint32_t k) { return k / 2 + k % 2; }
// Magnitudes of x, least and span, for which fused products with weights of these magnitudes are exact by rule 7: the
// exponents of least and least add up to -112 or more, those of largest and largest to 126 or less. None if any weight
// is subnormal, infinite or NaN.
std::pair<std::uint32_t, std::uint32_t> exact_range(std::uint32_t least, std::uint32_t largest) {
    constexpr std::uint32_t none = sign_bit;
    if (least < smallest_normal || largest >= infinity_bits) return {none, 0};
    const auto exponent = [](std::uint32_t magnitude) { return static_cast<int>(magnitude >> 23) - 127; };
    const int low = std::max(-126, -112 - exponent(least)), high = std::min(127, 126 - exponent(largest));
    if (low > high) return {none, 0};
    const std::uint32_t first = static_cast<std::uint32_t>(low + 127) << 23;
    return {first, (static_cast<std::uint32_t>(high + 128) << 23) - 1 - first};
}

std::uint32_t padded_pairs(std::uint32_t k) { return (pairs_of(k) + 7) / 8 * 8; }

}  // namespace

const Kernels& choose_kernels() {
    const char* asked = std::getenv("LTC_SIMD");
    const std::vector<Choice> all = choices();
    std::string names;
    for (auto choice = all.rbegin(); choice != all.rend(); ++choice) {
        if (!choice->supported) continue;
        if (asked == nullptr || *asked == 0 || std::string(asked) == choice->kernels.name) return choice->kernels;
        names = std::string(choice->kernels.name) + (names.empty() ? "" : ", ") + names;
    }
    throw Refusal(RefusalKind::config, "there are no kernels " + std::string(asked) + " for this CPU",
                  "environment variable LTC_SIMD", "unset it, or set it to one of " + names);
}

// Hands out pieces of one block of memory, each on a cache line. Over no memory it only counts.
class Executable::Allocator {
public:
    explicit Allocator(void* memory) : begin_(reinterpret_cast<std::uintptr_t>(memory)) {}

    template <class T>
    T* take(std::size_t n) {
        T* piece = reinterpret_cast<T*>(begin_ + used_);
        used_ += (n * sizeof(T) + line - 1) / line * line;
        return piece;
    }
    std::size_t used() const { return used_; }

    static constexpr std::size_t line = 64;

private:
    std::uintptr_t begin_;
    std::size_t used_ = 0;
};

Executable::Executable(const Program& program, bool bit_accurate, const Kernels& kernels)
    : program_(program), kernels_(kernels), bit_accurate_(bit_accurate), B_(program.machine.block_size),
      W_(row_vector(kernels.lanes, program.machine.block_size)) {
    const bool any_parameters = std::any_of(program.cores.begin(), program.cores.end(),
                                            [](const Core& c) { return c.weight_blocks + c.synapse_slots != 0; });
    if (!bit_accurate && any_parameters && !program.has_shadow)
        throw Refusal(RefusalKind::program, "the program holds no fp32 originals, which plain fp32 needs",
                      "section SHAD", "save it with shadow=True, or use bit_accurate=True");
    find_packings();
    Allocator counted(nullptr);
    lay_out(counted);
    arena_bytes_ = counted.used() + 2 * Allocator::line;  // kernels may read a vector past the last row
    arena_.reset(std::calloc(arena_bytes_, 1));
    if (arena_ == nullptr) throw std::bad_alloc();
    const auto raw = reinterpret_cast<std::uintptr_t>(arena_.get());
    Allocator allocator(static_cast<char*>(arena_.get()) + (Allocator::line - raw % Allocator::line) % Allocator::line);
    lay_out(allocator);

    fill_constants();
    for (std::uint32_t core = 0; core < program.cores.size(); ++core) {
        std::copy(program.cores[core].slots.run.begin(), program.cores[core].slots.run.end(), runs_[core]);
        pack_entries(core);
    }
    for (const auto& [packing, words] : slots_) pack_slots(packing, words);
    for (auto& [packing, packed] : weights_) pack_weights(packing, packed);
    std::size_t n = program.models.size();
    for (const Instruction& i : program.code)
        n += i.opcode == Opcode::send ? program.cores.size() : 1;
    steps_.reserve(n);  // steps point at each other
    for (const Model& model : program.models) build(model);
}

void Executable::run(std::size_t model, const float* const* inputs, float* const* outputs) noexcept {
    Frame frame{{}, inputs, outputs};
    for (const Step* step = &steps_[entry_[model]]; step != nullptr;) step = step->run(frame, step);
}

// ---- memory ----------------------------------------------------------------------------------------------------------

void Executable::find_packings() {
    std::uint64_t words = 0, stored = 0;
    for (const Core& core : program_.cores) stored += core.weights.size() * sizeof(std::uint16_t);
    for (const Model& model : program_.models)
        for (std::uint32_t n = model.code_begin; n < model.code_end; ++n) {
            const Instruction& i = program_.code[n];
            if (i.info().format == isa::Format::Matmul) {
                const auto op = i.as<isa::Matmul>();
                const Packing packing{i.core, op.weights, op.k, op.m_rows, i.opcode == Opcode::matmul_fp32};
                if (weights_.try_emplace(packing).second) words += packed_words(packing);
                if (words * sizeof(std::uint32_t) > 4 * stored + limits::spare)
                    refuse_program("the weight blocks are read in too many shapes to hold them all", name_of(program_, n));
                scratch_words_ = std::max<std::size_t>(scratch_words_, 2 * max_vectors * padded_pairs(op.k));
            } else if (i.opcode == Opcode::synapse) {
                slots_.try_emplace(synapse_packing(i));
                scratch_words_ = std::max<std::size_t>(scratch_words_, scratch_zeros + std::max<std::size_t>(64, i.as<isa::Synapse>().v_rows * B_));
            }
        }
}

void Executable::lay_out(Allocator& allocator) {
    rows_.clear(), runs_.clear(), entries_.clear(), fifos_.clear();
    scratch_ = allocator.take<std::uint32_t>(scratch_words_);
    for (const Core& core : program_.cores) {
        rows_.push_back(allocator.take<float>(core.tensor_rows * B_));
        runs_.push_back(allocator.take<std::uint32_t>(core.synapse_slots));
        entries_.push_back(allocator.take<std::int32_t>(core.gather_entries * (2 + B_)));
    }
    for (const std::uint32_t rows : program_.fifo_rows) {
        if (rows == 0) {
            fifos_.push_back(nullptr);
            continue;
        }
        fifos_.push_back(allocator.take<Fifo>(1));
        float* data = allocator.take<float>(rows * B_);
        if (arena_ != nullptr) *fifos_.back() = {data, rows, 0, 0};
    }
    for (auto& [packing, packed] : weights_) packed.words = allocator.take<std::uint32_t>(packed_words(packing));
    for (auto& [packing, words] : slots_)
        words = allocator.take<std::uint32_t>(program_.cores[std::get<0>(packing)].synapse_slots * slot_words(packing));
}

void Executable::fill_constants() {
    for (std::size_t core = 0; core < program_.cores.size(); ++core)
        for (const ConstantRange& range : program_.cores[core].constants)
            std::copy(range.data.begin(), range.data.end(), rows_[core] + range.row * B_);
}

std::size_t Executable::packed_words(const Packing& packing) const {
    const auto [core, weights, k, m_rows, two_blocks] = packing;
    const std::size_t groups = (m_rows * B_ + kernels_.lanes - 1) / kernels_.lanes;
    return groups * kernels_.lanes * padded_pairs(k) * (two_blocks || !bit_accurate_ ? 2 : 1);
}

// A weight as fp32; absent ones are +0.
float Executable::weight(const Packing& packing, std::size_t output, std::size_t input) const {
    const auto [core, weights, k, m_rows, two_blocks] = packing;
    if (input >= k || output >= m_rows * B_) return 0.0f;
    const std::size_t size = two_blocks ? 2 : 1;
    const std::size_t block = weights + (output / B_ * program_.machine.rows(k) + input / B_) * size;
    const std::size_t at = block * B_ * B_ + output % B_ * B_ + input % B_;
    const Core& stores = program_.cores[core];
    if (!bit_accurate_) return stores.shadow_weights[at];
    const std::uint32_t low = two_blocks ? stores.weights[at + B_ * B_] : 0;
    return __builtin_bit_cast(float, std::uint32_t{stores.weights[at]} << 16 | low);
}

void Executable::pack_weights(const Packing& packing, Packed& packed) const {
    const auto [core, weights, k, m_rows, two_blocks] = packing;
    const bool wide = two_blocks || !bit_accurate_;
    const std::size_t lanes = kernels_.lanes;
    const std::uint32_t pairs = pairs_of(k);
    std::uint32_t* out = packed.words;
    std::uint32_t least = infinity_bits, largest = 0;  // magnitudes that are not zero
    const auto word = [&](std::size_t output, std::size_t input) {
        const std::uint32_t u = bits(weight(packing, output, input)), magnitude = u & magnitude_bits;
        if (magnitude != 0) least = std::min(least, magnitude);
        largest = std::max(largest, magnitude);
        return u;
    };
    for (std::size_t o = 0; o < m_rows * B_; o += lanes)
        for (std::uint32_t chunk = 0; chunk < 64; chunk += 8)
            for (std::uint32_t first = chunk; first < pairs; first += 64)
                for (std::size_t pair = first; pair < first + 8; ++pair) {
                    for (std::size_t l = 0; l < lanes; ++l)
                        if (wide) {
                            out[l] = word(o + l, 2 * pair);
                            out[lanes + l] = word(o + l, 2 * pair + 1);
                        } else {
                            out[l] = word(o + l, 2 * pair) | word(o + l, 2 * pair + 1) >> 16;
                        }
                    out += wide ? 2 * lanes : lanes;
                }
    std::tie(packed.x_low, packed.x_span) = exact_range(least, largest);
}

// Narrow where rule 11 is in bf16, all parameters are, and the presynaptic values have indices of 15 bits.
Executable::SynapsePacking Executable::synapse_packing(const Instruction& i) const {
    const auto op = i.as<isa::Synapse>();
    const SlotStore& s = program_.cores[i.core].slots;
    const auto all_bf16 = [](const std::vector<float>& values) {
        return std::all_of(values.begin(), values.end(), [](float x) { return (bits(x) & 0xFFFFu) == 0; });
    };
    return {i.core, precision(static_cast<std::uint32_t>(op.precision)) == isa::Precision::bf16 &&
                        op.v_rows * B_ < 0x7000 && all_bf16(s.mu) && all_bf16(s.sigma) && all_bf16(s.w) && all_bf16(s.we)};
}

std::size_t Executable::slot_words(const SynapsePacking& packing) const { return (std::get<1>(packing) ? 3 : 5) * B_; }

void Executable::pack_slots(const SynapsePacking& packing, std::uint32_t* out) const {
    const auto [core, narrow] = packing;
    const Core& stores = program_.cores[core];
    const SlotStore& s = stores.slots;
    const auto word = [](float x) { return x == x ? bits(x) : nan_bits; };
    for (std::size_t slot = 0; slot < stores.synapse_slots; ++slot) {
        const float* p[] = {&s.mu[slot * B_], &s.sigma[slot * B_], &s.w[slot * B_], &s.we[slot * B_]};
        if (!bit_accurate_)
            for (std::size_t n = 0; n < 4; ++n) p[n] = &stores.shadow_slots[(slot * 4 + n) * B_];
        for (std::size_t l = 0; l < B_; ++l) {
            std::uint32_t* to = out + l / W_ * W_ * (narrow ? 3 : 5) + l % W_;
            const std::uint32_t src = s.src[slot * B_ + l];
            const bool there = src != isa::absent;
            if (narrow) {
                to[0] = there ? ((src ^ 1) << 16 | sign_bit) + (src ^ 1) + 2 * scratch_zeros : 0;
                to[W_] = there ? word(p[0][l]) | word(p[1][l]) >> 16 : 0;
                to[2 * W_] = there ? word(p[2][l]) | word(p[3][l]) >> 16 : 0;
            } else {
                to[0] = there ? src + scratch_zeros : 0;
                for (std::size_t n = 0; n < 4; ++n) to[(n + 1) * W_] = there ? word(p[n][l]) : 0;
            }
        }
        out += slot_words(packing);
    }
}

void Executable::pack_entries(std::uint32_t core) {
    const EntryStore& e = program_.cores[core].entries;
    std::int32_t* out = entries_[core];
    for (std::size_t entry = 0; entry < e.src.size(); ++entry) {
        *out++ = e.src[entry] * static_cast<std::int32_t>(B_);
        *out++ = e.dst[entry] * static_cast<std::int32_t>(B_);
        for (std::size_t l = 0; l < B_; ++l) {
            const std::uint16_t lane = e.lane[entry * B_ + l];
            *out++ = lane != isa::absent ? lane : e.clear[entry] != 0 ? lane_clear : lane_keep;
        }
    }
}

// ---- steps -----------------------------------------------------------------------------------------------------------

Address Executable::address(std::uint32_t core, isa::Row row) const {
    return {rows_[core] + row.base * B_, static_cast<std::ptrdiff_t>(row.stride) * static_cast<std::ptrdiff_t>(B_), row.level};
}

isa::Precision Executable::precision(std::uint32_t field) const {
    return bit_accurate_ ? static_cast<isa::Precision>(field) : isa::Precision::fp32;
}

void Executable::build(const Model& model) {
    entry_.push_back(steps_.size());
    std::vector<std::size_t> loops;
    for (std::uint32_t n = model.code_begin; n < model.code_end; ++n) {
        const Instruction& i = program_.code[n];
        if (i.opcode == Opcode::send) {
            const auto op = i.as<isa::Send>();
            for (std::uint32_t target = 0; target < program_.machine.cores; ++target) {
                if ((op.targets >> target & 1) == 0) continue;
                Step step = step_of(i, model);
                step.link = link(op.src, i.core, op.rows, i.core, target);
                steps_.push_back(step);
            }
            continue;
        }
        steps_.push_back(step_of(i, model));
        if (i.opcode == Opcode::loop) loops.push_back(steps_.size());
        if (i.opcode == Opcode::end) {
            steps_.back().loop.body = steps_.data() + loops.back();
            loops.pop_back();
        }
    }
    Step stop{};
    stop.run = kernels_.stop;
    steps_.push_back(stop);
}

Step Executable::step_of(const Instruction& i, const Model& model) {
    Step step{};
    Opcode opcode = i.opcode;
    isa::Precision result = isa::Precision::fp32;
    const isa::FormatInfo& format = i.format();
    for (std::size_t f = 0; f < format.n_fields; ++f)
        if (format.fields[f].kind == isa::FieldKind::precision) result = precision(i.operands[format.fields[f].word]);
    const auto lanes = static_cast<std::uint32_t>(B_);
    switch (i.info().format) {
        case isa::Format::Unary:
        case isa::Format::Binary:
        case isa::Format::Ternary:
        case isa::Format::Splat: step.grid = grid(i); break;
        case isa::Format::RowReduce: {
            const auto op = i.as<isa::RowReduce>();
            step.row_reduce = {address(i.core, op.dst), address(i.core, op.src), op.dst_step * std::ptrdiff_t{lanes},
                               op.src_step * std::ptrdiff_t{lanes}, op.groups, op.k, lanes};
            break;
        }
        case isa::Format::ColumnReduce: {
            const auto op = i.as<isa::ColumnReduce>();
            step.column_reduce = {address(i.core, op.dst), address(i.core, op.src), op.k_step * std::ptrdiff_t{lanes}, op.k,
                                  op.n_inner, lanes};
            break;
        }
        case isa::Format::Matmul:
            step.matmul = matmul(i);
            if (!bit_accurate_) opcode = Opcode::matmul_fp32;
            break;
        case isa::Format::Synapse: step.synapse = synapse(i); break;
        case isa::Format::Gather: {
            const auto op = i.as<isa::Gather>();
            step.gather = {address(i.core, op.dst), address(i.core, op.src), entries_[i.core] + op.entries * (2 + B_), op.count, lanes};
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
            step.port = port(i, op.dst, op.port, model.inputs);
            result = precision(static_cast<std::uint32_t>(model.inputs[op.port].precision));
            break;
        }
        case isa::Format::Output: {
            const auto op = i.as<isa::Output>();
            step.port = port(i, op.src, op.port, model.outputs);
            break;
        }
        case isa::Format::Loop: step.loop = {i.depth + 1u, 0, nullptr}; break;
        case isa::Format::End: step.loop = {i.depth + 1u, program_.code[i.match].as<isa::Loop>().count, nullptr}; break;
    }
    step.run = kernels_.handler(opcode, result, lanes);
    return step;
}

// Runs of rows that follow each other in every operand become one long row: in ascending order, as the rows would be.
GridStep Executable::grid(const Instruction& i) const {
    const isa::FormatInfo& format = i.format();
    const auto row = static_cast<std::ptrdiff_t>(B_);
    GridStep g{};
    const isa::AccessInfo& first = format.accesses[0];
    g.n_outer = i.operands[first.extents[0].count_word];
    g.n_inner = i.operands[first.extents[1].count_word];
    g.lanes = static_cast<std::uint32_t>(B_);
    bool inner_follows = true, outer_follows = true;
    for (std::size_t n = 0; n < format.n_accesses; ++n) {
        const isa::AccessInfo& access = format.accesses[n];
        g.at[n] = address(i.core, i.row(access.word));
        g.outer[n] = i.step(static_cast<std::size_t>(access.extents[0].step_word)) * row;
        g.inner[n] = i.step(static_cast<std::size_t>(access.extents[1].step_word)) * row;
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

MatmulStep Executable::matmul(const Instruction& i) {
    const auto op = i.as<isa::Matmul>();
    const Packing packing{i.core, op.weights, op.k, op.m_rows, i.opcode == Opcode::matmul_fp32};
    const Packed& packed = weights_.at(packing);
    const auto row = static_cast<std::ptrdiff_t>(B_);
    const bool apart = std::abs(op.dst_step) >= static_cast<std::int64_t>(op.m_rows);
    return {address(i.core, op.dst), address(i.core, op.x), address(i.core, op.bias), op.dst_step * row, op.x_step * row,
            packed.words, scratch_, op.k, static_cast<std::uint32_t>(op.m_rows * B_), op.batch,
            apart, packed.x_low, packed.x_span};
}

SynapseStep Executable::synapse(const Instruction& i) const {
    const auto op = i.as<isa::Synapse>();
    const SynapsePacking packing = synapse_packing(i);
    const auto lanes = static_cast<std::uint32_t>(B_);
    return {address(i.core, op.num), address(i.core, op.den), address(i.core, op.v),
            slots_.at(packing) + op.slots * slot_words(packing), runs_[i.core] + op.slots, scratch_, op.v_rows * lanes,
            op.targets, lanes, std::get<1>(packing)};
}

LinkStep Executable::link(isa::Row row, std::uint32_t core, std::uint32_t rows, std::size_t source, std::size_t target) const {
    return {address(core, row), fifos_[source * program_.machine.cores + target], rows, static_cast<std::uint32_t>(B_)};
}

PortStep Executable::port(const Instruction& i, isa::Row row, std::uint32_t index, const std::vector<Port>& ports) const {
    const Shape& shape = ports[index].shape;
    return {address(i.core, row), index, static_cast<std::uint32_t>(shape.vectors()), static_cast<std::uint32_t>(shape.width()),
            static_cast<std::uint32_t>(program_.machine.rows(shape.width()) * B_)};
}

}  // namespace ltc
