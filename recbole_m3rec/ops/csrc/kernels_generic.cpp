// The kernels for any machine; this file alone is compiled with the flags for it.
#include "block_step_kernels.h"
#include "convolution_kernels.h"
#include "gelu_kernels.h"
#include "matmul_kernels.h"
#include "network_step_kernels.h"
#include "norm_kernels.h"
#include "scan_backward.h"
#include "softmax_kernels.h"

namespace m3rec {

const Kernels kGenericKernels = {
    "generic",    kWidth,         forward_scratch, backward_scratch, forward, backward, step,
    block_step_scratch, block_step, network_step_scratch, network_step, decay_rates, convolve,
    convolve_back, drop, gelu_drop, gelu_drop_back, norm_scratch, norm, norm_back,
    kTileVectors * kWidth, matmul, matmul_back, softmax};

}  // namespace m3rec
