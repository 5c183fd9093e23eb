// One vector of floats, in the widest form that the compiler flags of the including file allow.
// Everything is static: the same names mean other instructions in another file.
#pragma once

#include "kernels.h"

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#endif

namespace m3rec {
namespace {

// 2^u is made of 2^n for an integer n, of 2^(k/N) from a table that fits into one register, and of
// 2^r = 1 + r (c1 + r (c2 + ...)) for the small rest r. Coefficients are minimax for the relative
// error with 2^0 = 1 kept exact: a decay close to 1 must not be biased, for it is taken to high
// powers.

// artanh(s) / s = 1 + s^2 (c1 + s^2 (c2 + ...)) for s <= 1/3.
constexpr float kArtanh[4] = {0.3333320915699005f, 0.2001076340675354f, 0.14000903069972992f,
                              0.1400599479675293f};

// |r| <= 1/2, no table: 2e-9 before rounding.
constexpr float kExp2[6] = {0.6931471824645996f,  0.24022647738456726f,   0.055503323674201965f,
                            0.00961843691766262f, 0.0013398875016719103f, 0.00015353361959569156f};

#if defined(__AVX512F__)

using Vec = __m512;
constexpr Index kWidth = 16;
constexpr Index kGroup = 4;

static inline Vec load(const float *p) { return _mm512_loadu_ps(p); }
static inline void store(float *p, Vec v) { _mm512_storeu_ps(p, v); }
static inline Vec broadcast(float v) { return _mm512_set1_ps(v); }
static inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline Vec larger(Vec a, Vec b) { return _mm512_max_ps(a, b); }  // b if either is NaN

// |r| <= 1/32: 1e-9 before rounding.
constexpr float kSmallExp2[3] = {0.6931471824645996f, 0.24023428559303284f, 0.05550234392285347f};
alignas(64) constexpr float kSixteenths[16] = {1.0f,        1.04427373f, 1.09050775f, 1.13878858f,
                                               1.18920708f, 1.24185777f, 1.29683959f, 1.35425556f,
                                               1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f,
                                               1.68179286f, 1.75625217f, 1.8340081f,  1.91520655f};

// 2^u. `sum` has the sixteenths of u in its low bits; the permutation looks at the lowest four.
// reduce keeps NaN and maps both infinities to 0; scalef takes 2^floor(n), and overflows and
// underflows by itself.
static inline Vec exp2(Vec u) {
    constexpr int kToSixteenths = (4 << 4) | _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    const Vec r = _mm512_reduce_ps(u, kToSixteenths), n = _mm512_roundscale_ps(u, kToSixteenths);
    const Vec sum = u + broadcast(12582912.0f / 16);
    const Vec root = _mm512_permutexvar_ps(_mm512_castps_si512(sum), _mm512_load_ps(kSixteenths));
    Vec p = fma(broadcast(kSmallExp2[2]), r, broadcast(kSmallExp2[1]));
    p = fma(p, r, broadcast(kSmallExp2[0]));
    return _mm512_scalef_ps(fma(p, root * r, root), n);
}

// Sums over the lanes of four vectors.
static inline void sum_lanes4(Vec a, Vec b, Vec c, Vec d, float *out) {
    const Vec ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const Vec cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const Vec abcd =
        _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    const __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
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
static inline Vec larger(Vec a, Vec b) { return _mm256_max_ps(a, b); }  // b if either is NaN

// |r| <= 1/16: 3e-8 before rounding.
constexpr float kSmallExp2[3] = {0.6931472420692444f, 0.2402576357126236f, 0.0554962232708931f};
// The bits of 2^(k/8 - 1), less k in the place where `sum` below adds it.
alignas(32) constexpr std::int32_t kEighths[8] = {0x3f000000, 0x3efb95c2, 0x3ef837f0, 0x3ef5fed7,
                                                  0x3ef504f3, 0x3ef5672a, 0x3ef744fd, 0x3efac0c7};

// 2^u. min and max return their second operand when one is NaN, which keeps it. `sum` has the
// eighths of u in its low bits: the permutation looks at the lowest three, and shifted they are the
// exponent and these three. Twice 2^(u - 1) reaches up to the largest float; what is below 2^-126
// becomes 0.
static inline Vec exp2(Vec u) {
    u = _mm256_min_ps(broadcast(128.5f), _mm256_max_ps(broadcast(-126.0f), u));
    const Vec magic = broadcast(12582912.0f / 8), sum = u + magic, r = u - (sum - magic);
    const __m256i eighths = _mm256_castps_si256(sum);
    const __m256i table =
        _mm256_permutevar8x32_epi32(_mm256_load_si256((const __m256i *)kEighths), eighths);
    const Vec root = _mm256_castsi256_ps(_mm256_add_epi32(table, _mm256_slli_epi32(eighths, 20)));
    Vec p = fma(broadcast(kSmallExp2[2]), r, broadcast(kSmallExp2[1]));
    p = fma(p, r, broadcast(kSmallExp2[0]));
    p = fma(p, root * r, root);
    return p + p;
}

static inline void sum_lanes4(Vec a, Vec b, Vec c, Vec d, float *out) {
    const Vec ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const Vec cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const Vec abcd =
        _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
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
static inline Vec larger(Vec a, Vec b) {  // b if either is NaN
    const IntVec first = a > b;
    return (Vec)(((IntVec)a & first) | ((IntVec)b & ~first));
}

// 2^u, as for AVX2. Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, which the low
// bits of the sum hold.
static inline Vec exp2(Vec u) {
    const Vec low = broadcast(-126.0f), high = broadcast(129.0f), magic = broadcast(12582912.0f);
    const IntVec below = u<low, above = u> high;  // both false for NaN, which is kept
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

static inline Vec sigmoid(Vec v) {
    return broadcast(1.0f) / (broadcast(1.0f) + exp2(v * broadcast(-1.44269504088896340736f)));
}

// max(v, 0) + log(1 + w) with w = exp(-|v|). log(1 + w) = 2 artanh(w / (2 + w)) keeps its relative
// precision where w is small; minimax in the square, 2e-8 before rounding.
static inline Vec softplus(Vec v) {
    const Vec magnitude = larger(v, zero() - v);
    const Vec w = exp2(magnitude * broadcast(-1.44269504088896340736f));
    const Vec s = w / (w + broadcast(2.0f)), square = s * s;
    Vec p = fma(broadcast(kArtanh[3]), square, broadcast(kArtanh[2]));
    p = fma(p, square, broadcast(kArtanh[1]));
    p = fma(p, square, broadcast(kArtanh[0]));
    return larger(zero(), v) + fma(p * square, s + s, s + s);
}

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
