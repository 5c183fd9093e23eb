// Backward pass. States are recomputed, a chunk of tokens and a group of states at a time, so that
// the decays and states that the way back needs never leave the first-level cache. Sequences longer
// than a chunk are run over once more before, to have the state at the start of each chunk.
#pragma once

#include "backward_group.h"
#include "scan_forward.h"

namespace m3rec {
namespace {

// Scratch memory of one unit. Arrays with [block] run over the unit's blocks.
struct BackwardScratch {
    float *dt, *input, *grad_y;        // [block][kBackwardChunk][lane]
    float *grad_input, *exponent_sum;  // the same: grad_q, and sum_s e A
    float *y;                          // the same: y before the gate, where there is one
    float *carry;    // [block][state][lane]: exp(dt A) g of the token after the chunk
    float *history;  // [kBackwardChunk][2 kGroup][lane]: decays, and states before the token
    float *sums;     // the same: of grad_B and grad_C over blocks, not yet over lanes
    float *starts;   // [chunk][block][state][lane]: the state before each chunk of a sequence

    BackwardScratch(float *memory, Index blocks, Index states) {
        const Index rows = blocks * kBackwardChunk * kWidth,
                    records = kBackwardChunk * 2 * kGroup * kWidth;
        dt = memory;
        input = dt + rows;
        grad_y = input + rows;
        grad_input = grad_y + rows;
        exponent_sum = grad_input + rows;
        y = exponent_sum + rows;
        carry = y + rows;
        history = carry + blocks * states * kWidth;
        sums = history + records;
        starts = sums + records;
    }
};

static Index backward_scratch(const Scan &scan, Index longest) {
    const Index chunks = (longest + kBackwardChunk - 1) / kBackwardChunk;
    return (scan.blocks * (6 * kBackwardChunk + (1 + chunks) * scan.states) +
            4 * kBackwardChunk * kGroup) *
           kWidth;
}

struct BackwardChunk : Chunk {
    const float *starts;  // [block][state][lane], where no sequence starts
    Index next_token;     // where the chunk starts that comes next
};

// States `s` to `s + kCount` of a chunk, over all blocks of the unit.
template <int kCount>
static inline void backward_blocks(const Scan &scan, const Unit &unit,
                                   const BackwardScratch &scratch, const BackwardChunk &chunk,
                                   Index s) {
    const Index block_floats = scan.states * kWidth;
    for (Index i = 0; i < chunk.steps * 2 * kCount; ++i) store(scratch.sums + i * kWidth, zero());
    for (Index block = unit.first_block; block < unit.last_block; ++block) {
        const Index i = block - unit.first_block, column = block * kWidth;
        const Index rows = i * kBackwardChunk * kWidth, at = i * block_floats + s * kWidth;
        const BackwardPass pass{
            chunk.steps,
            chunk.marks,
            scratch.dt + rows,
            scratch.input + rows,
            scratch.grad_y + rows,
            scratch.grad_input + rows,
            scratch.exponent_sum + rows,
            scratch.y + rows,
            scan.A + block * block_floats + s * kWidth,
            scan.B + chunk.token * scan.B_stride + s,
            scan.C + chunk.token * scan.C_stride + s,
            scan.B_stride,
            scan.C_stride,
            chunk.starts + at,
            scratch.carry + at,
            scratch.history,
            scratch.sums,
            scan.grad_A + (unit.group * scan.blocks + block) * block_floats + s * kWidth};
        Ahead forth{pass.dt, 0}, back{pass.dt, 0};
        if (s == 0) {
            forth = Ahead{scan.x + chunk.next_token * scan.x_stride + column, scan.x_stride};
            back = Ahead{scan.dt + chunk.next_token * scan.dt_stride + column, scan.dt_stride};
        } else if (s == kGroup) {
            forth = Ahead{scan.grad_x + chunk.token * scan.channels + column, scan.channels};
            back = Ahead{scan.grad_dt + chunk.token * scan.channels + column, scan.channels};
        } else if (s == 2 * kGroup && !scan.last_only) {
            forth = Ahead{scan.grad_y + chunk.next_token * scan.grad_y_stride + column,
                          scan.grad_y_stride};
        }
        if (scan.last_only && scan.z) backward_group<kCount, true, true>(pass, forth, back);
        else if (scan.last_only) backward_group<kCount, true, false>(pass, forth, back);
        else if (scan.z) backward_group<kCount, false, true>(pass, forth, back);
        else backward_group<kCount, false, false>(pass, forth, back);
    }
    for (Index t = 0; t < chunk.steps; ++t) {
        const Index at = (unit.panel * scan.tokens + chunk.token + t) * scan.states + s;
        sum_lanes<kCount>(scratch.sums + t * 2 * kCount * kWidth, scan.grad_B + at);
        sum_lanes<kCount>(scratch.sums + (t * 2 + 1) * kCount * kWidth, scan.grad_C + at);
    }
}

static inline void gather_chunk(const Scan &scan, const Unit &unit, const BackwardScratch &scratch,
                                const BackwardChunk &chunk) {
    gather_inputs<kBackwardChunk>(scan, unit, chunk.token, chunk.steps, scratch.dt, scratch.input,
                                  scan.z ? scratch.y : nullptr);
    Index row = scan.last_only ? chunk.sequence : chunk.token;
    for (Index t = 0; t < chunk.steps; ++t) {
        const bool read = !scan.last_only || (chunk.marks[t] & kLast);
        for (Index block = unit.first_block; block < unit.last_block; ++block) {
            const Index column = block * kWidth, lanes = scan.channels - column;
            const Index at = ((block - unit.first_block) * kBackwardChunk + t) * kWidth;
            if (read) {
                Vec dy = load_row(scan.grad_y + row * scan.grad_y_stride + column, lanes);
                if (scan.z) {
                    const Vec z = load_row(scan.z + row * scan.z_stride + column, lanes);
                    dy = dy * (z * sigmoid(z));
                }
                store(scratch.grad_y + at, dy);
            }
            store(scratch.grad_input + at, zero());
            store(scratch.exponent_sum + at, zero());
        }
        row += read;
    }
}

// The gradient of z from that of y · SiLU(z).
static inline Vec gate_gradient(const Scan &scan, Index row, Index column, Vec y) {
    const Index lanes = scan.channels - column;
    const Vec z = load_row(scan.z + row * scan.z_stride + column, lanes), s = sigmoid(z);
    return load_row(scan.grad_y + row * scan.grad_y_stride + column, lanes) * y *
           fma(z * s, broadcast(1.0f) - s, s);
}

static inline void add_to(float *sum, Vec v) { store(sum, load(sum) + v); }

// The gradients that are not sums over channels, from the sums over states.
static inline void finish_chunk(const Scan &scan, const Unit &unit, const BackwardScratch &scratch,
                                const BackwardChunk &chunk) {
    const Vec ln2 = broadcast(0.693147180559945309417f);  // A carries log2(e)
    Index row = scan.last_only ? chunk.sequence : chunk.token;
    for (Index t = 0; t < chunk.steps; ++t) {
        const Index token = chunk.token + t;
        const bool read = !scan.last_only || (chunk.marks[t] & kLast);
        for (Index block = unit.first_block; block < unit.last_block; ++block) {
            const Index column = block * kWidth, lanes = scan.channels - column;
            const Index at = ((block - unit.first_block) * kBackwardChunk + t) * kWidth;
            const Vec x = load_row(scan.x + token * scan.x_stride + column, lanes),
                      dt = load(scratch.dt + at);
            const Vec grad_input = load(scratch.grad_input + at);
            Vec grad_x = grad_input * dt;
            const Index sums = (unit.group * scan.blocks + block) * kWidth;
            if (read) {
                const Vec dy = load(scratch.grad_y + at);
                grad_x = fma(dy, load_row(scan.D + column, lanes), grad_x);
                add_to(scan.grad_D + sums, dy * x);
                if (scan.z)
                    store_row(scan.grad_z + row * scan.channels + column,
                              gate_gradient(scan, row, column, load(scratch.y + at)), lanes);
            }
            store_row(scan.grad_x + token * scan.channels + column, grad_x, lanes);
            Vec grad_dt = fma(grad_input, x, load(scratch.exponent_sum + at) * ln2);
            if (scan.dt_bias) {
                const Vec raw = load_row(scan.dt + token * scan.dt_stride + column, lanes);
                grad_dt = grad_dt * sigmoid(raw + load_row(scan.dt_bias + column, lanes));
                add_to(scan.grad_dt_bias + sums, grad_dt);
            }
            store_row(scan.grad_dt + token * scan.channels + column, grad_dt, lanes);
        }
        row += read;
    }
}

static inline void backward_chunk(const Scan &scan, const Unit &unit,
                                  const BackwardScratch &scratch, const BackwardChunk &chunk) {
    gather_chunk(scan, unit, scratch, chunk);
    Index s = 0;
    for (; s + kGroup <= scan.states; s += kGroup)
        backward_blocks<kGroup>(scan, unit, scratch, chunk, s);
    for (; s < scan.states; ++s) backward_blocks<1>(scan, unit, scratch, chunk, s);
    finish_chunk(scan, unit, scratch, chunk);
}

// The states before each chunk of a long sequence but the first, which are there already where they
// matter.
static inline void find_starts(const Scan &scan, const Unit &unit, BackwardChunk &chunk,
                               Index start, Index length, Index chunks,
                               const BackwardScratch &scratch) {
    const Index blocks = unit.last_block - unit.first_block, block_floats = scan.states * kWidth;
    for (Index i = 0; i + 1 < chunks; ++i) {
        chunk.token = start + i * length;
        chunk.steps = length;
        mark(scan, chunk);
        gather_inputs<kBackwardChunk>(scan, unit, chunk.token, length, scratch.dt, scratch.input,
                                      nullptr);
        float *from = scratch.starts + i * blocks * block_floats,
              *to = from + blocks * block_floats;
        __builtin_memcpy(to, from, sizeof(float) * blocks * block_floats);
        for (Index j = 0; j < blocks; ++j) {
            const Index column = (unit.first_block + j) * kWidth,
                        rows = j * kBackwardChunk * kWidth;
            const Index next = chunk.token + length;
            const ForwardPass pass{length,
                                   chunk.marks,
                                   scratch.dt + rows,
                                   scratch.input + rows,
                                   scan.A + column * scan.states,
                                   scan.B + chunk.token * scan.B_stride,
                                   scan.B + chunk.token * scan.B_stride,
                                   scan.B_stride,
                                   scan.B_stride,
                                   to + j * block_floats,
                                   nullptr};
            const Ahead x{scan.x + next * scan.x_stride + column, scan.x_stride};
            const Ahead dt{scan.dt + next * scan.dt_stride + column, scan.dt_stride};
            forward_states<kReadNothing>(pass, scan.states, {x, dt, x});
        }
    }
}

static void backward(const Scan &scan, const Unit &unit, float *memory) {
    const Index blocks = unit.last_block - unit.first_block, block_floats = scan.states * kWidth;
    const BackwardScratch scratch(memory, blocks, scan.states);
    const Index at = unit.group * scan.blocks + unit.first_block;
    __builtin_memset(scan.grad_A + at * block_floats, 0, sizeof(float) * blocks * block_floats);
    __builtin_memset(scan.grad_D + at * kWidth, 0, sizeof(float) * blocks * kWidth);
    if (scan.dt_bias)
        __builtin_memset(scan.grad_dt_bias + at * kWidth, 0, sizeof(float) * blocks * kWidth);
    BackwardChunk chunk;
    for (Index sequence = unit.first_sequence, count; sequence < unit.last_sequence;
         sequence += count) {
        count = count_sequences(scan, kBackwardChunk, sequence, unit.last_sequence);
        const bool is_long = count == 0;
        if (is_long) count = 1;
        const Index start = scan.cu_seqlens[sequence], end = scan.cu_seqlens[sequence + count];
        // Even pieces: the last, whose end is not needed, should not be the shortest.
        const Index chunks = (end - start + kBackwardChunk - 1) / kBackwardChunk;
        const Index length = (end - start + chunks - 1) / chunks;
        chunk.sequence = sequence;
        if (!starts_fresh(scan)) load_states(scan, unit, sequence, scratch.starts);
        if (is_long) find_starts(scan, unit, chunk, start, length, chunks, scratch);
        for (Index i = chunks - 1; i >= 0; --i) {
            chunk.token = start + i * length;
            chunk.steps = smaller(length, end - chunk.token);
            chunk.starts = scratch.starts + i * blocks * block_floats;
            chunk.next_token = i > 0 ? chunk.token - length : end;
            mark(scan, chunk);
            backward_chunk(scan, unit, scratch, chunk);
        }
    }
}

}  // namespace
}  // namespace m3rec
