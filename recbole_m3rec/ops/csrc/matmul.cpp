// The C interface of products of a tall matrix with a small one: linear layers.
#include <algorithm>

#include "dispatch.h"

namespace m3rec {
namespace {

// right (k, j) = b[k b_row + j b_column] in panels of `panel` columns, each [depth][columns], the
// last one padded with zeros to whole vectors.
void pack(const float *b, Index b_row, Index b_column, Index depth, Index columns, Index panel,
          Index width, float *out) {
    for (Index first = 0; first < columns; first += panel) {
        const Index here = std::min(panel, columns - first),
                    padded = (here + width - 1) / width * width;
        float *const to = out + first * depth;
        if (b_column == 1) {
            for (Index k = 0; k < depth; ++k) {
                const float *const from = b + k * b_row + first;
                std::fill(std::copy(from, from + here, to + k * padded), to + (k + 1) * padded, 0.0f);
            }
        } else {
            for (Index j = 0; j < padded; ++j)
                for (Index k = 0; k < depth; ++k)
                    to[k * padded + j] = j < here ? b[k * b_row + (first + j) * b_column] : 0.0f;
        }
    }
}

}  // namespace

// Whether these products beat those that torch comes with: the library behind them keeps AVX-512 for
// Intel's processors.
M3REC_EXPORT int m3rec_matmul_pays(int set) {
#ifdef M3REC_X86
    __builtin_cpu_init();
    return find_kernels(set) == &kAvx512Kernels && __builtin_cpu_is("amd");
#else
    (void)set;
    return 0;
#endif
}

// y [rows, columns] = x [rows, depth] b + bias; b(k, j) at b[k b_row + j b_column]; bias or null.
M3REC_EXPORT int m3rec_matmul(const float *x, Index x_stride, const float *b, Index b_row,
                              Index b_column, const float *bias, Index rows, Index depth,
                              Index columns, float *y, int threads, int set) try {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    const Index width = kernels->width, padded = (columns + width - 1) / width * width;
    const Memory right(padded * depth + padded);
    pack(b, b_row, b_column, depth, columns, kernels->panel, width, right.get());
    Matmul call{};
    call.x = x, call.x_stride = x_stride, call.right = right.get();
    call.depth = depth, call.columns = columns, call.y = y;
    if (bias != nullptr) {
        float *const behind = right.get() + padded * depth;
        std::fill(std::copy(bias, bias + columns, behind), behind + padded, 0.0f);
        call.bias = behind;
    }
    constexpr Index kPiece = 192;
    parallel_for((rows + kPiece - 1) / kPiece, usable_threads(threads), [&](Index unit, Index) {
        kernels->matmul(call, unit * kPiece, std::min(rows, (unit + 1) * kPiece));
    });
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

// grad_weight [columns, depth] = grad_y^T x and grad_bias [columns], the sum of grad_y's rows; depth
// is a multiple of the kernels' width.
M3REC_EXPORT int m3rec_matmul_backward(const float *grad_y, const float *x, Index x_stride,
                                       Index rows, Index depth, Index columns, float *grad_weight,
                                       float *grad_bias, int threads, int set) try {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    // A constant number of units: how they are cut decides the order of sums.
    const Index piece = std::max<Index>(128, (rows + 15) / 16), units = (rows + piece - 1) / piece;
    const Index size = round_to_line(columns * depth + columns);
    const Memory partial(units * size);
    Matmul call{};
    call.x = x, call.x_stride = x_stride, call.depth = depth, call.columns = columns;
    call.y = const_cast<float *>(grad_y);
    parallel_for(units, usable_threads(threads), [&](Index unit, Index) {
        float *const sums = partial.get() + unit * size;
        std::fill(sums, sums + size, 0.0f);
        kernels->matmul_back(call, unit * piece, std::min(rows, (unit + 1) * piece), sums);
    });
    const Index weights = columns * depth;
    constexpr Index kSlice = 4096;
    parallel_for((weights + columns + kSlice - 1) / kSlice, usable_threads(threads),
                 [&](Index slice, Index) {
                     const Index end = std::min(weights + columns, (slice + 1) * kSlice);
                     for (Index i = slice * kSlice; i < end; ++i) {
                         float sum = 0.0f;
                         for (Index unit = 0; unit < units; ++unit)
                             sum += partial.get()[unit * size + i];
                         (i < weights ? grad_weight[i] : grad_bias[i - weights]) = sum;
                     }
                 });
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

}  // namespace m3rec
