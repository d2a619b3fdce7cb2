// learner: the window's forward, its vjp, and the update.
#include "learner/learner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/stages/denoiser.h"
#include "common/tensor/optim.h"

typedef struct Learner {
    Denoiser *denoiser;
    float *x, *cot, *saved; // latents: at work, cotangent, one per step of the window
    float *grad;            // mean gradient (theta_cnt)
} Learner;

static float *floats(int64_t cnt) {
    float *p = aligned_alloc(64, ((size_t)cnt * sizeof(float) + 63) / 64 * 64);
    die_unless(p, "learner: out of memory for %lld floats", (long long)cnt);
    return p;
}

static void learner_close(void *self) {
    Learner *l = self;
    denoiser_close(l->denoiser);
    free(l->x);
    free(l->cot);
    free(l->saved);
    free(l->grad);
    free(l);
}

static Err learner_open(const Config *cfg, int replica, bool dry, FILE *table, void **self,
                        StagePlan *plan) {
    Learner *l = calloc(1, sizeof *l);
    die_unless(l, "learner: out of memory");
    Err err = denoiser_open(&l->denoiser, cfg, STAGE_LEARNER, true, dry, table, plan);
    if (err) {
        learner_close(l);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    const Denoiser *d = l->denoiser;
    int64_t theta = lora_theta_count(d->lora), host = (2 + d->window.cnt) * d->latent_cnt + theta;
    plan->memory[STAGE_MEMORY_BUFFERS] += (uint64_t)host * sizeof(float);
    if (!dry) {
        l->x = floats(d->latent_cnt);
        l->cot = floats(d->latent_cnt);
        l->saved = floats(d->latent_cnt * d->window.cnt);
        l->grad = floats(theta);
    }
    *self = l;
    return ERR_OK;
}

// Version 0 of theta, once per run.
static Err learner_join(void *self, StageCtx *ctx) {
    Learner *l = self;
    Board *b = stage_board(ctx);
    if (board_ready(b)) return ERR_OK;
    size_t bytes = (size_t)board_spec(b)->theta_cnt * sizeof(float);
    memcpy(board_theta(b, 0), lora_theta(l->denoiser->lora), bytes);
    memset(board_m(b, 0), 0, bytes);
    memset(board_v(b, 0), 0, bytes);
    board_set_ready(b);
    return ERR_OK;
}

static Err write_conditioning(Learner *l, StageCtx *ctx, const StageStep *step,
                              const DenoiseGraph *graph, Plan *plan) {
    float ids[3];
    denoiser_ids(l->denoiser, ids);
    const void *image, *context;
    TRY(stage_read(ctx, SECTION_COND, step->slot, step->segment, &image));
    TRY(stage_read(ctx, SECTION_EMBED, step->slot, step->segment, &context));
    DenoiseConditioning c = {.image = image, .context = context, .ids = ids};
    return denoise_write(graph, plan, &c);
}

static Err copy_latents(StageCtx *ctx, const StageStep *step, SectionKind kind, float *to,
                        size_t bytes) {
    const void *from;
    TRY(stage_read(ctx, kind, step->slot, step->segment, &from));
    memcpy(to, from, bytes);
    return ERR_OK;
}

// ---- denoise ----

static Err learner_denoise(void *self, StageCtx *ctx, const StageStep *step) {
    Learner *l = self;
    Denoiser *d = l->denoiser;
    size_t bytes = (size_t)d->latent_cnt * sizeof(float);
    DenoiseJob job = denoiser_job(d, step->header, step->segment);
    TRY(denoiser_use(d, board_theta(stage_board(ctx), step->version), step->version));
    TRY(write_conditioning(l, ctx, step, &d->step, d->step_plan));
    TRY(copy_latents(ctx, step, SECTION_X_K, l->x, bytes));
    TRY(denoise_run(&d->step, d->step_plan, &job, job.window.first,
                    diffusion_end(&d->schedule, job.window), l->x, NULL));
    memcpy(stage_write(ctx, SECTION_X_0, step->slot, step->segment), l->x, bytes);
    return ERR_OK;
}

// ---- learn ----

// x before each step of the window, from x_K. The last of them needs no run of its own.
static Err redo_window(Learner *l, StageCtx *ctx, const StageStep *step, const DenoiseJob *job) {
    Denoiser *d = l->denoiser;
    size_t bytes = (size_t)d->latent_cnt * sizeof(float);
    int last = job->window.first + job->window.cnt - 1;
    TRY(copy_latents(ctx, step, SECTION_X_K, l->x, bytes));
    if (job->window.cnt > 1) {
        TRY(denoiser_use(d, board_theta(stage_board(ctx), step->version), step->version));
        TRY(write_conditioning(l, ctx, step, &d->step, d->step_plan));
        TRY(denoise_run(&d->step, d->step_plan, job, job->window.first, last, l->x, l->saved));
    }
    memcpy(l->saved + (int64_t)(job->window.cnt - 1) * d->latent_cnt, l->x, bytes);
    return ERR_OK;
}

// The sample is complete: its row, what the metrics need of it, its tag.
static Err finish_sample(StageCtx *ctx, const StageStep *step) {
    Board *b = stage_board(ctx);
    uint64_t sample = step->header->sample;
    int64_t cnt = board_spec(b)->theta_cnt;
    float *row = board_row(b, sample);
    for (uint32_t s = 0; s < stage_run(ctx)->state->segments; s++) {
        const void *read;
        TRY(stage_read(ctx, SECTION_GRAD_THETA, step->slot, s, &read));
        const float *part = read;
        for (int64_t i = 0; i < cnt; i++) row[i] = s ? row[i] + part[i] : part[i];
    }
    BoardRowNote *note = board_row_note(b, sample);
    *note = (BoardRowNote){.sample = sample,
                           .score = step->line->score,
                           .norms = step->line->norms,
                           .grad_norm = optim_norm(cnt, row)};
    memcpy(note->window_at, step->header->window_at, sizeof note->window_at);
    board_set_tag(b, sample);
    return ERR_OK;
}

static Err learner_learn(void *self, StageCtx *ctx, const StageStep *step) {
    Learner *l = self;
    Denoiser *d = l->denoiser;
    float *grad = stage_write(ctx, SECTION_GRAD_THETA, step->slot, step->segment);
    DenoiseJob job = denoiser_job(d, step->header, step->segment);
    TRY(redo_window(l, ctx, step, &job));
    TRY(denoiser_use_back(d, board_theta(stage_board(ctx), step->version), step->version));
    TRY(write_conditioning(l, ctx, step, &d->back, d->back_plan));
    TRY(copy_latents(ctx, step, SECTION_GRAD_X_0, l->cot, (size_t)d->latent_cnt * sizeof(float)));
    TRY(denoise_pull(&d->back, d->back_plan, &job, l->saved, l->cot, grad));
    double norm = optim_norm(lora_theta_count(d->lora), grad);
    if (!isfinite(norm))
        FAIL(
            ERR_NUMERIC,
            "sample %llu, segment %u: the gradient is %s (check_numerics: true names the operator)",
            (unsigned long long)step->header->sample, step->segment,
            isnan(norm) ? "NaN" : "infinite");
    step->line->norms.gain[step->segment] = denoiser_gain(d, job.window);
    if (!step->segment) TRY(finish_sample(ctx, step));
    return ERR_OK;
}

// ---- update ----

static double learning_rate(const Config *cfg, uint64_t update) {
    double warm = cfg->warmup ? (double)(update + 1) / (double)cfg->warmup : 1;
    double fade = cfg->half_life ? exp2(-(double)update / (double)cfg->half_life) : 1;
    return cfg->lr * (warm < 1 ? warm : 1) * fade;
}

static Err learner_update(void *self, StageCtx *ctx, uint64_t update) {
    Learner *l = self;
    Board *b = stage_board(ctx);
    const Config *cfg = stage_config(ctx);
    int64_t cnt = board_spec(b)->theta_cnt;
    uint64_t rollouts = board_spec(b)->rollouts;
    for (int64_t i = 0; i < cnt; i++) {
        double sum = 0;
        for (uint64_t k = 0; k < rollouts; k++) sum += board_row(b, update * rollouts + k)[i];
        l->grad[i] = (float)(sum / (double)rollouts);
    }
    BoardNote note = {.version = update + 1,
                      .lr = learning_rate(cfg, update),
                      .grad_norm = optim_norm(cnt, l->grad)};
    if (!isfinite(note.grad_norm))
        FAIL(ERR_NUMERIC, "update %llu: the mean gradient is not finite",
             (unsigned long long)update);
    note.clip_scale = optim_clip(note.grad_norm, cfg->clip);
    OptimAdamw adam = {.lr = note.lr,
                       .beta1 = cfg->beta1,
                       .beta2 = cfg->beta2,
                       .eps = cfg->adam_eps,
                       .weight_decay = cfg->weight_decay,
                       .maximize = true};
    OptimState before = {board_theta(b, update), board_m(b, update), board_v(b, update)};
    OptimState after = {board_theta(b, update + 1), board_m(b, update + 1), board_v(b, update + 1)};
    optim_adamw(&adam, (int64_t)update + 1, cnt, note.clip_scale, l->grad, &before, &after);
    note.theta_norm = optim_norm(cnt, after.theta);
    if (!isfinite(note.theta_norm)) // never committed: the state before it stays the newest
        FAIL(ERR_NUMERIC,
             "update %llu: the new parameters are not finite (optim.eps %g, optim.lr %g)",
             (unsigned long long)update, cfg->adam_eps, cfg->lr);
    *board_note(b, update + 1) = note;
    return ERR_OK;
}

const Stage learner_stage = {
    .kind = STAGE_LEARNER,
    .open = learner_open,
    .join = learner_join,
    .run = {[STEP_DENOISE] = learner_denoise, [STEP_LEARN] = learner_learn},
    .update = learner_update,
    .close = learner_close,
};
