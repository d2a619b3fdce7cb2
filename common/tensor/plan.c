// plan: from a graph to steps, memory offsets and a table.
//
// Compilation, in order: mark what outputs need; make a step per node that has a kernel; let the
// backend prepare each; find the life of every buffer; place buffers largest first; resolve pointers.
//
// A buffer is the memory of one root tensor (views belong to their base's), of an in-place chain, or
// of a step's workspace. Inputs and outputs have memory of their own outside the arena, so that they
// can be bound to the caller's.
#include "common/tensor/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/tensor/op.h"

enum { ALIGN = 64, NONE = -1, TOP_CNT = 5 };

typedef struct Buffer {
    uint64_t bytes, offset;
    int first, last;      // steps, inclusive
    const Tensor *tensor; // the first tensor to live here; NULL = workspace
    TensorKind kind;
} Buffer;

// What the plan knows of one node, by node id.
typedef struct Slot {
    bool needed;
    int last_use;   // last step that reads it (or its views); cnt = kept to the end
    int buffer;     // arena buffer of a root, or NONE
    void *io;       // inputs and outputs: current storage
    void *io_owned; // what plan_new allocated for it
} Slot;

struct Plan {
    Graph *g;
    Backend *be;
    PlanOptions opt;
    Arena arena; // steps, buffers, kernel states
    Slot *slot;  // [node_cnt]
    int node_cnt;
    Step *step; // [step_cnt]
    int step_cnt;
    int *work_buffer; // [step_cnt]
    Buffer *buffer;   // [buffer_cnt]
    int buffer_cnt;
    int peak_step;
    unsigned char *memory; // arena_bytes
    PlanMemory table;
    PlanObserver *observer;
    void *observer_ctx;
};

static uint64_t align_up(uint64_t n) { return (n + ALIGN - 1) & ~(uint64_t)(ALIGN - 1); }
static const Tensor *root_of(const Tensor *t) { return t->base ? t->base : t; }
static bool is_io(const Tensor *t) { return t->op == OP_INPUT || t->is_output; }

static size_t element_bytes(const Plan *p, const Tensor *t) {
    return t->op == OP_WEIGHT ? dtype_bytes(t->dtype) : p->be->dtype_bytes(t->dtype);
}
static uint64_t tensor_bytes(const Plan *p, const Tensor *t) {
    return (uint64_t)shape_count(t->shape) * element_bytes(p, t);
}
// The type in which the backend stores t.
static DType storage_type(const Plan *p, const Tensor *t) {
    bool wide = t->dtype != DTYPE_F64 && dtype_is_float(t->dtype) && element_bytes(p, t) == 8;
    return wide ? DTYPE_F64 : t->dtype;
}

// ---- Steps ----

static void mark_needed(Plan *p) {
    for (int i = p->node_cnt - 1; i >= 0; i--) {
        const Tensor *t = p->g->node[i];
        if (t->is_output) p->slot[i].needed = true;
        if (!p->slot[i].needed) continue;
        for (int k = 0; k < t->in_cnt; k++)
            if (t->in[k]) p->slot[t->in[k]->id].needed = true;
        p->table.run_cnt += t->op > OP_VIEW;
    }
}

static Err make_steps(Plan *p) {
    p->step = arena_array(&p->arena, Step, p->table.run_cnt + 1);
    for (int i = 0; i < p->node_cnt; i++) {
        const Tensor *t = p->g->node[i];
        if (!p->slot[i].needed || t->op <= OP_VIEW) continue;
        const Kernel *kernel = &p->be->kernel[t->op];
        if (!kernel->run)
            FAIL(ERR_DEVICE, "%s: the %s backend has no %s", t->name, p->be->name,
                 op_info(t->op)->name);
        Step *s = &p->step[p->step_cnt++];
        *s = (Step){.node = t, .arena = &p->arena};
        if (kernel->prepare) TRY(kernel->prepare(p->be, s));
        p->table.flops += op_flops(t);
    }
    return ERR_OK;
}

// ---- Lives and buffers ----

static void find_last_uses(Plan *p) {
    for (int i = 0; i < p->node_cnt; i++)
        p->slot[i] = (Slot){.needed = p->slot[i].needed, .last_use = NONE, .buffer = NONE};
    for (int s = 0; s < p->step_cnt; s++) {
        const Tensor *t = p->step[s].node;
        for (int k = 0; k < t->in_cnt; k++)
            if (t->in[k]) p->slot[root_of(t->in[k])->id].last_use = s;
    }
}

// The step may write over in[0]: same bytes, nobody reads it afterwards, no other input shares it.
static bool can_run_in_place(const Plan *p, int s) {
    const Tensor *t = p->step[s].node, *in = t->in[0];
    if (p->opt.no_reuse || !(op_info(t->op)->flags & OP_FLAG_INPLACE) || t->is_output) return false;
    const Tensor *root = root_of(in);
    if (root->op <= OP_VIEW || root->is_output || p->slot[root->id].last_use != s) return false;
    if (!shape_equal(in->shape, t->shape) || in->dtype != t->dtype || !tensor_is_contiguous(in) ||
        shape_count(root->shape) != shape_count(t->shape))
        return false;
    for (int k = 1; k < t->in_cnt; k++)
        if (t->in[k] && root_of(t->in[k]) == root) return false;
    return true;
}

static int add_buffer(Plan *p, Buffer b) {
    p->buffer[p->buffer_cnt] = b;
    return p->buffer_cnt++;
}

static void make_buffers(Plan *p) {
    p->buffer = arena_array(&p->arena, Buffer, 2 * p->step_cnt + 1);
    p->work_buffer = arena_array(&p->arena, int, p->step_cnt + 1);
    for (int s = 0; s < p->step_cnt; s++) {
        const Tensor *t = p->step[s].node;
        Slot *slot = &p->slot[t->id];
        int last = p->opt.no_reuse ? p->step_cnt : slot->last_use > s ? slot->last_use : s;
        if (can_run_in_place(p, s)) {
            slot->buffer = p->slot[root_of(t->in[0])->id].buffer;
            p->buffer[slot->buffer].last = last;
        } else if (!is_io(t)) {
            slot->buffer =
                add_buffer(p, (Buffer){align_up(tensor_bytes(p, t)), 0, s, last, t, t->kind});
        }
        uint64_t work = align_up(p->step[s].work_bytes);
        if (work > p->table.work_bytes) p->table.work_bytes = work;
        p->work_buffer[s] =
            work ? add_buffer(p, (Buffer){work, 0, s, s, NULL, KIND_ACTIVATION}) : NONE;
    }
}

static int larger_first(const void *a, const void *b) {
    const Buffer *x = *(Buffer *const *)a, *y = *(Buffer *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return x->first != y->first ? x->first - y->first : (x > y) - (x < y);
}

// Each buffer, largest first, goes to the lowest gap that is free during its whole life.
static void place_buffers(Plan *p) {
    int n = p->buffer_cnt, placed_cnt = 0;
    Buffer **order = malloc(sizeof *order * (size_t)(n + 1)),
           **placed = malloc(sizeof *placed * (size_t)(n + 1));
    die_unless(order && placed, "plan: out of memory for %d buffers", n);
    for (int i = 0; i < n; i++) order[i] = &p->buffer[i];
    qsort(order, (size_t)n, sizeof *order, larger_first);
    for (int i = 0; i < n; i++) {
        Buffer *b = order[i];
        uint64_t at = 0;
        for (int k = 0; k < placed_cnt; k++) { // by offset
            const Buffer *o = placed[k];
            if (o->last < b->first || o->first > b->last) continue;
            if (at + b->bytes <= o->offset) break;
            if (o->offset + o->bytes > at) at = o->offset + o->bytes;
        }
        b->offset = at;
        int k = placed_cnt++;
        for (; k > 0 && placed[k - 1]->offset > at; k--) placed[k] = placed[k - 1];
        placed[k] = b;
        if (at + b->bytes > p->table.arena_bytes) p->table.arena_bytes = at + b->bytes;
    }
    free(order);
    free(placed);
}

// ---- The table ----

static void find_peak(Plan *p) {
    int64_t *delta = calloc((size_t)p->step_cnt + 2, sizeof *delta), live = 0, peak = -1;
    die_unless(delta, "plan: out of memory for %d steps", p->step_cnt);
    for (int i = 0; i < p->buffer_cnt; i++) {
        const Buffer *b = &p->buffer[i];
        delta[b->first] += (int64_t)b->bytes;
        delta[b->last < p->step_cnt ? b->last + 1 : p->step_cnt + 1] -= (int64_t)b->bytes;
    }
    for (int s = 0; s < p->step_cnt; s++) {
        live += delta[s];
        if (live > peak) peak = live, p->peak_step = s;
    }
    free(delta);
    for (int i = 0; i < p->buffer_cnt; i++) {
        const Buffer *b = &p->buffer[i];
        if (b->first <= p->peak_step && b->last >= p->peak_step)
            p->table.peak_bytes[b->kind] += b->bytes;
    }
}

static void count_weights_and_io(Plan *p) {
    bool *direct =
        calloc((size_t)p->node_cnt + 1, sizeof *direct); // some step reads the file's bytes
    die_unless(direct, "plan: out of memory for %d nodes", p->node_cnt);
    for (int s = 0; s < p->step_cnt; s++) {
        const Step *step = &p->step[s];
        for (int k = 0; k < step->node->in_cnt; k++) {
            const Tensor *in = step->node->in[k] ? root_of(step->node->in[k]) : NULL;
            if (in && in->op == OP_WEIGHT && !(step->packed && step->packed->weight == in->data))
                direct[in->id] = true;
        }
        bool first = step->packed != NULL;
        for (int q = 0; q < s && first; q++) first = p->step[q].packed != step->packed;
        if (first) p->table.packed_bytes += step->packed->bytes;
    }
    for (int i = 0; i < p->node_cnt; i++) {
        const Tensor *t = p->g->node[i];
        if (!p->slot[i].needed) continue;
        if (is_io(t)) p->table.io_bytes += align_up(tensor_bytes(p, t));
        if (t->op != OP_WEIGHT) continue;
        p->table.weight_bytes += tensor_bytes(p, t);
        if (direct[i]) p->table.total_bytes += tensor_bytes(p, t);
    }
    free(direct);
    p->table.total_bytes += p->table.arena_bytes + p->table.io_bytes + p->table.packed_bytes;
}

static char *bytes_text(uint64_t n, char buf[32]) {
    const char *unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    double x = (double)n;
    for (; x >= 1024 && u < 4; u++) x /= 1024;
    snprintf(buf, 32, u ? "%.2f %s" : "%.0f %s", x, unit[u]);
    return buf;
}

// The largest tensors that are alive at the peak, and the largest inputs, outputs and packed weights.
typedef struct Top {
    uint64_t bytes;
    const char *name, *what;
} Top;

static void top_add(Top top[TOP_CNT], uint64_t bytes, const char *name, const char *what) {
    for (int i = 0; i < TOP_CNT; i++) {
        if (bytes <= top[i].bytes) continue;
        memmove(&top[i + 1], &top[i], sizeof *top * (size_t)(TOP_CNT - 1 - i));
        top[i] = (Top){bytes, name, what};
        return;
    }
}

static const char *const kind_name[KIND_COUNT] = {"weight", "input", "output", "activation",
                                                  "gradient"};

static void find_top(const Plan *p, Top top[TOP_CNT]) {
    memset(top, 0, sizeof *top * TOP_CNT);
    for (int i = 0; i < p->buffer_cnt; i++) {
        const Buffer *b = &p->buffer[i];
        if (b->first > p->peak_step || b->last < p->peak_step) continue;
        if (b->tensor)
            top_add(top, b->bytes, b->tensor->name, kind_name[b->kind]);
        else
            top_add(top, b->bytes, p->step[b->first].node->name, "workspace");
    }
    for (int i = 0; i < p->node_cnt; i++) {
        const Tensor *t = p->g->node[i];
        if (p->slot[i].needed && (is_io(t) || t->op == OP_WEIGHT))
            top_add(top, tensor_bytes(p, t), t->name, kind_name[t->kind]);
    }
}

static Err check_fit(const Plan *p) {
    uint64_t limit = p->opt.memory_bytes, total = p->table.total_bytes;
    if (!limit || total <= limit) return ERR_OK;
    char a[32], b[32], c[32], text[1024] = "";
    Top top[TOP_CNT];
    find_top(p, top);
    size_t n = 0;
    for (int i = 0; i < TOP_CNT && top[i].name && n < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s %s (%s, %s)", i ? "," : "",
                              top[i].name, top[i].what, bytes_text(top[i].bytes, a));
    FAIL(ERR_MEMORY, "the plan needs %s, the limit is %s: %llu bytes (%s) are missing; largest:%s",
         bytes_text(total, a), bytes_text(limit, b), (unsigned long long)(total - limit),
         bytes_text(total - limit, c), text);
}

void plan_print(const Plan *p, FILE *out) {
    const PlanMemory *m = &p->table;
    char buf[32];
    fprintf(out, "%d nodes, %d run, %.3g GFLOP per run\n", m->node_cnt, m->run_cnt, m->flops / 1e9);
    fprintf(out, "  %-22s %12s\n", "total", bytes_text(m->total_bytes, buf));
    fprintf(out, "  %-22s %12s\n", "arena", bytes_text(m->arena_bytes, buf));
    for (int k = 0; k < KIND_COUNT; k++)
        if (m->peak_bytes[k])
            fprintf(out, "    at peak: %-11s %12s\n", kind_name[k],
                    bytes_text(m->peak_bytes[k], buf));
    fprintf(out, "    largest workspace    %12s\n", bytes_text(m->work_bytes, buf));
    fprintf(out, "  %-22s %12s\n", "inputs and outputs", bytes_text(m->io_bytes, buf));
    fprintf(out, "  %-22s %12s\n", "packed weights", bytes_text(m->packed_bytes, buf));
    fprintf(out, "  %-22s %12s\n", "weights as stored", bytes_text(m->weight_bytes, buf));
    Top top[TOP_CNT];
    find_top(p, top);
    for (int i = 0; i < TOP_CNT && top[i].name; i++)
        fprintf(out, "  %12s  %s (%s)\n", bytes_text(top[i].bytes, buf), top[i].name, top[i].what);
    for (int op = OP_VIEW + 1; op < OP_COUNT; op++) {
        for (int s = 0; s < p->step_cnt; s++) { // one line per (op, algorithm), at its first step
            if ((int)p->step[s].node->op != op) continue;
            int cnt = 0, first = s;
            for (int q = 0; q < p->step_cnt; q++)
                if ((int)p->step[q].node->op == op && !strcmp(p->step[q].note, p->step[s].note)) {
                    if (!cnt++) first = q;
                }
            if (first == s)
                fprintf(out, "  %6d x %s %s\n", cnt, op_info((Op)op)->name, p->step[s].note);
        }
    }
}

// ---- Pointers ----

static void *storage(const Plan *p, const Tensor *t) {
    const Tensor *root = root_of(t);
    const Slot *slot = &p->slot[root->id];
    unsigned char *base = root->op == OP_WEIGHT ? (unsigned char *)(uintptr_t)root->data
                          : is_io(root)         ? slot->io
                                                : p->memory + p->buffer[slot->buffer].offset;
    return base + (uint64_t)t->offset * element_bytes(p, root);
}

static void resolve_step(Plan *p, int i) {
    Step *s = &p->step[i];
    s->dst = storage(p, s->node);
    for (int k = 0; k < s->node->in_cnt; k++)
        s->src[k] = s->node->in[k] ? storage(p, s->node->in[k]) : NULL;
    s->work = p->work_buffer[i] == NONE ? NULL : p->memory + p->buffer[p->work_buffer[i]].offset;
}

static Err allocate(Plan *p) {
    char buf[32];
    TRY(backend_commit(p->be));
    p->memory = aligned_alloc(ALIGN, align_up(p->table.arena_bytes) + ALIGN);
    if (!p->memory)
        FAIL(ERR_MEMORY, "the system refuses %s for the plan",
             bytes_text(p->table.arena_bytes, buf));
    for (int i = 0; i < p->node_cnt; i++) {
        const Tensor *t = p->g->node[i];
        if (!p->slot[i].needed || !is_io(t)) continue;
        uint64_t bytes = align_up(tensor_bytes(p, t));
        p->slot[i].io = p->slot[i].io_owned = aligned_alloc(ALIGN, bytes);
        if (!p->slot[i].io)
            FAIL(ERR_MEMORY, "the system refuses %s for %s", bytes_text(bytes, buf), t->name);
        memset(p->slot[i].io, 0, bytes);
    }
    for (int s = 0; s < p->step_cnt; s++) resolve_step(p, s);
    return ERR_OK;
}

// ---- Public ----

static Err compile(Plan *p) {
    TRY(graph_check(p->g));
    mark_needed(p);
    TRY(make_steps(p));
    find_last_uses(p);
    make_buffers(p);
    place_buffers(p);
    find_peak(p);
    count_weights_and_io(p);
    TRY(check_fit(p));
    if (!p->opt.dry) return allocate(p);
    backend_forget_pending(p->be);
    return ERR_OK;
}

Err plan_new(Plan **out, Graph *g, Backend *be, PlanOptions opt) {
    *out = NULL;
    Plan *p = calloc(1, sizeof *p);
    die_unless(p, "plan: out of memory");
    *p = (Plan){
        .g = g, .be = be, .opt = opt, .node_cnt = g->node_cnt, .table = {.node_cnt = g->node_cnt}};
    p->slot = arena_array(&p->arena, Slot, p->node_cnt + 1);
    Err err = compile(p);
    if (err) {
        backend_forget_pending(be);
        plan_free(p);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = p;
    return ERR_OK;
}

void plan_free(Plan *p) {
    if (!p) return;
    for (int s = 0; s < p->step_cnt; s++) {
        const Kernel *kernel = &p->be->kernel[p->step[s].node->op];
        if (kernel->release) kernel->release(p->be, &p->step[s]);
    }
    for (int i = 0; i < p->node_cnt; i++) free(p->slot[i].io_owned);
    free(p->memory);
    arena_free(&p->arena);
    free(p);
}

const PlanMemory *plan_memory(const Plan *p) { return &p->table; }

static Err want_io(const Plan *p, const Tensor *t, const char *what) {
    if (!t || t->id >= p->node_cnt || p->g->node[t->id] != t || !is_io(t))
        FAIL(ERR_USAGE, "%s: %s is not an input or output of this plan", what,
             t ? t->name : "(null)");
    return ERR_OK;
}

Err plan_write(Plan *p, const Tensor *t, const void *data) {
    TRY(want_io(p, t, "plan_write"));
    void *dst = p->slot[t->id].io;
    if (dst) dtype_convert(dst, storage_type(p, t), data, t->dtype, (size_t)shape_count(t->shape));
    return ERR_OK;
}

Err plan_read(Plan *p, const Tensor *t, void *data) {
    TRY(want_io(p, t, "plan_read"));
    const void *src = p->slot[t->id].io;
    if (!src) FAIL(ERR_USAGE, "plan_read: nothing needs %s, so the plan does not hold it", t->name);
    dtype_convert(data, t->dtype, src, storage_type(p, t), (size_t)shape_count(t->shape));
    return ERR_OK;
}

Err plan_bind(Plan *p, const Tensor *t, void *data) {
    TRY(want_io(p, t, "plan_bind"));
    if ((uintptr_t)data % ALIGN)
        FAIL(ERR_USAGE, "plan_bind: the memory for %s is not %d-byte aligned", t->name, ALIGN);
    Slot *slot = &p->slot[t->id];
    if (!slot->needed) return ERR_OK;
    if (slot->io_owned) free(slot->io_owned);
    slot->io_owned = NULL;
    slot->io = data;
    for (int s = 0; s < p->step_cnt; s++) {
        const Tensor *node = p->step[s].node;
        bool reads = node == t;
        for (int k = 0; k < node->in_cnt && !reads; k++)
            reads = node->in[k] && root_of(node->in[k]) == t;
        if (reads) resolve_step(p, s);
    }
    return ERR_OK;
}

void *plan_data(const Plan *p, const Tensor *t) {
    return t && t->id < p->node_cnt && p->g->node[t->id] == t ? p->slot[t->id].io : NULL;
}

void plan_observe(Plan *p, PlanObserver *fn, void *ctx) {
    p->observer = fn;
    p->observer_ctx = ctx;
}

static Err check_finite(const Plan *p, const Step *s) {
    const Tensor *t = s->node;
    if (!dtype_is_float(t->dtype)) return ERR_OK;
    DType type = storage_type(p, t);
    char shape[96];
    for (int64_t i = 0, n = shape_count(t->shape); i < n; i++) {
        double x;
        dtype_convert(&x, DTYPE_F64, (const unsigned char *)s->dst + (size_t)i * dtype_bytes(type),
                      type, 1);
        if (!isfinite(x))
            FAIL(ERR_NUMERIC, "%s: %s at element %lld of %s", t->name, isnan(x) ? "NaN" : "Inf",
                 (long long)i, shape_text(t->shape, shape));
    }
    return ERR_OK;
}

static Err run_steps(Plan *p, int from, int to) {
    for (int i = from; i < to; i++) {
        Step *s = &p->step[i];
        int64_t start = p->observer ? clock_ns() : 0;
        p->be->kernel[s->node->op].run(p->be, s);
        if (p->observer) p->observer(p->observer_ctx, s->node, s->dst, clock_ns() - start);
        if (p->opt.check) TRY(check_finite(p, s));
    }
    return ERR_OK;
}

// The first step after the one that makes t; 0 if none does.
static int step_after(const Plan *p, const Tensor *t) {
    int s = p->step_cnt;
    while (s > 0 && p->step[s - 1].node != root_of(t)) s--;
    return s;
}

Err plan_run(Plan *p) { return run_steps(p, 0, p->step_cnt); }

Err plan_run_until(Plan *p, const Tensor *output) { return run_steps(p, 0, step_after(p, output)); }

Err plan_run_after(Plan *p, const Tensor *output) {
    return run_steps(p, step_after(p, output), p->step_cnt);
}

double plan_flops_until(const Plan *p, const Tensor *output) {
    double flops = 0;
    for (int s = step_after(p, output); s > 0; s--) flops += op_flops(p->step[s - 1].node);
    return flops;
}
