// decoder: VAE plans by number of frames, and the four steps that use them.
//
// One decode call is one video: a chunk of decode.chunk frames. A plan exists for each chunk length that the
// run needs: full chunks and the shorter last one, of the scored frames and of a whole segment.
//
// Scored frames are decoded by the first part of the plan that pulls their gradient back: when `pull` finds the
// activations still there, only the second part runs. decode.keep such plans take turns, each with its own memory.
#include "decoder/decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "common/config/image_list.h"
#include "common/format/media.h"
#include "common/model/vae_temporal.h"
#include "common/stages/frames.h"
#include "common/stages/setup.h"
#include "common/tensor/grad.h"

enum { PLANS_MAX = 4, KEEP_MAX = 16 };

// Decoding of n frames, or decoding and its vjp.
typedef struct ChunkPlan {
    int64_t n;
    Graph *graph;
    Plan *plan;
    Tensor *z;       // (1, n, h, w, C) latents of the denoiser
    Tensor *frames;  // (1, n, H, W, 3)
    Tensor *cot;     // vjp: dR/dframes
    Tensor *grad;    // vjp: dR/dz
    uint64_t opened; // vjp: when its first part ran, counted in decodings; 0: no activations of use
} ChunkPlan;

typedef struct Decoder {
    const Config *cfg;
    Backend *be;
    ModelPart *part;
    Params *params;
    VaeTemporalConfig vae;
    ChunkPlan decode[PLANS_MAX], pull[KEEP_MAX][PLANS_MAX];
    uint64_t decodings;
    Graph *encode_graph;
    Plan *encode_plan;
    Tensor *image, *latent;              // (1, 1, H, W, 3) in [-1, 1]; (1, 1, h, w, C)
    float *noise;                        // (3, H, W), at work
    float *z, *frames;                   // of one chunk, at work
    int64_t h, w, frame_cnt, latent_cnt; // latent size; values of one frame, of one latent frame
} Decoder;

// ---- Plans ----

static Err build_chunk(Decoder *d, ChunkPlan *c, bool vjp) {
    int64_t n = c->n, channels = d->vae.latent_channels;
    Graph *g = c->graph = graph_new();
    NN nn = {.g = g, .params = d->params};
    c->z = graph_input(g, "latents", DTYPE_F32, SHAPE(1, n, d->h, d->w, channels));
    Tensor *scaled = op_affine(g, c->z, 1 / d->vae.scaling_factor, 0);
    c->frames = vae_temporal_decode(&nn, &d->vae, scaled,
                                    (VaeTemporalOptions){.recompute = vjp && d->cfg->recompute});
    graph_output(g, &c->frames, "frames");
    TRY(graph_check(g));
    if (!vjp) return ERR_OK;
    c->cot = graph_input(g, "dR/dframes", DTYPE_F32, c->frames->shape);
    TRY(grad_build(g, 1, &c->frames, &c->cot, 1, &c->z, &c->grad));
    graph_output(g, &c->grad, "dR/dlatents");
    return graph_check(g);
}

// The plan of n frames in a table, made when it is not there yet.
static Err add_chunk(Decoder *d, ChunkPlan *table, int64_t n, bool vjp, bool dry, FILE *out,
                     StagePlan *sp, uint64_t *packed) {
    char title[64];
    int i = 0;
    while (i < PLANS_MAX && table[i].n && table[i].n != n) i++;
    die_unless(i < PLANS_MAX, "decoder: more than %d chunk lengths", PLANS_MAX);
    ChunkPlan *c = &table[i];
    if (c->n || !n) return ERR_OK;
    c->n = n;
    TRY(build_chunk(d, c, vjp));
    snprintf(title, sizeof title, "%s of %lld frames", vjp ? "decoding and its vjp" : "decoding",
             (long long)n);
    TRY(setup_plan(&c->plan, c->graph, d->be, d->cfg, dry, title, out));
    setup_note_plan(sp, c->plan);
    const PlanMemory *m = plan_memory(c->plan);
    *packed = m->packed_bytes > *packed ? m->packed_bytes : *packed;
    return ERR_OK;
}

static ChunkPlan *find_chunk(ChunkPlan *table, int64_t n) {
    for (int i = 0; i < PLANS_MAX; i++)
        if (table[i].n == n) return &table[i];
    die("decoder: no plan of %lld frames", (long long)n);
}

// Of the plans for n frames the one that has waited longest, or has nothing that is waited for.
static ChunkPlan *longest_kept(Decoder *d, int64_t n) {
    ChunkPlan *best = find_chunk(d->pull[0], n);
    for (int k = 1; k < d->cfg->decode_keep; k++) {
        ChunkPlan *c = find_chunk(d->pull[k], n);
        if (c->opened < best->opened) best = c;
    }
    return best;
}

// The plan that holds the activations of the latents in d->z; NULL: none does.
static ChunkPlan *find_kept(Decoder *d, int64_t n) {
    size_t bytes = (size_t)(n * d->latent_cnt) * sizeof(float);
    for (int k = 0; k < d->cfg->decode_keep; k++) {
        ChunkPlan *c = find_chunk(d->pull[k], n);
        if (c->opened && !memcmp(plan_data(c->plan, c->z), d->z, bytes)) return c;
    }
    return NULL;
}

// Decodes the latents in d->z into frames and keeps what the gradient needs.
static Err open_chunk(Decoder *d, int64_t n, float *frames, ChunkPlan **out) {
    ChunkPlan *c = *out = longest_kept(d, n);
    c->opened = 0;
    memcpy(plan_data(c->plan, c->z), d->z, (size_t)(n * d->latent_cnt) * sizeof(float));
    TRY(plan_bind(c->plan, c->frames, frames));
    TRY(plan_run_until(c->plan, c->frames));
    c->opened = ++d->decodings;
    return ERR_OK;
}

// The second part takes the activations' memory for its own.
static Err close_chunk(ChunkPlan *c, const float *cot) {
    c->opened = 0;
    TRY(plan_bind(c->plan, c->cot, (void *)(uintptr_t)cot));
    return plan_run_after(c->plan, c->frames);
}

static int64_t whole_chunk(const Config *cfg) {
    return cfg->decode_chunk && cfg->decode_chunk < cfg->frames ? cfg->decode_chunk : cfg->frames;
}

// Frames of the last chunk of a whole segment.
static int64_t last_chunk(const Config *cfg) {
    int64_t chunk = whole_chunk(cfg), rest = cfg->frames % chunk;
    return rest ? rest : chunk;
}

// `pull` as if nothing were kept.
static void note_flops(const Decoder *d, StagePlan *sp) {
    const Config *cfg = d->cfg;
    const ChunkPlan *back = &d->pull[0][0], *whole = &d->decode[0];
    if (cfg->reward_cnt) {
        double chunks = (double)frames_scored(cfg) / (double)frames_chunk(cfg);
        sp->flops[STEP_DECODE] = chunks * plan_flops_until(back->plan, back->frames);
        sp->flops[STEP_PULL] = chunks * plan_memory(back->plan)->flops;
    }
    if (cfg->segments > 1) sp->flops[STEP_HANDOVER] = plan_memory(whole->plan)->flops;
}

static Err add_chunks(Decoder *d, bool dry, FILE *out, StagePlan *sp) {
    const Config *cfg = d->cfg;
    int64_t scored = frames_scored(cfg), chunk = frames_chunk(cfg);
    uint64_t packed = 0, packed_back = 0;
    for (int k = 0; cfg->reward_cnt && k < cfg->decode_keep; k++) { // else nothing is scored
        TRY(add_chunk(d, d->pull[k], chunk, true, dry, out, sp, &packed_back));
        TRY(add_chunk(d, d->pull[k], scored % chunk, true, dry, out, sp, &packed_back));
    }
    if (cfg->segments > 1 || cfg->preview_every)
        TRY(add_chunk(d, d->decode, last_chunk(cfg), false, dry, out, sp, &packed));
    if (cfg->preview_every)
        TRY(add_chunk(d, d->decode, whole_chunk(cfg), false, dry, out, sp, &packed));
    note_flops(d, sp);
    setup_note_backend(sp, d->be, packed + packed_back + plan_memory(d->encode_plan)->packed_bytes);
    return ERR_OK;
}

static Err build_encoder(Decoder *d) {
    Graph *g = d->encode_graph = graph_new();
    NN nn = {.g = g, .params = d->params};
    d->image = graph_input(g, "image", DTYPE_F32, SHAPE(1, 1, d->cfg->height, d->cfg->width, 3));
    d->latent = vae_temporal_encode(&nn, &d->vae, d->image, (VaeTemporalOptions){0});
    graph_output(g, &d->latent, "conditioning latent");
    return graph_check(g);
}

static void note_sizes(const Decoder *d, StagePlan *sp) {
    const Config *cfg = d->cfg;
    uint64_t frame = (uint64_t)d->frame_cnt * sizeof(float),
             latent = (uint64_t)d->latent_cnt * sizeof(float);
    sp->section_bytes[SECTION_PIXELS] = frame;
    sp->section_bytes[SECTION_LAST] = cfg->segments > 1 ? frame : 0;
    sp->section_bytes[SECTION_COND] = latent;
    sp->section_bytes[SECTION_FRAMES] = sp->section_bytes[SECTION_GRAD_FRAMES] =
        frame * (uint64_t)frames_scored(cfg);
    sp->section_bytes[SECTION_PREVIEW] = cfg->preview_every ? frame * (uint64_t)cfg->frames : 0;
    sp->section_bytes[SECTION_GRAD_X_0] = latent * (uint64_t)cfg->frames;
}

static Err open_models(Decoder *d, bool dry, FILE *table, StagePlan *sp) {
    const Config *cfg = d->cfg;
    TRY(setup_backend(&d->be, cfg, STAGE_DECODER));
    TRY(model_dir_open(&d->part, cfg->model, "vae", "AutoencoderKLTemporalDecoder", NULL));
    TRY(vae_temporal_config(&d->vae, d->part->config));
    TRY(params_of_part(&d->params, d->part, ""));
    int stride = vae_temporal_stride(&d->vae);
    if (cfg->width % stride || cfg->height % stride || cfg->width * cfg->height % 64)
        FAIL(ERR_USAGE, "%s: video.width %lld and video.height %lld must be multiples of %d",
             cfg->file, (long long)cfg->width, (long long)cfg->height, stride > 8 ? stride : 8);
    d->h = cfg->height / stride;
    d->w = cfg->width / stride;
    d->frame_cnt = cfg->height * cfg->width * 3;
    d->latent_cnt = d->h * d->w * d->vae.latent_channels;
    TRY(build_encoder(d));
    TRY(setup_plan(&d->encode_plan, d->encode_graph, d->be, cfg, dry, "encoding an image", table));
    setup_note_plan(sp, d->encode_plan);
    sp->flops[STEP_ENCODE] = plan_memory(d->encode_plan)->flops;
    setup_note_weights(sp, d->encode_graph);
    TRY(add_chunks(d, dry, table, sp));
    if (cfg->reward_cnt) setup_note_weights(sp, d->pull[0][0].graph);
    TRY(params_finish(d->params));
    note_sizes(d, sp);
    size_t chunk = (size_t)whole_chunk(cfg), frame = (size_t)d->frame_cnt * sizeof(float),
           latents = (chunk * (size_t)d->latent_cnt * sizeof(float) + 63) / 64 * 64;
    sp->memory[STAGE_MEMORY_BUFFERS] += frame + chunk * frame + latents;
    if (dry) return ERR_OK;
    d->noise = aligned_alloc(64, frame);
    d->frames = aligned_alloc(64, chunk * frame);
    d->z = aligned_alloc(64, latents);
    die_unless(d->noise && d->frames && d->z, "decoder: out of memory");
    return ERR_OK;
}

static void close_chunks(ChunkPlan *table) {
    for (int i = 0; i < PLANS_MAX; i++) {
        plan_free(table[i].plan);
        graph_free(table[i].graph);
    }
}

static void decoder_close(void *self) {
    Decoder *d = self;
    close_chunks(d->decode);
    for (int k = 0; k < KEEP_MAX; k++) close_chunks(d->pull[k]);
    plan_free(d->encode_plan);
    graph_free(d->encode_graph);
    backend_close(d->be);
    params_close(d->params);
    model_dir_close(d->part);
    free(d->noise);
    free(d->frames);
    free(d->z);
    free(d);
}

static Err check_list(const char *group, const ConfigStrs *images, const char *list) {
    Arena a = {0};
    ConfigStrs all;
    Err err = image_list_read(&all, &a, group, images, list);
    for (int i = 0; !err && i < all.cnt; i++) {
        MediaClip clip = {0};
        if (media_read_image(&clip, all.item[i]))
            err = err_fail(ERR_USAGE, __FILE__, __LINE__, __func__, "%s", err_text());
        media_clip_fini(&clip);
    }
    arena_free(&a);
    return err;
}

// Every image of the config is a picture.
static Err decoder_check(const Config *cfg) {
    TRY(check_list("data", &cfg->data_images, cfg->data_list));
    return cfg->preview_images.cnt ? check_list("preview", &cfg->preview_images, "") : ERR_OK;
}

static Err decoder_open(const Config *cfg, int replica, bool dry, FILE *table, void **self,
                        StagePlan *plan) {
    Decoder *d = calloc(1, sizeof *d);
    die_unless(d, "decoder: out of memory");
    d->cfg = cfg;
    Err err = open_models(d, dry, table, plan);
    if (err) {
        decoder_close(d);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *self = d;
    return ERR_OK;
}

// ---- encode ----

// The image of segment 0 from its file, of later ones the last frame of the segment before.
static Err load_pixels(Decoder *d, StageCtx *ctx, const StageStep *step, float *pixels) {
    if (!step->segment)
        return media_read_pixels(step->header->source, (int)d->cfg->width, (int)d->cfg->height,
                                 pixels);
    const void *last;
    TRY(stage_read(ctx, SECTION_LAST, step->slot, step->segment - 1, &last));
    memcpy(pixels, last, (size_t)d->frame_cnt * sizeof(float));
    return ERR_OK;
}

static Err decoder_encode(void *self, StageCtx *ctx, const StageStep *step) {
    Decoder *d = self;
    const Config *cfg = d->cfg;
    float *pixels = stage_write(ctx, SECTION_PIXELS, step->slot, step->segment),
          *image = plan_data(d->encode_plan, d->image);
    TRY(load_pixels(d, ctx, step, pixels));
    RngKey key = {.seed = (uint64_t)cfg->seed,
                  .sample = slot_rng_sample(step->header),
                  .segment = step->segment,
                  .use = rng_use(RNG_IMAGE_NOISE, 0, 0, 0, 0)};
    rng_fill_normal(key, d->noise, (size_t)d->frame_cnt); // element order (C, H, W)
    int64_t area = cfg->height * cfg->width;
    for (int64_t i = 0; i < area; i++)
        for (int64_t c = 0; c < 3; c++)
            image[i * 3 + c] =
                2 * pixels[i * 3 + c] - 1 + (float)cfg->noise_aug * d->noise[c * area + i];
    TRY(plan_bind(d->encode_plan, d->latent,
                  stage_write(ctx, SECTION_COND, step->slot, step->segment)));
    return plan_run(d->encode_plan);
}

// ---- decode ----

// Previews and sampler hand-over go by the sampler's own latents.
static Err clean_latents(StageCtx *ctx, const StageStep *step, bool for_handover,
                         const float **out) {
    const void *x;
    bool ahead = step->header->purpose != SLOT_TRAIN ||
                 (for_handover && stage_run(ctx)->state->sampler_handover);
    SectionKind kind = ahead ? SECTION_X_AHEAD : SECTION_X_0;
    TRY(stage_read(ctx, kind, step->slot, step->segment, &x));
    *out = x;
    return ERR_OK;
}

// The last frame of a decode of the segment's last chunk, clamped to [0, 1].
static Err decoder_handover(void *self, StageCtx *ctx, const StageStep *step) {
    Decoder *d = self;
    int64_t n = last_chunk(d->cfg), first = d->cfg->frames - n;
    ChunkPlan *c = find_chunk(d->decode, n);
    const float *x;
    TRY(clean_latents(ctx, step, true, &x));
    memcpy(plan_data(c->plan, c->z), x + first * d->latent_cnt,
           (size_t)(n * d->latent_cnt) * sizeof(float));
    TRY(plan_bind(c->plan, c->frames, d->frames));
    TRY(plan_run(c->plan));
    const float *out = d->frames + (n - 1) * d->frame_cnt;
    float *last = stage_write(ctx, SECTION_LAST, step->slot, step->segment);
    for (int64_t i = 0; i < d->frame_cnt; i++) {
        float p = out[i] / 2 + 0.5f;
        last[i] = p < 0 ? 0 : p > 1 ? 1 : p;
    }
    return ERR_OK;
}

// All frames of a preview.
static Err decode_preview(Decoder *d, const float *x, float *frames) {
    int64_t total = d->cfg->frames, chunk = whole_chunk(d->cfg);
    for (int64_t i = 0; i < total; i += chunk) {
        ChunkPlan *c = find_chunk(d->decode, total - i < chunk ? total - i : chunk);
        memcpy(plan_data(c->plan, c->z), x + i * d->latent_cnt,
               (size_t)(c->n * d->latent_cnt) * sizeof(float));
        TRY(plan_bind(c->plan, c->frames, frames + i * d->frame_cnt));
        TRY(plan_run(c->plan));
    }
    return ERR_OK;
}

// Copies the latents of scored frames [i, i + n) into d->z.
static void gather(Decoder *d, const StageStep *step, const float *x, int64_t i, int64_t n) {
    for (int64_t k = 0; k < n; k++)
        memcpy(d->z + k * d->latent_cnt,
               x + frames_latent(d->cfg, step->header, step->segment, i + k) * d->latent_cnt,
               (size_t)d->latent_cnt * sizeof(float));
}

static Err decoder_decode(void *self, StageCtx *ctx, const StageStep *step) {
    Decoder *d = self;
    bool preview = step->header->purpose != SLOT_TRAIN;
    int64_t total = frames_scored(d->cfg), chunk = frames_chunk(d->cfg);
    float *frames =
        stage_write(ctx, preview ? SECTION_PREVIEW : SECTION_FRAMES, step->slot, step->segment);
    const float *x;
    TRY(clean_latents(ctx, step, false, &x));
    if (preview) return decode_preview(d, x, frames);
    for (int64_t i = 0; i < total; i += chunk) {
        ChunkPlan *c;
        int64_t n = total - i < chunk ? total - i : chunk;
        gather(d, step, x, i, n);
        TRY(open_chunk(d, n, frames + i * d->frame_cnt, &c));
    }
    return ERR_OK;
}

// ---- pull ----

static Err decoder_pull(void *self, StageCtx *ctx, const StageStep *step) {
    Decoder *d = self;
    int64_t total = frames_scored(d->cfg), chunk = frames_chunk(d->cfg);
    const float *x;
    const void *grad_frames;
    TRY(clean_latents(ctx, step, false, &x));
    TRY(stage_read(ctx, SECTION_GRAD_FRAMES, step->slot, step->segment, &grad_frames));
    const float *cot = grad_frames;
    float *grad = stage_write(ctx, SECTION_GRAD_X_0, step->slot, step->segment);
    int64_t cnt = d->cfg->frames * d->latent_cnt;
    memset(grad, 0, (size_t)cnt * sizeof(float));
    for (int64_t i = 0; i < total; i += chunk) {
        int64_t n = total - i < chunk ? total - i : chunk;
        gather(d, step, x, i, n);
        ChunkPlan *c = find_kept(d, n);
        if (!c) TRY(open_chunk(d, n, d->frames, &c));
        TRY(close_chunk(c, cot + i * d->frame_cnt));
        const float *dz = plan_data(c->plan, c->grad);
        for (int64_t k = 0; k < n; k++)
            memcpy(grad + frames_latent(d->cfg, step->header, step->segment, i + k) * d->latent_cnt,
                   dz + k * d->latent_cnt, (size_t)d->latent_cnt * sizeof(float));
    }
    double sum = 0;
    for (int64_t i = 0; i < cnt; i++) sum += (double)grad[i] * grad[i];
    step->line->norms.grad_x0[step->segment] = sqrt(sum);
    return ERR_OK;
}

const Stage decoder_stage = {
    .kind = STAGE_DECODER,
    .open = decoder_open,
    .check = decoder_check,
    .run = {[STEP_ENCODE] = decoder_encode,
            [STEP_HANDOVER] = decoder_handover,
            [STEP_DECODE] = decoder_decode,
            [STEP_PULL] = decoder_pull},
    .close = decoder_close,
};
