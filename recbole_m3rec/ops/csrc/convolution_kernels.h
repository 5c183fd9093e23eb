// Causal depthwise convolution and SiLU over packed sequences: u[t] = bias + sum_lag w[lag] x[t -
// lag] within the sequence, y[t] = u[t] sigmoid(u[t]). Any range of tokens can be done alone,
// wherever sequences begin.
#pragma once

#include "vector.h"

namespace m3rec {
namespace {

static inline Index sequence_of(const Convolution &call, Index token) {
    Index low = 0, high = call.sequences;  // cu_seqlens[low] <= token < cu_seqlens[high]
    while (high - low > 1) {
        const Index middle = low + (high - low) / 2;
        if (call.cu_seqlens[middle] <= token) low = middle;
        else high = middle;
    }
    return low;
}

// u of one token and block; `lags` of the taps lie within the sequence.
static inline Vec convolve_token(const Convolution &call, Index token, Index lags, Index column) {
    const Index row = call.blocks * kWidth, lanes = call.channels - column;
    const float *x = call.x + token * call.x_stride + column;
    Vec sum = load(call.bias + column);
    for (Index lag = 0; lag < lags; ++lag)
        sum = fma(load(call.weight + lag * row + column), load_row(x - lag * call.x_stride, lanes),
                  sum);
    return sum;
}

static inline Index lags_at(const Convolution &call, Index sequence, Index token) {
    const Index before = token - call.cu_seqlens[sequence];
    return before + 1 < call.taps ? before + 1 : call.taps;
}

static void convolve(const Convolution &call, Index first_token, Index last_token) {
    Index sequence = sequence_of(call, first_token);
    for (Index token = first_token; token < last_token; ++token) {
        while (call.cu_seqlens[sequence + 1] <= token) ++sequence;
        const Index lags = lags_at(call, sequence, token);
        for (Index block = 0; block < call.blocks; ++block) {
            const Index column = block * kWidth;
            const Vec u = convolve_token(call, token, lags, column);
            store_row(call.y + token * call.channels + column, u * sigmoid(u),
                      call.channels - column);
        }
    }
}

// From the last token back, with the gradients of u of `taps` tokens at hand: grad_x[t] = sum_lag
// w[lag] grad_u[t + lag]. It starts as many tokens behind the range as the range's last tokens
// need.
static void convolve_back(const Convolution &call, Index unit, Index first_token, Index last_token,
                          float *ring) {
    const Index row = call.blocks * kWidth;
    float *const grad_weight = call.grad_weight + unit * (call.taps + 1) * row;
    __builtin_memset(grad_weight, 0, sizeof(float) * (call.taps + 1) * row);
    Index sequence = sequence_of(call, last_token - 1);
    Index token = call.cu_seqlens[sequence + 1] - 1;
    if (token > last_token + call.taps - 2) token = last_token + call.taps - 2;
    for (; token >= first_token; --token) {
        while (call.cu_seqlens[sequence] > token) --sequence;
        const Index lags = lags_at(call, sequence, token);
        const Index after = call.cu_seqlens[sequence + 1] - token,
                    leads = after < call.taps ? after : call.taps;
        for (Index block = 0; block < call.blocks; ++block) {
            const Index column = block * kWidth, lanes = call.channels - column;
            const Vec u = convolve_token(call, token, lags, column), s = sigmoid(u);
            const Vec dy = load_row(call.grad_y + token * call.grad_y_stride + column, lanes);
            const Vec grad_u = dy * fma(u * s, broadcast(1.0f) - s, s);
            store(ring + token % call.taps * row + column, grad_u);
            if (token >= last_token) continue;
            Vec grad_x = load(call.weight + column) * grad_u;
            for (Index lag = 1; lag < leads; ++lag)
                grad_x = fma(load(call.weight + lag * row + column),
                             load(ring + (token + lag) % call.taps * row + column), grad_x);
            store_row(call.grad_x + token * call.channels + column, grad_x, lanes);
            for (Index lag = 0; lag < lags; ++lag) {
                float *const sum = grad_weight + lag * row + column;
                store(sum,
                      fma(grad_u, load_row(call.x + (token - lag) * call.x_stride + column, lanes),
                          load(sum)));
            }
            float *const sum = grad_weight + call.taps * row + column;
            store(sum, load(sum) + grad_u);
        }
    }
}

}  // namespace
}  // namespace m3rec
