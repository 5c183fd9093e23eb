// Products of a tall matrix with a small one: a tile of rows and vectors of columns is summed in
// registers, one operand broadcast value by value, the other read in vectors.
#pragma once

#include "vector.h"

namespace m3rec {
namespace {

#if defined(__AVX512F__)
constexpr Index kTileRows = 6, kTileVectors = 4;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr Index kTileRows = 4, kTileVectors = 2;
#else
constexpr Index kTileRows = 2, kTileVectors = 2;
#endif

// c += sum over k of a[i a_row + k a_step] b[k b_step + j]; c has rows of c_stride.
template <Index kRows, Index kVectors>
static void tile(const float *a, Index a_row, Index a_step, const float *b, Index b_step,
                 Index depth, float *c, Index c_stride) {
    Vec sum[kRows][kVectors];
    for (Index i = 0; i < kRows; ++i)
        for (Index j = 0; j < kVectors; ++j) sum[i][j] = load(c + i * c_stride + j * kWidth);
    for (Index k = 0; k < depth; ++k, a += a_step, b += b_step) {
        Vec right[kVectors];
        for (Index j = 0; j < kVectors; ++j) right[j] = load(b + j * kWidth);
        for (Index i = 0; i < kRows; ++i) {
            const Vec left = broadcast(a[i * a_row]);
            for (Index j = 0; j < kVectors; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
        }
    }
    for (Index i = 0; i < kRows; ++i)
        for (Index j = 0; j < kVectors; ++j) store(c + i * c_stride + j * kWidth, sum[i][j]);
}

using Tile = void (*)(const float *, Index, Index, const float *, Index, Index, float *, Index);

template <Index kRows, Index kVectors>
static inline Tile tile_of(Index rows, Index vectors) {
    if constexpr (kVectors > 1)
        if (vectors < kVectors) return tile_of<kRows, kVectors - 1>(rows, vectors);
    if constexpr (kRows > 1)
        if (rows < kRows) return tile_of<kRows - 1, kVectors>(rows, vectors);
    return tile<kRows, kVectors>;
}

// c += a b for any number of rows and whole vectors of columns.
static inline void multiply(const float *a, Index a_row, Index a_step, Index rows, const float *b,
                            Index b_step, Index vectors, Index depth, float *c, Index c_stride) {
    for (Index i = 0; i < rows; i += kTileRows) {
        const Index here = rows - i < kTileRows ? rows - i : kTileRows;
        tile_of<kTileRows, kTileVectors>(here, vectors)(a + i * a_row, a_row, a_step, b, b_step,
                                                        depth, c + i * c_stride, c_stride);
    }
}

// Some rows of y = x right + bias; right is cut into panels of kTileVectors vectors.
static void matmul(const Matmul &call, Index first_row, Index last_row) {
    constexpr Index kPanel = kTileVectors * kWidth, kRows = kTileRows * 16;
    for (Index row = first_row; row < last_row; row += kRows) {
        const Index rows = last_row - row < kRows ? last_row - row : kRows;
        for (Index column = 0; column < call.columns; column += kPanel) {
            const Index left = call.columns - column, width = left < kPanel ? left : kPanel;
            const Index vectors = (width + kWidth - 1) / kWidth, padded = vectors * kWidth;
            const float *const panel = call.right + column * call.depth;
            float *const y = call.y + row * call.columns + column;
            float edge[kRows * kPanel];
            const bool whole = width == padded;
            float *const out = whole ? y : edge;
            const Index stride = whole ? call.columns : padded;
            for (Index i = 0; i < rows; ++i)
                for (Index j = 0; j < padded; j += kWidth)
                    store(out + i * stride + j, call.bias ? load(call.bias + column + j) : zero());
            multiply(call.x + row * call.x_stride, call.x_stride, 1, rows, panel, padded, vectors,
                     call.depth, out, stride);
            if (whole) continue;
            for (Index i = 0; i < rows; ++i)
                for (Index j = 0; j < padded; j += kWidth)
                    store_row(y + i * call.columns + j, load(edge + i * padded + j), width - j);
        }
    }
}

// A unit's part of y^T x [columns of y, columns of x] and of the sum of y's rows, which it adds to.
static void matmul_back(const Matmul &call, Index first_row, Index last_row, float *sums) {
    constexpr Index kPanel = kTileVectors * kWidth, kRows = 128;
    const Index columns = call.columns, depth = call.depth;
    float *const bias = sums + columns * depth;
    for (Index row = first_row; row < last_row; row += kRows) {
        const Index rows = last_row - row < kRows ? last_row - row : kRows;
        const float *const y = call.y + row * columns, *const x = call.x + row * call.x_stride;
        for (Index column = 0; column < depth; column += kPanel) {
            const Index left = depth - column, width = left < kPanel ? left : kPanel;
            multiply(y, 1, columns, columns, x + column, call.x_stride, width / kWidth, rows,
                     sums + column, depth);
        }
        for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < columns; j += kWidth)
                store_row(bias + j,
                          load_row(bias + j, columns - j) + load_row(y + i * columns + j, columns - j),
                          columns - j);
    }
}

}  // namespace
}  // namespace m3rec
