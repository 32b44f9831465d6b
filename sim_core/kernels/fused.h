// Runs of elementwise steps that recurrent cells are made of, each executed by one function: vector by vector through the
// whole run, with the results in registers where a later step of the run reads them. Every result goes to its row all the
// same, so that nothing else can tell. fuse.cpp finds the runs.
// Included by kernels.cpp alone, like semantics.h.
#pragma once

#include <utility>

#include "kernels/elementwise.h"

namespace ltc::LTC_ISA {
namespace {

// A step of a run. sources: for each operand the place in the run of the step that it is the result of, or `row`.
constexpr int row = -1;
template <Opcode op, bool bf16, int... sources>
struct Link {
    // A value moved as it is, which is architectural already, needs no write.
    static constexpr bool moves = (op == Opcode::move || op == Opcode::state_write) && !bf16;

    template <class V, std::size_t n, std::size_t... k>
    LTC_INLINE static V value(const V (&results)[n], const GridStep& g, std::uint32_t l, std::index_sequence<k...>) {
        if constexpr (moves)
            return (source<sources, k>(results, g, l), ...);
        else
            return ltc::LTC_ISA::value<op, bf16>(source<sources, k>(results, g, l)...);
    }
    template <class V, std::size_t n>
    LTC_INLINE static V value(const V (&results)[n], const GridStep& g, std::uint32_t l) {
        return value(results, g, l, std::make_index_sequence<sizeof...(sources)>());
    }

    template <int W>
    static constexpr FusedStep step() {
        FusedStep found{&elementwise<op, bf16, W>, sizeof...(sources), {}};
        std::size_t n = 0;
        ((found.sources[n++] = sources), ...);
        return found;
    }

private:
    template <int from, std::size_t k, class V, std::size_t n>
    LTC_INLINE static V source(const V (&results)[n], const GridStep& g, std::uint32_t l) {
        if constexpr (from == row)
            return load<V>(g.at[1 + k].base + l);
        else
            return results[from];
    }
};

template <class... Links>
struct Run {
    template <int W>
    static const Step* run(Frame&, const Step* step) {
        for (std::uint32_t l = 0; l < step->grid.lanes; l += W) all<W>(step, l, std::index_sequence_for<Links...>());
        return step + sizeof...(Links);
    }
    template <int W>
    static constexpr FusedStep steps[] = {Links::template step<W>()...};
    template <int W>
    static constexpr FusedRun found{&run<W>, steps<W>, sizeof...(Links)};

private:
    template <int W, std::size_t... n>
    LTC_INLINE static void all(const Step* step, std::uint32_t l, std::index_sequence<n...>) {
        Floats<W> results[sizeof...(Links)];
        ((results[n] = Links::value(results, step[n].grid, l), store(step[n].grid.at[0].base + l, results[n])), ...);
    }
};

using LstmCell = Run<Link<Opcode::sigmoid, true, row>, Link<Opcode::sigmoid, true, row>, Link<Opcode::tanh, true, row>,
                     Link<Opcode::sigmoid, true, row>, Link<Opcode::mul, false, 1, row>, Link<Opcode::mul, false, 0, 2>,
                     Link<Opcode::add, false, 4, 5>, Link<Opcode::tanh, true, 6>, Link<Opcode::state_write, false, 6>,
                     Link<Opcode::mul, false, 3, 7>>;
using GruCell = Run<Link<Opcode::add, false, row, row>, Link<Opcode::add, false, row, row>, Link<Opcode::sigmoid, true, 0>,
                    Link<Opcode::sigmoid, true, 1>, Link<Opcode::mul, false, 2, row>, Link<Opcode::add, false, row, 4>,
                    Link<Opcode::tanh, true, 5>, Link<Opcode::sub, false, row, 6>, Link<Opcode::mul, false, 3, 7>,
                    Link<Opcode::add, false, 6, 8>>;
using CfcCell = Run<Link<Opcode::add, false, row, row>, Link<Opcode::tanh, true, row>, Link<Opcode::tanh, true, row>,
                    Link<Opcode::sigmoid, true, 0>, Link<Opcode::sub, false, row, 3>, Link<Opcode::mul, false, 3, 2>,
                    Link<Opcode::mul, false, 1, 4>, Link<Opcode::add, false, 6, 5>>;

template <int W>
constexpr FusedRun fused_runs[] = {LstmCell::found<W>, GruCell::found<W>, CfcCell::found<W>};

}  // namespace
}  // namespace ltc::LTC_ISA
