// Products of a table of bytes and queries of 16-bit numbers, and the rows whose products are
// largest. Whole numbers, so exact in any order.
#pragma once

#include "kernels.h"

namespace m3rec {
namespace {

// Of equal products that of the lower row is the better.
static inline bool is_better(Product a, Product b) {
    return a.value > b.value || (a.value == b.value && a.row < b.row);
}

// Puts a product in place of the worst of a heap, which is its first.
static inline void replace_worst(Product *heap, Index size, Product product) {
    Index place = 0;
    for (Index child = 1; child < size; child = 2 * place + 1) {
        if (child + 1 < size && is_better(heap[child], heap[child + 1])) ++child;
        if (is_better(heap[child], product)) break;
        heap[place] = heap[child];
        place = child;
    }
    heap[place] = product;
}

// A plain loop that compilers turn into products of pairs.
static inline std::int32_t product(const std::int8_t *bytes, const std::int16_t *query,
                                   Index depth) {
    std::int32_t sum = 0;
    for (Index i = 0; i < depth; ++i) sum += std::int32_t{bytes[i]} * query[i];
    return sum;
}

// The best products of some rows with each query, in heaps that hold products of no row.
static void search_bytes(const ByteSearch &call, Index first, Index last, Product *heaps) {
    constexpr Index kRows = 64;  // which stay in the cache for all queries
    std::int32_t values[kRows];
    for (Index start = first; start < last; start += kRows) {
        const Index rows = last - start < kRows ? last - start : kRows;
        for (Index query = 0; query < call.query_count; ++query) {
            Product *const heap = heaps + query * call.kept;
            const std::int16_t *const numbers = call.queries + query * call.depth;
            const std::uint64_t *const unwanted = call.unwanted + query * call.words;
            for (Index i = 0; i < rows; ++i)
                values[i] = product(call.table + (start + i) * call.depth, numbers, call.depth);
            for (Index i = 0; i < rows; ++i) {
                const Product found{values[i], static_cast<std::int32_t>(start + i)};
                if (values[i] < heap[0].value || !is_better(found, heap[0])) continue;
                if (unwanted[found.row / 64] >> (found.row % 64) & 1) continue;
                replace_worst(heap, call.kept, found);
            }
        }
    }
}

}  // namespace
}  // namespace m3rec
