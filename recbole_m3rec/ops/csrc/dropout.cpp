// The C interface of dropout.
#include <algorithm>

#include "dispatch.h"

namespace m3rec {

// y[i] = x[i] 65536 / keep with probability keep / 65536, else 0; keep in 0..65536. The mask is a
// function of seed and i alone.
M3REC_EXPORT int m3rec_dropout(const float *x, Index elements, std::uint64_t seed, int keep,
                               float *y, int threads, int set) {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    const Dropout call{make_mask(seed, keep), x, y};
    constexpr Index kPiece = 1 << 14;  // elements, whole tiles
    parallel_for((elements + kPiece - 1) / kPiece, usable_threads(threads),
                 [&](Index unit, Index) {
                     kernels->drop(call, unit * kPiece, std::min(elements, (unit + 1) * kPiece));
                 });
    return kDone;
}

}  // namespace m3rec
