// attention: what one call of the attention kernels works on: one head of one sequence.
//
// Tokens are rows of d floats at any stride, so that neither heads nor frames are ever permuted. The
// kernels need scratch of sdpa_scratch floats, 64-byte aligned, which nothing survives in.
#ifndef COMMON_TENSOR_CPU_SIMD_ATTENTION_H
#define COMMON_TENSOR_CPU_SIMD_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

// A sequence of tokens: token i is at p[i*stride], in floats.
typedef struct SdpaRows {
    float *p;
    int64_t stride;
} SdpaRows;

typedef struct SdpaHead {
    SdpaRows q, y;       // (lq, d); y is dy in the backward pass, read only
    SdpaRows k, v;       // (lk, d)
    SdpaRows dq, dk, dv; // backward: written for queries [q0, q1) and all keys
    int64_t lq, lk, d;
    int64_t q0, q1; // the queries of this call
    float scale;
    bool causal; // query i sees keys <= i
    float *scratch;
} SdpaHead;

#endif
