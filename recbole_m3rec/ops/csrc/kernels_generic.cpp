// The kernels for any machine; this file alone is compiled with the flags for it.
#include "kernel_table.h"

namespace m3rec {

constexpr Kernels kGenericKernels = kernel_table("generic");

}  // namespace m3rec
