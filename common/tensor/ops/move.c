// Data movement: views, copies and index maps. Each gradient is the transpose map.
#include <string.h>

#include "common/tensor/ops/rules.h"

static int axis_of(const Tensor *x, int axis) { return axis < 0 ? axis + x->shape.rank : axis; }

// ---- Views ----

Tensor *op_reshape(Graph *g, Tensor *x, Shape shape) {
    if (!x) return NULL;
    char a[96], b[96];
    int64_t known = 1, total = shape_count(x->shape);
    int free_axis = -1;
    for (int i = 0; i < shape.rank; i++) {
        if (shape.dim[i] == -1 && free_axis < 0)
            free_axis = i;
        else
            known *= shape.dim[i];
    }
    if (free_axis >= 0 && known > 0) shape.dim[free_axis] = total / known;
    if (shape_count(shape) != total)
        return graph_fail(g, ERR_SHAPE, "%s: reshape of %s to %s", x->name, shape_text(x->shape, a),
                          shape_text(shape, b));
    if (!tensor_is_contiguous(x)) x = op_copy(g, x, x->dtype);
    if (!x || shape_equal(x->shape, shape)) return x;
    int64_t stride[TENSOR_DIMS_MAX], n = 1;
    for (int i = shape.rank - 1; i >= 0; i--) {
        stride[i] = n;
        n *= shape.dim[i];
    }
    return graph_view(g, x, shape, stride, 0);
}

Tensor *op_slice(Graph *g, Tensor *x, int axis, int64_t start, int64_t len) {
    if (!x) return NULL;
    char a[96];
    axis = axis_of(x, axis);
    if (axis < 0 || axis >= x->shape.rank || start < 0 || len < 1 ||
        start + len > x->shape.dim[axis])
        return graph_fail(g, ERR_SHAPE, "%s: slice [%lld, %lld) of axis %d of %s", x->name,
                          (long long)start, (long long)(start + len), axis,
                          shape_text(x->shape, a));
    if (len == x->shape.dim[axis]) return x;
    Shape shape = x->shape;
    shape.dim[axis] = len;
    Tensor *t = graph_view(g, x, shape, x->stride, start * x->stride[axis]);
    t->attr.pad.lo[axis] = start;
    t->attr.pad.hi[axis] = x->shape.dim[axis] - start - len;
    return t;
}

// ---- copy, permute, pad, concat, expand ----

Tensor *op_copy(Graph *g, Tensor *x, DType dtype) {
    Tensor *t = NODE(g, OP_copy, (OpAttr){0}, x);
    if (t) t->dtype = dtype;
    return t;
}

Err op_shape_copy(Tensor *t) {
    t->shape = t->in[0]->shape;
    t->dtype = t->in[0]->dtype;
    return ERR_OK;
}

void op_grad_copy(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) { dx[0] = dy; }

Tensor *op_permute(Graph *g, Tensor *x, const int *perm) {
    if (!x) return NULL;
    OpAttr attr = {0};
    memcpy(attr.permute.perm, perm, sizeof(int) * (size_t)x->shape.rank);
    return NODE(g, OP_permute, attr, x);
}

Err op_shape_permute(Tensor *t) {
    const Shape in = t->in[0]->shape;
    unsigned seen = 0;
    t->dtype = t->in[0]->dtype;
    t->shape = in;
    for (int i = 0; i < in.rank; i++) {
        int p = t->attr.permute.perm[i];
        WANT(p >= 0 && p < in.rank && !(seen >> p & 1), "entry %d of the permutation is %d", i, p);
        seen |= 1u << p;
        t->shape.dim[i] = in.dim[p];
    }
    return ERR_OK;
}

void op_grad_permute(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    int inverse[TENSOR_DIMS_MAX];
    for (int i = 0; i < t->shape.rank; i++) inverse[t->attr.permute.perm[i]] = i;
    dx[0] = op_permute(g, dy, inverse);
}

Tensor *op_pad(Graph *g, Tensor *x, const int64_t *lo, const int64_t *hi) {
    if (!x) return NULL;
    OpAttr attr = {0};
    memcpy(attr.pad.lo, lo, sizeof *lo * (size_t)x->shape.rank);
    memcpy(attr.pad.hi, hi, sizeof *hi * (size_t)x->shape.rank);
    return NODE(g, OP_pad, attr, x);
}

Err op_shape_pad(Tensor *t) {
    t->shape = t->in[0]->shape;
    for (int i = 0; i < t->shape.rank; i++) {
        WANT(t->attr.pad.lo[i] >= 0 && t->attr.pad.hi[i] >= 0, "negative padding of axis %d", i);
        t->shape.dim[i] += t->attr.pad.lo[i] + t->attr.pad.hi[i];
    }
    return ERR_OK;
}

void op_grad_pad(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    for (int i = 0; i < t->shape.rank; i++)
        dy = op_slice(g, dy, i, t->attr.pad.lo[i], t->in[0]->shape.dim[i]);
    dx[0] = dy;
}

Tensor *op_concat(Graph *g, int axis, int cnt, Tensor *const *x) {
    for (int i = 0; i < cnt; i++)
        if (!x[i]) return NULL;
    return graph_node(g, OP_concat, (OpAttr){.index = {.axis = axis_of(x[0], axis)}}, cnt, x);
}

Err op_shape_concat(Tensor *t) {
    int axis = t->attr.index.axis;
    t->shape = t->in[0]->shape;
    t->dtype = t->in[0]->dtype;
    WANT(axis >= 0 && axis < t->shape.rank, "axis %d of rank %d", axis, t->shape.rank);
    for (int i = 1; i < t->in_cnt; i++) {
        Shape s = t->in[i]->shape;
        t->shape.dim[axis] += s.dim[axis];
        s.dim[axis] = t->shape.dim[axis];
        WANT(shape_equal(s, t->shape), "inputs may differ along axis %d only", axis);
    }
    return ERR_OK;
}

void op_grad_concat(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    int axis = t->attr.index.axis;
    int64_t at = 0;
    for (int i = 0; i < t->in_cnt; at += t->in[i++]->shape.dim[axis])
        if (want[i]) dx[i] = op_slice(g, dy, axis, at, t->in[i]->shape.dim[axis]);
}

Tensor *op_expand(Graph *g, Tensor *x, Shape shape) {
    if (!x || shape_equal(x->shape, shape)) return x;
    OpAttr attr = {0};
    memcpy(attr.pad.lo, shape.dim, sizeof shape.dim); // the wanted dims
    return NODE(g, OP_expand, attr, x);
}

Err op_shape_expand(Tensor *t) {
    const Shape in = t->in[0]->shape;
    t->shape = shape_make(in.rank, t->attr.pad.lo);
    for (int i = 0; i < in.rank; i++)
        WANT(in.dim[i] == 1 || in.dim[i] == t->shape.dim[i],
             "axis %d has %lld entries, want 1 or %lld", i, (long long)in.dim[i],
             (long long)t->shape.dim[i]);
    return ERR_OK;
}

void op_grad_expand(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    unsigned axes = 0;
    for (int i = 0; i < t->shape.rank; i++)
        if (t->in[0]->shape.dim[i] != t->shape.dim[i]) axes |= 1u << i;
    dx[0] = op_sum(g, dy, axes);
}

// ---- gather, scatter_add ----

static Tensor *index_node(Graph *g, Op op, Tensor *x, Tensor *idx, int axis, int64_t len) {
    if (!x || !idx) return NULL;
    return NODE(g, op, ((OpAttr){.index = {.axis = axis_of(x, axis), .len = len}}), x, idx);
}

Tensor *op_gather(Graph *g, Tensor *x, Tensor *idx, int axis) {
    return index_node(g, OP_gather, x, idx, axis, 0);
}

Tensor *op_scatter_add(Graph *g, Tensor *x, Tensor *idx, int axis, int64_t len) {
    return index_node(g, OP_scatter_add, x, idx, axis, len);
}

// idx is (M), or (N, M) with N = product of the dims before axis. *m receives M.
static Err index_check(const Tensor *t, int64_t *m) {
    const Tensor *x = t->in[0], *idx = t->in[1];
    int axis = t->attr.index.axis;
    WANT(axis >= 0 && axis < x->shape.rank, "axis %d of rank %d", axis, x->shape.rank);
    WANT(x->dtype != DTYPE_I32, "%s is i32, the op takes floats", x->name);
    WANT(idx->dtype == DTYPE_I32, "indices are %s, want i32", dtype_name(idx->dtype));
    WANT(idx->shape.rank == 1 ||
             (idx->shape.rank == 2 && idx->shape.dim[0] == shape_span(x->shape, 0, axis)),
         "indices must be (M) or (%lld, M)", (long long)shape_span(x->shape, 0, axis));
    *m = last_dim(idx);
    return ERR_OK;
}

Err op_shape_gather(Tensor *t) {
    int64_t m = 0;
    TRY(index_check(t, &m));
    t->shape = t->in[0]->shape;
    t->shape.dim[t->attr.index.axis] = m;
    return ERR_OK;
}

void op_grad_gather(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    int axis = t->attr.index.axis;
    if (want[0]) dx[0] = op_scatter_add(g, dy, t->in[1], axis, t->in[0]->shape.dim[axis]);
}

Err op_shape_scatter_add(Tensor *t) {
    int64_t m = 0;
    TRY(index_check(t, &m));
    t->shape = t->in[0]->shape;
    WANT(t->shape.dim[t->attr.index.axis] == m, "%lld rows but %lld indices",
         (long long)t->shape.dim[t->attr.index.axis], (long long)m);
    t->shape.dim[t->attr.index.axis] = t->attr.index.len;
    return ERR_OK;
}

void op_grad_scatter_add(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    if (want[0]) dx[0] = op_gather(g, dy, t->in[1], t->attr.index.axis);
}

// ---- patchify, unpatchify ----

Tensor *op_patchify(Graph *g, Tensor *x, int pt, int ph, int pw) {
    return NODE(g, OP_patchify, ((OpAttr){.patch = {.pt = pt, .ph = ph, .pw = pw}}), x);
}

Tensor *op_unpatchify(Graph *g, Tensor *x, int pt, int ph, int pw, int64_t t, int64_t h, int64_t w,
                      int64_t c) {
    return NODE(g, OP_unpatchify, ((OpAttr){.patch = {pt, ph, pw, t, h, w, c}}), x);
}

Err op_shape_patchify(Tensor *t) {
    const Shape s = t->in[0]->shape;
    int pt = t->attr.patch.pt, ph = t->attr.patch.ph, pw = t->attr.patch.pw;
    WANT(s.rank == 5, "want (N, T, H, W, C)");
    WANT(s.dim[1] % pt == 0 && s.dim[2] % ph == 0 && s.dim[3] % pw == 0,
         "(T, H, W) is not a multiple of (%d, %d, %d)", pt, ph, pw);
    t->shape =
        SHAPE(s.dim[0], s.dim[1] / pt * (s.dim[2] / ph) * (s.dim[3] / pw), s.dim[4] * pt * ph * pw);
    return ERR_OK;
}

void op_grad_patchify(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    const int64_t *d = t->in[0]->shape.dim;
    dx[0] = op_unpatchify(g, dy, t->attr.patch.pt, t->attr.patch.ph, t->attr.patch.pw, d[1], d[2],
                          d[3], d[4]);
}

Err op_shape_unpatchify(Tensor *t) {
    const Shape s = t->in[0]->shape;
    int64_t T = t->attr.patch.t, H = t->attr.patch.h, W = t->attr.patch.w, C = t->attr.patch.c;
    int64_t one = (int64_t)t->attr.patch.pt * t->attr.patch.ph * t->attr.patch.pw;
    WANT(s.rank == 3 && s.dim[2] == C * one && s.dim[1] * one == T * H * W, "want (N, %lld, %lld)",
         (long long)(T * H * W / one), (long long)(C * one));
    t->shape = SHAPE(s.dim[0], T, H, W, C);
    return ERR_OK;
}

void op_grad_unpatchify(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_patchify(g, dy, t->attr.patch.pt, t->attr.patch.ph, t->attr.patch.pw);
}

// ---- upsample2x, resize ----

Tensor *op_upsample2x(Graph *g, Tensor *x) { return NODE(g, OP_upsample2x, (OpAttr){0}, x); }
Tensor *op_upsample2x_dx(Graph *g, Tensor *dy) {
    return NODE(g, OP_upsample2x_dx, (OpAttr){0}, dy);
}

Err op_shape_upsample2x(Tensor *t) {
    t->shape = t->in[0]->shape;
    WANT(t->shape.rank == 5, "want (N, T, H, W, C)");
    t->shape.dim[2] *= 2;
    t->shape.dim[3] *= 2;
    return ERR_OK;
}

void op_grad_upsample2x(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_upsample2x_dx(g, dy);
}

Err op_shape_upsample2x_dx(Tensor *t) {
    t->shape = t->in[0]->shape;
    WANT(t->shape.rank == 5 && t->shape.dim[2] % 2 == 0 && t->shape.dim[3] % 2 == 0,
         "want (N, T, 2H, 2W, C)");
    t->shape.dim[2] /= 2;
    t->shape.dim[3] /= 2;
    return ERR_OK;
}

void op_grad_upsample2x_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    dx[0] = op_upsample2x(g, dy);
}

Tensor *op_resize(Graph *g, Tensor *x, Tensor *h_start, Tensor *h_tap, Tensor *w_start,
                  Tensor *w_tap) {
    return NODE(g, OP_resize, (OpAttr){0}, x, h_start, h_tap, w_start, w_tap);
}

Tensor *op_resize_dx(Graph *g, Tensor *dy, Tensor *h_start, Tensor *h_tap, Tensor *w_start,
                     Tensor *w_tap, int64_t h, int64_t w) {
    return NODE(g, OP_resize_dx, ((OpAttr){.resize = {h, w}}), dy, h_start, h_tap, w_start, w_tap);
}

static Err resize_check(const Tensor *t) {
    WANT(t->in[0]->shape.rank == 5, "want (N, T, H, W, C)");
    for (int i = 1; i < 5; i += 2) {
        WANT(t->in[i]->dtype == DTYPE_I32 && t->in[i]->shape.rank == 1, "start must be (out) i32");
        WANT(t->in[i + 1]->shape.rank == 2 && t->in[i + 1]->shape.dim[0] == t->in[i]->shape.dim[0],
             "taps must be (out, K)");
    }
    return ERR_OK;
}

Err op_shape_resize(Tensor *t) {
    TRY(resize_check(t));
    t->shape = t->in[0]->shape;
    t->shape.dim[2] = t->in[1]->shape.dim[0];
    t->shape.dim[3] = t->in[3]->shape.dim[0];
    return ERR_OK;
}

void op_grad_resize(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    const int64_t *d = t->in[0]->shape.dim;
    if (want[0]) dx[0] = op_resize_dx(g, dy, t->in[1], t->in[2], t->in[3], t->in[4], d[2], d[3]);
}

Err op_shape_resize_dx(Tensor *t) {
    TRY(resize_check(t));
    t->shape = t->in[0]->shape;
    WANT(t->shape.dim[2] == t->in[1]->shape.dim[0] && t->shape.dim[3] == t->in[3]->shape.dim[0],
         "the taps are for another output size");
    t->shape.dim[2] = t->attr.resize.h;
    t->shape.dim[3] = t->attr.resize.w;
    return ERR_OK;
}

void op_grad_resize_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    if (want[0]) dx[0] = op_resize(g, dy, t->in[1], t->in[2], t->in[3], t->in[4]);
}
