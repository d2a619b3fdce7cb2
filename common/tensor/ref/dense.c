// Linear maps and batched products.
#include "common/tensor/ref/ref.h"

static int64_t width_of(const Tensor *t) { return t->shape.dim[t->shape.rank - 1]; }

// y = x W^T + bias + residual, or x W when trans. The matrix, widened or merged, lies in the workspace; bias
// is input `at`.
static void product(Step *s, int at) {
    RefIn x = ref_in(s, 0), bias = ref_in(s, at), residual = ref_in(s, at + 1);
    bool trans = s->node->attr.linear.trans;
    const double *w = s->work; // (N, K)
    int64_t width = width_of(s->node->in[1]), k = width_of(x.t), n = width_of(s->node),
            rows = ref_count(s) / n;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t i = 0; i < k; i++)
                sum += ref_get(&x, r * k + i) * (trans ? w[i * width + j] : w[j * width + i]);
            if (bias.t) sum += ref_get(&bias, j);
            if (residual.t) sum += ref_get(&residual, r * n + j);
            ref_put(s, r * n + j, sum);
        }
}

static Err matrix_prepare(Backend *be, Step *s) {
    s->work_bytes = sizeof(double) * (size_t)shape_count(s->node->in[1]->shape);
    return ERR_OK;
}

REF_OP_WORK(linear, matrix_prepare) {
    RefIn w = ref_in(s, 1);
    double *wide = s->work;
    for (int64_t i = 0; i < shape_count(w.t->shape); i++) wide[i] = ref_get(&w, i);
    product(s, 2);
}

// (N, K) = dy^T x, summed over rows.
REF_OP(linear_dw) {
    RefIn dy = ref_in(s, 0), x = ref_in(s, 1);
    int64_t n = width_of(dy.t), k = width_of(x.t), rows = shape_count(x.t->shape) / k;
    double *y = ref_zero(s);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < k; j++)
                y[i * k + j] += ref_get(&dy, r * n + i) * ref_get(&x, r * k + j);
}

// W + scale B A
REF_OP_WORK(lora_linear, matrix_prepare) {
    RefIn w = ref_in(s, 1), a = ref_in(s, 2), b = ref_in(s, 3);
    int64_t n = w.t->shape.dim[0], k = w.t->shape.dim[1], r = a.t->shape.dim[0];
    double *merged = s->work;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++) {
            double sum = 0;
            for (int64_t q = 0; q < r; q++) sum += ref_get(&b, i * r + q) * ref_get(&a, q * k + j);
            merged[i * k + j] = ref_get(&w, i * k + j) + s->node->attr.linear.scale * sum;
        }
    product(s, 4);
}

// Element (i, j) of matrix m of x, transposed or not.
static double matrix_at(const RefIn *x, int64_t m, int64_t i, int64_t j, bool trans) {
    int64_t columns = width_of(x->t), rows = x->t->shape.dim[x->t->shape.rank - 2];
    return ref_get(x, (m * rows + (trans ? j : i)) * columns + (trans ? i : j));
}

REF_OP(bmm) {
    RefIn a = ref_in(s, 0), b = ref_in(s, 1);
    bool ta = s->node->attr.bmm.ta, tb = s->node->attr.bmm.tb;
    int rank = s->node->shape.rank;
    int64_t rows = s->node->shape.dim[rank - 2], columns = s->node->shape.dim[rank - 1];
    int64_t depth = a.t->shape.dim[ta ? rank - 2 : rank - 1];
    for (int64_t m = 0; m < ref_count(s) / (rows * columns); m++)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j++) {
                double sum = 0;
                for (int64_t q = 0; q < depth; q++)
                    sum += matrix_at(&a, m, i, q, ta) * matrix_at(&b, m, q, j, tb);
                ref_put(s, (m * rows + i) * columns + j, sum);
            }
}
