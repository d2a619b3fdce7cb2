// Elementwise operators, with numpy's broadcasting for the four binary ones.
#include "common/tensor/ops/rules.h"

const char *op_unary_name(UnaryKind kind) {
    static const char *const names[] = {
#define UNARY(name, f, df) #name,
#include "common/tensor/unary.def"
#undef UNARY
    };
    return names[kind];
}

static Err same_as(Tensor *t, int i) {
    t->shape = t->in[0]->shape;
    WANT(shape_equal(t->in[i]->shape, t->shape), "shapes must be equal");
    return ERR_OK;
}

static Err shape_of_first(Tensor *t) { return same_as(t, 0); }

Tensor *op_unary(Graph *g, UnaryKind kind, Tensor *x) {
    return NODE(g, OP_unary, ((OpAttr){.unary = {kind}}), x);
}
Tensor *op_unary_dx(Graph *g, UnaryKind kind, Tensor *dy, Tensor *x) {
    return NODE(g, OP_unary_dx, ((OpAttr){.unary = {kind}}), dy, x);
}
Err op_shape_unary(Tensor *t) { return shape_of_first(t); }
Err op_shape_unary_dx(Tensor *t) { return same_as(t, 1); }
void op_grad_unary(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_unary_dx(g, (UnaryKind)t->attr.unary.kind, dy, t->in[0]);
}
void op_grad_unary_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}

Tensor *op_affine(Graph *g, Tensor *x, double a, double b) {
    return NODE(g, OP_affine, ((OpAttr){.affine = {a, b}}), x);
}
Err op_shape_affine(Tensor *t) { return shape_of_first(t); }
void op_grad_affine(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_affine(g, dy, t->attr.affine.a, 0);
}

Tensor *op_clamp(Graph *g, Tensor *x, double lo, double hi) {
    return NODE(g, OP_clamp, ((OpAttr){.affine = {lo, hi}}), x);
}
Tensor *op_clamp_dx(Graph *g, Tensor *dy, Tensor *x, double lo, double hi) {
    return NODE(g, OP_clamp_dx, ((OpAttr){.affine = {lo, hi}}), dy, x);
}
Err op_shape_clamp(Tensor *t) { return shape_of_first(t); }
Err op_shape_clamp_dx(Tensor *t) { return same_as(t, 1); }
void op_grad_clamp(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_clamp_dx(g, dy, t->in[0], t->attr.affine.a, t->attr.affine.b);
}
void op_grad_clamp_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}

// ---- Binary ----

Tensor *op_add(Graph *g, Tensor *a, Tensor *b) { return NODE(g, OP_add, (OpAttr){0}, a, b); }
Tensor *op_sub(Graph *g, Tensor *a, Tensor *b) { return NODE(g, OP_sub, (OpAttr){0}, a, b); }
Tensor *op_mul(Graph *g, Tensor *a, Tensor *b) { return NODE(g, OP_mul, (OpAttr){0}, a, b); }
Tensor *op_div(Graph *g, Tensor *a, Tensor *b) { return NODE(g, OP_div, (OpAttr){0}, a, b); }

static Err shape_broadcast(Tensor *t) {
    const Shape a = t->in[0]->shape, b = t->in[1]->shape;
    t->shape = a.rank >= b.rank ? a : b;
    for (int i = 1; i <= t->shape.rank; i++) {
        int64_t x = i <= a.rank ? a.dim[a.rank - i] : 1, y = i <= b.rank ? b.dim[b.rank - i] : 1;
        WANT(x == y || x == 1 || y == 1, "shapes do not broadcast");
        t->shape.dim[t->shape.rank - i] = x == 1 ? y : x;
    }
    return ERR_OK;
}
Err op_shape_add(Tensor *t) { return shape_broadcast(t); }
Err op_shape_sub(Tensor *t) { return shape_broadcast(t); }
Err op_shape_mul(Tensor *t) { return shape_broadcast(t); }
Err op_shape_div(Tensor *t) { return shape_broadcast(t); }

// Sums dy over what broadcasting repeated, back to the shape of in.
static Tensor *unbroadcast(Graph *g, Tensor *dy, const Tensor *in) {
    if (!dy) return NULL;
    int lead = dy->shape.rank - in->shape.rank;
    unsigned axes = 0;
    for (int i = 0; i < dy->shape.rank; i++)
        if (dy->shape.dim[i] != 1 && (i < lead || in->shape.dim[i - lead] == 1)) axes |= 1u << i;
    return op_reshape(g, axes ? op_sum(g, dy, axes) : dy, in->shape);
}

void op_grad_add(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    for (int i = 0; i < 2; i++)
        if (want[i]) dx[i] = unbroadcast(g, dy, t->in[i]);
}

void op_grad_sub(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    if (want[0]) dx[0] = unbroadcast(g, dy, t->in[0]);
    if (want[1]) dx[1] = op_affine(g, unbroadcast(g, dy, t->in[1]), -1, 0);
}

void op_grad_mul(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    for (int i = 0; i < 2; i++)
        if (want[i]) dx[i] = unbroadcast(g, op_mul(g, dy, t->in[1 - i]), t->in[i]);
}

void op_grad_div(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    Tensor *q = op_div(g, dy, t->in[1]); // dy / b
    if (want[0]) dx[0] = unbroadcast(g, q, t->in[0]);
    if (want[1]) dx[1] = op_affine(g, unbroadcast(g, op_mul(g, q, t), t->in[1]), -1, 0);
}

Tensor *op_lerp(Graph *g, Tensor *a, Tensor *b, Tensor *w) {
    return NODE(g, OP_lerp, (OpAttr){0}, a, b, w);
}

Err op_shape_lerp(Tensor *t) {
    TRY(same_as(t, 1));
    WANT(shape_count(t->in[2]->shape) == 1, "the weight must have one element");
    return ERR_OK;
}

void op_grad_lerp(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    Tensor *db = want[0] || want[1] ? op_mul(g, dy, t->in[2]) : NULL;
    if (want[0]) dx[0] = op_sub(g, dy, db);
    if (want[1]) dx[1] = db;
    if (want[2]) {
        Tensor *s = op_mul(g, op_sub(g, t->in[1], t->in[0]), dy);
        dx[2] = op_reshape(g, op_sum(g, s, (1u << t->shape.rank) - 1), t->in[2]->shape);
    }
}

// ---- Gated and random ----

Tensor *op_geglu(Graph *g, Tensor *x) { return NODE(g, OP_geglu, (OpAttr){0}, x); }
Tensor *op_geglu_dx(Graph *g, Tensor *dy, Tensor *x) {
    return NODE(g, OP_geglu_dx, (OpAttr){0}, dy, x);
}

Err op_shape_geglu(Tensor *t) {
    t->shape = t->in[0]->shape;
    WANT(last_dim(t->in[0]) % 2 == 0, "the last axis must be even");
    t->shape.dim[t->shape.rank - 1] /= 2;
    return ERR_OK;
}
void op_grad_geglu(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_geglu_dx(g, dy, t->in[0]);
}
Err op_shape_geglu_dx(Tensor *t) {
    t->shape = t->in[1]->shape;
    WANT(last_dim(t->in[1]) == 2 * last_dim(t->in[0]), "x must be twice as wide as dy");
    return ERR_OK;
}
void op_grad_geglu_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}

Tensor *op_dropout(Graph *g, Tensor *x, Tensor *key, double p) {
    return p > 0 ? NODE(g, OP_dropout, ((OpAttr){.dropout = {p}}), x, key) : x;
}
Err op_shape_dropout(Tensor *t) {
    t->shape = t->in[0]->shape;
    WANT(t->attr.dropout.p < 1, "dropout probability %g is not below 1", t->attr.dropout.p);
    WANT(t->in[1]->dtype == DTYPE_I32 && shape_count(t->in[1]->shape) == 8,
         "the key must be (8) i32");
    return ERR_OK;
}
void op_grad_dropout(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    if (want[0]) dx[0] = op_dropout(g, dy, t->in[1], t->attr.dropout.p);
}

Tensor *op_sinusoid(Graph *g, Tensor *t, int64_t dim) {
    return NODE(g, OP_sinusoid, ((OpAttr){.sinusoid = {dim}}), t);
}
Tensor *op_sinusoid_dx(Graph *g, Tensor *dy, Tensor *t) {
    if (!dy) return NULL;
    return NODE(g, OP_sinusoid_dx, ((OpAttr){.sinusoid = {last_dim(dy)}}), dy, t);
}
Err op_shape_sinusoid(Tensor *t) {
    WANT(t->in[0]->shape.rank == 1 && t->attr.sinusoid.dim % 2 == 0, "want (n) and an even width");
    t->shape = SHAPE(t->in[0]->shape.dim[0], t->attr.sinusoid.dim);
    return ERR_OK;
}
void op_grad_sinusoid(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_sinusoid_dx(g, dy, t->in[0]);
}
Err op_shape_sinusoid_dx(Tensor *t) {
    t->shape = t->in[1]->shape;
    return ERR_OK;
}
void op_grad_sinusoid_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}
