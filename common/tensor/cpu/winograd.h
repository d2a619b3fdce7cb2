// winograd: 3x3 convolution, stride 1, padded by one, in 2.25 multiplications per output, not 9.
//
// Forward and data gradient are the same code with the weights transformed the other way. The
// points are chosen for accuracy (simd/winograd.c): relative error 1e-6 to 3e-6.
#ifndef COMMON_TENSOR_CPU_WINOGRAD_H
#define COMMON_TENSOR_CPU_WINOGRAD_H

#include "common/tensor/cpu/cpu.h"

typedef struct Winograd {
    int64_t images, h, w, c, o; // x (images, h, w, c) -> y (images, h, w, o)
    float *y;
    const float *x;
    const float *weight; // winograd_pack's
    const float *bias;   // (images / bias_images, o) or NULL
    int64_t bias_images;
    const float *residual; // of y's shape, or NULL
    float *work;           // winograd_work_count floats
} Winograd;

// Floats of transformed weights for c -> o channels: four times the weights themselves.
int64_t winograd_weight_count(const CpuDevice *dev, int64_t c, int64_t o);
// Transforms w (O, I, 3, 3): for y = conv(x), c = I and o = O, or (trans) for the data gradient, c
// = O, o = I.
void winograd_pack(CpuDevice *dev, float *dst, const void *w, DType dtype, int64_t w_o, int64_t w_i,
                   bool trans);

int64_t winograd_work_count(const CpuDevice *dev, const Winograd *job);
void winograd_run(CpuDevice *dev, const Winograd *job);

#endif
