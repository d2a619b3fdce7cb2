// The forecast against sums that can be done by hand.
#include "common/proc/forecast.h"
#include "tests/test.h"

static ForecastSpec spec_of(uint32_t rollouts, uint32_t lag, uint32_t slots) {
    return (ForecastSpec){
        .segments = 1, .rollouts = rollouts, .lag = lag, .slots = slots, .replicas = {1, 1, 1, 1}};
}

static void set_times(ForecastSpec *s, double encode, double sample, double denoise, double decode,
                      double score, double pull, double learn, double update) {
    s->step_s[STEP_ENCODE] = encode;
    s->step_s[STEP_SAMPLE] = sample;
    s->step_s[STEP_DENOISE] = denoise;
    s->step_s[STEP_HANDOVER] = 0;
    s->step_s[STEP_DECODE] = decode;
    s->step_s[STEP_SCORE] = score;
    s->step_s[STEP_PULL] = pull;
    s->step_s[STEP_LEARN] = learn;
    s->step_s[STEP_CNT] = update;
}

TEST(one_slot_is_one_after_the_other) {
    ForecastSpec s = spec_of(3, 0, 1);
    set_times(&s, 1, 10, 3, 2, 3, 3, 4, 2);
    Forecast f = forecast_make(&s);
    CHECK_NEAR(f.update_s, 3 * 26 + 2 - 1, 1e-9); // the next image is encoded during the update
    CHECK_EQ(f.bound, STAGE_SAMPLER);
    CHECK_NEAR(f.work_s[STAGE_SAMPLER], 30, 1e-9);
    CHECK_NEAR(f.work_s[STAGE_DECODER], 3 * 6, 1e-9);
    CHECK_NEAR(f.work_s[STAGE_REWARDER], 9, 1e-9);
    CHECK_NEAR(f.work_s[STAGE_LEARNER], 21, 1e-9);
}

// The longest stage's work; the way back of the last rollout is hidden by the next update's sampling.
TEST(with_lag_the_longest_stage_is_all_there_is) {
    ForecastSpec s = spec_of(8, 1, 16);
    set_times(&s, 1, 10, 3, 2, 3, 3, 4, 2);
    CHECK_NEAR(forecast_make(&s).update_s, 80, 1e-9);
    s.segments = 3;
    s.sampler_handover = true;
    s.step_s[STEP_HANDOVER] = 1;
    CHECK_NEAR(forecast_make(&s).update_s, 240, 1e-9);
}

// Without lag sampling waits for the update: its 8 x 10, then what follows the last sample, then the update.
TEST(without_lag_the_tail_is_exposed) {
    ForecastSpec s = spec_of(8, 0, 8);
    set_times(&s, 1, 10, 3, 2, 3, 3, 4, 2);
    CHECK_NEAR(forecast_make(&s).update_s, 80 + 3 + 2 + 3 + 3 + 4 + 2, 1e-9);
}

// The learner bounds: B (denoise + learn), the one passage that it waits for, and the update.
TEST(a_learner_that_bounds_waits_for_one_passage) {
    ForecastSpec s = spec_of(4, 1, 16);
    set_times(&s, 0, 1, 10, 1, 1, 1, 10, 5);
    Forecast f = forecast_make(&s);
    CHECK_EQ(f.bound, STAGE_LEARNER);
    CHECK_NEAR(f.update_s, 4 * 20 + 5,
               1e-9); // three passages are hidden; the last comes back during learn
}

TEST(replicas_share_the_work) {
    ForecastSpec s = spec_of(8, 1, 32);
    set_times(&s, 1, 10, 3, 2, 3, 3, 4, 2);
    s.replicas[STAGE_SAMPLER] = 2;
    Forecast f = forecast_make(&s);
    CHECK_EQ(f.bound, STAGE_LEARNER); // 7 x 8 against 5 x 8
    CHECK_NEAR(f.work_s[STAGE_SAMPLER], 40, 1e-9);
    CHECK(f.update_s >= 56 + 2 && f.update_s <= 56 + 2 + 11);
    s.replicas[STAGE_DECODER] = 2;
    Forecast g = forecast_make(&s);
    CHECK(g.update_s <= f.update_s && g.update_s >= 58);
}

TEST(what_is_asked_of_a_config) {
    static const char text[] =
        "model: .\ndata.images: [pictures/dawn.png]\n"
        "optim: {rollouts: 5, lag: 2}\nvideo: {segments: 3, handover: sampler}\n"
        "stages: {sampler.replicas: 2, decoder.replicas: 3, rewarder.replicas: 4}\n"
        "reward: [{model: videomae, path: ., class: ebb}]\n";
    Config *cfg;
    ForecastSpec s;
    CHECK_OK(config_load_text(&cfg, "forecast", "tests/data", text, strlen(text), 0, NULL));
    forecast_spec(&s, cfg);
    config_free(cfg);
    CHECK_EQ(s.rollouts, 5);
    CHECK_EQ(s.lag, 2);
    CHECK_EQ(s.slots, 30);
    CHECK_EQ(s.segments, 3);
    CHECK(s.sampler_handover);
    for (int i = 0; i < STAGE_CNT; i++) CHECK_EQ(s.replicas[i], i < 3 ? 2 + i : 1);
}

// Every shape of a run goes on to its end, in the least time that its longest stage allows or more.
TEST(no_shape_stops) {
    for (uint32_t n = 0; n < 4 * 3 * 3 * 2 * 3; n++) {
        ForecastSpec s = spec_of(1 + n % 4, n / 4 % 3, 1 + n / 12 % 3 * 3);
        s.sampler_handover = s.lag > 0 && n / 36 % 2;
        s.segments = 1 + (int)(n / 72);
        set_times(&s, 1, 2, 3, 4, 5, 6, 7, 1);
        s.step_s[STEP_HANDOVER] = 2;
        Forecast f = forecast_make(&s);
        CHECK(f.update_s >= f.work_s[f.bound] - 1e-9);
    }
}
