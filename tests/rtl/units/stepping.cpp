// Drives a bench with the words of a cycle after the other from standard input, and writes what its outputs are in each.
#include <cstdio>

#include "Vbench.h"

int main() {
    VerilatedContext context;
    Vbench top(&context);
    std::size_t cycles = 0;
    while (std::fread(top.stimulus.data(), 1, sizeof top.stimulus, stdin) == sizeof top.stimulus) {
        top.clk = 0;
        top.eval();
        std::fwrite(top.response.data(), 1, sizeof top.response, stdout);
        top.clk = 1;
        top.eval();
        cycles++;
    }
    return cycles == 0;
}
