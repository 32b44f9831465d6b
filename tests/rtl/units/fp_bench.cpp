// The arithmetic units against the CPU's IEEE arithmetic: `fp_bench PAIRS STAGES SEED`. Operand pairs are random bits,
// special values, numbers near each other, tiny ones, and those whose results lie at or beside the middle of two numbers.
// Prints a line for each operation and ends with 1 if a result differs.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>

#include "Vbench.h"

namespace {

constexpr int kLanes = 8;

float number(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

std::uint32_t bits(float x) {
    std::uint32_t u;
    std::memcpy(&u, &x, sizeof u);
    return u;
}

// A NaN of any payload and sign is the one NaN: the units promise it, the CPU does not.
std::uint32_t one_nan(float x) { return std::isnan(x) ? 0x7FC00000u : bits(x); }

std::uint32_t flushed(float x) {
    if (std::isnan(x)) return 0x7FC00000u;
    return std::fabs(x) < 0x1p-126f ? bits(std::copysign(0.0f, x)) : bits(x);
}

// The nearest of the two bf16 numbers around x, by their distances in fp64; beyond the largest one, as if it went on.
std::uint32_t narrowed(float x) {
    if (std::isnan(x)) return 0x7FC00000u;
    if (std::isinf(x)) return bits(x);
    const std::uint32_t low = bits(x) & 0xFFFF0000u, high = low + 0x10000u;
    const double above = (high & 0x7F800000u) == 0x7F800000u ? std::copysign(0x1p128, x) : double(number(high));
    const double down = std::fabs(double(x) - double(number(low))), up = std::fabs(above - double(x));
    const bool odd = low >> 16 & 1;
    const std::uint32_t near = up < down || (up == down && odd) ? high : low;
    return (near & 0x7F800000u) == 0 ? near & 0x80000000u : near;
}

std::uint32_t larger(float a, float b) { return std::isnan(a) || std::isnan(b) ? 0x7FC00000u : bits(a > b ? a : b); }
std::uint32_t smaller(float a, float b) { return std::isnan(a) || std::isnan(b) ? 0x7FC00000u : bits(a < b ? a : b); }

struct Operation {
    const char* name;
    std::uint32_t (*expected)(float, float);
    const WData* (*got)(const Vbench&);
    unsigned long wrong = 0;
};

float high_half(float x) { return number(bits(x) & 0xFFFF0000u); }

#define LTC_OUTPUT(port) [](const Vbench& t) -> const WData* { return t.port.data(); }
Operation operations[] = {
    {"add", [](float a, float b) { return one_nan(a + b); }, LTC_OUTPUT(sum)},
    {"subtract", [](float a, float b) { return one_nan(a - b); }, LTC_OUTPUT(difference)},
    {"multiply", [](float a, float b) { return one_nan(a * b); }, LTC_OUTPUT(product)},
    {"multiply bf16", [](float a, float b) { return one_nan(high_half(a) * high_half(b)); }, LTC_OUTPUT(narrow_product)},
    {"divide", [](float a, float b) { return one_nan(a / b); }, LTC_OUTPUT(quotient)},
    {"square root", [](float a, float) { return one_nan(std::sqrt(a)); }, LTC_OUTPUT(root)},
    {"write fp32", [](float a, float) { return flushed(a); }, LTC_OUTPUT(flushed)},
    {"write bf16", [](float a, float) { return narrowed(a); }, LTC_OUTPUT(narrowed)},
    {"floor", [](float a, float) { return one_nan(std::floor(a)); }, LTC_OUTPUT(floor)},
    {"round", [](float a, float) { return one_nan(std::nearbyint(a)); }, LTC_OUTPUT(nearest)},
    {"maximum", larger, LTC_OUTPUT(maximum)},
    {"minimum", smaller, LTC_OUTPUT(minimum)},
    {"relations", [](float a, float b) { return std::uint32_t(a < b) | std::uint32_t(a == b) << 1; },
     LTC_OUTPUT(relations)},
};

class Pairs {
  public:
    explicit Pairs(unsigned seed) : random_(seed) {}

    void next(std::uint32_t& a, std::uint32_t& b) {
        const std::uint32_t u = random_(), v = random_(), kind = random_();
        a = u;
        b = v;
        switch (kind % 8) {
            case 0: a = special(u); break;
            case 1: a = special(u); b = special(v); break;
            case 2:  // near each other, mostly of other signs
                b = (u ^ 0x80000000u) + (v & 0xF) - 8;
                break;
            case 3: a = u & 0x807FFFFFu; break;                                     // subnormal
            case 4: a = (u & 0x83FFFFFFu) | 0x20000000u; b = (v & 0x83FFFFFFu) | 0x1E000000u; break;  // small results
            case 5: b = (u & 0x7F800000u) ^ (v & 0x87FFFFFFu); break;               // exponents not far apart
            case 6: a = u << 20 ^ v & 0xFF800000u; b = v & 0xFFFFF000u; break;      // short significands: ties
            case 7:  // quotients and whole numbers at the middle of two
                a = (127u + v % 28) << 23 | (u & 0x007FFFFFu & ~0u << u % 24) | (u & 0x80000000u);
                b = (v & 0xFF800000u) | (0x400000u >> v % 23);
                break;
            default: break;
        }
    }

  private:
    static std::uint32_t special(std::uint32_t u) {
        constexpr std::uint32_t kValues[] = {0,          1,          2,          0x007FFFFF, 0x00800000, 0x00800001,
                                             0x3F800000, 0x3F7FFFFF, 0x3F000000, 0x3F000001, 0x40000000, 0x7F7FFFFF,
                                             0x7F7FFFFE, 0x7F800000, 0x7F800001, 0x7FC00000, 0x00400000, 0x7F7F8000,
                                             0x007F8000, 0x4B000000, 0x4B7FFFFF, 0x4AFFFFFF, 0x7F000000, 0x34000000};
        return kValues[u % 24] | (u & 0x80000000u);
    }

    std::mt19937 random_;
};

}  // namespace

int main(int argc, char** argv) {
    const unsigned long pairs = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 100000;
    const int stages = argc > 2 ? std::atoi(argv[2]) : 2;
    Pairs source(argc > 3 ? unsigned(std::atoi(argv[3])) : 1);
    VerilatedContext context;
    Vbench top(&context);
    struct Row {
        std::uint32_t a[kLanes], b[kLanes];
    };
    std::deque<Row> waiting;
    unsigned long checked = 0;
    while (checked < pairs) {
        Row row;
        for (int l = 0; l < kLanes; l++) {
            source.next(row.a[l], row.b[l]);
            top.a[l] = row.a[l];
            top.b[l] = row.b[l];
        }
        waiting.push_back(row);
        top.clk = 0;
        top.eval();
        if (int(waiting.size()) > stages) {
            const Row& due = waiting.front();
            for (Operation& operation : operations)
                for (int l = 0; l < kLanes; l++) {
                    const float a = number(due.a[l]), b = number(due.b[l]);
                    const std::uint32_t expected = operation.expected(a, b), got = operation.got(top)[l];
                    if (expected == got) continue;
                    if (operation.wrong++ < 3)
                        std::printf("%s of %08x and %08x: %08x, not %08x\n", operation.name, due.a[l], due.b[l], got,
                                    expected);
                }
            waiting.pop_front();
            checked += kLanes;
        }
        top.clk = 1;
        top.eval();
    }
    bool failed = false;
    for (const Operation& operation : operations) {
        std::printf("%-14s %lu pairs, %lu wrong\n", operation.name, checked, operation.wrong);
        failed = failed || operation.wrong != 0;
    }
    return failed ? 1 : 0;
}
