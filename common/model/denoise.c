// denoise: the graphs of one step and of its vjp, and the loops that run them.
#include "common/model/denoise.h"

#include <string.h>

#include "common/tensor/grad.h"

// ---- Graph ----

static Shape latent_shape(const DenoiseSpec *s) {
    return SHAPE(s->videos, s->frames, s->h, s->w, s->channels);
}

static int64_t latent_cnt(const DenoiseSpec *s) { return shape_count(latent_shape(s)); }

static Tensor *scalar(Graph *g, const char *name) {
    return graph_input(g, name, DTYPE_F32, SHAPE(1));
}

static void add_inputs(DenoiseGraph *d, NN *nn, const DenoiseSpec *spec) {
    Graph *g = nn->g;
    *d = (DenoiseGraph){.g = g, .lora = nn->lora, .spec = *spec};
    d->dropout = nn->lora && nn->dropout && lora_config(nn->lora)->dropout > 0;
    const DenoiseSpec *s = &d->spec;
    if (s->guidance) {
        float *copy = arena_array(&g->arena, float, s->frames);
        memcpy(copy, s->guidance, (size_t)s->frames * sizeof *copy);
        d->spec.guidance = copy;
    }
    d->x_tmp = arena_array(&g->arena, float, latent_cnt(s));
    d->x = graph_input(g, "x", DTYPE_F32, latent_shape(s));
    d->context =
        graph_input(g, "context", DTYPE_F32, SHAPE(s->videos, s->context_len, s->context_dim));
    d->ids = graph_input(g, "time_ids", DTYPE_F32, SHAPE(s->videos, s->ids_cnt));
    if (s->image_channels)
        d->image = graph_input(g, "image_latents", DTYPE_F32,
                               SHAPE(s->videos, 1, s->h, s->w, s->image_channels));
    d->t = scalar(g, "t");
    d->c_in = scalar(g, "c_in");
    d->a = scalar(g, "a");
    d->b = scalar(g, "b");
}

// The latents with the image's behind them on every frame.
static Tensor *join_image(const DenoiseGraph *d, Tensor *x) {
    const DenoiseSpec *s = &d->spec;
    if (!d->image) return x;
    Tensor *image =
        op_expand(d->g, d->image, SHAPE(s->videos, s->frames, s->h, s->w, s->image_channels));
    return op_concat(d->g, 4, 2, (Tensor *[]){x, image});
}

// The same with zeros for the image.
static Tensor *join_zeros(const DenoiseGraph *d, Tensor *x) {
    const int64_t none[5] = {0}, behind[5] = {0, 0, 0, 0, d->spec.image_channels};
    return d->image ? op_pad(d->g, x, none, behind) : x;
}

static Tensor *zero_context(const DenoiseGraph *d) {
    const Shape s = d->context->shape;
    return graph_weight(d->g, "no_context", DTYPE_F32, s,
                        arena_array(&d->g->arena, float, shape_count(s)));
}

static Tensor *call(const DenoiseGraph *d, NN *nn, Tensor *sample, Tensor *context, Tensor *ids) {
    return d->spec.net(d->spec.self, nn, sample, d->t, context, ids);
}

// Both branches in one call: out[0] unconditional, out[1] conditional.
static void call_batched(const DenoiseGraph *d, NN *nn, Tensor *x, Tensor *out[2]) {
    Graph *g = d->g;
    int64_t n = d->spec.videos;
    const int64_t before[3] = {n, 0, 0}, none[3] = {0};
    Tensor *sample = op_concat(g, 0, 2, (Tensor *[]){join_zeros(d, x), join_image(d, x)});
    Tensor *context = op_pad(g, d->context, before, none);
    Tensor *ids = op_concat(g, 0, 2, (Tensor *[]){d->ids, d->ids});
    Tensor *v = call(d, nn, sample, context, ids);
    for (int i = 0; i < 2; i++) out[i] = op_slice(g, v, 0, i * n, n);
}

// g_f as (1, F, 1, 1, 1).
static Tensor *guidance(const DenoiseGraph *d) {
    return graph_weight(d->g, "guidance", DTYPE_F32, SHAPE(1, d->spec.frames, 1, 1, 1),
                        d->spec.guidance);
}

Err denoise_build(DenoiseGraph *d, NN *nn, const DenoiseSpec *spec) {
    Graph *g = nn->g;
    add_inputs(d, nn, spec);
    Tensor *x = op_mul(g, d->x, d->c_in), *v[2] = {0};
    if (spec->guidance && spec->batch_branches) {
        call_batched(d, nn, x, v);
    } else {
        if (spec->guidance) v[0] = call(d, nn, join_zeros(d, x), zero_context(d), d->ids);
        v[1] = call(d, nn, join_image(d, x), d->context, d->ids);
    }
    graph_scope(g, "step");
    d->v = v[1];
    if (spec->guidance) d->v = op_add(g, v[0], op_mul(g, op_sub(g, v[1], v[0]), guidance(d)));
    d->x_next = op_add(g, op_mul(g, d->x, d->a), op_mul(g, d->v, d->b));
    if (spec->stochastic) {
        d->z = scalar(g, "z");
        d->noise = graph_input(g, "noise", DTYPE_F32, latent_shape(spec));
        d->x_next = op_add(g, d->x_next, op_mul(g, d->noise, d->z));
    }
    graph_output(g, &d->v, "v");
    graph_output(g, &d->x_next, "x_next");
    graph_scope(g, NULL);
    return graph_check(g);
}

// Runs grad_build for the branches' outputs and marks its results as outputs.
static Err add_gradient(DenoiseGraph *d, int cnt, Tensor *const *v, Tensor *const *cot, Tensor *x,
                        bool input_gradient) {
    Graph *g = d->g;
    int modules = 2 * lora_module_count(d->lora);
    Tensor **wrt = arena_array(&g->arena, Tensor *, modules + 1);
    d->d = arena_array(&g->arena, Tensor *, modules + 1);
    int n = lora_inputs(d->lora, g, wrt);
    wrt[n] = input_gradient ? x : NULL;
    TRY(grad_build(g, cnt, v, cot, n + 1, wrt, d->d));
    for (int i = 0; i < n; i++) {
        if (!d->d[i]) continue;
        const char *name = arena_printf(&g->arena, "grad.%s", wrt[i]->name);
        graph_output(g, &d->d[i], name);
    }
    graph_scope(g, "step");
    d->cot_next = op_mul(g, d->cot, d->a);
    if (d->d[n]) d->cot_next = op_add(g, d->cot_next, op_mul(g, d->d[n], d->c_in));
    graph_output(g, &d->cot_next, "cot_next");
    graph_scope(g, NULL);
    return graph_check(g);
}

Err denoise_build_vjp(DenoiseGraph *d, NN *nn, const DenoiseSpec *spec, DenoiseVjpOptions opt) {
    Graph *g = nn->g;
    add_inputs(d, nn, spec);
    d->cot = graph_input(g, "cot", DTYPE_F32, latent_shape(spec));
    bool both = spec->guidance && !opt.cond_only;
    Tensor *x = op_mul(g, d->x, d->c_in), *v[2] = {0}, *cot[2] = {0};
    cot[1] = op_mul(g, d->cot, d->b);
    if (spec->guidance) {
        Tensor *cond = op_mul(g, cot[1], guidance(d));
        cot[0] = op_sub(g, cot[1], cond);
        cot[1] = cond;
    }
    if (both && spec->batch_branches) {
        call_batched(d, nn, x, v);
    } else {
        if (both) v[0] = call(d, nn, join_zeros(d, x), zero_context(d), d->ids);
        v[1] = call(d, nn, join_image(d, x), d->context, d->ids);
    }
    TRY(graph_check(g));
    return add_gradient(d, both ? 2 : 1, both ? v : v + 1, both ? cot : cot + 1, x,
                        opt.input_gradient);
}

// ---- Runs ----

Err denoise_write(const DenoiseGraph *d, Plan *plan, const DenoiseConditioning *c) {
    if (d->image) TRY(plan_write(plan, d->image, c->image));
    TRY(plan_write(plan, d->context, c->context));
    return plan_write(plan, d->ids, c->ids);
}

static Err write_scalar(Plan *plan, const Tensor *t, double x) {
    float f = (float)x;
    return t ? plan_write(plan, t, &f) : ERR_OK;
}

// The scalars, dropout keys and noise of step k.
static Err write_step(const DenoiseGraph *d, Plan *plan, const DenoiseJob *job, int k) {
    const DenoiseSpec *s = &d->spec;
    double a, b, z;
    diffusion_coefficients(job->schedule, job->window, k, &a, &b, &z);
    TRY(write_scalar(plan, d->t, job->schedule->step[k].t));
    TRY(write_scalar(plan, d->c_in, job->schedule->step[k].c_in));
    TRY(write_scalar(plan, d->a, a));
    TRY(write_scalar(plan, d->b, b));
    TRY(write_scalar(plan, d->z, z));
    if (d->dropout) TRY(lora_write_keys(d->lora, d->g, plan, job->name, (unsigned)k, 0));
    if (!d->noise) return ERR_OK;
    RngKey key = job->name;
    key.use = rng_use(RNG_STEP_NOISE, (unsigned)k, 0, 0, 0);
    int64_t one = latent_cnt(s) / s->videos;
    for (int64_t i = 0; i < s->videos; i++, key.element += (uint64_t)one)
        diffusion_noise(key, s->frames, s->h, s->w, s->channels, d->x_tmp + i * one);
    return plan_write(plan, d->noise, d->x_tmp);
}

Err denoise_run(const DenoiseGraph *d, Plan *plan, const DenoiseJob *job, int from, int to,
                float *x, float *saved) {
    const DiffusionWindow w = job->window;
    int64_t cnt = latent_cnt(&d->spec);
    die_unless(0 <= from && to <= diffusion_end(job->schedule, w), "denoise: steps %d to %d", from,
               to);
    die_unless(d->noise || !job->schedule->stochastic, "denoise: a graph without noise");
    for (int k = from; k < to; k++) {
        if (saved && k >= w.first && k < w.first + w.cnt)
            memcpy(saved + (k - w.first) * cnt, x, (size_t)cnt * sizeof *x);
        TRY(write_step(d, plan, job, k));
        TRY(plan_write(plan, d->x, x));
        TRY(plan_run(plan));
        TRY(plan_read(plan, d->x_next, x));
    }
    return ERR_OK;
}

Err denoise_pull(const DenoiseGraph *d, Plan *plan, const DenoiseJob *job, const float *saved,
                 float *cot, float *grad) {
    const DiffusionWindow w = job->window;
    int64_t cnt = latent_cnt(&d->spec);
    double tail = diffusion_tail(job->schedule, w);
    memset(grad, 0, (size_t)lora_theta_count(d->lora) * sizeof *grad);
    for (int64_t i = 0; i < cnt; i++) cot[i] = (float)(tail * cot[i]);
    for (int k = w.first + w.cnt - 1; k >= w.first; k--) {
        TRY(write_step(d, plan, job, k));
        TRY(plan_write(plan, d->x, saved + (k - w.first) * cnt));
        TRY(plan_write(plan, d->cot, cot));
        TRY(plan_run(plan));
        TRY(lora_add_gradient(d->lora, plan, d->d, grad));
        TRY(plan_read(plan, d->cot_next, cot));
    }
    return ERR_OK;
}
