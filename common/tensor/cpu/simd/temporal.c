// temporal: transforms of F(2, 3) over frames: 4 products, not 6, give 2 frames of a kernel of 3.
#include "common/tensor/cpu/simd/simd.h"

SIMD_INLINE vf frame(const float *x, int64_t i, int lanes) {
    return x ? vf_load_n(x + i, lanes) : (vf){0};
}

void SIMD(temporal_in)(float *v, int64_t plane, const float *const x[4], int64_t n) {
    for (int64_t i = 0; i < n; i += VLEN) {
        int lanes = vf_left(n - i);
        vf d0 = frame(x[0], i, lanes), d1 = frame(x[1], i, lanes);
        vf d2 = frame(x[2], i, lanes), d3 = frame(x[3], i, lanes);
        vf_store_n(v + i, d0 - d2, lanes);
        vf_store_n(v + plane + i, d1 + d2, lanes);
        vf_store_n(v + 2 * plane + i, d2 - d1, lanes);
        vf_store_n(v + 3 * plane + i, d1 - d3, lanes);
    }
}

void SIMD(temporal_out)(float *y0, float *y1, const float *m, int64_t plane, int64_t rows,
                        int64_t o, const float *bias, const float *r0, const float *r1) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t c = 0; c < o; c += VLEN) {
            int lanes = vf_left(o - c);
            int64_t i = row * o + c;
            vf m1 = vf_load_n(m + plane + i, lanes), m2 = vf_load_n(m + 2 * plane + i, lanes);
            vf b = frame(bias, c, lanes);
            vf_store_n(y0 + i, vf_load_n(m + i, lanes) + m1 + m2 + b + frame(r0, i, lanes), lanes);
            if (y1)
                vf_store_n(y1 + i,
                           m1 - m2 - vf_load_n(m + 3 * plane + i, lanes) + b + frame(r1, i, lanes),
                           lanes);
        }
}
