// Data movement: every element of the result is one element of the input, a zero, or a weighted sum.
#include "common/tensor/ref/ref.h"

REF_OP(copy) {
    RefIn x = ref_in(s, 0);
    for (int64_t i = 0; i < ref_count(s); i++) ref_put(s, i, ref_get(&x, i));
}

REF_OP(permute) {
    RefIn x = ref_in(s, 0);
    int64_t y_at[TENSOR_DIMS_MAX], x_at[TENSOR_DIMS_MAX];
    for (int64_t i = 0; i < ref_count(s); i++) {
        ref_coords(s->node->shape, i, y_at);
        for (int k = 0; k < x.t->shape.rank; k++) x_at[s->node->attr.permute.perm[k]] = y_at[k];
        ref_put(s, i, ref_get(&x, ref_index(x.t->shape, x_at)));
    }
}

REF_OP(pad) {
    RefIn x = ref_in(s, 0);
    double *y = ref_zero(s);
    int64_t at[TENSOR_DIMS_MAX];
    for (int64_t i = 0; i < shape_count(x.t->shape); i++) {
        ref_coords(x.t->shape, i, at);
        for (int k = 0; k < x.t->shape.rank; k++) at[k] += s->node->attr.pad.lo[k];
        y[ref_index(s->node->shape, at)] = ref_get(&x, i);
    }
}

REF_OP(concat) {
    int axis = s->node->attr.index.axis;
    int64_t at[TENSOR_DIMS_MAX], start = 0;
    for (int k = 0; k < s->node->in_cnt; k++) {
        RefIn x = ref_in(s, k);
        for (int64_t i = 0; i < shape_count(x.t->shape); i++) {
            ref_coords(x.t->shape, i, at);
            at[axis] += start;
            ref_put(s, ref_index(s->node->shape, at), ref_get(&x, i));
        }
        start += x.t->shape.dim[axis];
    }
}

REF_OP(expand) {
    RefIn x = ref_in(s, 0);
    int64_t at[TENSOR_DIMS_MAX];
    for (int64_t i = 0; i < ref_count(s); i++) {
        ref_coords(s->node->shape, i, at);
        for (int k = 0; k < x.t->shape.rank; k++)
            if (x.t->shape.dim[k] == 1) at[k] = 0;
        ref_put(s, i, ref_get(&x, ref_index(x.t->shape, at)));
    }
}

// ---- gather, scatter_add: tensors as (outer, rows, inner) ----

typedef struct Rows {
    int64_t outer, long_cnt, idx_cnt, inner; // long: what idx points into
} Rows;

static Rows rows_of(const Tensor *indexed, const Tensor *t) {
    const Shape s = indexed->shape;
    int axis = t->attr.index.axis;
    const Shape idx = t->in[1]->shape;
    return (Rows){shape_span(s, 0, axis), s.dim[axis], idx.dim[idx.rank - 1],
                  shape_span(s, axis + 1, s.rank)};
}

static int64_t row_at(const RefIn *idx, Rows r, int64_t o, int64_t j) {
    int64_t row = (int64_t)ref_get(idx, idx->t->shape.rank == 2 ? o * r.idx_cnt + j : j);
    die_unless(row >= 0 && row < r.long_cnt, "%s: index %lld of %lld", idx->t->name, (long long)row,
               (long long)r.long_cnt);
    return row;
}

REF_OP(gather) {
    RefIn x = ref_in(s, 0), idx = ref_in(s, 1);
    Rows r = rows_of(x.t, s->node);
    for (int64_t o = 0; o < r.outer; o++)
        for (int64_t j = 0; j < r.idx_cnt; j++) {
            int64_t row = row_at(&idx, r, o, j);
            for (int64_t i = 0; i < r.inner; i++)
                ref_put(s, (o * r.idx_cnt + j) * r.inner + i,
                        ref_get(&x, (o * r.long_cnt + row) * r.inner + i));
        }
}

REF_OP(scatter_add) {
    RefIn x = ref_in(s, 0), idx = ref_in(s, 1);
    Rows r = rows_of(s->node, s->node);
    double *y = ref_zero(s);
    for (int64_t o = 0; o < r.outer; o++)
        for (int64_t j = 0; j < r.idx_cnt; j++) {
            int64_t row = row_at(&idx, r, o, j);
            for (int64_t i = 0; i < r.inner; i++)
                y[(o * r.long_cnt + row) * r.inner + i] +=
                    ref_get(&x, (o * r.idx_cnt + j) * r.inner + i);
        }
}

// ---- patchify, unpatchify ----

// Place in (N, L, C*pt*ph*pw) of element i of the video (N, T, H, W, C).
static int64_t patch_index(const Tensor *t, Shape video, int64_t i) {
    int64_t at[TENSOR_DIMS_MAX], pt = t->attr.patch.pt, ph = t->attr.patch.ph,
                                 pw = t->attr.patch.pw;
    ref_coords(video, i, at);
    int64_t n = at[0], f = at[1], h = at[2], w = at[3], c = at[4];
    int64_t rows = video.dim[1] / pt, lines = video.dim[2] / ph, columns = video.dim[3] / pw;
    int64_t token = ((n * rows + f / pt) * lines + h / ph) * columns + w / pw;
    return (((token * video.dim[4] + c) * pt + f % pt) * ph + h % ph) * pw + w % pw;
}

REF_OP(patchify) {
    RefIn x = ref_in(s, 0);
    for (int64_t i = 0; i < ref_count(s); i++)
        ref_put(s, patch_index(s->node, x.t->shape, i), ref_get(&x, i));
}

REF_OP(unpatchify) {
    RefIn x = ref_in(s, 0);
    for (int64_t i = 0; i < ref_count(s); i++)
        ref_put(s, i, ref_get(&x, patch_index(s->node, s->node->shape, i)));
}

// ---- upsample2x, resize ----

// Place in the small picture of element i of the one twice as large.
static int64_t half_index(Shape small, Shape large, int64_t i) {
    int64_t at[TENSOR_DIMS_MAX];
    ref_coords(large, i, at);
    at[2] /= 2, at[3] /= 2;
    return ref_index(small, at);
}

REF_OP(upsample2x) {
    RefIn x = ref_in(s, 0);
    for (int64_t i = 0; i < ref_count(s); i++)
        ref_put(s, i, ref_get(&x, half_index(x.t->shape, s->node->shape, i)));
}

REF_OP(upsample2x_dx) {
    RefIn dy = ref_in(s, 0);
    double *dx = ref_zero(s);
    for (int64_t i = 0; i < shape_count(dy.t->shape); i++)
        dx[half_index(s->node->shape, dy.t->shape, i)] += ref_get(&dy, i);
}

// One output pixel's share of one input pixel.
typedef void TapFn(double *out, const RefIn *in, int64_t y_place, int64_t x_place, double weight);

// Calls fn for every pixel of y (N, T, Ho, Wo, C), every tap inside x (N, T, h, w, C), every channel.
static void each_tap(Step *s, Shape x, Shape y, TapFn *fn) {
    RefIn in = ref_in(s, 0), h_start = ref_in(s, 1), h_tap = ref_in(s, 2), w_start = ref_in(s, 3),
          w_tap = ref_in(s, 4);
    int64_t kh = h_tap.t->shape.dim[1], kw = w_tap.t->shape.dim[1], at[TENSOR_DIMS_MAX];
    double *out = ref_zero(s);
    for (int64_t i = 0; i < shape_count(y); i++) {
        ref_coords(y, i, at);
        int64_t row = at[2], column = at[3];
        for (int64_t a = 0; a < kh; a++)
            for (int64_t b = 0; b < kw; b++) {
                at[2] = (int64_t)ref_get(&h_start, row) + a;
                at[3] = (int64_t)ref_get(&w_start, column) + b;
                if (at[2] >= x.dim[2] || at[3] >= x.dim[3]) continue;
                double weight = ref_get(&h_tap, row * kh + a) * ref_get(&w_tap, column * kw + b);
                fn(out, &in, i, ref_index(x, at), weight);
            }
    }
}

static void take(double *y, const RefIn *x, int64_t y_place, int64_t x_place, double weight) {
    y[y_place] += weight * ref_get(x, x_place);
}
static void give(double *dx, const RefIn *dy, int64_t y_place, int64_t x_place, double weight) {
    dx[x_place] += weight * ref_get(dy, y_place);
}

REF_OP(resize) { each_tap(s, s->node->in[0]->shape, s->node->shape, take); }
REF_OP(resize_dx) { each_tap(s, s->node->shape, s->node->in[0]->shape, give); }
