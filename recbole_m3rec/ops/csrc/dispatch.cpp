// Choice of kernels, checks, and the part of the C interface that is not about one operator.
#include "dispatch.h"

namespace m3rec {

const Kernels *find_kernels(int set) {
#ifdef M3REC_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512bw");
    if (avx512 && (set == -1 || set == 2)) return &kAvx512Kernels;
    if (avx2 && (set == -1 || set == 1)) return &kAvx2Kernels;
#endif
    return set == -1 || set == 0 ? &kGenericKernels : nullptr;
}

bool sequences_are_sound(const std::int32_t *cu_seqlens, Index sequences, Index tokens) {
    if (cu_seqlens[0] != 0 || cu_seqlens[sequences] != tokens) return false;
    for (Index i = 0; i < sequences; ++i)
        if (cu_seqlens[i + 1] <= cu_seqlens[i]) return false;
    return true;
}

// Raised whenever a function changes, so that a library left over from an older build is noticed.
M3REC_EXPORT int m3rec_interface() { return 13; }

// The program's GOMP_parallel, whose threads do the work from now on; null for threads of the
// library's own.
M3REC_EXPORT void m3rec_use_openmp(void *entry) { use_openmp(entry); }

M3REC_EXPORT const char *m3rec_kernels(int set) {
    const Kernels *const kernels = find_kernels(set);
    return kernels ? kernels->name : nullptr;
}

}  // namespace m3rec
