// The kernels for x86-64 with AVX-512 F, DQ, VL and BW; this file alone is compiled with the flags
// for it.
#include "kernel_table.h"

namespace m3rec {

constexpr Kernels kAvx512Kernels = kernel_table("avx512");

}  // namespace m3rec
