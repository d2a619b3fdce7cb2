// denoiser: opening the trained model from a config.
#include "common/stages/denoiser.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/vae_temporal.h"

// ---- Settings from the config ----

static DiffusionWindowOptions window_options(const Config *cfg) {
    DiffusionWindowOptions o = {.predict = cfg->window_finish == CONFIG_FINISH_PREDICT, .hi = -1};
    o.steps = strcmp(cfg->window_steps, "to_end") ? atoi(cfg->window_steps) : 0;
    if (!strcmp(cfg->window_at, "last")) {
        o.at = DIFFUSION_AT_LAST;
    } else if (!strcmp(cfg->window_at, "gain")) {
        o.at = DIFFUSION_AT_GAIN;
    } else if (!strcmp(cfg->window_at, "random")) {
        o.at = DIFFUSION_AT_RANDOM;
        o.lo = (int)cfg->window_range.item[0];
        o.hi = (int)cfg->window_range.item[1];
    } else {
        o.at = DIFFUSION_AT_INDEX;
        o.index = atoi(cfg->window_at);
    }
    return o;
}

static Err open_schedule(Denoiser *d) {
    const Config *cfg = d->cfg;
    ModelPart *part;
    TRY(model_dir_open(&part, cfg->model, "scheduler", NULL,
                       &(ModelDirOptions){.config_only = true}));
    Err err = diffusion_schedule(&d->schedule, &d->arena, part->config,
                                 &(DiffusionOptions){.steps = (int)cfg->steps,
                                                     .sigma_min = cfg->sigma_min,
                                                     .sigma_max = cfg->sigma_max,
                                                     .rho = cfg->rho});
    model_dir_close(part);
    if (err) return err;
    DiffusionWindowOptions o = window_options(cfg);
    return diffusion_window(&d->window, &d->schedule, &o, (RngKey){.seed = (uint64_t)cfg->seed});
}

// Latent size and channels follow from the VAE.
static Err read_vae(const Config *cfg, int *stride, int *channels) {
    ModelPart *part;
    VaeTemporalConfig vae;
    TRY(model_dir_open(&part, cfg->model, "vae", "AutoencoderKLTemporalDecoder", NULL));
    Err err = vae_temporal_config(&vae, part->config);
    model_dir_close(part);
    if (err) return err;
    *stride = vae_temporal_stride(&vae);
    *channels = vae.latent_channels;
    return ERR_OK;
}

static Err fill_spec(Denoiser *d) {
    const Config *cfg = d->cfg;
    int stride = 0, channels = 0;
    TRY(read_vae(cfg, &stride, &channels));
    int64_t unit = stride * ((int64_t)1 << (d->net.cfg.level_cnt - 1));
    if (cfg->width % unit || cfg->height % unit)
        FAIL(ERR_USAGE,
             "%s: video.width %lld and video.height %lld must be multiples of %lld for this model",
             cfg->file, (long long)cfg->width, (long long)cfg->height, (long long)unit);
    if (d->net.cfg.out_channels != channels || d->net.cfg.in_channels != 2 * channels)
        FAIL(ERR_SHAPE,
             "%s: unet takes %d channels and gives %d, the VAE's latents have %d (want %d and %d)",
             cfg->model, d->net.cfg.in_channels, d->net.cfg.out_channels, channels, 2 * channels,
             channels);
    bool on;
    d->guidance = arena_array(&d->arena, float, cfg->frames);
    TRY(diffusion_guidance(cfg->guidance_min, cfg->guidance_max, (int)cfg->frames, d->guidance,
                           &on));
    if (!on) d->guidance = NULL;
    d->spec = (DenoiseSpec){.net = unet_svd_denoiser,
                            .self = &d->net,
                            .videos = 1,
                            .frames = cfg->frames,
                            .h = cfg->height / stride,
                            .w = cfg->width / stride,
                            .channels = channels,
                            .image_channels = channels,
                            .context_len = 1,
                            .context_dim = d->net.cfg.context_dim,
                            .ids_cnt = d->net.cfg.ids_cnt,
                            .guidance = d->guidance,
                            .batch_branches = false,
                            .stochastic = d->schedule.stochastic};
    d->latent_cnt = d->spec.frames * d->spec.h * d->spec.w * d->spec.channels;
    d->image_cnt = d->spec.h * d->spec.w * d->spec.image_channels;
    if (d->spec.ids_cnt != 3)
        FAIL(ERR_SHAPE, "%s: the unet takes %lld time ids, want 3", cfg->model,
             (long long)d->spec.ids_cnt);
    return ERR_OK;
}

static Err open_lora(Denoiser *d) {
    static const char *const usual[] = {"to_q", "to_k", "to_v", "to_out.0"};
    const Config *cfg = d->cfg;
    if (*cfg->lora_init) return lora_read(&d->lora, cfg->lora_init);
    LoraConfig lc = {.rank = (int)cfg->lora_rank,
                     .alpha = cfg->lora_alpha,
                     .dropout = cfg->lora_dropout,
                     .target_cnt = cfg->lora_targets.cnt,
                     .target = cfg->lora_targets.item};
    if (!lc.target_cnt) lc.target_cnt = 4, lc.target = usual;
    d->lora = lora_new(&lc);
    return ERR_OK;
}

// ---- Graphs and plans ----

// drops: the learner's, whose adapter may have dropout; the same masks in denoise and in learn.
static Err build_step(Denoiser *d, bool drops) {
    d->step_graph = graph_new();
    NN nn = {.g = d->step_graph, .params = d->params, .lora = d->lora, .dropout = drops};
    TRY(denoise_build(&d->step, &nn, &d->spec));
    TRY(params_finish(d->params));
    TRY(lora_finish(d->lora));
    if (*d->cfg->lora_init) return lora_load_values(d->lora);
    lora_init(d->lora, (uint64_t)d->cfg->seed);
    return ERR_OK;
}

static Err build_back(Denoiser *d) {
    d->back_graph = graph_new();
    NN nn = {.g = d->back_graph, .params = d->params, .lora = d->lora, .dropout = true};
    DenoiseVjpOptions o = {.input_gradient = d->window.cnt > 1 && !d->cfg->detach_input,
                           .cond_only = d->cfg->guidance_gradient == CONFIG_GUIDANCE_COND};
    return denoise_build_vjp(&d->back, &nn, &d->spec, o);
}

static void note_sizes(const Denoiser *d, StageKind stage, StagePlan *plan) {
    uint64_t latent = (uint64_t)d->latent_cnt * sizeof(float);
    uint64_t *bytes = plan->section_bytes;
    bytes[SECTION_X_K] = bytes[SECTION_X_0] = bytes[SECTION_GRAD_X_0] = latent;
    bool ahead = d->cfg->handover == CONFIG_HANDOVER_SAMPLER || d->cfg->preview_every;
    bytes[SECTION_X_AHEAD] = ahead ? latent : 0;
    bytes[SECTION_COND] = (uint64_t)d->image_cnt * sizeof(float);
    bytes[SECTION_EMBED] = (uint64_t)(d->spec.context_len * d->spec.context_dim) * sizeof(float);
    if (stage == STAGE_LEARNER)
        bytes[SECTION_GRAD_THETA] = (uint64_t)lora_theta_count(d->lora) * sizeof(float);
}

static void note_window(const Denoiser *d, StagePlan *plan) {
    bool random = !strcmp(d->cfg->window_at, "random");
    plan->window_at = random ? -1 : d->window.first;
    plan->window_steps = d->window.cnt;
    plan->window_gain = random ? 0 : denoiser_gain(d, d->window);
}

// Every module's place in theta, for who writes bundles without tensor code.
static void note_adapter(const Denoiser *d, StagePlan *plan) {
    int cnt = lora_module_count(d->lora);
    const LoraConfig *lc = lora_config(d->lora);
    plan->board = (BoardSpec){.theta_cnt = lora_theta_count(d->lora),
                              .module_cnt = (uint32_t)cnt,
                              .rank = (uint32_t)lc->rank,
                              .alpha = lc->alpha};
    plan->modules = calloc((size_t)cnt + 1, sizeof *plan->modules);
    die_unless(plan->modules, "denoiser: out of memory for %d modules", cnt);
    for (int i = 0; i < cnt; i++) {
        const LoraModule *m = lora_module(d->lora, i);
        BoardModule *b = &plan->modules[i];
        *b = (BoardModule){
            .in = m->in, .out = m->out, .a_at = m->a_at, .b_at = m->b_at, .dead = m->dead};
        snprintf(b->path, sizeof b->path, "%s", m->path);
    }
}

static void note_flops(const Denoiser *d, StagePlan *plan) {
    double step = plan_memory(d->step_plan)->flops;
    int first = d->window.first, end = diffusion_end(&d->schedule, d->window);
    bool ahead = d->cfg->handover == CONFIG_HANDOVER_SAMPLER;
    if (!d->back_plan) {
        plan->flops[STEP_SAMPLE] = step * (ahead ? end : first);
        return;
    }
    plan->flops[STEP_DENOISE] = step * (end - first);
    plan->flops[STEP_LEARN] =
        step * (d->window.cnt - 1) + plan_memory(d->back_plan)->flops * d->window.cnt;
}

static Err open(Denoiser *d, StageKind stage, bool with_vjp, bool dry, FILE *table,
                StagePlan *plan) {
    const Config *cfg = d->cfg;
    TRY(setup_backend(&d->be, cfg, stage));
    TRY(model_dir_open(&d->part, cfg->model, "unet", "UNetSpatioTemporalConditionModel", NULL));
    TRY(unet_svd_config(&d->net.cfg, d->part->config));
    d->net.opt.recompute = cfg->recompute && with_vjp;
    TRY(params_of_part(&d->params, d->part, ""));
    TRY(open_schedule(d));
    TRY(fill_spec(d));
    TRY(open_lora(d));
    TRY(build_step(d, with_vjp));
    TRY(setup_plan(&d->step_plan, d->step_graph, d->be, cfg, dry, "denoising step", table));
    uint64_t packed = plan_memory(d->step_plan)->packed_bytes;
    setup_note_plan(plan, d->step_plan);
    setup_note_weights(plan, d->step_graph);
    if (with_vjp) {
        TRY(build_back(d));
        TRY(setup_plan(&d->back_plan, d->back_graph, d->be, cfg, dry, "vjp of a denoising step",
                       table));
        setup_note_plan(plan, d->back_plan);
        packed += plan_memory(d->back_plan)
                      ->packed_bytes; // forward layouts are shared, gradient ones are not
        note_adapter(d, plan);
        if (table) diffusion_print(&d->schedule, table);
    }
    setup_note_backend(plan, d->be, packed);
    note_sizes(d, stage, plan);
    note_window(d, plan);
    note_flops(d, plan);
    return ERR_OK;
}

Err denoiser_open(Denoiser **out, const Config *cfg, StageKind stage, bool with_vjp, bool dry,
                  FILE *table, StagePlan *plan) {
    Denoiser *d = calloc(1, sizeof *d);
    die_unless(d, "denoiser: out of memory");
    d->cfg = cfg;
    d->version_in_step = d->version_in_back = UINT64_MAX;
    Err err = open(d, stage, with_vjp, dry, table, plan);
    if (err) {
        denoiser_close(d);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = d;
    return ERR_OK;
}

void denoiser_close(Denoiser *d) {
    if (!d) return;
    plan_free(d->step_plan);
    plan_free(d->back_plan);
    graph_free(d->step_graph);
    graph_free(d->back_graph);
    backend_close(d->be);
    lora_free(d->lora);
    params_close(d->params);
    model_dir_close(d->part);
    arena_free(&d->arena);
    free(d);
}

// ---- Per rollout ----

DenoiseJob denoiser_job(const Denoiser *d, const SlotHeader *h, uint32_t segment) {
    DenoiseJob job = {.schedule = &d->schedule, .window = d->window};
    job.window.first = h->window_at[segment];
    job.name =
        (RngKey){.seed = (uint64_t)d->cfg->seed, .sample = slot_rng_sample(h), .segment = segment};
    return job;
}

Err denoiser_use(Denoiser *d, const float *theta, uint64_t version) {
    if (d->theta_in_step == theta && d->version_in_step == version) return ERR_OK;
    TRY(lora_write_theta(d->lora, d->step_graph, d->step_plan, theta));
    d->theta_in_step = theta;
    d->version_in_step = version;
    return ERR_OK;
}

Err denoiser_use_back(Denoiser *d, const float *theta, uint64_t version) {
    if (d->theta_in_back == theta && d->version_in_back == version) return ERR_OK;
    TRY(lora_write_theta(d->lora, d->back_graph, d->back_plan, theta));
    d->theta_in_back = theta;
    d->version_in_back = version;
    return ERR_OK;
}

double denoiser_gain(const Denoiser *d, DiffusionWindow w) {
    double sum = 0;
    for (int i = 0; i < w.cnt; i++) sum += d->schedule.step[w.first + i].gain;
    return sum;
}

void denoiser_ids(const Denoiser *d, float ids[3]) {
    ids[0] = (float)(d->cfg->fps - 1);
    ids[1] = (float)d->cfg->motion_bucket;
    ids[2] = (float)d->cfg->noise_aug;
}
