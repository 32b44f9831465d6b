// What a VM executes: a flat array of steps, each a function and its operands with addresses resolved as far as loading
// allows. kernels.cpp implements the functions once per CPU instruction set; execute.cpp builds the steps; run() is a
// loop over `step = step->run(frame, step)`.
// This header is compiled into every instruction set's object file: it holds plain data and no function that the linker
// could take from the wrong one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.gen.h"

namespace ltc {

// A row on the arena: base + counter[level] * stride, in floats.
struct Address {
    float* base;
    std::ptrdiff_t stride;
    std::uint32_t level;
};

// What a run changes: loop counters, and the host arrays that it was given.
struct Frame {
    std::ptrdiff_t counter[isa::max_loop_depth + 1];
    const float* const* inputs;
    float* const* outputs;
};

// Ring of rows between two cores. It is empty between runs.
struct Fifo {
    float* data;
    std::uint32_t capacity, head, count;  // rows
};

struct Step;
using Handler = const Step* (*)(Frame&, const Step*);

// Over n_outer x n_inner runs of `lanes` floats, operand 0 is written, the others are read. Steps in floats.
struct GridStep {
    Address at[4];
    std::ptrdiff_t outer[4], inner[4];
    std::uint32_t n_outer, n_inner, lanes;
    std::uint32_t lane;  // of splat
};

struct RowReduceStep {
    Address dst, src;
    std::ptrdiff_t dst_step, src_step;
    std::uint32_t groups, k, lanes;
};

struct ColumnReduceStep {
    Address dst, src;
    std::ptrdiff_t k_step;
    std::uint32_t k, n_inner, lanes;
};

// Packed weights: groups of `lanes` outputs (Kernels::lanes); in a group, chunks of 8 of the 64 accumulators; in a chunk,
// all its product pairs, 8 by 8, with zeros after the last; a pair is `lanes` words (bf16: the even k in the high half)
// or twice `lanes` floats (fp32: the even k's, then the odd k's).
inline constexpr std::uint32_t max_vectors = 4;  // that go through the weights at once
inline constexpr std::uint32_t scratch_spare = 16;  // words behind them that a last tap of few lanes may write
struct MatmulStep {
    Address dst, x, bias;
    std::ptrdiff_t dst_step, x_step, bias_step, tap_step;
    const std::uint32_t* weights;
    std::uint32_t* scratch;  // max_vectors vectors of x, each in the form of a weight column, and scratch_spare words
    std::uint32_t k, tap_lanes;  // elements of a tap, and the lanes of the whole rows that they fill
    std::uint32_t lanes, outputs, batch;  // lanes: up to the last element of the last tap
    bool addend, relu;
    bool apart;  // the results of vectors do not overlap, so that several may go through the weights at once
    // Fused arithmetic is exact if every x is 0 or of a magnitude with bits from x_low to x_low + x_span.
    std::uint32_t x_low, x_span;
};

// Synapses packed by vectors of lanes, slot behind slot. A vector of the narrow form, for bf16 parameters, is three arrays
// of words: source, mu and sigma, w and we, the first of two in the high half; of the wide form five: source, mu, sigma, w,
// we. Every NaN is the one NaN. An absent lane has +0 for parameters and reads +0: it adds +0 to sums that are never -0.
// Scratch holds a line of zeros and then the presynaptic values. In the narrow form these are bf16 halves, where that of
// source i is i ^ 1, and a source word holds two indices: in the low half the one in scratch, in the high half, with the
// top bit set, the one behind the zeros. In the wide form they are floats, and a source word is the index in scratch.
struct SynapseStep {
    Address num, den, v;
    const std::uint32_t* slots;
    const std::uint32_t* runs;  // by slot: slots up to the end of its target row
    std::uint32_t* scratch;
    std::uint32_t sources, targets, lanes;
    bool narrow;
};
inline constexpr std::uint32_t scratch_zeros = 16;  // words

// `n` rows; the operands in the order of isa::Update, dst first, each with its step in floats.
struct UpdateStep {
    static constexpr int operands = 8;
    Address at[operands];
    std::ptrdiff_t step[operands];
    std::uint32_t n, lanes;
};

// A packed entry: source and destination offset in floats, then for each lane its source lane, or keep or clear.
struct GatherStep {
    Address dst, src;
    const std::int32_t* entries;  // [count][2 + lanes]
    std::uint32_t count, lanes;
};
inline constexpr std::int32_t lane_keep = -1, lane_clear = -2;

struct LinkStep {
    Address at;
    Fifo* fifo;
    std::uint32_t rows, lanes;
};

// `vectors` vectors of `width` elements, each on `row_lanes` lanes of the arena.
struct PortStep {
    Address at;
    std::uint32_t port, vectors, width, row_lanes;
    std::size_t first;  // element of the host's array
};

struct LoopStep {
    std::uint32_t level, count;
    const Step* body;  // of an end: where the next turn begins
};

struct Step {
    Handler run;
    union {
        GridStep grid;
        RowReduceStep row_reduce;
        ColumnReduceStep column_reduce;
        MatmulStep matmul;
        SynapseStep synapse;
        UpdateStep update;
        GatherStep gather;
        LinkStep link;
        PortStep port;
        LoopStep loop;
    };
};

// Lanes of the vectors that the kernels use for rows of B lanes: a vector never spans two rows, so that instructions
// whose operands overlap behave row by row.
constexpr std::uint32_t row_vector(std::uint32_t native, std::uint32_t block_size) {
    return native < block_size ? native : block_size;
}

// The kernels of one instruction set.
struct Kernels {
    const char* name;
    std::uint32_t lanes;  // of a native vector of floats
    Handler stop;         // ends a run
    // For an opcode, the precision of its result, and the block size; never null for an opcode that exists.
    Handler (*handler)(isa::Opcode opcode, isa::Precision precision, std::uint32_t block_size);
};

#ifdef __x86_64__
namespace sse2 { extern const Kernels kernels; }
namespace avx2 { extern const Kernels kernels; }
namespace avx512 { extern const Kernels kernels; }
namespace avx512_bf16 { extern const Kernels kernels; }
#else
namespace generic { extern const Kernels kernels; }
#endif

}  // namespace ltc
