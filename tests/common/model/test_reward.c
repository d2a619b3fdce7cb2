// Rewards: dR/dframes against finite differences on `ref`, terms, windows, and settings that are refused.
#include "common/model/reward.h"
#include "common/tensor/op.h"
#include "tests/test.h"

enum { FRAMES = 8, SIDE = 20, CNT = FRAMES * SIDE * SIDE * 3 };

static const RewardSpec VIDEOMAE = {.model = REWARD_VIDEOMAE,
                                    .path = "tests/golden/videomae_t3",
                                    .weight = 2,
                                    .form = REWARD_LOG_PROB,
                                    .label = "LABEL_4",
                                    .antialias = true};
static const RewardSpec AESTHETIC = {.model = REWARD_AESTHETIC,
                                     .path = "tests/golden/aesthetic_up/clip",
                                     .head = "tests/golden/aesthetic_up/head",
                                     .weight = 0.5,
                                     .form = REWARD_ABS_TARGET,
                                     .target = 10,
                                     .scale = 0.1,
                                     .fit = PIXELS_CROP};
static const RewardSpec VJEPA = {.model = REWARD_VJEPA,
                                 .path = "tests/golden/vjepa_hd24",
                                 .weight = 3,
                                 .form = REWARD_SCORE,
                                 .antialias = true};

static const RewardSpec FIRST_FRAME = {
    .model = REWARD_FIRST_FRAME, .weight = 70, .form = REWARD_SCORE};

typedef struct Scored {
    Rewards *r;
    Graph *g;
    Backend *be;
    Plan *plan;
    Tensor *frames, *pictures;
    RewardGraph out;
} Scored;

static Err score_open(Scored *s, const char *backend, const RewardSpec *spec, int cnt,
                      RewardVideo video) {
    *s = (Scored){.g = graph_new()};
    TRY(reward_open(&s->r, spec, cnt, &video));
    s->frames = graph_input(s->g, "frames", DTYPE_F32, SHAPE(1, video.frames, SIDE, SIDE, 3));
    if (reward_wants_pictures(s->r))
        s->pictures =
            graph_input(s->g, "pictures", DTYPE_F32, SHAPE(1, video.segments, SIDE, SIDE, 3));
    TRY(reward_build(s->r, s->g, s->frames, s->pictures, false, &s->out));
    graph_output(s->g, &s->out.total, "R");
    graph_output(s->g, &s->out.d_frames, "d");
    for (int i = 0; i < cnt; i++) graph_output(s->g, &s->out.term[i], "term");
    TRY(backend_open(&s->be, backend, (BackendOptions){.pack_weights = true}));
    TRY(plan_new(&s->plan, s->g, s->be, (PlanOptions){0}));
    return reward_draw(s->r, s->plan, (RngKey){.seed = 3});
}

static void score_close(Scored *s) {
    plan_free(s->plan);
    graph_free(s->g);
    backend_close(s->be);
    reward_close(s->r);
}

// In (-1, 1), away from the corners of the clamp.
static double pixel(int i) { return 0.9 * sin(0.37 * i + 0.011 * (i % 61) * (i % 13)); }
static double direction(int i) { return cos(1.7 * i); }
static double picture(int i) { return 0.5 + 0.5 * sin(0.23 * i); } // in [0, 1]

// R along the direction, in double: `ref` stores F32 as double.
static double value_at(Scored *s, double step) {
    double *x = plan_data(s->plan, s->frames);
    for (int i = 0; i < CNT; i++) x[i] = pixel(i) + step * direction(i);
    if (plan_run(s->plan)) TEST_FAIL("%s", err_trace());
    return *(double *)plan_data(s->plan, s->out.total);
}

static void check_slope(const RewardSpec *spec, int cnt, RewardVideo video) {
    Scored s;
    CHECK_OK(score_open(&s, "ref", spec, cnt, video));
    double *p = s.pictures ? plan_data(s.plan, s.pictures) : NULL;
    for (int i = 0; p && i < video.segments * SIDE * SIDE * 3; i++) p[i] = picture(i);
    double h = 1e-5, slope = (value_at(&s, h) - value_at(&s, -h)) / (2 * h), got = 0,
           total = value_at(&s, 0), sum = 0;
    const double *d = plan_data(s.plan, s.out.d_frames);
    for (int i = 0; i < CNT; i++) got += d[i] * direction(i);
    for (int i = 0; i < cnt; i++)
        sum += spec[i].weight * *(double *)plan_data(s.plan, s.out.term[i]);
    CHECK_NEAR(sum, total, 1e-12 * fabs(total));
    CHECK_MSG(fabs(got - slope) < 1e-5 * fabs(slope) + 1e-12, "slope %.9g, finite difference %.9g",
              got, slope);
    score_close(&s);
}

TEST(slope_of_a_sum_of_terms) {
    check_slope((RewardSpec[]){VIDEOMAE, AESTHETIC}, 2,
                (RewardVideo){.frames = FRAMES, .segments = 2});
}

TEST(slope_of_vjepa) { // only `full` is the derivative of the value
    check_slope(&VJEPA, 1, (RewardVideo){.frames = FRAMES, .segments = 2, .gradient = VJEPA_FULL});
    check_slope(
        &VJEPA, 1,
        (RewardVideo){
            .frames = FRAMES, .segments = 1, .windows = REWARD_LINSPACE, .gradient = VJEPA_FULL});
}

TEST(slope_of_the_first_frames) {
    RewardVideo video = {.frames = FRAMES, .segments = 2};
    check_slope((RewardSpec[]){FIRST_FRAME, VIDEOMAE}, 2, video);
    video.segments = 1;
    check_slope(&FIRST_FRAME, 1, video);
    video.unit = true;
    check_slope(&FIRST_FRAME, 1, video);
}

// Against a loop: which frames count, and that nothing is clamped.
static void check_first_frames(int64_t segments, int64_t frames, int cnt, const int *first) {
    enum { EACH = SIDE * SIDE * 3 };
    Scored s;
    RewardVideo video = {.frames = frames, .segments = segments};
    CHECK_OK(score_open(&s, "ref", &FIRST_FRAME, 1, video));
    double *x = plan_data(s.plan, s.frames), *p = plan_data(s.plan, s.pictures), mse = 0;
    for (int i = 0; i < frames * EACH; i++) x[i] = 1.5 * pixel(i);
    for (int i = 0; i < segments * EACH; i++) p[i] = picture(i);
    CHECK_OK(plan_run(s.plan));
    const double *d = plan_data(s.plan, s.out.d_frames);
    for (int k = 0; k < cnt; k++)
        for (int i = 0; i < EACH; i++) {
            double off = 0.5 * x[first[k] * EACH + i] + 0.5 - p[k * EACH + i];
            mse += off * off / EACH / cnt;
            CHECK_NEAR(d[first[k] * EACH + i], -FIRST_FRAME.weight * off / EACH / cnt, 1e-12);
        }
    CHECK_NEAR(*(double *)plan_data(s.plan, s.out.term[0]), -mse, 1e-12);
    for (int i = 0; i < frames * EACH; i++) {
        bool counts = false;
        for (int k = 0; k < cnt; k++) counts |= i / EACH == first[k];
        if (!counts) CHECK_NEAR(d[i], 0, 0);
    }
    score_close(&s);
}

TEST(first_frames_of_segments) {
    check_first_frames(1, 8, 1, (int[]){0});
    check_first_frames(2, 8, 2, (int[]){0, 4});
    check_first_frames(3, 9, 3, (int[]){0, 3, 6});
    check_first_frames(2, 7, 1, (int[]){0}); // the repeated frame is not scored
}

TEST(forms) {
    RewardSpec prob = VIDEOMAE;
    prob.form = REWARD_PROB;
    prob.label = "4"; // by number
    RewardSpec both[] = {VIDEOMAE, prob};
    Scored s;
    CHECK_OK(score_open(&s, "cpu", both, 2, (RewardVideo){.frames = FRAMES, .segments = 1}));
    float *x = plan_data(s.plan, s.frames), log_p, p;
    for (int i = 0; i < CNT; i++) x[i] = (float)pixel(i);
    CHECK_OK(plan_run(s.plan));
    CHECK_OK(plan_read(s.plan, s.out.term[0], &log_p));
    CHECK_OK(plan_read(s.plan, s.out.term[1], &p));
    CHECK_NEAR(log((double)p), (double)log_p, 1e-6);
    score_close(&s);
}

// Segment 1 begins at frame 4 of 8 and at frame 2 of its window of 6: older frames get no gradient.
TEST(segmented_gradient_begins_at_the_seam) {
    RewardSpec v = VJEPA;
    Scored s;
    RewardVideo video = {.frames = 12, .segments = 2, .gradient = VJEPA_SEGMENTED};
    // A window of 6 around frame 6 begins at 3: its seam would split a tubelet.
    CHECK_ERR(score_open(&s, "cpu", &v, 1, video), ERR_USAGE,
              "begins at frame 3 of 6, want a multiple of 2");
    score_close(&s);
    video.frames = FRAMES; // around frame 4: begins at 1, cut to 1; the seam is again at 3
    CHECK_ERR(score_open(&s, "cpu", &v, 1, video), ERR_USAGE, "multiple of 2");
    score_close(&s);
    video.windows = REWARD_LINSPACE;
    CHECK_ERR(score_open(&s, "cpu", &v, 1, video), ERR_USAGE,
              "segmented needs vjepa.windows: seam");
    score_close(&s);
}

TEST(classes_of_a_classifier) {
    Rewards *r;
    RewardSpec spec[] = {VJEPA, VIDEOMAE};
    CHECK_OK(reward_open(&r, spec, 2, &(RewardVideo){.frames = FRAMES, .segments = 1}));
    RewardClasses none = reward_classes(r, 0), c = reward_classes(r, 1);
    CHECK_EQ(none.cnt, 0);
    CHECK(c.cnt > 4);
    CHECK_EQ(c.target, 4);
    CHECK_STR(c.name[4], "LABEL_4");
    reward_close(r);
}

// The logits are those that the term is made of; what the head reads is as wide as the tower.
TEST(logits_and_features) {
    RewardSpec prob = VIDEOMAE;
    prob.form = REWARD_PROB;
    Scored s;
    CHECK_OK(score_open(&s, "ref", &prob, 1, (RewardVideo){.frames = FRAMES, .segments = 1}));
    Tensor *logits = s.out.logits[0];
    RewardClasses c = reward_classes(s.r, 0);
    CHECK(logits && shape_count(logits->shape) == c.cnt);
    CHECK(s.out.features[0]->shape.rank == 2 && s.out.features[0]->shape.dim[0] == 1);
    graph_output(s.g, &logits, "logits");
    plan_free(s.plan);
    CHECK_OK(plan_new(&s.plan, s.g, s.be, (PlanOptions){0}));
    double *x = plan_data(s.plan, s.frames), sum = 0;
    for (int i = 0; i < CNT; i++) x[i] = pixel(i);
    CHECK_OK(plan_run(s.plan));
    const double *l = plan_data(s.plan, logits);
    for (int i = 0; i < c.cnt; i++) sum += exp(l[i] - l[c.target]);
    CHECK_NEAR(*(double *)plan_data(s.plan, s.out.term[0]), 1 / sum, 1e-9);
    score_close(&s);
}

TEST(refused) {
    Rewards *r;
    RewardSpec spec = VIDEOMAE;
    RewardVideo video = {.frames = FRAMES, .segments = 1};
    spec.label = "juggling";
    CHECK_ERR(reward_open(&r, &spec, 1, &video), ERR_USAGE, "no class 'juggling'");
    spec = VIDEOMAE;
    spec.form = REWARD_SCORE;
    CHECK_ERR(reward_open(&r, &spec, 1, &video), ERR_USAGE, "want log_prob or prob for videomae");
    spec = AESTHETIC;
    spec.path = "tests/golden/videomae_t3";
    CHECK_ERR(reward_open(&r, &spec, 1, &video), ERR_FORMAT,
              "want CLIPVisionModelWithProjection|CLIPModel");
    {
        Scored s;
        CHECK_ERR(score_open(&s, "cpu", &VIDEOMAE, 1, (RewardVideo){.frames = 1, .segments = 1}),
                  ERR_USAGE, "needs a video of at least 3 frames, this one has 1");
        score_close(&s);
    }
    spec = FIRST_FRAME;
    spec.form = REWARD_ABS_TARGET;
    CHECK_ERR(reward_open(&r, &spec, 1, &video), ERR_USAGE, "score for vjepa and first_frame");
    CHECK_OK(reward_open(&r, &FIRST_FRAME, 1, &video));
    {
        Graph *g = graph_new();
        RewardGraph out;
        Tensor *frames = graph_input(g, "frames", DTYPE_F32, SHAPE(1, FRAMES, SIDE, SIDE, 3)),
               *small = graph_input(g, "small", DTYPE_F32, SHAPE(1, 1, SIDE, SIDE / 2, 3));
        CHECK_ERR(reward_build(r, g, frames, NULL, false, &out), ERR_USAGE, "without the pictures");
        CHECK_ERR(reward_build(r, g, frames, small, false, &out), ERR_SHAPE,
                  "pictures are (1, 1, 20, 10, 3), want (1, 1, 20, 20, 3)");
        graph_free(g);
    }
    reward_close(r);
    video.segments = 3;
    CHECK_ERR(reward_open(&r, &VIDEOMAE, 1, &video), ERR_USAGE,
              "8 frames are not 3 equal segments");
}
