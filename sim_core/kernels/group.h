// What crosses lanes, for a group of streams: rows there are those of all streams, one behind the other (StreamGroup). What
// goes lane by lane needs nothing of its own. The numbers of a stream are those of the single stream, bit for bit: the
// same arithmetic is called, on other addresses.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "kernels/elementwise.h"
#include "kernels/reduce.h"
#include "kernels/semantics.h"

namespace ltc::LTC_ISA {
namespace {

// As Semantics, on the rows of a group. An opcode without it, and not among those that go lane by lane, has no handler for
// groups, and a program that holds it runs stream by stream.
template <Opcode>
struct GroupSemantics;

template <Opcode op>
constexpr bool goes_by_lanes = requires { Semantics<op>::arity; };
#define LTC_BY_LANES(opcode) \
    template <> constexpr bool goes_by_lanes<Opcode::opcode> = true;
LTC_BY_LANES(ltc_update)
LTC_BY_LANES(column_sum)
LTC_BY_LANES(column_max)
LTC_BY_LANES(send)
LTC_BY_LANES(receive)
LTC_BY_LANES(loop)
LTC_BY_LANES(end)
#undef LTC_BY_LANES

// Lane l of rows of one stream that follow each other, from the stream's place in the first of them on.
class OfStream {
public:
    LTC_INLINE explicit OfStream(const StreamGroup& g)
        : shift_(static_cast<std::uint32_t>(__builtin_ctz(g.lanes))), mask_(g.lanes - 1), row_(g.row) {}
    LTC_INLINE std::ptrdiff_t offset(std::uint32_t l) const { return (l >> shift_) * row_ + (l & mask_); }
    template <class T>
    LTC_INLINE T* operator()(T* rows, std::uint32_t l) const { return rows + offset(l); }

private:
    std::uint32_t shift_, mask_;  // the lanes of a row are a power of two
    std::ptrdiff_t row_;
};

// `lanes` floats of whole rows of a stream, out of the group's rows into one piece, and back.
LTC_INLINE void take_rows(const StreamGroup& g, float* to, const float* rows, std::uint32_t lanes) {
    for (std::uint32_t l = 0; l < lanes; l += g.lanes, rows += g.row) __builtin_memcpy(to + l, rows, g.lanes * sizeof(float));
}
LTC_INLINE void put_rows(const StreamGroup& g, float* rows, const float* from, std::uint32_t lanes) {
    for (std::uint32_t l = 0; l < lanes; l += g.lanes, rows += g.row) __builtin_memcpy(rows, from + l, g.lanes * sizeof(float));
}

template <>
struct GroupSemantics<Opcode::splat> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        const GridStep& g = step->grid;
        const StreamGroup& group = *f.group;
        float *dst = resolve(f, g.at[0]), *src = resolve(f, g.at[1]);
        for (std::uint32_t o = 0; o < g.n_outer; ++o)
            for (std::uint32_t i = 0; i < g.n_inner; ++i) {
                const float* from = src + o * g.outer[1] + i * g.inner[1] + g.lane;
                float* row = dst + o * g.outer[0] + i * g.inner[0];
                for (std::uint32_t s = 0; s < group.active; ++s, from += group.lanes, row += group.lanes) {
                    const Floats<W> v = write<bf16>(ltc::splat<Floats<W>>(*from));
                    for (std::uint32_t l = 0; l < group.lanes; l += W) store(row + l, v);
                }
            }
        return step + 1;
    }
};

// Reductions along a row are those of single streams, one stream after the other; a long row is first put into one piece.
template <Opcode op, bool bf16, int W>
const Step* row_reduce_of_group(Frame& f, const Step* step) {
    const StreamGroup& group = *f.group;
    const RowReduceStep& r = step->row_reduce;
    auto* piece = reinterpret_cast<float*>(group.scratch);
    Step one = *step;
    one.row_reduce.groups = 1;
    one.row_reduce.lanes = group.lanes;
    float* dst = resolve(f, r.dst);
    float* src = resolve(f, r.src);
    for (std::uint32_t n = 0; n < r.groups; ++n, dst += r.dst_step, src += r.src_step)
        for (std::uint32_t s = 0; s < group.active; ++s) {
            one.row_reduce.dst = {dst + s * group.lanes, 0, 0};
            float* row = src + s * group.lanes;
            if (r.k > group.lanes) take_rows(group, piece, row, r.k), row = piece;
            one.row_reduce.src = {row, 0, 0};
            Semantics<op>::template run<bf16, W>(f, &one);
        }
    return step + 1;
}
template <>
struct GroupSemantics<Opcode::row_sum> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) { return row_reduce_of_group<Opcode::row_sum, bf16, W>(f, step); }
};
template <>
struct GroupSemantics<Opcode::row_max> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) { return row_reduce_of_group<Opcode::row_max, bf16, W>(f, step); }
};

template <>
struct GroupSemantics<Opcode::transpose> {
    template <bool, int>
    static const Step* run(Frame& f, const Step* step) {
        const TransposeStep& t = step->transpose;
        const StreamGroup& group = *f.group;
        const float* const src = resolve(f, t.src);
        float* to = resolve(f, t.dst);
        for (std::uint32_t j = 0; j < t.dst_rows; ++j, to += t.dst_step)
            for (std::uint32_t s = 0; s < group.active; ++s) {
                const float* from = src + s * group.lanes + j;
                float* row = to + s * group.lanes;
                for (std::uint32_t i = 0; i < t.src_rows; ++i, from += t.src_step) row[i] = *from;
                for (std::uint32_t i = t.src_rows; i < group.lanes; ++i) row[i] = 0.0f;
            }
        return step + 1;
    }
};

template <>
struct GroupSemantics<Opcode::gather> {
    template <bool, int W>
    static const Step* run(Frame& f, const Step* step) {
        using V = Floats<W>;
        const GatherStep& g = step->gather;
        const StreamGroup& group = *f.group;
        float *dst = resolve(f, g.dst), *src = resolve(f, g.src);
        const std::int32_t* entry = g.entries;
        for (std::uint32_t e = 0; e < g.count; ++e, entry += 2 + group.lanes) {
            const float* from = src + std::ptrdiff_t{entry[0]} * group.streams;
            float* to = dst + std::ptrdiff_t{entry[1]} * group.streams;
            for (std::uint32_t s = 0; s < group.active; ++s, from += group.lanes, to += group.lanes)
                for (std::uint32_t l = 0; l < group.lanes; l += W) {
                    const I<V> lane = load<I<V>>(entry + 2 + l);
                    const V kept = choose<V>(lane == lane_keep, load<V>(to + l), V{});
                    store(to + l, choose<V>(lane < 0, kept, pick<V>(from, group.lanes, __builtin_bit_cast(U<V>, lane))));
                }
        }
        return step + 1;
    }
};

template <>
struct GroupSemantics<Opcode::input> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        const PortStep& p = step->port;
        const StreamGroup& group = *f.group;
        float* at = resolve(f, p.at);
        const float* of_stream = f.inputs[p.port] + p.first;
        for (std::uint32_t s = 0; s < group.active; ++s, at += group.lanes, of_stream += group.steps * p.elements) {
            float* row = at;
            const float* host = of_stream;
            for (std::uint32_t v = 0; v < p.vectors; ++v, host += p.width)
                for (std::uint32_t first = 0; first < p.row_lanes; first += group.lanes, row += group.row)
                    for (std::uint32_t l = first; l < first + group.lanes; l += W)
                        store(row + (l - first), write<bf16>(read_host<W>(host, l, p.width)));
        }
        return step + 1;
    }
};

template <>
struct GroupSemantics<Opcode::output> {
    template <bool, int>
    static const Step* run(Frame& f, const Step* step) {
        const PortStep& p = step->port;
        const StreamGroup& group = *f.group;
        const float* at = resolve(f, p.at);
        float* of_stream = f.outputs[p.port] + p.first;
        for (std::uint32_t s = 0; s < group.active; ++s, at += group.lanes, of_stream += group.steps * p.elements) {
            const float* row = at;
            float* host = of_stream;
            for (std::uint32_t v = 0; v < p.vectors; ++v, host += p.width)
                for (std::uint32_t first = 0; first < p.row_lanes; first += group.lanes, row += group.row)
                    if (first < p.width) {
                        const std::uint32_t left = p.width - first, n = left < group.lanes ? left : group.lanes;
                        __builtin_memcpy(host + first, row, n * sizeof(float));
                    }
        }
        return step + 1;
    }
};

}  // namespace
}  // namespace ltc::LTC_ISA
