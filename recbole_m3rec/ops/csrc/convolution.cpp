// The C interface of the causal convolution with SiLU.
#include <algorithm>
#include <vector>

#include "dispatch.h"

namespace m3rec {
namespace {

// Tokens of a unit. A constant number of units: how they are cut decides the order of sums.
Index tokens_of_unit(Index tokens) { return std::max<Index>(64, (tokens + 127) / 128); }

// [channels, taps], the last tap at the current token, to [lag][padded channels], and the bias
// behind it.
void pack_weights(const float *weight, const float *bias, Index channels, Index taps, Index row,
                  float *packed) {
    std::fill(packed, packed + (taps + 1) * row, 0.0f);
    for (Index channel = 0; channel < channels; ++channel) {
        for (Index lag = 0; lag < taps; ++lag)
            packed[lag * row + channel] = weight[channel * taps + taps - 1 - lag];
        packed[taps * row + channel] = bias[channel];
    }
}

}  // namespace

// All functions: float32, the last dimension contiguous, strides of rows in elements; 0 on success.

M3REC_EXPORT int m3rec_convolve(const float *x, Index x_stride, const float *weight,
                                const float *bias, const std::int32_t *cu_seqlens, Index sequences,
                                Index tokens, Index channels, Index taps, float *y, int threads,
                                int set) try {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    if (!sequences_are_sound(cu_seqlens, sequences, tokens)) return kBadSequences;
    const Index blocks = (channels + kernels->width - 1) / kernels->width,
                row = blocks * kernels->width;
    const Memory packed((taps + 1) * row);
    pack_weights(weight, bias, channels, taps, row, packed.get());
    Convolution call{};
    call.x = x, call.x_stride = x_stride, call.weight = packed.get(),
    call.bias = packed.get() + taps * row;
    call.cu_seqlens = cu_seqlens, call.sequences = sequences;
    call.channels = channels, call.blocks = blocks, call.taps = taps, call.y = y;
    const Index piece = tokens_of_unit(tokens);
    parallel_for((tokens + piece - 1) / piece, usable_threads(threads), [&](Index unit, Index) {
        kernels->convolve(call, unit * piece, std::min(tokens, (unit + 1) * piece));
    });
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

M3REC_EXPORT int m3rec_convolve_backward(const float *grad_y, Index grad_y_stride, const float *x,
                                         Index x_stride, const float *weight, const float *bias,
                                         const std::int32_t *cu_seqlens, Index sequences,
                                         Index tokens, Index channels, Index taps, float *grad_x,
                                         float *grad_weight, float *grad_bias, int threads,
                                         int set) try {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    if (!sequences_are_sound(cu_seqlens, sequences, tokens)) return kBadSequences;
    const Index blocks = (channels + kernels->width - 1) / kernels->width,
                row = blocks * kernels->width;
    const Index piece = tokens_of_unit(tokens), units = (tokens + piece - 1) / piece;
    const Index workers = std::min(usable_threads(threads), units),
                ring = round_to_line(taps * row);
    const Memory packed((taps + 1) * row), partial(units * (taps + 1) * row),
        scratch(workers * ring);
    pack_weights(weight, bias, channels, taps, row, packed.get());
    Convolution call{};
    call.x = x, call.x_stride = x_stride, call.weight = packed.get(),
    call.bias = packed.get() + taps * row;
    call.cu_seqlens = cu_seqlens, call.sequences = sequences;
    call.channels = channels, call.blocks = blocks, call.taps = taps;
    call.grad_y = grad_y, call.grad_y_stride = grad_y_stride, call.grad_x = grad_x,
    call.grad_weight = partial.get();
    parallel_for(units, usable_threads(threads), [&](Index unit, Index slot) {
        kernels->convolve_back(call, unit, unit * piece, std::min(tokens, (unit + 1) * piece),
                               scratch.get() + slot * ring);
    });
    std::vector<double> sums(static_cast<std::size_t>((taps + 1) * row), 0.0);
    for (Index unit = 0; unit < units; ++unit)
        for (Index i = 0; i < (taps + 1) * row; ++i)
            sums[i] += partial.get()[unit * (taps + 1) * row + i];
    for (Index channel = 0; channel < channels; ++channel) {
        for (Index lag = 0; lag < taps; ++lag)
            grad_weight[channel * taps + taps - 1 - lag] =
                static_cast<float>(sums[lag * row + channel]);
        grad_bias[channel] = static_cast<float>(sums[taps * row + channel]);
    }
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

}  // namespace m3rec
