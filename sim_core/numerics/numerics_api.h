// The numeric contract as plain functions over arrays, by name: what the tests compare with the NumPy half,
// bit for bit. The simulator itself uses numerics.h and activations.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ltc {

template <class Function>
struct Named {
    const char* name;
    Function run;
};

using Unary = void (*)(const float* x, float* y, std::size_t n);
using Binary = void (*)(const float* a, const float* b, float* y, std::size_t n);

// Each processes four lanes at a time and the rest one by one, so that both forms of the header are run.
std::span<const Named<Unary>> unary_operators() noexcept;
std::span<const Named<Binary>> binary_operators() noexcept;
std::span<const Named<Unary>> fp32_activations() noexcept;  // in the order of enum Activation
std::span<const Named<Unary>> bf16_activations() noexcept;

void select_each(const float* condition, const float* a, const float* b, float* y, std::size_t n) noexcept;
// w (m, k), x (k), y (m); x and y of the two reductions: (m, k) and (m).
void dot_rows(const float* w, const float* x, float* y, std::size_t m, std::size_t k) noexcept;
void tree_sum_rows(const float* x, float* y, std::size_t m, std::size_t k) noexcept;
void reduce_max_rows(const float* x, float* y, std::size_t m, std::size_t k) noexcept;
void encode_fp8(const float* x, std::uint8_t* y, std::size_t n, int exponent) noexcept;
void decode_fp8(const std::uint8_t* x, float* y, std::size_t n, int exponent) noexcept;

// The synapses of `targets` targets, `slots` on each: source < 0 says that the slot is absent.
struct Synapses {
    const std::int32_t* source;  // (slots, targets), as are the rest
    const float *mu, *sigma, *w, *we;
    std::size_t slots, targets;
};
// num and den: (targets), in and out.
void synapse_sums(const float* v, const Synapses& synapses, bool fp32, float* num, float* den) noexcept;

// columns: v, num, den, leak, conductance, cm, h; each of n.
void ltc_update_each(const float* const (&columns)[7], float* y, std::size_t n) noexcept;

// Whether FlushGuard restores gradual underflow and to-nearest in a thread that had both switched off,
// and puts back what it found.
bool flush_guard_holds() noexcept;

}  // namespace ltc
