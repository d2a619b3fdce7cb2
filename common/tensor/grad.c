// grad: one backward walk over the node list. The list is the tape.
//
// 1. active[i]: a path leads from wrt to node i. Only active nodes carry cotangents.
// 2. Walk from the last node to the first; the cotangent of a node is complete when it is reached,
//    because all its readers come later in the list.
// 3. The first node met of a recompute segment appends copies of the whole segment; rules of the
//    segment's nodes then read the copies. What nobody reads is dropped by the plan.
#include "common/tensor/grad.h"

#include <stdlib.h>
#include <string.h>

#include "common/tensor/op.h"

typedef struct Walk {
    Graph *g;
    int cnt;       // nodes that existed before
    bool *active;  // [cnt]
    Tensor **cot;  // [cnt] accumulated cotangent, NULL = none yet
    Tensor **copy; // [cnt] the recomputed twin, NULL = read the node itself
    bool *redone;  // [segment_cnt + 1]
} Walk;

static Tensor *twin(const Walk *w, Tensor *t) {
    return t && t->id < w->cnt && w->copy[t->id] ? w->copy[t->id] : t;
}

// Appends copies of the nodes of segment s, in order.
static void redo_segment(Walk *w, int s) {
    w->redone[s] = true;
    for (int i = 0; i < w->cnt; i++) {
        Tensor *t = w->g->node[i];
        if (t->segment != s) continue;
        graph_scope(w->g, "again/%s", t->name);
        if (t->op == OP_VIEW) {
            Tensor *in = twin(w, t->in[0]);
            w->copy[i] = graph_view(w->g, in, t->shape, t->stride, t->offset - t->in[0]->offset);
            if (w->copy[i]) w->copy[i]->attr = t->attr;
        } else {
            Tensor *in[TENSOR_INPUTS_MAX];
            for (int k = 0; k < t->in_cnt; k++) in[k] = twin(w, t->in[k]);
            w->copy[i] = graph_node(w->g, t->op, t->attr, t->in_cnt, in);
            if (w->copy[i]) w->copy[i]->dtype = t->dtype;
        }
        if (w->copy[i]) w->copy[i]->kind = KIND_ACTIVATION;
    }
}

static void view_grad(Graph *g, const Tensor *t, Tensor *dy, Tensor **dx) {
    const Tensor *in = t->in[0];
    if (shape_count(in->shape) == shape_count(t->shape))
        dx[0] = op_reshape(g, dy, in->shape);
    else
        dx[0] = op_pad(g, dy, t->attr.pad.lo, t->attr.pad.hi);
}

static void accumulate(Walk *w, const Tensor *t, Tensor *dx) {
    Tensor **cot = &w->cot[t->id];
    *cot = *cot ? op_add(w->g, *cot, dx) : dx;
}

static void node_grad(Walk *w, Tensor *t) {
    bool want[TENSOR_INPUTS_MAX] = {0}, any = false;
    for (int k = 0; k < t->in_cnt; k++)
        if (t->in[k]) any |= want[k] = w->active[t->in[k]->id];
    if (!any) return;
    if (t->segment && !w->redone[t->segment]) redo_segment(w, t->segment);
    Tensor *dx[TENSOR_INPUTS_MAX] = {0};
    graph_scope(w->g, "grad/%s", t->name);
    if (t->op == OP_VIEW)
        view_grad(w->g, t, w->cot[t->id], dx);
    else
        op_info(t->op)->grad(w->g, twin(w, t), w->cot[t->id], want, dx);
    for (int k = 0; k < t->in_cnt; k++)
        if (want[k] && dx[k]) accumulate(w, t->in[k], dx[k]);
}

static void mark_active(Walk *w, int wrt_cnt, Tensor *const *wrt) {
    for (int j = 0; j < wrt_cnt; j++)
        if (wrt[j]) w->active[wrt[j]->id] = true;
    for (int i = 0; i < w->cnt; i++) {
        Tensor *t = w->g->node[i];
        if (t->dtype == DTYPE_I32) continue;
        for (int k = 0; k < t->in_cnt; k++)
            if (t->in[k] && w->active[t->in[k]->id]) w->active[i] = true;
    }
}

static Err seed(Walk *w, int out_cnt, Tensor *const *out, Tensor *const *cot) {
    char a[96], b[96];
    for (int k = 0; k < out_cnt; k++) {
        if (!out[k] || !cot[k])
            FAIL(ERR_USAGE, "gradient: output %d or its cotangent is missing", k);
        if (!shape_equal(out[k]->shape, cot[k]->shape))
            FAIL(ERR_SHAPE, "gradient: cotangent %s %s of output %s %s", cot[k]->name,
                 shape_text(cot[k]->shape, a), out[k]->name, shape_text(out[k]->shape, b));
        if (w->active[out[k]->id]) accumulate(w, out[k], cot[k]);
    }
    return ERR_OK;
}

static Err walk_back(Walk *w, int out_cnt, Tensor *const *out, Tensor *const *cot, int wrt_cnt,
                     Tensor *const *wrt, Tensor **dx) {
    mark_active(w, wrt_cnt, wrt);
    TRY(seed(w, out_cnt, out, cot));
    for (int i = w->cnt - 1; i >= 0 && !w->g->err; i--)
        if (w->cot[i]) node_grad(w, w->g->node[i]);
    for (int j = 0; j < wrt_cnt; j++) dx[j] = wrt[j] ? w->cot[wrt[j]->id] : NULL;
    return graph_check(w->g);
}

Err grad_build(Graph *g, int out_cnt, Tensor *const *out, Tensor *const *cot, int wrt_cnt,
               Tensor *const *wrt, Tensor **dx) {
    TRY(graph_check(g));
    size_t cnt = (size_t)g->node_cnt;
    Walk w = {.g = g, .cnt = g->node_cnt};
    w.active = calloc(cnt + 1, sizeof *w.active);
    w.cot = calloc(cnt + 1, sizeof *w.cot);
    w.copy = calloc(cnt + 1, sizeof *w.copy);
    w.redone = calloc((size_t)g->segment_cnt + 1, sizeof *w.redone);
    die_unless(w.active && w.cot && w.copy && w.redone, "gradient: out of memory for %zu nodes",
               cnt);
    g->building_gradient = true;
    Err err = walk_back(&w, out_cnt, out, cot, wrt_cnt, wrt, dx);
    g->building_gradient = false;
    graph_scope(g, NULL);
    free(w.active);
    free(w.cot);
    free(w.copy);
    free(w.redone);
    return err;
}
