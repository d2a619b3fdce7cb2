// cpu: the fast backend: own kernels in three builds, for AVX-512, AVX2 and any x86-64.
//
// It needs no library: its products are as fast as oneDNN's, its convolutions 1 to 3.5 times faster
// (tests/bench/bench_ops.c measures both), and it allocates nothing when run.
//
// A kernel file registers by defining one constant per op, named after its row in op.def:
//
//     static void gelu_run(Backend *be, Step *step) {
//         CpuDevice *dev = cpu_device(be);
//         pool_run(dev->pool, chunk_cnt, gelu_chunk, &job);     // gelu_chunk calls dev->simd->gelu(...)
//     }
//     const Kernel cpu_kernel_gelu = {.run = gelu_run};
//
// cpu.c collects them into the backend's table. What loops over elements lives in simd/: those
// files are compiled once per instruction set, each function is SIMD(name) there, has a row in
// simd/simd.def, and is called through dev->simd, which is chosen once when the device is opened.
// The environment variable VADER_ISA (avx512, avx2 or base) overrides the choice, so that every build
// can be tested and measured on one machine. Files in cpu/ itself are compiled for the baseline: they
// only cut work into chunks.
#ifndef COMMON_TENSOR_CPU_CPU_H
#define COMMON_TENSOR_CPU_CPU_H

#include "common/tensor/backend.h"
#include "common/tensor/cpu/pool.h"
#include "common/tensor/cpu/simd/table.h"

typedef struct CpuDevice {
    Pool *pool;
    const SimdTable *simd; // functions of the best instruction set of this machine
} CpuDevice;

static inline CpuDevice *cpu_device(Backend *be) { return be->self; }

// For prepare: w itself if it is a constant, a copy with `data` set (in the step's arena) if it is
// a view of one, NULL if it is computed by the graph.
const Tensor *cpu_constant(Step *step, const Tensor *w);

// The table of an instruction set by name ("avx512", "avx2", "base"); NULL if this machine cannot
// run it. Tests use it to check every build against the others.
const SimdTable *cpu_simd_table(const char *isa);

#define OP(name, inputs_min, inputs_max, flags) extern const Kernel cpu_kernel_##name;
#include "common/tensor/op.def"
#undef OP

#endif
