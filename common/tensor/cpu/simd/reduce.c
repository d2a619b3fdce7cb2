// reduce: sums in double, maxima, and the softmax family, over rows.
#include "common/tensor/cpu/simd/simd.h"

enum { HALF = VLEN / 2 };
typedef float vh __attribute__((vector_size(HALF * 4)));
typedef float vh_unaligned __attribute__((vector_size(HALF * 4), aligned(4), may_alias));
typedef double vd __attribute__((vector_size(HALF * 8))); // one register
typedef double vd_unaligned __attribute__((vector_size(HALF * 8), aligned(8), may_alias));

static inline vd widen_half(const float *p) {
    return __builtin_convertvector(*(const vh_unaligned *)p, vd);
}

double SIMD(sum_row)(const float *x, int64_t n) {
    vd acc[4] = {0};
    int64_t i = 0;
    for (; i + 4 * HALF <= n; i += 4 * HALF)
        for (int k = 0; k < 4; k++) acc[k] += widen_half(x + i + k * HALF);
    vd v = (acc[0] + acc[1]) + (acc[2] + acc[3]);
    double sum = 0;
    for (int k = 0; k < HALF; k++) sum += v[k];
    for (; i < n; i++) sum += (double)x[i];
    return sum;
}

// Four rows are added before the sums are touched.
void SIMD(sum_rows)(double *sum, const float *x, int64_t stride, int64_t rows, int64_t n) {
    int64_t r = 0, whole = n / HALF * HALF;
    for (; r + 4 <= rows; r += 4, x += 4 * stride) {
        const float *x1 = x + stride, *x2 = x1 + stride, *x3 = x2 + stride;
        for (int64_t i = 0; i < whole; i += HALF)
            *(vd_unaligned *)(sum + i) += (widen_half(x + i) + widen_half(x1 + i)) +
                                          (widen_half(x2 + i) + widen_half(x3 + i));
        for (int64_t i = whole; i < n; i++)
            sum[i] += ((double)x[i] + (double)x1[i]) + ((double)x2[i] + (double)x3[i]);
    }
    for (; r < rows; r++, x += stride) {
        for (int64_t i = 0; i < whole; i += HALF) *(vd_unaligned *)(sum + i) += widen_half(x + i);
        for (int64_t i = whole; i < n; i++) sum[i] += (double)x[i];
    }
}

float SIMD(max_row)(const float *x, int64_t n) {
    vf top = vf_set(-INFINITY);
    float tail = -INFINITY;
    int64_t i = 0;
    for (; i + VLEN <= n; i += VLEN) {
        vf v = vf_load(x + i);
        top = vf_select((top == top) & ~(v <= top), v, top); // a NaN stays
    }
    for (int k = 0; k < VLEN; k++) tail = tail == tail && !(top[k] <= tail) ? top[k] : tail;
    for (; i < n; i++) tail = tail == tail && !(x[i] <= tail) ? x[i] : tail;
    return tail;
}

int64_t SIMD(argmax_row)(const float *x, int64_t n) {
    float top = SIMD(max_row)(x, n);
    for (int64_t i = 0; i < n; i++)
        if (x[i] == top || (top != top && x[i] != x[i])) return i;
    return 0;
}

// ---- The softmax family ------------------------------------------------------------------------

SIMD_INLINE float row_max(const float *x, int64_t n) {
    vf top = vf_set(-INFINITY);
    int64_t i = 0;
    for (; i + VLEN <= n; i += VLEN) top = vf_max(top, vf_load(x + i));
    float m = vf_max_lane(top);
    for (; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

// Sum of exp(x - top) over a row; written to y unless that is NULL.
SIMD_INLINE float exp_row(float *y, const float *x, float top, int64_t n) {
    vf sum[2] = {0};
    int64_t i = 0;
    for (; i + 2 * VLEN <= n; i += 2 * VLEN)
        for (int k = 0; k < 2; k++) {
            vf e = vf_exp(vf_load(x + i + k * VLEN) - top);
            if (y) vf_store(y + i + k * VLEN, e);
            sum[k] += e;
        }
    float total = vf_sum(sum[0] + sum[1]);
    for (; i < n; i += VLEN) {
        int m = vf_left(n - i);
        vf e = vf_exp(vf_load_n(x + i, m) - top);
        if (y) vf_store_n(y + i, e, m);
        for (int k = 0; k < m; k++) total += e[k];
    }
    return total;
}

void SIMD(softmax)(float *y, const float *x, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++, y += n, x += n) {
        float scale = 1.0f / exp_row(y, x, row_max(x, n), n);
        for (int64_t i = 0; i < n; i += VLEN) {
            int m = vf_left(n - i);
            vf_store_n(y + i, vf_load_n(y + i, m) * scale, m);
        }
    }
}

void SIMD(softmax_dx)(float *dx, const float *dy, const float *y, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++, dx += n, dy += n, y += n) {
        vf dot = {0};
        for (int64_t i = 0; i < n; i += VLEN) {
            int m = vf_left(n - i);
            dot = vf_fma(vf_load_n(dy + i, m), vf_load_n(y + i, m), dot);
        }
        float mean = vf_sum(dot);
        for (int64_t i = 0; i < n; i += VLEN) {
            int m = vf_left(n - i);
            vf_store_n(dx + i, vf_load_n(y + i, m) * (vf_load_n(dy + i, m) - mean), m);
        }
    }
}

void SIMD(log_softmax)(float *y, const float *x, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++, y += n, x += n) {
        float top = row_max(x, n), log_sum = logf(exp_row(NULL, x, top, n));
        for (int64_t i = 0; i < n; i += VLEN) {
            int m = vf_left(n - i);
            vf_store_n(y + i, vf_load_n(x + i, m) - top - log_sum, m);
        }
    }
}

void SIMD(log_softmax_dx)(float *dx, const float *dy, const float *y, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++, dx += n, dy += n, y += n) {
        float sum = (float)SIMD(sum_row)(dy, n);
        for (int64_t i = 0; i < n; i += VLEN) {
            int m = vf_left(n - i);
            vf_store_n(dx + i, vf_load_n(dy + i, m) - vf_exp(vf_load_n(y + i, m)) * sum, m);
        }
    }
}
