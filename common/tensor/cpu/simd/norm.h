// norm: the per-channel numbers with which the group normalisation kernels see one sample.
//
// xhat = (x - mean) rstd + off,  z = (x - mean) gain + bias. mean is rounded to f32 and `off` and `bias` carry
// what the rounding lost. Before a SiLU gain and bias are scaled so that z comes times -log2 e (fast.h).
#ifndef COMMON_TENSOR_CPU_SIMD_NORM_H
#define COMMON_TENSOR_CPU_SIMD_NORM_H

typedef struct NormChannels {
    float *mean, *rstd, *off; // (C) each
    float *gain, *bias;
} NormChannels;

#endif
