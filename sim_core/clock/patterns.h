// The beats of each iteration pattern: what they read, write and wait for, in their order. clock.h says when a beat
// starts, timing.cpp walks the instructions.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "clock/beat_times.h"
#include "clock/clock.h"
#include "clock/output_tree.h"
#include "clock/timing.h"
#include "host/interrupt.h"
#include "program/program.h"

namespace ltc {

template <class Op>
concept Grid = requires(Op op) { op.dst_outer; op.n_outer; op.n_inner; };

// By level of a loop; level 0 stays 0.
using Counters = std::array<std::uint64_t, isa::max_loop_depth + 1>;

// What instructions of several cores share: links, and the host.
struct Outside {
    std::vector<LinkClock> links;            // [source][target]
    std::uint64_t arrival;                   // of the first input row
    std::vector<std::uint64_t> input_rows;   // by port: rows that the host offers before its own
    std::uint64_t last_in = 0;               // start of the last beat that took a row from the host
    OutputTree outputs;
};

template <bool traced>
class Patterns {
public:
    Patterns(const Program& program, const Counters& counters, Outside& outside, Watch& watch)
        : program_(program), machine_(program.machine), counters_(counters), outside_(outside), watch_(watch),
          accumulator_(std::size_t{machine_.accumulators} * period()) {}

    void walk(const Instruction& in, Beats<traced>& beats) {
        switch (in.info().format) {
#define LTC_CASE(name) \
    case isa::Format::name: walk(in, in.as<isa::name>(), beats); break;
            LTC_FORMATS(LTC_CASE)
#undef LTC_CASE
        }
    }

private:
    void poll() {
        if (watch_.poll()) throw Interrupted();
    }

    // Input rows after which the matrix unit's, and the reduction's, accumulators are used again.
    std::uint32_t period() const { return std::max(1u, 128 / machine_.block_size); }

    std::int64_t address(const isa::Row& row) const {
        return std::int64_t{row.base} + static_cast<std::int64_t>(counters_[row.level]) * row.stride;
    }
    std::uint64_t first_row(const isa::Row& row) const { return static_cast<std::uint64_t>(address(row)); }

    template <std::size_t N>
    void grid(const std::array<Lattice, N>& sources, const Lattice& dst, std::uint32_t n_outer, std::uint32_t n_inner,
              Beats<traced>& beats) {
        for (std::uint32_t o = 0; o < n_outer; ++o) {
            poll();
            for (std::uint32_t i = 0; i < n_inner; ++i) {
                std::array<std::uint64_t, N> reads;
                for (std::size_t s = 0; s < N; ++s) reads[s] = sources[s].at(o, i);
                beats.beat(reads, Rows{dst.at(o, i)});
            }
        }
    }

    template <Grid Op>
    void walk(const Instruction&, const Op& op, Beats<traced>& beats) {
        const Lattice dst{address(op.dst), op.dst_outer, op.dst_inner};
        const Lattice a{address(op.a), op.a_outer, op.a_inner};
        if constexpr (requires { op.c; }) {
            const Lattice b{address(op.b), op.b_outer, op.b_inner}, c{address(op.c), op.c_outer, op.c_inner};
            grid<3>({a, b, c}, dst, op.n_outer, op.n_inner, beats);
        } else if constexpr (requires { op.b; }) {
            grid<2>({a, Lattice{address(op.b), op.b_outer, op.b_inner}}, dst, op.n_outer, op.n_inner, beats);
        } else {
            grid<1>({a}, dst, op.n_outer, op.n_inner, beats);
        }
    }

    void walk(const Instruction&, const isa::RowReduce& op, Beats<traced>& beats) {
        const Lattice src{address(op.src), op.src_step, 1}, dst{address(op.dst), op.dst_step, 0};
        const std::uint64_t last = machine_.rows(op.k) - 1;
        const std::uint64_t spacing = 2ull * machine_.latency(isa::Latency::accumulate_reduce);
        for (std::uint32_t g = 0; g < op.groups; ++g) {
            poll();
            std::array<std::uint64_t, 128 / limits::min_block_size> free{};  // by phase, as in the matrix unit
            for (std::uint64_t j = 0; j <= last; ++j) {
                std::uint64_t& accumulators = free[j % period()];
                beats.await(accumulators, Stall::accumulator);
                const Rows row{src.at(g, j)};
                const std::uint64_t start =
                    j < last ? beats.beat(row, no_rows) : beats.beat(row, Rows{dst.at(g, 0)});
                accumulators = start + spacing;
            }
        }
    }

    void walk(const Instruction&, const isa::ColumnReduce& op, Beats<traced>& beats) {
        const Lattice src{address(op.src), op.k_step, 1};
        const std::uint64_t dst = first_row(op.dst);
        const std::uint64_t spacing = machine_.latency(isa::Latency::accumulate_reduce);
        for (std::uint32_t i = 0; i < op.n_inner; ++i) {
            poll();
            std::array<std::uint64_t, 64> free{};  // of each accumulator, which two elements in a row add to
            for (std::uint32_t k = 0; k < op.k; ++k) {
                std::uint64_t& accumulator = free[k / 2 % free.size()];
                beats.await(accumulator, Stall::accumulator);
                const Rows row{src.at(k, i)};
                const std::uint64_t start = k + 1 < op.k ? beats.beat(row, no_rows) : beats.beat(row, Rows{dst + i});
                accumulator = start + spacing;
            }
        }
    }

    void walk(const Instruction&, const isa::WeightedSum& op, Beats<traced>& beats) {
        const Lattice dst{address(op.dst), op.dst_i, 1}, addend{address(op.addend), op.addend_i, 1};
        const Lattice a{address(op.a), op.a_i, op.a_j}, b{address(op.b), op.b_j, 1};
        const std::uint64_t spacing = machine_.latency(isa::Latency::accumulate_reduce);
        for (std::uint32_t i = 0; i < op.n_i; ++i)
            for (std::uint32_t r = 0; r < op.n_inner; ++r) {
                poll();
                std::array<std::uint64_t, 64> free{};  // of each accumulator, as in a column
                for (std::uint32_t j = 0; j < op.n_j; ++j) {
                    std::uint64_t& accumulator = free[j / 2 % free.size()];
                    beats.await(accumulator, Stall::accumulator);
                    const std::uint64_t lane = std::uint64_t{i} * op.lane_i + std::uint64_t{j} * op.lane_j;
                    const std::uint64_t left = a.at(i, j) + lane / machine_.block_size, right = b.at(j, r);
                    const std::uint64_t start =
                        j + 1 < op.n_j ? beats.beat(std::array{left, right}, no_rows)
                                       : beats.beat(std::array{left, right, addend.at(i, r)}, Rows{dst.at(i, r)});
                    accumulator = start + spacing;
                }
            }
    }

    void walk(const Instruction&, const isa::Dot& op, Beats<traced>& beats) {
        const Lattice dst{address(op.dst), op.dst_i, 1}, addend{address(op.addend), op.addend_i, 1};
        const Lattice a{address(op.a), op.a_i, 1}, b{address(op.b), op.b_j, 1};
        const std::uint64_t last = machine_.rows(op.k) - 1;
        const std::uint64_t spacing = 2ull * machine_.latency(isa::Latency::accumulate_reduce);
        for (std::uint32_t i = 0; i < op.n_i; ++i)
            for (std::uint32_t j = 0; j < op.n_j; ++j) {
                poll();
                const std::uint32_t row = j / machine_.block_size;
                const bool full = j + 1 == op.n_j || (j + 1) % machine_.block_size == 0;
                std::array<std::uint64_t, 128 / limits::min_block_size> free{};  // by phase, as along a row
                for (std::uint64_t r = 0; r <= last; ++r) {
                    std::uint64_t& accumulators = free[r % period()];
                    beats.await(accumulators, Stall::accumulator);
                    const std::uint64_t left = a.at(i, r), right = b.at(j, r);
                    const std::uint64_t start =
                        r < last || !full ? beats.beat(std::array{left, right}, no_rows)
                                          : beats.beat(std::array{left, right, addend.at(i, row)}, Rows{dst.at(i, row)});
                    accumulators = start + spacing;
                }
            }
    }

    void walk(const Instruction&, const isa::Matmul& op, Beats<traced>& beats) {
        const Lattice dst{address(op.dst), op.dst_step, 1}, bias{address(op.bias), op.bias_step, 1};
        const std::uint64_t across = machine_.rows(op.k), last = op.taps * across - 1;
        const std::uint64_t spacing = 2ull * machine_.latency(isa::Latency::accumulate);
        for (std::uint32_t b = 0; b < op.batch; ++b) {
            const Lattice x{address(op.x) + std::int64_t{b} * op.x_step, op.tap_step, 1};
            for (std::uint32_t first = 0; first < op.m_rows; first += machine_.accumulators) {
                poll();
                const std::uint32_t group = std::min(machine_.accumulators, op.m_rows - first);
                // accumulator_[p * group + o]: from when on row tile `o` may use its accumulators of phase p again.
                std::fill_n(accumulator_.begin(), std::size_t{group} * period(), 0);
                std::size_t at = 0;
                for (std::uint64_t i = 0; i <= last; ++i) {
                    const std::uint64_t read = x.at(i / across, i % across);
                    for (std::uint32_t o = 0; o < group; ++o) {
                        beats.await(accumulator_[at], Stall::accumulator);
                        const std::uint64_t row = first + o;
                        const std::uint64_t start =
                            i < last ? beats.beat(Rows{read}, no_rows)
                                     : beats.beat(std::array{read, bias.at(b, row)}, Rows{dst.at(b, row)});
                        accumulator_[at++] = start + spacing;
                    }
                    if (at == std::size_t{group} * period()) at = 0;
                }
            }
        }
    }

    void walk(const Instruction& in, const isa::Synapse& op, Beats<traced>& beats) {
        const std::uint64_t v = first_row(op.v), num = first_row(op.num), den = first_row(op.den);
        const std::vector<std::uint32_t>& run = program_.cores[in.core].slots.run;
        for (std::uint32_t j = 0; j < op.v_rows; ++j) beats.beat(Rows{v + j}, no_rows, 0, 1);
        std::size_t slot = op.slots;
        for (std::uint32_t t = 0; t < op.targets; ++t) {
            for (std::uint32_t j = 1; j < run[slot]; ++j) beats.beat(no_rows, no_rows);
            beats.beat(no_rows, std::array{num + t, den + t});
            slot += run[slot];
        }
    }

    void walk(const Instruction&, const isa::Update& op, Beats<traced>& beats) {
        const auto row = [this](const isa::Row& first, std::int32_t step, std::uint32_t i) {
            return Lattice{address(first), step, 0}.at(i, 0);
        };
        for (std::uint32_t i = 0; i < op.n; ++i) {
            beats.beat(std::array{row(op.v, op.v_step, i), row(op.cm, op.cm_step, i), row(op.h, op.h_step, i)}, no_rows);
            beats.beat(std::array{row(op.leak, op.leak_step, i), row(op.conductance, op.conductance_step, i)}, no_rows, 3);
            beats.beat(std::array{row(op.num, op.num_step, i), row(op.den, op.den_step, i)}, Rows{row(op.dst, op.dst_step, i)}, 5);
        }
    }

    void walk(const Instruction& in, const isa::Gather& op, Beats<traced>& beats) {
        const EntryStore& entries = program_.cores[in.core].entries;
        const std::int64_t src = address(op.src), dst = address(op.dst);
        for (std::size_t e = op.entries; e < std::size_t{op.entries} + op.count; ++e)
            beats.beat(Rows{static_cast<std::uint64_t>(src + entries.src[e])},
                       Rows{static_cast<std::uint64_t>(dst + entries.dst[e])});
    }

    void walk(const Instruction&, const isa::Transpose& op, Beats<traced>& beats) {
        const Lattice src{address(op.src), op.src_step, 0}, dst{address(op.dst), op.dst_step, 0};
        for (std::uint32_t i = 0; i < op.src_rows; ++i) beats.beat(Rows{src.at(i, 0)}, no_rows);
        for (std::uint32_t j = 0; j < op.dst_rows; ++j) beats.beat(no_rows, Rows{dst.at(j, 0)});
    }

    void walk(const Instruction& in, const isa::Send& op, Beats<traced>& beats) {
        const std::uint64_t src = first_row(op.src);
        for (std::uint32_t j = 0; j < op.rows; ++j) {
            std::array<LinkClock::Place*, limits::max_cores> places;
            std::size_t n = 0;
            for (std::uint32_t target = 0; target < machine_.cores; ++target) {
                if (!(op.targets >> target & 1)) continue;
                LinkClock& link = outside_.links[in.core * machine_.cores + target];
                places[n] = &link.take(link.in);
                beats.await(places[n++]->vacant, Stall::link);
            }
            beats.arrived = beats.beat(Rows{src + j}, no_rows) + machine_.latency(isa::Latency::link);
            for (std::size_t p = 0; p < n; ++p) places[p]->arrival = beats.arrived;
        }
    }

    void walk(const Instruction& in, const isa::Receive& op, Beats<traced>& beats) {
        const std::uint64_t dst = first_row(op.dst);
        LinkClock& link = outside_.links[op.source * machine_.cores + in.core];
        for (std::uint32_t j = 0; j < op.rows; ++j) {
            LinkClock::Place& place = link.take(link.out);
            beats.await(place.arrival, Stall::link);
            place.vacant = beats.beat(no_rows, Rows{dst + j}) + 1;
        }
    }

    void walk(const Instruction&, const isa::Input& op, Beats<traced>& beats) {
        const std::uint64_t dst = first_row(op.dst);
        for (std::uint32_t j = 0; j < op.rows; ++j) {
            beats.await(outside_.arrival + outside_.input_rows[op.port] + op.first + j, Stall::host);
            outside_.last_in = std::max(outside_.last_in, beats.beat(no_rows, Rows{dst + j}));
        }
    }

    void walk(const Instruction& in, const isa::Output& op, Beats<traced>& beats) {
        const std::uint64_t src = first_row(op.src), way = delay_of(machine_, in);
        for (std::uint32_t j = 0; j < op.rows; ++j) {
            const std::uint64_t vacated = outside_.outputs.vacated(in.core);
            if (vacated > 0) beats.await(vacated + way, Stall::host);
            outside_.outputs.put(in.core, beats.beat(Rows{src + j}, no_rows) + way);
        }
    }

    void walk(const Instruction&, const isa::Loop&, Beats<traced>&) {}  // timing.cpp has them
    void walk(const Instruction&, const isa::End&, Beats<traced>&) {}

    const Program& program_;
    const Machine& machine_;
    const Counters& counters_;
    Outside& outside_;
    Watch& watch_;
    std::vector<std::uint64_t> accumulator_;
};

}  // namespace ltc
