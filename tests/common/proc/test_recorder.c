// The recorder: snapshots are JSON that says what pages say; spans come out whole, in order, across resumes.
#include "common/proc/recorder.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/format/json.h"
#include "tests/test.h"

static char dir[300];
static Config *cfg;
static Run run;

static char *at(const char *name) {
    static char path[2][512];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static Err open_run(void) {
    const char *yaml = "model: m\ndata.images: [a.png]\noptim: {updates: 6, rollouts: 2}\n"
                       "stages.sampler.replicas: 2\n"
                       "reward: [{model: videomae, path: p, class: c}]\n";
    snprintf(dir, sizeof dir, "%s/rec.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    die_unless(mkdtemp(dir), "no temporary folder");
    TRY(config_load_text(&cfg, "test", ".", yaml, strlen(yaml), 0, NULL));
    SectionTable table = {.slots = 3, .segments = 1};
    section_layout(&table);
    BoardModule m = {.path = "x", .in = 1, .out = 1, .a_at = 0, .b_at = 1};
    BoardSpec spec = {.theta_cnt = 16, .rollouts = 2, .module_cnt = 1, .rank = 1, .alpha = 1};
    TRY(run_create(&run, cfg, &table, &spec, &m));
    for (int s = 0, i = 0; s < STAGE_CNT; s++)
        for (int r = 0; r < (int)run.state->replicas[s]; r++, i++) {
            run.page[i].stage = s;
            run.page[i].replica = r;
        }
    return ERR_OK;
}

static void close_run(void) {
    run_leave(&run);
    config_free(cfg);
}

// As the stage loop records it.
static void span(int process, int64_t start, uint64_t sample, int step) {
    RunPage *p = &run.page[process];
    uint64_t n = p->span_cnt;
    p->span[n % RUN_SPANS] =
        (RunSpan){1000 * start, 1000 * (start + 1), sample, (uint16_t)step, 0, SLOT_TRAIN};
    atomic_store(&p->span_cnt, n + 1);
}

TEST(spans_come_out_in_order) {
    RecorderSpan *s;
    size_t cnt;
    CHECK_OK(open_run());
    Recorder *r = recorder_new(cfg, &run, dir);
    for (int i = 0; i < 10; i++) span(1, i, (uint64_t)i, STEP_SAMPLE);
    recorder_poll(r, &(ConductorNews){0}, 0);
    span(4, 20, 3, STEP_CNT);
    recorder_free(r, "ended");
    CHECK_OK(recorder_read(at("spans.bin"), &s, &cnt));
    CHECK_EQ(cnt, 12);
    CHECK_EQ(s[0].stage, RECORDER_SESSION);
    CHECK_EQ(s[0].sample, 2); // rollouts
    for (size_t i = 1; i <= 10; i++) {
        CHECK_EQ(s[i].sample, i - 1);
        CHECK(s[i].stage == STAGE_SAMPLER && s[i].replica == 1 && s[i].step == STEP_SAMPLE);
        CHECK_EQ(s[i].end_ns - s[i].start_ns, 1000);
    }
    CHECK(s[11].stage == STAGE_LEARNER && s[11].step == STEP_CNT);
    free(s);
    close_run();
}

TEST(an_overrun_ring_is_counted) {
    RecorderSpan *s;
    size_t cnt;
    CHECK_OK(open_run());
    Recorder *r = recorder_new(cfg, &run, dir);
    for (int i = 0; i < RUN_SPANS + 100; i++) span(0, i, (uint64_t)i, STEP_SAMPLE);
    recorder_free(r, "ended");
    CHECK_OK(recorder_read(at("spans.bin"), &s, &cnt));
    CHECK_EQ(cnt, 1 + RUN_SPANS - 1); // the oldest might be half overwritten
    CHECK_EQ(s[1].lost, 101);
    CHECK_EQ(s[1].sample, 101);
    CHECK_EQ(s[2].lost, 0);
    free(s);
    close_run();
}

TEST(a_resume_goes_on_after_a_torn_record) {
    RecorderSpan *s;
    size_t cnt;
    CHECK_OK(open_run());
    Recorder *r = recorder_new(cfg, &run, dir);
    span(0, 1, 1, STEP_SAMPLE);
    recorder_free(r, "ended");
    struct stat st;
    CHECK(!stat(at("spans.bin"), &st) && !truncate(at("spans.bin"), st.st_size - 5));
    r = recorder_new(cfg, &run, dir);
    span(0, 2, 2, STEP_SAMPLE);
    recorder_free(r, "ended");
    CHECK_OK(recorder_read(at("spans.bin"), &s, &cnt));
    CHECK_EQ(cnt, 3);
    CHECK(s[1].stage == RECORDER_SESSION && s[2].sample == 2);
    free(s);
    close_run();
}

TEST(damaged_files_are_refused) {
    RecorderSpan *s;
    size_t cnt;
    CHECK_OK(open_run());
    CHECK_ERR(recorder_read(at("spans.bin"), &s, &cnt), ERR_IO, "spans.bin");
    Recorder *r = recorder_new(cfg, &run, dir);
    span(0, 1, 1, STEP_SAMPLE);
    recorder_free(r, "ended");
    FILE *f = fopen(at("spans.bin"), "r+");
    fseek(f, -16, SEEK_END); // stage of the last record
    fputs("\x09", f);
    fclose(f);
    CHECK_ERR(recorder_read(at("spans.bin"), &s, &cnt), ERR_FORMAT, "record 1 is damaged");
    CHECK_ERR(recorder_read("tests/test.h", &s, &cnt), ERR_FORMAT, "not the spans");
    close_run();
}

TEST(the_snapshot_says_what_the_pages_say) {
    Json *j, *p[8], *slot[8];
    int cnt;
    const char *text;
    int64_t n;
    CHECK_OK(open_run());
    run.page[3].doing = RUN_BUSY;
    run.page[3].since_ns = 1;
    run.page[3].step = STEP_SCORE;
    run.page[3].sample = 17;
    run.page[3].steps[STEP_SCORE] = 2;
    run.page[3].step_ns[STEP_SCORE] = 3000000000;
    slot_publish(&run.state->slot[1], 1, &(SlotHeader){.sample = 5, .update = 2, .source = "x"});
    Recorder *r = recorder_new(cfg, &run, dir);
    recorder_poll(r, &(ConductorNews){.updated = true, .version = 3, .reward = 2}, 1);
    recorder_poll(r, &(ConductorNews){.updated = true, .version = 4, .reward = 1}, 1);
    recorder_free(r, "stopped");
    CHECK_OK(json_open(&j, at("status.json")));
    CHECK_OK(json_want_str(j, "state", &text));
    CHECK_STR(text, "stopped");
    CHECK_OK(json_want_i64(j, "version", &n));
    CHECK_EQ(n, 4);
    double best;
    CHECK_OK(json_want_f64(j, "best_reward", &best));
    CHECK_NEAR(best, 2, 0);
    CHECK_OK(json_want_objects(j, "processes", p, 8, &cnt));
    CHECK_EQ(cnt, 5);
    CHECK_OK(json_want_str(p[1], "name", &text));
    CHECK_STR(text, "sampler.1");
    CHECK_OK(json_want_str(p[1], "doing", &text));
    CHECK_STR(text, "starting");
    CHECK_OK(json_want_str(p[3], "step", &text));
    CHECK_STR(text, "score");
    CHECK_OK(json_want_objects(j, "slots", slot, 8, &cnt));
    CHECK_EQ(cnt, 3);
    CHECK_OK(json_want_str(slot[1], "step", &text));
    CHECK_STR(text, "encode");
    CHECK_OK(json_want_str(slot[0], "step", &text));
    CHECK_STR(text, "free");
    json_close(j);
    close_run();
}
