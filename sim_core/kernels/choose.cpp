// See choose.h.
#include "kernels/choose.h"

#include <cstdlib>
#include <string>
#include <vector>

#include "host/refusal.h"

namespace ltc {
namespace {

struct Choice {
    const Kernels& kernels;
    bool supported;
};

std::vector<Choice> choices() {  // the widest last
#ifdef __x86_64__
    const bool wide = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool wider = wide && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512cd");
    return {{sse2::kernels, true}, {avx2::kernels, wide}, {avx512::kernels, wider},
            {avx512_bf16::kernels, wider && __builtin_cpu_supports("avx512bf16")}};
#else
    return {{generic::kernels, true}};
#endif
}

}  // namespace

const Kernels& choose_kernels(const char* name) {
    const char* const of_environment = std::getenv("LTC_SIMD");
    const bool any = name == nullptr && (of_environment == nullptr || *of_environment == 0);
    const std::string asked = any ? "" : name != nullptr ? name : of_environment;
    const std::vector<Choice> all = choices();
    std::string names;
    for (auto choice = all.rbegin(); choice != all.rend(); ++choice) {
        if (!choice->supported) continue;
        if (any || asked == choice->kernels.name) return choice->kernels;
        names = std::string(choice->kernels.name) + (names.empty() ? "" : ", ") + names;
    }
    throw Refusal(RefusalKind::config, "there are no kernels " + asked + " for this CPU",
                  name != nullptr ? "kernels" : "environment variable LTC_SIMD",
                  (name != nullptr ? "leave it out, or give one of " : "unset it, or set it to one of ") + names);
}

const char* kernels_name(std::size_t n) {
    for (const Choice& choice : choices())
        if (choice.supported && n-- == 0) return choice.kernels.name;
    return nullptr;
}

}  // namespace ltc
