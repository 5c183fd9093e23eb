// Forward pass and single step. Lanes are channels: no sum over lanes is needed, any state size
// works, and B and C come in as broadcasts. The loops over states are outside those over time, so
// that states and decay rates stay in registers while a chunk of tokens goes by.
#pragma once

#include "chunk.h"

namespace m3rec {
namespace {

// What a forward pass computes besides the states.
enum Read { kReadNothing, kReadEnds, kReadAll };

// The operands of one channel block over a chunk; the state-major ones at the first state of a
// group.
struct ForwardPass {
    Index steps;
    const unsigned char *marks;
    const float *dt, *input;  // [step][lane]
    const float *A;           // [state][lane]
    const float *B, *C;       // [step, state]
    Index B_stride, C_stride;
    float *state;  // [state][lane]: before the chunk, then after it
    float *y;      // [step][lane], added to
};

// kCount states over the chunk. Not inlined, so that the loop has all registers to itself.
template <int kCount, Read kRead>
__attribute__((noinline)) static void forward_group(const ForwardPass &pass, const Ahead ahead) {
    const Index steps = pass.steps, B_stride = pass.B_stride, C_stride = pass.C_stride;
    const unsigned char *const marks = pass.marks;
    const float *const dt = pass.dt, *const input = pass.input, *B = pass.B, *C = pass.C;
    float *const y = pass.y;
    Vec a[kCount], h[kCount];
    M3REC_UNROLL
    for (int g = 0; g < kCount; ++g) {
        a[g] = load(pass.A + g * kWidth);
        h[g] = load(pass.state + g * kWidth);
    }
    for (Index t = 0; t < steps; ++t, B += B_stride, C += C_stride) {
        ahead.fetch(t);
        const Vec q = load(input + t * kWidth);
        if (marks[t] & kFirst) {
            M3REC_UNROLL
            for (int g = 0; g < kCount; ++g) h[g] = q * broadcast(B[g]);
        } else {
            const Vec d = load(dt + t * kWidth);
            M3REC_UNROLL
            for (int g = 0; g < kCount; ++g) h[g] = fma(exp2(d * a[g]), h[g], q * broadcast(B[g]));
        }
        if (kRead == kReadAll || (kRead == kReadEnds && (marks[t] & kLast))) {
            Vec sum = load(y + t * kWidth);
            M3REC_UNROLL
            for (int g = 0; g < kCount; ++g) sum = fma(broadcast(C[g]), h[g], sum);
            store(y + t * kWidth, sum);
        }
    }
    M3REC_UNROLL
    for (int g = 0; g < kCount; ++g) store(pass.state + g * kWidth, h[g]);
}

// All states; what kGroup does not divide is done one by one. Each of the first groups fetches one
// of `ahead`.
template <Read kRead>
static inline void forward_states(ForwardPass pass, Index states, const Ahead (&ahead)[3]) {
    const Ahead nothing{pass.dt, 0};
    for (Index s = 0, group = 0; s < states; ++group) {
        const bool whole = s + kGroup <= states;
        const Index count = whole ? kGroup : 1;
        if (whole) forward_group<kGroup, kRead>(pass, group < 3 ? ahead[group] : nothing);
        else forward_group<1, kRead>(pass, nothing);
        s += count, pass.B += count, pass.C += count, pass.A += count * kWidth,
            pass.state += count * kWidth;
    }
}

struct ForwardScratch {
    float *dt, *input, *y;  // [block][kForwardChunk][lane]
    float *state;           // [block][state][lane]
};

static Index forward_scratch(const Scan &scan) {
    return scan.blocks * (3 * kForwardChunk + scan.states) * kWidth;
}

static inline void forward_chunk(const Scan &scan, const Unit &unit, const ForwardScratch &scratch,
                                 Chunk &chunk) {
    mark(scan, chunk);
    const Index token = chunk.token, next = token + chunk.steps,
                blocks = unit.last_block - unit.first_block;
    gather_inputs<kForwardChunk>(scan, unit, token, chunk.steps, scratch.dt, scratch.input,
                                 scratch.y);
    for (Index i = 0; i < blocks; ++i) {
        const Index column = (unit.first_block + i) * kWidth, rows = i * kForwardChunk * kWidth;
        const ForwardPass pass{chunk.steps,
                               chunk.marks,
                               scratch.dt + rows,
                               scratch.input + rows,
                               scan.A + column * scan.states,
                               scan.B + token * scan.B_stride,
                               scan.C + token * scan.C_stride,
                               scan.B_stride,
                               scan.C_stride,
                               scratch.state + i * scan.states * kWidth,
                               scratch.y + rows};
        const Ahead x{scan.x + next * scan.x_stride + column, scan.x_stride};
        const Ahead dt{scan.dt + next * scan.dt_stride + column, scan.dt_stride};
        if (scan.last_only) forward_states<kReadEnds>(pass, scan.states, {x, dt, x});
        else
            forward_states<kReadAll>(
                pass, scan.states,
                {x, dt, Ahead{scan.y + token * scan.channels + column, scan.channels}});
    }
    Index row = scan.last_only ? chunk.sequence : token;
    for (Index t = 0; t < chunk.steps; ++t) {
        if (scan.last_only && !(chunk.marks[t] & kLast)) continue;
        for (Index i = 0; i < blocks; ++i) {
            const Index column = (unit.first_block + i) * kWidth, lanes = scan.channels - column;
            Vec y = load(scratch.y + (i * kForwardChunk + t) * kWidth);
            if (scan.z) {
                const Vec z = load_row(scan.z + row * scan.z_stride + column, lanes);
                y = y * (z * sigmoid(z));
            }
            store_row(scan.y + row * scan.channels + column, y, lanes);
        }
        ++row;
    }
}

static void forward(const Scan &scan, const Unit &unit, float *memory) {
    const Index blocks = unit.last_block - unit.first_block, rows = blocks * kForwardChunk * kWidth;
    const ForwardScratch scratch{memory, memory + rows, memory + 2 * rows, memory + 3 * rows};
    Chunk chunk;
    for (Index sequence = unit.first_sequence, count; sequence < unit.last_sequence;
         sequence += count) {
        count = count_sequences(scan, kForwardChunk, sequence, unit.last_sequence);
        if (count == 0) count = 1;
        const Index end = scan.cu_seqlens[sequence + count];
        if (!starts_fresh(scan)) load_states(scan, unit, sequence, scratch.state);
        chunk.sequence = sequence;
        for (chunk.token = scan.cu_seqlens[sequence]; chunk.token < end;
             chunk.token += chunk.steps) {
            chunk.steps = smaller(kForwardChunk, end - chunk.token);
            forward_chunk(scan, unit, scratch, chunk);
        }
        for (Index i = 0; i < blocks && scan.last_state; ++i)
            store_state(scan, scratch.state + i * scan.states * kWidth, unit.first_block + i,
                        scan.last_state + sequence * scan.channels * scan.states);
    }
}

// One token per row on kept states. Here the states of a channel lie side by side in memory, so
// lanes are states. Lanes beyond the last state read zeros.
static inline float step_channel(const Step &call, Index row, Index channel, float dt, float x) {
    const float *A = call.A + channel * call.states, *B = call.B + row * call.B_stride,
                *C = call.C + row * call.C_stride;
    float *state = call.state + (row * call.channels + channel) * call.states;
    const Vec log2e = broadcast(1.44269504088896340736f);
    Vec sum = zero();
    for (Index s = 0; s < call.states; s += kWidth) {
        const Index lanes = call.states - s;
        const Vec decay = exp2(load_row(A + s, lanes) * log2e * broadcast(dt));
        const Vec h =
            fma(decay, load_row(state + s, lanes), broadcast(dt * x) * load_row(B + s, lanes));
        store_row(state + s, h, lanes);
        // From the memory again where lanes are unused: 0 · inf in these must not reach the sum.
        sum = fma(lanes >= kWidth ? h : load_row(state + s, lanes), load_row(C + s, lanes), sum);
    }
    float total[4];
    sum_lanes4(sum, sum, sum, sum, total);
    return total[0] + call.D[channel] * x;
}

static void step(const Step &call, Index first_row, Index last_row) {
    for (Index row = first_row; row < last_row; ++row) {
        for (Index column = 0; column < call.channels; column += kWidth) {
            const Index lanes = smaller(kWidth, call.channels - column);
            Vec steps = load_row(call.dt + row * call.dt_stride + column, lanes);
            if (call.dt_bias) steps = softplus(steps + load_row(call.dt_bias + column, lanes));
            float dt[kWidth], y[kWidth] = {};
            store(dt, steps);
            for (Index lane = 0; lane < lanes; ++lane)
                y[lane] = step_channel(call, row, column + lane, dt[lane],
                                       call.x[row * call.x_stride + column + lane]);
            Vec out = load(y);
            if (call.z) {
                const Vec z = load_row(call.z + row * call.z_stride + column, lanes);
                out = out * (z * sigmoid(z));
            }
            store_row(call.y + row * call.channels + column, out, lanes);
        }
    }
}

}  // namespace
}  // namespace m3rec
