// Packs a program's parameters: see packing.h, and kernels.h for the layouts.
#include "vm/packing.h"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "numerics/numerics.h"

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
#if defined(__linux__)
    if (page == huge) {
        mapped_ = bytes_ + huge;
        mapping_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapping_ == MAP_FAILED) throw std::bad_alloc();
        data_ = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(mapping_) + huge - 1) / huge * huge);
#if defined(MADV_HUGEPAGE)
        madvise(data_, bytes_, MADV_HUGEPAGE);  // a hint: small pages do as well, only slower
#endif
        return;  // the system gives zeros
    }
#endif
    data_ = std::aligned_alloc(page, bytes_);
    if (data_ == nullptr) throw std::bad_alloc();
    std::fill_n(static_cast<char*>(data_), bytes_, char{0});
}

Block::~Block() {
#if defined(__linux__)
    if (mapping_ != nullptr) {
        munmap(mapping_, mapped_);
        return;
    }
#endif
    std::free(data_);
}

Parameters::Parameters(const Program& program, bool bit_accurate, const Kernels& kernels)
    : bit_accurate_(bit_accurate), B_(program.machine.block_size), lanes_(kernels.lanes),
      W_(row_vector(kernels.lanes, program.machine.block_size)), mixes_(kernels.mixes) {
    const bool any = std::any_of(program.cores.begin(), program.cores.end(),
                                 [](const Core& c) { return c.weight_blocks + c.synapse_slots + c.constants.size() != 0; });
    if (!bit_accurate && any && !program.has_shadow)
        throw Refusal(RefusalKind::program, "the program holds no fp32 originals, which plain fp32 needs",
                      "section SHAD", "save it with shadow=True, or use bit_accurate=True");
    find_packings(program, kernels.mixes);
    Pieces counted(nullptr);
    lay_out(counted, program);
    block_ = std::make_unique<Block>(counted.used() + Pieces::line);
    Pieces pieces(block_->data());
    lay_out(pieces, program);
    for (std::uint32_t core = 0; core < program.cores.size(); ++core) pack_entries(program, core);
    for (auto& [packing, synapses] : synapses_) {
        const PackedSynapses packed = std::exchange(synapses.packed, {});
        std::copy(packed.words.begin(), packed.words.end(), synapses.words);
        std::copy(packed.rows.begin(), packed.rows.end(), synapses.rows);
    }
    for (auto& [packing, packed] : weights_) pack_weights(program, packing, packed);
}

void Parameters::find_packings(const Program& program, bool mixes) {
    std::uint64_t words = 0, stored = 0;
    for (const Core& core : program.cores) stored += core.weights.size() * sizeof(std::uint16_t) + core.slots.src.size() * 18;
    for (const Model& model : program.models)
        for (std::uint32_t n = model.code_begin; n < model.code_end; ++n) {
            const Instruction& i = program.code[n];
            if (i.info().format == isa::Format::Matmul && weights_.try_emplace(packing(i)).second) {
                order_.push_back(packing(i));
                words += packed_words(packing(i));
            } else if (i.opcode == Opcode::synapse && !synapses_.contains(synapse_packing(i))) {
                Synapses& synapses = synapses_[synapse_packing(i)];
                synapses = pack_synapses(program, synapse_packing(i), mixes);
                words += synapses.packed.words.size() + synapses.packed.rows.size();
            }
            if (words * sizeof(std::uint32_t) > 4 * stored + limits::spare)
                refuse_program("the weight blocks or synapse slots are read in too many shapes to hold them all", name_of(program, n));
        }
}

void Parameters::lay_out(Pieces& pieces, const Program& program) {
    entries_.clear();
    for (const Core& core : program.cores) entries_.push_back(pieces.take<std::int32_t>(core.gather_entries * (2 + B_)));
    for (const Packing& packing : order_) weights_[packing].words = pieces.take<std::uint32_t>(packed_words(packing));
    for (auto& [packing, synapses] : synapses_) {
        synapses.rows = pieces.take<std::uint32_t>(synapses.packed.rows.size());
        synapses.words = pieces.take<std::uint32_t>(synapses.packed.words.size());
    }
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

Parameters::SynapsePacking Parameters::synapse_packing(const Instruction& i) {
    const auto op = i.as<isa::Synapse>();
    return {i.core, op.slots, op.targets, static_cast<isa::Precision>(op.precision) == isa::Precision::bf16};
}

Parameters::Synapses Parameters::pack_synapses(const Program& program, const SynapsePacking& packing, bool mixes) const {
    const auto [core, first, targets, bf16] = packing;
    const Core& stores = program.cores[core];
    const auto lanes = static_cast<std::uint32_t>(B_);
    const SynapseRange range{first, targets};
    if (bf16 && bit_accurate_ && have_bf16_parameters(stores.slots, lanes, range))
        return {nullptr, nullptr, true, pack_paired(stores.slots, lanes, W_, range, mixes)};
    return {nullptr, nullptr, false, pack_single(stores.slots, lanes, W_, range, bit_accurate_ ? nullptr : stores.shadow_slots.data())};
}

std::span<const std::uint32_t> Parameters::synapses_of_group(const Instruction& i) const {
    const Synapses& synapses = this->synapses(i);
    if (!synapses.paired) return {};
    const std::lock_guard lock(mutex_);
    const auto [found, is_new] = of_group_.try_emplace(synapse_packing(i));
    if (is_new) {
        const std::size_t rows = i.as<isa::Synapse>().targets * B_ / W_;
        found->second = pack_for_group(synapses.words, synapses.rows, rows, W_, mixes_);
    }
    return found->second;
}

void Parameters::pack_entries(const Program& program, std::uint32_t core) const {
    const EntryStore& e = program.cores[core].entries;
    std::int32_t* out = entries_[core];
    // Entries that no instruction names may hold anything: they wrap.
    const auto floats = [&](std::int32_t row) { return static_cast<std::int32_t>(static_cast<std::uint32_t>(row) * static_cast<std::uint32_t>(B_)); };
    for (std::size_t entry = 0; entry < e.src.size(); ++entry) {
        *out++ = floats(e.src[entry]);
        *out++ = floats(e.dst[entry]);
        for (std::size_t l = 0; l < B_; ++l) {
            const std::uint16_t lane = e.lane[entry * B_ + l];
            *out++ = lane != isa::absent ? lane : e.clear[entry] != 0 ? lane_clear : lane_keep;
        }
    }
}

}  // namespace ltc
