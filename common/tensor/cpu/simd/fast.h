// fast: exponentials without the ends of the range, for loops that they dominate.
//
// About half the instructions of simd.h's functions; the error of each is absolute, below 1e-7 of the largest
// result (relative as well down to 1e-5 of it).
#ifndef COMMON_TENSOR_CPU_SIMD_FAST_H
#define COMMON_TENSOR_CPU_SIMD_FAST_H

#include "common/tensor/cpu/simd/simd.h"

#define FAST_LOG2E 1.44269504088896341f

// Functions with an n work on n vectors at once, step by step: a chain of dependent operations is
// longer than what a core looks ahead. n is a constant where they are inlined.
#define FAST_EACH _Pragma("GCC unroll 4") for (int k = 0; k < n; k++)
enum { FAST_MAX = 4 };

// p = a 2^f and power = 2^n of x = n + f, for x <= 127: 2^n is 0 below -126. Cephes exp2f.
SIMD_INLINE void fast_exp2_parts(int n, vf *p, vf *power, const vf *x, float a) {
    static const float c[] = {1.535336188319500e-4f,
                              1.339887440266574e-3f,
                              9.618437357674640e-3f,
                              5.550332471162809e-2f,
                              2.402264791363012e-1f,
                              6.931472028550421e-1f,
                              1};
    vf magic = vf_set(12582912.0f + 127.0f), f[FAST_MAX]; // 1.5 * 2^23 pushes the fraction out,
    FAST_EACH f[k] = vf_max(vf_set(-127.0f), x[k]);
    FAST_EACH power[k] = f[k] + magic;
    FAST_EACH f[k] -= power[k] - magic;
    FAST_EACH power[k] = (vf)((vi)power[k] << 23); // and leaves the exponent in the last bits
    FAST_EACH p[k] = vf_set(a * c[0]);
#pragma GCC unroll 6
    for (int i = 1; i < 7; i++) FAST_EACH p[k] = vf_fma(p[k], f[k], vf_set(a * c[i]));
}

// 2^x for x <= 127: 0 below -126.
SIMD_INLINE void fast_exp2_low(int n, vf *y, const vf *x) {
    vf power[FAST_MAX], p[FAST_MAX];
    fast_exp2_parts(n, p, power, x, 1);
    FAST_EACH y[k] = p[k] * power[k];
}

// With u = -x log2 e, which saves two products: 1 / (1 + e^-x), and x times that.
SIMD_INLINE void fast_sigmoid_scaled(int n, vf *y, const vf *u) {
    vf power[FAST_MAX], p[FAST_MAX], x[FAST_MAX];
    FAST_EACH x[k] = vf_min(vf_set(127.0f), u[k]);
    fast_exp2_parts(n, p, power, x, 1);
    FAST_EACH y[k] = 1.0f / vf_fma(p[k], power[k], vf_set(1.0f));
}
SIMD_INLINE void fast_silu_scaled(int n, vf *y, const vf *u) {
    vf power[FAST_MAX], p[FAST_MAX], x[FAST_MAX];
    FAST_EACH x[k] = vf_min(vf_set(127.0f), u[k]);
    fast_exp2_parts(n, p, power, x, -FAST_LOG2E);
    FAST_EACH y[k] = u[k] / vf_fma(p[k], power[k], vf_set(-FAST_LOG2E));
}

// 1 / (1 + e^-x)
SIMD_INLINE vf fast_sigmoid(vf x) {
    x *= -FAST_LOG2E;
    fast_sigmoid_scaled(1, &x, &x);
    return x;
}

// The normal distribution function, and e^(-x^2 / 2): cdf(-|x|) = e^(-x^2 / 2) t poly(t), t = 1 / (1 + 0.3 |x|).
// Interpolated at Chebyshev nodes for |x| < 12.5, relative error 7e-8.
SIMD_INLINE void fast_cdf(int n, vf *y, vf *bell, const vf *x) {
    static const float c[] = {0.03778502345085144f,  -0.16599422693252563f, 0.22150228917598724f,
                              -0.06762997061014175f, 0.13594232499599457f,  0.09767606854438782f,
                              0.1211126372218132f,   0.1196058839559555f};
    vf t[FAST_MAX], p[FAST_MAX], power[FAST_MAX], square[FAST_MAX];
    FAST_EACH t[k] = 1.0f / vf_fma(vf_abs(x[k]), vf_set(0.3f), vf_set(1.0f));
    FAST_EACH square[k] = x[k] * x[k] * (-0.5f * FAST_LOG2E);
    fast_exp2_parts(n, p, power, square, 1);
    FAST_EACH bell[k] = p[k] * power[k];
    FAST_EACH p[k] = vf_set(c[0]);
#pragma GCC unroll 8
    for (int i = 1; i < 8; i++) FAST_EACH p[k] = vf_fma(p[k], t[k], vf_set(c[i]));
    FAST_EACH p[k] *= bell[k] * t[k];
    FAST_EACH y[k] = vf_select(x[k] > 0.0f, 1.0f - p[k], p[k]);
}

#endif
