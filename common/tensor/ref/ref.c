// ref: opens the device, collects the kernels, and knows how elements are stored.
#include "common/tensor/ref/ref.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

RefIn ref_in(const Step *s, int i) {
    const Tensor *t = i < s->node->in_cnt ? s->node->in[i] : NULL;
    if (!t) return (RefIn){0};
    bool weight = (t->base ? t->base : t)->op == OP_WEIGHT;
    bool wide = !weight && dtype_is_float(t->dtype);
    return (RefIn){t, s->src[i], wide ? DTYPE_F64 : t->dtype, tensor_is_contiguous(t)};
}

int64_t ref_place(const Tensor *t, int64_t i) {
    int64_t at = 0;
    for (int k = t->shape.rank - 1; k >= 0; k--) {
        at += i % t->shape.dim[k] * t->stride[k];
        i /= t->shape.dim[k];
    }
    return at;
}

void ref_put(Step *s, int64_t i, double value) {
    DType type = s->node->dtype;
    if (type == DTYPE_I32) {
        ((int32_t *)s->dst)[i] = (int32_t)value;
        return;
    }
    if (type == DTYPE_F16 || type == DTYPE_BF16) {
        uint16_t bits;
        dtype_convert(&bits, type, &value, DTYPE_F64, 1);
        dtype_convert(&value, DTYPE_F64, &bits, type, 1);
    }
    ((double *)s->dst)[i] = value;
}

double *ref_zero(Step *s) { return memset(s->dst, 0, sizeof(double) * (size_t)ref_count(s)); }

void ref_coords(Shape shape, int64_t i, int64_t at[TENSOR_DIMS_MAX]) {
    for (int k = TENSOR_DIMS_MAX - 1; k >= 0; k--) {
        at[k] = i % shape.dim[k];
        i /= shape.dim[k];
    }
}

int64_t ref_index(Shape shape, const int64_t at[TENSOR_DIMS_MAX]) {
    int64_t i = 0;
    for (int k = 0; k < shape.rank; k++) i = i * shape.dim[k] + at[k];
    return i;
}

// ---- The device ----

static size_t stored_bytes(DType dtype) {
    return dtype_is_float(dtype) ? sizeof(double) : dtype_bytes(dtype);
}

static void fingerprint(Backend *be, char *buf, size_t len) { snprintf(buf, len, "ref"); }

static void close_device(Backend *be) { free(be->self); }

Err backend_open_ref(Backend **out, BackendOptions opt) {
    Backend *be = calloc(1, sizeof *be);
    Kernel *kernel = calloc(OP_COUNT, sizeof *kernel);
    die_unless(be && kernel, "ref: out of memory");
#define OP(name, inputs_min, inputs_max, flags) kernel[OP_##name] = ref_kernel_##name;
#include "common/tensor/op.def"
#undef OP
    opt.threads = 1;
    *be = (Backend){.name = "ref",
                    .opt = opt,
                    .kernel = kernel,
                    .dtype_bytes = stored_bytes,
                    .fingerprint = fingerprint,
                    .close = close_device,
                    .self = kernel};
    *out = be;
    return ERR_OK;
}
