// Backward pass. States are recomputed, a chunk of tokens and a group of states at a time, so that the
// decays and states that the way back needs never leave the first-level cache. Sequences longer than a
// chunk are run over once more before, to have the state at the start of each chunk.
//
// With g[t] the gradient of h[t] and q[t] = dt[t] x[t]:
//     g[t]  = grad_y[t] C[t] + exp(dt[t+1] A) g[t+1]
//     e[t]  = g[t] exp(dt[t] A) h[t-1]                      the gradient of the exponent dt[t] A
//     grad_C[t] = sum_d grad_y[t] h[t]     grad_B[t] = sum_d g[t] q[t]     grad_A = sum_t e[t] dt[t]
//     grad_q[t] = sum_s g[t] B[t]          grad_dt[t] = grad_q[t] x[t] + sum_s e[t] A
//     grad_x[t] = grad_q[t] dt[t] + grad_y[t] D              grad_D = sum_t grad_y[t] x[t]
#pragma once

#include "scan_forward.h"

namespace m3rec {
namespace {

// Scratch memory of one unit, all in floats. Arrays with [block] run over the unit's blocks.
struct BackwardScratch {
    float *dt, *input, *grad_y;        // [block][kBackwardChunk][lane]
    float *grad_input, *exponent_sum;  // the same: grad_q, and sum_s e A
    float *carry;                      // [block][state][lane]: exp(dt[t+1] A) g[t+1] of the next chunk's first token
    float *decay, *state;              // [kBackwardChunk][group][lane], state[0] is what came before the chunk
    float *grad_B, *grad_C;            // [kBackwardChunk][group][lane]: sums over blocks, not yet over lanes
    float *starts;                     // [chunk][block][state][lane]: state before each chunk

    BackwardScratch(float *memory, Index blocks, Index states) {
        const Index row = kBackwardChunk * kWidth, group = row * kGroup;
        dt = memory;
        input = dt + blocks * row;
        grad_y = input + blocks * row;
        grad_input = grad_y + blocks * row;
        exponent_sum = grad_input + blocks * row;
        carry = exponent_sum + blocks * row;
        decay = carry + blocks * states * kWidth;
        state = decay + group;
        grad_B = state + group + kGroup * kWidth;
        grad_C = grad_B + group;
        starts = grad_C + group;
    }
};

static Index backward_scratch(const Scan &scan, Index longest) {
    const Index chunks = (longest + kBackwardChunk - 1) / kBackwardChunk;
    return (scan.blocks * (5 * kBackwardChunk + (1 + chunks) * scan.states) + (4 * kBackwardChunk + 1) * kGroup) * kWidth;
}

// The operands of one channel block and group of states; pointers are at the group's first element.
struct GroupPass {
    Index steps;
    const float *dt, *input, *grad_y;
    float *grad_input, *exponent_sum;
    const float *A, *B, *C;
    Index B_stride, C_stride;
    const float *start;                // null: nothing came before
    float *decay, *state, *grad_B, *grad_C;
    float *carry, *grad_A;
};

// Decays and states of the chunk.
template <int kCount>
static inline void recompute(const GroupPass &pass) {
    Vec a[kCount], h[kCount];
    for (int g = 0; g < kCount; ++g) a[g] = load(pass.A + g * kWidth);
    Index t = 0;
    if (pass.start == nullptr) {
        const Vec q = load(pass.input);
        for (int g = 0; g < kCount; ++g) {
            h[g] = q * broadcast(pass.B[g]);
            store(pass.decay + g * kWidth, zero());
            store(pass.state + g * kWidth, zero());
            store(pass.state + (kCount + g) * kWidth, h[g]);
        }
        t = 1;
    } else {
        for (int g = 0; g < kCount; ++g) {
            h[g] = load(pass.start + g * kWidth);
            store(pass.state + g * kWidth, h[g]);
        }
    }
    for (; t < pass.steps; ++t) {
        const Vec d = load(pass.dt + t * kWidth), q = load(pass.input + t * kWidth);
        const float *b = pass.B + t * pass.B_stride;
        for (int g = 0; g < kCount; ++g) {
            const Vec decay = exp2(d * a[g]);
            h[g] = fma(decay, h[g], q * broadcast(b[g]));
            store(pass.decay + (t * kCount + g) * kWidth, decay);
            store(pass.state + ((t + 1) * kCount + g) * kWidth, h[g]);
        }
    }
}

// The way back over the chunk. kReadLast: only the steps from `first_read` on have a gradient of y.
template <int kCount, bool kReadLast>
static inline void walk_back(const GroupPass &pass, Index first_read) {
    Vec a[kCount], h[kCount], carry[kCount], grad_A[kCount];
    for (int g = 0; g < kCount; ++g) {
        a[g] = load(pass.A + g * kWidth);
        h[g] = load(pass.state + (pass.steps * kCount + g) * kWidth);
        carry[g] = load(pass.carry + g * kWidth);
        grad_A[g] = zero();
    }
    for (Index t = pass.steps - 1; t >= 0; --t) {
        const Vec d = load(pass.dt + t * kWidth), q = load(pass.input + t * kWidth);
        const float *b = pass.B + t * pass.B_stride;
        float *grad_B = pass.grad_B + t * kCount * kWidth;
        Vec grad_input = load(pass.grad_input + t * kWidth), exponent_sum = load(pass.exponent_sum + t * kWidth);
        if (!kReadLast || t >= first_read) {
            const Vec dy = load(pass.grad_y + t * kWidth);
            const float *c = pass.C + t * pass.C_stride;
            float *grad_C = pass.grad_C + t * kCount * kWidth;
            for (int g = 0; g < kCount; ++g) {
                carry[g] = fma(dy, broadcast(c[g]), carry[g]);
                store(grad_C + g * kWidth, fma(dy, h[g], load(grad_C + g * kWidth)));
            }
        }
        for (int g = 0; g < kCount; ++g) {
            store(grad_B + g * kWidth, fma(carry[g], q, load(grad_B + g * kWidth)));
            grad_input = fma(carry[g], broadcast(b[g]), grad_input);
            carry[g] = carry[g] * load(pass.decay + (t * kCount + g) * kWidth);
            h[g] = load(pass.state + (t * kCount + g) * kWidth);
            const Vec exponent = carry[g] * h[g];
            exponent_sum = fma(exponent, a[g], exponent_sum);
            grad_A[g] = fma(exponent, d, grad_A[g]);
        }
        store(pass.grad_input + t * kWidth, grad_input);
        store(pass.exponent_sum + t * kWidth, exponent_sum);
    }
    for (int g = 0; g < kCount; ++g) {
        store(pass.carry + g * kWidth, carry[g]);
        store(pass.grad_A + g * kWidth, load(pass.grad_A + g * kWidth) + grad_A[g]);
    }
}

// Sums over lanes of [steps][kCount] vectors, into rows of a [tokens, states] matrix.
template <int kCount>
static inline void sum_rows(const float *vectors, Index steps, float *rows, Index stride) {
    for (Index t = 0; t < steps; ++t) {
        Vec v[4];
        for (int g = 0; g < 4; ++g) v[g] = g < kCount ? load(vectors + (t * kCount + g) * kWidth) : zero();
        float sums[4];
        sum_lanes4(v[0], v[1], v[2], v[3], sums);
        for (int g = 0; g < kCount; ++g) rows[t * stride + g] = sums[g];
    }
}

// One chunk of one sequence.
struct Chunk {
    Index token, steps, first_read;
    bool fresh;           // nothing came before
    const float *starts;  // [block][state][lane], unless fresh
};

// States `s` to `s + kCount` of a chunk, over all blocks of the unit.
template <int kCount>
static inline void backward_group(const Scan &scan, const Unit &unit, const BackwardScratch &scratch, const Chunk &chunk, Index s) {
    const Index row = kBackwardChunk * kWidth, block_floats = scan.states * kWidth;
    for (Index i = 0; i < chunk.steps * kCount; ++i) {
        store(scratch.grad_B + i * kWidth, zero());
        store(scratch.grad_C + i * kWidth, zero());
    }
    for (Index block = unit.first_block; block < unit.last_block; ++block) {
        const Index local = block - unit.first_block, at = local * block_floats + s * kWidth;
        GroupPass pass;
        pass.steps = chunk.steps;
        pass.dt = scratch.dt + local * row;
        pass.input = scratch.input + local * row;
        pass.grad_y = scratch.grad_y + local * row;
        pass.grad_input = scratch.grad_input + local * row;
        pass.exponent_sum = scratch.exponent_sum + local * row;
        pass.A = scan.A + block * block_floats + s * kWidth;
        pass.B = scan.B + chunk.token * scan.B_stride + s;
        pass.C = scan.C + chunk.token * scan.C_stride + s;
        pass.B_stride = scan.B_stride;
        pass.C_stride = scan.C_stride;
        pass.start = chunk.fresh ? nullptr : chunk.starts + at;
        pass.decay = scratch.decay;
        pass.state = scratch.state;
        pass.grad_B = scratch.grad_B;
        pass.grad_C = scratch.grad_C;
        pass.carry = scratch.carry + at;
        pass.grad_A = scan.grad_A + (unit.group * scan.blocks + block) * block_floats + s * kWidth;
        recompute<kCount>(pass);
        if (scan.read_last) walk_back<kCount, true>(pass, chunk.first_read);
        else walk_back<kCount, false>(pass, 0);
    }
    const Index at = (unit.panel * scan.tokens + chunk.token) * scan.states + s;
    sum_rows<kCount>(scratch.grad_B, chunk.steps, scan.grad_B + at, scan.states);
    sum_rows<kCount>(scratch.grad_C, chunk.steps, scan.grad_C + at, scan.states);
}

// The gradient of y at a token, or null where y has no row for it.
static inline const float *grad_y_row(const Scan &scan, Index sequence, Index token) {
    if (!scan.read_last) return scan.grad_y + token * scan.grad_y_stride;
    return token + 1 == scan.cu_seqlens[sequence + 1] ? scan.grad_y + sequence * scan.grad_y_stride : nullptr;
}

static inline void gather_chunk(const Scan &scan, const Unit &unit, const BackwardScratch &scratch, Index sequence, const Chunk &chunk) {
    for (Index block = unit.first_block; block < unit.last_block; ++block) {
        const Index column = block * kWidth, offset = (block - unit.first_block) * kBackwardChunk * kWidth;
        gather_inputs(scan, chunk.token, chunk.steps, block, scratch.dt + offset, scratch.input + offset);
        for (Index t = 0; t < chunk.steps; ++t) {
            const float *dy = grad_y_row(scan, sequence, chunk.token + t);
            store(scratch.grad_y + offset + t * kWidth, dy ? load_row(dy + column, scan.channels - column) : zero());
            store(scratch.grad_input + offset + t * kWidth, zero());
            store(scratch.exponent_sum + offset + t * kWidth, zero());
        }
    }
}

// grad_x, grad_dt and grad_D from the sums over states.
static inline void finish_chunk(const Scan &scan, const Unit &unit, const BackwardScratch &scratch, const Chunk &chunk) {
    const Vec ln2 = broadcast(0.693147180559945309417f);  // A carries log2(e)
    for (Index block = unit.first_block; block < unit.last_block; ++block) {
        const Index column = block * kWidth, lanes = scan.channels - column;
        const Index offset = (block - unit.first_block) * kBackwardChunk * kWidth;
        float *grad_D = scan.grad_D + (unit.group * scan.blocks + block) * kWidth;
        const Vec D = load_row(scan.D + column, lanes);
        Vec sum = zero();
        for (Index t = 0; t < chunk.steps; ++t) {
            const Index token = chunk.token + t, at = offset + t * kWidth;
            const Vec x = load_row(scan.x + token * scan.x_stride + column, lanes), dt = load(scratch.dt + at);
            const Vec dy = load(scratch.grad_y + at), grad_input = load(scratch.grad_input + at);
            const bool read = !scan.read_last || t >= chunk.first_read;
            Vec grad_x = grad_input * dt;
            if (read) {
                grad_x = fma(dy, D, grad_x);
                sum = fma(dy, x, sum);
            }
            store_row(scan.grad_x + token * scan.channels + column, grad_x, lanes);
            const Vec grad_dt = fma(grad_input, x, load(scratch.exponent_sum + at) * ln2);
            store_row(scan.grad_dt + token * scan.channels + column, grad_dt, lanes);
        }
        store(grad_D, load(grad_D) + sum);
    }
}

// States before each chunk but the first, which `starts` has already unless it is nothing.
static inline void find_starts(const Scan &scan, const Unit &unit, Index start, Index chunks, bool fresh, const BackwardScratch &scratch) {
    const Index block_floats = scan.states * kWidth, all = (unit.last_block - unit.first_block) * block_floats;
    for (Index block = unit.first_block; block < unit.last_block; ++block) {
        for (Index chunk = 0; chunk + 1 < chunks; ++chunk) {
            float *from = scratch.starts + chunk * all + (block - unit.first_block) * block_floats, *to = from + all;
            for (Index s = 0; s < scan.states; ++s) store(to + s * kWidth, load(from + s * kWidth));
            const Index token = start + chunk * kBackwardChunk;
            gather_inputs(scan, token, kBackwardChunk, block, scratch.dt, scratch.input);
            forward_states<false>(scan, token, kBackwardChunk, fresh && chunk == 0, scratch.dt, scratch.input,
                                  scan.A + block * block_floats, to, nullptr);
        }
    }
}

static void backward(const Scan &scan, const Unit &unit, float *memory) {
    const Index blocks = unit.last_block - unit.first_block, block_floats = scan.states * kWidth;
    const BackwardScratch scratch(memory, blocks, scan.states);
    const bool fresh = scan.initial_state == nullptr && !scan.decay_first;
    float *grad_A = scan.grad_A + (unit.group * scan.blocks + unit.first_block) * block_floats;
    float *grad_D = scan.grad_D + (unit.group * scan.blocks + unit.first_block) * kWidth;
    __builtin_memset(grad_A, 0, sizeof(float) * blocks * block_floats);
    __builtin_memset(grad_D, 0, sizeof(float) * blocks * kWidth);
    for (Index sequence = unit.first_sequence; sequence < unit.last_sequence; ++sequence) {
        const Index start = scan.cu_seqlens[sequence], end = scan.cu_seqlens[sequence + 1];
        const Index chunks = (end - start + kBackwardChunk - 1) / kBackwardChunk;
        const float *rows = scan.initial_state ? scan.initial_state + sequence * scan.channels * scan.states : nullptr;
        if (!fresh)
            for (Index i = 0; i < blocks; ++i) load_state(scan, rows, unit.first_block + i, scratch.starts + i * block_floats);
        find_starts(scan, unit, start, chunks, fresh, scratch);
        __builtin_memset(scratch.carry, 0, sizeof(float) * blocks * block_floats);
        for (Index i = chunks - 1; i >= 0; --i) {
            Chunk chunk;
            chunk.token = start + i * kBackwardChunk;
            chunk.steps = smaller(kBackwardChunk, end - chunk.token);
            chunk.first_read = end - 1 - chunk.token;
            chunk.fresh = fresh && i == 0;
            chunk.starts = scratch.starts + i * blocks * block_floats;
            gather_chunk(scan, unit, scratch, sequence, chunk);
            Index s = 0;
            for (; s + kGroup <= scan.states; s += kGroup) backward_group<kGroup>(scan, unit, scratch, chunk, s);
            for (; s < scan.states; ++s) backward_group<1>(scan, unit, scratch, chunk, s);
            finish_chunk(scan, unit, scratch, chunk);
        }
    }
}

}  // namespace
}  // namespace m3rec
