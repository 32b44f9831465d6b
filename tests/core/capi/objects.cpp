// ltc.hpp at work: objects PROGRAM, of one model with inputs x (2) and dt () and output y (2). Prints what it sees.
#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <ltc.hpp>
#include <utility>
#include <vector>

namespace {

void show(const char* name, std::span<const float> numbers) {
    std::printf("%s", name);
    for (const float y : numbers) std::printf(" %g", static_cast<double>(y));
    std::printf("\n");
}

template <class Call>
void refused(Call call) {
    try {
        call();
        std::printf("not refused\n");
    } catch (const ltc::Error& error) {
        std::printf("%s %s: %s\n", ltc_status_name(error.status()), error.where().c_str(), error.what());
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) return 1;
    const ltc::Program program(arguments[1]);
    std::printf("%zu %s %s %u %s\n", program.models(), program.machine().name, program.model().name, program.model().states, program.input(1).role);
    std::printf("%d %zu\n", program.cycles().spaced > 0, program.trace(3).size());

    ltc::VM vm(program);
    std::array<float, 2> x{1, 2}, y{};
    const float dt = 0.5f;
    const std::array inputs{ltc::input(x), ltc::input({&dt, 1})};
    const std::array outputs{ltc::output(y)};
    vm.run(inputs, outputs);
    show("first", y);
    ltc::VM copy = vm;  // goes its own way
    copy.run(inputs, outputs);
    show("copy", y);
    ltc::VM moved = std::move(copy);
    std::vector<float> state(2);
    moved.get_state(0, state);
    show("state", state);
    moved.set_state(0, std::array{10.0f, 20.0f});
    moved.run(inputs, outputs);
    show("moved", y);
    moved = vm;
    std::vector<float> many_x{1, 1, 1, 1}, many_dt{1, 1}, many_y(4);
    moved.run_steps(2, std::array{ltc::input(many_x), ltc::input(many_dt)}, std::array{ltc::output(many_y)});
    show("steps", many_y);
    vm.reset();
    if (vm.try_run(inputs, outputs) != LTC_OK) return 2;
    show("again", y);

    ltc::Batch batch(program, 2);
    batch.run(1, std::array{ltc::input(many_x), ltc::input(many_dt)}, std::array{ltc::output(many_y)});
    batch.set_state(1, 0, std::array{3.0f, 4.0f});
    batch.run(1, std::array{ltc::input(many_x), ltc::input(many_dt)}, std::array{ltc::output(many_y)});
    show("batch", many_y);
    batch.get_state(1, 0, state);
    batch.reset();
    show("kept", state);

    refused([&] { vm.run(x, y); });
    refused([&] { vm.run_steps(1, inputs, outputs, 1); });
    refused([] { ltc::Program("no file"); });
    refused([&] { ltc::VM(program, "none"); });
    refused([&] { program.find("none"); });
    if (vm.try_run(inputs, {}) != LTC_INPUT) return 3;

    std::ifstream file(arguments[1], std::ios::binary);
    const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
    const ltc::Program from_memory(std::as_bytes(std::span(bytes)));
    std::printf("%zu\n", from_memory.find(program.model().name));
    return 0;
}
