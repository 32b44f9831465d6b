// The meaning of every instruction, compiled once per CPU instruction set under the name LTC_ISA: moves, control and the
// table of all stand here, the rest in the headers. A row of the instruction table without a Semantics does not build.
#include "kernels/elementwise.h"
#include "kernels/few_terms.h"
#include "kernels/fused.h"
#include "kernels/group_matmul.h"
#include "kernels/group_synapse.h"
#include "kernels/matmul.h"
#include "kernels/product.h"
#include "kernels/reduce.h"
#include "kernels/synapse.h"

namespace ltc::LTC_ISA {
namespace {

template <>
struct Semantics<Opcode::ltc_update> {
    template <bool, int W>
    static const Step* run(Frame& f, const Step* step) {
        const UpdateStep& u = step->update;
        for (std::uint32_t i = 0; i < u.n; ++i) {
            float* row[UpdateStep::operands];
            for (int n = 0; n < UpdateStep::operands; ++n) row[n] = resolve(f, u.at[n]) + i * u.step[n];
            for (std::uint32_t l = 0; l < u.lanes; l += W) {
                const auto x = [&](int n) { return load<Floats<W>>(row[n] + l); };
                const auto v = x(1), cm = x(2), h = x(3), leak = x(4), conductance = x(5), num = x(6), den = x(7);
                store(row[0] + l, ltc::ltc_update(v, num, den, leak, conductance, cm, h));
            }
        }
        return step + 1;
    }
};

// ---- moves -----------------------------------------------------------------------------------------------------------

template <>
struct Semantics<Opcode::gather> {
    template <bool, int W>
    static const Step* run(Frame& f, const Step* step) {
        const GatherStep& g = step->gather;
        float *dst = resolve(f, g.dst), *src = resolve(f, g.src);
        const std::int32_t* entry = g.entries;
        for (std::uint32_t e = 0; e < g.count; ++e, entry += 2 + g.lanes) {
            const float* from = src + entry[0];
            float* to = dst + entry[1];
            for (std::uint32_t l = 0; l < g.lanes; l += W) {
                using V = Floats<W>;
                const I<V> lane = load<I<V>>(entry + 2 + l);
                const V kept = choose<V>(lane == lane_keep, load<V>(to + l), V{});
                store(to + l, choose<V>(lane < 0, kept, pick<V>(from, g.lanes, __builtin_bit_cast(U<V>, lane))));
            }
        }
        return step + 1;
    }
};

template <>
struct Semantics<Opcode::transpose> {
    template <bool, int>
    static const Step* run(Frame& f, const Step* step) {
        const TransposeStep& t = step->transpose;
        const float* const src = resolve(f, t.src);
        float* to = resolve(f, t.dst);
        for (std::uint32_t j = 0; j < t.dst_rows; ++j, to += t.dst_step) {
            const float* from = src + j;
            for (std::uint32_t i = 0; i < t.src_rows; ++i, from += t.src_step) to[i] = *from;
            for (std::uint32_t i = t.src_rows; i < t.lanes; ++i) to[i] = 0.0f;
        }
        return step + 1;
    }
};

template <int W>
inline void copy(float* to, const float* from, std::size_t lanes) {
    for (std::size_t l = 0; l < lanes; l += W) store(to + l, load<Floats<W>>(from + l));
}

template <>
struct Semantics<Opcode::send> {
    template <bool, int W>
    static const Step* run(Frame& f, const Step* step) {
        const LinkStep& link = step->link;
        Fifo& fifo = *link.fifo;
        const float* row = resolve(f, link.at);
        const std::uint32_t tail = fifo.head + fifo.count, end = tail < fifo.capacity ? tail : tail - fifo.capacity;
        const std::uint32_t ahead = link.rows < fifo.capacity - end ? link.rows : fifo.capacity - end;  // before it wraps
        copy<W>(fifo.data + std::size_t{end} * link.lanes, row, std::size_t{ahead} * link.lanes);
        copy<W>(fifo.data, row + std::size_t{ahead} * link.lanes, std::size_t{link.rows - ahead} * link.lanes);
        fifo.count += link.rows;
        return step + 1;
    }
};

template <>
struct Semantics<Opcode::receive> {
    template <bool, int W>
    static const Step* run(Frame& f, const Step* step) {
        const LinkStep& link = step->link;
        Fifo& fifo = *link.fifo;
        float* row = resolve(f, link.at);
        const std::uint32_t left = fifo.capacity - fifo.head, ahead = link.rows < left ? link.rows : left;
        copy<W>(row, fifo.data + std::size_t{fifo.head} * link.lanes, std::size_t{ahead} * link.lanes);
        copy<W>(row + std::size_t{ahead} * link.lanes, fifo.data, std::size_t{link.rows - ahead} * link.lanes);
        fifo.head = ahead < left ? fifo.head + ahead : link.rows - ahead;
        fifo.count -= link.rows;
        return step + 1;
    }
};

template <>
struct Semantics<Opcode::input> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        const PortStep& p = step->port;
        float* row = resolve(f, p.at);
        const float* host = f.inputs[p.port] + p.first;
        for (std::uint32_t v = 0; v < p.vectors; ++v, row += p.row_lanes, host += p.width)
            for (std::uint32_t l = 0; l < p.row_lanes; l += W) store(row + l, write<bf16>(read_host<W>(host, l, p.width)));
        return step + 1;
    }
};

template <>
struct Semantics<Opcode::output> {
    template <bool, int>
    static const Step* run(Frame& f, const Step* step) {
        const PortStep& p = step->port;
        const float* row = resolve(f, p.at);
        float* host = f.outputs[p.port] + p.first;
        for (std::uint32_t v = 0; v < p.vectors; ++v, row += p.row_lanes, host += p.width)
            __builtin_memcpy(host, row, std::size_t{p.width} * sizeof(float));
        return step + 1;
    }
};

// ---- control ---------------------------------------------------------------------------------------------------------

template <>
struct Semantics<Opcode::loop> {
    template <bool, int>
    static const Step* run(Frame& f, const Step* step) {
        f.counter[step->loop.level] = 0;
        return step + 1;
    }
};

template <>
struct Semantics<Opcode::end> {
    template <bool, int>
    static const Step* run(Frame& f, const Step* step) {
        const LoopStep& loop = step->loop;
        return ++f.counter[loop.level] < static_cast<std::ptrdiff_t>(loop.count) ? loop.body : step + 1;
    }
};

const Step* stop(Frame&, const Step*) { return nullptr; }

// ---- table -----------------------------------------------------------------------------------------------------------

template <Opcode op, bool bf16, int W>
constexpr Handler handler_of() {
    if constexpr (requires { Semantics<op>::arity; })
        return &elementwise<op, bf16, W>;
    else
        return &Semantics<op>::template run<bf16, W>;
}

template <Opcode op, bool bf16, int W>
constexpr Handler group_handler_of() {
    if constexpr (goes_by_lanes<op>)
        return handler_of<op, bf16, W>();
    else if constexpr (requires { &GroupSemantics<op>::template run<bf16, W>; })
        return &GroupSemantics<op>::template run<bf16, W>;
    else
        return nullptr;
}

template <bool group, bool bf16, int W>
Handler find(Opcode opcode) {
    switch (opcode) {
#define LTC_CASE(name, format, unit, latency) \
    case Opcode::name: return group ? group_handler_of<Opcode::name, bf16, W>() : handler_of<Opcode::name, bf16, W>();
        LTC_INSTRUCTIONS(LTC_CASE)
    }
    return nullptr;
}

template <bool group, int W>
Handler find(Opcode opcode, isa::Precision precision) {
    return precision == isa::Precision::bf16 ? find<group, true, W>(opcode) : find<group, false, W>(opcode);
}

Handler handler(Opcode opcode, isa::Precision precision, std::uint32_t block_size) {
    switch (row_vector(native, block_size)) {
        case 16: return find<false, native < 16 ? native : 16>(opcode, precision);
        case 8: return find<false, native < 8 ? native : 8>(opcode, precision);
        default: return find<false, 4>(opcode, precision);
    }
}

Handler group_handler(Opcode opcode, isa::Precision precision, std::uint32_t block_size) {
    return block_size < native ? nullptr : find<true, native>(opcode, precision);
}

Handler few_terms(std::uint32_t pairs, isa::Precision precision) {
    return precision == isa::Precision::bf16 ? few_terms_handler<true>(pairs) : few_terms_handler<false>(pairs);
}

std::span<const FusedRun> fused(std::uint32_t block_size) {
    switch (row_vector(native, block_size)) {
        case 16: return fused_runs<native < 16 ? native : 16>;
        case 8: return fused_runs<native < 8 ? native : 8>;
        default: return fused_runs<4>;
    }
}

#define LTC_STRING(x) #x
#define LTC_NAME(x) LTC_STRING(x)

}  // namespace

extern const Kernels kernels{LTC_NAME(LTC_ISA), native, mixes_lanes<native>, &stop, &handler, &group_handler, &few_terms, &fused};

}  // namespace ltc::LTC_ISA
