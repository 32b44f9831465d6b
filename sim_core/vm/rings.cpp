// See rings.h.
#include "vm/rings.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace ltc {
namespace {

// The addresses of the step of an instruction of a format.
std::vector<Address*> addresses_of(Step& step, isa::Format format) {
    switch (format) {
        case isa::Format::Unary:
        case isa::Format::Binary:
        case isa::Format::Ternary:
        case isa::Format::Splat: return {&step.grid.at[0], &step.grid.at[1], &step.grid.at[2], &step.grid.at[3]};
        case isa::Format::RowReduce: return {&step.row_reduce.dst, &step.row_reduce.src};
        case isa::Format::ColumnReduce: return {&step.column_reduce.dst, &step.column_reduce.src};
        case isa::Format::WeightedSum:
        case isa::Format::Dot: return {&step.product.dst, &step.product.a, &step.product.b, &step.product.addend};
        case isa::Format::Matmul: return {&step.matmul.dst, &step.matmul.x, &step.matmul.bias};
        case isa::Format::Synapse: return {&step.synapse.num, &step.synapse.den, &step.synapse.v};
        case isa::Format::Update: {
            std::vector<Address*> all;
            for (Address& at : step.update.at) all.push_back(&at);
            return all;
        }
        case isa::Format::Gather: return {&step.gather.dst, &step.gather.src};
        case isa::Format::Transpose: return {&step.transpose.dst, &step.transpose.src};
        case isa::Format::Send:
        case isa::Format::Receive: return {&step.link.at};
        case isa::Format::Input:
        case isa::Format::Output: return {&step.port.at};
        case isa::Format::Loop:
        case isa::Format::End: return {};
    }
    return {};
}

const Step* mirror(Frame& f, const Step* step) {
    const MirrorStep& m = step->mirror;
    m.ring->mirror(m.at.base + f.counter[m.at.level] * m.at.stride, m.floats);
    return step + 1;
}

}  // namespace

void RingRows::mirror(const float* from, std::size_t floats) const noexcept {
    const auto begin = static_cast<std::size_t>(from - first), end = begin + floats;
    if (begin < size) std::copy(first + begin, first + std::min(end, size), first + begin + size);
    if (end > size) std::copy(first + std::max(begin, size), first + end, first + std::max(begin, size) - size);
}

Rings::Rings(const Program& program, std::size_t row) : row_(row) {
    for (const Model& model : program.models) {
        of_model_.push_back(rings_.size());
        for (const Ring& ring : model.rings) {
            const std::size_t place = ring.rows * row_;
            rings_.push_back({ring, {nullptr, ring.places * place, ring.advance * place, 0}, 0, 0});
        }
    }
    of_model_.push_back(rings_.size());
    by_row_.resize(rings_.size());
    std::iota(by_row_.begin(), by_row_.end(), std::size_t{0});
    std::sort(by_row_.begin(), by_row_.end(), [this](std::size_t a, std::size_t b) {
        return std::pair(rings_[a].place.core, rings_[a].place.row) < std::pair(rings_[b].place.core, rings_[b].place.row);
    });
}

void Rings::lay_out(Pieces& pieces) {
    for (Turning& ring : rings_) ring.rows.first = pieces.take<float>(2 * ring.rows.size);
}

void Rings::fill(const std::vector<float*>& rows) noexcept {
    for (const Turning& ring : rings_) {
        std::copy_n(rows[ring.place.core] + ring.place.row * row_, ring.rows.size, ring.rows.first);
        ring.rows.mirror(ring.rows.first, ring.rows.size);
    }
}

float* Rings::row(std::uint32_t core, std::uint32_t row) const {
    const auto behind = std::upper_bound(by_row_.begin(), by_row_.end(), std::pair(core, row), [this](const auto& at, std::size_t ring) {
        return at < std::pair(rings_[ring].place.core, rings_[ring].place.row);
    });
    if (behind == by_row_.begin()) return nullptr;
    const Turning& ring = rings_[*(behind - 1)];
    if (ring.place.core != core || !ring.place.holds(row)) return nullptr;
    return ring.rows.first + (row - ring.place.row) * row_;
}

// They lie on the arena in their order.
std::size_t Rings::index_of(const float* row) const {
    const auto behind = std::upper_bound(rings_.begin(), rings_.end(), row, [](const float* at, const Turning& ring) {
        return at < ring.rows.first;
    });
    return behind != rings_.begin() && (behind - 1)->rows.holds(row) ? static_cast<std::size_t>(behind - 1 - rings_.begin()) : none;
}

RingRows* Rings::of(const float* row) {
    const std::size_t ring = index_of(row);
    return ring == none ? nullptr : &rings_[ring].rows;
}

void Rings::follow(std::size_t at, Step& step, isa::Format format) {
    if (rings_.empty()) return;
    for (const Address* address : addresses_of(step, format)) note(at, step, *address);
}

void Rings::note(std::size_t at, const Step& step, const Address& address) {
    const auto offset = reinterpret_cast<const char*>(&address.base) - reinterpret_cast<const char*>(&step);
    const std::size_t ring = index_of(address.base);
    if (ring != none) noted_.push_back({ring, at, static_cast<std::size_t>(offset)});
}

void Rings::append_mirror(std::vector<Step>& steps, const isa::Unary& write, Address dst) {
    const RingRows* ring = of(dst.base);
    if (ring == nullptr) return;
    const auto reach = [](std::uint32_t count, std::int32_t by) { return (std::ptrdiff_t{count} - 1) * by; };
    const std::ptrdiff_t outer = reach(write.n_outer, write.dst_outer), inner = reach(write.n_inner, write.dst_inner);
    const std::ptrdiff_t low = std::min<std::ptrdiff_t>(0, outer) + std::min<std::ptrdiff_t>(0, inner);
    const std::ptrdiff_t high = std::max<std::ptrdiff_t>(0, outer) + std::max<std::ptrdiff_t>(0, inner);
    Step step{};
    step.run = &mirror;
    dst.base += low * static_cast<std::ptrdiff_t>(row_);
    step.mirror = {dst, ring, static_cast<std::size_t>(high - low + 1) * row_};
    steps.push_back(step);
    note(steps.size() - 1, steps.back(), steps.back().mirror.at);
}

void Rings::erased(std::size_t at) {
    for (Noted& n : noted_)
        if (n.step > at) --n.step;
}

void Rings::bind(std::vector<Step>& steps) {
    std::stable_sort(noted_.begin(), noted_.end(), [](const Noted& a, const Noted& b) { return a.ring < b.ring; });
    for (const Noted& n : std::exchange(noted_, {})) {
        float** base = reinterpret_cast<float**>(reinterpret_cast<char*>(&steps[n.step]) + n.offset);
        if (rings_[n.ring].end == 0) rings_[n.ring].begin = followers_.size();
        followers_.push_back({base, *base});
        rings_[n.ring].end = followers_.size();
    }
}

void Rings::turn(Turning& ring) noexcept {
    RingRows& rows = ring.rows;
    rows.at += rows.step;
    if (rows.at >= rows.size) rows.at -= rows.size;
    for (std::size_t f = ring.begin; f < ring.end; ++f) *followers_[f].base = followers_[f].first + rows.at;
}

}  // namespace ltc
