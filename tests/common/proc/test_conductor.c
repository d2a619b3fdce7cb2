// The conductor: who gets which slot and image, what lies on disk after every update, and going on from there.
#include "common/proc/conductor.h"

#include <sys/stat.h>
#include <unistd.h>

#include "tests/common/proc/synthetic.h"
#include "tests/test.h"

static Synthetic s;
static char dir[300];

static void fresh_dir(void) {
    snprintf(dir, sizeof dir, "%s/c.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    die_unless(mkdtemp(dir), "no temporary folder");
}

static char *content(const char *name) {
    static char text[1 << 16];
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    return text;
}

static int lines(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

// Runs to the end and keeps metrics.jsonl.
static uint64_t whole_run(char metrics[1 << 16], int set_cnt, const char *const *set) {
    fresh_dir();
    if (synthetic_open(&s, dir, false, set_cnt, set) || synthetic_inline(&s)) {
        TEST_FAIL("%s", err_trace());
        return 0;
    }
    uint64_t theta = synthetic_theta(&s);
    synthetic_close(&s);
    strcpy(metrics, content("metrics.jsonl"));
    return theta;
}

static char metrics[1 << 16];

TEST(samples_are_admitted_in_order) {
    const char *set[] = {"slots=3", "optim.lag=1"};
    ConductorNews news;
    fresh_dir();
    CHECK_OK(synthetic_open(&s, dir, false, 2, set));
    CHECK_OK(conductor_poll(s.conductor, &news));
    CHECK(news.admitted && !news.updated && !news.done);
    for (uint32_t i = 0; i < 3; i++) {
        const Slot *slot = &s.run.state->slot[i];
        CHECK_EQ(slot_load(slot), slot_word(1, 0));
        CHECK_EQ(slot->header.sample, i);
        CHECK_EQ(slot->header.update, i / 2);
        CHECK_EQ(slot->header.purpose, SLOT_TRAIN);
        CHECK_HAS(slot->header.source, "tests/data/pictures/");
    }
    CHECK_OK(conductor_poll(s.conductor, &news));
    CHECK(!news.admitted);
    slot_reset(&s.run.state->slot[1], 1,
               ITINERARY_DONE); // out of order: sample 3 belongs to slot 0
    CHECK_OK(conductor_poll(s.conductor, &news));
    CHECK(!news.admitted);
    slot_reset(&s.run.state->slot[0], 1, ITINERARY_DONE);
    CHECK_OK(conductor_poll(s.conductor, &news));
    CHECK_EQ(s.run.state->slot[0].header.sample, 3);
    CHECK_EQ(s.run.state->slot[1].header.sample, 4);
    synthetic_close(&s);
}

TEST(an_epoch_of_images_holds_each_once) {
    const char *set[] = {"slots=12", "optim.rollouts=12", "data.order=epoch"};
    ConductorNews news;
    fresh_dir();
    CHECK_OK(synthetic_open(&s, dir, false, 3, set));
    CHECK_OK(conductor_poll(s.conductor, &news));
    for (int e = 0; e < 4; e++) {
        const char *a = s.run.state->slot[3 * e].header.source,
                   *b = s.run.state->slot[3 * e + 1].header.source,
                   *c = s.run.state->slot[3 * e + 2].header.source;
        CHECK(strcmp(a, b) && strcmp(b, c) && strcmp(a, c));
    }
    synthetic_close(&s);
}

TEST(windows_are_drawn_per_sample_and_segment) {
    const char *set[] = {"slots=32", "optim.rollouts=32", "window.at=random",
                         "window.range=", "video.segments=2"};
    ConductorNews news;
    fresh_dir();
    CHECK_ERR(synthetic_open(&s, dir, false, 5, set), ERR_USAGE, "window.range");
    const char *fixed[] = {"slots=32", "optim.rollouts=32", "video.segments=2"};
    CHECK_OK(synthetic_open(&s, dir, false, 3, fixed));
    int64_t range[] = {3, 6};
    s.cfg->window_range = (ConfigInts){2, range};
    conductor_free(s.conductor);
    s.start.window_at = -1;
    CHECK_OK(conductor_new(&s.conductor, s.cfg, &s.run, &s.start));
    CHECK_OK(conductor_poll(s.conductor, &news));
    int seen[10] = {0}, differ = 0;
    for (uint32_t i = 0; i < 32; i++) {
        const int32_t *at = s.run.state->slot[i].header.window_at;
        for (int k = 0; k < 2; k++) {
            CHECK(at[k] >= 3 && at[k] <= 6);
            seen[at[k]]++;
        }
        differ += at[0] != at[1];
    }
    CHECK(seen[3] && seen[4] && seen[5] && seen[6] && differ);
    synthetic_close(&s);
}

TEST(each_update_leaves_a_line_and_a_state) {
    CHECK(whole_run(metrics, 0, NULL));
    CHECK_EQ(lines(metrics), 4);
    CHECK_HAS(metrics, "{\"update\": 1, \"samples\": [0, 1], \"reward\": ");
    CHECK_HAS(metrics, "{\"update\": 4, \"samples\": [6, 7], \"reward\": ");
    CHECK_HAS(metrics, "\"videomae.0\": ");
    CHECK(!strstr(metrics, "seconds")); // reproducible numbers only
    CHECK_EQ(lines(content("timing.jsonl")), 4);
    CHECK_HAS(content("timing.jsonl"), "\"learner.0\": {\"busy\": ");
    LedgerHead head;
    int found;
    CHECK_OK(ledger_read(dir, &head, NULL, &found));
    CHECK_EQ(head.version, 4);
    CHECK_EQ(head.next_sample, 8);
    CHECK_EQ(head.metrics_bytes, strlen(metrics));
}

TEST(durable_follows_the_disk) {
    ConductorNews news;
    fresh_dir();
    CHECK_OK(synthetic_open(&s, dir, false, 0, NULL));
    CHECK_OK(synthetic_join(&s));
    while (board_version(s.run.board) == 0) {
        CHECK_OK(conductor_poll(s.conductor, &news));
        bool worked;
        for (int p = 0; p < s.process_cnt; p++) CHECK_OK(synthetic_poll(&s, p, &worked));
    }
    CHECK_EQ(board_durable(s.run.board), 0);
    CHECK_EQ(lines(content("metrics.jsonl")), 0);
    CHECK_OK(conductor_poll(s.conductor, &news));
    CHECK(news.updated && news.version == 1);
    CHECK_EQ(board_durable(s.run.board), 1);
    CHECK_EQ(lines(content("metrics.jsonl")), 1);
    synthetic_close(&s);
}

// A launcher that comes late, after the stages have done all of the next update that they can without it.
TEST(metrics_are_of_their_update_however_late_they_are_read) {
    const char *set[] = {"optim.lag=1", "slots=8", "optim.updates=6"};
    uint64_t want = whole_run(metrics, 3, set);
    fresh_dir();
    CHECK_OK(synthetic_open(&s, dir, false, 3, set));
    CHECK_OK(synthetic_join(&s));
    uint64_t ahead = 0; // gradients of an update while the one before it was not booked yet
    for (ConductorNews news = {0}; !news.done;) {
        CHECK_OK(conductor_poll(s.conductor, &news));
        for (bool any = true; any && !test_failed();) {
            any = false;
            for (int p = 0; p < s.process_cnt; p++) {
                bool worked;
                CHECK_OK(synthetic_poll(&s, p, &worked));
                any |= worked;
            }
        }
        uint64_t first = board_version(s.run.board) * board_spec(s.run.board)->rollouts;
        ahead += board_tag(s.run.board, first) == first + 1;
    }
    CHECK(ahead >= 4);
    CHECK_EQ(synthetic_theta(&s), want);
    synthetic_close(&s);
    CHECK_STR(content("metrics.jsonl"), metrics);
}

// Stopped after any number of calls, in any state of the files: going on ends with the same bytes.
TEST(going_on_from_every_call) {
    const char *set[] = {"optim.lag=1", "slots=3", "video.segments=2"};
    uint64_t want = whole_run(metrics, 3, set);
    static char again[1 << 16];
    bool stopped = true;
    for (uint64_t at = 1; stopped && !test_failed(); at += 7) {
        fresh_dir();
        CHECK_OK(synthetic_open(&s, dir, false, 3, set));
        atomic_store(&s.shared->fail_at, at);
        stopped = synthetic_inline(&s) != ERR_OK;
        synthetic_close(&s);
        if (at % 3 ==
            0) { // the machine went down between the line and the state, or within the line
            char path[400];
            snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
            FILE *f = fopen(path, "a");
            CHECK(f);
            fputs("{\"update\": torn", f);
            fclose(f);
        }
        CHECK_OK(synthetic_open(&s, dir, true, 3, set));
        CHECK_OK(synthetic_inline(&s));
        CHECK_EQ(atomic_load(&s.shared->mistakes), 0);
        CHECK_MSG(synthetic_theta(&s) == want, "stopped at call %llu: another result",
                  (unsigned long long)at);
        synthetic_close(&s);
        strcpy(again, content("metrics.jsonl"));
        CHECK_STR(again, metrics);
    }
    CHECK(!stopped); // the last one came through
}

TEST(more_updates_later_are_the_same_run) {
    const char *six[] = {"optim.updates=6"};
    static char again[1 << 16];
    uint64_t want = whole_run(metrics, 1, six);
    CHECK(whole_run(again, 0, NULL)); // four
    CHECK_OK(synthetic_open(&s, dir, true, 1, six));
    CHECK_OK(synthetic_inline(&s));
    CHECK_EQ(synthetic_theta(&s), want);
    synthetic_close(&s);
    CHECK_STR(content("metrics.jsonl"), metrics);
}

TEST(previews_come_with_their_version_and_change_nothing) {
    static char plain[1 << 16];
    const char *set[] = {"preview.every=2", "slots=2", "optim.updates=5"};
    uint64_t want = whole_run(plain, 2, (const char *[]){"slots=2", "optim.updates=5"});
    if (test_failed()) return;
    fresh_dir();
    CHECK_OK(synthetic_open(&s, dir, false, 3, set));
    CHECK_OK(synthetic_join(&s));
    int seen[8][2] = {{0}};
    for (ConductorNews news = {0}; !news.done;) {
        CHECK_OK(conductor_poll(s.conductor, &news));
        if (news.preview_slot >= 0) {
            const SlotHeader *h = &s.run.state->slot[news.preview_slot].header;
            CHECK_EQ(h->purpose, SLOT_PREVIEW);
            CHECK_EQ(h->tuned, h->update > 0);
            CHECK(board_version(s.run.board) == h->update); // the next version waits for it
            CHECK(h->update < 8 && h->sample < 2);
            seen[h->update][h->sample]++;
            conductor_release(s.conductor, (uint32_t)news.preview_slot);
        }
        bool worked;
        for (int p = 0; p < s.process_cnt; p++) CHECK_OK(synthetic_poll(&s, p, &worked));
    }
    static const int versions[8] = {1, 0, 1, 0, 1, 1, 0, 0}; // 0, 2, 4 and the last
    for (int v = 0; v < 8; v++)
        for (int i = 0; i < 2; i++) CHECK_EQ(seen[v][i], versions[v]);
    CHECK_EQ(synthetic_theta(&s), want);
    synthetic_close(&s);
    CHECK_STR(content("metrics.jsonl"), plain);
}

TEST(lists_of_images) {
    char list[400], word[500];
    ConductorNews news;
    fresh_dir();
    snprintf(list, sizeof list, "%s/images.txt", dir);
    char cwd[4096];
    CHECK(getcwd(cwd, sizeof cwd));
    FILE *f = fopen(list, "w");
    CHECK(f);
    fprintf(f, "# a comment\n\n%s/tests/data/pictures/dawn.png\r\nnear.png\n", cwd);
    fclose(f);
    snprintf(word, sizeof word, "data.list=%s", list);
    const char *set[] = {word, "data.images="};
    CHECK_ERR(synthetic_open(&s, dir, false, 2, set), ERR_USAGE, "near.png");
    char near[400];
    snprintf(near, sizeof near, "%s/near.png", dir);
    f = fopen(near, "w");
    CHECK(f && !fclose(f));
    CHECK_OK(synthetic_open(&s, dir, false, 2, set));
    CHECK_OK(conductor_poll(s.conductor, &news));
    for (uint32_t i = 0; i < 4; i++)
        CHECK(strstr(s.run.state->slot[i].header.source, "near.png") ||
              strstr(s.run.state->slot[i].header.source, "dawn.png"));
    synthetic_close(&s);
    f = fopen(list, "w");
    fputs("# nothing\n", f);
    fclose(f);
    CHECK_ERR(synthetic_open(&s, dir, false, 2, set), ERR_USAGE, "no image paths");
    f = fopen(list, "w");
    for (int i = 0; i < 2000; i++) fputc('x', f);
    fclose(f);
    CHECK_ERR(synthetic_open(&s, dir, false, 2, set), ERR_USAGE, "longer than");
    unlink(list);
    CHECK_ERR(synthetic_open(&s, dir, false, 2, set), ERR_USAGE, "images.txt");
}

TEST(an_image_that_cannot_be_read) {
    const char *set[] = {"data.images=no/such.png"};
    fresh_dir();
    CHECK_ERR(synthetic_open(&s, dir, false, 1, set), ERR_USAGE, "no/such.png");
    const char *preview[] = {"preview.images=no/preview.png"};
    CHECK_ERR(synthetic_open(&s, dir, false, 1, preview), ERR_USAGE, "no/preview.png");
}

TEST(after_a_death_only_what_has_no_gradient_starts_over) {
    const char *set[] = {"slots=4", "optim.lag=1"};
    ConductorNews news;
    fresh_dir();
    CHECK_OK(synthetic_open(&s, dir, false, 2, set));
    CHECK_OK(conductor_poll(s.conductor, &news));
    Slot *slot = s.run.state->slot;
    slot_reset(&slot[0], 1, 5);
    board_set_tag(s.run.board, 0); // gradient there, slot not yet advanced
    slot_reset(&slot[1], 1, 4);
    slot_reset(&slot[2], 1, ITINERARY_DONE);
    slot[3].header.purpose = SLOT_PREVIEW;
    slot_reset(&slot[3], 1, (uint32_t)s.run.preview.cnt); // a preview that waits to be taken
    atomic_store(&s.run.state->epoch, 2);
    conductor_restart_samples(s.conductor, 2);
    CHECK_EQ(slot_load(&slot[0]), slot_word(2, ITINERARY_DONE));
    CHECK_EQ(slot_load(&slot[1]), slot_word(2, 0));
    CHECK_EQ(slot_load(&slot[2]), slot_word(2, ITINERARY_DONE));
    CHECK_EQ(slot_load(&slot[3]), slot_word(2, (uint32_t)s.run.preview.cnt));
    synthetic_close(&s);
}
