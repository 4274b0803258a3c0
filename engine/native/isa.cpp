#include "isa.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace crowdtrain {
namespace {

std::vector<const Kernels*> detect() {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
    __builtin_cpu_init();  // also asks the operating system which registers it saves
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (avx512 && avx2) found.push_back(&kAvx512Kernels);
    if (avx2) found.push_back(&kAvx2Kernels);
#elif defined(__aarch64__)
    found.push_back(&kNeonKernels);  // every such processor has it
#endif
    found.push_back(&kPortableKernels);
    return found;
}

}  // namespace

const std::vector<const Kernels*>& available_kernels() {
    static const std::vector<const Kernels*> found = detect();
    return found;
}

const Kernels* find_kernels(std::string_view name) {
    for (const Kernels* kernels : available_kernels()) {
        if (kernels->name == name) return kernels;
    }
    return nullptr;
}

bool has_sha_extensions() {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1) && __builtin_cpu_supports("sse4.1");
#else
    return false;
#endif
}

}  // namespace crowdtrain
