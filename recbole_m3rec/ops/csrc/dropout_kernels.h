// Dropout: y = x scale where the element is kept, else 0. The backward pass is the same.
#pragma once

#include "random_bits.h"

namespace m3rec {
namespace {

// y = function(x, number of the first lane's element, lanes left) where kept, else 0. Any range of
// elements that starts at a tile can be done alone.
template <typename Function>
static inline void drop_with(const Dropout &call, Index first, Index last, Function function) {
    constexpr Index kTiles = 16;  // drawn at a time
    std::uint64_t masks[kTiles + 1];
    for (; first < last; first += kTiles * kTile) {
        const Index here = last - first < kTiles * kTile ? last - first : kTiles * kTile;
        draw_masks(call.mask, first / kTile, (here + kTile - 1) / kTile, masks);
        for (Index i = 0; i < here; i += kWidth) {
            const Vec x = load_row(call.x + first + i, here - i);
            store_row(call.y + first + i, select(kept(masks, i), function(x, first + i, here - i)),
                      here - i);
        }
    }
}

static void drop(const Dropout &call, Index first, Index last) {
    const Vec scale = broadcast(call.mask.scale);
    drop_with(call, first, last, [scale](Vec x, Index, Index) { return x * scale; });
}

}  // namespace
}  // namespace m3rec
