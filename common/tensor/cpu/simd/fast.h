// fast: exponentials without the ends of the range, for loops that they dominate.
//
// About half the instructions of simd.h's functions; the error of each is absolute, below 1e-7 of the largest
// result (relative as well down to 1e-5 of it).
#ifndef COMMON_TENSOR_CPU_SIMD_FAST_H
#define COMMON_TENSOR_CPU_SIMD_FAST_H

#include "common/tensor/cpu/simd/simd.h"

#define FAST_LOG2E 1.44269504088896341f

// 2^x for x <= 127: 0 below -126. Cephes exp2f.
SIMD_INLINE vf fast_exp2_low(vf x) {
    x = vf_max(vf_set(-127.0f), x);
    vf magic = vf_set(12582912.0f + 127.0f), t = x + magic; // 1.5 * 2^23 pushes the fraction out,
    vf f = x - (t - magic), p = vf_set(1.535336188319500e-4f);
    p = vf_fma(p, f, vf_set(1.339887440266574e-3f));
    p = vf_fma(p, f, vf_set(9.618437357674640e-3f));
    p = vf_fma(p, f, vf_set(5.550332471162809e-2f));
    p = vf_fma(p, f, vf_set(2.402264791363012e-1f));
    p = vf_fma(p, f, vf_set(6.931472028550421e-1f));
    p = vf_fma(p, f, vf_set(1.0f));
    return p * (vf)((vi)t << 23); // and leaves the exponent with its bias in the last bits
}

// 2^x: 0 below -126, 2^127 above 127.
SIMD_INLINE vf fast_exp2(vf x) { return fast_exp2_low(vf_min(vf_set(127.0f), x)); }

// 1 / (1 + e^-x)
SIMD_INLINE vf fast_sigmoid(vf x) { return 1.0f / (1.0f + fast_exp2(x * -FAST_LOG2E)); }

// The normal distribution function, and e^(-x^2 / 2): cdf(-|x|) = e^(-x^2 / 2) t poly(t), t = 1 / (1 + 0.3 |x|).
// Interpolated at Chebyshev nodes for |x| < 12.5, relative error 7e-8.
SIMD_INLINE vf fast_cdf(vf x, vf *bell) {
    vf t = 1.0f / vf_fma(vf_abs(x), vf_set(0.3f), vf_set(1.0f)), p = vf_set(0.03778502345085144f);
    p = vf_fma(p, t, vf_set(-0.16599422693252563f));
    p = vf_fma(p, t, vf_set(0.22150228917598724f));
    p = vf_fma(p, t, vf_set(-0.06762997061014175f));
    p = vf_fma(p, t, vf_set(0.13594232499599457f));
    p = vf_fma(p, t, vf_set(0.09767606854438782f));
    p = vf_fma(p, t, vf_set(0.1211126372218132f));
    p = vf_fma(p, t, vf_set(0.1196058839559555f));
    *bell = fast_exp2_low(x * x * (-0.5f * FAST_LOG2E));
    vf q = *bell * (p * t);
    return vf_select(x > 0.0f, 1.0f - q, q);
}

#endif
