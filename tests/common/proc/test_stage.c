// The loop: which step it takes, when it waits, what it does with errors and old epochs; and that no order of
// events and no death changes what comes out.
#include "common/proc/stage.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "tests/common/proc/synthetic.h"
#include "tests/test.h"

static Synthetic s;

static const char *fresh_dir(void) {
    static char dir[300];
    snprintf(dir, sizeof dir, "%s/s.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    die_unless(mkdtemp(dir), "no temporary folder");
    return dir;
}

// ---- Choosing, with slots set by hand ----

static int process_of(StageKind kind) { return run_page_index(&s.run, kind, 0); }

// Sample in a slot, about to run a step of the training itinerary.
static void place(uint32_t slot, uint64_t sample, StepKind kind, uint32_t segment, bool preview) {
    const Itinerary *it = preview ? &s.run.preview : &s.run.train;
    uint32_t step = 0;
    while (it->step[step].kind != kind || (uint32_t)it->step[step].segment != segment) step++;
    Slot *line = &s.run.state->slot[slot];
    line->header = (SlotHeader){.sample = sample,
                                .update = preview ? 0 : sample / s.run.state->rollouts,
                                .purpose = preview ? SLOT_PREVIEW : SLOT_TRAIN};
    slot_reset(line, atomic_load(&s.run.state->epoch), step);
}

static void open_by_hand(int set_cnt, const char *const *set) {
    CHECK_OK(synthetic_open(&s, fresh_dir(), false, set_cnt, set));
    CHECK_OK(synthetic_join(&s));
}

// The slot whose step was taken, -1 if none.
static int taken(StageKind kind) {
    uint64_t before[64];
    uint32_t n = s.run.state->slot_cnt;
    bool worked;
    for (uint32_t i = 0; i < n; i++) before[i] = slot_load(&s.run.state->slot[i]);
    if (synthetic_poll(&s, process_of(kind), &worked) || !worked) return -1;
    for (uint32_t i = 0; i < n; i++)
        if (slot_load(&s.run.state->slot[i]) != before[i]) return (int)i;
    return -2;
}

TEST(oldest_sample_first_latest_step_first) {
    const char *set[] = {"slots=6", "optim.rollouts=8", "video.segments=2"};
    open_by_hand(3, set);
    if (test_failed()) return;
    place(0, 5, STEP_DECODE, 0, false);
    place(1, 3, STEP_ENCODE, 0, false);
    place(2, 4, STEP_PULL, 1, false);
    CHECK_EQ(taken(STAGE_DECODER), 1);
    CHECK_EQ(taken(STAGE_DECODER), 2);
    CHECK_EQ(taken(STAGE_DECODER), 0);
    CHECK_EQ(taken(STAGE_DECODER), 0); // decode 1 follows decode 0
    CHECK_EQ(taken(STAGE_DECODER), -1);
    synthetic_close(&s);
}

TEST(the_learner_denoises_before_it_learns) {
    const char *set[] = {"slots=6", "optim.rollouts=4"};
    open_by_hand(2, set);
    if (test_failed()) return;
    place(0, 0, STEP_LEARN, 0, false);
    place(1, 3, STEP_DENOISE, 0, false);
    CHECK_EQ(taken(STAGE_LEARNER), 1);
    CHECK_EQ(taken(STAGE_LEARNER), 0);
    synthetic_close(&s);
}

TEST(training_before_previews) {
    const char *set[] = {"slots=6", "optim.rollouts=4"};
    open_by_hand(2, set);
    if (test_failed()) return;
    place(0, 0, STEP_SAMPLE, 0, true);
    place(1, 3, STEP_SAMPLE, 0, false);
    CHECK_EQ(taken(STAGE_SAMPLER), 1);
    CHECK_EQ(taken(STAGE_SAMPLER), 0);
    synthetic_close(&s);
}

TEST(a_finished_preview_stays_for_the_launcher) {
    const char *set[] = {"slots=2"};
    open_by_hand(1, set);
    if (test_failed()) return;
    place(0, 0, STEP_DECODE, 0, true);
    CHECK_EQ(taken(STAGE_DECODER), 0);
    CHECK_EQ(slot_step(slot_load(&s.run.state->slot[0])), s.run.preview.cnt);
    for (int k = 0; k < STAGE_CNT; k++) CHECK_EQ(taken((StageKind)k), -1);
    synthetic_close(&s);
}

TEST(versions_hold_steps_back) {
    const char *set[] = {"slots=6", "optim.rollouts=2", "optim.lag=1"};
    open_by_hand(3, set);
    if (test_failed()) return;
    place(0, 4, STEP_SAMPLE, 0, false);  // of update 2: wants version 1
    place(1, 2, STEP_DENOISE, 0, false); // of update 1
    CHECK_EQ(taken(STAGE_SAMPLER), -1);
    CHECK_EQ(taken(STAGE_LEARNER), -1);
    CHECK_EQ(atomic_load(&s.run.page[process_of(STAGE_SAMPLER)].doing), RUN_WAIT_ROOM);
    place(2, 3, STEP_SAMPLE, 0, false); // of update 1: version 0 will do
    CHECK_EQ(taken(STAGE_SAMPLER), 2);
    board_commit(s.run.board, 1);
    CHECK_EQ(taken(STAGE_SAMPLER), 0);
    CHECK_EQ(taken(STAGE_LEARNER), 1);
    synthetic_close(&s);
}

TEST(replicas_share_slots) {
    const char *set[] = {"slots=5", "optim.rollouts=8", "stages.sampler.replicas=2"};
    open_by_hand(3, set);
    if (test_failed()) return;
    for (uint32_t i = 0; i < 5; i++) place(i, i, STEP_SAMPLE, 0, false);
    bool worked;
    int one = run_page_index(&s.run, STAGE_SAMPLER, 1), cnt = 0;
    do {
        CHECK_OK(synthetic_poll(&s, one, &worked));
        cnt += worked;
    } while (worked);
    CHECK_EQ(cnt, 2); // slots 1 and 3
    for (uint32_t i = 0; i < 5; i++)
        CHECK_EQ(slot_step(slot_load(&s.run.state->slot[i])), 1 + i % 2);
    synthetic_close(&s);
}

TEST(an_old_epoch_is_nobody_s) {
    const char *set[] = {"slots=2"};
    open_by_hand(1, set);
    if (test_failed()) return;
    place(0, 0, STEP_ENCODE, 0, false);
    atomic_store(&s.run.state->epoch, 2);
    CHECK_EQ(taken(STAGE_DECODER), -1);
    slot_reset(&s.run.state->slot[0], 2, 0);
    CHECK_EQ(taken(STAGE_DECODER), 0);
    synthetic_close(&s);
}

TEST(an_error_is_returned_and_nothing_is_published) {
    const char *set[] = {"slots=2"};
    open_by_hand(1, set);
    if (test_failed()) return;
    place(0, 0, STEP_ENCODE, 0, false);
    uint64_t before = slot_load(&s.run.state->slot[0]);
    atomic_store(&s.shared->fail_at, 2); // after the work
    bool worked;
    CHECK_ERR(synthetic_poll(&s, process_of(STAGE_DECODER), &worked), ERR_DEVICE, "told to fail");
    CHECK_EQ(slot_load(&s.run.state->slot[0]), before);
    synthetic_close(&s);
}

TEST(an_update_waits_for_everything) {
    const char *set[] = {"slots=4"};
    open_by_hand(1, set);
    if (test_failed()) return;
    bool worked;
    int learner = process_of(STAGE_LEARNER);
#define NOTHING_YET()                               \
    CHECK_OK(synthetic_poll(&s, learner, &worked)); \
    CHECK(!worked && board_version(s.run.board) == 0)
    NOTHING_YET();
    board_set_tag(s.run.board, 0);
    NOTHING_YET();
    board_set_tag(s.run.board, 1);
    place(2, 0, STEP_DECODE, 0, true); // a preview of this version
    NOTHING_YET();
    slot_reset(&s.run.state->slot[2], 1, ITINERARY_DONE);
    place(3, 2, STEP_ENCODE, 0, false); // a sample of the next update does not matter
    board_commit(s.run.board, 0);
    CHECK_OK(synthetic_poll(&s, learner, &worked));
    CHECK(worked && board_version(s.run.board) == 1);
    board_set_tag(s.run.board, 2);
    board_set_tag(s.run.board, 3);
    slot_reset(&s.run.state->slot[3], 1, ITINERARY_DONE);
    CHECK_OK(synthetic_poll(&s, learner, &worked));
    CHECK(!worked); // version 1 is not durable
    board_set_durable(s.run.board, 1);
    CHECK_OK(synthetic_poll(&s, learner, &worked));
    CHECK(worked && board_version(s.run.board) == 2);
    synthetic_close(&s);
}

TEST(time_is_accounted) {
    const char *set[] = {"slots=2"};
    open_by_hand(1, set);
    if (test_failed()) return;
    RunPage *p = &s.run.page[process_of(STAGE_DECODER)];
    atomic_store(&s.shared->sleep_us[STEP_ENCODE], 5000);
    bool worked;
    CHECK_OK(synthetic_poll(&s, process_of(STAGE_DECODER), &worked)); // books from the join to here
    uint64_t before = 0, after = 0;
    for (int k = 0; k < RUN_TIME_CNT; k++) before += atomic_load(&p->time_ns[k]);
    int64_t start = atomic_load(&p->since_ns);
    place(0, 0, STEP_ENCODE, 0, false);
    CHECK_OK(synthetic_poll(&s, process_of(STAGE_DECODER), &worked));
    CHECK_OK(synthetic_poll(&s, process_of(STAGE_DECODER), &worked));
    for (int k = 0; k < RUN_TIME_CNT; k++) after += atomic_load(&p->time_ns[k]);
    CHECK_EQ((int64_t)(after - before), atomic_load(&p->since_ns) - start); // every nanosecond
    CHECK(atomic_load(&p->time_ns[RUN_BUSY]) >= 5000000);
    CHECK_EQ(atomic_load(&p->steps[STEP_ENCODE]), 1);
    CHECK_EQ(atomic_load(&p->span_cnt), 1);
    CHECK(p->span[0].end_ns - p->span[0].start_ns >= 5000000);
    synthetic_close(&s);
}

static int status_of(void (*wrong)(StageCtx *)) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        fclose(stderr);
        wrong(s.ctx[process_of(STAGE_DECODER)]);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return status;
}

static void write_other(StageCtx *c) { stage_write(c, SECTION_X_K, 0, 0); }
static void read_unused(StageCtx *c) {
    const void *p;
    stage_read(c, SECTION_PREVIEW, 0, 0, &p);
}
static void read_beyond(StageCtx *c) {
    const void *p;
    stage_read(c, SECTION_COND, 99, 0, &p);
}
static void write_own(StageCtx *c) { stage_write(c, SECTION_COND, 0, 0); }

TEST(only_own_sections_are_written) {
    open_by_hand(0, NULL);
    if (test_failed()) return;
    CHECK_EQ(status_of(write_own), 0);
    CHECK(status_of(write_other) != 0);
    CHECK(status_of(read_unused) != 0);
    CHECK(status_of(read_beyond) != 0);
    synthetic_close(&s);
}

// ---- Whole runs ----

// The lines of metrics, for free().
static char *metrics(void) {
    char path[600];
    size_t len = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", s.dir);
    FILE *f = fopen(path, "r");
    char *text = NULL;
    ssize_t n = f ? getdelim(&text, &len, 0, f) : -1;
    die_unless(n > 0, "%s cannot be read", path);
    fclose(f);
    return text;
}

static char *want_metrics; // of the newest reference

// The fingerprint of a run in turn, in one process; 0 after a failed check.
static uint64_t reference(int set_cnt, const char *const *set) {
    uint64_t theta = 0;
    if (synthetic_open(&s, fresh_dir(), false, set_cnt, set) || synthetic_inline(&s))
        TEST_FAIL("%s", err_trace());
    else
        theta = synthetic_theta(&s);
    if (!test_failed() && atomic_load(&s.shared->mistakes)) TEST_FAIL("mistakes in the reference");
    free(want_metrics);
    want_metrics = test_failed() ? NULL : metrics();
    synthetic_close(&s);
    return test_failed() ? 0 : theta;
}

typedef struct Draw {
    uint64_t state;
} Draw;

static uint64_t draw(Draw *d, uint64_t below) {
    d->state ^= d->state << 13;
    d->state ^= d->state >> 7;
    d->state ^= d->state << 17;
    return d->state % below;
}

// Polls processes and conductor in random order, with deaths before and after the work of random calls.
static Err explore(uint64_t seed, bool deaths) {
    Draw d = {seed * 0x9e3779b97f4a7c15 + 1};
    int idle = 0;
    TRY(synthetic_join(&s));
    for (;;) {
        if (deaths && !atomic_load(&s.shared->fail_at))
            atomic_store(&s.shared->fail_at, atomic_load(&s.shared->calls) + 1 + draw(&d, 60));
        bool worked = true;
        int p = (int)draw(&d, (uint64_t)s.process_cnt + 2);
        if (p < s.process_cnt) {
            if (synthetic_poll(&s, p, &worked)) {
                atomic_store(&s.shared->fail_at, 0);
                TRY(synthetic_die(&s, p));
            }
        } else if (p == s.process_cnt) {
            ConductorNews news;
            TRY(conductor_poll(s.conductor, &news));
            if (news.done) return ERR_OK;
            worked = news.updated || news.admitted || news.preview_slot >= 0;
            if (news.preview_slot >= 0) conductor_release(s.conductor, (uint32_t)news.preview_slot);
        } else if (deaths && draw(&d, 40) == 0) {
            TRY(synthetic_die(&s, (int)draw(&d, (uint64_t)s.process_cnt))); // between steps
        }
        idle = worked ? 0 : idle + 1;
        if (idle > 5000) FAIL(ERR_TIMEOUT, "nothing goes on: deadlock");
    }
}

static const char *const worlds[][6] = {
    {"optim.lag=0", "slots=1"},
    {"optim.lag=0", "slots=2", "video.segments=3"},
    {"optim.lag=1", "slots=3", "stages.sampler.replicas=2"},
    {"optim.lag=2", "slots=7", "stages.decoder.replicas=3", "video.segments=2", "optim.rollouts=3"},
    {"optim.lag=1", "slots=5", "video.handover=sampler", "video.segments=3",
     "stages.rewarder.replicas=2"},
    {"optim.lag=1", "slots=2", "preview.every=1", "video.segments=2", "stages.decoder.replicas=2"},
    {"optim.lag=2", "slots=12", "video.handover=sampler", "preview.every=2", "optim.rollouts=4",
     "optim.updates=6"},
};

TEST(no_order_of_events_changes_the_result) {
    for (size_t w = 0; w < sizeof worlds / sizeof *worlds; w++) {
        int cnt = 0;
        while (cnt < 6 && worlds[w][cnt]) cnt++;
        uint64_t want = reference(cnt, worlds[w]);
        if (test_failed()) return;
        for (uint64_t seed = 1; seed <= 24; seed++) {
            CHECK_OK(synthetic_open(&s, fresh_dir(), false, cnt, worlds[w]));
            Err err = explore(seed, seed % 2);
            CHECK_MSG(!err, "world %zu, seed %llu: %s", w, (unsigned long long)seed, err_trace());
            CHECK_MSG(!atomic_load(&s.shared->mistakes), "world %zu, seed %llu: %llu mistakes", w,
                      (unsigned long long)seed, (unsigned long long)s.shared->mistakes);
            CHECK_MSG(synthetic_theta(&s) == want, "world %zu, seed %llu: another result", w,
                      (unsigned long long)seed);
            char *found = metrics();
            CHECK_MSG(!strcmp(found, want_metrics), "world %zu, seed %llu: metrics are\n%swant\n%s",
                      w, (unsigned long long)seed, found, want_metrics);
            free(found);
            synthetic_close(&s);
        }
    }
}

TEST(slots_and_replicas_change_nothing) {
    static const char *const set[][4] = {{"optim.lag=1", "slots=1"},
                                         {"optim.lag=1", "slots=2", "stages.sampler.replicas=2"},
                                         {"optim.lag=1", "slots=5", "stages.decoder.replicas=3"},
                                         {"optim.lag=1", "slots=8", "stages.rewarder.replicas=2"}};
    uint64_t want = reference(2, set[0]);
    for (int i = 1; i < 4 && !test_failed(); i++) CHECK_EQ(reference(3, set[i]), want);
}

// What a process tells another is where to look: the bytes of its messages do not depend on those of a section.
static void check_messages(void) {
    uint64_t bytes = 0, steps = 0;
    for (int i = 0; i <= run_page_index(&s.run, STAGE_LEARNER, 0); i++) {
        bytes += s.run.page[i].sent_bytes;
        for (int k = 0; k < STEP_CNT; k++) steps += s.run.page[i].steps[k];
    }
    CHECK(steps >= 5 * 3 * 14 && bytes > 0);
    CHECK_MSG(bytes <= 64 * steps, "%llu bytes of messages for %llu steps",
              (unsigned long long)bytes, (unsigned long long)steps);
}

TEST(processes_compute_what_one_process_does) {
    const char *set[] = {"optim.lag=1",
                         "slots=6",
                         "video.segments=2",
                         "optim.rollouts=3",
                         "stages.sampler.replicas=2",
                         "optim.updates=5"};
    uint64_t want = reference(6, set);
    if (test_failed()) return;
    static const char *const faults[] = {NULL, "delay:3:500", "bells:300:200:300"};
    for (int i = 0; i < 3; i++) {
        CHECK_OK(synthetic_open(&s, fresh_dir(), false, 6, set));
        s.fault = faults[i];
        CHECK_OK(synthetic_processes(&s));
        CHECK_EQ(atomic_load(&s.shared->mistakes), 0);
        CHECK_EQ(synthetic_theta(&s), want);
        check_messages();
        synthetic_close(&s);
    }
}

// Whether some work of one process was done while another one worked.
static bool overlap(int a, int b) {
    const RunPage *p = &s.run.page[a], *q = &s.run.page[b];
    for (uint64_t i = 0; i < p->span_cnt; i++)
        for (uint64_t k = 0; k < q->span_cnt; k++)
            if (p->span[i].start_ns < q->span[k].end_ns && q->span[k].start_ns < p->span[i].end_ns)
                return true;
    return false;
}

// How much is gained by it is bench_pipeline's question.
TEST(stages_overlap) {
    const char *set[] = {"optim.lag=1", "slots=16", "optim.rollouts=8", "optim.updates=6"};
    CHECK_OK(synthetic_open(&s, fresh_dir(), false, 4, set));
    for (int k = 0; k <= STEP_CNT; k++) atomic_store(&s.shared->sleep_us[k], 2000);
    CHECK_OK(synthetic_processes(&s));
    for (int a = 0; a < STAGE_CNT; a++) {
        bool any = false;
        for (int b = 0; b < STAGE_CNT; b++) any |= a != b && overlap(a, b);
        CHECK_MSG(any, "the %s works only when nobody else does",
                  itinerary_stage_name((StageKind)a));
    }
    synthetic_close(&s);
}
