// Layer and group normalisation.
//
// Both gradients are written with xhat = (x - mean) * rstd and a = dy * gamma (times silu' where fused):
//   dx = rstd * (a - mean(a) - xhat * mean(a * xhat)),  dgamma = sum(dy * xhat),  dbeta = sum(dy)
#include "common/tensor/ops/rules.h"

static Err vector_of(const Tensor *v, int64_t c) {
    WANT(!v || (v->shape.rank == 1 && v->shape.dim[0] == c), "gain and bias must be (%lld)",
         (long long)c);
    return ERR_OK;
}

// Hands out the two rows of a (2, C) parameter gradient.
static void give_rows(Graph *g, Tensor *dp, const bool *want, Tensor **dx) {
    for (int i = 0; i < 2; i++)
        if (want[1 + i] && dp)
            dx[1 + i] = op_reshape(g, op_slice(g, dp, 0, i, 1), SHAPE(dp->shape.dim[1]));
}

Tensor *op_layernorm(Graph *g, Tensor *x, Tensor *gamma, Tensor *beta, double eps) {
    return NODE(g, OP_layernorm, ((OpAttr){.norm = {.eps = eps}}), x, gamma, beta);
}
Tensor *op_layernorm_dx(Graph *g, Tensor *dy, Tensor *x, Tensor *gamma, double eps) {
    return NODE(g, OP_layernorm_dx, ((OpAttr){.norm = {.eps = eps}}), dy, x, gamma);
}
Tensor *op_layernorm_dp(Graph *g, Tensor *dy, Tensor *x, double eps) {
    return NODE(g, OP_layernorm_dp, ((OpAttr){.norm = {.eps = eps}}), dy, x);
}

Err op_shape_layernorm(Tensor *t) {
    t->shape = t->in[0]->shape;
    WANT(t->shape.rank > 0 && !t->in[1] == !t->in[2], "want gain and bias, or neither");
    TRY(vector_of(t->in[1], last_dim(t->in[0])));
    return vector_of(t->in[2], last_dim(t->in[0]));
}
Err op_shape_layernorm_dx(Tensor *t) {
    t->shape = t->in[1]->shape;
    WANT(shape_equal(t->in[0]->shape, t->shape), "dy and x must have one shape");
    return vector_of(t->in[2], last_dim(t->in[1]));
}
Err op_shape_layernorm_dp(Tensor *t) {
    WANT(shape_equal(t->in[0]->shape, t->in[1]->shape), "dy and x must have one shape");
    t->shape = SHAPE(2, last_dim(t->in[1]));
    return ERR_OK;
}

void op_grad_layernorm(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    double eps = t->attr.norm.eps;
    if (want[0]) dx[0] = op_layernorm_dx(g, dy, t->in[0], t->in[1], eps);
    if (want[1] || want[2]) give_rows(g, op_layernorm_dp(g, dy, t->in[0], eps), want, dx);
}
void op_grad_layernorm_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}
void op_grad_layernorm_dp(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}

Tensor *op_groupnorm(Graph *g, Tensor *x, Tensor *gamma, Tensor *beta, int groups, double eps,
                     bool silu) {
    return NODE(g, OP_groupnorm, ((OpAttr){.norm = {eps, groups, silu}}), x, gamma, beta);
}
Tensor *op_groupnorm_dx(Graph *g, Tensor *dy, Tensor *x, Tensor *gamma, Tensor *beta, int groups,
                        double eps, bool silu) {
    return NODE(g, OP_groupnorm_dx, ((OpAttr){.norm = {eps, groups, silu}}), dy, x, gamma, beta);
}
Tensor *op_groupnorm_dp(Graph *g, Tensor *dy, Tensor *x, Tensor *gamma, Tensor *beta, int groups,
                        double eps, bool silu) {
    return NODE(g, OP_groupnorm_dp, ((OpAttr){.norm = {eps, groups, silu}}), dy, x, gamma, beta);
}

static Err groupnorm_check(const Tensor *t, const Tensor *x, const Tensor *gamma,
                           const Tensor *beta) {
    WANT(x->shape.rank >= 2 && t->attr.norm.groups > 0 && last_dim(x) % t->attr.norm.groups == 0,
         "%lld channels do not split into %d groups", (long long)last_dim(x), t->attr.norm.groups);
    TRY(vector_of(gamma, last_dim(x)));
    return vector_of(beta, last_dim(x));
}
Err op_shape_groupnorm(Tensor *t) {
    t->shape = t->in[0]->shape;
    return groupnorm_check(t, t->in[0], t->in[1], t->in[2]);
}
Err op_shape_groupnorm_dx(Tensor *t) {
    t->shape = t->in[1]->shape;
    WANT(shape_equal(t->in[0]->shape, t->shape), "dy and x must have one shape");
    return groupnorm_check(t, t->in[1], t->in[2], t->in[3]);
}
Err op_shape_groupnorm_dp(Tensor *t) {
    TRY(op_shape_groupnorm_dx(t));
    t->shape = SHAPE(2, last_dim(t->in[1]));
    return ERR_OK;
}

void op_grad_groupnorm(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    Tensor *x = t->in[0], *gamma = t->in[1], *beta = t->in[2];
    int groups = t->attr.norm.groups;
    double eps = t->attr.norm.eps;
    bool silu = t->attr.norm.silu;
    if (want[0]) dx[0] = op_groupnorm_dx(g, dy, x, gamma, beta, groups, eps, silu);
    if (want[1] || want[2])
        give_rows(g, op_groupnorm_dp(g, dy, x, gamma, beta, groups, eps, silu), want, dx);
}
void op_grad_groupnorm_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}
void op_grad_groupnorm_dp(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}
