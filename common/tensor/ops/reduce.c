// Reductions and the softmax family.
#include "common/tensor/ops/rules.h"

Tensor *op_sum(Graph *g, Tensor *x, unsigned axes) {
    if (!x || !axes) return x;
    OpAttr attr = {0};
    for (int i = 0; i < TENSOR_DIMS_MAX; i++) attr.sum.axis[i] = axes >> i & 1;
    return NODE(g, OP_sum, attr, x);
}

Tensor *op_mean(Graph *g, Tensor *x, unsigned axes) {
    if (!x) return NULL;
    Tensor *s = op_sum(g, x, axes);
    return s ? op_affine(g, s, (double)shape_count(s->shape) / (double)shape_count(x->shape), 0)
             : NULL;
}

Err op_shape_sum(Tensor *t) {
    t->shape = t->in[0]->shape;
    for (int i = 0; i < TENSOR_DIMS_MAX; i++) {
        WANT(!t->attr.sum.axis[i] || i < t->shape.rank, "axis %d of rank %d", i, t->shape.rank);
        if (t->attr.sum.axis[i]) t->shape.dim[i] = 1;
    }
    return ERR_OK;
}

void op_grad_sum(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_expand(g, dy, t->in[0]->shape);
}

static Err shape_last_one(Tensor *t) {
    t->shape = t->in[0]->shape;
    WANT(t->shape.rank > 0, "want at least one axis");
    t->shape.dim[t->shape.rank - 1] = 1;
    return ERR_OK;
}

Tensor *op_max(Graph *g, Tensor *x) { return NODE(g, OP_max, (OpAttr){0}, x); }
Err op_shape_max(Tensor *t) { return shape_last_one(t); }
void op_grad_max(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}

Tensor *op_argmax(Graph *g, Tensor *x) { return NODE(g, OP_argmax, (OpAttr){0}, x); }
Err op_shape_argmax(Tensor *t) {
    t->dtype = DTYPE_I32;
    return shape_last_one(t);
}
void op_grad_argmax(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}

static Err shape_of_first(Tensor *t) {
    t->shape = t->in[0]->shape;
    WANT(t->shape.rank > 0, "want at least one axis");
    for (int i = 1; i < t->in_cnt; i++)
        WANT(shape_equal(t->in[i]->shape, t->shape), "shapes must be equal");
    return ERR_OK;
}

Tensor *op_softmax(Graph *g, Tensor *x) { return NODE(g, OP_softmax, (OpAttr){0}, x); }
Tensor *op_softmax_dx(Graph *g, Tensor *dy, Tensor *y) {
    return NODE(g, OP_softmax_dx, (OpAttr){0}, dy, y);
}
Err op_shape_softmax(Tensor *t) { return shape_of_first(t); }
Err op_shape_softmax_dx(Tensor *t) { return shape_of_first(t); }
void op_grad_softmax(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_softmax_dx(g, dy, t);
}
void op_grad_softmax_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}

Tensor *op_log_softmax(Graph *g, Tensor *x) { return NODE(g, OP_log_softmax, (OpAttr){0}, x); }
Tensor *op_log_softmax_dx(Graph *g, Tensor *dy, Tensor *y) {
    return NODE(g, OP_log_softmax_dx, (OpAttr){0}, dy, y);
}
Err op_shape_log_softmax(Tensor *t) { return shape_of_first(t); }
Err op_shape_log_softmax_dx(Tensor *t) { return shape_of_first(t); }
void op_grad_log_softmax(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_log_softmax_dx(g, dy, t);
}
void op_grad_log_softmax_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}

Tensor *op_l2_normalize(Graph *g, Tensor *x) {
    if (!x) return NULL;
    Tensor *sum = op_sum(g, op_unary(g, UNARY_square, x), 1u << (x->shape.rank - 1));
    return op_mul(g, x, op_unary(g, UNARY_rsqrt, sum));
}
