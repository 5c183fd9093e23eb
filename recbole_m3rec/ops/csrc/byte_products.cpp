// The C interface of products of bytes.
#include <algorithm>

#include "dispatch.h"

namespace m3rec {

// y[row] = sum_i table[row, i] query[i]; no sum of magnitudes goes beyond 32 bits.
M3REC_EXPORT int m3rec_byte_products(const std::int8_t *table, Index rows, Index depth,
                                     const std::int16_t *query, std::int32_t *y, int threads,
                                     int set) {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    const ByteProducts call{table, query, depth, y};
    constexpr Index kPiece = 2048;  // rows
    parallel_for((rows + kPiece - 1) / kPiece, usable_threads(threads), [&](Index unit, Index) {
        kernels->byte_products(call, unit * kPiece, std::min(rows, (unit + 1) * kPiece));
    });
    return kDone;
}

}  // namespace m3rec
