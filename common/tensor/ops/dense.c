// Linear maps: y = x W^T, LoRA on top of one, and batched products.
#include "common/tensor/ops/rules.h"

static unsigned leading_axes(const Tensor *t) { return (1u << (t->shape.rank - 1)) - 1; }

// The bias gradient: dy summed over rows.
static Tensor *bias_grad(Graph *g, Tensor *dy) {
    return op_reshape(g, op_sum(g, dy, leading_axes(dy)), SHAPE(last_dim(dy)));
}

// Shape of x W^T (or x W): the last axis of x contracts with W's, whichever trans says.
static Err dense_shape(Tensor *t, const Tensor *bias, const Tensor *residual) {
    const Tensor *x = t->in[0], *w = t->in[1];
    WANT(x->shape.rank >= 1 && w->shape.rank == 2, "want x (..., K) and a matrix");
    int64_t k = w->shape.dim[t->attr.linear.trans ? 0 : 1],
            n = w->shape.dim[t->attr.linear.trans ? 1 : 0];
    WANT(last_dim(x) == k, "x has %lld columns, the weight takes %lld", (long long)last_dim(x),
         (long long)k);
    t->shape = x->shape;
    t->shape.dim[t->shape.rank - 1] = n;
    WANT(!bias || (bias->shape.rank == 1 && bias->shape.dim[0] == n), "the bias must be (%lld)",
         (long long)n);
    WANT(!residual || shape_equal(residual->shape, t->shape),
         "the residual must have the shape of the result");
    return ERR_OK;
}

static Tensor *dense(Graph *g, Tensor *x, Tensor *w, Tensor *bias, Tensor *residual, bool trans) {
    return NODE(g, OP_linear, ((OpAttr){.linear = {.trans = trans}}), x, w, bias, residual);
}
Tensor *op_linear(Graph *g, Tensor *x, Tensor *w, Tensor *bias, Tensor *residual) {
    return dense(g, x, w, bias, residual, false);
}
Tensor *op_linear_t(Graph *g, Tensor *x, Tensor *w, Tensor *bias, Tensor *residual) {
    return dense(g, x, w, bias, residual, true);
}
Err op_shape_linear(Tensor *t) { return dense_shape(t, t->in[2], t->in[3]); }

void op_grad_linear(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    bool trans = t->attr.linear.trans;
    if (want[0]) dx[0] = dense(g, dy, t->in[1], NULL, NULL, !trans);
    if (want[1]) dx[1] = trans ? op_linear_dw(g, t->in[0], dy) : op_linear_dw(g, dy, t->in[0]);
    if (want[2]) dx[2] = bias_grad(g, dy);
    if (want[3]) dx[3] = dy;
}

Tensor *op_linear_dw(Graph *g, Tensor *dy, Tensor *x) {
    return NODE(g, OP_linear_dw, (OpAttr){0}, dy, x);
}
Err op_shape_linear_dw(Tensor *t) {
    const Tensor *dy = t->in[0], *x = t->in[1];
    WANT(shape_count(dy->shape) / last_dim(dy) == shape_count(x->shape) / last_dim(x),
         "dy and x differ in rows");
    t->shape = SHAPE(last_dim(dy), last_dim(x));
    return ERR_OK;
}
void op_grad_linear_dw(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    if (want[0]) dx[0] = op_linear(g, t->in[1], dy, NULL, NULL);
    if (want[1]) dx[1] = op_linear_t(g, t->in[0], dy, NULL, NULL);
}

static Tensor *lora(Graph *g, Tensor *x, Tensor *w, Tensor *a, Tensor *b, double scale,
                    Tensor *bias, Tensor *residual, bool trans) {
    return NODE(g, OP_lora_linear, ((OpAttr){.linear = {trans, scale}}), x, w, a, b, bias,
                residual);
}
Tensor *op_lora_linear(Graph *g, Tensor *x, Tensor *w, Tensor *a, Tensor *b, double scale,
                       Tensor *bias, Tensor *residual) {
    return lora(g, x, w, a, b, scale, bias, residual, false);
}
Tensor *op_lora_linear_t(Graph *g, Tensor *x, Tensor *w, Tensor *a, Tensor *b, double scale,
                         Tensor *bias, Tensor *residual) {
    return lora(g, x, w, a, b, scale, bias, residual, true);
}
Err op_shape_lora_linear(Tensor *t) {
    const Tensor *w = t->in[1], *a = t->in[2], *b = t->in[3];
    TRY(dense_shape(t, t->in[4], t->in[5]));
    WANT(a->shape.rank == 2 && b->shape.rank == 2 && a->shape.dim[0] == b->shape.dim[1] &&
             a->shape.dim[1] == w->shape.dim[1] && b->shape.dim[0] == w->shape.dim[0],
         "want A (r, %lld) and B (%lld, r)", (long long)w->shape.dim[1],
         (long long)w->shape.dim[0]);
    return ERR_OK;
}

// With y = x (W + s B A)^T:  dB = s dy^T (x A^T),  dA = s (dy B)^T x. Transposed, x and dy change places.
void op_grad_lora_linear(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    Tensor *w = t->in[1], *a = t->in[2], *b = t->in[3];
    bool trans = t->attr.linear.trans;
    double scale = t->attr.linear.scale;
    if (want[0]) dx[0] = lora(g, dy, w, a, b, scale, NULL, NULL, !trans);
    Tensor *narrow = trans ? dy : t->in[0], *wide = trans ? t->in[0] : dy; // (..., K), (..., N)
    if (want[1]) dx[1] = op_linear_dw(g, wide, narrow);
    if (want[2])
        dx[2] =
            op_affine(g, op_linear_dw(g, op_linear_t(g, wide, b, NULL, NULL), narrow), scale, 0);
    if (want[3])
        dx[3] = op_affine(g, op_linear_dw(g, wide, op_linear(g, narrow, a, NULL, NULL)), scale, 0);
    if (want[4]) dx[4] = bias_grad(g, dy);
    if (want[5]) dx[5] = dy;
}

Tensor *op_bmm(Graph *g, Tensor *a, Tensor *b, bool ta, bool tb) {
    return NODE(g, OP_bmm, ((OpAttr){.bmm = {ta, tb}}), a, b);
}
Err op_shape_bmm(Tensor *t) {
    const Shape a = t->in[0]->shape, b = t->in[1]->shape;
    int r = a.rank;
    WANT(r >= 2 && r == b.rank, "want two tensors of one rank, at least 2");
    for (int i = 0; i < r - 2; i++) WANT(a.dim[i] == b.dim[i], "axis %d differs", i);
    bool ta = t->attr.bmm.ta, tb = t->attr.bmm.tb;
    WANT(a.dim[ta ? r - 2 : r - 1] == b.dim[tb ? r - 1 : r - 2], "the contracted axes differ");
    t->shape = a;
    t->shape.dim[r - 2] = a.dim[ta ? r - 1 : r - 2];
    t->shape.dim[r - 1] = b.dim[tb ? r - 2 : r - 1];
    return ERR_OK;
}
void op_grad_bmm(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    Tensor *a = t->in[0], *b = t->in[1];
    bool ta = t->attr.bmm.ta, tb = t->attr.bmm.tb;
    if (want[0]) dx[0] = ta ? op_bmm(g, b, dy, tb, true) : op_bmm(g, dy, b, false, !tb);
    if (want[1]) dx[1] = tb ? op_bmm(g, dy, a, true, ta) : op_bmm(g, a, dy, !ta, false);
}
