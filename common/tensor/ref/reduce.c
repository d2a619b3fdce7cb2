// Reductions, and the softmax family over the last axis.
#include <math.h>

#include "common/tensor/ref/ref.h"

REF_OP(sum) {
    RefIn x = ref_in(s, 0);
    double *y = ref_zero(s);
    int64_t at[TENSOR_DIMS_MAX];
    for (int64_t i = 0; i < shape_count(x.t->shape); i++) {
        ref_coords(x.t->shape, i, at);
        for (int k = 0; k < TENSOR_DIMS_MAX; k++)
            if (s->node->attr.sum.axis[k]) at[k] = 0;
        y[ref_index(s->node->shape, at)] += ref_get(&x, i);
    }
}

static int64_t width_of(const RefIn *x) { return x->t->shape.dim[x->t->shape.rank - 1]; }
static int64_t rows_of(const RefIn *x) { return shape_count(x->t->shape) / width_of(x); }

// Column of the first largest element of row r.
static int64_t row_argmax(const RefIn *x, int64_t r) {
    int64_t best = 0, d = width_of(x);
    for (int64_t j = 1; j < d; j++)
        if (ref_get(x, r * d + j) > ref_get(x, r * d + best)) best = j;
    return best;
}

static double row_max(const RefIn *x, int64_t r) {
    return ref_get(x, r * width_of(x) + row_argmax(x, r));
}

// Sum over row r of exp(x - max).
static double row_exp_sum(const RefIn *x, int64_t r) {
    double max = row_max(x, r), sum = 0;
    for (int64_t j = 0; j < width_of(x); j++) sum += exp(ref_get(x, r * width_of(x) + j) - max);
    return sum;
}

REF_OP(max) {
    RefIn x = ref_in(s, 0);
    for (int64_t r = 0; r < rows_of(&x); r++) ref_put(s, r, row_max(&x, r));
}

REF_OP(argmax) {
    RefIn x = ref_in(s, 0);
    for (int64_t r = 0; r < rows_of(&x); r++) ref_put(s, r, (double)row_argmax(&x, r));
}

REF_OP(softmax) {
    RefIn x = ref_in(s, 0);
    int64_t d = width_of(&x);
    for (int64_t r = 0; r < rows_of(&x); r++) {
        double max = row_max(&x, r), sum = row_exp_sum(&x, r);
        for (int64_t i = r * d; i < (r + 1) * d; i++)
            ref_put(s, i, exp(ref_get(&x, i) - max) / sum);
    }
}

// dx = y (dy - sum(dy y))
REF_OP(softmax_dx) {
    RefIn dy = ref_in(s, 0), y = ref_in(s, 1);
    int64_t d = width_of(&y);
    for (int64_t r = 0; r < rows_of(&y); r++) {
        double dot = 0;
        for (int64_t i = r * d; i < (r + 1) * d; i++) dot += ref_get(&dy, i) * ref_get(&y, i);
        for (int64_t i = r * d; i < (r + 1) * d; i++)
            ref_put(s, i, ref_get(&y, i) * (ref_get(&dy, i) - dot));
    }
}

REF_OP(log_softmax) {
    RefIn x = ref_in(s, 0);
    int64_t d = width_of(&x);
    for (int64_t r = 0; r < rows_of(&x); r++) {
        double max = row_max(&x, r), sum = row_exp_sum(&x, r);
        for (int64_t i = r * d; i < (r + 1) * d; i++)
            ref_put(s, i, ref_get(&x, i) - max - log(sum));
    }
}

// dx = dy - exp(y) sum(dy)
REF_OP(log_softmax_dx) {
    RefIn dy = ref_in(s, 0), y = ref_in(s, 1);
    int64_t d = width_of(&y);
    for (int64_t r = 0; r < rows_of(&y); r++) {
        double sum = 0;
        for (int64_t i = r * d; i < (r + 1) * d; i++) sum += ref_get(&dy, i);
        for (int64_t i = r * d; i < (r + 1) * d; i++)
            ref_put(s, i, ref_get(&dy, i) - exp(ref_get(&y, i)) * sum);
    }
}
