// ref: the oracle: every operator as the plainest loops that state it, in double, on one thread.
//
// All other backends are judged by this one, so it has no second algorithm, no packing and no threads.
// Each row of op.def has one function here, in the file of its section; ref.c collects them:
//
//     REF_OP(affine) { // (be, s)
//         RefIn x = ref_in(s, 0);
//         for (int64_t i = 0; i < ref_count(s); i++) ref_put(s, i, a * ref_get(&x, i) + b);
//     }
//
// Elements are named by their place in row-major order, for inputs whatever their strides are.
#ifndef COMMON_TENSOR_REF_REF_H
#define COMMON_TENSOR_REF_REF_H

#include "common/tensor/backend.h"

// Opens the function that runs an op, and its row of the kernel table; _WORK with scratch of its own.
#define REF_OP(name) REF_OP_WORK(name, NULL)
#define REF_OP_WORK(name, prepare_fn)                                              \
    static void name##_run(Backend *be, Step *s);                                  \
    const Kernel ref_kernel_##name = {.prepare = (prepare_fn), .run = name##_run}; \
    static void name##_run(Backend *be, Step *s)

#define OP(name, inputs_min, inputs_max, flags) extern const Kernel ref_kernel_##name;
#include "common/tensor/op.def"
#undef OP

// Input i of a step as it lies in memory.
typedef struct RefIn {
    const Tensor *t;  // NULL: absent
    const void *data; // its first element
    DType type;       // as stored: F64 for floats, its own type for a weight, I32
    bool contiguous;
} RefIn;
RefIn ref_in(const Step *s, int i);

// Where in the storage, in elements, the i-th element of t lies.
int64_t ref_place(const Tensor *t, int64_t i);

// Element i of an input; the only reader of stored types.
static inline double ref_get(const RefIn *x, int64_t i) {
    int64_t at = x->contiguous ? i : ref_place(x->t, i);
    switch (x->type) {
    case DTYPE_F64: return ((const double *)x->data)[at];
    case DTYPE_F32: return ((const float *)x->data)[at];
    case DTYPE_F16: return dtype_f16_to_f32(((const uint16_t *)x->data)[at]);
    case DTYPE_BF16: return dtype_bf16_to_f32(((const uint16_t *)x->data)[at]);
    case DTYPE_I32: return ((const int32_t *)x->data)[at];
    default: die("%s: the ref backend does not read %s", x->t->name, dtype_name(x->type));
    }
}

// Element i of the result. A result of a 16-bit type holds rounded values, though stored as double.
void ref_put(Step *s, int64_t i, double value);
// The result as doubles, for ops that only make F32; ref_zero clears it first.
static inline double *ref_out(Step *s) { return s->dst; }
double *ref_zero(Step *s);

static inline int64_t ref_count(const Step *s) { return shape_count(s->node->shape); }

// Row-major place to coordinates and back. Coordinates past the rank are 0.
void ref_coords(Shape shape, int64_t i, int64_t at[TENSOR_DIMS_MAX]);
int64_t ref_index(Shape shape, const int64_t at[TENSOR_DIMS_MAX]);

#endif
