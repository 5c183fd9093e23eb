// Forward pass and single step. Lanes are channels: no sum over lanes is needed, any state size works,
// and B and C come in as broadcasts. The loops over states are outside those over time, so that states
// and decay rates stay in registers while a chunk of tokens goes by.
#pragma once

#include "vector.h"

namespace m3rec {
namespace {

static inline Index smaller(Index a, Index b) { return a < b ? a : b; }

// The operands of a chunk of one channel block, copied together: rows of a token-major matrix lie a
// power of two apart and would fall into the same few cache sets.
static inline void gather_inputs(const Scan &scan, Index token, Index steps, Index block, float *dt, float *input) {
    const Index lanes = scan.channels - block * kWidth;
    const float *dt_row = scan.dt + token * scan.dt_stride + block * kWidth;
    const float *x_row = scan.x + token * scan.x_stride + block * kWidth;
    for (Index t = 0; t < steps; ++t) {
        const Vec v = load_row(dt_row, lanes);
        store(dt + t * kWidth, v);
        store(input + t * kWidth, v * load_row(x_row, lanes));
        dt_row += scan.dt_stride;
        x_row += scan.x_stride;
    }
}

static inline void load_state(const Scan &scan, const float *rows, Index block, float *state) {
    const Index lanes = smaller(kWidth, scan.channels - block * kWidth);
    for (Index s = 0; s < scan.states; ++s) store(state + s * kWidth, zero());
    if (rows == nullptr) return;
    rows += block * kWidth * scan.states;
    for (Index lane = 0; lane < lanes; ++lane)
        for (Index s = 0; s < scan.states; ++s) state[s * kWidth + lane] = rows[lane * scan.states + s];
}

static inline void store_state(const Scan &scan, const float *state, Index block, float *rows) {
    const Index lanes = smaller(kWidth, scan.channels - block * kWidth);
    rows += block * kWidth * scan.states;
    for (Index lane = 0; lane < lanes; ++lane)
        for (Index s = 0; s < scan.states; ++s) rows[lane * scan.states + s] = state[s * kWidth + lane];
}

// Some steps of kCount states of one channel block. `B` and `C` point at the first of these states.
// kRead: add C·h to y (at the last step only when `only_last`). kFresh: the state before the first step is
// nothing, so there is nothing to decay.
template <int kCount, bool kRead>
static inline void forward_group(const Scan &scan, Index steps, bool fresh, const float *dt, const float *input,
                                 const float *A, const float *B, const float *C, float *state, float *y) {
    Vec a[kCount], h[kCount];
    for (int g = 0; g < kCount; ++g) a[g] = load(A + g * kWidth);
    Index t = 0;
    if (fresh) {
        const Vec q = load(input);
        for (int g = 0; g < kCount; ++g) h[g] = q * broadcast(B[g]);
        if (kRead) {
            Vec sum = load(y);
            for (int g = 0; g < kCount; ++g) sum = fma(broadcast(C[g]), h[g], sum);
            store(y, sum);
        }
        t = 1;
    } else {
        for (int g = 0; g < kCount; ++g) h[g] = load(state + g * kWidth);
    }
    for (; t < steps; ++t) {
        const Vec d = load(dt + t * kWidth), q = load(input + t * kWidth);
        const float *b = B + t * scan.B_stride;
        for (int g = 0; g < kCount; ++g) h[g] = fma(exp2(d * a[g]), h[g], q * broadcast(b[g]));
        if (kRead) {
            const float *c = C + t * scan.C_stride;
            Vec sum = load(y + t * kWidth);
            for (int g = 0; g < kCount; ++g) sum = fma(broadcast(c[g]), h[g], sum);
            store(y + t * kWidth, sum);
        }
    }
    for (int g = 0; g < kCount; ++g) store(state + g * kWidth, h[g]);
}

// The same for every state; what kGroup does not divide is done in smaller groups.
template <bool kRead>
static inline void forward_states(const Scan &scan, Index token, Index steps, bool fresh, const float *dt,
                                  const float *input, const float *A, float *state, float *y) {
    const float *B = scan.B + token * scan.B_stride, *C = scan.C + token * scan.C_stride;
    Index s = 0;
    for (; s + kGroup <= scan.states; s += kGroup)
        forward_group<kGroup, kRead>(scan, steps, fresh, dt, input, A + s * kWidth, B + s, C + s, state + s * kWidth, y);
    for (; s < scan.states; ++s)
        forward_group<1, kRead>(scan, steps, fresh, dt, input, A + s * kWidth, B + s, C + s, state + s * kWidth, y);
}

static inline Vec read_state(const Scan &scan, Index token, const float *state) {
    const float *C = scan.C + token * scan.C_stride;
    Vec sum = zero();
    for (Index s = 0; s < scan.states; ++s) sum = fma(broadcast(C[s]), load(state + s * kWidth), sum);
    return sum;
}

static Index forward_scratch(const Scan &scan) { return (3 * kForwardChunk + scan.states) * kWidth; }

static void forward(const Scan &scan, const Unit &unit, float *scratch) {
    float *dt = scratch, *input = dt + kForwardChunk * kWidth, *y = input + kForwardChunk * kWidth;
    float *state = y + kForwardChunk * kWidth;
    const Index row_floats = scan.channels * scan.states;
    for (Index block = unit.first_block; block < unit.last_block; ++block) {
        const Index column = block * kWidth, lanes = scan.channels - column;
        const float *A = scan.A + block * scan.states * kWidth;
        const Vec D = load_row(scan.D + column, lanes);
        for (Index sequence = unit.first_sequence; sequence < unit.last_sequence; ++sequence) {
            const Index start = scan.cu_seqlens[sequence], end = scan.cu_seqlens[sequence + 1];
            const bool from_nothing = scan.initial_state == nullptr && !scan.decay_first;
            if (!from_nothing)
                load_state(scan, scan.initial_state ? scan.initial_state + sequence * row_floats : nullptr, block, state);
            for (Index token = start; token < end; token += kForwardChunk) {
                const Index steps = smaller(kForwardChunk, end - token);
                const bool fresh = from_nothing && token == start;
                gather_inputs(scan, token, steps, block, dt, input);
                if (scan.read_last) {
                    forward_states<false>(scan, token, steps, fresh, dt, input, A, state, nullptr);
                    continue;
                }
                for (Index t = 0; t < steps; ++t)
                    store(y + t * kWidth, D * load_row(scan.x + (token + t) * scan.x_stride + column, lanes));
                forward_states<true>(scan, token, steps, fresh, dt, input, A, state, y);
                for (Index t = 0; t < steps; ++t)
                    store_row(scan.y + (token + t) * scan.channels + column, load(y + t * kWidth), lanes);
            }
            if (scan.read_last) {
                const Vec x = load_row(scan.x + (end - 1) * scan.x_stride + column, lanes);
                store_row(scan.y + sequence * scan.channels + column, fma(D, x, read_state(scan, end - 1, state)), lanes);
            }
            if (scan.last_state) store_state(scan, state, block, scan.last_state + sequence * row_floats);
        }
    }
}

// One token per row on kept states. Here the states of a channel lie side by side in memory, so lanes
// are states; lanes beyond the last state read zeros.
static void step(const Step &call, Index first_row, Index last_row) {
    const Vec log2e = broadcast(1.44269504088896340736f);
    for (Index row = first_row; row < last_row; ++row) {
        const float *B = call.B + row * call.B_stride, *C = call.C + row * call.C_stride;
        for (Index channel = 0; channel < call.channels; ++channel) {
            const float x = call.x[row * call.x_stride + channel], dt = call.dt[row * call.dt_stride + channel];
            const float *A = call.A + channel * call.states;
            float *state = call.state + (row * call.channels + channel) * call.states;
            Vec sum = zero();
            for (Index s = 0; s < call.states; s += kWidth) {
                const Index lanes = call.states - s;
                const Vec decay = exp2(load_row(A + s, lanes) * log2e * broadcast(dt));
                const Vec h = fma(decay, load_row(state + s, lanes), broadcast(dt * x) * load_row(B + s, lanes));
                store_row(state + s, h, lanes);
                // From the memory again where lanes are unused: 0 · inf in these must not reach the sum.
                sum = fma(lanes >= kWidth ? h : load_row(state + s, lanes), load_row(C + s, lanes), sum);
            }
            float total[4];
            sum_lanes4(sum, sum, sum, sum, total);
            call.y[row * call.channels + channel] = total[0] + call.D[channel] * x;
        }
    }
}

}  // namespace
}  // namespace m3rec
