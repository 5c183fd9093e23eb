// The kernels for x86-64 with AVX2 and FMA; this file alone is compiled with the flags for it.
#include "kernel_table.h"

namespace m3rec {

constexpr Kernels kAvx2Kernels = kernel_table("avx2");

}  // namespace m3rec
