// How the kernels walk over packed sequences: in chunks of tokens that fit into the nearest caches.
//
// A chunk is either some whole sequences or a part of one that is longer than a chunk. Either way
// its tokens lie side by side and are gone through as one time line, on which marks tell where
// sequences begin and end: short sequences cost no more per token than long ones.
#pragma once

#include "vector.h"

// The loops over a group of states must be unrolled early for their arrays to be kept in registers.
#if defined(__clang__)
#define M3REC_UNROLL _Pragma("unroll")
#else
#define M3REC_UNROLL _Pragma("GCC unroll 8")
#endif

namespace m3rec {
namespace {

static inline Index smaller(Index a, Index b) { return a < b ? a : b; }

constexpr Index kLongestChunk = kForwardChunk > kBackwardChunk ? kForwardChunk : kBackwardChunk;
constexpr unsigned char kFirst = 1;  // first token of its sequence, with no state before it
constexpr unsigned char kLast = 2;   // last token of its sequence

struct Chunk {
    Index token, steps;
    Index sequence;  // of the first token
    unsigned char marks[kLongestChunk];
};

// Whether sequences start from nothing, so that several may share a chunk and no first decay is
// computed.
static inline bool starts_fresh(const Scan &scan) {
    return scan.initial_state == nullptr && !scan.decay_first;
}

static inline void mark(const Scan &scan, Chunk &chunk) {
    const bool fresh = starts_fresh(scan);
    Index sequence = chunk.sequence;
    for (Index t = 0; t < chunk.steps; ++t) {
        const Index token = chunk.token + t;
        const bool first = token == scan.cu_seqlens[sequence],
                   last = token + 1 == scan.cu_seqlens[sequence + 1];
        chunk.marks[t] =
            static_cast<unsigned char>((first && fresh ? kFirst : 0) | (last ? kLast : 0));
        sequence += last;
    }
}

// How many sequences from `first` on (at most up to `end`) make up a chunk; 0 if the first is too
// long. With states to load or store a chunk has one only.
static inline Index count_sequences(const Scan &scan, Index capacity, Index first, Index end) {
    const Index most = starts_fresh(scan) && scan.last_state == nullptr ? end - first : 1;
    Index count = 0;
    while (count < most && scan.cu_seqlens[first + count + 1] - scan.cu_seqlens[first] <= capacity)
        ++count;
    return count;
}

// A column of one block that will be needed soon. Whole rows come from far away and at once; asking
// for them here and there during the arithmetic hides that.
struct Ahead {
    const float *first;
    Index stride;

    void fetch(Index t) const { __builtin_prefetch(first + t * stride); }
};

// Step sizes of a token: what dt holds, or softplus of it and the bias.
static inline Vec step_sizes(const Scan &scan, Index token, Index column) {
    const Index lanes = scan.channels - column;
    const Vec dt = load_row(scan.dt + token * scan.dt_stride + column, lanes);
    return scan.dt_bias ? softplus(dt + load_row(scan.dt_bias + column, lanes)) : dt;
}

// The operands of a chunk, copied into [block][kCapacity][lane]: dt, dt x and, unless null, D x.
// Rows of a token-major matrix lie a power of two apart, so that one block's part of them would
// fall into the same few cache sets.
template <Index kCapacity>
static inline void gather_inputs(const Scan &scan, const Unit &unit, Index token, Index steps,
                                 float *dt, float *input, float *skip) {
    for (Index t = 0; t < steps; ++t) {
        const float *x_row = scan.x + (token + t) * scan.x_stride;
        for (Index block = unit.first_block; block < unit.last_block; ++block) {
            const Index column = block * kWidth, lanes = scan.channels - column;
            const Index at = ((block - unit.first_block) * kCapacity + t) * kWidth;
            const Vec d = step_sizes(scan, token + t, column), x = load_row(x_row + column, lanes);
            store(dt + at, d);
            store(input + at, d * x);
            if (skip != nullptr) store(skip + at, load_row(scan.D + column, lanes) * x);
        }
    }
}

// One block's state between [channels, states] and [state][lane].
static inline void load_state(const Scan &scan, const float *rows, Index block, float *state) {
    const Index lanes = smaller(kWidth, scan.channels - block * kWidth);
    for (Index s = 0; s < scan.states; ++s) store(state + s * kWidth, zero());
    if (rows == nullptr) return;
    rows += block * kWidth * scan.states;
    for (Index lane = 0; lane < lanes; ++lane)
        for (Index s = 0; s < scan.states; ++s)
            state[s * kWidth + lane] = rows[lane * scan.states + s];
}

static inline void store_state(const Scan &scan, const float *state, Index block, float *rows) {
    const Index lanes = smaller(kWidth, scan.channels - block * kWidth);
    rows += block * kWidth * scan.states;
    for (Index lane = 0; lane < lanes; ++lane)
        for (Index s = 0; s < scan.states; ++s)
            rows[lane * scan.states + s] = state[s * kWidth + lane];
}

// The states of all the unit's blocks before a sequence's first token.
static inline void load_states(const Scan &scan, const Unit &unit, Index sequence, float *states) {
    const float *rows =
        scan.initial_state ? scan.initial_state + sequence * scan.channels * scan.states : nullptr;
    for (Index block = unit.first_block; block < unit.last_block; ++block)
        load_state(scan, rows, block, states + (block - unit.first_block) * scan.states * kWidth);
}

}  // namespace
}  // namespace m3rec
