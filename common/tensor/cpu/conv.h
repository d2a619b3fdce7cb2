// conv: what the convolution kernels agree on. conv.c chooses one by shape; each is a file.
//
//   dense      1x1x1: a product with the pixels as rows
//   winograd   3x3, stride 1, padded by one, enough channels (winograd.h)
//   temporal   (3,1,1), stride 1, padded by one frame: F(2, 3) over frames
//   direct     everything else forward, and data gradients of stride 1: patches gathered block by block
//   strided    data gradients of stride > 1: one direct convolution per phase of the input grid
//
// Direct convolution is a gather and the product of dense.h, not oneDNN: on the shapes that need it
// the two are equally fast, and the library would bring a second thread pool and an allocation per
// call.
#ifndef COMMON_TENSOR_CPU_CONV_H
#define COMMON_TENSOR_CPU_CONV_H

#include "common/tensor/cpu/cpu.h"

// y (n, out, o) from x (n, in, c). In a data gradient, x is dy, c are the output channels of the
// forward.
typedef struct Conv {
    int64_t n, c, o;
    int64_t in[3], out[3], kernel[3]; // (T, H, W)
    int64_t stride[3], lo[3];         // of the forward convolution
    bool trans;                       // data gradient
    float *y;
    const float *x;
    const float *weight;   // packed for the algorithm
    const float *bias;     // (o), or (n, o) when bias_each; or NULL
    const float *residual; // of y's shape, or NULL
    bool bias_each;
    float *work;
} Conv;

// One algorithm. Counts are floats. pack reads w (O, I, kt, kh, kw) of the forward convolution.
typedef struct ConvAlgorithm {
    const char *name, *layout, *layout_trans;
    int64_t (*weight_count)(const CpuDevice *dev, const Conv *conv);
    int64_t (*work_count)(const CpuDevice *dev, const Conv *conv);
    void (*pack)(CpuDevice *dev, float *dst, const Conv *conv, const void *w, DType dtype);
    void (*run)(CpuDevice *dev, const Conv *conv);
} ConvAlgorithm;

extern const ConvAlgorithm conv_direct, conv_direct_strided, conv_temporal;

// dw (O, I, taps) from dy (n, out, o) and x (n, in, c); conv describes the forward convolution.
int64_t conv_direct_dw_work_count(const CpuDevice *dev, const Conv *conv);
void conv_direct_dw_run(CpuDevice *dev, const Conv *conv, float *dw, const float *dy);

#endif
