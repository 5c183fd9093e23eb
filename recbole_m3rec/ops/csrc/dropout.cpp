// The C interface of dropout, alone and behind GELU.
#include <algorithm>

#include "dispatch.h"

namespace m3rec {
namespace {

using Kernel = void (*)(const Dropout &, Index first_element, Index last_element);

int run(Kernel Kernels::*kernel, const Dropout &call, Index elements, int threads, int set) {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    constexpr Index kPiece = 1 << 14;  // elements, whole tiles
    parallel_for((elements + kPiece - 1) / kPiece, usable_threads(threads),
                 [&](Index unit, Index) {
                     (kernels->*kernel)(call, unit * kPiece,
                                        std::min(elements, (unit + 1) * kPiece));
                 });
    return kDone;
}

}  // namespace

// y[i] = x[i] 65536 / keep with probability keep / 65536, else 0; keep in 0..65536. The mask is a
// function of seed and i alone.
M3REC_EXPORT int m3rec_dropout(const float *x, Index elements, std::uint64_t seed, int keep,
                               float *y, int threads, int set) {
    return run(&Kernels::drop, {make_mask(seed, keep), x, nullptr, y}, elements, threads, set);
}

// The same with gelu(x[i]) in the place of x[i].
M3REC_EXPORT int m3rec_gelu_dropout(const float *x, Index elements, std::uint64_t seed, int keep,
                                    float *y, int threads, int set) {
    return run(&Kernels::gelu_drop, {make_mask(seed, keep), x, nullptr, y}, elements, threads, set);
}

M3REC_EXPORT int m3rec_gelu_dropout_backward(const float *grad_y, const float *x, Index elements,
                                             std::uint64_t seed, int keep, float *grad_x,
                                             int threads, int set) {
    return run(&Kernels::gelu_drop_back, {make_mask(seed, keep), x, grad_y, grad_x}, elements,
               threads, set);
}

}  // namespace m3rec
