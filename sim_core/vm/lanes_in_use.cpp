// See lanes_in_use.h. An instruction that goes lane by lane reads of its sources what is read of its result; every other
// reads what its format says. Loops and the order of the code play no part: what any instruction reads is read.
#include "vm/lanes_in_use.h"

#include <algorithm>

namespace ltc {
namespace {

constexpr std::size_t most_edges = 1u << 17, most_rounds = 64;

bool goes_by_lanes(isa::Format format) {
    return format == isa::Format::Unary || format == isa::Format::Binary || format == isa::Format::Ternary ||
           format == isa::Format::Update || format == isa::Format::ColumnReduce;
}

}  // namespace

// Walks the code: marks what is read whatever becomes of the results, and lists the edges.
class LanesInUse::Reader {
public:
    Reader(LanesInUse& lanes, const Program& program, const Parameters& parameters)
        : to_(lanes), program_(program), parameters_(parameters), B_(lanes.B_) {}

    // False if there are too many edges.
    bool read(const Model& model) {
        iterations_.assign(1, 1);
        for (const State& state : model.states) {
            mark_vectors(state.core, state.row, state.shape);
            for (const State::Copy& copy : state.copies) mark_vectors(copy.core, copy.row, state.shape);
        }
        for (const Ring& ring : model.rings)  // what is read of one place was written to another
            for (std::uint64_t row = ring.row; row < ring.end(); ++row) mark(ring.core, static_cast<std::int64_t>(row), B_);
        for (std::uint32_t n = model.code_begin; n < model.code_end && edges.size() + work_ <= most_edges; ++n) {
            const Instruction& i = program_.code[n];
            if (i.opcode == isa::Opcode::loop)
                iterations_.push_back(i.as<isa::Loop>().count);
            else if (i.opcode == isa::Opcode::end)
                iterations_.pop_back();
            else
                read(i, model);
        }
        return edges.size() + work_ <= most_edges;
    }

    std::vector<Edge> edges;

private:
    // The rows of an access in one iteration, as offsets from its base; `lanes` of each, where a count of elements tells.
    struct Places {
        std::vector<std::int64_t> offsets;
        std::vector<std::uint32_t> lanes;
    };
    Places places(const Instruction& i, const isa::AccessInfo& access) {
        Places found{{0}, {B_}};
        for (std::size_t e = 0; e < access.n_extents; ++e) {
            const isa::ExtentInfo& extent = access.extents[e];
            const std::uint32_t n = i.operands[extent.count_word];
            const std::uint64_t count = extent.count_is_elements ? program_.machine.rows(n) : n;
            if ((work_ += found.offsets.size() * count) > most_edges) return found;
            const std::int64_t step = extent.step_word < 0 ? extent.step : i.step(static_cast<std::size_t>(extent.step_word));
            Places next;
            for (const std::int64_t offset : found.offsets)
                for (std::uint64_t c = 0; c < count; ++c) {
                    next.offsets.push_back(offset + static_cast<std::int64_t>(c) * step);
                    next.lanes.push_back(extent.count_is_elements ? static_cast<std::uint32_t>(std::min<std::uint64_t>(B_, n - c * B_)) : B_);
                }
            found = std::move(next);
        }
        return found;
    }

    std::uint32_t iterations(isa::Row row) const { return row.stride == 0 ? 1 : iterations_[row.level]; }

    void mark(std::uint32_t core, std::int64_t row, std::uint32_t lanes) {
        std::uint32_t& marked = to_.lanes_[to_.number(core, row)];
        marked = std::max(marked, lanes);
    }
    void mark_vectors(std::uint32_t core, std::uint32_t row, const Shape& shape) {
        const auto across = static_cast<std::uint32_t>(program_.machine.rows(shape.width()));
        if ((work_ += shape.vectors() * across) > most_edges) return;
        for (std::uint32_t r = 0; r < shape.vectors() * across; ++r) mark(core, row + r, width_at(shape, r));
    }
    std::uint32_t width_at(const Shape& shape, std::uint32_t row) const {
        const std::size_t across = program_.machine.rows(shape.width());
        return static_cast<std::uint32_t>(std::min<std::size_t>(B_, shape.width() - row % across * B_));
    }

    // lanes(n): what is read of the n-th row.
    template <class Lanes>
    void mark(const Instruction& i, const isa::AccessInfo& access, const Places& rows, Lanes lanes) {
        const isa::Row row = i.row(access.word);
        if ((work_ += rows.offsets.size() * iterations(row)) > most_edges) return;
        for (std::int64_t c = 0; c < iterations(row); ++c)
            for (std::size_t n = 0; n < rows.offsets.size(); ++n)
                mark(i.core, row.base + c * row.stride + rows.offsets[n], lanes(n));
    }

    // Row n of `source` is read as far as row n modulo those of `result`.
    void connect(const Instruction& i, const isa::AccessInfo& result, const isa::AccessInfo& source) {
        const Places to = places(i, result), from = places(i, source);
        const isa::Row at = i.row(result.word), read = i.row(source.word);
        if (at.stride != 0 && read.stride != 0 && at.level != read.level)
            return mark(i, source, from, [&](std::size_t) { return B_; });
        const std::uint32_t n = std::max(iterations(at), iterations(read));
        if ((work_ += from.offsets.size() * n) > most_edges) return;
        for (std::int64_t c = 0; c < n; ++c)
            for (std::size_t r = 0; r < from.offsets.size(); ++r)
                edges.push_back({to_.number(i.core, at.base + c * at.stride + to.offsets[r % to.offsets.size()]),
                                 to_.number(i.core, read.base + c * read.stride + from.offsets[r])});
    }

    // A row of a link stands for all that ever go through it.
    void connect_link(const Instruction& i, std::uint32_t source, std::uint32_t target, bool sends) {
        const isa::AccessInfo& access = i.format().accesses[0];
        const isa::Row row = i.row(access.word);
        const Places rows = places(i, access);
        const std::uint32_t link = to_.first_.back() + source * program_.machine.cores + target;
        if ((work_ += rows.offsets.size() * iterations(row)) > most_edges) return;
        for (std::int64_t c = 0; c < iterations(row); ++c)
            for (const std::int64_t offset : rows.offsets) {
                const std::uint32_t at = to_.number(i.core, row.base + c * row.stride + offset);
                edges.push_back(sends ? Edge{link, at} : Edge{at, link});
            }
    }

    void read(const Instruction& i, const Model& model) {
        const isa::FormatInfo& format = i.format();
        if (i.opcode == isa::Opcode::send) {
            for (std::uint32_t target = 0; target < program_.machine.cores; ++target)
                if (i.as<isa::Send>().targets >> target & 1) connect_link(i, i.core, target, true);
            return;
        }
        if (i.opcode == isa::Opcode::receive) return connect_link(i, i.as<isa::Receive>().source, i.core, false);
        for (std::size_t n = 0; n < format.n_accesses && work_ <= most_edges; ++n) {
            const isa::AccessInfo& access = format.accesses[n];
            if (access.write) continue;
            const bool bias = i.info().format == isa::Format::Matmul && n == 2;
            if (goes_by_lanes(i.info().format) || bias)
                connect(i, format.accesses[0], access);
            else
                read_whole(i, access, model);
        }
    }

    void read_whole(const Instruction& i, const isa::AccessInfo& access, const Model& model) {
        const Places rows = places(i, access);
        if (i.opcode == isa::Opcode::output) {
            const auto op = i.as<isa::Output>();
            mark(i, access, rows, [&](std::size_t n) { return width_at(model.outputs[op.port].shape, op.first + static_cast<std::uint32_t>(n)); });
        } else if (i.opcode == isa::Opcode::splat) {
            mark(i, access, rows, [&](std::size_t) { return i.as<isa::Splat>().lane + 1; });
        } else if (i.opcode == isa::Opcode::gather) {
            read_entries(i, i.as<isa::Gather>());
        } else if (i.info().format == isa::Format::Matmul || i.info().format == isa::Format::RowReduce) {
            mark(i, access, rows, [&](std::size_t n) { return rows.lanes[n]; });
        } else {
            mark(i, access, rows, [&](std::size_t) { return B_; });
        }
    }

    // Lanes that an entry keeps are read of no other row.
    void read_entries(const Instruction& i, const isa::Gather& op) {
        if ((work_ += std::uint64_t{op.count} * iterations(op.src)) > most_edges) return;
        const std::int32_t* entry = parameters_.entries(i.core) + std::size_t{op.entries} * (2 + B_);
        for (std::uint32_t e = 0; e < op.count; ++e, entry += 2 + B_) {
            const std::int32_t last = *std::max_element(entry + 2, entry + 2 + B_);
            for (std::int64_t c = 0; c < iterations(op.src); ++c)
                mark(i.core, op.src.base + c * op.src.stride + entry[0] / static_cast<std::int32_t>(B_), static_cast<std::uint32_t>(last + 1 > 0 ? last + 1 : 0));
        }
    }

    LanesInUse& to_;
    const Program& program_;
    const Parameters& parameters_;
    const std::uint32_t B_;
    std::vector<std::uint32_t> iterations_;  // by level
    std::uint64_t work_ = 0;
};

LanesInUse::LanesInUse(const Program& program, const Parameters& parameters) : B_(static_cast<std::uint32_t>(program.machine.block_size)) {
    std::uint32_t rows = 0;
    for (const Core& core : program.cores) {
        first_.push_back(rows);
        rows += core.tensor_rows;
    }
    first_.push_back(rows);
    lanes_.resize(rows + std::size_t{program.machine.cores} * program.machine.cores);
    Reader reader(*this, program, parameters);
    for (const Model& model : program.models)
        if (!reader.read(model)) {
            lanes_.clear();
            return;
        }
    follow(reader.edges);
}

// From the last instruction to the first: most chains need no second round, those through loops and states do.
void LanesInUse::follow(std::span<const Edge> edges) {
    for (std::size_t round = 0; round < most_rounds; ++round) {
        bool more = false;
        for (std::size_t n = edges.size(); n-- > 0;) {
            const auto [to, from] = edges[n];
            if (lanes_[from] >= lanes_[to]) continue;
            lanes_[from] = lanes_[to];
            more = true;
        }
        if (!more) return;
    }
    lanes_.clear();
}

std::uint32_t LanesInUse::of(std::uint32_t core, std::int64_t row) const { return lanes_.empty() ? B_ : lanes_[number(core, row)]; }

std::uint32_t LanesInUse::of(const Run& run, std::uint32_t iterations) const {
    if (lanes_.empty()) return run.rows * B_;
    std::uint32_t used = 0;
    for (std::int64_t c = 0; c < (run.stride == 0 ? 1 : iterations); ++c)
        for (std::uint32_t r = run.rows; r-- > used / B_;)
            if (const std::uint32_t lanes = of(run.core, run.row + c * run.stride + r); lanes != 0) {
                used = std::max(used, r * B_ + lanes);
                break;
            }
    return used;
}

}  // namespace ltc
