// The numeric contract over arrays: see numerics_api.h.
#include "numerics/numerics_api.h"

#include "numerics/activations.h"
#include "numerics/numerics.h"

#include <cfenv>
#include <cstring>

namespace ltc {
namespace {

typedef float Four __attribute__((vector_size(16)));
constexpr std::size_t width = 4;

Four load(const float* p) {
    Four v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <auto operation>
void map(const float* x, float* y, std::size_t n) {
    std::size_t i = 0;
    for (; i + width <= n; i += width) {
        const Four result = operation(load(x + i));
        std::memcpy(y + i, &result, sizeof result);
    }
    for (; i < n; ++i) y[i] = operation(x[i]);
}

template <auto operation>
void map(const float* a, const float* b, float* y, std::size_t n) {
    std::size_t i = 0;
    for (; i + width <= n; i += width) {
        const Four result = operation(load(a + i), load(b + i));
        std::memcpy(y + i, &result, sizeof result);
    }
    for (; i < n; ++i) y[i] = operation(a[i], b[i]);
}

template <Activation which>
void table(const float* x, float* y, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) y[i] = activation_bf16(which, x[i]);
}

#define LTC_UNARY(name) {#name, map<[](auto x) { return name(x); }>}
#define LTC_BINARY(name) {#name, map<[](auto a, auto b) { return name(a, b); }>}
#define LTC_FP32(name) {#name, map<[](auto x) { return activation_fp32<Activation::name>(x); }>}
#define LTC_BF16(name) {#name, table<Activation::name>}

constexpr Named<Unary> unary[] = {LTC_UNARY(write_fp32), LTC_UNARY(to_bf16), LTC_UNARY(neg),
                                  LTC_UNARY(absolute),   LTC_UNARY(relu),    LTC_UNARY(sqrt),
                                  LTC_UNARY(floor),      LTC_UNARY(round_even)};
constexpr Named<Binary> binary[] = {
    LTC_BINARY(add),     LTC_BINARY(sub), LTC_BINARY(mul), LTC_BINARY(div), LTC_BINARY(maximum),
    LTC_BINARY(minimum), LTC_BINARY(lt),  LTC_BINARY(le),  LTC_BINARY(gt),  LTC_BINARY(ge),
    LTC_BINARY(eq),      LTC_BINARY(ne),  LTC_BINARY(fmod)};

#define LTC_ACTIVATIONS(ROW)                                                                              \
    ROW(sigmoid), ROW(tanh), ROW(exp), ROW(exp2), ROW(log), ROW(softplus), ROW(silu), ROW(gelu),          \
        ROW(gelu_tanh), ROW(reciprocal), ROW(rsqrt), ROW(sin), ROW(cos), ROW(erf), ROW(atan)
constexpr Named<Unary> in_fp32[] = {LTC_ACTIVATIONS(LTC_FP32)};
constexpr Named<Unary> in_bf16[] = {LTC_ACTIVATIONS(LTC_BF16)};
static_assert(std::size(in_fp32) == activation_count && std::size(in_bf16) == activation_count);

// A subnormal sum shows a flush mode, and a tie of either sign a rounding direction.
[[gnu::noinline]] bool computes_plainly() {
    volatile float subnormal = 0x1p-140f, one = 1.0f, half_ulp = 0x1p-24f;
    volatile float doubled = subnormal + subnormal, rounded = one + half_ulp, negative = -one - half_ulp;
    return bits(float(doubled)) == 0x400u && rounded == 1.0f && negative == -1.0f;
}

}  // namespace

std::span<const Named<Unary>> unary_operators() noexcept { return unary; }
std::span<const Named<Binary>> binary_operators() noexcept { return binary; }
std::span<const Named<Unary>> fp32_activations() noexcept { return in_fp32; }
std::span<const Named<Unary>> bf16_activations() noexcept { return in_bf16; }

void select_each(const float* condition, const float* a, const float* b, float* y, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; ++i) y[i] = select(condition[i], a[i], b[i]);
}

void dot_rows(const float* w, const float* x, float* y, std::size_t m, std::size_t k) noexcept {
    for (std::size_t i = 0; i < m; ++i) y[i] = dot(w + i * k, x, k);
}
void tree_sum_rows(const float* x, float* y, std::size_t m, std::size_t k) noexcept {
    for (std::size_t i = 0; i < m; ++i) y[i] = tree_sum(x + i * k, k);
}
void reduce_max_rows(const float* x, float* y, std::size_t m, std::size_t k) noexcept {
    for (std::size_t i = 0; i < m; ++i) y[i] = reduce_max(x + i * k, k);
}

void encode_fp8(const float* x, std::uint8_t* y, std::size_t n, int exponent) noexcept {
    for (std::size_t i = 0; i < n; ++i) y[i] = encode_fp8_e4m3(x[i], exponent);
}
void decode_fp8(const std::uint8_t* x, float* y, std::size_t n, int exponent) noexcept {
    for (std::size_t i = 0; i < n; ++i) y[i] = decode_fp8_e4m3(x[i], exponent);
}

void synapse_sums(const float* v, const Synapses& s, bool fp32, float* num, float* den) noexcept {
    for (std::size_t i = 0; i < s.slots * s.targets; ++i) {
        const std::size_t target = i % s.targets;
        if (s.source[i] < 0) continue;
        const float source = v[s.source[i]];
        if (fp32) synapse_fp32(source, s.mu[i], s.sigma[i], s.w[i], s.we[i], num[target], den[target]);
        else synapse_bf16(to_bf16(source), s.mu[i], s.sigma[i], s.w[i], s.we[i], num[target], den[target]);
    }
    for (std::size_t target = 0; target < s.targets; ++target) num[target] += 0.0f, den[target] += 0.0f;
}

void ltc_update_each(const float* const (&c)[7], float* y, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; ++i)
        y[i] = ltc_update(c[0][i], c[1][i], c[2][i], c[3][i], c[4][i], c[5][i], c[6][i]);
}

bool flush_guard_holds() noexcept {
    const int direction = std::fegetround();
    std::fesetround(FE_UPWARD);
#if defined(__x86_64__) || defined(__i386__)
    const unsigned before = _mm_getcsr();
    const unsigned spoilt = before | 0x8040u;  // FTZ and DAZ
    _mm_setcsr(spoilt);
#endif
    const bool was_spoilt = !computes_plainly();
    bool held;
    {
        const FlushGuard guard;
        held = computes_plainly();
    }
    bool restored = std::fegetround() == FE_UPWARD;
#if defined(__x86_64__) || defined(__i386__)
    restored = restored && (_mm_getcsr() & 0xFFC0u) == (spoilt & 0xFFC0u);
    _mm_setcsr(before);
#endif
    std::fesetround(direction);
    return was_spoilt && held && restored;
}

}  // namespace ltc
