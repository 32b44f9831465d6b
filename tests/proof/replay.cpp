// Runs recorded programs on another build of the core, without Python: other compilers, options and CPUs, the latter
// under an emulator. replay.py writes the recording, with the results of the reference machine, and builds this.
//
//     replay RECORDING
//
// Each program is run with the floating-point unit as it is, and with one that flushes subnormals and rounds upwards.
// Prints the kernels, the number of programs and values, and a hash of all results; exit status 1 at the first difference.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "numerics.h"
#include "self_test.h"
#include "vm.h"

namespace {

// Little-endian, as every supported machine is.
class Recording {
public:
    explicit Recording(const char* path) {
        std::ifstream file(path, std::ios::binary);
        bytes_.assign(std::istreambuf_iterator<char>(file), {});
        if (bytes_.empty()) std::printf("%s: empty or not there\n", path), std::exit(2);
    }
    std::uint32_t number() {
        std::uint32_t n;
        std::memcpy(&n, take(sizeof n), sizeof n);
        return n;
    }
    std::vector<float> floats(std::size_t n) {
        std::vector<float> x(n);
        if (n != 0) std::memcpy(x.data(), take(4 * n), 4 * n);
        return x;
    }
    const char* take(std::size_t n) {
        if (n > bytes_.size() - at_) std::printf("the recording ends too early\n"), std::exit(2);
        at_ += n;
        return bytes_.data() + at_ - n;
    }

private:
    std::vector<char> bytes_;
    std::size_t at_ = 0;
};

// What other code in the process may have set, and whether it still stands.
#if defined(__x86_64__)
using Word = unsigned;
constexpr Word plain = 0x1F80, spoilt = plain | 0x8040 | 0x4000;  // FTZ, DAZ, upwards
void set(Word word) { _mm_setcsr(word); }
Word now() { return _mm_getcsr() & 0xFFC0u; }
#elif defined(__aarch64__)
using Word = std::uint64_t;
constexpr Word plain = 0, spoilt = (1u << 24) | (1u << 22) | (1u << 25);  // FZ, upwards, DN
void set(Word word) { asm volatile("msr fpcr, %0" ::"r"(word) : "memory"); }
Word now() {
    Word word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
}
#else
using Word = int;
constexpr Word plain = FE_TONEAREST, spoilt = FE_UPWARD;
void set(Word word) { std::fesetround(word); }
Word now() { return std::fegetround(); }
#endif

std::uint64_t hashed = 0xCBF29CE484222325u;
std::size_t values = 0;

void compare(const std::vector<float>& found, const std::vector<float>& expected, std::uint32_t program, const char* what) {
    for (std::size_t i = 0; i < found.size(); ++i) {
        hashed = (hashed ^ ltc::bits(found[i])) * 0x100000001B3u;
        if (ltc::bits(found[i]) == ltc::bits(expected[i])) continue;
        std::printf("program %u, %s[%zu]: found %#010x, expected %#010x\n", program, what, i, ltc::bits(found[i]),
                    ltc::bits(expected[i]));
        std::exit(1);
    }
    values += found.size();
}

// One program: every recorded call of its models in turn, then the states.
void replay(Recording& recording, std::uint32_t number) {
    const std::size_t size = recording.number();
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(recording.take(size));
    const auto program = std::make_shared<const ltc::Program>(ltc::parse({bytes, size}));
    const bool bit_accurate = recording.number() != 0;
    const std::uint32_t calls = recording.number();
    ltc::VM usual(program, bit_accurate);
    set(spoilt);
    ltc::VM spoiled(program, bit_accurate);
    set(plain);
    for (std::uint32_t call = 0; call < calls; ++call) {
        const std::uint32_t index = recording.number();
        const ltc::Model& model = program->models[index];
        std::vector<std::vector<float>> in, out, expected;
        std::vector<const float*> inputs;
        std::vector<float*> outputs;
        for (const ltc::Port& port : model.inputs) in.push_back(recording.floats(port.shape.elements()));
        for (const ltc::Port& port : model.outputs) {
            expected.push_back(recording.floats(port.shape.elements()));
            out.emplace_back(port.shape.elements());
        }
        for (const auto& x : in) inputs.push_back(x.data());
        for (auto& y : out) outputs.push_back(y.data());
        for (ltc::VM* vm : {&usual, &spoiled}) {
            const Word word = vm == &usual ? plain : spoilt;
            set(word);
            const ltc::Status status = vm->run(index, inputs.data(), outputs.data());
            const Word left = now();
            set(plain);
            if (status != ltc::Status::ok || left != word) std::printf("program %u: refused, or the mode was lost\n", number), std::exit(1);
            for (std::size_t i = 0; i < out.size(); ++i) compare(out[i], expected[i], number, "output");
        }
        for (std::size_t s = 0; s < model.states.size(); ++s) {
            const std::vector<float> wanted = recording.floats(model.states[s].shape.elements());
            std::vector<float> state(wanted.size());
            for (ltc::VM* vm : {&usual, &spoiled}) {
                vm->get_state(index, s, state.data());
                compare(state, wanted, number, "state");
            }
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    try {
        for (const ltc::Proof& proof : ltc::self_test(ltc::choose_kernels()))
            if (proof.found != proof.expected) std::printf("self-test: %s differs\n", proof.name.c_str()), std::exit(1);
        Recording recording(argv[1]);
        const std::uint32_t programs = recording.number();
        for (std::uint32_t n = 0; n < programs; ++n) replay(recording, n);
        std::printf("kernels=%s programs=%u values=%zu hash=%016" PRIx64 "\n", ltc::choose_kernels().name, programs, values, hashed);
    } catch (const ltc::Refusal& refusal) {
        std::printf("%s (%s)\n", refusal.what(), refusal.where.c_str());
        return 1;
    }
}
