// cpu: opens the device: chooses the instruction set, starts the threads, collects the kernels.
#include "common/tensor/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const SimdTable *cpu_simd_table(const char *isa) {
    __builtin_cpu_init();
    if (!strcmp(isa, "avx512") && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &simd_table_avx512;
    if (!strcmp(isa, "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        return &simd_table_avx2;
    return strcmp(isa, "base") ? NULL : &simd_table_base;
}

// The best instruction set of this machine, or what VADER_ISA asks for.
static Err choose_simd(const SimdTable **out) {
    static const char *const isa[] = {"avx512", "avx2", "base"};
    const char *want = getenv("VADER_ISA");
    bool known = !want;
    *out = NULL;
    for (int i = 0; i < 3 && !*out; i++) {
        if (want && strcmp(want, isa[i]) != 0) continue;
        known = true;
        *out = cpu_simd_table(isa[i]);
    }
    if (!known) FAIL(ERR_USAGE, "VADER_ISA is %s, want avx512, avx2 or base", want);
    if (!*out) FAIL(ERR_DEVICE, "VADER_ISA is %s, which this machine does not have", want);
    return ERR_OK;
}

const Tensor *cpu_constant(Step *step, const Tensor *w) {
    const Tensor *root = w->base ? w->base : w;
    if (root->op != OP_WEIGHT || root == w) return root->op == OP_WEIGHT ? w : NULL;
    Tensor *copy = arena_new(step->arena, Tensor);
    *copy = *w;
    copy->data = (const char *)root->data + (size_t)w->offset * dtype_bytes(w->dtype);
    return copy;
}

static size_t cpu_dtype_bytes(DType dtype) { return dtype_bytes(dtype); }

static void cpu_fingerprint(Backend *be, char *buf, size_t len) {
    snprintf(buf, len, "cpu %s%s%s", cpu_device(be)->simd->isa, be->opt.exact ? " exact" : "",
             be->opt.pack_weights ? "" : " unpacked");
}

static void cpu_close(Backend *be) {
    CpuDevice *dev = cpu_device(be);
    pool_free(dev->pool);
    free((Kernel *)be->kernel);
    free(dev);
}

Err backend_open_cpu(Backend **out, BackendOptions opt) {
    const SimdTable *simd;
    TRY(choose_simd(&simd));
    CpuDevice *dev = calloc(1, sizeof *dev);
    Backend *be = calloc(1, sizeof *be);
    Kernel *kernel = calloc(OP_COUNT, sizeof *kernel);
    die_unless(dev && be && kernel, "cpu: out of memory");
#define OP(name, inputs_min, inputs_max, flags) kernel[OP_##name] = cpu_kernel_##name;
#include "common/tensor/op.def"
#undef OP
    dev->simd = simd;
    *be = (Backend){.name = "cpu",
                    .opt = opt,
                    .kernel = kernel,
                    .dtype_bytes = cpu_dtype_bytes,
                    .fingerprint = cpu_fingerprint,
                    .close = cpu_close,
                    .self = dev};
    dev->pool = pool_new(opt.threads);
    if (!dev->pool) {
        cpu_close(be);
        free(be);
        FAIL(ERR_DEVICE, "cpu: cannot start %d threads", opt.threads);
    }
    be->opt.threads = pool_threads(dev->pool);
    *out = be;
    return ERR_OK;
}
