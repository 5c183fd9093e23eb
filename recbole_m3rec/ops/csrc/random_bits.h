// Which elements a dropout keeps: a counter-based generator (Philox4x32-10; Salmon et al., "Parallel
// random numbers: as easy as 1, 2, 3"), so that any piece of a mask can be drawn by any thread, and
// drawn again in the backward pass.
//
// 64 consecutive elements, a tile, use the counters 8 tile to 8 tile + 7, each of which gives four
// words of 32 bits. Element e of the tile looks at word 2 (e / 32) + e % 2 of counter e % 16 / 2, at
// its low 16 bits where e / 16 is even and at its high ones otherwise, and is kept if they are less
// than 65536 times the probability. Every instruction set draws the same bits.
#pragma once

#include "vector.h"

namespace m3rec {
namespace {

constexpr Index kTile = 64;
constexpr std::uint32_t kPhilox[2] = {0xD2511F53u, 0xCD9E8D57u};  // multipliers
constexpr std::uint32_t kWeyl[2] = {0x9E3779B9u, 0xBB67AE85u};    // steps of the keys

#if defined(__AVX512F__)

constexpr int kLanes = 8;  // counters side by side, each in the lower half of 64 bits
using Words = __m512i;
using Keep = __mmask16;

static inline Words words(std::uint64_t v) {
    return _mm512_set1_epi64(static_cast<long long>(v));
}
static inline Words counters(std::uint64_t first) {
    return _mm512_add_epi64(words(first), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline Words product(Words a, Words b) { return _mm512_mul_epu32(a, b); }
static inline Words upper(Words v) { return _mm512_srli_epi64(v, 32); }
static inline Words xor3(Words a, Words b, Words c) {
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

// For the words low[0], high[0], low[1], ...: whether their low, and their high, 16 bits are less
// than the threshold; 16 bits each.
static inline std::uint32_t less(Words low, Words high, std::uint32_t threshold) {
    const Words pairs = _mm512_mask_blend_epi32(0xAAAA, low, _mm512_slli_epi64(high, 32));
    const Words limit = _mm512_set1_epi32(static_cast<int>(threshold));
    const Words first = _mm512_and_si512(pairs, _mm512_set1_epi32(0xFFFF));
    const std::uint32_t even = _mm512_cmplt_epi32_mask(first, limit);
    return even |
           static_cast<std::uint32_t>(_mm512_cmplt_epi32_mask(_mm512_srli_epi32(pairs, 16), limit))
               << 16;
}

static inline Keep lanes_of(std::uint32_t bits) { return static_cast<Keep>(bits); }
static inline Vec select(Keep keep, Vec v) { return _mm512_maskz_mov_ps(keep, v); }

#elif defined(__AVX2__) && defined(__FMA__)

constexpr int kLanes = 4;
using Words = __m256i;
using Keep = __m256;

static inline Words words(std::uint64_t v) {
    return _mm256_set1_epi64x(static_cast<long long>(v));
}
static inline Words counters(std::uint64_t first) {
    return _mm256_add_epi64(words(first), _mm256_setr_epi64x(0, 1, 2, 3));
}
static inline Words product(Words a, Words b) { return _mm256_mul_epu32(a, b); }
static inline Words upper(Words v) { return _mm256_srli_epi64(v, 32); }
static inline Words xor3(Words a, Words b, Words c) {
    return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
}
static inline std::uint32_t less(Words low, Words high, std::uint32_t threshold) {
    const Words pairs = _mm256_blend_epi32(low, _mm256_slli_epi64(high, 32), 0xAA);
    const Words limit = _mm256_set1_epi32(static_cast<int>(threshold));
    const Words first = _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF));
    const Words even = _mm256_cmpgt_epi32(limit, first),
                odd = _mm256_cmpgt_epi32(limit, _mm256_srli_epi32(pairs, 16));
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(even))) |
           static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(odd))) << 16;
}

static inline Keep lanes_of(std::uint32_t bits) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i all = _mm256_set1_epi32(static_cast<int>(bits));
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, lane), lane));
}
static inline Vec select(Keep keep, Vec v) { return _mm256_and_ps(keep, v); }

#else

constexpr int kLanes = 2;
typedef std::uint64_t Words __attribute__((vector_size(16)));
using Keep = IntVec;

static inline Words words(std::uint64_t v) { return Words{v, v}; }
static inline Words counters(std::uint64_t first) { return Words{first, first + 1}; }
static inline Words product(Words a, Words b) {
#if defined(__SSE2__)
    return (Words)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}
static inline Words upper(Words v) { return v >> 32; }
static inline Words xor3(Words a, Words b, Words c) { return a ^ b ^ c; }
static inline std::uint32_t less(Words low, Words high, std::uint32_t threshold) {
    std::uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) {
        const auto word = static_cast<std::uint32_t>(i % 2 ? high[i / 2] : low[i / 2]);
        bits |= static_cast<std::uint32_t>((word & 0xFFFFu) < threshold) << i |
                static_cast<std::uint32_t>(word >> 16 < threshold) << (i + 16);
    }
    return bits;
}

static inline Keep lanes_of(std::uint32_t bits) {
    const IntVec lane = {1, 2, 4, 8};
    const auto all = static_cast<std::int32_t>(bits);
    return (IntVec{all, all, all, all} & lane) == lane;
}
static inline Vec select(Keep keep, Vec v) { return (Vec)((IntVec)v & keep); }

#endif

// The masks of some tiles, 64 bits each. The upper halves of the lanes hold rubbish that no product
// looks at.
static void draw_masks(const Mask &mask, Index first_tile, Index tiles, std::uint64_t *out) {
    const Words multiplier0 = words(kPhilox[0]), multiplier1 = words(kPhilox[1]);
    for (Index tile = 0; tile < tiles; ++tile) {
        std::uint64_t bits = 0;
        for (int lane = 0; lane < 8; lane += kLanes) {
            const auto counter = static_cast<std::uint64_t>(8 * (first_tile + tile) + lane);
            Words c0 = counters(counter), c1 = upper(c0), c2 = words(0), c3 = words(0);
            auto key0 = static_cast<std::uint32_t>(mask.seed),
                 key1 = static_cast<std::uint32_t>(mask.seed >> 32);
            for (int round = 0; round < 10; ++round, key0 += kWeyl[0], key1 += kWeyl[1]) {
                const Words p0 = product(c0, multiplier0), p1 = product(c2, multiplier1);
                c0 = xor3(upper(p1), c1, words(key0)), c1 = p1;
                c2 = xor3(upper(p0), c3, words(key1)), c3 = p0;
            }
            bits |= static_cast<std::uint64_t>(less(c0, c1, mask.threshold)) << 2 * lane |
                    static_cast<std::uint64_t>(less(c2, c3, mask.threshold)) << (32 + 2 * lane);
        }
        out[tile] = bits;
    }
}

// The vector of elements that starts at any place of drawn masks, of which 4 more bytes can be
// read.
static inline Keep kept(const std::uint64_t *masks, Index element) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, reinterpret_cast<const char *>(masks) + element / 8, sizeof bits);
    return lanes_of(bits >> element % 8);
}

}  // namespace
}  // namespace m3rec
