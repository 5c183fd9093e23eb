// The kernels for any machine; this file alone is compiled with the flags for it.
#include "convolution_kernels.h"
#include "dropout_kernels.h"
#include "scan_backward.h"

namespace m3rec {

const Kernels kGenericKernels = {"generic", kWidth, forward_scratch, backward_scratch, forward,
                                 backward,  step,   convolve,        convolve_back, drop};

}  // namespace m3rec
