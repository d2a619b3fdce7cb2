// simd: one vector type for three instruction sets, and the elementary functions on it.
//
// A file in this folder is compiled with -DSIMD_ISA=avx512, avx2 and base; it works on `vf`, a
// vector of VLEN floats (16, 8, 4), with the operators of C (GCC vector extensions), and names its
// exported functions SIMD(name). Comparisons of vf give vi masks (all bits set or none), used by
// vf_select.
//
//     void SIMD(scale)(float *y, const float *x, float a, int64_t n) {
//         for (int64_t i = 0; i < n; i += VLEN) {
//             int m = vf_left(n - i);                                // lanes left, at most VLEN
//             vf_store_n(y + i, a * vf_load_n(x + i, m), m);
//         }
//     }
//
// Loads and stores need no alignment. vf_fma is fused on avx512 and avx2 and two roundings on base.
// The functions are accurate to about 1e-7 relative, pass NaN through, and expect denormals to be
// flushed (pool.h does that).
#ifndef COMMON_TENSOR_CPU_SIMD_SIMD_H
#define COMMON_TENSOR_CPU_SIMD_SIMD_H

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "common/tensor/cpu/simd/table.h"

#define SIMD_CAT_(a, b) a##_##b
#define SIMD_CAT(a, b) SIMD_CAT_(a, b)
#define SIMD(name) SIMD_CAT(name, SIMD_ISA)
#define SIMD_TEXT_(a) #a
#define SIMD_TEXT(a) SIMD_TEXT_(a)

// What this instruction set's files define: simd.def.
#define SIMD_FN(ret, name, ...) ret SIMD(name)(__VA_ARGS__);
#include "common/tensor/cpu/simd/simd.def"
#undef SIMD_FN

#if defined __AVX512F__
enum { VLEN = 16 };
#elif defined __AVX2__
enum { VLEN = 8 };
#else
enum { VLEN = 4 };
#endif

typedef float vf __attribute__((vector_size(VLEN * 4)));
typedef int32_t vi __attribute__((vector_size(VLEN * 4)));
typedef float vf_unaligned __attribute__((vector_size(VLEN * 4), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(VLEN * 4), aligned(4), may_alias));

#define SIMD_INLINE static inline __attribute__((always_inline, unused))

SIMD_INLINE vf vf_set(float a) {
    return a - (vf){0};
} // a in every lane; a - 0 is a for every a, so it costs nothing
SIMD_INLINE vf vf_load(const float *p) { return *(const vf_unaligned *)p; }
SIMD_INLINE void vf_store(float *p, vf v) { *(vf_unaligned *)p = v; }
// Asks for n vectors that will be needed some hundred cycles from now; they need not exist. Worth its while
// where much arithmetic per element keeps the core from looking ahead far enough.
enum { SIMD_AHEAD = 512 }; // floats, along a plain stream
SIMD_INLINE void vf_prefetch(const float *p, int n) {
#pragma GCC unroll 4
    for (int i = 0; i < n * VLEN; i += 16) __builtin_prefetch(p + i);
}
SIMD_INLINE int vf_left(int64_t n) { return n < VLEN ? (int)n : VLEN; }

// The first n lanes, 0 <= n <= VLEN; the others are 0. Memory past them is not touched.
SIMD_INLINE vf vf_load_n(const float *p, int n) {
    if (__builtin_expect(n == VLEN, 1)) return vf_load(p);
#if defined __AVX512F__
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif defined __AVX2__
    return (vf)_mm256_maskload_ps(p, (__m256i)((vi){0, 1, 2, 3, 4, 5, 6, 7} < n));
#else
    vf v = {0};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
#endif
}
SIMD_INLINE void vf_store_n(float *p, vf v, int n) {
    if (__builtin_expect(n == VLEN, 1)) {
        vf_store(p, v);
        return;
    }
#if defined __AVX512F__
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif defined __AVX2__
    _mm256_maskstore_ps(p, (__m256i)((vi){0, 1, 2, 3, 4, 5, 6, 7} < n), (__m256)v);
#else
    for (int i = 0; i < n; i++) p[i] = v[i];
#endif
}

// a*b + c
SIMD_INLINE vf vf_fma(vf a, vf b, vf c) {
#if defined __AVX512F__
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined __AVX2__
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

SIMD_INLINE vf vf_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }
// Of a NaN and a number, b is returned: vf_max(bound, x) keeps a NaN in x.
SIMD_INLINE vf vf_max(vf a, vf b) {
#if defined __AVX512F__
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined __AVX2__
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return (vf)_mm_max_ps((__m128)a, (__m128)b);
#endif
}
SIMD_INLINE vf vf_min(vf a, vf b) {
#if defined __AVX512F__
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined __AVX2__
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return (vf)_mm_min_ps((__m128)a, (__m128)b);
#endif
}
SIMD_INLINE vf vf_sqrt(vf x) {
#if defined __AVX512F__
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined __AVX2__
    return (vf)_mm256_sqrt_ps((__m256)x);
#else
    return (vf)_mm_sqrt_ps((__m128)x);
#endif
}
SIMD_INLINE vf vf_abs(vf x) { return (vf)((vi)x & 0x7fffffff); }
SIMD_INLINE vf vf_copysign(vf x, vf sign) {
    return (vf)(((vi)x & 0x7fffffff) | ((vi)sign & (vi)(~(vi){0} << 31)));
}

// The sums (or maxima) of lanes i, i + 4, ...: half of the vector on the other half until four are left.
#if defined __AVX512F__
#define VF_FOUR(v, op)                                                      \
    __m256 half = _mm256_##op##_ps(_mm512_castps512_ps256((__m512)(v)),     \
                                   _mm512_extractf32x8_ps((__m512)(v), 1)); \
    __m128 four = _mm_##op##_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1))
#elif defined __AVX2__
#define VF_FOUR(v, op) \
    __m128 four =      \
        _mm_##op##_ps(_mm256_castps256_ps128((__m256)(v)), _mm256_extractf128_ps((__m256)(v), 1))
#else
#define VF_FOUR(v, op) __m128 four = (__m128)(v)
#endif
// Over the lanes, as a balanced tree: the order is fixed for an instruction set.
SIMD_INLINE float vf_sum(vf v) {
    VF_FOUR(v, add);
    four += _mm_movehl_ps(four, four);
    return four[0] + four[1];
}
SIMD_INLINE float vf_max_lane(vf v) {
    VF_FOUR(v, max);
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return four[0] > four[1] ? four[0] : four[1];
}

// ---- 16-bit storage ----------------------------------------------------------------------------

SIMD_INLINE vf vf_load_f16(const uint16_t *p) {
#if defined __AVX512F__
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined __AVX2__
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    vf v;
    for (int i = 0; i < VLEN; i++) v[i] = dtype_f16_to_f32(p[i]);
    return v;
#endif
}
SIMD_INLINE vf vf_load_bf16(const uint16_t *p) {
    vi v;
    for (int i = 0; i < VLEN; i++) v[i] = p[i];
    return (vf)(v << 16);
}
// A float of any storage type at element i of base.
SIMD_INLINE float vf_scalar(const void *base, DType dtype, int64_t i) {
    if (dtype == DTYPE_F32) return ((const float *)base)[i];
    uint16_t bits = ((const uint16_t *)base)[i];
    return dtype == DTYPE_F16 ? dtype_f16_to_f32(bits) : dtype_bf16_to_f32(bits);
}

// ---- Elementary functions ----------------------------------------------------------------------

// x to the nearest integer, as a float in *n and as int32 (|x| < 2^22).
SIMD_INLINE vi vf_round(vf x, vf *n) {
    vf magic = vf_set(12582912.0f); // 1.5 * 2^23: adding it pushes the fraction out
    vf t = x + magic;
    *n = t - magic;
    return (vi)t - (vi)magic;
}

// e^x: 2^n p(r) with |r| <= ln(2)/2; inf above 88.73, 0 below -87.4. Cephes expf.
SIMD_INLINE vf vf_exp(vf x) {
    x = vf_min(vf_set(89.0f), vf_max(vf_set(-89.0f), x));
    vf n;
    vi k = vf_round(x * 1.44269504088896341f, &n);
    vf r = vf_fma(n, vf_set(-0.693359375f), x);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_fma(p, r * r, r) + 1.0f;
    vi half = k >> 1; // 2^k in two steps: k reaches 128 and -128
    return p * (vf)((half + 127) << 23) * (vf)((k - half + 127) << 23);
}

// ln x; -inf at 0, NaN below. Cephes logf.
SIMD_INLINE vf vf_log(vf x) {
    vi bits = (vi)x;
    vi e = (bits >> 23) - 126;
    vf m = (vf)((bits & 0x007fffff) | 0x3f000000); // [0.5, 1)
    vi small = m < 0.707106781186547524f;
    e += small; // -1 where true
    m = m + vf_select(small, m, (vf){0}) - 1.0f;
    vf z = m * m, p = vf_set(7.0376836292e-2f);
    p = vf_fma(p, m, vf_set(-1.1514610310e-1f));
    p = vf_fma(p, m, vf_set(1.1676998740e-1f));
    p = vf_fma(p, m, vf_set(-1.2420140846e-1f));
    p = vf_fma(p, m, vf_set(1.4249322787e-1f));
    p = vf_fma(p, m, vf_set(-1.6668057665e-1f));
    p = vf_fma(p, m, vf_set(2.0000714765e-1f));
    p = vf_fma(p, m, vf_set(-2.4999993993e-1f));
    p = vf_fma(p, m, vf_set(3.3333331174e-1f));
    vf fe = __builtin_convertvector(e, vf);
    vf y = p * m * z;
    y = vf_fma(fe, vf_set(-2.12194440e-4f), y);
    y = vf_fma(z, vf_set(-0.5f), y);
    y = vf_fma(fe, vf_set(0.693359375f), m + y);
    y = vf_select(x == vf_set(INFINITY), x, y);
    y = vf_select(x == 0.0f, vf_set(-INFINITY), y);
    return vf_select((x >= 0.0f), y, vf_set(NAN));
}

// 1 / (1 + e^-x)
SIMD_INLINE vf vf_sigmoid(vf x) { return 1.0f / (1.0f + vf_exp(-x)); }

// Polynomial below 0.625, else 1 - 2/(e^2x + 1). Cephes tanhf.
SIMD_INLINE vf vf_tanh(vf x) {
    vf a = vf_abs(x), z = x * x;
    vf big = vf_copysign(1.0f - 2.0f / (vf_exp(a + a) + 1.0f), x);
    vf p = vf_set(-5.70498872745e-3f);
    p = vf_fma(p, z, vf_set(2.06390887954e-2f));
    p = vf_fma(p, z, vf_set(-5.37397155531e-2f));
    p = vf_fma(p, z, vf_set(1.33314422036e-1f));
    p = vf_fma(p, z, vf_set(-3.33332819422e-1f));
    return vf_select(a > 0.625f, big, vf_fma(p * z, x, x));
}

// Polynomial below 475/512, else 1 - e^q(|x|).
SIMD_INLINE vf vf_erf(vf x) {
    vf a = vf_abs(x), z = x * x;
    vf q = vf_fma(vf_set(-1.72853470e-5f), a, vf_set(3.83197126e-4f));
    vf u = vf_fma(vf_set(-3.88396438e-3f), a, vf_set(2.42546219e-2f));
    q = vf_fma(q, z, u);
    q = vf_fma(q, a, vf_set(-1.06777877e-1f));
    q = vf_fma(q, a, vf_set(-6.34846687e-1f));
    q = vf_fma(q, a, vf_set(-1.28717512e-1f));
    vf big = vf_copysign(1.0f - vf_exp(vf_fma(q, a, -a)), x);
    vf p = vf_set(-5.96761703e-4f);
    p = vf_fma(p, z, vf_set(4.99119423e-3f));
    p = vf_fma(p, z, vf_set(-2.67681349e-2f));
    p = vf_fma(p, z, vf_set(1.12819925e-1f));
    p = vf_fma(p, z, vf_set(-3.76125336e-1f));
    p = vf_fma(p, z, vf_set(1.28379166e-1f));
    return vf_select(a > 0.927734375f, big, vf_fma(p, x, x));
}

// sin and cos of r + k pi/2 share a reduction: |x| up to about 1e4 (no large-argument path). Cephes
// sinf, cosf.
SIMD_INLINE vf vf_sin_quadrant(vf x, int quadrant) {
    vf n;
    vi k = vf_round(x * 0.636619772367581343f, &n) + quadrant;
    vf r = vf_fma(n, vf_set(-1.5703125f), x);
    r = vf_fma(n, vf_set(-4.83751296997e-4f), r);
    r = vf_fma(n, vf_set(-7.54978995489e-8f), r);
    vf z = r * r;
    vf s = vf_set(-1.9515295891e-4f);
    s = vf_fma(s, z, vf_set(8.3321608736e-3f));
    s = vf_fma(s, z, vf_set(-1.6666654611e-1f));
    s = vf_fma(s * z, r, r);
    vf c = vf_set(2.443315711809948e-5f);
    c = vf_fma(c, z, vf_set(-1.388731625493765e-3f));
    c = vf_fma(c, z, vf_set(4.166664568298827e-2f));
    c = vf_fma(c, z * z, vf_fma(z, vf_set(-0.5f), vf_set(1.0f)));
    vf y = vf_select((k & 1) == 1, c, s);
    return (vf)((vi)y ^ ((k & 2) << 30));
}
SIMD_INLINE vf vf_sin(vf x) { return vf_sin_quadrant(x, 0); }
SIMD_INLINE vf vf_cos(vf x) { return vf_sin_quadrant(x, 1); }

#endif
