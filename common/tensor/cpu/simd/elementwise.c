// elementwise: unary functions and their gradients, binary operators, and their relatives, over arrays.
#include "common/tensor/cpu/simd/fast.h"

#include "common/tensor/op.h"

#define EXP(x) vf_exp(x)
#define LOG(x) vf_log(x)
#define TANH(x) vf_tanh(x)
#define ERF(x) fast_erf(x)
#define SQRT(x) vf_sqrt(x)
#define SIN(x) vf_sin(x)
#define COS(x) vf_cos(x)
#define ABS(x) vf_abs(x)
#define SIGMOID(x) fast_sigmoid(x)
#define SEL(cond, a, b) vf_select((cond), (a), (b))
#define ZERO ((vf){0})
#define ONE vf_set(1.0f)
#define HALF vf_set(0.5f)
#define INV_SQRT2 0.707106781186547524f
#define INV_SQRT_2PI 0.398942280401432678f
#define SQRT_2_PI 0.797884560802865356f
#define C_0447 0.044715f
#define C_1702 1.702f
#define GELU_TANH_D(x) gelu_tanh_slope(x)

// For 1 + erf(x): absolute error 1e-7.
SIMD_INLINE vf fast_erf(vf x) {
    vf bell, cdf;
    x *= 1.41421356237309515f;
    fast_cdf(1, &cdf, &bell, &x);
    return cdf * 2.0f - 1.0f;
}

SIMD_INLINE vf gelu_tanh_slope(vf x) {
    vf z = x * x, t = vf_tanh(SQRT_2_PI * (x + C_0447 * x * z));
    return HALF * (ONE + t) + HALF * x * (ONE - t * t) * (SQRT_2_PI * (ONE + 3.0f * C_0447 * z));
}

void SIMD(unary)(int kind, float *y, const float *x_, int64_t n) {
#define UNARY(name, f, df)                      \
    case UNARY_##name:                          \
        for (int64_t i = 0; i < n; i += VLEN) { \
            int m = vf_left(n - i);             \
            vf x = vf_load_n(x_ + i, m);        \
            (void)x;                            \
            vf_store_n(y + i, f, m);            \
        }                                       \
        return;
    switch ((UnaryKind)kind) {
#include "common/tensor/unary.def"
    case UNARY_COUNT: break;
    }
#undef UNARY
}

void SIMD(unary_dx)(int kind, float *dx, const float *dy, const float *x_, int64_t n) {
#define UNARY(name, f, df)                                      \
    case UNARY_##name:                                          \
        for (int64_t i = 0; i < n; i += VLEN) {                 \
            int m = vf_left(n - i);                             \
            vf x = vf_load_n(x_ + i, m);                        \
            (void)x;                                            \
            vf_store_n(dx + i, vf_load_n(dy + i, m) * (df), m); \
        }                                                       \
        return;
    switch ((UnaryKind)kind) {
#include "common/tensor/unary.def"
    case UNARY_COUNT: break;
    }
#undef UNARY
}

void SIMD(affine)(float *y, const float *x, float a, float b, int64_t n) {
    vf va = vf_set(a), vb = vf_set(b);
    for (int64_t i = 0; i < n; i += VLEN) {
        int m = vf_left(n - i);
        vf_store_n(y + i, vf_fma(va, vf_load_n(x + i, m), vb), m);
    }
}

void SIMD(clamp)(float *y, const float *x, float lo, float hi, int64_t n) {
    for (int64_t i = 0; i < n; i += VLEN) {
        int m = vf_left(n - i);
        vf_store_n(y + i, vf_min(vf_set(hi), vf_max(vf_set(lo), vf_load_n(x + i, m))), m);
    }
}

void SIMD(clamp_dx)(float *dx, const float *dy, const float *x, float lo, float hi, int64_t n) {
    for (int64_t i = 0; i < n; i += VLEN) {
        int m = vf_left(n - i);
        vf a = vf_load_n(x + i, m);
        vf_store_n(dx + i, vf_select((a >= lo) & (a <= hi), vf_load_n(dy + i, m), ZERO), m);
    }
}

void SIMD(lerp)(float *y, const float *a, const float *b, float w, int64_t n) {
    for (int64_t i = 0; i < n; i += VLEN) {
        int m = vf_left(n - i);
        vf x = vf_load_n(a + i, m);
        vf_store_n(y + i, vf_fma(vf_set(w), vf_load_n(b + i, m) - x, x), m);
    }
}

// A step of 0 repeats the row's one element; the steps are constants where this is inlined.
#define BINARY_LOOP(op, a_step, b_step)                                  \
    for (int64_t r = 0; r < rows; r++, y += n, a += a_row, b += b_row) { \
        vf va = vf_set(*a), vb = vf_set(*b);                             \
        for (int64_t i = 0; i < n; i += VLEN) {                          \
            int m = vf_left(n - i);                                      \
            if (a_step) va = vf_load_n(a + i, m);                        \
            if (b_step) vb = vf_load_n(b + i, m);                        \
            vf_store_n(y + i, va op vb, m);                              \
        }                                                                \
    }
#define BINARY_CASE(c, op)             \
    case c:                            \
        if (a_step && b_step) {        \
            BINARY_LOOP(op, 1, 1)      \
        } else if (a_step) {           \
            BINARY_LOOP(op, 1, 0)      \
        } else {                       \
            BINARY_LOOP(op, 0, b_step) \
        }                              \
        return;

void SIMD(binary)(char op, float *y, const float *a, int64_t a_row, int64_t a_step, const float *b,
                  int64_t b_row, int64_t b_step, int64_t rows, int64_t n) {
    switch (op) {
        BINARY_CASE('+', +)
        BINARY_CASE('-', -)
        BINARY_CASE('*', *)
        BINARY_CASE('/', /)
    }
}

// n vectors of m elements each; x is half a row, d before the gates, 2 d before the next row.
SIMD_INLINE void geglu_some(int n, float *y, const float *x, int64_t d, int m) {
    vf g[FAST_MAX], cdf[FAST_MAX], bell[FAST_MAX];
    vf_prefetch(x + 2 * d, n), vf_prefetch(x + 3 * d, n);
    FAST_EACH g[k] = vf_load_n(x + d + k * VLEN, m);
    fast_cdf(n, cdf, bell, g);
    FAST_EACH vf_store_n(y + k * VLEN, vf_load_n(x + k * VLEN, m) * g[k] * cdf[k], m);
}
SIMD_INLINE void geglu_dx_some(int n, float *dx, const float *dy, const float *x, int64_t d,
                               int m) {
    vf g[FAST_MAX], cdf[FAST_MAX], bell[FAST_MAX];
    vf_prefetch(x + 2 * d, n), vf_prefetch(x + 3 * d, n), vf_prefetch(dy + d, n);
    FAST_EACH g[k] = vf_load_n(x + d + k * VLEN, m);
    fast_cdf(n, cdf, bell, g);
    FAST_EACH {
        vf e = vf_load_n(dy + k * VLEN, m), slope = vf_fma(g[k] * INV_SQRT_2PI, bell[k], cdf[k]);
        vf_store_n(dx + k * VLEN, e * g[k] * cdf[k], m);
        vf_store_n(dx + d + k * VLEN, e * vf_load_n(x + k * VLEN, m) * slope, m);
    }
}

enum { GEGLU_VECTORS = 4 };
void SIMD(geglu)(float *y, const float *x, int64_t rows, int64_t d) {
    for (int64_t r = 0; r < rows; r++, y += d, x += 2 * d) {
        int64_t i = 0;
        for (; i + GEGLU_VECTORS * VLEN <= d; i += GEGLU_VECTORS * VLEN)
            geglu_some(GEGLU_VECTORS, y + i, x + i, d, VLEN);
        for (; i < d; i += VLEN) geglu_some(1, y + i, x + i, d, vf_left(d - i));
    }
}

void SIMD(geglu_dx)(float *dx, const float *dy, const float *x, int64_t rows, int64_t d) {
    for (int64_t r = 0; r < rows; r++, dy += d, x += 2 * d, dx += 2 * d) {
        int64_t i = 0;
        for (; i + GEGLU_VECTORS * VLEN <= d; i += GEGLU_VECTORS * VLEN)
            geglu_dx_some(GEGLU_VECTORS, dx + i, dy + i, x + i, d, VLEN);
        for (; i < d; i += VLEN) geglu_dx_some(1, dx + i, dy + i, x + i, d, vf_left(d - i));
    }
}
