// See synapse_packing.h, and SynapseStep in kernels.h for the layouts.
#include "vm/synapse_packing.h"

#include <algorithm>
#include <set>

#include "numerics/numerics.h"

namespace ltc {
namespace {

constexpr std::uint32_t none = ~std::uint32_t{0};

std::uint32_t canonical(float x) { return x == x ? bits(x) : nan_bits; }

// Whether rule 11 on these parameters can take fused operations wherever no gate is shut: see SynapseStep.
bool may_fuse(float mu, float sigma, float w, float we) {
    const auto between = [](float x, float low, float high) {
        const float magnitude = absolute(x);
        return magnitude == 0.0f || (magnitude >= low && magnitude < high);
    };
    return between(mu, 0x1p-126f, fused_potentials) && between(sigma, 0x1p-126f, 0x1p100f) &&
           between(w, fused_weights, 0x1p127f) && between(we, fused_weights, 0x1p127f);
}

// Lane l of a pair's first or second slot where rounding two vectors to halves of one mixes their lanes.
std::size_t mixed_place(std::uint32_t l, std::uint32_t second) {
    return l % 8 / 4 * 16 + l % 4 * 4 + (second != 0 ? 0 : 2) + l / 8;
}

// The synapses on W targets: `slots` says which slot of the store holds the n-th of each lane.
class PairedRow {
public:
    PairedRow(const SlotStore& store, std::uint32_t lanes, std::uint32_t first_lane, std::uint32_t W)
        : store_(store), lanes_(lanes), first_lane_(first_lane), slots_(W) {}

    void collect(std::uint32_t first, std::uint32_t n) {
        for (std::uint32_t slot = first; slot < first + n; ++slot)
            for (std::uint32_t l = 0; l < slots_.size(); ++l)
                if (source(slot, l) != isa::absent) slots_[l].push_back(slot);
        align();
    }

    void append_to(PackedSynapses& packed, bool mixes) const {
        const auto pairs = static_cast<std::uint32_t>((depth() + 1) / 2);
        packed.rows.push_back(pairs << 2 | (may_fuse() ? 0 : row_is_plain) | (sources_.empty() ? 0 : row_shares_sources));
        const std::size_t W = slots_.size();
        if (!sources_.empty()) {
            packed.words.insert(packed.words.end(), sources_.begin(), sources_.end());
            packed.words.resize(packed.words.size() - sources_.size() + shared_words(pairs));
        }
        for (std::uint32_t pair = 0; pair < pairs; ++pair) {
            const std::size_t at = packed.words.size(), parameters = at + (sources_.empty() ? W : 0);
            packed.words.resize(parameters + 6 * W);
            for (std::uint32_t l = 0; l < W; ++l)
                for (std::uint32_t second = 0; second < 2; ++second) {
                    const std::size_t place = mixes ? mixed_place(l, second) : second * W + l;
                    append_synapse(&packed.words[parameters], place, l, second, slot_of(l, 2 * pair + second));
                    if (sources_.empty()) append_source(&packed.words[at], place, l, slot_of(l, 2 * pair + second));
                }
        }
    }

private:
    std::uint16_t source(std::uint32_t slot, std::uint32_t l) const { return store_.src[slot * lanes_ + first_lane_ + l]; }
    std::uint32_t slot_of(std::uint32_t l, std::size_t n) const { return n < slots_[l].size() ? slots_[l][n] : none; }
    std::size_t depth() const {
        std::size_t most = 0;
        for (const auto& slots : slots_) most = std::max(most, slots.size());
        return most;
    }

    bool may_fuse() const {
        for (const auto& slots : slots_)
            for (std::size_t l = static_cast<std::size_t>(&slots - slots_.data()); const std::uint32_t slot : slots) {
                if (slot == none) continue;
                const std::size_t i = slot * lanes_ + first_lane_ + l;
                if (!ltc::may_fuse(store_.mu[i], store_.sigma[i], store_.w[i], store_.we[i])) return false;
            }
        return true;
    }

    // Where the lanes have much the same sources, each ascending, the n-th synapse of every lane becomes that of the n-th
    // of all these sources: lanes that have none are absent there, and nobody picks sources by lanes.
    void align() {
        std::set<std::uint16_t> sources;
        for (std::uint32_t l = 0; l < slots_.size(); ++l)
            for (std::size_t n = 0; n < slots_[l].size(); ++n) {
                sources.insert(source(slots_[l][n], l));
                if (n > 0 && source(slots_[l][n - 1], l) >= source(slots_[l][n], l)) return;
            }
        if (4 * sources.size() > 5 * depth()) return;
        sources_.assign(sources.begin(), sources.end());
        for (std::uint32_t l = 0; l < slots_.size(); ++l) {
            std::vector<std::uint32_t> aligned(sources_.size(), none);
            for (const std::uint32_t slot : slots_[l])
                aligned[std::lower_bound(sources_.begin(), sources_.end(), source(slot, l)) - sources_.begin()] = slot;
            slots_[l] = std::move(aligned);
        }
    }

    void append_synapse(std::uint32_t* to, std::size_t place, std::uint32_t l, std::uint32_t second, std::uint32_t slot) const {
        const std::size_t W = slots_.size(), i = slot * std::size_t{lanes_} + first_lane_ + l;
        if (slot == none) {
            to[4 * W + l] |= second != 0 ? sign_bit >> 16 : sign_bit;
            return;
        }
        const std::uint32_t w = canonical(store_.w[i]) == sign_bit ? 0 : canonical(store_.w[i]), we = canonical(store_.we[i]);
        to[place] = canonical(store_.mu[i]);
        to[2 * W + place] = canonical(store_.sigma[i]);
        to[4 * W + l] |= second != 0 ? w >> 16 : w;
        to[5 * W + l] |= second != 0 ? we >> 16 : we;
    }
    void append_source(std::uint32_t* to, std::size_t place, std::uint32_t l, std::uint32_t slot) const {
        const std::size_t W = slots_.size();
        const std::uint32_t index = slot != none ? source(slot, l) : 0u;
        to[place % W] |= place < W ? index << 16 : index;
    }

    const SlotStore& store_;
    const std::uint32_t lanes_, first_lane_;
    std::vector<std::vector<std::uint32_t>> slots_;  // by lane
    std::vector<std::uint16_t> sources_;             // shared by the lanes; empty if they are not
};

}  // namespace

bool have_bf16_parameters(const SlotStore& slots, std::uint32_t lanes, SynapseRange range) {
    std::uint32_t end = range.first;
    for (std::uint32_t t = 0; t < range.targets; ++t) end += slots.run[end];
    const auto bf16 = [&](const std::vector<float>& values) {
        return std::all_of(values.begin() + std::ptrdiff_t{range.first} * lanes, values.begin() + std::ptrdiff_t{end} * lanes,
                           [](float x) { return (bits(x) & 0xFFFFu) == 0; });
    };
    return bf16(slots.mu) && bf16(slots.sigma) && bf16(slots.w) && bf16(slots.we);
}

PackedSynapses pack_paired(const SlotStore& slots, std::uint32_t lanes, std::uint32_t W, SynapseRange range, bool mixes) {
    PackedSynapses packed;
    for (std::uint32_t t = 0, slot = range.first; t < range.targets; slot += slots.run[slot], ++t)
        for (std::uint32_t l = 0; l < lanes; l += W) {
            PairedRow row(slots, lanes, l, W);
            row.collect(slot, slots.run[slot]);
            row.append_to(packed, mixes && W == 16);
        }
    return packed;
}

PackedSynapses pack_single(const SlotStore& slots, std::uint32_t lanes, std::uint32_t W, SynapseRange range, const float* originals) {
    PackedSynapses packed;
    const std::size_t B = lanes;
    for (std::uint32_t t = 0, slot = range.first; t < range.targets; ++t) {
        const std::uint32_t n = slots.run[slot];
        packed.rows.push_back(n);
        for (const std::uint32_t end = slot + n; slot < end; ++slot) {
            const float* p[] = {&slots.mu[slot * B], &slots.sigma[slot * B], &slots.w[slot * B], &slots.we[slot * B]};
            if (originals != nullptr)
                for (std::size_t i = 0; i < 4; ++i) p[i] = originals + (slot * 4 + i) * B;
            for (std::uint32_t l = 0; l < lanes; l += W) {
                const auto each = [&](const auto& word) {
                    for (std::uint32_t i = l; i < l + W; ++i) packed.words.push_back(slots.src[slot * B + i] != isa::absent ? word(i) : 0);
                };
                each([&](std::uint32_t i) { return slots.src[slot * B + i] + scratch_zeros; });
                for (const float* values : p) each([&](std::uint32_t i) { return canonical(values[i]); });
            }
        }
    }
    return packed;
}

std::vector<std::uint32_t> pack_for_group(const std::uint32_t* words, const std::uint32_t* rows, std::size_t n_rows, std::uint32_t W, bool mixes) {
    struct Synapse {
        std::uint32_t source, mu, sigma, w, we;
    };
    std::vector<std::uint32_t> targets, packed;
    for (std::size_t r = 0; r < n_rows; ++r) {
        const std::uint32_t pairs = rows[r] >> 2, plain = (rows[r] & row_is_plain) != 0;
        const bool shared = (rows[r] & row_shares_sources) != 0;
        const std::uint32_t* const list = words;
        if (shared) words += shared_words(pairs);
        const std::uint32_t source_words = shared ? 0 : W, pair_words = source_words + 6 * W;
        for (std::uint32_t l = 0; l < W; ++l) {
            std::vector<Synapse> found;  // of this target
            for (std::uint32_t n = 0; n < 2 * pairs; ++n) {
                const std::uint32_t *at = words + n / 2 * pair_words, *p = at + source_words, second = n % 2;
                const std::size_t place = mixes && W == 16 ? mixed_place(l, second) : second * W + l;
                const auto half = [&](std::uint32_t word) { return second != 0 ? word & 0xFFFFu : word >> 16; };
                const std::uint32_t w = half(p[4 * W + l]);
                if (w == sign_bit >> 16) continue;  // absent
                const std::uint32_t source = shared ? list[n] : place < W ? at[place] >> 16 : at[place - W] & 0xFFFFu;
                found.push_back({source, p[place], p[2 * W + place], w, half(p[5 * W + l])});
            }
            targets.push_back(static_cast<std::uint32_t>((found.size() + 1) / 2) << 1 | plain);
            if (found.size() % 2 != 0) found.push_back({found.back().source, 0, 0, sign_bit >> 16, 0});
            for (std::size_t n = 0; n < found.size(); n += 2) {
                const Synapse &a = found[n], &b = found[n + 1];
                packed.insert(packed.end(), {a.source << 16 | b.source, b.mu, b.mu, a.mu, a.mu, b.sigma, b.sigma, a.sigma, a.sigma,
                                             a.w << 16 | b.w, a.we << 16 | b.we});
            }
        }
        words += std::size_t{pairs} * pair_words;
    }
    const std::size_t turn = group_pairs * group_pair_words;
    packed.resize((packed.size() + turn - 1) / turn * turn);
    targets.insert(targets.end(), packed.begin(), packed.end());
    return targets;
}

}  // namespace ltc
