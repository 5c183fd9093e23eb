// Dropout: y = x scale where the element is kept, else 0. The backward pass is the same.
#pragma once

#include "random_bits.h"

namespace m3rec {
namespace {

// Any range of elements that starts at a tile can be done alone.
static void drop(const Dropout &call, Index first, Index last) {
    constexpr Index kTiles = 16;  // drawn at a time
    std::uint64_t masks[kTiles + 1];
    const Vec scale = broadcast(call.mask.scale);
    for (; first < last; first += kTiles * kTile) {
        const Index here = last - first < kTiles * kTile ? last - first : kTiles * kTile;
        draw_masks(call.mask, first / kTile, (here + kTile - 1) / kTile, masks);
        for (Index i = 0; i < here; i += kWidth) {
            const Vec x = load_row(call.x + first + i, here - i);
            store_row(call.y + first + i, select(kept(masks, i), x * scale), here - i);
        }
    }
}

}  // namespace
}  // namespace m3rec
