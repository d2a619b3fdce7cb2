// winograd: the interpolation points that the transforms of data and of weights must agree on.
#ifndef COMMON_TENSOR_CPU_SIMD_WINOGRAD_H
#define COMMON_TENSOR_CPU_SIMD_WINOGRAD_H

// 0, +-A, +-B, infinity.
#define WINOGRAD_A 0.625f
#define WINOGRAD_B 1.5f

#endif
