// The meaning of every instruction, compiled once per CPU instruction set under the name LTC_ISA. Each reads like its row
// in docs/isa.md; lanes.h has the numeric rules. A row of the table without a Semantics here does not build.
// Nothing here allocates, throws or checks: verify.cpp has shown that it need not.
#include "kernels.h"

#include "lanes.h"
#include "sequences.h"

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
LTC_INLINE void elementwise_row(float* const* row, std::uint32_t lanes) {
    for (std::uint32_t l = 0; l < lanes; l += W) store(row[0] + l, result<op, bf16, W>(row + 1, l));
}

template <Opcode op, bool bf16, int W>
const Step* elementwise(Frame& f, const Step* step) {
    constexpr int operands = 1 + Semantics<op>::arity;
    const GridStep& g = step->grid;
    float* at[operands];
    for (int n = 0; n < operands; ++n) at[n] = resolve(f, g.at[n]);
    if (g.n_outer == 1 && g.n_inner == 1) {  // as most are: execute.cpp makes one long row where it can
        elementwise_row<op, bf16, W>(at, g.lanes);
        return step + 1;
    }
    for (std::uint32_t o = 0; o < g.n_outer; ++o) {
        float* row[operands];
        for (int n = 0; n < operands; ++n) row[n] = at[n];
        for (std::uint32_t i = 0; i < g.n_inner; ++i) {
            elementwise_row<op, bf16, W>(row, g.lanes);
            for (int n = 0; n < operands; ++n) row[n] += g.inner[n];
        }
        for (int n = 0; n < operands; ++n) at[n] += g.outer[n];
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

// How a matmul computes: fp32 operands; bf16 operands; bf16 operands for which fused operations are exact.
enum class Products { wide, plain, fused };

// A group of outputs with N vectors of x: their dot products, all accumulators of a chunk in registers.
template <Products how, int W, int N>
struct Group {
    using V = Floats<W>;
    struct Sums {
        V of[N];
    };
    static constexpr bool wide = how == Products::wide;
    static constexpr std::size_t pair_words = wide ? 2 * W : W;

    const std::uint32_t *w, *x;
    std::size_t x_words;  // from one vector to the next
    std::uint32_t pairs;

    // The accumulators 8 * chunk to 8 * chunk + 7, summed; moves w past their weights.
    LTC_INLINE Sums sum_chunk(std::uint32_t chunk) {
        V a[N][8] = {};
        for (std::uint32_t p = 8 * chunk; p < pairs; p += 64, w += 8 * pair_words) {
#pragma GCC unroll 8
            for (std::size_t n = 0; n < 8; ++n)
#pragma GCC unroll 2
                for (std::size_t i = 0; i < N; ++i)
                    add(a[i][n], w + n * pair_words, x + i * x_words + (wide ? 2 : 1) * (p + n));
        }
        Sums sums;
        for (int i = 0; i < N; ++i) sums.of[i] = tree_of_8(a[i]);
        return sums;
    }

    // The chunks from `first` on, n of them. Those that no term reaches are +0 and change nothing, as no sum is -0.
    template <std::uint32_t first, std::uint32_t n>
    LTC_INLINE Sums sum() {
        if constexpr (n == 1) {
            return sum_chunk(first);
        } else {
            Sums sums = sum<first, n / 2>();
            if (8 * (first + n / 2) < pairs) {
                const Sums more = sum<first + n / 2, n / 2>();
                for (int i = 0; i < N; ++i) sums.of[i] = sums.of[i] + more.of[i];
            }
            return sums;
        }
    }

private:
    LTC_INLINE static void add(V& a, const std::uint32_t* w, const std::uint32_t* x) {
        if constexpr (wide) {
            a = a + load<V>(w) * from_bits<V>(all<V>(x[0]));
            a = a + load<V>(w + W) * from_bits<V>(all<V>(x[1]));
        } else {
            a = add_pair<how == Products::fused>(a, load<U<V>>(w), all<V>(x[0]));
        }
    }
};

// x as the matrix unit reads it, with zeros from k up to a multiple of 16. Whether fused operations are exact on it.
template <bool wide, int W>
LTC_INLINE bool read_x(const MatmulStep& m, std::uint32_t* out, const float* x) {
    using V = Floats<W>;
    U<V> outside{};
    for (std::uint32_t l = 0; l < (m.k + 15) / 16 * 16; l += W) {
        V v = load<V>(x + l);
        if (l + W > m.k) v = choose<V>(iota<V>() < static_cast<std::int32_t>(m.k) - static_cast<std::int32_t>(l), v, V{});
        if constexpr (wide) {
            store(out + l, v);
        } else {
            const U<V> u = rounded_bits(v), magnitude = u & 0x7FFF0000u;
            outside |= (U<V>)(((magnitude - m.x_low) > m.x_span) & (magnitude != 0));
            store(out + l / 2, pack_pairs<W>(u));
        }
    }
    return !wide && !any<V>(outside);
}

// The results of N vectors, which are in scratch.
template <Products how, bool bf16, int N>
inline void multiply(const MatmulStep& m, float* dst, const float* bias) {
    constexpr int W = native;
    Group<how, W, N> group{m.weights, m.scratch, (m.k + 15) / 16 * (how == Products::wide ? 16 : 8), (m.k + 1) / 2};
    std::uint32_t o = 0;
    for (; o + W <= m.outputs; o += W) {
        const auto y = group.template sum<0, 8>();
        for (int i = 0; i < N; ++i) store(dst + i * m.dst_step + o, write<bf16>(y.of[i] + load<Floats<W>>(bias + o)));
    }
    if (o == m.outputs) return;
    const auto y = group.template sum<0, 8>();
    for (int i = 0; i < N; ++i)  // rows narrower than a vector
        for (std::uint32_t n = 0; n < m.outputs - o; ++n) dst[i * m.dst_step + o + n] = write<bf16>(y.of[i][n] + bias[o + n]);
}

template <bool wide, bool bf16, int N>
inline void multiply(const MatmulStep& m, float* dst, const float* x, const float* bias) {
    const std::size_t words = (m.k + 15) / 16 * (wide ? 16 : 8);
    bool exact = true;
    for (int i = 0; i < N; ++i) exact &= read_x<wide, native>(m, m.scratch + static_cast<std::size_t>(i) * words, x + i * m.x_step);
    if constexpr (wide)
        multiply<Products::wide, bf16, N>(m, dst, bias);
    else if (exact)
        multiply<Products::fused, bf16, N>(m, dst, bias);
    else
        multiply<Products::plain, bf16, N>(m, dst, bias);
}

template <bool wide, bool bf16>
const Step* matmul(Frame& f, const Step* step) {
    const MatmulStep& m = step->matmul;
    float* dst = resolve(f, m.dst);
    const float *x = resolve(f, m.x), *bias = resolve(f, m.bias);
    std::uint32_t b = 0;
    if (m.apart)
        for (; b + 2 <= m.batch; b += 2, dst += 2 * m.dst_step, x += 2 * m.x_step) multiply<wide, bf16, 2>(m, dst, x, bias);
    for (; b < m.batch; ++b, dst += m.dst_step, x += m.x_step) multiply<wide, bf16, 1>(m, dst, x, bias);
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

// The presynaptic values of a step: picks those of a vector of lanes out of scratch. `registers` hold all of them, where
// the instruction set can pick from registers; with 0 they are read from memory.
template <int W, int registers>
struct NarrowSources {
    using V = Floats<W>;
    static constexpr std::uint32_t words = 3 * W;

    explicit NarrowSources(const std::uint32_t* scratch) : scratch_(scratch) {
        for (int i = 0; i < registers; ++i) values_[i] = load<U<V>>(scratch + scratch_zeros + i * W);
    }

    V pick(U<V> source) const {
        if constexpr (registers != 0)
            return from_bits<V>(pick_halves<V, registers>(values_, source));
        else
            return from_bits<V>(gather<2, V>(scratch_, source & 0xFFFFu) << 16);
    }

    // Rule 11 for one vector of lanes of one slot.
    LTC_INLINE void add(const std::uint32_t* p, V& num, V& den) const {
        const U<V> potential = load<U<V>>(p + W), weight = load<U<V>>(p + 2 * W);
        const V s = sigmoid_bf16(round_architectural(second<V>(potential) * (pick(load<U<V>>(p)) - first<V>(potential))));
        num = num + s * second<V>(weight);
        den = den + s * first<V>(weight);
    }

private:
    const std::uint32_t* scratch_;
    U<V> values_[registers + 1];
};

template <int W, bool bf16>
struct WideSources {
    using V = Floats<W>;
    static constexpr std::uint32_t words = 5 * W;

    explicit WideSources(const std::uint32_t* scratch) : scratch_(scratch) {}

    LTC_INLINE void add(const std::uint32_t* p, V& num, V& den) const {
        const V v = from_bits<V>(gather<4, V>(scratch_, load<U<V>>(p)));
        const V x = load<V>(p + 2 * W) * (v - load<V>(p + W));
        const V s = bf16 ? sigmoid_bf16(round_architectural(x)) : activation_fp32<Activation::sigmoid>(x);
        num = num + s * load<V>(p + 4 * W);
        den = den + s * load<V>(p + 3 * W);
    }

private:
    const std::uint32_t* scratch_;
};

// Every target row, G vectors of its lanes at a time.
template <class Sources, int W, int G>
inline void synapse_rows(const SynapseStep& s, float* num_row, float* den_row) {
    using V = Floats<W>;
    const Sources sources(s.scratch);
    const std::uint32_t *slot = s.slots, *run = s.runs, slot_words = s.lanes / W * Sources::words;
    for (std::uint32_t t = 0; t < s.targets; ++t, num_row += s.lanes, den_row += s.lanes) {
        const std::uint32_t n = *run;
        for (std::uint32_t l = 0; l < s.lanes; l += W * G) {
            V num[G] = {}, den[G] = {};
            const std::uint32_t* p = slot + l / W * Sources::words;
            for (std::uint32_t i = 0; i < n; ++i, p += slot_words)
                for (std::uint32_t g = 0; g < G; ++g) sources.add(p + g * Sources::words, num[g], den[g]);
            for (std::uint32_t g = 0; g < G; ++g) {
                store(num_row + l + W * g, write_fp32(num[g]));
                store(den_row + l + W * g, write_fp32(den[g]));
            }
        }
        slot += std::size_t{n} * slot_words;
        run += n;
    }
}

template <class Sources, int W>
inline void synapse_rows(const SynapseStep& s, float* num, float* den) {
    if (s.lanes == W)
        synapse_rows<Sources, W, 1>(s, num, den);
    else
        synapse_rows<Sources, W, 2>(s, num, den);
}

template <>
struct Semantics<Opcode::synapse> {
    template <bool bf16, int W>
    static const Step* run(Frame& f, const Step* step) {
        const SynapseStep& s = step->synapse;
        float *num = resolve(f, s.num), *den = resolve(f, s.den);
        const float* v = resolve(f, s.v);
        std::uint32_t* values = s.scratch + scratch_zeros;
        for (std::uint32_t l = 0; l < scratch_zeros; ++l) s.scratch[l] = 0;
        if (bf16 && s.narrow) {
            for (std::uint32_t l = 0; l < s.sources; l += W) store(values + l / 2, pack_pairs<W>(rounded_bits(load<Floats<W>>(v + l))));
            if (s.sources <= halves_in_registers<W>)
                synapse_rows<NarrowSources<W, 2>, W>(s, num, den);
            else if (s.sources <= 2 * halves_in_registers<W>)
                synapse_rows<NarrowSources<W, 4>, W>(s, num, den);
            else
                synapse_rows<NarrowSources<W, 0>, W>(s, num, den);
            return step + 1;
        }
        for (std::uint32_t l = 0; l < s.sources; l += W) {
            const Floats<W> x = load<Floats<W>>(v + l);
            store(values + l, bf16 ? round_architectural(x) : x);
        }
        synapse_rows<WideSources<W, bf16>, W>(s, num, den);
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
