// graph: the node list, names, views and the sticky error.
#include "common/tensor/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Shape shape_make(int rank, const int64_t *dim) {
    die_unless(rank >= 0 && rank <= TENSOR_DIMS_MAX, "shape of rank %d", rank);
    Shape s = {.rank = rank};
    for (int i = 0; i < TENSOR_DIMS_MAX; i++) s.dim[i] = i < rank ? dim[i] : 1;
    return s;
}

int64_t shape_span(Shape s, int from, int to) {
    int64_t n = 1;
    for (int i = from; i < to; i++) n *= s.dim[i];
    return n;
}

int64_t shape_count(Shape s) { return shape_span(s, 0, s.rank); }

bool shape_equal(Shape a, Shape b) {
    return a.rank == b.rank && !memcmp(a.dim, b.dim, sizeof a.dim);
}

char *shape_text(Shape s, char buf[96]) {
    int n = snprintf(buf, 96, "(");
    for (int i = 0; i < s.rank && n < 96; i++)
        n += snprintf(buf + n, (size_t)(96 - n), i ? ", %lld" : "%lld", (long long)s.dim[i]);
    if (n < 96) snprintf(buf + n, (size_t)(96 - n), ")");
    return buf;
}

Graph *graph_new(void) {
    Graph *g = calloc(1, sizeof *g);
    die_unless(g, "graph: out of memory");
    return g;
}

void graph_free(Graph *g) {
    if (!g) return;
    free(g->node);
    arena_free(&g->arena);
    free(g);
}

Err graph_check(const Graph *g) {
    if (g->err) FAIL(g->err, "%s", g->err_msg);
    return ERR_OK;
}

Tensor *graph_fail(Graph *g, Err code, const char *fmt, ...) {
    if (g->err) return NULL;
    va_list ap;
    va_start(ap, fmt);
    g->err_msg = arena_vprintf(&g->arena, fmt, ap);
    va_end(ap);
    g->err = code;
    return NULL;
}

bool tensor_has_rows(const Tensor *t, int64_t *row_stride) {
    int last = t->shape.rank - 1;
    if (last < 0) return *row_stride = 1, true;
    if (t->stride[last] != 1 && t->shape.dim[last] != 1) return false;
    int inner = last - 1; // the innermost axis before the last that has more than one entry
    while (inner >= 0 && t->shape.dim[inner] == 1) inner--;
    int64_t step = inner >= 0 ? t->stride[inner] : t->shape.dim[last], want = step;
    for (int i = inner; i >= 0; i--) {
        if (t->shape.dim[i] != 1 && t->stride[i] != want) return false;
        want *= t->shape.dim[i];
    }
    *row_stride = step;
    return true;
}

bool tensor_is_contiguous(const Tensor *t) {
    int64_t step;
    if (shape_count(t->shape) <= 1) return true;
    return tensor_has_rows(t, &step) && step == t->shape.dim[t->shape.rank - 1];
}

static void strides_row_major(Tensor *t) {
    int64_t n = 1;
    for (int i = t->shape.rank - 1; i >= 0; i--) {
        t->stride[i] = n;
        n *= t->shape.dim[i];
    }
}

static Tensor *append(Graph *g, Op op, const char *name) {
    if (g->node_cnt == g->node_cap) {
        g->node_cap = g->node_cap ? 2 * g->node_cap : 256;
        g->node = realloc(g->node, (size_t)g->node_cap * sizeof *g->node);
        die_unless(g->node, "graph: out of memory for %d nodes", g->node_cap);
    }
    Tensor *t = arena_new(&g->arena, Tensor);
    t->op = op;
    t->id = g->node_cnt;
    t->segment = g->building_gradient ? 0 : g->segment;
    t->is_gradient = g->building_gradient;
    t->kind = g->building_gradient ? KIND_GRADIENT : KIND_ACTIVATION;
    t->name = name       ? arena_strdup(&g->arena, name)
              : g->scope ? arena_printf(&g->arena, "%s.%s#%d", g->scope, op_info(op)->name, t->id)
                         : arena_printf(&g->arena, "%s#%d", op_info(op)->name, t->id);
    return g->node[g->node_cnt++] = t;
}

static Tensor *append_leaf(Graph *g, Op op, const char *name, DType dtype, Shape shape) {
    char text[96];
    for (int i = 0; i < shape.rank; i++)
        if (shape.dim[i] < 1)
            return graph_fail(g, ERR_SHAPE, "%s: shape %s has an empty dim", name,
                              shape_text(shape, text));
    Tensor *t = append(g, op, name);
    t->dtype = dtype;
    t->shape = shape;
    t->segment = 0;
    strides_row_major(t);
    return t;
}

Tensor *graph_input(Graph *g, const char *name, DType dtype, Shape shape) {
    Tensor *t = append_leaf(g, OP_INPUT, name, dtype, shape);
    if (t) t->kind = KIND_INPUT;
    return t;
}

Tensor *graph_weight(Graph *g, const char *name, DType dtype, Shape shape, const void *data) {
    if (!data) return graph_fail(g, ERR_FORMAT, "weight %s has no data", name);
    Tensor *t = append_leaf(g, OP_WEIGHT, name, dtype, shape);
    if (t) t->kind = KIND_WEIGHT, t->data = data;
    return t;
}

static Tensor *contiguous_copy(Graph *g, Tensor *t) {
    return graph_node(g, OP_copy, (OpAttr){0}, 1, &t);
}

void graph_output(Graph *g, Tensor **t, const char *name) {
    if (!*t) return;
    if ((*t)->op <= OP_VIEW || (*t)->is_output) *t = contiguous_copy(g, *t);
    if (!*t) return;
    (*t)->is_output = true;
    (*t)->kind = KIND_OUTPUT;
    (*t)->name = arena_strdup(&g->arena, name);
}

void graph_scope(Graph *g, const char *fmt, ...) {
    g->scope = NULL;
    if (!fmt) return;
    va_list ap;
    va_start(ap, fmt);
    g->scope = arena_vprintf(&g->arena, fmt, ap);
    va_end(ap);
}

void graph_segment_begin(Graph *g) {
    die_unless(!g->segment, "graph: recompute segments do not nest");
    g->segment = ++g->segment_cnt;
}

void graph_segment_end(Graph *g) { g->segment = 0; }

Tensor *graph_view(Graph *g, Tensor *in, Shape shape, const int64_t *stride, int64_t offset) {
    if (!in) return NULL;
    Tensor *t = append(g, OP_VIEW, NULL);
    t->dtype = in->dtype;
    t->shape = shape;
    t->in_cnt = 1;
    t->in[0] = in;
    memcpy(t->stride, stride, sizeof t->stride[0] * (size_t)shape.rank);
    t->base = in->base ? in->base : in;
    t->offset = in->offset + offset;
    return t;
}

// "x (2, 3), fc.weight (4, 5)"
static char *inputs_text(Graph *g, int cnt, Tensor *const *in) {
    char *s = arena_strdup(&g->arena, ""), buf[96];
    for (int i = 0; i < cnt; i++)
        if (in[i])
            s = arena_printf(&g->arena, "%s%s%s %s", s, *s ? ", " : "", in[i]->name,
                             shape_text(in[i]->shape, buf));
    return s;
}

Tensor *graph_node(Graph *g, Op op, OpAttr attr, int in_cnt, Tensor *const *in) {
    const OpInfo *info = op_info(op);
    die_unless(in_cnt <= info->in_max, "%s: %d inputs", info->name, in_cnt);
    if (g->err) return NULL;
    Tensor *arg[TENSOR_INPUTS_MAX] = {0};
    for (int i = 0; i < in_cnt; i++) {
        if (!in[i] && i < info->in_min) return NULL;
        int64_t row;
        if (in[i] && in[i]->dtype == DTYPE_I32 && !(info->flags & OP_FLAG_INT))
            return graph_fail(g, ERR_SHAPE, "%s: %s is i32, the op takes floats", info->name,
                              in[i]->name);
        arg[i] = in[i];
        if (!in[i] || (info->flags & OP_FLAG_STRIDED) || tensor_is_contiguous(in[i])) continue;
        if ((info->flags & OP_FLAG_ROWS) && tensor_has_rows(in[i], &row)) continue;
        arg[i] = contiguous_copy(g, in[i]);
    }
    Tensor *t = append(g, op, NULL);
    t->attr = attr;
    t->in_cnt = in_cnt;
    memcpy(t->in, arg, sizeof arg);
    t->dtype = DTYPE_F32;
    Err err = info->shape(t);
    if (err) {
        g->node_cnt--;
        return graph_fail(g, err, "%s: %s; inputs: %s", t->name, err_text(),
                          inputs_text(g, in_cnt, in));
    }
    strides_row_major(t);
    return t;
}
