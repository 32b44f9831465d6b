// Runs model 0 of a program file without Python, for five steps: run_program PROGRAM INPUTS OUTPUTS KERNELS. INPUTS holds
// for every port the arrays of all steps; OUTPUTS will. Prints the cycles of one step.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "clock/timing.h"
#include "vm/vm.h"

constexpr std::size_t steps = 5;

std::vector<char> read(const char* path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

int main(int, char** arguments) {
    const std::vector<char> file = read(arguments[1]), given = read(arguments[2]);
    const ltc::Program program = ltc::parse({reinterpret_cast<const std::uint8_t*>(file.data()), file.size()}, nullptr);
    ltc::VM vm(program, true, ltc::choose_kernels(arguments[4]));

    std::vector<std::vector<float>> results;
    std::vector<const float*> inputs{reinterpret_cast<const float*>(given.data())};
    std::vector<float*> outputs;
    for (const ltc::Port& port : program.models[0].inputs) inputs.push_back(inputs.back() + steps * port.shape.elements());
    for (const ltc::Port& port : program.models[0].outputs)
        outputs.push_back(results.emplace_back(steps * port.shape.elements()).data());
    ltc::Interrupt nobody(nullptr, nullptr);
    if (vm.run_timesteps(0, steps, inputs.data(), outputs.data(), nobody) != ltc::Status::ok) return 1;

    std::ofstream out(arguments[3], std::ios::binary);
    for (const std::vector<float>& y : results) out.write(reinterpret_cast<const char*>(y.data()), std::streamsize(4 * y.size()));
    std::printf("%llu\n", static_cast<unsigned long long>(ltc::count_cycles(program, 0, 0, 1, nobody).total));
}
