// math: the elementary functions of simd.h over arrays.
#include "common/tensor/cpu/simd/simd.h"

#define MAP(name, function)                                      \
    void SIMD(name)(float *y, const float *x, int64_t n) {       \
        for (int64_t i = 0; i < n; i += VLEN) {                  \
            int m = vf_left(n - i);                              \
            vf_store_n(y + i, function(vf_load_n(x + i, m)), m); \
        }                                                        \
    }
MAP(map_exp, vf_exp)
MAP(map_log, vf_log)
MAP(map_erf, vf_erf)
MAP(map_tanh, vf_tanh)
MAP(map_sigmoid, vf_sigmoid)
MAP(map_sin, vf_sin)
MAP(map_cos, vf_cos)
#undef MAP

void SIMD(widen)(float *y, const void *x, DType dtype, int64_t n) {
    const uint16_t *h = x;
    int64_t i = 0;
    if (dtype == DTYPE_F32) {
        memcpy(y, x, (size_t)n * sizeof *y);
        return;
    }
    if (dtype == DTYPE_F16)
        for (; i + VLEN <= n; i += VLEN) vf_store(y + i, vf_load_f16(h + i));
    else
        for (; i + VLEN <= n; i += VLEN) vf_store(y + i, vf_load_bf16(h + i));
    for (; i < n; i++) y[i] = vf_scalar(x, dtype, i);
}
