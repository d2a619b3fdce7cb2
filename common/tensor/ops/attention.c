// Scaled dot product attention. The backward pass recomputes the probabilities, so nothing is saved.
#include "common/tensor/ops/rules.h"

static OpAttr sdpa_attr(int heads, int axis, double scale, bool causal) {
    return (OpAttr){.sdpa = {.heads = heads, .axis = axis, .scale = scale, .causal = causal}};
}

Tensor *op_sdpa(Graph *g, Tensor *q, Tensor *k, Tensor *v, int heads, int axis, double scale,
                bool causal) {
    return NODE(g, OP_sdpa, sdpa_attr(heads, axis, scale, causal), q, k, v);
}

Tensor *op_sdpa_back(Graph *g, Tensor *dy, Tensor *q, Tensor *k, Tensor *v, int heads, int axis,
                     double scale, bool causal) {
    return NODE(g, OP_sdpa_back, sdpa_attr(heads, axis, scale, causal), dy, q, k, v);
}

static Err sdpa_check(const Tensor *t, const Tensor *q, const Tensor *k, const Tensor *v) {
    int axis = t->attr.sdpa.axis;
    WANT(axis == 1 || axis == 2, "tokens lie on axis 1 or 2, not %d", axis);
    WANT(q->shape.rank == 4 && k->shape.rank == 4 && shape_equal(k->shape, v->shape),
         "want q, k, v (B, T, S, C), k and v of one shape");
    WANT(t->attr.sdpa.heads > 0 && last_dim(q) % t->attr.sdpa.heads == 0,
         "%lld channels do not split into %d heads", (long long)last_dim(q), t->attr.sdpa.heads);
    for (int i = 0; i < 4; i++)
        WANT(i == axis || q->shape.dim[i] == k->shape.dim[i], "q and k differ on axis %d", i);
    WANT(!t->attr.sdpa.causal || q->shape.dim[axis] == k->shape.dim[axis],
         "causal needs as many keys as queries");
    return ERR_OK;
}

Err op_shape_sdpa(Tensor *t) {
    t->shape = t->in[0]->shape;
    return sdpa_check(t, t->in[0], t->in[1], t->in[2]);
}

void op_grad_sdpa(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    Tensor *flat = op_sdpa_back(g, dy, t->in[0], t->in[1], t->in[2], t->attr.sdpa.heads,
                                t->attr.sdpa.axis, t->attr.sdpa.scale, t->attr.sdpa.causal);
    int64_t at = 0;
    for (int i = 0; i < 3 && flat; i++) {
        int64_t cnt = shape_count(t->in[i]->shape);
        if (want[i]) dx[i] = op_reshape(g, op_slice(g, flat, 0, at, cnt), t->in[i]->shape);
        at += cnt;
    }
}

Err op_shape_sdpa_back(Tensor *t) {
    TRY(sdpa_check(t, t->in[1], t->in[2], t->in[3]));
    WANT(shape_equal(t->in[0]->shape, t->in[1]->shape), "dy must have the shape of q");
    t->shape = SHAPE(shape_count(t->in[1]->shape) + 2 * shape_count(t->in[2]->shape));
    return ERR_OK;
}

void op_grad_sdpa_back(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    no_gradient(g, t);
}
