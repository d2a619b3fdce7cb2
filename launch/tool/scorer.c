// scorer: one plan for what judges the video as it was trained for, one for V-JEPA.
#include "launch/tool/scorer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/videomae.h"
#include "common/stages/scoring.h"
#include "common/stages/setup.h"

// A second classifier.
typedef struct Judge {
    ModelPart *part;
    Params *params;
    VideoMaeConfig videomae;
    RewardClasses classes; // target -1: the reward has none
    Tensor *logits, *features;
} Judge;

// Rewards over frames, compiled.
typedef struct Panel {
    Rewards *rewards; // NULL: none
    Graph *graph;
    Plan *plan;
    Tensor *frames, *pictures; // pictures NULL: no reward compares with them
    RewardGraph out;
} Panel;

struct Scorer {
    const Config *cfg;
    Backend *be;
    bool dry; // only the memory is wanted
    Arena arena;
    Panel scored, vjepa;
    int classifier;    // reward term whose classes count; -1: none
    Judge judge;       // part NULL: none
    int64_t frame_cnt; // values of one frame
};

// ---- Opening ----

static bool has_name(const RewardClasses *c, const char *name) {
    for (int i = 0; i < c->cnt; i++)
        if (!strcasecmp(c->name[i], name)) return true;
    return false;
}

// The judge must mean the same by its answers; the order of its classes may be another.
static Err match_classes(Scorer *s) {
    Judge *j = &s->judge;
    if (s->classifier < 0) return ERR_OK;
    RewardClasses want = reward_classes(s->scored.rewards, s->classifier);
    for (int i = 0; i < want.cnt; i++)
        if (!has_name(&j->classes, want.name[i]))
            FAIL(ERR_USAGE, "eval.judge %s: no class '%s', which the reward's classifier has",
                 s->cfg->eval_judge, want.name[i]);
    if (j->classes.cnt != want.cnt)
        FAIL(ERR_USAGE, "eval.judge %s: %d classes, want the %d of the reward's classifier",
             s->cfg->eval_judge, j->classes.cnt, want.cnt);
    return videomae_class(j->part->config, want.name[want.target], &j->classes.target);
}

static Err open_judge(Scorer *s) {
    Judge *j = &s->judge;
    TRY(model_dir_open(&j->part, s->cfg->eval_judge, NULL, "VideoMAEForVideoClassification", NULL));
    TRY(videomae_config(&j->videomae, j->part->config));
    j->classes.cnt = j->videomae.labels;
    j->classes.name = arena_array(&s->arena, const char *, j->classes.cnt);
    TRY(videomae_class_names(j->part->config, &j->videomae, &s->arena, j->classes.name));
    TRY(params_of_part(&j->params, j->part, ""));
    return match_classes(s);
}

// All frames, less those that do not fill a tubelet, as the reward's classifier sees them.
static Err build_judge(Judge *j, Graph *g, Tensor *frames) {
    NN nn = {.g = g, .params = j->params};
    PixelSpec p = {.fit = PIXELS_SQUASH,
                   .resize = RESAMPLE_BILINEAR_AA,
                   .height = j->videomae.image,
                   .width = j->videomae.image,
                   .mean = PIXELS_IMAGENET_MEAN,
                   .std = PIXELS_IMAGENET_STD};
    int64_t len = frames->shape.dim[1];
    frames = op_slice(g, frames, 1, 0, len - len % j->videomae.tubelet);
    j->features = videomae_features(&nn, &j->videomae, false, pixels_enter(g, frames, &p));
    j->logits = videomae_head(&nn, &j->videomae, j->features);
    graph_output(g, &j->features, "features of the judge");
    graph_output(g, &j->logits, "logits of the judge");
    TRY(graph_check(g));
    return params_finish(j->params);
}

static Tensor *input(Scorer *s, Panel *p, int64_t frames) {
    p->graph = graph_new();
    return p->frames = graph_input(p->graph, "frames", DTYPE_F32,
                                   SHAPE(1, frames, s->cfg->height, s->cfg->width, 3));
}

static Err compile(Scorer *s, Panel *p) {
    TRY(graph_check(p->graph));
    PlanOptions o = {.dry = s->dry, .check = s->cfg->check_numerics};
    TRY(plan_new(&p->plan, p->graph, s->be, o));
    if (s->dry) return ERR_OK;
    RngKey key = {.seed = (uint64_t)s->cfg->seed, .sample = rng_sample(RNG_EVAL, 0)};
    return reward_draw(p->rewards, p->plan, key); // V-JEPA's masks, once
}

static Err open_scored(Scorer *s) {
    const Config *cfg = s->cfg;
    Panel *p = &s->scored;
    TRY(scoring_open(&p->rewards, cfg, cfg->frames));
    s->classifier = -1;
    for (int i = cfg->reward_cnt - 1; i >= 0; i--)
        if (reward_classes(p->rewards, i).cnt) s->classifier = i;
    Tensor *frames = input(s, p, cfg->segments * cfg->frames);
    p->pictures = scoring_pictures(p->graph, cfg, p->rewards);
    frames = scoring_frames(p->graph, cfg, frames);
    TRY(reward_build(p->rewards, p->graph, frames, p->pictures, false, &p->out));
    graph_output(p->graph, &p->out.total, "R");
    for (int i = 0; i < cfg->reward_cnt; i++) graph_output(p->graph, &p->out.term[i], "term");
    if (s->classifier >= 0) {
        graph_output(p->graph, &p->out.logits[s->classifier], "logits");
        graph_output(p->graph, &p->out.features[s->classifier], "features");
    }
    if (*cfg->eval_judge) {
        TRY(open_judge(s));
        TRY(build_judge(&s->judge, p->graph, frames));
    }
    return compile(s, p);
}

int64_t scorer_vjepa_frames(const Scorer *s) { return s->cfg->segments * (s->cfg->frames - 1) + 1; }

static Err open_vjepa(Scorer *s) {
    const Config *cfg = s->cfg;
    Panel *p = &s->vjepa;
    RewardVideo video = scoring_video(cfg, scorer_vjepa_frames(s));
    video.gradient = VJEPA_STOP_TARGET;
    RewardSpec spec = {.model = REWARD_VJEPA,
                       .path = cfg->eval_vjepa,
                       .weight = 1,
                       .form = REWARD_SCORE,
                       .antialias = true};
    TRY(reward_open(&p->rewards, &spec, 1, &video));
    Tensor *frames = input(s, p, video.frames);
    TRY(reward_build(p->rewards, p->graph, frames, NULL, false, &p->out));
    graph_output(p->graph, &p->out.term[0], "-L");
    return compile(s, p);
}

static Err open(Scorer *s, int threads) {
    const Config *cfg = s->cfg;
    BackendOptions o = {.threads = threads,
                        .pack_weights = cfg->weights == CONFIG_WEIGHTS_PACKED,
                        .exact = cfg->exact};
    TRY(backend_open(&s->be, "cpu", o));
    TRY(open_scored(s));
    return *cfg->eval_vjepa ? open_vjepa(s) : ERR_OK;
}

static Scorer *make(const Config *cfg, bool dry) {
    Scorer *s = calloc(1, sizeof *s);
    die_unless(s, "scorer: out of memory");
    *s = (Scorer){.cfg = cfg,
                  .dry = dry,
                  .judge.classes.target = -1,
                  .frame_cnt = cfg->height * cfg->width * 3};
    return s;
}

Err scorer_open(Scorer **out, const Config *cfg, int threads) {
    Scorer *s = make(cfg, false);
    Err err = open(s, threads);
    if (err) {
        scorer_close(s);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = s;
    return ERR_OK;
}

static void close_panel(Panel *p) {
    plan_free(p->plan);
    graph_free(p->graph);
}

void scorer_close(Scorer *s) {
    if (!s) return;
    close_panel(&s->scored);
    close_panel(&s->vjepa);
    backend_close(s->be);
    reward_close(s->scored.rewards);
    reward_close(s->vjepa.rewards);
    params_close(s->judge.params);
    model_dir_close(s->judge.part);
    arena_free(&s->arena);
    free(s);
}

Err scorer_memory(const Config *cfg, uint64_t *bytes) {
    Scorer *s = make(cfg, true);
    Err err = open(s, 1);
    *bytes = err ? 0 : plan_memory(s->scored.plan)->total_bytes;
    if (!err && s->vjepa.plan) *bytes += plan_memory(s->vjepa.plan)->total_bytes;
    scorer_close(s);
    return err;
}

// ---- What there is ----

RewardClasses scorer_classes(const Scorer *s) {
    return s->classifier >= 0 ? reward_classes(s->scored.rewards, s->classifier) : s->judge.classes;
}

bool scorer_has_judge(const Scorer *s) { return s->judge.part != NULL; }
bool scorer_has_vjepa(const Scorer *s) { return s->vjepa.rewards != NULL; }

// The tensor of a video's features; NULL when there is no classifier.
static const Tensor *features_of(const Scorer *s) {
    if (s->judge.part) return s->judge.features;
    return s->classifier >= 0 ? s->scored.out.features[s->classifier] : NULL;
}

int scorer_feature_dim(const Scorer *s) {
    const Tensor *t = features_of(s);
    return t ? (int)shape_count(t->shape) : 0;
}

// ---- Scoring ----

static double scalar(const Panel *p, const Tensor *t) {
    return *(const float *)plan_data(p->plan, t);
}

static int largest(const float *x, int cnt) {
    int best = 0;
    for (int i = 1; i < cnt; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static double softmax_at(const float *x, int cnt, int at) {
    double sum = 0;
    for (int i = 0; i < cnt; i++) sum += exp((double)x[i] - (double)x[at]);
    return 1 / sum;
}

static void read_classes(const Scorer *s, ScorerScore *out) {
    const Panel *p = &s->scored;
    const Judge *j = &s->judge;
    const float *judged = j->part ? plan_data(p->plan, j->logits) : NULL;
    RewardClasses c = scorer_classes(s);
    if (s->classifier >= 0) {
        const float *logits = plan_data(p->plan, p->out.logits[s->classifier]);
        out->most_probable = largest(logits, c.cnt);
        out->class_prob = softmax_at(logits, c.cnt, c.target);
    } else if (judged) {
        out->most_probable = largest(judged, c.cnt);
    }
    if (!judged || j->classes.target < 0) return;
    out->judge_prob = softmax_at(judged, c.cnt, j->classes.target);
    out->judge_agrees = largest(judged, c.cnt) == j->classes.target;
}

Err scorer_score(Scorer *s, const float *frames, const float *pictures, ScorerScore *out,
                 float *features) {
    Panel *p = &s->scored;
    const Tensor *f = features_of(s);
    *out = (ScorerScore){0};
    TRY(plan_write(p->plan, p->frames, frames));
    if (p->pictures) TRY(plan_write(p->plan, p->pictures, pictures));
    TRY(plan_run(p->plan));
    out->reward = scalar(p, p->out.total);
    for (int i = 0; i < s->cfg->reward_cnt; i++) out->term[i] = scalar(p, p->out.term[i]);
    read_classes(s, out);
    return f ? plan_read(p->plan, f, features) : ERR_OK;
}

// Frames of segment k go behind those of the ones before, less the frame that repeats.
static void join(const Scorer *s, const float *frames, float *out) {
    int64_t each = s->cfg->frames * s->frame_cnt;
    memcpy(out, frames, (size_t)each * sizeof *out);
    out += each;
    for (int64_t k = 1; k < s->cfg->segments; k++, out += each - s->frame_cnt)
        memcpy(out, frames + k * each + s->frame_cnt, (size_t)(each - s->frame_cnt) * sizeof *out);
}

Err scorer_vjepa(Scorer *s, const float *frames, bool joined, double *loss) {
    Panel *p = &s->vjepa;
    float *in = plan_data(p->plan, p->frames);
    if (joined)
        memcpy(in, frames, (size_t)(scorer_vjepa_frames(s) * s->frame_cnt) * sizeof *in);
    else
        join(s, frames, in);
    TRY(plan_run(p->plan));
    *loss = -scalar(p, p->out.term[0]);
    return ERR_OK;
}
