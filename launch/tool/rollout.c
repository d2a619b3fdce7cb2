// rollout: the whole chain of one segment on the host's terms: denoise, decode, reward, and back.
//
//   x = noise * init_noise_sigma
//   for each step k:  v = unet(c_in x | image latents, t_k, image embedding, ids), both guidance branches in one batch
//                     x = a_k x + b_k v                        (the last step of a `predict` window: the clean sample)
//   frames = clamp(vae(x_0 / scaling) / 2 + 1/2);  R = softmax(videomae(normalise(resize(frames))))[class]
//   back:  dR/dx_0;  lambda = tail * dR/dx_0 at the window's end;  for k from its last step to its first:
//          d theta += J_theta^T b_k lambda,   lambda = a_k lambda + J_x^T b_k lambda
//
// The step is one graph that runs T times, its vjp another that runs K times (denoise.h), as in sampler and learner.
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/model/denoise.h"
#include "common/model/pixels.h"
#include "common/model/unet_svd.h"
#include "common/model/vae_temporal.h"
#include "common/model/videomae.h"
#include "common/tensor/grad.h"
#include "launch/tool/parts.h"

const RunTakes rollout_takes[] = {
    {"noise", "(B, frames, 4, h, w)"},
    {"image_latents", "(B, 4, h, w)"},
    {"image_embeds", "(B, 1, D)"},
    {"added_time_ids", "(B, ids)"},
    {0},
};

typedef struct Rollout {
    Session *s;
    RecipeCall *call;
    RunReport *report;
    Arena arena;
    Shape latents; // (B, F, C, h, w), the library's layout
    int64_t cnt;   // its elements
    DiffusionSchedule schedule;
    DiffusionWindow window;
    float *guidance; // (F)
    bool guided;
    double scaling;
    // The reward.
    int class_idx;
    PixelSpec pixels;
    // Host values, (B, F, h, w, C).
    float *x;     // before a step, in the end x_0
    float *saved; // x before each step of the window
    float *d_x0;  // dR/dx_0
    UnetSvdDenoiser net;
} Rollout;

// ---- Settings ----

static Err read_reward(Rollout *w) {
    Json *j;
    int64_t size[2], class_idx;
    int cnt;
    TRY(json_want_object(w->s->recipe.json, "reward", &j));
    TRY(json_want_i64(j, "class", &class_idx));
    TRY(json_want_i64s(j, "resize", size, 2, &cnt));
    TRY(json_want_f64s(j, "mean", w->pixels.mean, 3, &cnt));
    TRY(json_want_f64s(j, "std", w->pixels.std, 3, &cnt));
    w->class_idx = (int)class_idx;
    w->pixels.unit = true;
    w->pixels.resize = RESAMPLE_BILINEAR_AA;
    w->pixels.height = size[0], w->pixels.width = size[1];
    return ERR_OK;
}

static Err read_schedule(Rollout *w) {
    Json *j = NULL;
    Err err = ERR_OK;
    DiffusionOptions opt = {0};
    TRY(json_want_int(w->s->recipe.json, "num_inference_steps", &opt.steps));
    TRY(json_open(&j, w->s->recipe.scheduler));
    TRY_OUT(diffusion_schedule(&w->schedule, &w->arena, j, &opt));
out:
    json_close(j);
    return err;
}

static Err read_window(Rollout *w) {
    int64_t step[DIFFUSION_STEPS_MAX];
    const char *finish = "denoise";
    int cnt;
    if (!w->call->args)
        FAIL(ERR_FORMAT, "%s: call '%s' has no args", w->s->recipe.label, w->call->name);
    TRY(json_want_i64s(w->call->args, "window", step, DIFFUSION_STEPS_MAX, &cnt));
    TRY(json_get_str(w->call->args, "finish", &finish));
    for (int i = 1; i < cnt; i++)
        if (step[i] != step[0] + i)
            FAIL(ERR_FORMAT, "%s: the steps of a window follow one another", w->s->recipe.label);
    DiffusionWindowOptions opt = {
        .steps = cnt, .at = DIFFUSION_AT_INDEX, .index = cnt ? (int)step[0] : 0};
    opt.predict = !strcmp(finish, "predict");
    return diffusion_window(&w->window, &w->schedule, &opt, (RngKey){0});
}

static Err read_settings(Rollout *w) {
    Json *j = w->s->recipe.json, *guidance;
    double min = 1, max = 1;
    TRY(read_schedule(w));
    TRY(read_window(w));
    TRY(json_want_object(j, "guidance", &guidance));
    TRY(json_want_f64(guidance, "min", &min));
    TRY(json_want_f64(guidance, "max", &max));
    w->guidance = arena_array(&w->arena, float, w->latents.dim[1]);
    TRY(diffusion_guidance(min, max, (int)w->latents.dim[1], w->guidance, &w->guided));
    TRY(json_get_f64(j, "scaling_factor", &w->scaling));
    return read_reward(w);
}

// ---- Results ----

// The library's (B, F, C, h, w) <-> ours (B, F, h, w, C), on the host.
static void to_ours(Shape s, const float *from, float *to) {
    int64_t outer = s.dim[0] * s.dim[1], c = s.dim[2], area = s.dim[3] * s.dim[4];
    for (int64_t n = 0; n < outer; n++)
        for (int64_t i = 0; i < c; i++)
            for (int64_t p = 0; p < area; p++)
                to[(n * area + p) * c + i] = from[(n * c + i) * area + p];
}
static void to_library(Shape s, const float *from, float *to) {
    int64_t outer = s.dim[0] * s.dim[1], c = s.dim[2], area = s.dim[3] * s.dim[4];
    for (int64_t n = 0; n < outer; n++)
        for (int64_t i = 0; i < c; i++)
            for (int64_t p = 0; p < area; p++)
                to[(n * c + i) * area + p] = from[(n * area + p) * c + i];
}

// Only what the case lists: the forward values are common to calls.
static void emit(Rollout *w, const RecipeNames *names, const char *kind, const char *name,
                 const float *x, Shape shape) {
    const char *full = recipe_full_name(&w->s->recipe, w->call, names, kind, name);
    if (w->call->listed && !recipe_lists(names, full)) return;
    float *to = sink_add(&w->s->sink, full, shape.rank, shape.dim);
    memcpy(to, x, sizeof *x * (size_t)shape_count(shape));
}

static void emit_out(Rollout *w, const char *name, const float *x, Shape shape) {
    emit(w, &w->call->out, "out.", name, x, shape);
}

// ours: (B, F, h, w, C); library: room for one latent.
static void emit_latents(Rollout *w, const char *name, const float *ours, float *library) {
    to_library(w->latents, ours, library);
    emit_out(w, name, library, w->latents);
}

// ---- Denoising, there and back ----

typedef struct Denoiser {
    Graph *g;
    Plan *plan;
    DenoiseGraph graph;
} Denoiser;

static void denoiser_fini(Denoiser *d) {
    plan_free(d->plan);
    graph_free(d->g);
    *d = (Denoiser){0};
}

static Err make_plan(Rollout *w, Graph *g, Plan **plan) {
    PlanOptions o = {.memory_bytes = w->s->opt.memory_bytes, .check = w->s->opt.check};
    TRY(plan_new(plan, g, w->s->be, o));
    if (w->s->opt.table) plan_print(*plan, stdout);
    if (plan_memory(*plan)->total_bytes > w->report->plan_bytes)
        w->report->plan_bytes = plan_memory(*plan)->total_bytes;
    return w->s->lora ? lora_write_theta(w->s->lora, g, *plan, lora_theta(w->s->lora)) : ERR_OK;
}

static const SafetensorsEntry *input(Rollout *w, const char *name) {
    return run_find(w->s->in, "in.", w->call->name, name);
}

// The conditioning as its shapes say it must be.
static Err read_conditioning(Rollout *w, DenoiseSpec *spec, DenoiseConditioning *c) {
    const SafetensorsEntry *image = input(w, "image_latents"), *context = input(w, "image_embeds");
    const SafetensorsEntry *ids = input(w, "added_time_ids");
    const int64_t *d = w->latents.dim;
    char text[192];
    if (image->rank != 4 || image->dim[0] != d[0] || image->dim[2] != d[3] || image->dim[3] != d[4])
        FAIL(ERR_SHAPE, "%s: %s is %s, want (%lld, channels, %lld, %lld)", image->path, image->name,
             safetensors_shape_text(image, text), (long long)d[0], (long long)d[3],
             (long long)d[4]);
    if (context->rank != 3 || context->dim[0] != d[0] || ids->rank != 2 || ids->dim[0] != d[0])
        FAIL(ERR_SHAPE,
             "%s: image_embeds wants (%lld, 1, D) and added_time_ids (%lld, ids); the first is %s",
             context->path, (long long)d[0], (long long)d[0],
             safetensors_shape_text(context, text));
    *spec = (DenoiseSpec){.net = unet_svd_denoiser,
                          .self = &w->net,
                          .videos = d[0],
                          .frames = d[1],
                          .h = d[3],
                          .w = d[4],
                          .channels = d[2],
                          .image_channels = image->dim[1],
                          .context_len = context->dim[1],
                          .context_dim = context->dim[2],
                          .ids_cnt = ids->dim[1],
                          .guidance = w->guided ? w->guidance : NULL,
                          .batch_branches = true};
    Shape s = SHAPE(d[0], 1, image->dim[1], d[3], d[4]);
    float *ours = arena_array(&w->arena, float, shape_count(s));
    to_ours(s, run_floats(&w->arena, image), ours);
    *c = (DenoiseConditioning){ours, run_floats(&w->arena, context), run_floats(&w->arena, ids)};
    return ERR_OK;
}

// back: the vjp instead of the step.
static Err open_denoiser(Rollout *w, Denoiser *d, bool back) {
    SessionModel *m;
    DenoiseSpec spec;
    DenoiseConditioning c;
    TRY(session_model(w->s, w->s->recipe.model, "UNetSpatioTemporalConditionModel", &m));
    TRY(unet_svd_config(&w->net.cfg, m->part->config));
    w->net.opt.recompute = w->s->opt.recompute;
    TRY(read_conditioning(w, &spec, &c));
    d->g = graph_new();
    NN nn = {.g = d->g, .params = m->params, .lora = w->s->lora};
    if (back) {
        TRY(denoise_build_vjp(&d->graph, &nn, &spec, (DenoiseVjpOptions){.input_gradient = true}));
    } else {
        TRY(denoise_build(&d->graph, &nn, &spec));
        TRY(params_finish(m->params));
        TRY(session_lora_ready(w->s));
    }
    TRY(make_plan(w, d->g, &d->plan));
    return denoise_write(&d->graph, d->plan, &c);
}

static void count_time(Rollout *w, const Plan *plan, int runs, int64_t begin_ns) {
    double s = (double)(clock_ns() - begin_ns) * 1e-9;
    w->report->min_s += s;
    w->report->median_s += s;
    w->report->flops += runs * plan_memory(plan)->flops;
}

static Err denoise(Rollout *w) {
    Denoiser d = {0};
    Err err = ERR_OK;
    char name[32];
    int end = diffusion_end(&w->schedule, w->window);
    DenoiseJob job = {.schedule = &w->schedule, .window = w->window};
    float *value = arena_array(&w->arena, float, w->cnt),
          *library = arena_array(&w->arena, float, w->cnt);
    TRY_OUT(open_denoiser(w, &d, false));
    for (int k = 0; k < end; k++) {
        snprintf(name, sizeof name, "latents.%d", k);
        emit_latents(w, name, w->x, library);
        int64_t begin = clock_ns();
        TRY_OUT(denoise_run(&d.graph, d.plan, &job, k, k + 1, w->x, w->saved));
        count_time(w, d.plan, 1, begin);
        TRY_OUT(plan_read(d.plan, d.graph.v, value));
        snprintf(name, sizeof name, "v.%d", k);
        emit_latents(w, name, value, library);
    }
    emit_latents(w, "x_0", w->x, library);
out:
    denoiser_fini(&d);
    return err;
}

static Err learn(Rollout *w) {
    Denoiser d = {0};
    Err err = ERR_OK;
    DenoiseJob job = {.schedule = &w->schedule, .window = w->window};
    float *grad = arena_array(&w->arena, float, lora_theta_count(w->s->lora) + 1);
    TRY_OUT(open_denoiser(w, &d, true));
    int64_t begin = clock_ns();
    TRY_OUT(denoise_pull(&d.graph, d.plan, &job, w->saved, w->d_x0, grad));
    count_time(w, d.plan, w->window.cnt, begin);
    run_sink_lora(w->s, w->call, grad);
out:
    denoiser_fini(&d);
    return err;
}

// ---- Decoding and reward ----

typedef struct ScoreGraph {
    Run run;
    Tensor *x_0, *frames, *log_prob, *reward; // frames (B, F, 3, H, W) in [0, 1]
    Tensor *cot, *d_frames, *d_x0;            // NULL without a cotangent
} ScoreGraph;

static Err build_score(Rollout *w, ScoreGraph *sc) {
    Session *s = w->s;
    Run *r = &sc->run;
    SessionModel *vae, *videomae;
    VaeTemporalConfig vc;
    VideoMaeConfig mc;
    run_begin(r, s, w->call, "rollout", rollout_takes);
    Graph *g = r->g;
    TRY(session_model(s, s->recipe.vae, "AutoencoderKLTemporalDecoder", &vae));
    TRY(session_model(s, s->recipe.videomae, "VideoMAEForVideoClassification", &videomae));
    TRY(vae_temporal_config(&vc, vae->part->config));
    TRY(videomae_config(&mc, videomae->part->config));
    NN vae_nn = run_nn(r, vae, false), mae_nn = run_nn(r, videomae, false);
    params_ignore(vae_nn.params, VAE_TEMPORAL_ENCODER);
    params_ignore(vae_nn.params, VAE_TEMPORAL_QUANT);
    const int64_t *d = w->latents.dim;
    sc->x_0 = graph_input(g, "x_0", DTYPE_F32, SHAPE(d[0], d[1], d[3], d[4], d[2]));
    Tensor *z = op_affine(g, sc->x_0, 1 / (w->scaling > 0 ? w->scaling : vc.scaling_factor), 0);
    Tensor *frames =
        pixels_to_unit(g, vae_temporal_decode(&vae_nn, &vc, z,
                                              (VaeTemporalOptions){.recompute = s->opt.recompute}));
    sc->frames = op_permute(g, frames, (const int[]){0, 1, 4, 2, 3});
    graph_output(g, &sc->frames, "frames");
    frames = op_permute(g, sc->frames, (const int[]){0, 1, 3, 4, 2});
    Tensor *logits =
        videomae_build(&mae_nn, &mc, s->opt.recompute, pixels_enter(g, frames, &w->pixels));
    sc->log_prob = videomae_log_prob(g, logits, w->class_idx);
    sc->reward = op_unary(g, UNARY_exp, sc->log_prob);
    graph_output(g, &sc->log_prob, "log_prob");
    graph_output(g, &sc->reward, "R");
    TRY(graph_check(g));
    TRY(params_finish(vae_nn.params));
    return params_finish(mae_nn.params);
}

static Err build_score_vjp(Rollout *w, ScoreGraph *sc, const SafetensorsEntry *cot) {
    Graph *g = sc->run.g;
    Tensor *wrt[2] = {sc->frames, sc->x_0}, *dx[2];
    char found[192], want[96];
    if (cot->bytes / dtype_bytes(cot->dtype) != (size_t)shape_count(sc->reward->shape))
        FAIL(ERR_SHAPE, "%s: %s is %s, want %s", cot->path, cot->name,
             safetensors_shape_text(cot, found), shape_text(sc->reward->shape, want));
    sc->cot = graph_input(g, "cot", DTYPE_F32, sc->reward->shape);
    TRY(grad_build(g, 1, &sc->reward, &sc->cot, 2, wrt, dx));
    graph_output(g, &dx[0], "d_frames");
    graph_output(g, &dx[1], "d_x0");
    sc->d_frames = dx[0], sc->d_x0 = dx[1];
    return graph_check(g);
}

static Err emit_tensor(Rollout *w, ScoreGraph *sc, Tensor *t, bool is_gradient, const char *name) {
    float *x = arena_array(&w->arena, float, shape_count(t->shape));
    TRY(plan_read(sc->run.plan, t, x));
    if (is_gradient)
        emit(w, &w->call->grad, "grad.out.", name, x, t->shape);
    else
        emit_out(w, name, x, t->shape);
    return ERR_OK;
}

static Err score(Rollout *w, const SafetensorsEntry *cot) {
    ScoreGraph sc = {0};
    Err err = ERR_OK;
    TRY_OUT(build_score(w, &sc));
    if (cot) TRY_OUT(build_score_vjp(w, &sc, cot));
    TRY_OUT(make_plan(w, sc.run.g, &sc.run.plan));
    TRY_OUT(plan_write(sc.run.plan, sc.x_0, w->x));
    if (cot) TRY_OUT(plan_write(sc.run.plan, sc.cot, run_floats(&w->arena, cot)));
    int64_t begin = clock_ns();
    TRY_OUT(plan_run(sc.run.plan));
    count_time(w, sc.run.plan, 1, begin);
    TRY_OUT(emit_tensor(w, &sc, sc.frames, false, "frames"));
    TRY_OUT(emit_tensor(w, &sc, sc.log_prob, false, "log_prob"));
    TRY_OUT(emit_tensor(w, &sc, sc.reward, false, "R"));
    if (!cot) goto out;
    TRY_OUT(emit_tensor(w, &sc, sc.d_frames, true, "frames"));
    w->d_x0 = arena_array(&w->arena, float, w->cnt);
    float *library = arena_array(&w->arena, float, w->cnt);
    TRY_OUT(plan_read(sc.run.plan, sc.d_x0, w->d_x0));
    to_library(w->latents, w->d_x0, library);
    emit(w, &w->call->grad, "grad.out.", "x_0", library, w->latents);
out:
    run_end(&sc.run);
    return err;
}

// ---- The call ----

static Err start(Rollout *w) {
    char found[192];
    for (const RunTakes *t = rollout_takes; t->name; t++)
        if (!input(w, t->name))
            return run_fail_missing(w->s, "rollout", rollout_takes, w->call->name, t->name);
    const SafetensorsEntry *noise = input(w, "noise");
    if (noise->rank != 5)
        FAIL(ERR_SHAPE, "%s: %s is %s, want (B, frames, 4, h, w)", noise->path, noise->name,
             safetensors_shape_text(noise, found));
    w->latents = shape_make(5, noise->dim);
    w->cnt = shape_count(w->latents);
    TRY(read_settings(w));
    w->x = arena_array(&w->arena, float, w->cnt);
    w->saved = arena_array(&w->arena, float, w->cnt * w->window.cnt);
    to_ours(w->latents, run_floats(&w->arena, noise), w->x);
    for (int64_t i = 0; i < w->cnt; i++) w->x[i] = (float)(w->x[i] * w->schedule.init_noise_sigma);
    return ERR_OK;
}

// By the case's note out.x_K is of its first call, common to all.
static void emit_window_start(Rollout *w) {
    if (w->call != w->s->recipe.call) return;
    to_library(w->latents, w->saved,
               sink_add(&w->s->sink, "out.x_K", w->latents.rank, w->latents.dim));
}

static Err run_all(Rollout *w) {
    TRY(start(w));
    TRY(denoise(w));
    emit_window_start(w);
    const SafetensorsEntry *cot =
        w->s->cot ? run_find(w->s->cot, "cot.", w->call->name, "R") : NULL;
    TRY(score(w, cot));
    if (!cot) return ERR_OK;
    w->s->cot_used++;
    return w->s->lora ? learn(w) : ERR_OK;
}

Err rollout_call(Session *s, const Part *part, RecipeCall *call, RunReport *report) {
    Rollout w = {.s = s, .call = call, .report = report};
    Err err = run_all(&w);
    arena_free(&w.arena);
    return err;
}
