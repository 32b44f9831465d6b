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
struct MatmulStep {
    Address dst, x, bias;
    std::ptrdiff_t dst_step, x_step;
    const std::uint32_t* weights;
    float* scratch;  // k values of x, and zeros up to a multiple of 16
    std::uint32_t k, outputs, batch;
};

// A packed slot holds five arrays for each vector of lanes: index into scratch, mu, sigma, w, we. An absent lane reads
// index 0, where a zero stands, and has zeros for parameters: it adds +0 to sums that are never -0.
struct SynapseStep {
    Address num, den, v;
    const float* slots;
    const std::uint32_t* runs;  // by slot: slots up to the end of its target row
    float* scratch;             // a zero, then the values of v
    std::uint32_t sources, targets, lanes;
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
#else
namespace generic { extern const Kernels kernels; }
#endif

}  // namespace ltc
