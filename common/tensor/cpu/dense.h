// dense: matrix products over all threads, and the packed form of a right side.
//
//     y[b] (m, n) = a[b] (m, k) w[b] (k, n) + bias[b] (n) + residual[b] (m, n)      for b < batch
//
// The right side is packed into panels (simd.def); a weight once, through backend_pack, anything
// else at each run into a step's workspace. An own kernel and not oneDNN's: with packed weights it
// runs at 0.95 to 1.2 times that library's speed on every shape of the models, it reads row-strided
// inputs, adds bias and residual while the tile is in registers, and allocates nothing when run
// (dnnl_primitive_execute does).
#ifndef COMMON_TENSOR_CPU_DENSE_H
#define COMMON_TENSOR_CPU_DENSE_H

#include "common/tensor/cpu/cpu.h"

// Strides are in floats. a(i, j) of one batch entry is at a[i*a_row + j*a_col]; one of the two is
// 1.
typedef struct Dense {
    int64_t batch, m, n, k; // batch 0 counts as 1
    float *y;
    int64_t y_row, y_batch;
    const float *a;
    int64_t a_row, a_col, a_batch;
    const float *panels;
    int64_t panels_batch;
    const float *bias; // or NULL
    int64_t bias_batch;
    const float *residual; // or NULL
    int64_t residual_row, residual_batch;
    bool accumulate; // y += a w, without bias and residual
} Dense;

void dense_run(CpuDevice *dev, const Dense *d);

// Floats of a packed (k, n) matrix, and of one panel of it.
int64_t dense_packed_count(const CpuDevice *dev, int64_t k, int64_t n);
int64_t dense_panel_count(const CpuDevice *dev, int64_t k);

// Packs `batch` matrices b, element (k, n) at b[k*ks + n*ns], entries bs elements apart, one after
// the other.
void dense_pack(CpuDevice *dev, float *panels, const void *b, DType dtype, int64_t ks, int64_t ns,
                int64_t k, int64_t n, int64_t batch, int64_t bs);

#endif
