// resample: weighted sums of rows and of pixels, for separable filters.
#include "common/tensor/cpu/simd/simd.h"

void SIMD(axpy)(float *y, const float *x, float a, int64_t n) {
    for (int64_t i = 0; i < n; i += VLEN) {
        int m = vf_left(n - i);
        vf_store_n(y + i, vf_fma(vf_set(a), vf_load_n(x + i, m), vf_load_n(y + i, m)), m);
    }
}

// c is a constant where this is inlined for images of three or four channels.
SIMD_INLINE void columns(float *y, const float *x, const int32_t *start, const float *tap,
                         int64_t taps, int64_t out, int64_t in, int64_t c) {
    for (int64_t j = 0; j < out; j++, y += c, tap += taps) {
        int64_t first = start[j] < 0 ? -(int64_t)start[j] : 0,
                end = start[j] + taps > in ? in - start[j] : taps;
        if (c <= 4) {
            float acc[4] = {0};
            for (int64_t b = first; b < end; b++)
                for (int64_t k = 0; k < c; k++) acc[k] += tap[b] * x[(start[j] + b) * c + k];
            for (int64_t k = 0; k < c; k++) y[k] = acc[k];
        } else {
            memset(y, 0, (size_t)c * sizeof *y);
            for (int64_t b = first; b < end; b++) SIMD(axpy)(y, x + (start[j] + b) * c, tap[b], c);
        }
    }
}

void SIMD(resize_columns)(float *y, const float *x, const int32_t *start, const float *tap,
                          int64_t taps, int64_t out, int64_t in, int64_t c) {
    if (c == 3)
        columns(y, x, start, tap, taps, out, in, 3);
    else
        columns(y, x, start, tap, taps, out, in, c);
}

SIMD_INLINE void columns_dx(float *dx, const float *dy, const int32_t *start, const float *tap,
                            int64_t taps, int64_t out, int64_t in, int64_t c) {
    memset(dx, 0, (size_t)(in * c) * sizeof *dx);
    for (int64_t j = 0; j < out; j++, dy += c, tap += taps) {
        int64_t first = start[j] < 0 ? -(int64_t)start[j] : 0,
                end = start[j] + taps > in ? in - start[j] : taps;
        for (int64_t b = first; b < end; b++) {
            float *at = dx + (start[j] + b) * c;
            if (c <= 4)
                for (int64_t k = 0; k < c; k++) at[k] += tap[b] * dy[k];
            else
                SIMD(axpy)(at, dy, tap[b], c);
        }
    }
}

void SIMD(resize_columns_dx)(float *dx, const float *dy, const int32_t *start, const float *tap,
                             int64_t taps, int64_t out, int64_t in, int64_t c) {
    if (c == 3)
        columns_dx(dx, dy, start, tap, taps, out, in, 3);
    else
        columns_dx(dx, dy, start, tap, taps, out, in, c);
}

void SIMD(halve_columns)(float *y, const float *top, const float *bottom, int64_t out, int64_t c) {
    for (int64_t j = 0; j < out; j++, y += c, top += 2 * c, bottom += 2 * c)
        for (int64_t i = 0; i < c; i += VLEN) {
            int m = vf_left(c - i);
            vf_store_n(y + i,
                       (vf_load_n(top + i, m) + vf_load_n(top + c + i, m)) +
                           (vf_load_n(bottom + i, m) + vf_load_n(bottom + c + i, m)),
                       m);
        }
}
