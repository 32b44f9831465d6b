// Runs recorded programs on another build of the core, without Python: other compilers, options and CPUs, the latter
// under an emulator. replay.py writes the recording, with the results of the reference machine, and builds this.
//
//     replay RECORDING [THREADS]
//
// Each program is run with the floating-point unit as it is, with one that flushes subnormals and rounds upwards, and as
// a batch of streams over two threads; all of it THREADS times at once, on VMs of the same programs. Prints the kernels,
// the number of programs and values, and a hash of all results; exit status 1 at the first difference.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/choose.h"
#include "numerics/numerics.h"
#include "vm/self_test.h"
#include "vm/vm.h"

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

using Arrays = std::vector<std::vector<float>>;

struct Call {
    std::uint32_t model;
    Arrays inputs, outputs, states;  // the states as they are after it
};

struct Recorded {
    ltc::Program program;
    bool bit_accurate;
    std::vector<Call> calls;
};

Recorded read(Recording& recording) {
    const std::size_t size = recording.number();
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(recording.take(size));
    Recorded out{ltc::parse({bytes, size}, nullptr), recording.number() != 0, {}};  // the recording outlives the program
    for (std::uint32_t n = recording.number(); n > 0; --n) {
        Call& call = out.calls.emplace_back();
        call.model = recording.number();
        const ltc::Model& model = out.program.models[call.model];
        for (const ltc::Port& port : model.inputs) call.inputs.push_back(recording.floats(port.shape.elements()));
        for (const ltc::Port& port : model.outputs) call.outputs.push_back(recording.floats(port.shape.elements()));
        for (const ltc::State& state : model.states) call.states.push_back(recording.floats(state.shape.elements()));
    }
    return out;
}

// What one thread finds when it replays everything.
class Replay {
public:
    std::uint64_t hashed = 0xCBF29CE484222325u;
    std::size_t values = 0;

    // One program: every recorded call in turn, each followed by a look at the states.
    void run(const Recorded& recorded, std::size_t number) {
        number_ = number;
        ltc::VM usual(recorded.program, recorded.bit_accurate);
        set(spoilt);
        ltc::VM spoiled(recorded.program, recorded.bit_accurate), batch(recorded.program, recorded.bit_accurate);
        batch.prepare_batch(streams, 2);
        set(plain);
        for (const Call& call : recorded.calls) {
            this->call(usual, call, 1, plain);
            this->call(spoiled, call, 1, spoilt);
            this->call(batch, call, streams, spoilt);
        }
    }

private:
    static constexpr std::size_t streams = 3;

    void call(ltc::VM& vm, const Call& call, std::size_t copies, Word mode) {
        Arrays in, out;
        std::vector<const float*> inputs;
        std::vector<float*> outputs;
        for (const auto& x : call.inputs) {
            std::vector<float>& all = in.emplace_back();
            for (std::size_t n = 0; n < copies; ++n) all.insert(all.end(), x.begin(), x.end());
        }
        for (const auto& y : call.outputs) out.emplace_back(copies * y.size());
        for (const auto& x : in) inputs.push_back(x.data());
        for (auto& y : out) outputs.push_back(y.data());
        set(mode);
        ltc::Interrupt undisturbed(nullptr, nullptr);
        const ltc::Status status = copies == 1 ? vm.run(call.model, inputs.data(), outputs.data(), undisturbed)
                                               : vm.run_batch(call.model, copies, 1, inputs.data(), outputs.data(), undisturbed);
        const Word left = now();
        set(plain);
        if (status != ltc::Status::ok || left != mode) std::printf("program %zu: refused, or the mode was lost\n", number_), std::exit(1);
        for (std::size_t i = 0; i < out.size(); ++i)
            for (std::size_t n = 0; n < copies; ++n) compare(out[i].data() + n * call.outputs[i].size(), call.outputs[i], "output");
        for (std::size_t s = 0; s < call.states.size(); ++s)
            for (std::size_t n = 0; n < copies; ++n) {
                std::vector<float> state(call.states[s].size());
                vm.get_state(call.model, s, n, state.data());
                compare(state.data(), call.states[s], "state");
            }
    }

    void compare(const float* found, const std::vector<float>& expected, const char* what) {
        for (std::size_t i = 0; i < expected.size(); ++i) {
            hashed = (hashed ^ ltc::bits(found[i])) * 0x100000001B3u;
            if (ltc::bits(found[i]) == ltc::bits(expected[i])) continue;
            std::printf("program %zu, %s[%zu]: found %#010x, expected %#010x\n", number_, what, i, ltc::bits(found[i]),
                        ltc::bits(expected[i]));
            std::exit(1);
        }
        values += expected.size();
    }

    std::size_t number_ = 0;
};

int replay(const char* path, std::size_t threads) {
    Recording recording(path);
    std::vector<Recorded> programs;
    for (std::uint32_t n = recording.number(); n > 0; --n) programs.push_back(read(recording));
    std::vector<Replay> found(threads);
    std::vector<std::thread> others;
    const auto work = [&](std::size_t thread) {
        for (std::size_t n = 0; n < programs.size(); ++n) found[thread].run(programs[n], n);
    };
    for (std::size_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
    work(0);
    for (std::thread& other : others) other.join();
    for (const Replay& one : found)
        if (one.hashed != found[0].hashed) return std::printf("the threads differ\n"), 1;
    std::printf("kernels=%s programs=%zu values=%zu hash=%016" PRIx64 "\n", ltc::choose_kernels().name, programs.size(),
                found[0].values, found[0].hashed);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return 2;
    try {
        for (const ltc::Proof& proof : ltc::self_test(ltc::choose_kernels()))
            if (proof.found != proof.expected) std::printf("self-test: %s differs\n", proof.name.c_str()), std::exit(1);
        return replay(argv[1], argc > 2 ? static_cast<std::size_t>(std::atoi(argv[2])) : 1);
    } catch (const ltc::Refusal& refusal) {
        std::printf("%s (%s)\n", refusal.what(), refusal.where.c_str());
        return 1;
    }
}
