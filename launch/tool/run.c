// run: names to graph inputs, cotangents to gradients, plans to numbers.
#include "launch/tool/run.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/strbuf.h"
#include "common/tensor/grad.h"
#include "common/tensor/op.h"

void run_begin(Run *r, Session *s, RecipeCall *call, const char *class_name,
               const RunTakes *takes) {
    *r = (Run){.s = s, .call = call, .class_name = class_name, .takes = takes, .g = graph_new()};
}

void run_end(Run *r) {
    plan_free(r->plan);
    graph_free(r->g);
    *r = (Run){0};
}

NN run_nn(Run *r, SessionModel *m, bool with_lora) {
    return (NN){.g = r->g, .params = m->params, .lora = with_lora ? r->s->lora : NULL};
}

// ---- Inputs ----

const SafetensorsEntry *run_find(const Safetensors *file, const char *kind, const char *call,
                                 const char *name) {
    char full[256];
    for (int form = 0; form < 4; form++) {
        bool with_call = form % 2 == 0;
        if (with_call && !*call) continue;
        snprintf(full, sizeof full, "%s%s%s%s", form < 2 ? kind : "", with_call ? call : "",
                 with_call ? "." : "", name);
        const SafetensorsEntry *e = safetensors_find(file, full);
        if (e) return e;
    }
    return NULL;
}

static const RunTakes *taken(const RunTakes *takes, const char *name) {
    for (; takes && takes->name; takes++)
        if (!fnmatch(takes->name, name, 0)) return takes;
    return NULL;
}

Err run_fail_missing(const Session *s, const char *class_name, const RunTakes *takes,
                     const char *call, const char *name) {
    StrBuf b = {0};
    for (const RunTakes *t = takes; t->name; t++)
        strbuf_printf(&b, "%sin.%s %s%s", t == takes ? "" : ", ", t->name, t->shape,
                      t->optional ? " (optional)" : "");
    Err err = err_fail(ERR_FORMAT, __FILE__, __LINE__, __func__,
                       "%s: input 'in.%s%s%s' is missing; %s takes %s", safetensors_path(s->in),
                       call, *call ? "." : "", name, class_name, strbuf_text(&b));
    strbuf_fini(&b);
    return err;
}

// Remembers the first failure, which run_finish returns.
static Tensor *stop(Run *r, Err err) {
    if (!r->err && err) {
        r->err = err;
        graph_fail(r->g, err, "%s", err_text());
    }
    return NULL;
}

bool run_has_input(const Run *r, const char *name) {
    return run_find(r->s->in, "in.", r->call->name, name) != NULL;
}

static Err input_check(const Run *r, const SafetensorsEntry *e, const char *name, int rank) {
    char found[192];
    const RunTakes *t = taken(r->takes, name);
    die_unless(t, "%s: %s is not in the table of inputs", r->class_name, name);
    if (t->is_index && dtype_is_float(e->dtype))
        FAIL(ERR_FORMAT, "%s: %s is %s, want whole numbers (i32 or i64)", e->path, e->name,
             dtype_name(e->dtype));
    if ((rank && e->rank != rank) || e->rank > TENSOR_DIMS_MAX)
        FAIL(ERR_SHAPE, "%s: %s is %s, want %s", e->path, e->name, safetensors_shape_text(e, found),
             t->shape);
    for (int i = 0; i < e->rank; i++)
        if (e->dim[i] < 1)
            FAIL(ERR_SHAPE, "%s: %s is %s, want no empty dim", e->path, e->name,
                 safetensors_shape_text(e, found));
    return ERR_OK;
}

static Shape entry_shape(const SafetensorsEntry *e) {
    return e->rank ? shape_make(e->rank, e->dim) : SHAPE(1);
}

Tensor *run_input(Run *r, const char *name, int rank) {
    if (r->g->err) return NULL;
    const SafetensorsEntry *e = run_find(r->s->in, "in.", r->call->name, name);
    if (!e) return stop(r, run_fail_missing(r->s, r->class_name, r->takes, r->call->name, name));
    Err err = input_check(r, e, name, rank);
    if (err) return stop(r, err);
    die_unless(r->input_cnt < RUN_INPUTS_MAX, "run: too many inputs");
    DType type = taken(r->takes, name)->is_index ? DTYPE_I32 : DTYPE_F32;
    Tensor *t = graph_input(r->g, e->name, type, entry_shape(e));
    r->input[r->input_cnt++] = (RunInput){arena_strdup(&r->g->arena, name), t, e};
    return t;
}

float *run_floats(Arena *a, const SafetensorsEntry *e) {
    size_t cnt = e->bytes / dtype_bytes(e->dtype);
    float *x = arena_array(a, float, cnt + 1);
    dtype_convert(x, DTYPE_F32, e->data, e->dtype, cnt);
    return x;
}

// ---- Outputs and cotangents ----

Tensor *run_output(Run *r, const char *name, Tensor *t) {
    if (!t || r->g->err) return NULL;
    die_unless(r->output_cnt < RUN_OUTPUTS_MAX, "run: too many outputs");
    RunOutput *o = &r->output[r->output_cnt++];
    o->name = arena_strdup(&r->g->arena, name);
    graph_output(r->g, &t, recipe_full_name(&r->s->recipe, r->call, &r->call->out, "out.", name));
    return o->tensor = t;
}

static bool wants_cot(Run *r, const RunOutput *o) {
    if (!r->call->listed) return true;
    return recipe_lists(&r->call->cot,
                        recipe_full_name(&r->s->recipe, r->call, &r->call->cot, "cot.", o->name));
}

static Err find_cots(Run *r) {
    char want[96], found[192];
    for (int i = 0; i < r->output_cnt && r->s->cot; i++) {
        RunOutput *o = &r->output[i];
        const SafetensorsEntry *e =
            wants_cot(r, o) ? run_find(r->s->cot, "cot.", r->call->name, o->name) : NULL;
        if (!e || strncmp(e->name, "cot.", 4)) continue;
        if (!shape_equal(entry_shape(e), o->tensor->shape) || !dtype_is_float(e->dtype))
            FAIL(ERR_SHAPE, "%s: %s is %s %s, want a float tensor %s", e->path, e->name,
                 dtype_name(e->dtype), safetensors_shape_text(e, found),
                 shape_text(o->tensor->shape, want));
        o->cot_entry = e;
        o->cot = graph_input(r->g, e->name, DTYPE_F32, o->tensor->shape);
        r->s->cot_used++;
    }
    return ERR_OK;
}

// ---- What to differentiate ----

static void add_grad(Run *r, const char *name, int rank, const int64_t *dim, Tensor *of) {
    die_unless(r->grad_cnt < RUN_WRT_MAX, "run: more than %d gradients", RUN_WRT_MAX);
    r->grad[r->grad_cnt++] = (RunGrad){arena_strdup(&r->g->arena, name), rank, dim, of, NULL};
}

// Is this gradient asked for? Outside of a case: those of inputs and of weights.
static bool wants_grad(const Run *r, const char *name) {
    return r->call->listed ? recipe_lists(&r->call->grad, name)
                           : strncmp(name, "grad.out.", 9) != 0;
}

static void add_input_grads(Run *r) {
    for (int i = 0; i < r->input_cnt; i++) {
        const RunInput *in = &r->input[i];
        const char *name =
            recipe_full_name(&r->s->recipe, r->call, &r->call->grad, "grad.in.", in->name);
        if (in->tensor->dtype == DTYPE_F32 && wants_grad(r, name))
            add_grad(r, name, in->entry->rank, in->entry->dim, in->tensor);
    }
}

static void add_output_grads(Run *r) {
    for (int i = 0; i < r->output_cnt; i++) {
        const RunOutput *o = &r->output[i];
        const char *name =
            recipe_full_name(&r->s->recipe, r->call, &r->call->grad, "grad.out.", o->name);
        if (wants_grad(r, name))
            add_grad(r, name, o->tensor->shape.rank, o->tensor->shape.dim, o->tensor);
    }
}

// Weights are named by their keys. The shape written is the file's, not the one the graph sees.
static void add_weight_grads(Run *r) {
    char name[512];
    if (!r->s->has_wrt || !r->model) return;
    for (int i = 0, cnt = r->g->node_cnt; i < cnt; i++) {
        Tensor *t = r->g->node[i];
        if (t->op != OP_WEIGHT || regexec(&r->s->wrt, t->name, 0, NULL, 0)) continue;
        const SafetensorsEntry *e = model_dir_find(r->model->part, t->name);
        snprintf(name, sizeof name, "grad.w.%s", t->name);
        if (e && wants_grad(r, name)) add_grad(r, name, e->rank, e->dim, t);
    }
}

static bool has_cot(const Run *r) {
    for (int i = 0; i < r->output_cnt; i++)
        if (r->output[i].cot) return true;
    return false;
}

static Err build_gradient(Run *r) {
    Lora *lora = r->s->lora;
    TRY(find_cots(r));
    if (!has_cot(r)) return ERR_OK;
    Arena *a = &r->g->arena;
    r->grad = arena_array(a, RunGrad, RUN_WRT_MAX);
    add_input_grads(r);
    add_output_grads(r);
    add_weight_grads(r);
    int lora_room = lora ? 2 * lora_module_count(lora) : 0, cots = 0;
    Tensor **wrt = arena_array(a, Tensor *, r->grad_cnt + lora_room + 1),
           **dx = arena_array(a, Tensor *, r->grad_cnt + lora_room + 1);
    for (int i = 0; i < r->grad_cnt; i++) wrt[i] = r->grad[i].of;
    r->lora_cnt = lora ? lora_inputs(lora, r->g, wrt + r->grad_cnt) : 0;
    Tensor *out[RUN_OUTPUTS_MAX], *cot[RUN_OUTPUTS_MAX];
    for (int i = 0; i < r->output_cnt; i++)
        if (r->output[i].cot) out[cots] = r->output[i].tensor, cot[cots++] = r->output[i].cot;
    if (r->vjp)
        TRY(r->vjp(r, cots, out, cot, r->grad_cnt + r->lora_cnt, wrt, dx));
    else
        TRY(grad_build(r->g, cots, out, cot, r->grad_cnt + r->lora_cnt, wrt, dx));
    for (int i = 0; i < r->grad_cnt + r->lora_cnt; i++)
        if (dx[i]) graph_output(r->g, &dx[i], i < r->grad_cnt ? r->grad[i].name : wrt[i]->name);
    for (int i = 0; i < r->grad_cnt; i++) r->grad[i].dx = dx[i];
    r->lora = dx + r->grad_cnt;
    return graph_check(r->g);
}

// ---- Numbers ----

static Err write_entry(Plan *plan, Tensor *t, const SafetensorsEntry *e) {
    Arena a = {0};
    size_t cnt = (size_t)shape_count(t->shape);
    void *data = arena_alloc(&a, cnt * dtype_bytes(t->dtype));
    dtype_convert(data, t->dtype, e->data, e->dtype, cnt);
    const float *x = data;
    Err err = ERR_OK;
    for (size_t i = 0; i < cnt && t->dtype == DTYPE_F32; i++)
        if (x[i] - x[i] != 0)
            FAIL_OUT(ERR_NUMERIC, "%s: %s has NaN or Inf at element %zu of %zu", e->path, e->name,
                     i, cnt);
    TRY_OUT(plan_write(plan, t, data));
out:
    arena_free(&a);
    return err;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static Err run_timed(Session *s, Plan *plan, RunReport *report) {
    int64_t cnt = s->opt.repeat > 0 ? s->opt.repeat : 1;
    double *t = malloc(sizeof *t * (size_t)cnt);
    die_unless(t, "run: out of memory");
    Err err = ERR_OK;
    for (int64_t i = 0; i < cnt; i++) {
        int64_t begin = clock_ns();
        TRY_OUT(plan_run(plan));
        t[i] = (double)(clock_ns() - begin) * 1e-9;
    }
    qsort(t, (size_t)cnt, sizeof *t, by_value);
    report->min_s += t[0];
    report->median_s += cnt % 2 ? t[cnt / 2] : (t[cnt / 2 - 1] + t[cnt / 2]) / 2;
    report->flops += plan_memory(plan)->flops;
    if (plan_memory(plan)->total_bytes > report->plan_bytes)
        report->plan_bytes = plan_memory(plan)->total_bytes;
out:
    free(t);
    return err;
}

static Err fill_inputs(Run *r) {
    for (int i = 0; i < r->input_cnt; i++)
        TRY(write_entry(r->plan, r->input[i].tensor, r->input[i].entry));
    for (int i = 0; i < r->output_cnt; i++)
        if (r->output[i].cot) TRY(write_entry(r->plan, r->output[i].cot, r->output[i].cot_entry));
    return r->s->lora ? lora_write_theta(r->s->lora, r->g, r->plan, lora_theta(r->s->lora))
                      : ERR_OK;
}

static Err read_outputs(Run *r) {
    for (int i = 0; i < r->output_cnt; i++) {
        const Tensor *t = r->output[i].tensor;
        TRY(plan_read(r->plan, t, sink_add(&r->s->sink, t->name, t->shape.rank, t->shape.dim)));
    }
    return ERR_OK;
}

// A weight that the graph holds twice has two gradients under one name: they add up.
static Err read_grads(Run *r) {
    Arena a = {0};
    Err err = ERR_OK;
    for (int i = 0; i < r->grad_cnt; i++) {
        const RunGrad *d = &r->grad[i];
        bool again = false;
        for (int k = 0; k < i && !again; k++) again = !strcmp(r->grad[k].name, d->name);
        const SafetensorsEntry *e = NULL;
        for (size_t k = 0; again && k < r->s->sink.cnt; k++)
            if (!strcmp(r->s->sink.entry[k].name, d->name)) e = &r->s->sink.entry[k];
        float *sum =
            e ? (float *)(uintptr_t)e->data : sink_add(&r->s->sink, d->name, d->rank, d->dim);
        if (!d->dx) continue;
        size_t cnt = (size_t)shape_count(d->dx->shape);
        float *x = arena_array(&a, float, cnt);
        TRY_OUT(plan_read(r->plan, d->dx, x));
        for (size_t k = 0; k < cnt; k++) sum[k] += x[k];
        arena_free(&a);
    }
out:
    arena_free(&a);
    return err;
}

void run_sink_lora(Session *s, const RecipeCall *call, const float *theta_grad) {
    int64_t rank = lora_config(s->lora)->rank;
    for (int i = 0; i < lora_module_count(s->lora); i++) {
        const LoraModule *m = lora_module(s->lora, i);
        for (int b = 0; b < 2; b++) {
            int64_t dim[2] = {b ? m->out : rank, b ? rank : m->in}, at = b ? m->b_at : m->a_at;
            float *x =
                sink_addf(&s->sink, 2, dim, "grad.lora.%s%sbase_model.model.%s.lora_%c.weight",
                          call->name, *call->name ? "." : "", m->path, b ? 'B' : 'A');
            if (!m->dead) memcpy(x, theta_grad + at, sizeof *x * (size_t)(dim[0] * dim[1]));
        }
    }
}

static Err read_lora(Run *r) {
    if (!r->s->lora || !has_cot(r)) return ERR_OK;
    float *grad = calloc((size_t)lora_theta_count(r->s->lora) + 1, sizeof *grad);
    die_unless(grad, "run: out of memory");
    Err err = lora_add_gradient(r->s->lora, r->plan, r->lora, grad);
    if (!err) run_sink_lora(r->s, r->call, grad);
    free(grad);
    return err;
}

Err run_finish(Run *r, RunReport *report) {
    if (r->err) return r->err;
    TRY(graph_check(r->g));
    TRY(session_lora_ready(r->s));
    TRY(build_gradient(r));
    PlanOptions o = {.memory_bytes = r->s->opt.memory_bytes, .check = r->s->opt.check};
    TRY(plan_new(&r->plan, r->g, r->s->be, o));
    if (r->s->opt.table) plan_print(r->plan, stdout);
    TRY(fill_inputs(r));
    TRY(run_timed(r->s, r->plan, report));
    TRY(read_outputs(r));
    TRY(read_grads(r));
    return read_lora(r);
}
