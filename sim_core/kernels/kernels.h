// What a VM executes: a flat array of steps, each a function and its operands with addresses resolved as far as loading
// allows. kernels.cpp implements the functions once per CPU instruction set; execute.cpp builds the steps; run() is a
// loop over `step = step->run(frame, step)`.
// This header is compiled into every instruction set's object file: it holds plain data and no function that the linker
// could take from the wrong one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "isa.gen.h"

namespace ltc {

// A row on the arena: base + counter[level] * stride, in floats.
struct Address {
    float* base;
    std::ptrdiff_t stride;
    std::uint32_t level;
};

class Watch;

// Streams that run together. A row of theirs is the rows of all of them, one behind the other: what goes lane by lane goes
// over it as over a longer row, and what crosses lanes takes it apart.
struct StreamGroup {
    std::uint32_t streams, lanes;  // lanes: of a row of one stream
    std::ptrdiff_t row;            // floats of a row of all
    std::uint32_t active;          // the first so many are streams; the rows of the others hold anything
    std::size_t steps;             // the host arrays of two streams are so many steps apart
    std::uint32_t* scratch;
};

// What a run changes: loop counters, and the host arrays that it was given.
struct Frame {
    std::ptrdiff_t counter[isa::max_loop_depth + 1];
    const float* const* inputs;
    float* const* outputs;
    Watch* watch;  // of a run that takes long, or null
    bool stopped;  // by its watch, before the end
    const StreamGroup* group;  // null: a single stream
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

// A(i, j) is the float i * a_i + j * a_j behind a: rows follow each other. b_j is unused in a dot, whose rows B[j, :] begin
// b_row floats apart and are turned into columns of k in `turned` first.
struct ProductStep {
    Address dst, a, b, addend;
    std::ptrdiff_t dst_i, a_i, a_j, b_j, addend_i;
    float* turned;
    std::uint32_t n_i, n_j, k, lanes;  // lanes: of a vector of the result, in whole rows
    bool narrow;
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
    std::uint64_t idle;  // bit n: nothing reads the n-th vector of outputs
};

// Synapses in one of two layouts; every NaN is the one NaN. Scratch holds a line of zeros, then the presynaptic values.
//
// Single, for the fp32 form and for parameters that are not bf16: one slot after the other, and in a slot for each
// vector of lanes five arrays of words: source, mu, sigma, w, we. `rows` has the slots of each target row. An absent
// lane has +0 for parameters and reads a zero: it adds +0. A source is its index in scratch.
//
// Paired: for each vector of lanes of each target row a word in `rows`, which holds the number of its pairs of slots and
// two marks, and then the pairs: sources of both slots in the halves of a word, the first's in the high half; mu twice and
// sigma twice, as floats; w and we of both slots in halves like the sources. Where all lanes have the same sources they stand
// before the pairs, a word each and zeros up to a full line, and not in the pairs. An absent synapse has -0 for w, which no other
// has. Kernels::mixes says where in the two vectors the lanes of mu, sigma and sources stand.
//
// A row that is not marked plain may take fused operations, and leave out the flushing of rule 11, as long as no value
// reaches fused_potentials and no x lies below open_gate, unless its gate is 0 (below -87.25). For its weights and potentials
// are 0 or within the limits below and |sigma| < 2^100: rule 11 says why that is enough.
struct SynapseStep {
    Address num, den, v;
    const std::uint32_t *words, *rows;
    std::uint32_t* scratch;
    std::uint32_t sources, targets, lanes;
    bool paired;
    const std::uint32_t* of_group;  // see group_pairs; null: none
    std::uint32_t pairs_of_group;
};
// The pairs of a group of streams, whose lanes are the streams. For each lane of each target row a word, the number of its
// pairs and below it whether it is plain; then all pairs, up to a multiple of group_pairs: sources in halves as above; mu of
// the second twice and of the first twice; sigma likewise; w and we in halves. Gates are computed group_pairs at a time.
inline constexpr std::uint32_t group_pairs = 3;
inline constexpr std::uint32_t group_pair_words = 11;
inline constexpr std::uint32_t scratch_zeros = 16;  // words
inline constexpr std::uint32_t row_shares_sources = 1, row_is_plain = 2;
constexpr std::uint32_t shared_words(std::uint32_t pairs) { return (2 * pairs + 15) / 16 * 16; }
inline constexpr float fused_potentials = 0x1p126f, fused_weights = 0x1p-40f, open_gate = -40.0f;

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

// Steps in floats, from row to row.
struct TransposeStep {
    Address dst, src;
    std::ptrdiff_t dst_step, src_step;
    std::uint32_t dst_rows, src_rows, lanes;
};

struct LinkStep {
    Address at;
    Fifo* fifo;
    std::uint32_t rows, lanes;
};

// `vectors` vectors of `width` elements, each on `row_lanes` lanes of the arena.
struct PortStep {
    Address at;
    std::uint32_t port, vectors, width, row_lanes;
    std::size_t first, elements;  // first: element of the host's array, which has so many
};

struct RingRows;

// `floats` floats that were written to a ring from `at` on, which its other copy shall hold too.
struct MirrorStep {
    Address at;
    const RingRows* ring;
    std::size_t floats;
};

struct LoopStep {
    std::uint32_t level, count;
    const Step* body;  // of an end: where the next iteration begins
};

struct Step {
    Handler run;
    union {
        GridStep grid;
        RowReduceStep row_reduce;
        ColumnReduceStep column_reduce;
        ProductStep product;
        MatmulStep matmul;
        SynapseStep synapse;
        UpdateStep update;
        GatherStep gather;
        TransposeStep transpose;
        LinkStep link;
        PortStep port;
        MirrorStep mirror;
        LoopStep loop;
    };
};

// Lanes of the vectors that the kernels use for rows of B lanes: a vector never spans two rows, so that instructions
// whose operands overlap behave row by row.
constexpr std::uint32_t row_vector(std::uint32_t native, std::uint32_t block_size) {
    return native < block_size ? native : block_size;
}

// A run of elementwise steps that one function executes. sources: for each operand the place in the run of the step whose
// result it is, or below 0 any row.
struct FusedStep {
    Handler run;  // of the step by itself
    std::uint32_t operands;
    int sources[3];
};
struct FusedRun {
    Handler run;
    const FusedStep* steps;
    std::uint32_t count;
};

// The kernels of one instruction set.
struct Kernels {
    const char* name;
    std::uint32_t lanes;  // of a native vector of floats
    bool mixes;           // rounding two vectors of 16 lanes to the halves of one mixes the lanes of a pair of synapses
    Handler stop;         // ends a run
    // For an opcode, the precision of its result, and the block size; never null for an opcode that exists.
    Handler (*handler)(isa::Opcode opcode, isa::Precision precision, std::uint32_t block_size);
    // The same for a group of streams; null for an opcode that has none, or rows narrower than a native vector.
    Handler (*group_handler)(isa::Opcode opcode, isa::Precision precision, std::uint32_t block_size);
    // For a matmul of one vector and one tap on rows of whole native vectors, with bf16 operands in so many pairs, at least
    // 1. Null where that is too many.
    Handler (*few_terms)(std::uint32_t pairs, isa::Precision precision);
    std::span<const FusedRun> (*fused)(std::uint32_t block_size);
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
