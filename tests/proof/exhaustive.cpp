// Runs one function of the numeric contract over every input that it has, and compares it with a reference that shares
// nothing with it. exhaustive.py builds this program, draws its progress and checks its findings with mpmath.
//
//     exhaustive CHECK [THREADS]
//
// The activation units (rule 10) are measured against fp64, in ulps of the exact result. Everything else has to be right:
// roundings are checked against the midpoints beside the result, which fp64 holds exactly. Prints "progress DONE TOTAL"
// while it runs and at last one line "result ...", or the first wrong input and exit status 1.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "numerics/activations.h"
#include "numerics/numerics.h"

namespace {

using std::uint32_t, std::uint64_t, std::size_t;
using ltc::Activation;

typedef float Wide __attribute__((vector_size(64)));
constexpr size_t width = sizeof(Wide) / sizeof(float);
constexpr uint64_t block = 1 << 16;  // inputs that a thread takes at a time
constexpr double least = 0x1p-126, past = 0x1p128, most = past * (1 - 0x1p-25);

uint32_t pattern(float x) { return __builtin_bit_cast(uint32_t, x); }
float number(uint32_t u) { return __builtin_bit_cast(float, u); }

// Of a normal fp64 number; below that, less than any that matters.
int exponent_of(double x) { return int(__builtin_bit_cast(uint64_t, x) >> 52 & 0x7FF) - 1023; }
double power_of(int exponent) { return __builtin_bit_cast(double, uint64_t(exponent + 1023) << 52); }

// What a thread found over its blocks.
struct Finding {
    double worst = -1;  // ulp
    uint32_t at = 0;
    uint64_t rounded = 0;  // results that are the nearest fp32 number
    uint64_t wrong = 0;
    uint64_t first_wrong = ~uint64_t{0};

    void fault(uint64_t input) {
        ++wrong;
        first_wrong = std::min(first_wrong, input);
    }
    void join(const Finding& other) {
        if (other.worst > worst || (other.worst == worst && other.at < at)) worst = other.worst, at = other.at;
        rounded += other.rounded;
        wrong += other.wrong;
        first_wrong = std::min(first_wrong, other.first_wrong);
    }
};

// --- activation units ---

double reference(Activation which, double x) {
    using enum Activation;
    const bool gate = which == silu || which == gelu || which == gelu_tanh;
    if (gate && x == -HUGE_VAL) return -0.0;
    switch (which) {
        case sigmoid: return 1 / (1 + std::exp(-x));
        case tanh: return std::tanh(x);
        case exp: return std::exp(x);
        case exp2: return std::exp2(x);
        case log: return std::log(x);
        case softplus: return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x)));
        case silu: return x / (1 + std::exp(-x));
        case gelu: return x * std::erfc(x * -0x1.6a09e667f3bcdp-1) / 2;
        case gelu_tanh: return x / (1 + std::exp(-0x1.9884533d43651p+0 * (x + 0.044715 * (x * x * x))));
        case reciprocal: return 1 / x;
        case rsqrt: return 1 / std::sqrt(x);
        case sin: return std::sin(x);
        case cos: return std::cos(x);
        case erf: return std::erf(x);
        default: return std::atan(x);
    }
}

// The error in ulps of `exact`, those of 2^-126 at the least. A result that the contract flushes is right where the exact
// one is below 2^-126, an infinity where it rounds to one; the sign of a zero counts.
double ulps(float result, double exact) {
    if (std::isnan(exact)) return pattern(result) == ltc::nan_bits ? 0 : HUGE_VAL;
    if (result == exact) return std::signbit(result) == std::signbit(exact) ? 0 : HUGE_VAL;
    if (std::signbit(result) != std::signbit(exact)) return HUGE_VAL;
    if (std::fabs(exact) < least && (result == 0 || std::fabs(result) == least)) return 0;
    if (std::isinf(result)) return std::fabs(exact) >= most ? 0 : HUGE_VAL;
    if (std::isnan(result) || std::isinf(exact)) return HUGE_VAL;
    return std::fabs(result - exact) * power_of(23 - std::max(exponent_of(exact), -126));
}

template <Activation which>
void measure(uint64_t begin, Finding& found) {
    float x[block], lanes[block], alone[block];
    for (size_t i = 0; i < block; ++i) x[i] = number(uint32_t(begin + i));
    for (size_t i = 0; i < block; i += width) {
        Wide v;
        std::memcpy(&v, x + i, sizeof v);
        v = ltc::activation_fp32<which>(v);
        std::memcpy(lanes + i, &v, sizeof v);
    }
    for (size_t i = 0; i < block; ++i) alone[i] = ltc::activation_fp32<which>(x[i]);
    for (size_t i = 0; i < block; ++i) {
        const double read = std::fabs(double(x[i])) < least ? std::copysign(0.0, x[i]) : double(x[i]);
        const double error = ulps(lanes[i], reference(which, read));
        found.rounded += error <= 0.5;
        if (error > found.worst) found.worst = error, found.at = uint32_t(begin + i);
        if (!(error < 100) || pattern(lanes[i]) != pattern(alone[i])) found.fault(begin + i);
    }
}

// --- single roundings ---

// Whether `result`, of `bits` bits of precision, is where round to nearest even puts a number of which `compare(m)` tells
// the sign of (number - m) for any fp64 m. Below 2^-126 the format goes on with steps of one size.
template <class Compare>
bool nearest(float result, int bits, Compare compare) {
    const double r = result;
    if (std::isinf(result)) {
        const double edge = std::copysign(0x1p128 - power_of(127 - bits), r);
        return r > 0 ? compare(edge) >= 0 : compare(edge) <= 0;
    }
    if (std::isnan(result)) return false;
    const bool even = (pattern(result) >> (24 - bits)) % 2 == 0;
    const double unit = power_of(std::max(exponent_of(r), -126) - (bits - 1));
    const bool power = std::fabs(r) > least && std::fabs(r) == power_of(exponent_of(r));
    const double inward = power ? unit / 4 : unit / 2;  // the step below a power of two is half as large
    const double high = r + (r >= 0 ? unit / 2 : inward), low = r - (r > 0 ? inward : unit / 2);
    const int above = compare(high), below = compare(low);
    return (above < 0 || (above == 0 && even)) && (below > 0 || (below == 0 && even));
}

int sign(double x) { return (x > 0) - (x < 0); }

float flushed(float x) { return std::fabs(x) < float(least) ? std::copysign(0.0f, x) : x; }

void square_roots(uint64_t begin, Finding& found) {
    for (uint64_t i = begin; i < begin + block; ++i) {
        const float x = number(uint32_t(i)), y = ltc::sqrt(x);
        const bool right = std::isnan(x) || x < 0 ? std::isnan(y)
                           : x == 0 || std::isinf(x)
                               ? pattern(y) == pattern(x)
                               : nearest(y, 24, [x](double m) { return m < 0 ? 1 : sign(x - m * m); });
        if (!right) found.fault(i);
    }
}

void whole_numbers(uint64_t begin, Finding& found) {
    for (uint64_t i = begin; i < begin + block; ++i) {
        const float x = number(uint32_t(i)), down = ltc::floor(x), near = ltc::round_even(x);
        const bool right = std::isnan(x) ? std::isnan(down) && std::isnan(near)
                                         : pattern(down) == pattern(std::floor(x)) && pattern(near) == pattern(std::nearbyint(x));
        if (!right) found.fault(i);
    }
}

// Every mantissa divided by 512 divisors, mantissas drawn by a linear generator and the edges.
void quotients(uint64_t begin, Finding& found) {
    for (uint64_t i = begin; i < begin + block; ++i) {
        const uint32_t n = uint32_t(i >> 23), drawn = (n * 2654435761u) >> 9;
        const uint32_t mantissa = n < 16 ? n : n < 32 ? 0x7FFFFFu - (n - 16) : drawn;
        const float a = number(0x3F800000u | uint32_t(i & 0x7FFFFFu)), b = number(0x3F800000u | mantissa);
        if (!nearest(ltc::div(a, b), 24, [a, b](double m) { return sign(a - m * b); })) found.fault(i);
    }
}

// From here on a number rounds to 2^-126 in bf16, so that it is not flushed: rule 4 looks at the rounded bits.
constexpr double flush_edge = least * (1 - 0x1p-8);

// All pairs of bf16 numbers: the fp32 operation and one rounding to bf16 equal one rounding (rule 8).
template <char operation>
void pairs(uint64_t begin, Finding& found) {
    const float a = number(uint32_t(begin >> 16) << 16);
    if (std::isnan(a) || (a != 0 && std::fabs(a) < float(least))) return;  // neither is an architectural bf16 number
    for (uint32_t j = 0; j < 65536; ++j) {
        const float b = number(j << 16);
        if (std::isnan(b) || (b != 0 && std::fabs(b) < float(least))) continue;
        const float raw = operation == '+' ? ltc::add(a, b) : operation == '*' ? ltc::mul(a, b) : ltc::div(a, b);
        const float y = ltc::to_bf16(raw);
        const double x = a, z = b;
        const double plain = operation == '+' ? x + z : operation == '*' ? x * z : x / z;  // of infinities and zeros
        bool right;
        if (std::isnan(plain) || std::isinf(plain) || plain == 0) {
            right = std::isnan(plain) ? pattern(y) == ltc::nan_bits : pattern(y) == pattern(float(plain));
        } else {
            const auto compare = [&](double m) {
                if (operation == '*') return sign(x * z - m);
                if (operation == '/') return std::isinf(z) ? -sign(m) : z > 0 ? sign(x - m * z) : -sign(x - m * z);
                const double sum = x + z, back = sum - x, lost = (x - (sum - back)) + (z - back);
                return sum != m ? sign(sum - m) : sign(lost);  // Knuth's exact error of the sum
            };
            const int side = std::signbit(plain) ? -1 : 1;
            right = y == 0 ? std::signbit(y) == std::signbit(plain) && compare(side * flush_edge) * side < 0
                           : std::fabs(y) >= float(least) && nearest(y, 8, compare);
        }
        if (!right) found.fault(begin + j);
    }
}

// Host loads and writes: to_bf16 and write_fp32 of every fp32 number.
void formats(uint64_t begin, Finding& found) {
    for (uint64_t i = begin; i < begin + block; ++i) {
        const float x = number(uint32_t(i)), y = ltc::to_bf16(x), z = ltc::write_fp32(x);
        bool right = pattern(z) == (std::isnan(x) ? ltc::nan_bits : pattern(flushed(x))) && pattern(y) % 65536 == 0;
        if (std::isnan(x)) right = right && pattern(y) == ltc::nan_bits;
        else if (y == 0) right = right && std::signbit(y) == std::signbit(x) && std::fabs(double(x)) < flush_edge;
        else right = right && std::fabs(y) >= float(least) && (x == y || nearest(y, 8, [x](double m) { return sign(double(x) - m); }));
        if (!right) found.fault(i);
    }
}

// --- fp8 ---

double fp8_value(unsigned code) {  // of a code below 0x7F, as the format is defined
    const unsigned exponent = code >> 3, mantissa = code & 7;
    return exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, int(exponent) - 10);
}

// Every fp32 number under one scale: the nearest of the 127 values, ties to the even code, saturated.
template <int exponent>
void encode(uint64_t begin, Finding& found) {
    static const auto middles = [] {
        std::vector<double> m(126);
        for (unsigned code = 0; code < 126; ++code) m[code] = (fp8_value(code) + fp8_value(code + 1)) / 2;
        return m;
    }();
    for (uint64_t i = begin; i < begin + block; ++i) {
        const float x = number(uint32_t(i));
        const double magnitude = power_of(-exponent) * std::fabs(double(x));
        size_t code = 0;
        for (size_t step = 64; step > 0; step /= 2)
            if (code + step <= 126 && middles[code + step - 1] <= magnitude) code += step;
        if (code > 0 && middles[code - 1] == magnitude && code % 2 == 1) --code;  // a tie goes to the even one
        const unsigned expected = std::isnan(x) ? 0x7Fu : unsigned(code) | (std::signbit(x) ? 0x80u : 0u);
        if ((ltc::encode_fp8_e4m3(x, exponent) & (std::isnan(x) ? 0x7Fu : 0xFFu)) != expected) found.fault(i);
    }
}

// Every code under every scale (the input is scale * 256 + code), flushed as any bf16 value is.
void decode(uint64_t begin, Finding& found) {
    for (uint64_t i = begin; i < begin + block && i < 241 * 256; ++i) {
        const int exponent = int(i / 256) - 120;
        const unsigned code = i % 256, magnitude = code & 0x7F;
        const float y = ltc::decode_fp8_e4m3(std::uint8_t(code), exponent);
        const double value = magnitude == 0x7F ? NAN : std::ldexp(fp8_value(magnitude), exponent) * (code & 0x80 ? -1 : 1);
        const double kept = std::fabs(value) < least ? std::copysign(0.0, value) : value;
        const bool right = magnitude == 0x7F ? pattern(y) == ltc::nan_bits
                           : std::fabs(kept) >= past ? std::isinf(y) && std::signbit(y) == std::signbit(kept)
                                                     : double(y) == kept && std::signbit(y) == std::signbit(kept);
        if (!right) found.fault(i);
    }
}

// --- the list of checks, and the threads ---

struct Check {
    const char* name;
    uint64_t inputs;
    void (*run)(uint64_t begin, Finding& found);
};

constexpr uint64_t every = uint64_t{1} << 32;
const Check checks[] = {
    {"sigmoid", every, measure<Activation::sigmoid>},
    {"tanh", every, measure<Activation::tanh>},
    {"exp", every, measure<Activation::exp>},
    {"exp2", every, measure<Activation::exp2>},
    {"log", every, measure<Activation::log>},
    {"softplus", every, measure<Activation::softplus>},
    {"silu", every, measure<Activation::silu>},
    {"gelu", every, measure<Activation::gelu>},
    {"gelu_tanh", every, measure<Activation::gelu_tanh>},
    {"reciprocal", every, measure<Activation::reciprocal>},
    {"rsqrt", every, measure<Activation::rsqrt>},
    {"sin", every, measure<Activation::sin>},
    {"cos", every, measure<Activation::cos>},
    {"erf", every, measure<Activation::erf>},
    {"atan", every, measure<Activation::atan>},
    {"whole", every, whole_numbers},
    {"sqrt", every, square_roots},
    {"div", every, quotients},
    {"bf16_add", every, pairs<'+'>},
    {"bf16_mul", every, pairs<'*'>},
    {"bf16_div", every, pairs<'/'>},
    {"formats", every, formats},
    {"fp8_decode", block, decode},
    {"fp8_encode_-120", every, encode<-120>},
    {"fp8_encode_0", every, encode<0>},
    {"fp8_encode_120", every, encode<120>},
};

Finding run(const Check& check, unsigned threads) {
    std::atomic<uint64_t> next{0}, done{0};
    std::mutex joining;
    Finding all;
    const auto work = [&] {
        Finding mine;
        for (uint64_t begin; (begin = next.fetch_add(block)) < check.inputs; done += block) check.run(begin, mine);
        const std::lock_guard lock(joining);
        all.join(mine);
    };
    std::vector<std::thread> workers;
    for (unsigned i = 0; i < threads; ++i) workers.emplace_back(work);
    while (done < check.inputs) {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        std::printf("progress %llu %llu\n", (unsigned long long)done, (unsigned long long)check.inputs);
        std::fflush(stdout);
    }
    for (std::thread& worker : workers) worker.join();
    return all;
}

}  // namespace

int main(int argc, char** argv) {
    const unsigned threads = argc > 2 ? unsigned(std::atoi(argv[2])) : 1;
    for (const Check& check : checks) {
        if (argc < 2) std::printf("%s\n", check.name);
        else if (std::strcmp(argv[1], check.name) == 0) {
            const Finding found = run(check, std::max(threads, 1u));
            std::printf("result inputs=%llu wrong=%llu first_wrong=%#llx worst=%.6f at=%#x nearest=%llu\n",
                        (unsigned long long)check.inputs, (unsigned long long)found.wrong,
                        (unsigned long long)found.first_wrong, found.worst, found.at, (unsigned long long)found.rounded);
            return found.wrong != 0;
        }
    }
    return argc < 2 ? 0 : 2;
}
