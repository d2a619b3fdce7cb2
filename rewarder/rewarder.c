// rewarder: all reward models in one graph, over the frames of all segments.
#include "rewarder/rewarder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/reward.h"
#include "common/stages/frames.h"
#include "common/stages/setup.h"
#include "common/tensor/grad.h"

typedef struct Rewarder {
    Backend *be;
    Rewards *rewards;
    Graph *graph;
    Plan *plan;
    RewardGraph out;
    Tensor *frames;    // (1, S * F', H, W, 3) as decoded
    int64_t frame_cnt; // values in it
    int reward_cnt;
} Rewarder;

static RewardSpec spec_of(const ConfigReward *r) {
    static const RewardModel model[] = {[CONFIG_REWARD_VIDEOMAE] = REWARD_VIDEOMAE,
                                        [CONFIG_REWARD_VJEPA] = REWARD_VJEPA,
                                        [CONFIG_REWARD_AESTHETIC] = REWARD_AESTHETIC};
    static const RewardForm form[] = {[CONFIG_FORM_LOG_PROB] = REWARD_LOG_PROB,
                                      [CONFIG_FORM_PROB] = REWARD_PROB,
                                      [CONFIG_FORM_SCORE] = REWARD_SCORE,
                                      [CONFIG_FORM_ABS_TARGET] = REWARD_ABS_TARGET};
    return (RewardSpec){.model = model[r->model],
                        .path = r->path,
                        .head = *r->head ? r->head : NULL,
                        .weight = r->weight,
                        .form = form[r->form],
                        .label = r->label,
                        .target = r->target,
                        .scale = r->scale,
                        .fit = r->resize == CONFIG_RESIZE_CROP ? PIXELS_CROP : PIXELS_SQUASH,
                        .antialias = r->antialias,
                        .sum_frames = r->per_frame == CONFIG_PER_FRAME_SUM};
}

static Err open_rewards(Rewarder *r, const Config *cfg, int64_t scored) {
    static const VjepaGradient gradient[] = {[CONFIG_VJEPA_STOP_TARGET] = VJEPA_STOP_TARGET,
                                             [CONFIG_VJEPA_FULL] = VJEPA_FULL,
                                             [CONFIG_VJEPA_TARGET_ONLY] = VJEPA_TARGET_ONLY,
                                             [CONFIG_VJEPA_SEGMENTED] = VJEPA_SEGMENTED};
    RewardSpec spec[CONFIG_REWARDS_MAX];
    RewardVideo video = {
        .frames = scored, .segments = cfg->segments, .gradient = gradient[cfg->vjepa_gradient]};
    if (!strcmp(cfg->vjepa_windows, "linspace")) {
        video.windows = REWARD_LINSPACE;
    } else if (!strncmp(cfg->vjepa_windows, "slide", 5)) {
        video.windows = REWARD_SLIDE;
        video.slide = atoll(cfg->vjepa_windows + 5);
    }
    for (int i = 0; i < cfg->reward_cnt; i++) spec[i] = spec_of(&cfg->reward[i]);
    r->reward_cnt = cfg->reward_cnt;
    return reward_open(&r->rewards, spec, cfg->reward_cnt, &video);
}

// Without the repeated frame at each seam: frame 0 of every segment but the first.
static Tensor *drop_seams(Graph *g, Tensor *frames, int64_t segments, int64_t each) {
    for (int64_t s = segments - 1; s > 0 && frames; s--) {
        int64_t len = frames->shape.dim[1], at = s * each;
        Tensor *part[2] = {op_slice(g, frames, 1, 0, at),
                           op_slice(g, frames, 1, at + 1, len - at - 1)};
        frames = op_concat(g, 1, 2, part);
    }
    return frames;
}

static Err build(Rewarder *r, const Config *cfg) {
    int64_t each = frames_scored(cfg), all = each * cfg->segments;
    bool drop = cfg->seam == CONFIG_SEAM_DROP_FIRST;
    TRY(open_rewards(r, cfg, drop ? all - (cfg->segments - 1) : all));
    Graph *g = r->graph = graph_new();
    r->frames = graph_input(g, "frames", DTYPE_F32, SHAPE(1, all, cfg->height, cfg->width, 3));
    Tensor *kept = drop ? drop_seams(g, r->frames, cfg->segments, each) : r->frames;
    TRY(graph_check(g));
    TRY(reward_build(r->rewards, g, kept, cfg->recompute, &r->out));
    if (drop) {
        Tensor *wrt[] = {r->frames}, *out[] = {kept}, *cot[] = {r->out.d_frames}, *dx[1];
        TRY(grad_build(g, 1, out, cot, 1, wrt, dx));
        r->out.d_frames = dx[0];
    }
    graph_output(g, &r->out.total, "R");
    for (int i = 0; i < r->reward_cnt; i++) graph_output(g, &r->out.term[i], "term");
    graph_output(g, &r->out.d_frames, "dR/dframes");
    r->frame_cnt = shape_count(r->frames->shape);
    return graph_check(g);
}

static void rewarder_close(void *self) {
    Rewarder *r = self;
    plan_free(r->plan);
    graph_free(r->graph);
    reward_close(r->rewards);
    backend_close(r->be);
    free(r);
}

static Err open_models(Rewarder *r, const Config *cfg, bool dry, FILE *table, StagePlan *plan) {
    if (!cfg->reward_cnt) FAIL(ERR_USAGE, "%s: no reward is given", cfg->file);
    TRY(setup_backend(&r->be, cfg, STAGE_REWARDER));
    TRY(build(r, cfg));
    TRY(setup_plan(&r->plan, r->graph, r->be, cfg, dry, "rewards and their gradient", table));
    setup_note_plan(plan, r->plan);
    setup_note_backend(plan, r->be, plan_memory(r->plan)->packed_bytes);
    plan->flops[STEP_SCORE] = plan_memory(r->plan)->flops;
    plan->section_bytes[SECTION_FRAMES] = plan->section_bytes[SECTION_GRAD_FRAMES] =
        (uint64_t)(r->frame_cnt / cfg->segments) * sizeof(float);
    return ERR_OK;
}

static Err rewarder_open(const Config *cfg, int replica, bool dry, FILE *table, void **self,
                         StagePlan *plan) {
    Rewarder *r = calloc(1, sizeof *r);
    die_unless(r, "rewarder: out of memory");
    Err err = open_models(r, cfg, dry, table, plan);
    if (err) {
        rewarder_close(r);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *self = r;
    return ERR_OK;
}

// Share of values that the clamp to [0, 1] cuts.
static double saturated(const float *x, int64_t cnt) {
    int64_t out = 0;
    for (int64_t i = 0; i < cnt; i++) out += x[i] < -1 || x[i] > 1;
    return (double)out / (double)cnt;
}

static Err rewarder_score(void *self, StageCtx *ctx, const StageStep *step) {
    Rewarder *r = self;
    const Config *cfg = stage_config(ctx);
    SlotScore *score = &step->line->score;
    // Segments of a slot lie one behind the other (frames_scored rows of a multiple of 256 bytes).
    const float *frames = stage_read(ctx, SECTION_FRAMES, step->slot, 0);
    TRY(plan_bind(r->plan, r->frames, (void *)(uintptr_t)frames));
    TRY(plan_bind(r->plan, r->out.d_frames, stage_write(ctx, SECTION_GRAD_FRAMES, step->slot, 0)));
    RngKey key = {.seed = (uint64_t)cfg->seed,
                  .sample = rng_sample(RNG_TRAIN, cfg->vjepa_masks == CONFIG_MASKS_FIXED
                                                      ? 0
                                                      : step->header->sample)};
    TRY(reward_draw(r->rewards, r->plan, key));
    TRY(plan_run(r->plan));
    *score = (SlotScore){.reward = *(const float *)plan_data(r->plan, r->out.total),
                         .saturated = saturated(frames, r->frame_cnt)};
    for (int i = 0; i < r->reward_cnt; i++)
        score->term[i] = *(const float *)plan_data(r->plan, r->out.term[i]);
    if (!isfinite(score->reward))
        FAIL(ERR_NUMERIC, "sample %llu: the reward is not finite",
             (unsigned long long)step->header->sample);
    return ERR_OK;
}

const Stage rewarder_stage = {
    .kind = STAGE_REWARDER,
    .open = rewarder_open,
    .run = {[STEP_SCORE] = rewarder_score},
    .close = rewarder_close,
};
