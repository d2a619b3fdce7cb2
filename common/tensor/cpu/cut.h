// cut: n things into chunks of equal size for pool_run, by their number and weight only.
#ifndef COMMON_TENSOR_CPU_CUT_H
#define COMMON_TENSOR_CPU_CUT_H

#include <stdint.h>

#include "common/tensor/cpu/cpu.h"

enum {
    CUT_FLOATS = 16384
}; // of a chunk: some microseconds of work, and no more than L1 and L2 hold

typedef struct Cut {
    int64_t n, step, cnt;
} Cut;

// Things of `floats` floats each; a chunk holds a multiple of `align` things.
static inline Cut cut(int64_t n, int64_t floats, int64_t align) {
    int64_t step = (CUT_FLOATS / (floats > 0 ? floats : 1) + align - 1) / align * align;
    if (step < align) step = align;
    return (Cut){n, step, (n + step - 1) / step};
}
static inline int64_t cut_first(const Cut *c, int64_t chunk) { return chunk * c->step; }
static inline int64_t cut_len(const Cut *c, int64_t chunk) {
    int64_t left = c->n - chunk * c->step;
    return left < c->step ? left : c->step;
}

// The usual job: a step cut along its elements or rows.
typedef struct CutJob {
    const Step *step;
    const SimdTable *simd;
    Cut cut;
    int64_t width; // floats of a row of the result's or first input's last axis, where rows are cut
} CutJob;

static inline int64_t cut_last_dim(const Tensor *t) {
    return t->shape.rank ? t->shape.dim[t->shape.rank - 1] : 1;
}

// All elements of the result.
static inline void cut_run_elements(Backend *be, Step *step, PoolFn *fn) {
    CpuDevice *dev = cpu_device(be);
    CutJob job = {step, dev->simd, cut(shape_count(step->node->shape), 1, 64), 0};
    pool_run(dev->pool, job.cut.cnt, fn, &job);
}

// Rows of the last axis of t.
static inline void cut_run_rows(Backend *be, Step *step, const Tensor *t, PoolFn *fn) {
    CpuDevice *dev = cpu_device(be);
    int64_t width = cut_last_dim(t);
    CutJob job = {step, dev->simd, cut(shape_count(t->shape) / width, width, 1), width};
    if (job.cut.step > 4) job.cut.step -= job.cut.step % 4; // some kernels take four at a time
    job.cut.cnt = (job.cut.n + job.cut.step - 1) / job.cut.step;
    pool_run(dev->pool, job.cut.cnt, fn, &job);
}

#endif
