// The meaning of every instruction, compiled once per CPU instruction set under the name LTC_ISA. Each reads like its row
// in docs/isa.md; lanes.h has the numeric rules. A row of the table without a Semantics here does not build.
// Nothing here allocates, throws or checks: verify.cpp has shown that it need not.
#include "kernels.h"

#include "lanes.h"

namespace ltc::LTC_ISA {
namespace {

using isa::Opcode;

inline float* resolve(const Frame& f, const Address& a) { return a.base + f.counter[a.level] * a.stride; }

// What each instruction does. An elementwise one has `apply` on vectors of its sources; any other has `run` on a whole
// step. bf16 is the precision of the result, W the lanes of a vector of a row.
template <Opcode>
struct Semantics;

// ---- elementwise -----------------------------------------------------------------------------------------------------

struct Unary { static constexpr int arity = 1; };
struct Binary { static constexpr int arity = 2; };
struct Ternary { static constexpr int arity = 3; };

#define LTC_ELEMENTWISE(opcode, kind, function) \
    template <> struct Semantics<Opcode::opcode> : kind { \
        template <class... V> LTC_INLINE static auto apply(V... x) { return function(x...); } \
    };

template <class V>
LTC_INLINE V identity(V x) {
    return x;
}

LTC_ELEMENTWISE(move, Unary, identity)
LTC_ELEMENTWISE(state_write, Unary, identity)
LTC_ELEMENTWISE(add, Binary, ltc::add)
LTC_ELEMENTWISE(sub, Binary, ltc::sub)
LTC_ELEMENTWISE(mul, Binary, ltc::mul)
LTC_ELEMENTWISE(div, Binary, ltc::div)
LTC_ELEMENTWISE(min, Binary, ltc::minimum)
LTC_ELEMENTWISE(max, Binary, ltc::maximum)
LTC_ELEMENTWISE(gt, Binary, ltc::gt)
LTC_ELEMENTWISE(ge, Binary, ltc::ge)
LTC_ELEMENTWISE(lt, Binary, ltc::lt)
LTC_ELEMENTWISE(le, Binary, ltc::le)
LTC_ELEMENTWISE(eq, Binary, ltc::eq)
LTC_ELEMENTWISE(ne, Binary, ltc::ne)
LTC_ELEMENTWISE(select, Ternary, ltc::select)
LTC_ELEMENTWISE(neg, Unary, ltc::neg)
LTC_ELEMENTWISE(abs, Unary, ltc::absolute)
LTC_ELEMENTWISE(relu, Unary, ltc::relu)
LTC_ELEMENTWISE(sqrt, Unary, ltc::sqrt)

template <Activation which>
struct Activated : Unary {
    static constexpr Activation activation = which;
};
#define LTC_ACTIVATION(name) \
    template <> struct Semantics<Opcode::name> : Activated<Activation::name> {};

LTC_ACTIVATION(sigmoid)
LTC_ACTIVATION(tanh)
LTC_ACTIVATION(exp)
LTC_ACTIVATION(exp2)
LTC_ACTIVATION(log)
LTC_ACTIVATION(softplus)
LTC_ACTIVATION(silu)
LTC_ACTIVATION(gelu)
LTC_ACTIVATION(gelu_tanh)
LTC_ACTIVATION(reciprocal)
LTC_ACTIVATION(rsqrt)

template <Opcode op, bool bf16, int W>
LTC_INLINE Floats<W> result(const float* const* src, std::uint32_t l) {
    using S = Semantics<op>;
    using V = Floats<W>;
    const V a = load<V>(src[0] + l);
    if constexpr (requires { S::activation; })
        return activation<S::activation, bf16>(a);
    else if constexpr (S::arity == 1)
        return write<bf16>(S::apply(a));
    else if constexpr (S::arity == 2)
        return write<bf16>(S::apply(a, load<V>(src[1] + l)));
    else
        return write<bf16>(S::apply(a, load<V>(src[1] + l), load<V>(src[2] + l)));
}

template <Opcode op, bool bf16, int W>
const Step* elementwise(Frame& f, const Step* step) {
    constexpr int arity = Semantics<op>::arity;
    const GridStep& g = step->grid;
    float* at[4];
    for (int n = 0; n <= arity; ++n) at[n] = resolve(f, g.at[n]);
    for (std::uint32_t o = 0; o < g.n_outer; ++o) {
        float* row[4];
        for (int n = 0; n <= arity; ++n) row[n] = at[n];
        for (std::uint32_t i = 0; i < g.n_inner; ++i) {
            for (std::uint32_t l = 0; l < g.lanes; l += W) store(row[0] + l, result<op, bf16, W>(row + 1, l));
            for (int n = 0; n <= arity; ++n) row[n] += g.inner[n];
        }
        for (int n = 0; n <= arity; ++n) at[n] += g.outer[n];
    }
    return step + 1;
}

template <>
struct Semantics<Opcode::splat> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        const GridStep& g = step->grid;
        float *dst = resolve(f, g.at[0]), *src = resolve(f, g.at[1]);
        for (std::uint32_t o = 0; o < g.n_outer; ++o)
            for (std::uint32_t i = 0; i < g.n_inner; ++i) {
                const Floats<W> v = write<bf16>(ltc::splat<Floats<W>>(src[o * g.outer[1] + i * g.inner[1] + g.lane]));
                float* row = dst + o * g.outer[0] + i * g.inner[0];
                for (std::uint32_t l = 0; l < g.lanes; l += W) store(row + l, v);
            }
        return step + 1;
    }
};

// ---- rule 7 ----------------------------------------------------------------------------------------------------------

template <bool wide, int W>
LTC_INLINE Floats<W> accumulate_pair(Floats<W> a, const std::uint32_t* w, const float* x) {
    using V = Floats<W>;
    if constexpr (wide) {
        a = a + load<V>(w) * x[0];
        return a + load<V>(w + W) * x[1];
    } else {
        const U<V> pair = load<U<V>>(w);
        a = a + from_bits<V>(pair & 0xFFFF0000u) * x[0];
        return a + from_bits<V>(pair << 16) * x[1];
    }
}

// The dot products of one group of outputs; moves w past its weights.
template <bool wide, int W>
LTC_INLINE Floats<W> dot(const std::uint32_t*& w, const float* x, std::uint32_t pairs) {
    const std::uint32_t chunks = chunks_of(pairs);
    Floats<W> sums[8];
    for (std::uint32_t c = 0; c < chunks; ++c) {
        Floats<W> a[8] = {};
        for (std::uint32_t p = 8 * c; p < pairs; p += 64) {
#pragma GCC unroll 8
            for (int n = 0; n < 8; ++n) {
                a[n] = accumulate_pair<wide, W>(a[n], w, x + 2 * (p + static_cast<std::uint32_t>(n)));
                w += wide ? 2 * W : W;
            }
        }
        sums[c] = tree_of_8(a);
    }
    return tree_of_chunks(sums, chunks);
}

// x as the matrix unit reads it, with zeros up to a multiple of 16.
template <bool round, int W>
inline void read_x(float* out, const float* x, std::uint32_t k) {
    const std::uint32_t end = (k + 15) / 16 * 16;
    std::uint32_t l = 0;
    for (; l + W <= k; l += W) {
        const Floats<W> v = load<Floats<W>>(x + l);
        store(out + l, round ? to_bf16(v) : v);
    }
    for (; l < k; ++l) out[l] = round ? to_bf16(x[l]) : x[l];
    for (; l < end; ++l) out[l] = 0.0f;
}

template <bool wide, bool bf16>
const Step* matmul(Frame& f, const Step* step) {
    constexpr int W = native;
    const MatmulStep& m = step->matmul;
    float* dst = resolve(f, m.dst);
    const float *x = resolve(f, m.x), *bias = resolve(f, m.bias);
    const std::uint32_t pairs = (m.k + 1) / 2;
    for (std::uint32_t b = 0; b < m.batch; ++b, dst += m.dst_step, x += m.x_step) {
        read_x<!wide, W>(m.scratch, x, m.k);
        const std::uint32_t* w = m.weights;
        std::uint32_t o = 0;
        for (; o + W <= m.outputs; o += W)
            store(dst + o, write<bf16>(dot<wide, W>(w, m.scratch, pairs) + load<Floats<W>>(bias + o)));
        if (o < m.outputs) {
            float tail[W] = {};
            for (std::uint32_t n = 0; n < m.outputs - o; ++n) tail[n] = bias[o + n];
            store(tail, write<bf16>(dot<wide, W>(w, m.scratch, pairs) + load<Floats<W>>(tail)));
            for (std::uint32_t n = 0; n < m.outputs - o; ++n) dst[o + n] = tail[n];
        }
    }
    return step + 1;
}

template <>
struct Semantics<Opcode::matmul> {
    template <bool bf16, int>
    static const Step* run(Frame& f, const Step* step) { return matmul<false, bf16>(f, step); }
};
template <>
struct Semantics<Opcode::matmul_fp32> {
    template <bool bf16, int>
    static const Step* run(Frame& f, const Step* step) { return matmul<true, bf16>(f, step); }
};

inline float sum_of_row(const float* src, std::uint32_t k) {
    float a[64] = {};
    std::uint32_t e = 0;
    for (; e + 128 <= k; e += 128)
        for (std::uint32_t n = 0; n < 64; ++n) {
            a[n] += src[e + 2 * n];
            a[n] += src[e + 2 * n + 1];
        }
    for (std::uint32_t n = 0; e + n < k; ++n) a[n / 2] += src[e + n];
    for (std::uint32_t width = 32; width > 0; width /= 2)
        for (std::uint32_t n = 0; n < width; ++n) a[n] = a[2 * n] + a[2 * n + 1];
    return a[0];
}

template <bool bf16, int W, class Reduction>
inline const Step* row_reduce(Frame& f, const Step* step, Reduction reduction) {
    const RowReduceStep& r = step->row_reduce;
    float* dst = resolve(f, r.dst);
    const float* src = resolve(f, r.src);
    for (std::uint32_t g = 0; g < r.groups; ++g, dst += r.dst_step, src += r.src_step) {
        const Floats<W> v = write<bf16>(ltc::splat<Floats<W>>(reduction(src, r.k)));
        for (std::uint32_t l = 0; l < r.lanes; l += W) store(dst + l, v);
    }
    return step + 1;
}

template <>
struct Semantics<Opcode::row_sum> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return row_reduce<bf16, W>(f, step, [](const float* src, std::uint32_t k) { return sum_of_row(src, k); });
    }
};
template <>
struct Semantics<Opcode::row_max> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return row_reduce<bf16, W>(f, step, [](const float* src, std::uint32_t k) { return reduce_max(src, k); });
    }
};

template <int W>
LTC_INLINE Floats<W> sum_of_column(const float* src, std::ptrdiff_t k_step, std::uint32_t k) {
    const std::uint32_t chunks = chunks_of((k + 1) / 2);
    Floats<W> sums[8];
    for (std::uint32_t c = 0; c < chunks; ++c) {
        Floats<W> a[8] = {};
        for (std::uint32_t e = 16 * c; e < k; e += 128)
            for (std::uint32_t n = 0; n < 16 && e + n < k; ++n) a[n / 2] = a[n / 2] + load<Floats<W>>(src + (e + n) * k_step);
        sums[c] = tree_of_8(a);
    }
    return tree_of_chunks(sums, chunks);
}

template <int W>
LTC_INLINE Floats<W> maximum_of_column(const float* src, std::ptrdiff_t k_step, std::uint32_t k) {
    Floats<W> best = load<Floats<W>>(src);
    for (std::uint32_t e = 1; e < k; ++e) best = maximum(best, load<Floats<W>>(src + e * k_step));
    return best;
}

template <bool bf16, int W, class Reduction>
inline const Step* column_reduce(Frame& f, const Step* step, Reduction reduction) {
    const ColumnReduceStep& r = step->column_reduce;
    float* dst = resolve(f, r.dst);
    const float* src = resolve(f, r.src);
    for (std::uint32_t i = 0; i < r.n_inner; ++i, dst += r.lanes, src += r.lanes)
        for (std::uint32_t l = 0; l < r.lanes; l += W) store(dst + l, write<bf16>(reduction(src + l, r.k_step, r.k)));
    return step + 1;
}

template <>
struct Semantics<Opcode::column_sum> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return column_reduce<bf16, W>(f, step, [](const float* src, std::ptrdiff_t k_step, std::uint32_t k) {
            return sum_of_column<W>(src, k_step, k);
        });
    }
};
template <>
struct Semantics<Opcode::column_max> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        return column_reduce<bf16, W>(f, step, [](const float* src, std::ptrdiff_t k_step, std::uint32_t k) {
            return maximum_of_column<W>(src, k_step, k);
        });
    }
};

// ---- synapses --------------------------------------------------------------------------------------------------------

// Rule 11 for one vector of lanes of one slot.
template <bool bf16, int W>
LTC_INLINE void synapse(const float* p, const float* v, Floats<W>& num, Floats<W>& den) {
    using V = Floats<W>;
    const V mu = load<V>(p + W), sigma = load<V>(p + 2 * W), w = load<V>(p + 3 * W), we = load<V>(p + 4 * W);
    const V s = activation<Activation::sigmoid, bf16>(sigma * (pick<V>(v, load<U<V>>(p)) - mu));
    num = num + s * we;
    den = den + s * w;
}

// One target row, G vectors of its lanes at a time.
template <bool bf16, int W, int G>
inline void synapse_row(const SynapseStep& s, const float* slot, std::uint32_t run, float* num_row, float* den_row) {
    for (std::uint32_t l = 0; l < s.lanes; l += W * G) {
        Floats<W> num[G] = {}, den[G] = {};
        const float* p = slot + 5 * l;
        for (std::uint32_t n = 0; n < run; ++n, p += 5 * s.lanes)
            for (int g = 0; g < G; ++g) synapse<bf16, W>(p + 5 * W * g, s.scratch, num[g], den[g]);
        for (int g = 0; g < G; ++g) {
            store(num_row + l + static_cast<std::uint32_t>(W * g), write_fp32(num[g]));
            store(den_row + l + static_cast<std::uint32_t>(W * g), write_fp32(den[g]));
        }
    }
}

template <>
struct Semantics<Opcode::synapse> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        const SynapseStep& s = step->synapse;
        float *num = resolve(f, s.num), *den = resolve(f, s.den);
        const float *v = resolve(f, s.v), *slot = s.slots;
        const std::uint32_t* run = s.runs;
        for (std::uint32_t l = 0; l < s.sources; l += W) {
            const Floats<W> x = load<Floats<W>>(v + l);
            store(s.scratch + 1 + l, bf16 ? to_bf16(x) : x);
        }
        s.scratch[0] = 0.0f;
        for (std::uint32_t t = 0; t < s.targets; ++t, num += s.lanes, den += s.lanes) {
            const std::uint32_t n = *run;
            if (s.lanes == W)
                synapse_row<bf16, W, 1>(s, slot, n, num, den);
            else
                synapse_row<bf16, W, 2>(s, slot, n, num, den);
            slot += std::size_t{n} * 5 * s.lanes;
            run += n;
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
                store(to + l, choose<V>(lane < 0, kept, pick<V>(from, __builtin_bit_cast(U<V>, lane < 0 ? I<V>{} : lane))));
            }
        }
        return step + 1;
    }
};

template <int W>
inline void copy(float* to, const float* from, std::uint32_t lanes) {
    for (std::uint32_t l = 0; l < lanes; l += W) store(to + l, load<Floats<W>>(from + l));
}

template <>
struct Semantics<Opcode::send> {
    template <bool, int W>
    static const Step* run(Frame& f, const Step* step) {
        const LinkStep& link = step->link;
        Fifo& fifo = *link.fifo;
        const float* row = resolve(f, link.at);
        for (std::uint32_t r = 0; r < link.rows; ++r, row += link.lanes) {
            const std::uint32_t end = fifo.head + fifo.count++;
            copy<W>(fifo.data + std::size_t{end < fifo.capacity ? end : end - fifo.capacity} * link.lanes, row, link.lanes);
        }
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
        for (std::uint32_t r = 0; r < link.rows; ++r, row += link.lanes) {
            copy<W>(row, fifo.data + std::size_t{fifo.head} * link.lanes, link.lanes);
            fifo.head = fifo.head + 1 < fifo.capacity ? fifo.head + 1 : 0;
            --fifo.count;
        }
        return step + 1;
    }
};

template <>
struct Semantics<Opcode::input> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        const PortStep& p = step->port;
        float* row = resolve(f, p.at);
        const float* host = f.inputs[p.port];
        for (std::uint32_t v = 0; v < p.vectors; ++v, row += p.row_lanes, host += p.width)
            for (std::uint32_t l = 0; l < p.row_lanes; l += W) {
                Floats<W> x{};
                if (l + W <= p.width)
                    x = load<Floats<W>>(host + l);
                else
                    for (std::uint32_t n = l; n < p.width; ++n) x[n - l] = host[n];
                store(row + l, write<bf16>(x));
            }
        return step + 1;
    }
};

template <>
struct Semantics<Opcode::output> {
    template <bool, int>
    static const Step* run(Frame& f, const Step* step) {
        const PortStep& p = step->port;
        const float* row = resolve(f, p.at);
        float* host = f.outputs[p.port];
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

template <bool bf16, int W>
Handler find(Opcode opcode) {
    switch (opcode) {
#define LTC_CASE(name, format, unit, latency) \
    case Opcode::name: return handler_of<Opcode::name, bf16, W>();
        LTC_INSTRUCTIONS(LTC_CASE)
    }
    return nullptr;
}

template <int W>
Handler find(Opcode opcode, isa::Precision precision) {
    return precision == isa::Precision::bf16 ? find<true, W>(opcode) : find<false, W>(opcode);
}

Handler handler(Opcode opcode, isa::Precision precision, std::uint32_t block_size) {
    switch (row_vector(native, block_size)) {
        case 16: return find<native < 16 ? native : 16>(opcode, precision);
        case 8: return find<native < 8 ? native : 8>(opcode, precision);
        default: return find<4>(opcode, precision);
    }
}

#define LTC_STRING(x) #x
#define LTC_NAME(x) LTC_STRING(x)

}  // namespace

extern const Kernels kernels{LTC_NAME(LTC_ISA), native, &stop, &handler};

}  // namespace ltc::LTC_ISA
