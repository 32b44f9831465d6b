// Instructions that go lane by lane: one operation on each, or an activation.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include "kernels/semantics.h"

namespace ltc::LTC_ISA {
namespace {

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
LTC_ELEMENTWISE(floor, Unary, ltc::floor)
LTC_ELEMENTWISE(round, Unary, ltc::round_even)
LTC_ELEMENTWISE(fmod, Binary, ltc::fmod)

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
LTC_ACTIVATION(sin)
LTC_ACTIVATION(cos)
LTC_ACTIVATION(erf)
LTC_ACTIVATION(atan)

// What an instruction writes for its sources.
template <Opcode op, bool bf16, class V, class... More>
LTC_INLINE V value(V a, More... more) {
    using S = Semantics<op>;
    if constexpr (requires { S::activation; })
        return activation<S::activation, bf16>(a);
    else
        return write<bf16>(S::apply(a, more...));
}

template <Opcode op, bool bf16, int W>
LTC_INLINE Floats<W> result(const float* const* src, std::uint32_t l) {
    using V = Floats<W>;
    constexpr int arity = Semantics<op>::arity;
    const V a = load<V>(src[0] + l);
    if constexpr (arity == 1)
        return value<op, bf16>(a);
    else if constexpr (arity == 2)
        return value<op, bf16>(a, load<V>(src[1] + l));
    else
        return value<op, bf16>(a, load<V>(src[1] + l), load<V>(src[2] + l));
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

}  // namespace
}  // namespace ltc::LTC_ISA
