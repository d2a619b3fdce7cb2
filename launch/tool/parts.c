// parts: one builder per class, each a few lines around a model of common/model.
#include "launch/tool/parts.h"

#include <stdio.h>
#include <string.h>

#include "common/model/clip_vision.h"
#include "common/model/diffusion.h"
#include "common/model/pixels.h"
#include "common/model/unet_svd.h"
#include "common/model/vae_temporal.h"
#include "common/model/videomae.h"
#include "common/tensor/grad.h"

// ---- Layouts ----

static Tensor *permute5(Graph *g, Tensor *x, int a, int b, int c, int d, int e) {
    return op_permute(g, x, (const int[]){a, b, c, d, e});
}

// (B, F, C, H, W) <-> (B, F, H, W, C)
static Tensor *video_in(Graph *g, Tensor *x) { return permute5(g, x, 0, 1, 3, 4, 2); }
static Tensor *video_out(Graph *g, Tensor *x) { return permute5(g, x, 0, 1, 4, 2, 3); }

// (N, C, H, W) <-> (N / frames, frames, H, W, C)
static Tensor *images_in(Graph *g, Tensor *x, int64_t frames) {
    if (!x) return NULL;
    const int64_t *d = x->shape.dim;
    return video_in(g, op_reshape(g, x, SHAPE(d[0] / frames, frames, d[1], d[2], d[3])));
}
static Tensor *images_out(Graph *g, Tensor *x) {
    x = video_out(g, x);
    if (!x) return NULL;
    const int64_t *d = x->shape.dim;
    return op_reshape(g, x, SHAPE(d[0] * d[1], d[2], d[3], d[4]));
}

// ---- One model each ----

static const RunTakes unet_takes[] = {
    {"sample", "(B, F, C, h, w)"},
    {"timestep", "(1) or (B)"},
    {"encoder_hidden_states", "(B, 1, D)"},
    {"added_time_ids", "(B, ids)"},
    {0},
};

static Err build_unet(Run *r) {
    Session *s = r->s;
    UnetSvdConfig c;
    TRY(session_model(s, s->recipe.model, "UNetSpatioTemporalConditionModel", &r->model));
    TRY(unet_svd_config(&c, r->model->part->config));
    NN nn = run_nn(r, r->model, true);
    UnetSvdIo io = {video_in(r->g, run_input(r, "sample", 5)), run_input(r, "timestep", 0),
                    run_input(r, "encoder_hidden_states", 3), run_input(r, "added_time_ids", 2)};
    Tensor *v = unet_svd_build(&nn, &c, io, (UnetSvdOptions){.recompute = s->opt.recompute});
    run_output(r, "sample", video_out(r->g, v));
    TRY(graph_check(r->g));
    return params_finish(nn.params);
}

static const RunTakes vae_takes[] = {
    {"image", "(N, 3, H, W)", .optional = true},
    {"z", "(N, 4, h, w), N a multiple of num_frames", .optional = true},
    {0},
};

static Err build_vae(Run *r) {
    Session *s = r->s;
    VaeTemporalConfig c;
    bool encode = run_has_input(r, "image"), decode = run_has_input(r, "z");
    if (!encode && !decode) return run_fail_missing(s, r->class_name, r->takes, r->call->name, "z");
    TRY(session_model(s, s->recipe.model, "AutoencoderKLTemporalDecoder", &r->model));
    TRY(vae_temporal_config(&c, r->model->part->config));
    NN nn = run_nn(r, r->model, false);
    VaeTemporalOptions opt = {.recompute = s->opt.recompute};
    if (encode) {
        Tensor *x = images_in(r->g, run_input(r, "image", 4), 1);
        run_output(r, "latent", images_out(r->g, vae_temporal_encode(&nn, &c, x, opt)));
    } else {
        params_ignore(nn.params, VAE_TEMPORAL_ENCODER);
        params_ignore(nn.params, VAE_TEMPORAL_QUANT);
    }
    if (decode) {
        Tensor *z = run_input(r, "z", 4);
        int64_t frames = z ? z->shape.dim[0] : 1;
        if (r->call->args) TRY(json_get_i64(r->call->args, "num_frames", &frames));
        if (z && (frames < 1 || z->shape.dim[0] % frames))
            FAIL(ERR_SHAPE, "%s: %lld latents are not videos of num_frames %lld", z->name,
                 (long long)z->shape.dim[0], (long long)frames);
        run_output(r, "frames",
                   images_out(r->g, vae_temporal_decode(&nn, &c, images_in(r->g, z, frames), opt)));
    } else {
        params_ignore(nn.params, VAE_TEMPORAL_DECODER);
    }
    TRY(graph_check(r->g));
    return params_finish(nn.params);
}

// "mean" and "std" of a call's arguments, if they are there.
static Err read_colours(Json *args, double mean[3], double std[3]) {
    int cnt = 3;
    if (!args) return ERR_OK;
    TRY(json_get_f64s(args, "mean", mean, 3, &cnt));
    return json_get_f64s(args, "std", std, 3, &cnt);
}

static const RunTakes clip_takes[] = {
    {"image", "(N, 3, H, W) in [0, 1], any size", .optional = true},
    {"pixel_values", "(N, 3, image_size, image_size), normalised", .optional = true},
    {0},
};

static Err build_clip(Run *r) {
    Session *s = r->s;
    ClipVisionConfig c;
    TRY(session_model(s, s->recipe.model, "CLIPVisionModelWithProjection|CLIPModel", &r->model));
    TRY(clip_vision_config(&c, r->model->part->config));
    double mean[3] = PIXELS_CLIP_MEAN, std[3] = PIXELS_CLIP_STD;
    TRY(read_colours(r->call->args, mean, std));
    NN nn = run_nn(r, r->model, false);
    Tensor *x;
    if (run_has_input(r, "image")) {
        x = images_in(r->g, run_input(r, "image", 4), 1);
        x = resample(r->g, x, RESAMPLE_SVD, c.image, c.image);
        x = images_in(r->g, run_output(r, "resized", images_out(r->g, x)), 1);
        x = pixels_normalize(r->g, x, mean, std);
    } else {
        x = images_in(r->g, run_input(r, "pixel_values", 4), 1);
    }
    run_output(r, "image_embeds", clip_vision_build(&nn, &c, s->opt.recompute, x));
    TRY(graph_check(r->g));
    return params_finish(nn.params);
}

static const RunTakes videomae_takes[] = {
    {"pixel_values", "(B, T, 3, image_size, image_size), normalised"},
    {0},
};

// Call "prob": the probability of args.class; "ce": cross-entropy, mean over the batch; else the logits.
static Err build_videomae(Run *r) {
    Session *s = r->s;
    VideoMaeConfig c;
    int64_t class_idx = 0;
    TRY(session_model(s, s->recipe.model, "VideoMAEForVideoClassification", &r->model));
    TRY(videomae_config(&c, r->model->part->config));
    NN nn = run_nn(r, r->model, false);
    Tensor *x = video_in(r->g, run_input(r, "pixel_values", 5));
    Tensor *logits = videomae_build(&nn, &c, s->opt.recompute, x);
    bool prob = !strcmp(r->call->name, "prob"), ce = !strcmp(r->call->name, "ce");
    if ((prob || ce) && r->call->args) TRY(json_want_i64(r->call->args, "class", &class_idx));
    if (prob) {
        run_output(r, "prob",
                   op_unary(r->g, UNARY_exp, videomae_log_prob(r->g, logits, (int)class_idx)));
    } else if (ce) {
        Tensor *mean = op_mean(r->g, videomae_log_prob(r->g, logits, (int)class_idx), 1);
        run_output(r, "loss", op_affine(r->g, mean, -1, 0));
    } else {
        run_output(r, "logits", logits);
    }
    TRY(graph_check(r->g));
    return params_finish(nn.params);
}

static const RunTakes vjepa_takes[] = {
    {"clips", "(B, 3, T, crop_size, crop_size), normalised"},
    {"masks_enc.0", "(B, count), token indices", .is_index = true},
    {"masks_enc.1", "(B, count), token indices", .optional = true, .is_index = true},
    {"masks_pred.0", "(B, count), token indices", .is_index = true},
    {"masks_pred.1", "(B, count), token indices", .optional = true, .is_index = true},
    {0},
};

typedef struct VjepaCall {
    VjepaLoss loss;
    Tensor *clips;
} VjepaCall;

// To the clips past the places where gradient stops, then on to whatever lies before them.
static Err vjepa_vjp(Run *r, int out_cnt, Tensor *const *out, Tensor *const *cot, int wrt_cnt,
                     Tensor *const *wrt, Tensor **dx) {
    VjepaCall *v = r->vjp_ctx;
    Tensor *d_clips = NULL;
    if (out_cnt != 1 || shape_count(out[0]->shape) != 1)
        FAIL(ERR_USAGE, "V-JEPA: a cotangent of %s, want one of the loss alone", out[0]->name);
    TRY(vjepa_grad(r->g, &v->loss, cot[0], v->clips, &d_clips));
    return grad_build(r->g, 1, &v->clips, &d_clips, wrt_cnt, wrt, dx);
}

// Which path carries gradient: the call's name, args.gradient, or args.gradient_through_target.
static Err vjepa_option(const RecipeCall *c, VjepaGradient *option, int64_t *first_frame) {
    const char *name = NULL;
    bool through = false;
    *option = VJEPA_STOP_TARGET;
    *first_frame = 0;
    if (c->args) {
        TRY(json_get_str(c->args, "gradient", &name));
        TRY(json_get_bool(c->args, "gradient_through_target", &through));
        TRY(json_get_i64(c->args, "first_frame", first_frame));
    }
    if (through) *option = VJEPA_FULL;
    if (!name && !c->listed && *c->name) name = c->name;
    return name ? vjepa_gradient_parse(name, option) : ERR_OK;
}

static Err build_vjepa(Run *r) {
    Session *s = r->s;
    Vjepa *v;
    VjepaGradient option;
    int64_t first_frame;
    VjepaCall *call = arena_new(&r->g->arena, VjepaCall);
    TRY(vjepa_option(r->call, &option, &first_frame));
    TRY(session_vjepa(s, s->recipe.model, &v));
    call->clips = permute5(r->g, run_input(r, "clips", 5), 0, 2, 3, 4, 1);
    int masks = run_has_input(r, "masks_enc.1") ? 2 : 1;
    VjepaMask mask[2] = {{run_input(r, "masks_enc.0", 2), run_input(r, "masks_pred.0", 2)}};
    if (masks == 2)
        mask[1] = (VjepaMask){run_input(r, "masks_enc.1", 2), run_input(r, "masks_pred.1", 2)};
    TRY(graph_check(r->g));
    vjepa_build(v, r->g, call->clips, mask, masks, option, first_frame, s->opt.recompute,
                &call->loss);
    run_output(r, "loss", call->loss.loss);
    run_output(r, "h", call->loss.h);
    run_output(r, "z.0", call->loss.z[0]);
    if (masks == 2) run_output(r, "z.1", call->loss.z[1]);
    r->vjp = vjepa_vjp;
    r->vjp_ctx = call;
    TRY(graph_check(r->g));
    return vjepa_finish(v);
}

static const RunTakes aesthetic_takes[] = {
    {"pixels", "(N, 3, H, W) in [0, 1], any size"},
    {0},
};

static Err build_aesthetic(Run *r) {
    Session *s = r->s;
    Aesthetic *a;
    AestheticScore score;
    TRY(session_aesthetic(s, s->recipe.clip, s->recipe.head, &a));
    int64_t size[2] = {aesthetic_config(a)->image, aesthetic_config(a)->image};
    PixelSpec spec = {.unit = true,
                      .resize = RESAMPLE_BILINEAR_AA,
                      .mean = PIXELS_CLIP_MEAN,
                      .std = PIXELS_CLIP_STD};
    int cnt = 2;
    if (r->call->args) TRY(json_get_i64s(r->call->args, "resize", size, 2, &cnt));
    TRY(read_colours(r->call->args, spec.mean, spec.std));
    spec.height = size[0], spec.width = size[1];
    Tensor *x = pixels_enter(r->g, images_in(r->g, run_input(r, "pixels", 4), 1), &spec);
    x = images_in(r->g, run_output(r, "pixel_values", images_out(r->g, x)), 1);
    aesthetic_build(a, r->g, x, s->opt.recompute, &score);
    run_output(r, "image_embeds", score.image_embeds);
    run_output(r, "score", score.score);
    TRY(graph_check(r->g));
    return aesthetic_finish(a);
}

// ---- The scheduler ----

static const RunTakes scheduler_takes[] = {
    {"noise", "(B, F, C, h, w)", .optional = true},
    {"v.*", "of noise's shape, one per step", .optional = true},
    {0},
};

typedef enum TableColumn { COL_SIGMA, COL_T, COL_C_IN, COL_A, COL_B } TableColumn;

static double column(const DiffusionStep *k, TableColumn c) {
    switch (c) {
    case COL_SIGMA: return k->sigma;
    case COL_T: return k->t;
    case COL_C_IN: return k->c_in;
    case COL_A: return k->a;
    case COL_B: return k->b;
    }
    return 0;
}

static void sink_table(Run *r, const DiffusionSchedule *d) {
    static const char *const names[] = {"sigmas", "timesteps", "c_in", "coef_x", "coef_v"};
    Recipe *recipe = &r->s->recipe;
    for (int c = 0; c < 5; c++) {
        int64_t cnt = d->cnt + (c == COL_SIGMA); // the last sigma is 0
        float *x =
            sink_add(&r->s->sink,
                     recipe_full_name(recipe, r->call, &r->call->out, "out.", names[c]), 1, &cnt);
        for (int i = 0; i < d->cnt; i++) x[i] = (float)column(&d->step[i], (TableColumn)c);
    }
    int64_t one = 1;
    const char *name = recipe_full_name(recipe, r->call, &r->call->out, "out.", "init_noise_sigma");
    *sink_add(&r->s->sink, name, 1, &one) = (float)d->init_noise_sigma;
}

// Sampling with given predictions; elementwise, so any layout.
static void build_loop(Run *r, const DiffusionSchedule *d) {
    Graph *g = r->g;
    char name[32];
    Tensor *x = op_affine(g, run_input(r, "noise", 0), d->init_noise_sigma, 0);
    for (int i = 0; i < d->cnt && x; i++) {
        const DiffusionStep *k = &d->step[i];
        snprintf(name, sizeof name, "v.%d", i);
        Tensor *v = run_input(r, name, 0);
        snprintf(name, sizeof name, "latents.%d", i);
        x = run_output(r, name, x);
        snprintf(name, sizeof name, "model_input.%d", i);
        run_output(r, name, op_affine(g, x, k->c_in, 0));
        snprintf(name, sizeof name, "clean.%d", i);
        run_output(r, name,
                   op_add(g, op_affine(g, x, k->clean_x, 0), op_affine(g, v, k->clean_v, 0)));
        x = op_add(g, op_affine(g, x, k->a, 0), op_affine(g, v, k->b, 0));
    }
    snprintf(name, sizeof name, "latents.%d", d->cnt);
    run_output(r, name, x);
}

static Err build_scheduler(Run *r) {
    Json *j = NULL;
    DiffusionSchedule d;
    DiffusionOptions opt = {.steps = 25};
    Recipe *recipe = &r->s->recipe;
    Err err = ERR_OK;
    const char *path =
        recipe->scheduler ? recipe->scheduler
                          : arena_printf(&recipe->arena, "%s/scheduler_config.json", recipe->model);
    TRY(json_open(&j, path));
    if (r->call->args) TRY_OUT(json_get_int(r->call->args, "num_inference_steps", &opt.steps));
    TRY_OUT(diffusion_schedule(&d, &r->g->arena, j, &opt));
    if (run_has_input(r, "noise"))
        build_loop(r, &d);
    else
        sink_table(r, &d);
out:
    json_close(j);
    return err;
}

// ---- Which part ----

static Err call_build(Session *s, const Part *part, RecipeCall *call, RunReport *report,
                      Err (*build)(Run *r)) {
    Run r;
    run_begin(&r, s, call, part->class_name, part->takes);
    Err err = build(&r);
    if (r.err) err = r.err;
    if (!err && r.output_cnt) err = run_finish(&r, report);
    run_end(&r);
    return err;
}

#define CALL(name)                                                                              \
    static Err call_##name(Session *s, const Part *part, RecipeCall *call, RunReport *report) { \
        return call_build(s, part, call, report, build_##name);                                 \
    }
CALL(unet)
CALL(vae)
CALL(clip)
CALL(videomae)
CALL(vjepa)
CALL(aesthetic)
CALL(scheduler)

static const Part parts[] = {
    {"UNetSpatioTemporalConditionModel", unet_takes, call_unet},
    {"AutoencoderKLTemporalDecoder", vae_takes, call_vae},
    {"CLIPVisionModelWithProjection", clip_takes, call_clip},
    {"CLIPModel", clip_takes, call_clip},
    {"VideoMAEForVideoClassification", videomae_takes, call_videomae},
    {"vjepa", vjepa_takes, call_vjepa},
    {"EulerDiscreteScheduler", scheduler_takes, call_scheduler},
    {"DDIMScheduler", scheduler_takes, call_scheduler},
};
static const Part aesthetic_part = {"aesthetic score", aesthetic_takes, call_aesthetic};
static const Part rollout_part = {"rollout", rollout_takes, rollout_call};

const Part *parts_by_class(const char *class_name) {
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strcmp(parts[i].class_name, class_name)) return &parts[i];
    return NULL;
}

const char *parts_class_list(Arena *a) {
    const char *list = "";
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        list = arena_printf(a, "%s%s%s", list, i ? ", " : "", parts[i].class_name);
    return list;
}

Err parts_of_recipe(Session *s, const Part **out) {
    const Recipe *r = &s->recipe;
    if (r->head) return *out = &aesthetic_part, ERR_OK;
    if (r->vae && r->videomae) return *out = &rollout_part, ERR_OK;
    if (r->scheduler) return *out = parts_by_class("EulerDiscreteScheduler"), ERR_OK;
    if (!r->model) FAIL(ERR_FORMAT, "%s: names no model", r->label);
    ModelPart *part;
    Arena a = {0};
    Err err = ERR_OK;
    TRY(model_dir_open(&part, r->model, NULL, NULL, &(ModelDirOptions){.config_only = true}));
    if (!part->config)
        FAIL_OUT(ERR_FORMAT, "%s: no config.json here, so the class is not known", r->model);
    *out = parts_by_class(part->class_name);
    if (!*out)
        FAIL_OUT(ERR_FORMAT, "%s: a model of class '%s', want one of %s", r->model,
                 part->class_name, parts_class_list(&a));
out:
    arena_free(&a);
    model_dir_close(part);
    return err;
}
