// A whole Mamba block on one new token, on kept states: projections, convolution, scan, gate. It is
// a handful of products of a matrix with a vector, whose lanes run along the rows of the matrix as
// they lie in memory: no weight is packed or copied for a single token.
#pragma once

#include "scan_forward.h"

namespace m3rec {
namespace {

// y[i] = sum_k weight[i, k] x[k], four rows of the weight at a time.
static inline void matrix_times_vector(const float *weight, const float *x, Index rows, Index depth,
                                       float *y) {
    for (Index row = 0; row < rows; row += 4) {
        const Index count = smaller(4, rows - row);
        Vec sums[4] = {zero(), zero(), zero(), zero()};
        for (Index k = 0; k < depth; k += kWidth) {
            const Index lanes = depth - k;
            const Vec v = load_row(x + k, lanes);
            for (Index i = 0; i < count; ++i)
                sums[i] = fma(load_row(weight + (row + i) * depth + k, lanes), v, sums[i]);
        }
        float total[4];
        sum_lanes4(sums[0], sums[1], sums[2], sums[3], total);
        for (Index i = 0; i < count; ++i) y[row + i] = total[i];
    }
}

// u = SiLU(bias + taps · (window, x)), and the window one input further.
static inline void step_convolution(const BlockStep &call, const float *x, float *u) {
    const Index kept = call.taps - 1;
    const float *old = call.window;
    float *window = call.new_window;
    for (Index channel = 0; channel < call.channels; ++channel, old += kept, window += kept) {
        const float *tap = call.weights.tap + channel * call.taps;
        float sum = call.weights.tap_bias[channel] + tap[kept] * x[channel];
        for (Index i = 0; i < kept; ++i) {
            sum += tap[i] * old[i];
            window[i] = i + 1 < kept ? old[i + 1] : x[channel];
        }
        u[channel] = sum;
    }
    for (Index column = 0; column < call.channels; column += kWidth) {
        const Index lanes = call.channels - column;
        const Vec v = load_row(u + column, lanes);
        store_row(u + column, v * sigmoid(v), lanes);
    }
}

static Index block_step_scratch(const BlockStep &call) {
    return 5 * call.channels + call.rank + 2 * call.states;
}

static void block_step(const BlockStep &call, float *memory) {
    const BlockWeights &weights = call.weights;
    const Index channels = call.channels, states = call.states;
    float *const xz = memory, *const u = xz + 2 * channels, *const dt = u + channels,
                 *const y = dt + channels, *const projected = y + channels;
    matrix_times_vector(weights.in_proj, call.h, 2 * channels, call.width, xz);
    step_convolution(call, xz, u);
    matrix_times_vector(weights.x_proj, u, call.rank + 2 * states, channels, projected);
    matrix_times_vector(weights.dt_proj, projected, channels, call.rank, dt);
    Step scan{};
    scan.x = u, scan.dt = dt, scan.A = weights.A, scan.D = weights.D;
    scan.dt_bias = weights.dt_bias;
    scan.B = projected + call.rank, scan.C = scan.B + states, scan.z = xz + channels;
    scan.state = call.state, scan.y = y;
    scan.channels = channels, scan.states = states;
    step(scan, 0, 1);
    matrix_times_vector(weights.out_proj, y, call.width, channels, call.y);
}

}  // namespace
}  // namespace m3rec
