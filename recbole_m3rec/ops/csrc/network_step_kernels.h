// All layers of a network on one new token of a modality, on kept states.
#pragma once

#include "block_step_kernels.h"
#include "gelu_kernels.h"
#include "norm_kernels.h"

namespace m3rec {
namespace {

static inline Index whole_vectors(Index floats) { return (floats + kWidth - 1) / kWidth * kWidth; }

// y = LayerNorm(x + residual), the latter or null; `spare` has room for a row of whole vectors.
static void norm_token(const Network &network, const float *x, const float *residual,
                       NormWeights weights, float *spare, float *y) {
    Norm call{};
    call.x = x, call.residual = residual, call.columns = network.width, call.eps = network.eps;
    call.blocks = whole_vectors(call.columns) / kWidth;
    const Vec rstd = broadcast(centre<0>(call, 0, nullptr, 0, spare).rstd);
    for (Index i = 0; i < call.columns; i += kWidth) {
        const Index lanes = call.columns - i;
        const Vec weight = load_row(weights.weight + i, lanes);
        store_row(y + i, fma(load(spare + i) * rstd, weight, load_row(weights.bias + i, lanes)),
                  lanes);
    }
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
        block_step(step, 0, inner + inner_width);
        norm_token(network, out, network.has_residual ? x : nullptr, weights.norm, spare, h);
        matrix_times_vector(weights.inner, h, inner_width, width, inner);
        for (Index i = 0; i < inner_width; i += kWidth) {
            const Index lanes = inner_width - i;
            const Vec v = load_row(inner + i, lanes) + load_row(weights.inner_bias + i, lanes);
            Vec bell;
            store_row(inner + i, v * normal(v, &bell), lanes);
        }
        matrix_times_vector(weights.outer, inner, width, inner_width, out);
        for (Index i = 0; i < width; ++i) out[i] += weights.outer_bias[i];
        norm_token(network, out, h, weights.expert_norm, spare, x);
    }
}

}  // namespace
}  // namespace m3rec
