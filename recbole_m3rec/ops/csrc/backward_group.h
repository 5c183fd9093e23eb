// The inner loops of the backward pass: some states of one channel block over one chunk.
//
// With g[t] the gradient of h[t] and q[t] = dt[t] x[t]:
//     g[t]  = grad_y[t] C[t] + exp(dt[t+1] A) g[t+1]
//     e[t]  = g[t] exp(dt[t] A) h[t-1]                      the gradient of the exponent dt[t] A
//     grad_C[t] = sum_d grad_y[t] h[t]     grad_B[t] = sum_d g[t] q[t]     grad_A = sum_t e[t]
//     dt[t] grad_q[t] = sum_s g[t] B[t]          grad_dt[t] = grad_q[t] x[t] + sum_s e[t] A
//     grad_x[t] = grad_q[t] dt[t] + grad_y[t] D              grad_D = sum_t grad_y[t] x[t]
#pragma once

#include "chunk.h"

namespace m3rec {
namespace {

// The operands of one channel block over a chunk; the state-major ones at the first state of a
// group.
struct BackwardPass {
    Index steps;
    const unsigned char *marks;
    const float *dt, *input, *grad_y;  // [step][lane]
    float *grad_input, *exponent_sum;  // [step][lane], added to
    float *y;                          // [step][lane], added to
    const float *A;                    // [state][lane]
    const float *B, *C;                // [step, state]
    Index B_stride, C_stride;
    const float *start;     // [state][lane]; not used where the chunk starts with a first token
    float *carry;           // [state][lane]; replaced
    float *history, *sums;  // [step][2 kCount][lane]; sums are added to
    float *grad_A;          // [state][lane], added to
};

// kCount states: forth over the chunk for decays and states, and back for the gradients. What
// belongs to another sequence is never multiplied by zero, but left out, for it may be infinite.
// kGated: y is computed, too. Not inlined, so that the loops have all registers to themselves.
template <int kCount, bool kReadLast, bool kGated>
__attribute__((noinline)) static void backward_group(const BackwardPass &pass, const Ahead forth,
                                                     const Ahead back) {
    constexpr Index kRecord = 2 * kCount * kWidth, kHalf = kCount * kWidth;
    const Index steps = pass.steps, B_stride = pass.B_stride, C_stride = pass.C_stride;
    const unsigned char *const marks = pass.marks;
    const float *const dt = pass.dt, *const input = pass.input, *const grad_y = pass.grad_y;
    const float *B = pass.B, *C = pass.C;
    float *record = pass.history, *sums = pass.sums;
    float *const grad_input = pass.grad_input, *const exponent_sum = pass.exponent_sum;
    Vec a[kCount], h[kCount], carry[kCount], grad_A[kCount];
    M3REC_UNROLL
    for (int g = 0; g < kCount; ++g) {
        a[g] = load(pass.A + g * kWidth);
        h[g] = load(pass.start + g * kWidth);
        carry[g] = load(pass.carry + g * kWidth);
        grad_A[g] = zero();
    }
    for (Index t = 0; t < steps; ++t, B += B_stride, C += C_stride, record += kRecord) {
        forth.fetch(t);
        const Vec q = load(input + t * kWidth);
        M3REC_UNROLL
        for (int g = 0; g < kCount; ++g) store(record + kHalf + g * kWidth, h[g]);
        if (marks[t] & kFirst) {
            M3REC_UNROLL
            for (int g = 0; g < kCount; ++g) h[g] = q * broadcast(B[g]);
        } else {
            const Vec d = load(dt + t * kWidth);
            M3REC_UNROLL
            for (int g = 0; g < kCount; ++g) {
                const Vec decay = exp2(d * a[g]);
                store(record + g * kWidth, decay);
                h[g] = fma(decay, h[g], q * broadcast(B[g]));
            }
        }
        if (kGated && (!kReadLast || (marks[t] & kLast))) {
            Vec sum = load(pass.y + t * kWidth);
            M3REC_UNROLL
            for (int g = 0; g < kCount; ++g) sum = fma(broadcast(C[g]), h[g], sum);
            store(pass.y + t * kWidth, sum);
        }
    }
    sums += steps * kRecord;
    for (Index t = steps - 1; t >= 0; --t) {
        B -= B_stride, C -= C_stride, record -= kRecord, sums -= kRecord;
        back.fetch(t);
        if (marks[t] & kLast) {
            M3REC_UNROLL
            for (int g = 0; g < kCount; ++g) carry[g] = zero();
        }
        if (!kReadLast || (marks[t] & kLast)) {
            const Vec dy = load(grad_y + t * kWidth);
            M3REC_UNROLL
            for (int g = 0; g < kCount; ++g) {
                carry[g] = fma(dy, broadcast(C[g]), carry[g]);
                store(sums + kHalf + g * kWidth, fma(dy, h[g], load(sums + kHalf + g * kWidth)));
            }
        }
        const Vec q = load(input + t * kWidth);
        Vec of_input = load(grad_input + t * kWidth);
        M3REC_UNROLL
        for (int g = 0; g < kCount; ++g) {
            store(sums + g * kWidth, fma(carry[g], q, load(sums + g * kWidth)));
            of_input = fma(carry[g], broadcast(B[g]), of_input);
            h[g] = load(record + kHalf + g * kWidth);
        }
        store(grad_input + t * kWidth, of_input);
        if (marks[t] & kFirst) continue;
        const Vec d = load(dt + t * kWidth);
        Vec of_exponent = load(exponent_sum + t * kWidth);
        M3REC_UNROLL
        for (int g = 0; g < kCount; ++g) {
            carry[g] = carry[g] * load(record + g * kWidth);
            const Vec exponent = carry[g] * h[g];
            of_exponent = fma(exponent, a[g], of_exponent);
            grad_A[g] = fma(exponent, d, grad_A[g]);
        }
        store(exponent_sum + t * kWidth, of_exponent);
    }
    M3REC_UNROLL
    for (int g = 0; g < kCount; ++g) {
        store(pass.carry + g * kWidth, carry[g]);
        store(pass.grad_A + g * kWidth, load(pass.grad_A + g * kWidth) + grad_A[g]);
    }
}

// Sums over lanes of kCount vectors.
template <int kCount>
static inline void sum_lanes(const float *vectors, float *sums) {
    Vec v[4];
    for (int g = 0; g < 4; ++g) v[g] = g < kCount ? load(vectors + g * kWidth) : zero();
    float padded[4];
    sum_lanes4(v[0], v[1], v[2], v[3], padded);
    for (int g = 0; g < kCount; ++g) sums[g] = padded[g];
}

}  // namespace
}  // namespace m3rec
