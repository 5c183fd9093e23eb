// The kernels for any machine; this file alone is compiled with the flags for it.
#include "scan_backward.h"

namespace m3rec {

const Kernels kGenericKernels = {"generic", kWidth, forward_scratch, backward_scratch, forward, backward, step};

}  // namespace m3rec
