// See narrow.h.
#include "vm/narrow.h"

#include <algorithm>

namespace ltc {
namespace {

constexpr std::uint64_t most_runs = 1024;  // of a step that is looked at

}  // namespace

// The rows that a step writes: n_outer x n_inner runs of rows that follow each other; steps in floats.
struct Narrow::Result {
    std::uint32_t core;
    isa::Row row;
    std::uint32_t iterations;  // of the loop that the row moves with
    std::uint32_t rows;        // of a run
    std::uint32_t n_outer = 1, n_inner = 1;
    std::ptrdiff_t outer = 0, inner = 0;
};

// Of the longest run, in whole vectors.
std::uint32_t Narrow::lanes_of(const Result& r) const {
    const std::uint32_t all = r.rows * B_, vector = row_vector(native_, B_);
    if (std::uint64_t{r.n_outer} * r.n_inner * r.iterations > most_runs) return all;
    std::uint32_t used = 1;
    for (std::uint32_t o = 0; o < r.n_outer; ++o)
        for (std::uint32_t n = 0; n < r.n_inner; ++n) {
            const std::ptrdiff_t at = (o * r.outer + n * r.inner) / static_cast<std::ptrdiff_t>(B_);
            used = std::max(used, used_.of({r.core, r.row.base + at, r.rows, r.row.stride}, r.iterations));
        }
    return (used + vector - 1) / vector * vector;
}

// Bit n: nothing reads the n-th native vector of any result of the batch.
std::uint64_t Narrow::idle(const MatmulStep& m, const Result& r) const {
    if (B_ < native_ || std::uint64_t{m.batch} * r.iterations * r.rows > most_runs) return 0;
    std::uint64_t found = 0;
    for (std::uint32_t row = 0; row < r.rows; ++row) {
        std::uint32_t used = 0;
        for (std::uint32_t b = 0; b < m.batch; ++b) {
            const std::ptrdiff_t at = row + b * m.dst_step / static_cast<std::ptrdiff_t>(B_);
            used = std::max(used, used_.of({r.core, r.row.base + at, 1, r.row.stride}, r.iterations));
        }
        for (std::uint32_t l = 0; l < B_; l += native_)
            if (const std::uint32_t vector = (row * B_ + l) / native_; l >= used && vector < 64) found |= std::uint64_t{1} << vector;
    }
    return found;
}

void Narrow::apply(Step& step, const Instruction& i, std::span<const std::uint32_t> iterations) const {
    const isa::FormatInfo& format = i.format();
    if (format.n_accesses == 0 || !format.accesses[0].write) return;
    const isa::Row row = i.row(format.accesses[0].word);
    Result result{i.core, row, row.stride == 0 ? 1 : iterations[row.level], 1};
    switch (i.info().format) {
        case isa::Format::Unary:
        case isa::Format::Binary:
        case isa::Format::Ternary:
        case isa::Format::Splat: {
            GridStep& g = step.grid;
            result.rows = g.lanes / B_;
            result.n_outer = g.n_outer, result.outer = g.outer[0], result.n_inner = g.n_inner, result.inner = g.inner[0];
            g.lanes = lanes_of(result);
            break;
        }
        case isa::Format::Update: {
            UpdateStep& u = step.update;
            result.rows = u.lanes / B_;
            result.n_inner = u.n, result.inner = u.step[0];
            u.lanes = lanes_of(result);
            break;
        }
        case isa::Format::RowReduce: {
            RowReduceStep& r = step.row_reduce;
            result.n_inner = r.groups, result.inner = r.dst_step;
            r.lanes = lanes_of(result);
            break;
        }
        case isa::Format::Matmul:
            result.rows = step.matmul.outputs / B_;
            step.matmul.idle = idle(step.matmul, result);
            break;
        case isa::Format::Input: {
            PortStep& p = step.port;
            if (p.vectors != 1) break;  // row_lanes leads to the next
            result.rows = p.row_lanes / B_;
            p.row_lanes = lanes_of(result);
            break;
        }
        default: break;
    }
}

}  // namespace ltc
