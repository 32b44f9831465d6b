// The numeric contract in C++: formats, rounding, operators and orders of summation, one function a rule.
// docs/numerics.md states the rules; a number in parentheses names one. ltc_compiler/numerics is the other
// half: they share no code and agree bit for bit.
//
// F is float, or a GCC/Clang vector of floats, lane by lane the same. Nothing branches on a value, so that
// loops over lanes vectorise. Operators return the raw IEEE result; write_fp32 and to_bf16 make a result
// architectural. Every function is forced inline: a file that is compiled once per instruction set must
// not leave a copy for the linker to share. Build with -ffp-contract=off, and -fno-math-errno for speed.
#pragma once

#include <cfenv>
#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif

#if defined(__FAST_MATH__)
#error "the numeric contract cannot hold under -ffast-math"
#endif
static_assert(FLT_EVAL_METHOD == 0 && sizeof(float) == 4, "fp32 operations must round to fp32");

#define LTC_INLINE [[gnu::always_inline]] inline constexpr

namespace ltc {

template <class F>
struct lanes {
    typedef std::uint32_t U __attribute__((vector_size(sizeof(F))));
    typedef std::int32_t I __attribute__((vector_size(sizeof(F))));
};
template <>
struct lanes<float> {
    using U = std::uint32_t;
    using I = std::int32_t;
};
template <class F>
using U = typename lanes<F>::U;
template <class F>
using I = typename lanes<F>::I;

inline constexpr std::uint32_t sign_bit = 0x80000000u, magnitude_bits = 0x7FFFFFFFu, nan_bits = 0x7FC00000u,
                               infinity_bits = 0x7F800000u, smallest_normal = 0x00800000u;

template <class F>
LTC_INLINE U<F> bits(F x) {
    return __builtin_bit_cast(U<F>, x);
}
template <class F>
LTC_INLINE F from_bits(U<F> u) {
    return __builtin_bit_cast(F, u);
}
// The pattern u in every lane.
template <class F>
LTC_INLINE U<F> all(std::uint32_t u) {
    return U<F>{} + u;
}
template <class F>
LTC_INLINE F splat(float x) {
    return from_bits<F>(all<F>(__builtin_bit_cast(std::uint32_t, x)));
}
// mask is what a comparison gave. Selecting bits rather than floats keeps the compiler from branching.
template <class F, class Mask>
LTC_INLINE F choose(Mask mask, F a, F b) {
    return from_bits<F>(mask ? bits(a) : bits(b));
}

// --- formats and architectural writes (1, 4, 5) ---

template <class F>
LTC_INLINE U<F> flush(U<F> u) {
    const U<F> magnitude = u & magnitude_bits;
    const U<F> kept = magnitude < smallest_normal ? u & sign_bit : u;
    return magnitude > infinity_bits ? all<F>(nan_bits) : kept;
}

// Subnormals become zero of their sign, every NaN 0x7FC00000.
template <class F>
LTC_INLINE F write_fp32(F x) {
    return from_bits<F>(flush<F>(bits(x)));
}

// To nearest even bf16, held as the fp32 number that it equals; overflow gives infinity; then as write_fp32.
template <class F>
LTC_INLINE F to_bf16(F x) {
    const U<F> u = bits(x);
    const U<F> rounded = (u + 0x7FFFu + ((u >> 16) & 1u)) & 0xFFFF0000u;
    return from_bits<F>(flush<F>((u & magnitude_bits) > infinity_bits ? all<F>(nan_bits) : rounded));
}

LTC_INLINE std::uint16_t bf16_bits(float x) {
    return static_cast<std::uint16_t>(bits(to_bf16(x)) >> 16);
}
LTC_INLINE float from_bf16_bits(std::uint16_t u) {
    return from_bits<float>(static_cast<std::uint32_t>(u) << 16);
}

// 2^exponent for -126 <= exponent <= 127.
LTC_INLINE float power_of_two(int exponent) {
    return from_bits<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

// x / 2^exponent as E4M3FN: to nearest even, saturating at +-448, a NaN is 0x7F; -120 <= exponent <= 120.
LTC_INLINE std::uint8_t encode_fp8_e4m3(float x, int exponent) {
    const std::uint32_t u = bits(x * power_of_two(-exponent)), magnitude = u & magnitude_bits;
    const std::uint32_t normal = ((magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u)) >> 20) - (120u << 3);
    const std::uint32_t saturated = normal > 0x7Eu ? 0x7Eu : normal;
    // Below 2^-6 the codes count steps of 2^-9: that is the ulp of 2^14, so one addition rounds.
    const std::uint32_t steps = bits(from_bits<float>(magnitude) + 0x1p14f) - bits(0x1p14f);
    const std::uint32_t code = magnitude < bits(0x1p-6f) ? steps : saturated;
    return static_cast<std::uint8_t>(magnitude > infinity_bits ? 0x7Fu : code | ((u & sign_bit) >> 24));
}

// The bf16 value of a code times 2^exponent, -120 <= exponent <= 120.
LTC_INLINE float decode_fp8_e4m3(std::uint8_t code, int exponent) {
    const std::uint32_t magnitude = code & 0x7Fu;
    const float small = static_cast<float>(magnitude) * 0x1p-9f;
    const float normal = from_bits<float>(magnitude == 0x7Fu ? nan_bits : (magnitude << 20) + (120u << 23));
    const std::uint32_t sign = (code & 0x80u) << 24;
    return to_bf16(from_bits<float>(bits(magnitude < 8 ? small : normal) | sign) * power_of_two(exponent));
}

// --- operators: one IEEE-754 operation each (2, 6) ---

template <class F> LTC_INLINE F add(F a, F b) { return a + b; }
template <class F> LTC_INLINE F sub(F a, F b) { return a - b; }
template <class F> LTC_INLINE F mul(F a, F b) { return a * b; }
template <class F> LTC_INLINE F div(F a, F b) { return a / b; }
template <class F> LTC_INLINE F neg(F x) { return from_bits<F>(bits(x) ^ sign_bit); }
template <class F> LTC_INLINE F absolute(F x) { return from_bits<F>(bits(x) & magnitude_bits); }

template <class F>
LTC_INLINE F sqrt(F x) {
    if constexpr (std::is_same_v<F, float>) {
        return __builtin_sqrtf(x);
    } else {
        for (std::size_t i = 0; i < sizeof(F) / sizeof(float); ++i) x[i] = __builtin_sqrtf(x[i]);
        return x;
    }
}

template <class F>
LTC_INLINE F with_sign(F magnitude, F x) {
    return from_bits<F>(bits(magnitude) | (bits(x) & sign_bit));
}

// --- whole numbers (15) ---

// The nearest whole number, of two the even one, with the sign of x: from 2^23 on all numbers are whole.
template <class F>
LTC_INLINE F round_even(F x) {
    const F a = absolute(x);
    return choose<F>(a < 0x1p+23f, with_sign((a + 0x1p+23f) - 0x1p+23f, x), x);
}
template <class F>
LTC_INLINE F floor(F x) {
    const F nearest = round_even(x);
    return nearest - choose<F>(nearest > x, splat<F>(1.0f), splat<F>(0.0f));
}

// r less the multiple of b > 0 that r / b, cut to a whole number n, tells. Exact: n * b is p and its rounding error, summed
// from halves of 12 bits in an order in which no sum rounds.
template <class F>
LTC_INLINE F less_multiple(F r, F b) {
    const F n = with_sign(floor(absolute(r / b)), r), p = n * b;
    const F n1 = from_bits<F>(bits(n) & 0xFFFFF000u), b1 = from_bits<F>(bits(b) & 0xFFFFF000u);
    const F n2 = n - n1, b2 = b - b1;
    return (r - p) - ((((n1 * b1 - p) + n1 * b2) + n2 * b1) + n2 * b2);
}
// In two steps, of which the second has a quotient below 2^17; what rounding took too much is given back at last.
template <class F>
LTC_INLINE F fmod(F x, F y) {
    const F a = absolute(x), b = absolute(y), infinity = from_bits<F>(all<F>(infinity_bits));
    const F r = less_multiple(less_multiple(a, b), b);
    const F inside = choose<F>(r < 0.0f, r + b, r);
    const F below = choose<F>((a < infinity) & (b == infinity), a, inside);
    return with_sign(choose<F>(a / b < 0x1p+40f, below, from_bits<F>(all<F>(nan_bits))), x);
}

// NaN if either is NaN, else a > b ? a : b, so that of two zeros the second is taken; minimum alike.
template <class F>
LTC_INLINE F maximum(F a, F b) {
    return choose<F>((a != a) | (b != b), splat<F>(__builtin_nanf("")), choose<F>(a > b, a, b));
}
template <class F>
LTC_INLINE F minimum(F a, F b) {
    return choose<F>((a != a) | (b != b), splat<F>(__builtin_nanf("")), choose<F>(a < b, a, b));
}
template <class F> LTC_INLINE F relu(F x) { return maximum(x, splat<F>(0.0f)); }

// Comparisons give 1 or 0; with a NaN only ne is 1.
template <class F> LTC_INLINE F lt(F a, F b) { return choose<F>(a < b, splat<F>(1.0f), splat<F>(0.0f)); }
template <class F> LTC_INLINE F le(F a, F b) { return choose<F>(a <= b, splat<F>(1.0f), splat<F>(0.0f)); }
template <class F> LTC_INLINE F gt(F a, F b) { return choose<F>(a > b, splat<F>(1.0f), splat<F>(0.0f)); }
template <class F> LTC_INLINE F ge(F a, F b) { return choose<F>(a >= b, splat<F>(1.0f), splat<F>(0.0f)); }
template <class F> LTC_INLINE F eq(F a, F b) { return choose<F>(a == b, splat<F>(1.0f), splat<F>(0.0f)); }
template <class F> LTC_INLINE F ne(F a, F b) { return choose<F>(a != b, splat<F>(1.0f), splat<F>(0.0f)); }

// a where the condition is not zero, a NaN included; else b.
template <class F>
LTC_INLINE F select(F condition, F a, F b) {
    return choose<F>(condition != splat<F>(0.0f), a, b);
}

// --- orders of summation (7): the plain form, which every kernel must equal ---

inline constexpr std::size_t accumulators = 64;

// The balanced tree of adjacent pairs; overwrites the accumulators.
template <class F>
LTC_INLINE F tree(F (&a)[accumulators]) {
    for (std::size_t width = accumulators / 2; width > 0; width /= 2)
        for (std::size_t i = 0; i < width; ++i) a[i] = a[2 * i] + a[2 * i + 1];
    return a[0];
}

// Term i of 0..k-1 goes to accumulator (i / 2) mod 64, ascending.
LTC_INLINE float tree_sum(const float* x, std::size_t k) {
    float a[accumulators] = {};
    for (std::size_t i = 0; i < k; ++i) a[i / 2 % accumulators] = a[i / 2 % accumulators] + x[i];
    return tree(a);
}
// Without the bias, which the caller adds last. bf16 operands come as the fp32 numbers that they equal.
LTC_INLINE float dot(const float* w, const float* x, std::size_t k) {
    float a[accumulators] = {};
    for (std::size_t i = 0; i < k; ++i) a[i / 2 % accumulators] = a[i / 2 % accumulators] + w[i] * x[i];
    return tree(a);
}
// k >= 1.
LTC_INLINE float reduce_max(const float* x, std::size_t k) {
    float result = x[0];
    for (std::size_t i = 1; i < k; ++i) result = maximum(result, x[i]);
    return result;
}

// --- the LTC update (12): each operation an architectural write ---

template <class F>
LTC_INLINE F ltc_update(F v, F num, F den, F leak, F conductance, F cm, F h) {
    const F n = write_fp32(leak + num);
    const F d = write_fp32(conductance + den);
    const F drive = write_fp32(h * write_fp32(n - write_fp32(d * v)));
    const F inertia = write_fp32(cm + write_fp32(h * d));
    return write_fp32(v + write_fp32(drive / inertia));
}

// --- the floating-point unit (3) ---

// While it lives, this thread rounds to nearest even and keeps subnormals, whatever the process had set.
// Construct it, then call the code that computes through a function that is not inlined.
class FlushGuard {
public:
    [[gnu::always_inline]] FlushGuard() noexcept : saved_(read()) { write(plain); }
    [[gnu::always_inline]] ~FlushGuard() { write(saved_); }
    FlushGuard(const FlushGuard&) = delete;
    FlushGuard& operator=(const FlushGuard&) = delete;

private:
#if defined(__x86_64__) || defined(__i386__)
    using Word = unsigned;
    static constexpr Word plain = 0x1F80;  // MXCSR: all exceptions masked, to nearest, no FTZ, no DAZ
    [[gnu::always_inline]] static Word read() noexcept { return _mm_getcsr(); }
    [[gnu::always_inline]] static void write(Word word) noexcept {
        asm volatile("" ::: "memory");
        _mm_setcsr(word);
        asm volatile("" ::: "memory");
    }
#elif defined(__aarch64__)
    using Word = std::uint64_t;
    static constexpr Word plain = 0;  // FPCR: to nearest, no FZ, no DN, no traps
    [[gnu::always_inline]] static Word read() noexcept {
        Word word;
        asm volatile("mrs %0, fpcr" : "=r"(word));
        return word;
    }
    [[gnu::always_inline]] static void write(Word word) noexcept {
        asm volatile("msr fpcr, %0" ::"r"(word) : "memory");
    }
#else
    using Word = int;  // no flush mode is known here; the rounding direction is all there is
    static constexpr Word plain = FE_TONEAREST;
    [[gnu::always_inline]] static Word read() noexcept { return std::fegetround(); }
    [[gnu::always_inline]] static void write(Word word) noexcept { std::fesetround(word); }
#endif
    Word saved_;
};

}  // namespace ltc
