// All layers of a network on one new token of a modality, on kept states.
#pragma once

#include "block_step_kernels.h"

namespace m3rec {
namespace {

static inline Index whole_vectors(Index floats) { return (floats + kWidth - 1) / kWidth * kWidth; }

static inline float sum_lanes(Vec v) {
    float sums[4];
    sum_lanes4(v, zero(), zero(), zero(), sums);
    return sums[0];
}

// y = LayerNorm(x + residual), the latter or null; `spare` has room for a row of whole vectors. The
// row is taken less its first value: a constant one is exactly 0 then, which an eps of 1e-12 asks
// for.
static void norm_token(const Network &network, const float *x, const float *residual,
                       NormWeights weights, float *spare, float *y) {
    const Index width = network.width;
    const float inverse = 1.0f / static_cast<float>(width);
    const Vec shift = broadcast(residual ? x[0] + residual[0] : x[0]);
    Vec sum = zero(), squares = zero();
    for (Index i = 0; i < width; i += kWidth) {
        Vec v = load_row(x + i, width - i);
        if (residual) v = v + load_row(residual + i, width - i);
        store_row(spare + i, v - shift, width - i);
        sum = sum + load_row(spare + i, width - i);
    }
    const Vec mean = broadcast(sum_lanes(sum) * inverse);
    for (Index i = 0; i < width; i += kWidth) {
        store_row(spare + i, load_row(spare + i, width - i) - mean, width - i);
        const Vec v = load_row(spare + i, width - i);
        squares = fma(v, v, squares);
    }
    const Vec rstd =
        broadcast(1.0f / __builtin_sqrtf(sum_lanes(squares) * inverse + network.eps));
    for (Index i = 0; i < width; i += kWidth) {
        const Index lanes = width - i;
        const Vec v = load_row(spare + i, lanes) * rstd;
        store_row(y + i, fma(v, load_row(weights.weight + i, lanes),
                             load_row(weights.bias + i, lanes)),
                  lanes);
    }
}

// Phi(-t) = exp(-t^2 / 2) u (c0 + u (c1 + ...)) with u = 1 / (1 + 0.3 t) for t >= 0: 4e-8 relative
// to Phi(-t) for t < 4, where it counts.
constexpr float kNormalScale = 0.3f;
constexpr float kNormal[8] = {0.11962627619504929f,  0.12084321677684784f, 0.09915134310722351f,
                              0.1315968930721283f,   -0.060186225920915604f, 0.21407654881477356f,
                              -0.16199328005313873f, 0.036885231733322144f};

// x Phi(x) with the normal distribution's Phi: max(x, 0) - |x| Phi(-|x|).
static inline Vec gelu(Vec x) {
    const Vec one = broadcast(1.0f), t = larger(x, zero() - x);
    const Vec u = one / fma(t, broadcast(kNormalScale), one);
    Vec p = broadcast(kNormal[7]);
    for (int i = 6; i >= 0; --i) p = fma(p, u, broadcast(kNormal[i]));
    const Vec bell = exp2(x * (x * broadcast(-0.72134752044448170368f)));
    return larger(zero(), x) - t * (p * u * bell);
}

// y += slow (mean + keep (x - mean)) with the mean of x and the recent inputs, each of which has a 1
// behind it where there is one, else zeros; and the recent inputs after x.
static void low_pass_step(const Network &network, const LayerWeights &weights, const float *x,
                          const float *recent, float *new_recent, float *y) {
    const Index width = network.width, kept = network.low_pass - 1, row = width + 1;
    float count = 1.0f;
    for (Index k = 0; k < kept; ++k) count += recent[k * row + width];
    const Vec share = broadcast(1.0f / count);
    for (Index i = 0; i < width; i += kWidth) {
        const Index lanes = width - i;
        const Vec v = load_row(x + i, lanes);
        Vec mean = v;
        for (Index k = 0; k < kept; ++k) mean = mean + load_row(recent + k * row + i, lanes);
        mean = mean * share;
        const Vec kept_part = fma(load_row(weights.keep + i, lanes), v - mean, mean);
        store_row(y + i, fma(load_row(weights.slow + i, lanes), kept_part, load_row(y + i, lanes)),
                  lanes);
    }
    if (kept == 0) return;
    for (Index i = 0; i < (kept - 1) * row; ++i) new_recent[i] = recent[row + i];
    float *const newest = new_recent + (kept - 1) * row;
    for (Index i = 0; i < width; ++i) newest[i] = x[i];
    newest[width] = 1.0f;
}

static Index network_step_scratch(const Network &network) {
    BlockStep block{};
    block.channels = network.channels, block.states = network.states, block.rank = network.rank;
    return 3 * whole_vectors(network.width) + network.inner + block_step_scratch(block);
}

static void network_step(const Network &network, const NetworkStep &call, Index modality,
                         float *memory) {
    const Index width = network.width, inner_width = network.inner;
    float *const h = memory, *const out = h + whole_vectors(width),
                 *const spare = out + whole_vectors(width),
                 *const inner = spare + whole_vectors(width);
    float *const x = call.y + modality * width;  // after the last layer it is the result
    norm_token(network, call.x + modality * width, nullptr, network.input_norms[modality], spare,
               x);
    BlockStep step{};
    step.width = width, step.channels = network.channels, step.states = network.states;
    step.rank = network.rank, step.taps = network.taps, step.h = x, step.y = out;
    for (Index layer = 0; layer < network.layer_count; ++layer) {
        const Index row = layer * network.modalities + modality;
        const Index first = row * network.channels, kept = network.taps - 1;
        const LayerWeights &weights = network.layers[row];
        step.weights = weights.block, step.state = call.state + first * network.states;
        step.window = call.window + first * kept, step.new_window = call.new_window + first * kept;
        block_step(step, inner + inner_width);
        if (network.low_pass > 0) {
            const Index before = row * (network.low_pass - 1) * (width + 1);
            low_pass_step(network, weights, x, call.recent + before, call.new_recent + before, out);
        }
        norm_token(network, out, network.has_residual ? x : nullptr, weights.norm, spare, h);
        matrix_times_vector(weights.inner, h, inner_width, width, inner);
        for (Index i = 0; i < inner_width; i += kWidth) {
            const Index lanes = inner_width - i;
            const Vec v = load_row(inner + i, lanes) + load_row(weights.inner_bias + i, lanes);
            store_row(inner + i, gelu(v), lanes);
        }
        matrix_times_vector(weights.outer, inner, width, inner_width, out);
        for (Index i = 0; i < width; ++i) out[i] += weights.outer_bias[i];
        norm_token(network, out, h, weights.expert_norm, spare, x);
    }
}

}  // namespace
}  // namespace m3rec
