// Packs a program's parameters: see packing.h, and kernels.h for the layouts.
#include "packing.h"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "numerics.h"

namespace ltc {
namespace {

using isa::Opcode;

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

}  // namespace

Block::Block(std::size_t bytes) {
    constexpr std::size_t huge = std::size_t{1} << 21;
    const std::size_t page = bytes < huge ? Pieces::line : huge;
    bytes_ = (bytes + page - 1) / page * page;
    data_.reset(std::aligned_alloc(page, bytes_));
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (page == huge) madvise(data_.get(), bytes_, MADV_HUGEPAGE);  // a hint: small pages do as well, only slower
#endif
    std::fill_n(static_cast<char*>(data_.get()), bytes_, char{0});
}

Parameters::Parameters(const Program& program, bool bit_accurate, const Kernels& kernels)
    : bit_accurate_(bit_accurate), B_(program.machine.block_size), lanes_(kernels.lanes),
      W_(row_vector(kernels.lanes, program.machine.block_size)) {
    const bool any = std::any_of(program.cores.begin(), program.cores.end(),
                                 [](const Core& c) { return c.weight_blocks + c.synapse_slots != 0; });
    if (!bit_accurate && any && !program.has_shadow)
        throw Refusal(RefusalKind::program, "the program holds no fp32 originals, which plain fp32 needs",
                      "section SHAD", "save it with shadow=True, or use bit_accurate=True");
    const auto all_bf16 = [](const std::vector<float>& values) {
        return std::all_of(values.begin(), values.end(), [](float x) { return (bits(x) & 0xFFFFu) == 0; });
    };
    for (const Core& core : program.cores) {
        const SlotStore& s = core.slots;
        narrow_.push_back(bit_accurate && all_bf16(s.mu) && all_bf16(s.sigma) && all_bf16(s.w) && all_bf16(s.we));
    }
    find_packings(program);
    Pieces counted(nullptr);
    lay_out(counted, program);
    block_ = std::make_unique<Block>(counted.used() + Pieces::line);
    Pieces pieces(block_->data());
    lay_out(pieces, program);
    for (std::uint32_t core = 0; core < program.cores.size(); ++core) {
        std::copy(program.cores[core].slots.run.begin(), program.cores[core].slots.run.end(), runs_[core]);
        pack_entries(program, core);
    }
    for (const auto& [packing, packed] : slots_) pack_slots(program, std::get<0>(packing), packed);
    for (auto& [packing, packed] : weights_) pack_weights(program, packing, packed);
}

void Parameters::find_packings(const Program& program) {
    std::uint64_t words = 0, stored = 0;
    for (const Core& core : program.cores) stored += core.weights.size() * sizeof(std::uint16_t);
    for (const Model& model : program.models)
        for (std::uint32_t n = model.code_begin; n < model.code_end; ++n) {
            const Instruction& i = program.code[n];
            if (i.info().format == isa::Format::Matmul) {
                if (!weights_.try_emplace(packing(i)).second) continue;
                order_.push_back(packing(i));
                words += packed_words(packing(i));
                if (words * sizeof(std::uint32_t) > 4 * stored + limits::spare)
                    refuse_program("the weight blocks are read in too many shapes to hold them all", name_of(program, n));
            } else if (i.opcode == Opcode::synapse) {
                const bool narrow = std::get<1>(slot_packing(i));
                slots_.try_emplace(slot_packing(i), Slots{nullptr, (narrow ? 3 : 5) * B_, narrow});
            }
        }
}

void Parameters::lay_out(Pieces& pieces, const Program& program) {
    runs_.clear(), entries_.clear();
    for (const Core& core : program.cores) {
        runs_.push_back(pieces.take<std::uint32_t>(core.synapse_slots));
        entries_.push_back(pieces.take<std::int32_t>(core.gather_entries * (2 + B_)));
    }
    for (const Packing& packing : order_) weights_[packing].words = pieces.take<std::uint32_t>(packed_words(packing));
    for (auto& [packing, packed] : slots_)
        packed.words = pieces.take<std::uint32_t>(program.cores[std::get<0>(packing)].synapse_slots * packed.slot_words);
}

// ---- weights ---------------------------------------------------------------------------------------------------------

Parameters::Packing Parameters::packing(const Instruction& i) {
    const auto op = i.as<isa::Matmul>();
    return {i.core, op.weights, op.k, op.taps, op.m_rows, i.opcode == Opcode::matmul_fp32};
}

std::size_t Parameters::packed_words(const Packing& packing) const {
    const std::size_t groups = (packing.m_rows * B_ + lanes_ - 1) / lanes_;
    return groups * lanes_ * padded_pairs(lanes(packing)) * (packing.two_blocks || !bit_accurate_ ? 2 : 1);
}

// A weight as fp32; absent ones are +0.
float Parameters::weight(const Program& program, const Packing& packing, std::size_t output, std::size_t input) const {
    const auto [core, weights, k, taps, m_rows, two_blocks] = packing;
    if (input >= lanes(packing) || input % tap_lanes(k, B_) >= k || output >= m_rows * B_) return 0.0f;
    const std::size_t size = two_blocks ? 2 : 1;
    const std::size_t block = weights + (output / B_ * taps * program.machine.rows(k) + input / B_) * size;
    const std::size_t at = block * B_ * B_ + output % B_ * B_ + input % B_;
    const Core& stores = program.cores[core];
    if (!bit_accurate_) return stores.shadow_weights[at];
    const std::uint32_t low = two_blocks ? stores.weights[at + B_ * B_] : 0;
    return __builtin_bit_cast(float, std::uint32_t{stores.weights[at]} << 16 | low);
}

void Parameters::pack_weights(const Program& program, const Packing& packing, Weights& packed) const {
    const std::size_t m_rows = packing.m_rows, lanes = lanes_;
    const bool wide = packing.two_blocks || !bit_accurate_;
    const std::uint32_t pairs = pairs_of(this->lanes(packing));
    std::uint32_t* out = packed.words;
    std::uint32_t least = infinity_bits, largest = 0;  // magnitudes that are not zero
    const auto word = [&](std::size_t output, std::size_t input) {
        const std::uint32_t u = bits(weight(program, packing, output, input)), magnitude = u & magnitude_bits;
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

// ---- synapses and gather patterns ------------------------------------------------------------------------------------

// Narrow where rule 11 is in bf16, all parameters are, and the presynaptic values have indices of 15 bits.
Parameters::SlotPacking Parameters::slot_packing(const Instruction& i) const {
    const auto op = i.as<isa::Synapse>();
    const bool bf16 = static_cast<isa::Precision>(op.precision) == isa::Precision::bf16;
    return {i.core, bf16 && op.v_rows * B_ < 0x7000 && narrow_[i.core]};
}

void Parameters::pack_slots(const Program& program, std::uint32_t core, const Slots& packed) const {
    const bool narrow = packed.narrow;
    std::uint32_t* out = packed.words;
    const Core& stores = program.cores[core];
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
        out += packed.slot_words;
    }
}

void Parameters::pack_entries(const Program& program, std::uint32_t core) const {
    const EntryStore& e = program.cores[core].entries;
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

}  // namespace ltc
