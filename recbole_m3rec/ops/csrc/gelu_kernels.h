// GELU, x Phi(x) with the normal distribution's Phi, and dropout behind it, in one pass each way.
#pragma once

#include "dropout_kernels.h"

namespace m3rec {
namespace {

// Phi(-t) = exp(-t^2 / 2) u (c0 + u (c1 + ...)) with u = 1 / (1 + 0.3 t) for t >= 0: 4e-8 relative
// to Phi(-t) for t < 4, where it counts. The gradient needs the same exponential.
constexpr float kNormalScale = 0.3f;
constexpr float kNormal[8] = {0.11962627619504929f,  0.12084321677684784f, 0.09915134310722351f,
                              0.1315968930721283f,   -0.060186225920915604f, 0.21407654881477356f,
                              -0.16199328005313873f, 0.036885231733322144f};

// Phi(x) and exp(-x^2 / 2); NaN stays NaN in both.
static inline Vec normal(Vec x, Vec *bell) {
    const Vec one = broadcast(1.0f), t = larger(x, zero() - x);
    const Vec u = one / fma(t, broadcast(kNormalScale), one);
    Vec p = broadcast(kNormal[7]);
    for (int i = 6; i >= 0; --i) p = fma(p, u, broadcast(kNormal[i]));
    *bell = exp2(x * (x * broadcast(-0.72134752044448170368f)));
    const Vec tail = p * u * *bell;
    return where_positive(x, one - tail, tail);
}

static void gelu_drop(const Dropout &call, Index first, Index last) {
    const Vec scale = broadcast(call.mask.scale);
    drop_with(call, first, last, [scale](Vec x, Index, Index) {
        Vec bell;
        return x * scale * normal(x, &bell);
    });
}

// d gelu / dx = Phi(x) + x phi(x).
static void gelu_drop_back(const Dropout &call, Index first, Index last) {
    const Vec scale = broadcast(call.mask.scale);
    const float *const grad_y = call.grad_y;
    drop_with(call, first, last, [scale, grad_y](Vec x, Index i, Index lanes) {
        Vec bell;
        const Vec below = normal(x, &bell);
        const Vec slope = fma(x * broadcast(0.39894228040143267794f), bell, below);
        return load_row(grad_y + i, lanes) * scale * slope;
    });
}

}  // namespace
}  // namespace m3rec
