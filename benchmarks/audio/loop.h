// What both drivers share: floats from and to files, and the loop that is timed.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

inline std::vector<float> read_floats(const char* path) {
    std::FILE* file = std::fopen(path, "rb");
    if (file == nullptr) {
        std::perror(path);
        std::exit(1);
    }
    std::vector<float> found;
    float value = 0;
    while (std::fread(&value, sizeof value, 1, file) == 1) found.push_back(value);
    std::fclose(file);
    return found;
}

// Runs `process(in, out, count)` over all samples in blocks, writes the first pass's output, and prints for every
// further pass its nanoseconds a sample. The samples are a multiple of the block.
template <typename Process>
void run(std::vector<float> in, const char* output, int block, int passes, Process&& process) {
    std::vector<float> out(in.size());
    for (int pass = 0; pass <= passes; ++pass) {
        const auto begin = std::chrono::steady_clock::now();
        for (std::size_t at = 0; at < in.size(); at += block) process(in.data() + at, out.data() + at, block);
        const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - begin;
        if (pass > 0) {
            std::printf("%.3f\n", spent.count() / in.size());
            continue;
        }
        std::FILE* file = std::fopen(output, "wb");
        if (file == nullptr || std::fwrite(out.data(), sizeof(float), out.size(), file) != out.size()) std::exit(1);
        std::fclose(file);
    }
}
