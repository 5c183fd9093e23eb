// Products of a table of bytes and queries of 16-bit numbers, and the rows whose products are
// largest. Whole numbers, so exact in any order.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace m3rec {
namespace {

// Of equal products that of the lower row is the better.
static inline bool is_better(Product a, Product b) {
    return a.value > b.value || (a.value == b.value && a.row < b.row);
}

static inline void swap(Product &a, Product &b) {
    const Product held = a;
    a = b;
    b = held;
}

// Moves the `kept` best of some products to the front and forgets the others.
static inline void keep_best(BestProducts &best, Index kept) {
    if (best.count <= kept) return;
    Product *const p = best.products;
    // The last of the kept ones is in [first, last]; what is before is better, what is behind not.
    for (Index first = 0, last = best.count - 1; first < last;) {
        swap(p[first + (last - first) / 2], p[last]);
        Index place = first;
        for (Index i = first; i < last; ++i)
            if (is_better(p[i], p[last])) swap(p[i], p[place++]);
        swap(p[place], p[last]);
        if (place == kept - 1) break;
        if (place < kept - 1) first = place + 1;
        else last = place - 1;
    }
    best.count = kept;
    best.beaten = p[kept - 1].value;
}

#if defined(__AVX512BW__)

using Shorts = __m512i;
constexpr Index kShorts = 32, kBlockQueries = 4;

static inline Shorts no_sums() { return _mm512_setzero_si512(); }
static inline Shorts load_shorts(const std::int16_t *p) { return _mm512_loadu_si512(p); }
static inline Shorts widen(const std::int8_t *p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
static inline Shorts add_products(Shorts sum, Shorts a, Shorts b) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
}
static inline std::int32_t total(Shorts sums) { return _mm512_reduce_add_epi32(sums); }

#elif defined(__AVX2__)

using Shorts = __m256i;
constexpr Index kShorts = 16, kBlockQueries = 2;

static inline Shorts no_sums() { return _mm256_setzero_si256(); }
static inline Shorts load_shorts(const std::int16_t *p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
}
static inline Shorts widen(const std::int8_t *p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
static inline Shorts add_products(Shorts sum, Shorts a, Shorts b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
static inline std::int32_t total(Shorts sums) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
}

#else

using Shorts = std::int32_t;
constexpr Index kShorts = 1, kBlockQueries = 1;

static inline Shorts no_sums() { return 0; }
static inline Shorts load_shorts(const std::int16_t *p) { return *p; }
static inline Shorts widen(const std::int8_t *p) { return *p; }
static inline Shorts add_products(Shorts sum, Shorts a, Shorts b) { return sum + a * b; }
static inline std::int32_t total(Shorts sum) { return sum; }

#endif

constexpr Index kBlockRows = 4;
constexpr Index kCachedRows = 64;  // which stay in the cache for all queries

// Products of some rows and queries, y[query][row] of kCachedRows columns.
template <Index rows, Index queries>
static inline void multiply_bytes(const std::int8_t *table, const std::int16_t *query, Index depth,
                                  std::int32_t *y) {
    Shorts sums[rows][queries];
    for (Index r = 0; r < rows; ++r)
        for (Index q = 0; q < queries; ++q) sums[r][q] = no_sums();
    Index i = 0;
    for (; i + kShorts <= depth; i += kShorts) {
        Shorts numbers[queries];
        for (Index q = 0; q < queries; ++q) numbers[q] = load_shorts(query + q * depth + i);
        for (Index r = 0; r < rows; ++r) {
            const Shorts bytes = widen(table + r * depth + i);
            for (Index q = 0; q < queries; ++q)
                sums[r][q] = add_products(sums[r][q], bytes, numbers[q]);
        }
    }
    for (Index r = 0; r < rows; ++r)
        for (Index q = 0; q < queries; ++q) {
            std::int32_t sum = total(sums[r][q]);
            for (Index k = i; k < depth; ++k)
                sum += std::int32_t{table[r * depth + k]} * query[q * depth + k];
            y[q * kCachedRows + r] = sum;
        }
}

template <Index queries>
static inline void search_rows(const ByteSearch &call, Index start, Index rows, Index query,
                               BestProducts *all) {
    std::int32_t values[queries * kCachedRows];
    const std::int8_t *const table = call.table + start * call.depth;
    const std::int16_t *const numbers = call.queries + query * call.depth;
    Index r = 0;
    for (; r + kBlockRows <= rows; r += kBlockRows)
        multiply_bytes<kBlockRows, queries>(table + r * call.depth, numbers, call.depth, values + r);
    for (; r < rows; ++r)
        multiply_bytes<1, queries>(table + r * call.depth, numbers, call.depth, values + r);
    for (Index q = 0; q < queries; ++q) {
        BestProducts &best = all[query + q];
        const std::uint64_t *const unwanted = call.unwanted + (query + q) * call.words;
        for (Index i = 0; i < rows; ++i) {
            const std::int32_t value = values[q * kCachedRows + i];
            if (value <= best.beaten) continue;
            const Index row = start + i;
            if (unwanted[row / 64] >> (row % 64) & 1) continue;
            best.products[best.count++] = {value, static_cast<std::int32_t>(row)};
            if (best.count == 2 * call.kept) keep_best(best, call.kept);
        }
    }
}

// The best products of some rows, ascending, with each query.
static void search_bytes(const ByteSearch &call, Index first, Index last, BestProducts *best) {
    for (Index start = first; start < last; start += kCachedRows) {
        const Index rows = last - start < kCachedRows ? last - start : kCachedRows;
        Index query = 0;
        for (; query + kBlockQueries <= call.query_count; query += kBlockQueries)
            search_rows<kBlockQueries>(call, start, rows, query, best);
        for (; query < call.query_count; ++query) search_rows<1>(call, start, rows, query, best);
    }
    for (Index query = 0; query < call.query_count; ++query) keep_best(best[query], call.kept);
}

}  // namespace
}  // namespace m3rec
