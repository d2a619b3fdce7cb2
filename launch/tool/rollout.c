// rollout: the whole chain of one segment on the host's terms: denoise, decode, reward, and back.
//
//   x = noise * init_noise_sigma
//   for each step k:  v = unet(c_in x | image latents, t_k, image embedding, ids), both guidance branches in one batch
//                     x = a_k x + b_k v                        (the last step of a `predict` window: the clean sample)
//   frames = clamp(vae(x_0 / scaling) / 2 + 1/2);  R = softmax(videomae(normalise(resize(frames))))[class]
//   back:  dR/dx_0;  lambda = tail * dR/dx_0 at the window's end;  for k from its last step to its first:
//          d theta += J_theta^T b_k lambda,   lambda = a_k lambda + J_x^T b_k lambda
//
// The step is one graph that runs T times, its vjp another that runs K times: what sampler and learner do.
#include <stdlib.h>
#include <string.h>

#include "common/model/diffusion.h"
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
    // Host values.
    float **x, **v; // x[k] before step k; x[end] = x_0; v[k] guided prediction
    float *d_x0;    // dR/dx_0
    float *theta_grad;
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

// ---- One denoising step ----

typedef struct StepGraph {
    Run run;
    Tensor *x, *t, *c_in; // inputs written per step
    Tensor *v;            // (B, F, C, h, w), the library's layout
    Tensor *cot, *dx;     // of the vjp; dx as an output
} StepGraph;

// Zeros where the unconditional branch has no image: in front along the batch.
static Tensor *zeros_in_front(Graph *g, Tensor *x) {
    if (!x) return NULL;
    int64_t lo[TENSOR_DIMS_MAX] = {x->shape.dim[0]}, hi[TENSOR_DIMS_MAX] = {0};
    return op_pad(g, x, lo, hi);
}

static Tensor *twice(Graph *g, Tensor *x) { return op_concat(g, 0, 2, (Tensor *[]){x, x}); }

// (B, h, w, C) of the image on every frame of (B, F, h, w, C)
static Tensor *on_every_frame(Rollout *w, Graph *g, Tensor *image) {
    const int64_t *d = w->latents.dim;
    if (!image) return NULL;
    int64_t c = image->shape.dim[1];
    image = op_permute(g, op_reshape(g, image, SHAPE(d[0], 1, c, d[3], d[4])),
                       (const int[]){0, 1, 3, 4, 2});
    return op_expand(g, image, SHAPE(d[0], d[1], d[3], d[4], c));
}

// v_u + g_f (v_c - v_u) over (2B, F, h, w, C)
static Tensor *guide(Rollout *w, Graph *g, Tensor *v) {
    int64_t batch = w->latents.dim[0];
    Tensor *u = op_slice(g, v, 0, 0, batch), *c = op_slice(g, v, 0, batch, batch);
    Tensor *scale =
        graph_weight(g, "guidance", DTYPE_F32, SHAPE(1, w->latents.dim[1], 1, 1, 1), w->guidance);
    return op_add(g, u, op_mul(g, op_sub(g, c, u), scale));
}

static Err build_step(Rollout *w, StepGraph *sg) {
    Run *r = &sg->run;
    Session *s = w->s;
    UnetSvdConfig c;
    run_begin(r, s, w->call, "rollout", rollout_takes);
    Graph *g = r->g;
    TRY(session_model(s, s->recipe.model, "UNetSpatioTemporalConditionModel", &r->model));
    TRY(unet_svd_config(&c, r->model->part->config));
    NN nn = run_nn(r, r->model, true);
    sg->x = graph_input(g, "x", DTYPE_F32, w->latents);
    sg->t = graph_input(g, "t", DTYPE_F32, SHAPE(1));
    sg->c_in = graph_input(g, "c_in", DTYPE_F32, SHAPE(1));
    Tensor *x = op_permute(g, op_mul(g, sg->x, sg->c_in), (const int[]){0, 1, 3, 4, 2});
    Tensor *image = on_every_frame(w, g, run_input(r, "image_latents", 4));
    Tensor *context = run_input(r, "image_embeds", 3), *ids = run_input(r, "added_time_ids", 2);
    if (w->guided) {
        x = twice(g, x);
        image = zeros_in_front(g, image);
        context = zeros_in_front(g, context);
        ids = twice(g, ids);
    }
    UnetSvdIo io = {op_concat(g, 4, 2, (Tensor *[]){x, image}), sg->t, context, ids};
    Tensor *v = unet_svd_build(&nn, &c, io, (UnetSvdOptions){.recompute = s->opt.recompute});
    if (w->guided) v = guide(w, g, v);
    sg->v = op_permute(g, v, (const int[]){0, 1, 4, 2, 3});
    graph_output(g, &sg->v, "v");
    TRY(graph_check(g));
    TRY(params_finish(nn.params));
    return session_lora_ready(s);
}

// The same graph with the vjp to x and the adapter.
static Err build_step_vjp(Rollout *w, StepGraph *sg) {
    TRY(build_step(w, sg));
    Run *r = &sg->run;
    Lora *lora = w->s->lora;
    int room = lora ? 2 * lora_module_count(lora) : 0;
    Tensor **wrt = arena_array(&r->g->arena, Tensor *, room + 1),
           **dx = arena_array(&r->g->arena, Tensor *, room + 1);
    sg->cot = graph_input(r->g, "cot", DTYPE_F32, w->latents);
    wrt[0] = sg->x;
    r->lora_cnt = lora ? lora_inputs(lora, r->g, wrt + 1) : 0;
    TRY(grad_build(r->g, 1, &sg->v, &sg->cot, 1 + r->lora_cnt, wrt, dx));
    for (int i = 0; i <= r->lora_cnt; i++)
        if (dx[i]) graph_output(r->g, &dx[i], i ? wrt[i]->name : "dx");
    sg->dx = dx[0];
    r->lora = dx + 1;
    return graph_check(r->g);
}

static Err make_plan(Rollout *w, Run *r) {
    PlanOptions o = {.memory_bytes = w->s->opt.memory_bytes, .check = w->s->opt.check};
    TRY(plan_new(&r->plan, r->g, w->s->be, o));
    if (w->s->opt.table) plan_print(r->plan, stdout);
    for (int i = 0; i < r->input_cnt; i++) {
        Arena a = {0};
        Err err = plan_write(r->plan, r->input[i].tensor, run_floats(&a, r->input[i].entry));
        arena_free(&a);
        TRY(err);
    }
    return w->s->lora ? lora_write_theta(w->s->lora, r->g, r->plan, lora_theta(w->s->lora))
                      : ERR_OK;
}

static Err write_step(Rollout *w, StepGraph *sg, int k) {
    float t = (float)w->schedule.step[k].t, c_in = (float)w->schedule.step[k].c_in;
    TRY(plan_write(sg->run.plan, sg->x, w->x[k]));
    TRY(plan_write(sg->run.plan, sg->t, &t));
    return plan_write(sg->run.plan, sg->c_in, &c_in);
}

static Err denoise(Rollout *w) {
    StepGraph sg = {0};
    Err err = ERR_OK;
    int end = diffusion_end(&w->schedule, w->window);
    TRY_OUT(build_step(w, &sg));
    TRY_OUT(make_plan(w, &sg.run));
    for (int k = 0; k < end; k++) {
        double a, b, z;
        diffusion_coefficients(&w->schedule, w->window, k, &a, &b, &z);
        TRY_OUT(write_step(w, &sg, k));
        TRY_OUT(run_timed(w->s, sg.run.plan, w->report));
        TRY_OUT(plan_read(sg.run.plan, sg.v, w->v[k]));
        for (int64_t i = 0; i < w->cnt; i++)
            w->x[k + 1][i] = (float)(a * w->x[k][i] + b * w->v[k][i]);
    }
out:
    run_end(&sg.run);
    return err;
}

// d theta of the window, last step first.
static Err learn(Rollout *w) {
    StepGraph sg = {0};
    Err err = ERR_OK;
    int first = w->window.first, end = first + w->window.cnt;
    double tail = diffusion_tail(&w->schedule, w->window);
    float *lambda = arena_array(&w->arena, float, w->cnt),
          *cot = arena_array(&w->arena, float, w->cnt);
    float *dx = arena_array(&w->arena, float, w->cnt);
    for (int64_t i = 0; i < w->cnt; i++) lambda[i] = (float)(tail * w->d_x0[i]);
    TRY_OUT(build_step_vjp(w, &sg));
    TRY_OUT(make_plan(w, &sg.run));
    for (int k = end - 1; k >= first; k--) {
        double a, b, z;
        diffusion_coefficients(&w->schedule, w->window, k, &a, &b, &z);
        for (int64_t i = 0; i < w->cnt; i++) cot[i] = (float)(b * lambda[i]);
        TRY_OUT(write_step(w, &sg, k));
        TRY_OUT(plan_write(sg.run.plan, sg.cot, cot));
        TRY_OUT(run_timed(w->s, sg.run.plan, w->report));
        TRY_OUT(lora_add_gradient(w->s->lora, sg.run.plan, sg.run.lora, w->theta_grad));
        TRY_OUT(plan_read(sg.run.plan, sg.dx, dx));
        for (int64_t i = 0; i < w->cnt; i++) lambda[i] = (float)(a * lambda[i] + dx[i]);
    }
out:
    run_end(&sg.run);
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
    sc->x_0 = graph_input(g, "x_0", DTYPE_F32, w->latents);
    Tensor *z = op_affine(g, sc->x_0, 1 / (w->scaling > 0 ? w->scaling : vc.scaling_factor), 0);
    z = op_permute(g, z, (const int[]){0, 1, 3, 4, 2});
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

static Err score(Rollout *w, const float *x_0, const SafetensorsEntry *cot) {
    ScoreGraph sc = {0};
    Err err = ERR_OK;
    TRY_OUT(build_score(w, &sc));
    if (cot) TRY_OUT(build_score_vjp(w, &sc, cot));
    TRY_OUT(make_plan(w, &sc.run));
    TRY_OUT(plan_write(sc.run.plan, sc.x_0, x_0));
    if (cot) TRY_OUT(plan_write(sc.run.plan, sc.cot, run_floats(&w->arena, cot)));
    TRY_OUT(run_timed(w->s, sc.run.plan, w->report));
    TRY_OUT(emit_tensor(w, &sc, sc.frames, false, "frames"));
    TRY_OUT(emit_tensor(w, &sc, sc.log_prob, false, "log_prob"));
    TRY_OUT(emit_tensor(w, &sc, sc.reward, false, "R"));
    if (!cot) goto out;
    TRY_OUT(emit_tensor(w, &sc, sc.d_frames, true, "frames"));
    TRY_OUT(emit_tensor(w, &sc, sc.d_x0, true, "x_0"));
    w->d_x0 = arena_array(&w->arena, float, w->cnt);
    TRY_OUT(plan_read(sc.run.plan, sc.d_x0, w->d_x0));
out:
    run_end(&sc.run);
    return err;
}

// ---- The call ----

static Err start(Rollout *w) {
    char found[192];
    const char *call = w->call->name;
    for (const RunTakes *t = rollout_takes; t->name; t++)
        if (!run_find(w->s->in, "in.", call, t->name))
            return run_fail_missing(w->s, "rollout", rollout_takes, call, t->name);
    const SafetensorsEntry *noise = run_find(w->s->in, "in.", call, "noise");
    if (noise->rank != 5)
        FAIL(ERR_SHAPE, "%s: %s is %s, want (B, frames, 4, h, w)", noise->path, noise->name,
             safetensors_shape_text(noise, found));
    w->latents = shape_make(5, noise->dim);
    w->cnt = shape_count(w->latents);
    TRY(read_settings(w));
    int steps = w->schedule.cnt;
    w->x = arena_array(&w->arena, float *, steps + 1);
    w->v = arena_array(&w->arena, float *, steps + 1);
    for (int k = 0; k <= steps; k++) {
        w->x[k] = arena_array(&w->arena, float, w->cnt);
        w->v[k] = arena_array(&w->arena, float, w->cnt);
    }
    const float *n = run_floats(&w->arena, noise);
    for (int64_t i = 0; i < w->cnt; i++) w->x[0][i] = (float)(n[i] * w->schedule.init_noise_sigma);
    return ERR_OK;
}

static void emit_steps(Rollout *w) {
    char name[32];
    int end = diffusion_end(&w->schedule, w->window);
    for (int k = 0; k < end; k++) {
        snprintf(name, sizeof name, "latents.%d", k);
        emit_out(w, name, w->x[k], w->latents);
        snprintf(name, sizeof name, "v.%d", k);
        emit_out(w, name, w->v[k], w->latents);
    }
    emit_out(w, "x_0", w->x[end], w->latents);
    if (w->call == w->s->recipe.call) { // by the case's note: of its first call, common to all
        float *x = sink_add(&w->s->sink, "out.x_K", w->latents.rank, w->latents.dim);
        memcpy(x, w->x[w->window.first], sizeof *x * (size_t)w->cnt);
    }
}

static Err run_all(Rollout *w) {
    TRY(start(w));
    TRY(denoise(w));
    emit_steps(w);
    const SafetensorsEntry *cot =
        w->s->cot ? run_find(w->s->cot, "cot.", w->call->name, "R") : NULL;
    TRY(score(w, w->x[diffusion_end(&w->schedule, w->window)], cot));
    if (!cot) return ERR_OK;
    w->s->cot_used++;
    if (!w->s->lora) return ERR_OK;
    w->theta_grad = arena_array(&w->arena, float, lora_theta_count(w->s->lora) + 1);
    TRY(learn(w));
    run_sink_lora(w->s, w->call, w->theta_grad);
    return ERR_OK;
}

Err rollout_call(Session *s, const Part *part, RecipeCall *call, RunReport *report) {
    Rollout w = {.s = s, .call = call, .report = report};
    Err err = run_all(&w);
    arena_free(&w.arena);
    return err;
}
