// The softmax of rows of logits, its loss against one target a row, and the loss's gradient.
#pragma once

#include "vector.h"

namespace m3rec {
namespace {

#if defined(__AVX512F__)

// As many bfloat16 values as a vector has lanes; rounded to the nearest, ties to even, NaN kept.
static inline Vec load_half(const std::uint16_t *p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline void store_half(std::uint16_t *p, Vec v) {
    const __m512i bits = _mm512_castps_si512(v), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_blend_epi32(is_nan, rounded, _mm512_set1_epi32(0x7fc00000));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
}

#else

static inline Vec load_half(const std::uint16_t *p) {
    std::uint32_t bits[kWidth];
    float values[kWidth];
    for (Index i = 0; i < kWidth; ++i) bits[i] = static_cast<std::uint32_t>(p[i]) << 16;
    __builtin_memcpy(values, bits, sizeof values);
    return load(values);
}
static inline void store_half(std::uint16_t *p, Vec v) {
    std::uint32_t bits[kWidth];
    float values[kWidth];
    store(values, v);
    __builtin_memcpy(bits, values, sizeof bits);
    for (Index i = 0; i < kWidth; ++i) {
        const bool is_nan = (bits[i] & 0x7fffffff) > 0x7f800000;
        p[i] = static_cast<std::uint16_t>(
            is_nan ? 0x7fc0 : (bits[i] + 0x7fff + (bits[i] >> 16 & 1)) >> 16);
    }
}

#endif

// Reading and writing a vector's worth of a row, whatever it is kept in; lanes beyond the row's end
// are read as `fill`.
static inline Vec read(const float *p, Index lanes, float fill) {
    if (lanes >= kWidth) return load(p);
    float padded[kWidth];
    for (Index i = 0; i < kWidth; ++i) padded[i] = i < lanes ? p[i] : fill;
    return load(padded);
}
static inline void write(float *p, Index lanes, Vec v) { store_row(p, v, lanes); }

static inline Vec read(const std::uint16_t *p, Index lanes, float fill) {
    if (lanes >= kWidth) return load_half(p);
    float padded[kWidth];
    for (Index i = 0; i < kWidth; ++i) {
        const std::uint32_t bits = static_cast<std::uint32_t>(p[i < lanes ? i : 0]) << 16;
        __builtin_memcpy(padded + i, &bits, sizeof bits);
        if (i >= lanes) padded[i] = fill;
    }
    return load(padded);
}
static inline void write(std::uint16_t *p, Index lanes, Vec v) {
    if (lanes >= kWidth) return store_half(p, v);
    std::uint16_t padded[kWidth];
    store_half(padded, v);
    for (Index i = 0; i < lanes; ++i) p[i] = padded[i];
}

static inline float largest_lane(Vec v) {
    float lanes[kWidth], largest;
    store(lanes, v);
    largest = lanes[0];
    for (Index i = 1; i < kWidth; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
    return largest;
}

// A NaN among the logits may or may not become the largest; it makes the sum NaN either way.
// Exponentials are computed twice: that is cheaper than to write them before their sum is known, and
// bfloat16 is rounded once.
template <typename Value>
static inline void softmax_row(const Softmax &call, Index row) {
    constexpr float kInfinity = __builtin_inff();
    Value *const x = static_cast<Value *>(call.logits) + row * call.columns;
    const Index columns = call.columns, target = call.targets[row];
    Vec highest = broadcast(-kInfinity);
    for (Index i = 0; i < columns; i += kWidth)
        highest = larger(highest, read(x + i, columns - i, -kInfinity));
    const float shift = largest_lane(highest);
    float of_target[kWidth];
    store(of_target, read(x + target, 1, 0.0f));
    const Vec down = broadcast(shift), log2e = broadcast(1.44269504088896340736f);
    double total = 0;
    // Sums of some thousand values stay in float, sums of these in double.
    constexpr Index kStretch = 128 * kWidth;
    for (Index start = 0; start < columns; start += kStretch) {
        const Index end = start + kStretch < columns ? start + kStretch : columns;
        Vec sum = zero();
        for (Index i = start; i < end; i += kWidth) {
            const Vec v = read(x + i, columns - i, -kInfinity);
            sum = sum + exp2((v - down) * log2e);
        }
        float lanes[kWidth];
        store(lanes, sum);
        for (Index i = 0; i < kWidth; ++i) total += lanes[i];
    }
    call.losses[row] = static_cast<float>(__builtin_log(total) - (of_target[0] - shift));
    if (!call.wants_gradient) return;
    const Vec scale = broadcast(static_cast<float>(1 / total));
    for (Index i = 0; i < columns; i += kWidth)
        write(x + i, columns - i,
              exp2((read(x + i, columns - i, 0.0f) - down) * log2e) * scale);
    const float p = static_cast<float>(__builtin_exp(of_target[0] - shift) / total);
    write(x + target, 1, broadcast(p - 1.0f));
}

static void softmax(const Softmax &call, Index first_row, Index last_row) {
    for (Index row = first_row; row < last_row; ++row) {
        if (call.half) softmax_row<std::uint16_t>(call, row);
        else softmax_row<float>(call, row);
    }
}

}  // namespace
}  // namespace m3rec
