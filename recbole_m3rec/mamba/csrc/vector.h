// One vector of floats, in the widest form that the compiler flags of the including file allow.
// Everything is static: the same names mean other instructions in another file.
#pragma once

#include "kernels.h"

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#endif

namespace m3rec {
namespace {

// 2^r = 1 + r (c1 + r (c2 + ...)) for |r| <= 1/2: minimax of the relative error under the constraint
// 2^0 = 1 (a decay close to 1 must not be biased); 2e-9 before rounding.
constexpr float kExp2[6] = {0.6931471824645996f,   0.24022647738456726f,   0.055503323674201965f,
                            0.00961843691766262f, 0.0013398875016719103f, 0.00015353361959569156f};

#if defined(__AVX512F__)

using Vec = __m512;
constexpr Index kWidth = 16;
constexpr Index kGroup = 4;

static inline Vec load(const float *p) { return _mm512_loadu_ps(p); }
static inline void store(float *p, Vec v) { _mm512_storeu_ps(p, v); }
static inline Vec broadcast(float v) { return _mm512_set1_ps(v); }
static inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }

// 2^u. reduce keeps NaN and maps both infinities to 0; scalef then overflows, underflows and turns
// infinities into inf and 0 by itself.
static inline Vec exp2(Vec u) {
    const Vec r = _mm512_reduce_ps(u, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vec n = _mm512_roundscale_ps(u, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    Vec p = broadcast(kExp2[5]);
    for (int i = 4; i >= 0; --i) p = fma(p, r, broadcast(kExp2[i]));
    p = fma(p, r, broadcast(1.0f));
    return _mm512_scalef_ps(p, n);
}

// Sums over the lanes of four vectors.
static inline void sum_lanes4(Vec a, Vec b, Vec c, Vec d, float *out) {
    const Vec ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const Vec cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const Vec abcd = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

#elif defined(__AVX2__) && defined(__FMA__)

using Vec = __m256;
constexpr Index kWidth = 8;
constexpr Index kGroup = 2;

static inline Vec load(const float *p) { return _mm256_loadu_ps(p); }
static inline void store(float *p, Vec v) { _mm256_storeu_ps(p, v); }
static inline Vec broadcast(float v) { return _mm256_set1_ps(v); }
static inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }

// 2^u. min and max return their second operand when one is NaN, which keeps it. Twice 2^r times
// 2^(n - 1) reaches up to the largest float; what is below 2^-125.5 becomes 0.
static inline Vec exp2(Vec u) {
    u = _mm256_min_ps(broadcast(129.0f), _mm256_max_ps(broadcast(-126.0f), u));
    const Vec n = _mm256_round_ps(u, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vec r = _mm256_sub_ps(u, n);
    Vec p = broadcast(kExp2[5]);
    for (int i = 4; i >= 0; --i) p = fma(p, r, broadcast(kExp2[i]));
    p = fma(p, r, broadcast(1.0f));
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(126));
    return _mm256_mul_ps(_mm256_add_ps(p, p), _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

static inline void sum_lanes4(Vec a, Vec b, Vec c, Vec d, float *out) {
    const Vec ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const Vec cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const Vec abcd = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

#else

// Four lanes in the compilers' own vector type: SSE2 on x86-64, NEON on aarch64, scalars elsewhere.
typedef float Vec __attribute__((vector_size(16)));
typedef std::int32_t IntVec __attribute__((vector_size(16)));
constexpr Index kWidth = 4;
constexpr Index kGroup = 2;

static inline Vec load(const float *p) {
    Vec v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
static inline void store(float *p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }
static inline Vec broadcast(float v) { return Vec{v, v, v, v}; }
static inline Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }

// 2^u, as for AVX2. Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, which the low bits
// of the sum hold.
static inline Vec exp2(Vec u) {
    const Vec low = broadcast(-126.0f), high = broadcast(129.0f), magic = broadcast(12582912.0f);
    const IntVec below = u < low, above = u > high;  // both false for NaN, which is kept
    u = (Vec)(((IntVec)u & ~(below | above)) | ((IntVec)low & below) | ((IntVec)high & above));
    const Vec shifted = u + magic;
    const Vec r = u - (shifted - magic);
    Vec p = broadcast(kExp2[5]);
    for (int i = 4; i >= 0; --i) p = fma(p, r, broadcast(kExp2[i]));
    p = fma(p, r, broadcast(1.0f));
    const IntVec exponent = (IntVec)shifted - ((IntVec)magic - 126);
    return (p + p) * (Vec)(exponent << 23);
}

static inline void sum_lanes4(Vec a, Vec b, Vec c, Vec d, float *out) {
    const Vec v[4] = {a, b, c, d};
    for (int i = 0; i < 4; ++i) out[i] = (v[i][0] + v[i][1]) + (v[i][2] + v[i][3]);
}

#endif

static inline Vec zero() { return broadcast(0.0f); }

// Some channels of a row of a token-major matrix; lanes beyond the last channel are 0.
static inline Vec load_row(const float *p, Index lanes) {
    if (lanes >= kWidth) return load(p);
    float padded[kWidth] = {};
    for (Index i = 0; i < lanes; ++i) padded[i] = p[i];
    return load(padded);
}

static inline void store_row(float *p, Vec v, Index lanes) {
    if (lanes >= kWidth) return store(p, v);
    float padded[kWidth];
    store(padded, v);
    for (Index i = 0; i < lanes; ++i) p[i] = padded[i];
}

}  // namespace
}  // namespace m3rec
