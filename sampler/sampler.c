// sampler: conditioning, noise, and the steps that carry no gradient.
#include "sampler/sampler.h"

#include <stdlib.h>
#include <string.h>

#include "common/model/clip_vision.h"
#include "common/stages/denoiser.h"

typedef struct Sampler {
    Denoiser *denoiser;
    // The image encoder, on the same device.
    ModelPart *part;
    Params *params;
    Graph *graph;
    Plan *plan;
    Tensor *image, *embed; // (1, 1, H, W, 3) in [0, 1]; (1, dim)
    float *x, *no_theta;   // (F, h, w, C) latents at work; theta of the base model
} Sampler;

static Err build_encoder(Sampler *s, const Config *cfg) {
    ClipVisionConfig clip;
    TRY(model_dir_open(&s->part, cfg->model, "image_encoder", "CLIPVisionModelWithProjection",
                       NULL));
    TRY(clip_vision_config(&clip, s->part->config));
    if (clip.projection != s->denoiser->spec.context_dim)
        FAIL(ERR_SHAPE, "%s: image_encoder projects to %d, the unet's context has %lld", cfg->model,
             clip.projection, (long long)s->denoiser->spec.context_dim);
    TRY(params_of_part(&s->params, s->part, ""));
    Graph *g = s->graph = graph_new();
    NN nn = {.g = g, .params = s->params};
    s->image = graph_input(g, "image", DTYPE_F32, SHAPE(1, 1, cfg->height, cfg->width, 3));
    s->embed = clip_vision_build(&nn, &clip, false, clip_vision_prepare(g, &clip, s->image, NULL));
    graph_output(g, &s->embed, "embedding");
    TRY(graph_check(g));
    return params_finish(s->params);
}

static Err open_models(Sampler *s, const Config *cfg, bool dry, FILE *table, StagePlan *plan) {
    TRY(denoiser_open(&s->denoiser, cfg, STAGE_SAMPLER, false, dry, table, plan));
    TRY(build_encoder(s, cfg));
    TRY(setup_plan(&s->plan, s->graph, s->denoiser->be, cfg, dry, "image encoder", table));
    setup_note_plan(plan, s->plan);
    setup_note_weights(plan, s->graph);
    plan->memory[STAGE_MEMORY_PACKED] += plan_memory(s->plan)->packed_bytes;
    int64_t theta = lora_theta_count(s->denoiser->lora), latent = s->denoiser->latent_cnt;
    plan->memory[STAGE_MEMORY_BUFFERS] += (uint64_t)(latent + theta) * sizeof(float);
    if (dry) return ERR_OK;
    s->x = aligned_alloc(64, ((size_t)latent * sizeof(float) + 63) / 64 * 64);
    s->no_theta = calloc((size_t)theta, sizeof(float));
    die_unless(s->x && s->no_theta, "sampler: out of memory");
    return ERR_OK;
}

static void sampler_close(void *self) {
    Sampler *s = self;
    plan_free(s->plan);
    graph_free(s->graph);
    params_close(s->params);
    model_dir_close(s->part);
    denoiser_close(s->denoiser);
    free(s->x);
    free(s->no_theta);
    free(s);
}

static Err sampler_open(const Config *cfg, int replica, bool dry, FILE *table, void **self,
                        StagePlan *plan) {
    Sampler *s = calloc(1, sizeof *s);
    die_unless(s, "sampler: out of memory");
    Err err = open_models(s, cfg, dry, table, plan);
    if (err) {
        sampler_close(s);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *self = s;
    return ERR_OK;
}

Lora *sampler_lora(void *self) { return ((Sampler *)self)->denoiser->lora; }

Err sampler_embed(void *self, const float *pixels, float *embedding) {
    Sampler *s = self;
    TRY(plan_bind(s->plan, s->image, (void *)(uintptr_t)pixels));
    TRY(plan_bind(s->plan, s->embed, embedding));
    return plan_run(s->plan);
}

int64_t sampler_embed_dim(const void *self) {
    return ((const Sampler *)self)->denoiser->spec.context_dim;
}

// x = sigma_max * normal, in the order that the name of the noise fixes.
static void draw_latents(Sampler *s, const DenoiseJob *job) {
    const Denoiser *d = s->denoiser;
    RngKey key = job->name;
    key.use = rng_use(RNG_LATENTS, 0, 0, 0, 0);
    diffusion_noise(key, d->spec.frames, d->spec.h, d->spec.w, d->spec.channels, s->x);
    float scale = (float)d->schedule.init_noise_sigma;
    for (int64_t i = 0; i < d->latent_cnt; i++) s->x[i] *= scale;
}

// The adapter of a sample: a version on the board, none for previews of the base model, or without a board
// (`vader sample`, `vader eval`) the one that was opened.
static const float *theta_of(const Sampler *s, StageCtx *ctx, const StageStep *step) {
    if (step->header->purpose != SLOT_TRAIN && !step->header->tuned) return s->no_theta;
    Board *board = stage_board(ctx);
    return board ? board_theta(board, step->version) : lora_theta(s->denoiser->lora);
}

static Err sampler_sample(void *self, StageCtx *ctx, const StageStep *step) {
    Sampler *s = self;
    Denoiser *d = s->denoiser;
    size_t bytes = (size_t)d->latent_cnt * sizeof(float);
    const float *theta = theta_of(s, ctx, step);
    float ids[3];
    const void *pixels, *image;
    float *embed = stage_write(ctx, SECTION_EMBED, step->slot, step->segment);
    TRY(stage_read(ctx, SECTION_PIXELS, step->slot, step->segment, &pixels));
    TRY(stage_read(ctx, SECTION_COND, step->slot, step->segment, &image));
    TRY(sampler_embed(s, pixels, embed));
    TRY(denoiser_use(d, theta, step->version));
    denoiser_ids(d, ids);
    DenoiseConditioning c = {.image = image, .context = embed, .ids = ids};
    TRY(denoise_write(&d->step, d->step_plan, &c));
    DenoiseJob job = denoiser_job(d, step->header, step->segment);
    draw_latents(s, &job);
    TRY(denoise_run(&d->step, d->step_plan, &job, 0, job.window.first, s->x, NULL));
    memcpy(stage_write(ctx, SECTION_X_K, step->slot, step->segment), s->x, bytes);
    bool ahead = stage_run(ctx)->state->sampler_handover || step->header->purpose != SLOT_TRAIN;
    if (!ahead) return ERR_OK;
    DenoiseJob whole = job; // a preview is an ordinary sample: no window, no early estimate
    if (step->header->purpose != SLOT_TRAIN) whole.window = (DiffusionWindow){0};
    TRY(denoise_run(&d->step, d->step_plan, &whole, job.window.first,
                    diffusion_end(&d->schedule, whole.window), s->x, NULL));
    memcpy(stage_write(ctx, SECTION_X_AHEAD, step->slot, step->segment), s->x, bytes);
    return ERR_OK;
}

const Stage sampler_stage = {
    .kind = STAGE_SAMPLER,
    .open = sampler_open,
    .run = {[STEP_SAMPLE] = sampler_sample},
    .close = sampler_close,
};
