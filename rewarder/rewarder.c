// rewarder: all reward models in one graph, over the frames of all segments.
#include "rewarder/rewarder.h"

#include <math.h>
#include <stdlib.h>

#include "common/stages/frames.h"
#include "common/stages/scoring.h"
#include "common/stages/setup.h"
#include "common/tensor/grad.h"

typedef struct Rewarder {
    Backend *be;
    Rewards *rewards;
    Graph *graph;
    Plan *plan;
    RewardGraph out;
    Tensor *frames;    // (1, S * F', H, W, 3) as decoded
    Tensor *pictures;  // (1, S, H, W, 3) that the segments begin with; NULL: no reward wants them
    int64_t frame_cnt; // values in frames
    int reward_cnt;
} Rewarder;

static Err build(Rewarder *r, const Config *cfg) {
    int64_t each = frames_scored(cfg), all = each * cfg->segments;
    TRY(scoring_open(&r->rewards, cfg, each));
    r->reward_cnt = cfg->reward_cnt;
    Graph *g = r->graph = graph_new();
    r->frames = graph_input(g, "frames", DTYPE_F32, SHAPE(1, all, cfg->height, cfg->width, 3));
    r->pictures = scoring_pictures(g, cfg, r->rewards);
    Tensor *kept = scoring_frames(g, cfg, r->frames);
    TRY(graph_check(g));
    TRY(reward_build(r->rewards, g, kept, r->pictures, cfg->recompute, &r->out));
    if (kept != r->frames) {
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
    TRY(setup_backend(&r->be, cfg, STAGE_REWARDER));
    TRY(build(r, cfg));
    TRY(setup_plan(&r->plan, r->graph, r->be, cfg, dry, "rewards and their gradient", table));
    setup_note_plan(plan, r->plan);
    setup_note_weights(plan, r->graph);
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
    // Segments of a slot lie one behind the other (frames of a multiple of 256 bytes).
    const void *frames, *pictures;
    TRY(stage_read_all(ctx, SECTION_FRAMES, step->slot, &frames));
    TRY(plan_bind(r->plan, r->frames, (void *)(uintptr_t)frames));
    if (r->pictures) {
        TRY(stage_read_all(ctx, SECTION_PIXELS, step->slot, &pictures));
        TRY(plan_bind(r->plan, r->pictures, (void *)(uintptr_t)pictures));
    }
    TRY(plan_bind(r->plan, r->out.d_frames, stage_write_all(ctx, SECTION_GRAD_FRAMES, step->slot)));
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
