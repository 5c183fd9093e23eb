// The kernels for x86-64 with AVX2 and FMA; this file alone is compiled with the flags for it.
#include "block_step_kernels.h"
#include "byte_products_kernels.h"
#include "convolution_kernels.h"
#include "dropout_kernels.h"
#include "matmul_kernels.h"
#include "network_step_kernels.h"
#include "scan_backward.h"

namespace m3rec {

const Kernels kAvx2Kernels = {
    "avx2",    kWidth,         forward_scratch, backward_scratch, forward, backward, step,
    network_step_scratch, network_step, convolve,
    convolve_back, drop, kTileVectors * kWidth, matmul, matmul_back,
    byte_products};

}  // namespace m3rec
