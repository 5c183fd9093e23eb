// All kernels, compiled for the instruction set of the file that includes this.
#pragma once

#include "byte_table_kernels.h"
#include "convolution_kernels.h"
#include "dropout_kernels.h"
#include "matmul_kernels.h"
#include "network_step_kernels.h"
#include "scan_backward.h"

namespace m3rec {
namespace {

// As a constant: nothing of this may run on a machine without the instructions.
constexpr Kernels kernel_table(const char *name) {
    return {name, kWidth, forward_scratch, backward_scratch, forward, backward, step,
            network_step_scratch, network_step, convolve, convolve_back, drop,
            kTileVectors * kWidth, matmul, matmul_back, search_bytes};
}

}  // namespace
}  // namespace m3rec
