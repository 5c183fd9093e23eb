// The C interface of layer norm over dropout and residual.
#include <algorithm>
#include <vector>

#include "dispatch.h"

namespace m3rec {
namespace {

// Rows of a unit. A constant number of units: how they are cut decides the order of sums.
Index rows_of_unit(Index rows) { return std::max<Index>(16, (rows + 127) / 128); }

Norm describe(const float *x, const float *residual, Index columns, std::uint64_t seed, int keep,
              float eps, Index width) {
    Norm call{};
    call.mask = make_mask(seed, keep), call.drop = keep < 65536;
    call.x = x, call.residual = residual, call.columns = columns, call.eps = eps;
    call.blocks = (columns + width - 1) / width;
    return call;
}

// A parameter with zeros behind it: a lane beyond the last column must not bring in NaN.
void pad(const float *parameter, Index columns, Index padded, float *out) {
    std::fill(std::copy(parameter, parameter + columns, out), out + padded, 0.0f);
}

}  // namespace

// y = norm(dropout(x) + residual) weight + bias over rows of `columns` values, at least one;
// residual may be null. The mask is the one that m3rec_dropout makes of the same seed.
M3REC_EXPORT int m3rec_norm(const float *x, const float *residual, const float *weight,
                            const float *bias, Index rows, Index columns, std::uint64_t seed,
                            int keep, float eps, float *y, int threads, int set) try {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    Norm call = describe(x, residual, columns, seed, keep, eps, kernels->width);
    const Index padded = call.blocks * kernels->width;
    const Index piece = rows_of_unit(rows), units = (rows + piece - 1) / piece;
    const Index workers = std::min(usable_threads(threads), units),
                room = round_to_line(kernels->norm_scratch(call));
    const Memory parameters(2 * padded), scratch(workers * room);
    pad(weight, columns, padded, parameters.get());
    pad(bias, columns, padded, parameters.get() + padded);
    call.weight = parameters.get(), call.bias = parameters.get() + padded, call.y = y;
    parallel_for(units, usable_threads(threads), [&](Index unit, Index slot) {
        kernels->norm(call, unit * piece, std::min(rows, (unit + 1) * piece),
                      scratch.get() + slot * room);
    });
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

// Gradients of x and, unless null, of residual; of weight and bias.
M3REC_EXPORT int m3rec_norm_backward(const float *grad_y, const float *x, const float *residual,
                                     const float *weight, Index rows, Index columns,
                                     std::uint64_t seed, int keep, float eps, float *grad_x,
                                     float *grad_residual, float *grad_weight, float *grad_bias,
                                     int threads, int set) try {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    Norm call = describe(x, residual, columns, seed, keep, eps, kernels->width);
    const Index padded = call.blocks * kernels->width;
    const Index piece = rows_of_unit(rows), units = (rows + piece - 1) / piece;
    const Index workers = std::min(usable_threads(threads), units),
                room = round_to_line(kernels->norm_scratch(call));
    const Memory parameters(padded), scratch(workers * room), partial(units * 2 * padded);
    pad(weight, columns, padded, parameters.get());
    call.weight = parameters.get(), call.grad_y = grad_y, call.grad_x = grad_x;
    call.grad_residual = grad_residual, call.grad_weight = partial.get();
    parallel_for(units, usable_threads(threads), [&](Index unit, Index slot) {
        kernels->norm_back(call, unit, unit * piece, std::min(rows, (unit + 1) * piece),
                           scratch.get() + slot * room);
    });
    std::vector<double> sums(static_cast<std::size_t>(2 * padded), 0.0);
    for (Index unit = 0; unit < units; ++unit)
        for (Index i = 0; i < 2 * padded; ++i) sums[i] += partial.get()[unit * 2 * padded + i];
    for (Index column = 0; column < columns; ++column) {
        grad_weight[column] = static_cast<float>(sums[column]);
        grad_bias[column] = static_cast<float>(sums[padded + column]);
    }
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

}  // namespace m3rec
