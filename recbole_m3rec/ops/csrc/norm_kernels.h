// Layer norm over the rows of h = dropout(x) + residual, and its backward pass, which makes h and
// its mean and deviation anew.
#pragma once

#include "random_bits.h"

namespace m3rec {
namespace {

// Rows whose masks are drawn at a time.
constexpr Index kNormRows = 16;

static inline Index mask_floats(Index columns) {  // 64-bit words, a spare one, whole cache lines
    return (2 * (kNormRows * columns / kTile + 3) + 15) / 16 * 16;
}
static Index norm_scratch(const Norm &call) {
    return mask_floats(call.columns) + 2 * call.blocks * kWidth;
}

static inline float sum_lanes(Vec v) {
    float sums[4];
    sum_lanes4(v, zero(), zero(), zero(), sums);
    return sums[0];
}

// What a row's normalised values are made of: (h - shift - mean) rstd.
struct Row {
    float mean, rstd;
};

// Makes a row of h, less its first value: a constant row is exactly 0 then, which an eps of 1e-12
// asks for. Lanes beyond the last column are 0. Two passes, for the sake of rows whose mean is
// large beside their deviation.
template <Index kBlocks>
static inline Row centre(const Norm &call, Index row, const std::uint64_t *masks, Index first_bit,
                         float *h) {
    const Index blocks = kBlocks ? kBlocks : call.blocks, columns = call.columns;
    const float *const x = call.x + row * columns;
    const float *const residual = call.residual ? call.residual + row * columns : nullptr;
    const Vec scale = broadcast(call.mask.scale);
    for (Index block = 0; block < blocks; ++block) {
        const Index column = block * kWidth, lanes = columns - column;
        Vec v = load_row(x + column, lanes);
        if (masks != nullptr) v = select(kept(masks, first_bit + column), v * scale);
        if (residual != nullptr) v = v + load_row(residual + column, lanes);
        store(h + column, v);
    }
    const float inverse = 1.0f / static_cast<float>(columns);
    const Vec shift = broadcast(h[0]);
    Vec sum = zero();
    for (Index block = 0; block < blocks; ++block) {
        const Index column = block * kWidth;
        const Vec v = select(lanes_within(columns - column), load(h + column) - shift);
        store(h + column, v);
        sum = sum + v;
    }
    Row found;
    found.mean = sum_lanes(sum) * inverse;
    const Vec mean = broadcast(found.mean);
    Vec squares = zero();
    for (Index block = 0; block < blocks; ++block) {
        const Index column = block * kWidth;
        const Vec v = select(lanes_within(columns - column), load(h + column) - mean);
        store(h + column, v);
        squares = fma(v, v, squares);
    }
    found.rstd = 1.0f / __builtin_sqrtf(sum_lanes(squares) * inverse + call.eps);
    return found;
}

template <Index kBlocks>
static inline void norm_row(const Norm &call, Index row, const std::uint64_t *masks,
                            Index first_bit, float *h) {
    const Index blocks = kBlocks ? kBlocks : call.blocks;
    const Vec rstd = broadcast(centre<kBlocks>(call, row, masks, first_bit, h).rstd);
    float *const y = call.y + row * call.columns;
    for (Index block = 0; block < blocks; ++block) {
        const Index column = block * kWidth;
        store_row(y + column,
                  fma(load(h + column) * rstd, load(call.weight + column),
                      load(call.bias + column)),
                  call.columns - column);
    }
}

// With n = (h - mean) rstd and g = grad_y weight: grad_h = rstd (g - mean(g) - n mean(g n)).
template <Index kBlocks>
static inline void norm_row_back(const Norm &call, Index row, const std::uint64_t *masks,
                                 Index first_bit, float *h, float *grad_weight) {
    const Index blocks = kBlocks ? kBlocks : call.blocks, columns = call.columns,
                padded = call.blocks * kWidth;
    const float scalar_rstd = centre<kBlocks>(call, row, masks, first_bit, h).rstd;
    const Vec rstd = broadcast(scalar_rstd), scale = broadcast(call.mask.scale);
    const float *const grad_y = call.grad_y + row * columns;
    float *const g = h + padded;
    Vec sum_g = zero(), sum_gn = zero();
    for (Index block = 0; block < blocks; ++block) {
        const Index column = block * kWidth;
        const Vec dy = load_row(grad_y + column, columns - column), n = load(h + column) * rstd;
        float *const dw = grad_weight + column, *const db = dw + padded;
        store(dw, fma(dy, n, load(dw)));
        store(db, load(db) + dy);
        const Vec gb = dy * load(call.weight + column);
        store(h + column, n), store(g + column, gb);
        sum_g = sum_g + gb, sum_gn = fma(gb, n, sum_gn);
    }
    float sums[4];
    sum_lanes4(sum_g, sum_gn, zero(), zero(), sums);
    const float inverse = 1.0f / static_cast<float>(columns);
    const Vec mean_g = broadcast(sums[0] * inverse), mean_gn = broadcast(sums[1] * inverse);
    for (Index block = 0; block < blocks; ++block) {
        const Index column = block * kWidth, lanes = columns - column;
        const Vec dh = rstd * ((load(g + column) - mean_g) - load(h + column) * mean_gn);
        if (call.grad_residual != nullptr)
            store_row(call.grad_residual + row * columns + column, dh, lanes);
        Vec dx = dh;
        if (masks != nullptr) dx = select(kept(masks, first_bit + column), dh * scale);
        store_row(call.grad_x + row * columns + column, dx, lanes);
    }
}

// Calls work(row, masks, number of the row's first bit) for every row.
template <typename Function>
static inline void with_masks(const Norm &call, Index first_row, Index last_row, float *scratch,
                              Function work) {
    auto *const masks = reinterpret_cast<std::uint64_t *>(scratch);
    for (Index row = first_row; row < last_row; row += kNormRows) {
        const Index end = row + kNormRows < last_row ? row + kNormRows : last_row;
        const Index first_tile = row * call.columns / kTile;
        if (call.drop)
            draw_masks(call.mask, first_tile,
                       (end * call.columns + kTile - 1) / kTile - first_tile, masks);
        for (Index r = row; r < end; ++r)
            work(r, call.drop ? masks : nullptr, r * call.columns - first_tile * kTile);
    }
}

static void norm(const Norm &call, Index first_row, Index last_row, float *scratch) {
    float *const h = scratch + mask_floats(call.columns);
    with_masks(call, first_row, last_row, scratch,
               [&](Index row, const std::uint64_t *masks, Index first_bit) {
                   if (call.columns == 64) norm_row<64 / kWidth>(call, row, masks, first_bit, h);
                   else norm_row<0>(call, row, masks, first_bit, h);
               });
}

static void norm_back(const Norm &call, Index unit, Index first_row, Index last_row,
                      float *scratch) {
    const Index padded = call.blocks * kWidth;
    float *const h = scratch + mask_floats(call.columns);
    float *const grad_weight = call.grad_weight + unit * 2 * padded;
    __builtin_memset(grad_weight, 0, sizeof(float) * 2 * padded);
    with_masks(call, first_row, last_row, scratch,
               [&](Index row, const std::uint64_t *masks, Index first_bit) {
                   if (call.columns == 64)
                       norm_row_back<64 / kWidth>(call, row, masks, first_bit, h, grad_weight);
                   else
                       norm_row_back<0>(call, row, masks, first_bit, h, grad_weight);
               });
}

}  // namespace
}  // namespace m3rec
