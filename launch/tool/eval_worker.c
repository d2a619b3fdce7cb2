// eval_worker: a generator, a scorer and the memory between them.
#include "launch/tool/eval_worker.h"

#include <stdlib.h>
#include <string.h>

#include "common/format/media.h"
#include "common/measure/features.h"
#include "common/measure/motion.h"
#include "common/measure/picture.h"
#include "launch/tool/generator.h"
#include "launch/tool/tool.h"

enum { SEEDS_MAX = 1 << 20, BLUR_SHARE = 64 }; // blur: a 64th of the width

struct EvalWorker {
    const EvalJob *job;
    const Config *cfg;
    Generator *generator;
    Scorer *scorer;
    MotionMeter *motion;
    float *frames, *unit, *luma;                // all frames of a video: raw, in [0, 1], luma
    float *pixels, *embedding, *all_embeddings; // one frame, its embedding; those of all frames
};

// ---- Opening ----

static int64_t frame_count(const Config *cfg) { return cfg->segments * cfg->frames; }
static size_t frame_values(const Config *cfg) { return (size_t)(cfg->height * cfg->width * 3); }

static float *room(size_t cnt) {
    float *p = aligned_alloc(64, (cnt * sizeof *p + 63) / 64 * 64);
    die_unless(p, "eval: out of memory for %zu values", cnt);
    return p;
}

static Err open(EvalWorker *w, int threads) {
    const Config *cfg = w->cfg;
    TRY(generator_open(&w->generator, cfg, threads));
    TRY(scorer_open(&w->scorer, cfg, threads));
    w->motion = motion_new((int)cfg->height, (int)cfg->width);
    size_t frames = (size_t)frame_count(cfg), dim = (size_t)generator_embed_dim(w->generator);
    w->frames = room(frames * frame_values(cfg));
    w->unit = room(frames * frame_values(cfg));
    w->luma = room(frames * frame_values(cfg) / 3);
    w->pixels = room(frame_values(cfg));
    w->embedding = room(dim);
    w->all_embeddings = room(frames * dim);
    return ERR_OK;
}

Err eval_worker_open(EvalWorker **out, const EvalJob *job, int threads) {
    EvalWorker *w = calloc(1, sizeof *w);
    die_unless(w, "eval: out of memory");
    w->job = job;
    w->cfg = job->cfg;
    Err err = open(w, threads);
    if (err) {
        eval_worker_close(w);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = w;
    return ERR_OK;
}

void eval_worker_close(EvalWorker *w) {
    if (!w) return;
    generator_close(w->generator);
    scorer_close(w->scorer);
    motion_free(w->motion);
    free(w->frames);
    free(w->unit);
    free(w->luma);
    free(w->pixels);
    free(w->embedding);
    free(w->all_embeddings);
    free(w);
}

Err eval_worker_memory(const Config *cfg, uint64_t *bytes) {
    uint64_t generator, scorer;
    TRY(generator_memory(cfg, 1, &generator));
    TRY(scorer_memory(cfg, &scorer));
    *bytes = generator + scorer;
    return ERR_OK;
}

Lora *eval_worker_lora(EvalWorker *w) { return generator_lora(w->generator); }
const Scorer *eval_worker_scorer(const EvalWorker *w) { return w->scorer; }

// ---- A video, measured ----

// Is frame t one that another moved into? Not the first, and not what repeats the frame before a seam.
static bool has_pair(const Config *cfg, int64_t t) { return t % cfg->frames != 0; }

static Err measure_consistency(EvalWorker *w, double *out) {
    const Config *cfg = w->cfg;
    int dim = (int)generator_embed_dim(w->generator);
    double sum = 0;
    int cnt = 0;
    for (int64_t t = 0; t < frame_count(cfg); t++) {
        float *e = w->all_embeddings + t * dim;
        memcpy(w->pixels, w->unit + (size_t)t * frame_values(cfg),
               frame_values(cfg) * sizeof(float));
        TRY(generator_embed(w->generator, w->pixels, w->embedding));
        memcpy(e, w->embedding, (size_t)dim * sizeof *e);
        if (has_pair(cfg, t)) sum += features_cosine(e - dim, e, dim), cnt++;
    }
    *out = sum / cnt;
    return ERR_OK;
}

static Err measure_motion(EvalWorker *w, double *value) {
    const Config *cfg = w->cfg;
    size_t values = frame_values(cfg);
    int cnt = 0;
    double change = 0;
    for (int64_t t = 0; t < frame_count(cfg); t++) {
        const float *now = w->unit + (size_t)t * values;
        if (has_pair(cfg, t)) change += picture_change(now - values, now, values), cnt++;
    }
    Motion m = motion_of_video(w->motion, w->luma, (int)frame_count(cfg), (int)cfg->frames);
    value[EVALUATION_MOTION] = change / cnt;
    value[EVALUATION_SHIFT_X] = m.shift_x;
    value[EVALUATION_SHIFT_Y] = m.shift_y;
    value[EVALUATION_ZOOM] = m.zoom;
    return measure_consistency(w, &value[EVALUATION_CONSISTENCY]);
}

static void measure_pictures(EvalWorker *w, double *value) {
    const Config *cfg = w->cfg;
    int64_t frames = frame_count(cfg), pixels = cfg->height * cfg->width;
    double sharpness = 0, contrast = 0, chroma = 0;
    for (int64_t t = 0; t < frames; t++) {
        const float *luma = w->luma + t * pixels;
        sharpness += picture_sharpness(luma, (int)cfg->height, (int)cfg->width);
        contrast += picture_contrast(luma, (size_t)pixels);
        chroma += picture_chroma(w->unit + (size_t)t * frame_values(cfg), (size_t)pixels);
    }
    value[EVALUATION_SHARPNESS] = sharpness / (double)frames;
    value[EVALUATION_CONTRAST] = contrast / (double)frames;
    value[EVALUATION_CHROMA] = chroma / (double)frames;
    value[EVALUATION_FIRST_FRAME_PSNR] =
        picture_psnr(w->unit, generator_pictures(w->generator), frame_values(cfg));
}

static Err ask_models(EvalWorker *w, EvaluationSample *sample, EvaluationSide side) {
    double *value = sample->value[side];
    ScorerScore s;
    TRY(scorer_score(w->scorer, w->frames, generator_pictures(w->generator), &s,
                     sample->features[side]));
    value[EVALUATION_REWARD] = s.reward;
    value[EVALUATION_CLASS_PROB] = s.class_prob;
    value[EVALUATION_JUDGE_PROB] = s.judge_prob;
    value[EVALUATION_JUDGE_AGREES] = s.judge_agrees;
    for (int i = 0; i < w->cfg->reward_cnt; i++) value[EVALUATION_TERM + i] = s.term[i];
    sample->most_probable[side] = s.most_probable;
    if (!scorer_has_vjepa(w->scorer)) return ERR_OK;
    return scorer_vjepa(w->scorer, w->frames, false, &value[EVALUATION_VJEPA_LOSS]);
}

// w->frames, about which everything is found out.
static Err measure(EvalWorker *w, EvaluationSample *sample, EvaluationSide side) {
    const Config *cfg = w->cfg;
    size_t cnt = (size_t)frame_count(cfg) * frame_values(cfg);
    TRY(ask_models(w, sample, side));
    picture_from_raw(w->frames, cnt, w->unit);
    picture_luma(w->unit, cnt / 3, w->luma);
    measure_pictures(w, sample->value[side]);
    return cfg->frames > 1 ? measure_motion(w, sample->value[side]) : ERR_OK;
}

// V-JEPA's loss of what the base's video is not: its first frame held, and itself blurred. Overwrites w->frames.
static Err measure_headroom(EvalWorker *w, EvaluationSample *sample) {
    const Config *cfg = w->cfg;
    size_t values = frame_values(cfg);
    double sigma = (double)cfg->width / BLUR_SHARE;
    if (!scorer_has_vjepa(w->scorer)) return ERR_OK;
    for (int64_t t = 0; t < frame_count(cfg); t++) {
        float *to = w->frames + (size_t)t * values;
        picture_blur(w->unit + (size_t)t * values, (int)cfg->height, (int)cfg->width, sigma, to);
        for (size_t i = 0; i < values; i++) to[i] = 2 * to[i] - 1;
    }
    TRY(scorer_vjepa(w->scorer, w->frames, false, &sample->blurred));
    for (size_t i = 0; i < values; i++) w->frames[i] = 2 * w->unit[i] - 1;
    for (int64_t t = 1; t < frame_count(cfg); t++)
        memcpy(w->frames + (size_t)t * values, w->frames, values * sizeof(float));
    return scorer_vjepa(w->scorer, w->frames, false, &sample->frozen);
}

// ---- Tasks ----

static Err write_video(const EvalWorker *w, int sample, const MediaClip *left,
                       const MediaClip *right) {
    char name[4096];
    MediaClip both = {0};
    const EvaluationAbout *a = &w->job->result->about;
    snprintf(name, sizeof name, "%s/%s-%d", w->job->run_dir, a->video[sample / a->seed_cnt],
             sample % a->seed_cnt);
    TRY(media_beside(&both, left, right));
    Err err = encode_clip(&both, name, (int)w->cfg->preview_fps);
    media_clip_fini(&both);
    return err;
}

// One of the two videos of a sample.
static Err run_side(EvalWorker *w, int i, EvaluationSide side, MediaClip *clip) {
    const EvaluationAbout *a = &w->job->result->about;
    EvaluationSample *sample = &w->job->result->sample[i];
    int image = i / a->seed_cnt, seed = i % a->seed_cnt;
    SlotHeader h = {.purpose = SLOT_EVAL,
                    .tuned = side == EVALUATION_TUNED,
                    .sample = (uint64_t)image * SEEDS_MAX + (uint64_t)seed};
    snprintf(h.source, sizeof h.source, "%s", w->job->images->item[image]);
    TRY(generator_run(w->generator, &h, w->frames));
    media_clip_from_raw(clip, w->frames, (int)frame_count(w->cfg), (int)w->cfg->height,
                        (int)w->cfg->width);
    TRY(measure(w, sample, side));
    return side == EVALUATION_BASE ? measure_headroom(w, sample) : ERR_OK;
}

// Without an adapter the tuned video is the base's.
static void copy_side(EvaluationSample *s, int feature_dim) {
    memcpy(s->value[EVALUATION_TUNED], s->value[EVALUATION_BASE], sizeof s->value[0]);
    s->most_probable[EVALUATION_TUNED] = s->most_probable[EVALUATION_BASE];
    memcpy(s->features[EVALUATION_TUNED], s->features[EVALUATION_BASE],
           (size_t)feature_dim * sizeof(float));
}

Err eval_worker_sample(EvalWorker *w, int i) {
    Evaluation *e = w->job->result;
    MediaClip base = {0}, tuned = {0};
    Err err = ERR_OK;
    TRY_OUT(run_side(w, i, EVALUATION_BASE, &base));
    if (w->job->base_alone)
        copy_side(&e->sample[i], e->about.feature_dim);
    else
        TRY_OUT(run_side(w, i, EVALUATION_TUNED, &tuned));
    TRY_OUT(evaluation_check(e, i));
    TRY_OUT(write_video(w, i, &base, tuned.rgb ? &tuned : &base));
out:
    media_clip_fini(&base);
    media_clip_fini(&tuned);
    return err;
}

// The real continuation of an image: as many frames as a rollout shows, from the start.
Err eval_worker_real(EvalWorker *w, int image) {
    const Config *cfg = w->cfg;
    const char *path = cfg->eval_real.item[image];
    int want = (int)scorer_vjepa_frames(w->scorer);
    MediaClip file = {0}, sized = {0};
    Err err = ERR_OK;
    TRY(media_read_video(&file, path, want));
    if (file.frames < want)
        FAIL_OUT(ERR_USAGE,
                 "eval.real %s: %d frames, want at least %d: V-JEPA's loss is compared with that "
                 "of rollouts as long",
                 path, file.frames, want);
    media_resize(&sized, &file, (int)cfg->width, (int)cfg->height);
    for (size_t i = 0; i < (size_t)want * frame_values(cfg); i++)
        w->frames[i] = (float)sized.rgb[i] / 255.0f * 2 - 1;
    TRY_OUT(scorer_vjepa(w->scorer, w->frames, true, &w->job->result->real[image]));
out:
    media_clip_fini(&file);
    media_clip_fini(&sized);
    return err;
}
