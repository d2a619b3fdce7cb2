// `vader eval` of a small run: what eval.json must say whatever the models are worth.
#include <unistd.h>

#include "common/format/json.h"
#include "common/format/safetensors.h"
#include "tests/test.h"

enum { IMAGES = 2, SEEDS = 3, SAMPLES = IMAGES * SEEDS, METRICS_MAX = 32 };

static const char *folder(void) { return getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp"; }

// Runs `vader <words>`; false if it fails, and what it printed is shown.
static bool vader(const char *words) {
    char command[4096];
    const char *program = getenv("VADER");
    snprintf(command, sizeof command, "%s %s >%s/out 2>&1", program ? program : "./vader", words,
             folder());
    if (!system(command)) return true;
    printf("vader %s:\n", words);
    fflush(stdout);
    snprintf(command, sizeof command, "tail -n 20 %s/out", folder());
    if (system(command)) printf("its output cannot be shown\n");
    return false;
}

static bool evaluate(const char *words) {
    char command[2048];
    snprintf(command, sizeof command, "eval %s/run %s", folder(), words);
    return vader(command);
}

// The run, made once.
static bool have_run(void) {
    static int made;
    char words[512];
    snprintf(words, sizeof words, "train tests/launch/eval.yaml run=%s/run --inline", folder());
    if (!made) made = vader(words) ? 1 : -1;
    return made > 0;
}

typedef struct Read {
    Json *json, *sample[SAMPLES], *summary;
    const char *name[METRICS_MAX]; // metrics
    int metric_cnt, sample_cnt;
} Read;

static Err read_eval(Read *r) {
    char path[512];
    Json *metric[METRICS_MAX];
    *r = (Read){0};
    snprintf(path, sizeof path, "%s/run/eval.json", folder());
    TRY(json_open(&r->json, path));
    TRY(json_want_objects(r->json, "metrics", metric, METRICS_MAX, &r->metric_cnt));
    for (int m = 0; m < r->metric_cnt; m++) TRY(json_want_str(metric[m], "name", &r->name[m]));
    TRY(json_want_objects(r->json, "samples", r->sample, SAMPLES, &r->sample_cnt));
    return json_want_object(r->json, "summary", &r->summary);
}

static double number(Json *parent, const char *child, const char *key) {
    Json *j;
    double x = NAN;
    if (json_want_object(parent, child, &j) || json_want_f64(j, key, &x))
        TEST_FAIL("%s", err_text());
    return x;
}

static double summary(const Read *r, const char *metric, const char *what, const char *key) {
    Json *j;
    if (json_want_object(r->summary, metric, &j)) return TEST_FAIL("%s", err_text()), NAN;
    return number(j, what, key);
}

// A file of the run, with a NUL behind it.
static char *slurp(const char *name, size_t *len) {
    char path[512], *bytes = malloc((1 << 20) + 1);
    snprintf(path, sizeof path, "%s/run/%s", folder(), name);
    FILE *f = fopen(path, "rb");
    if (!f || !bytes) abort();
    *len = fread(bytes, 1, 1 << 20, f);
    bytes[*len] = 0;
    fclose(f);
    return bytes;
}

// ---- What is there ----

static void check_head(Json *j) {
    const char *text, *image[IMAGES];
    int64_t number_of;
    int cnt;
    CHECK_OK(json_want_i64(j, "version", &number_of));
    CHECK_EQ(number_of, 1);
    CHECK_OK(json_want_i64(j, "updates", &number_of));
    CHECK_EQ(number_of, 6);
    CHECK_OK(json_want_i64(j, "seeds", &number_of));
    CHECK_EQ(number_of, SEEDS);
    CHECK_OK(json_want_i64(j, "fps", &number_of));
    CHECK_EQ(number_of, 7);
    CHECK_OK(json_want_str(j, "target", &text));
    CHECK_STR(text, "drift");
    CHECK_OK(json_want_str(j, "adapter", &text));
    CHECK_OK(json_want_strs(j, "images", image, IMAGES, &cnt));
    CHECK_EQ(cnt, IMAGES);
    CHECK_STR(image[0], "pictures/hills.png");
    CHECK_STR(image[1], "pictures/tiles.png");
}

static void check_sample(const Read *r, int i) {
    Json *s = r->sample[i], *side;
    const char *video, *image;
    char path[512], want[64];
    int64_t seed;
    CHECK_OK(json_want_str(s, "image", &image));
    CHECK_OK(json_want_i64(s, "seed", &seed));
    CHECK_OK(json_want_str(s, "video", &video));
    CHECK_EQ(seed, i % SEEDS);
    snprintf(want, sizeof want, "eval/%s-%d.mp4", i < SEEDS ? "hills" : "tiles", i % SEEDS);
    CHECK_STR(video, want);
    snprintf(path, sizeof path, "%s/run/%s", folder(), video);
    CHECK(!access(path, R_OK));
    for (int k = 0; k < 2; k++) {
        CHECK_OK(json_want_object(s, k ? "tuned" : "base", &side));
        CHECK_EQ(json_count(side), r->metric_cnt - 1); // all but diversity
        for (int m = 0; m < r->metric_cnt; m++)
            if (strcmp(r->name[m], "diversity"))
                CHECK_EQ(json_kind(side, r->name[m]), JSON_KIND_FLOAT);
    }
}

TEST(everything_is_there) {
    static const char *const want[] = {
        "reward",  "class_prob",       "judge_prob", "judge_agrees", "motion",    "diversity",
        "shift_x", "shift_y",          "zoom",       "consistency",  "sharpness", "contrast",
        "chroma",  "first_frame_psnr", "vjepa_loss", "videomae.0",   "vjepa.1"};
    Read r;
    CHECK(have_run());
    CHECK(evaluate(""));
    CHECK_OK(read_eval(&r));
    check_head(r.json);
    CHECK_EQ(r.metric_cnt, 17);
    for (int m = 0; m < r.metric_cnt && !test_failed(); m++) CHECK_STR(r.name[m], want[m]);
    CHECK_EQ(r.sample_cnt, SAMPLES);
    for (int i = 0; i < SAMPLES && !test_failed(); i++) check_sample(&r, i);
    CHECK_EQ(json_count(r.summary), r.metric_cnt);
    json_close(r.json);
}

// What the report cautions by.
TEST(what_a_reward_may_cost_is_said) {
    static const struct {
        const char *name;
        bool least, most;
    } want[] = {{"motion", true, false},
                {"diversity", true, false},
                {"sharpness", true, true},
                {"contrast", false, true},
                {"chroma", false, true}};
    Json *metric[METRICS_MAX], *kept;
    Read r;
    int cnt, found = 0;
    CHECK(have_run());
    CHECK(evaluate(""));
    CHECK_OK(read_eval(&r));
    CHECK_OK(json_want_objects(r.json, "metrics", metric, METRICS_MAX, &cnt));
    for (int m = 0; m < cnt && !test_failed(); m++) {
        const char *sign = NULL;
        double least = NAN, most = INFINITY;
        CHECK_OK(json_get_object(metric[m], "kept", &kept));
        if (!kept) continue;
        CHECK(found < 5 && !strcmp(r.name[m], want[found].name));
        CHECK_OK(json_want_str(kept, "sign", &sign));
        CHECK_OK(json_want_f64(kept, "least", &least));
        CHECK_OK(json_get_f64(kept, "most", &most));
        CHECK(*sign && (least > 0) == want[found].least && isfinite(most) == want[found].most);
        found++;
    }
    CHECK_EQ(found, 5);
    json_close(r.json);
}

// ---- What the numbers have to do with each other ----

static void check_metric(const Read *r, const char *name) {
    static const char *const column[] = {"base", "tuned", "difference"};
    double mean[3];
    for (int c = 0; c < 3; c++) {
        mean[c] = summary(r, name, column[c], "mean");
        CHECK(summary(r, name, column[c], "low") <= mean[c]);
        CHECK(summary(r, name, column[c], "high") >= mean[c]);
    }
    CHECK_NEAR(mean[2], mean[1] - mean[0], 1e-8 * (1 + fabs(mean[1])));
    if (!strcmp(name, "diversity")) return;
    for (int c = 0; c < 2; c++) {
        double sum = 0;
        for (int i = 0; i < SAMPLES; i++) sum += number(r->sample[i], column[c], name) / SAMPLES;
        CHECK_NEAR(sum, mean[c], 1e-8 * (1 + fabs(mean[c])));
    }
}

TEST(means_and_intervals) {
    Read r;
    CHECK(have_run());
    CHECK(evaluate(""));
    CHECK_OK(read_eval(&r));
    for (int m = 0; m < r.metric_cnt && !test_failed(); m++) {
        check_metric(&r, r.name[m]);
        if (test_failed()) printf("%s\n", r.name[m]);
    }
    json_close(r.json);
}

TEST(models_agree_with_themselves) {
    static const char *const classes[] = {"ebb", "flow", "drift", "still"};
    Read r;
    Json *shares;
    CHECK(have_run());
    CHECK(evaluate(""));
    CHECK_OK(read_eval(&r));
    for (int i = 0; i < SAMPLES; i++)
        for (int k = 0; k < 2; k++) {
            Json *s = r.sample[i];
            const char *side = k ? "tuned" : "base";
            double p = number(s, side, "class_prob"), log_p = number(s, side, "videomae.0");
            CHECK_NEAR(log(p), log_p, 1e-5);
            CHECK_NEAR(number(s, side, "judge_prob"), p, 1e-6); // it is the same model
            CHECK_NEAR(number(s, side, "vjepa_loss"), -number(s, side, "vjepa.1"), 1e-6);
            CHECK_NEAR(number(s, side, "reward"), log_p + 0.01 * number(s, side, "vjepa.1"), 1e-5);
        }
    CHECK_OK(json_want_object(r.json, "classes", &shares));
    for (int k = 0; k < 2; k++) {
        double sum = 0, drift = number(shares, k ? "tuned" : "base", "drift");
        for (int c = 0; c < 4; c++) sum += number(shares, k ? "tuned" : "base", classes[c]);
        CHECK_NEAR(sum, 1, 1e-9);
        CHECK_NEAR(drift, summary(&r, "judge_agrees", k ? "tuned" : "base", "mean"), 1e-9);
    }
    Json *headroom;
    CHECK_OK(json_want_object(r.json, "headroom", &headroom));
    CHECK_EQ(json_count(headroom), 4);
    CHECK_NEAR(number(headroom, "base", "mean"), summary(&r, "vjepa_loss", "base", "mean"), 0);
    CHECK(number(headroom, "real", "mean") > 0 && number(headroom, "frozen", "mean") > 0);
    CHECK(number(headroom, "blurred", "mean") != number(headroom, "base", "mean"));
    json_close(r.json);
}

TEST(the_adapter_raises_its_reward) {
    Read r;
    CHECK(have_run());
    CHECK(evaluate(""));
    CHECK_OK(read_eval(&r));
    CHECK(summary(&r, "reward", "difference", "mean") > 0.05);
    CHECK(summary(&r, "reward", "difference", "low") > 0);
    CHECK(summary(&r, "class_prob", "difference", "mean") > 0);
    json_close(r.json);
}

TEST(an_adapter_of_nothing_changes_nothing) {
    Read r;
    CHECK(have_run());
    CHECK(evaluate("eval.lora_scale=0"));
    CHECK_OK(read_eval(&r));
    for (int m = 0; m < r.metric_cnt; m++) {
        CHECK_NEAR(summary(&r, r.name[m], "difference", "low"), 0, 0);
        CHECK_NEAR(summary(&r, r.name[m], "difference", "high"), 0, 0);
        if (!strcmp(r.name[m], "diversity")) continue;
        for (int i = 0; i < SAMPLES; i++)
            CHECK_NEAR(number(r.sample[i], "base", r.name[m]),
                       number(r.sample[i], "tuned", r.name[m]), 0);
    }
    json_close(r.json);
}

// ---- The same bytes ----

// Fails with what stands where the two texts part.
static void check_texts(const char *one, const char *two) {
    size_t at = 0;
    if (!one || !two) {
        TEST_FAIL("one text is missing");
        return;
    }
    while (one[at] && one[at] == two[at]) at++;
    size_t from = at < 80 ? 0 : at - 80;
    CHECK_MSG(one[at] == two[at], "byte %zu differs:\n%.160s\n---- and ----\n%.160s", at,
              one + from, two + from);
}

static void check_same(const char *words, const char *file) {
    size_t len, again;
    char *one = slurp(file, &len);
    CHECK(evaluate(words));
    char *two = slurp(file, &again);
    CHECK_MSG(len == again && !memcmp(one, two, len), "%s differs after %s", file, words);
    free(one);
    free(two);
}

TEST(any_number_of_threads_gives_the_same_bytes) {
    CHECK(have_run());
    CHECK(evaluate("--threads 1"));
    check_same("--threads 2", "eval.json");
    check_same("--threads 5", "eval/tiles-1.mp4");
    check_same("", "eval.json");
    check_same("stages.sampler.threads=3 stages.rewarder.threads=2", "eval.json");
}

// The run's state, its exported adapter: the same values, hence the same samples.
TEST(an_exported_adapter_is_the_run_s) {
    char words[1024];
    size_t len, again;
    CHECK(have_run());
    CHECK(evaluate(""));
    char *one = slurp("eval.json", &len);
    snprintf(words, sizeof words, "ckpt export %s/run/ckpt/step-000006.tar --peft %s/peft",
             folder(), folder());
    CHECK(vader(words));
    snprintf(words, sizeof words, "--lora %s/peft", folder());
    CHECK(evaluate(words));
    char *two = slurp("eval.json", &again);
    CHECK(strstr(one, "\"updates\": 6,"));
    // what is in front names the adapter
    check_texts(strstr(one, "\"images\""), strstr(two, "\"images\""));
    CHECK(strstr(two, "/peft\"") && !strstr(two, "\"updates\""));
    free(one);
    free(two);
}

// Half of the images and seeds: those that are left have the noise they had.
TEST(samples_do_not_depend_on_each_other) {
    Read all, some;
    CHECK(have_run());
    CHECK(evaluate(""));
    CHECK_OK(read_eval(&all));
    CHECK(
        evaluate("eval.seeds=2 eval.images=tests/data/pictures/hills.png eval.real= eval.vjepa="));
    CHECK_OK(read_eval(&some));
    CHECK_EQ(some.sample_cnt, 2);
    for (int i = 0; i < 2; i++)
        for (int m = 0; m < some.metric_cnt; m++)
            if (strcmp(some.name[m], "diversity"))
                CHECK_NEAR(number(some.sample[i], "tuned", some.name[m]),
                           number(all.sample[i], "tuned", some.name[m]), 0);
    CHECK_EQ(json_kind(some.json, "headroom"), JSON_KIND_ABSENT);
    CHECK_EQ(json_kind(some.summary, "vjepa_loss"), JSON_KIND_ABSENT);
    json_close(all.json);
    json_close(some.json);
}

// ---- No number ----

// An image encoder that embeds everything as zeros: the cosine of neighbouring frames is no number.
TEST(what_is_no_number_is_an_error) {
    char command[1024], path[512], words[600];
    Safetensors *file;
    CHECK(have_run());
    snprintf(command, sizeof command, "cp -r tests/data/tiny-svd %s/zero && chmod -R u+w %s/zero",
             folder(), folder());
    CHECK(!system(command));
    snprintf(path, sizeof path, "%s/zero/image_encoder/model.safetensors", folder());
    CHECK_OK(safetensors_open(&file, path));
    const SafetensorsEntry *e = safetensors_find(file, "visual_projection.weight");
    CHECK(e);
    FILE *f = fopen(path, "r+b");
    CHECK(f);
    char *all = malloc(1 << 20), *at = memmem(all, fread(all, 1, 1 << 20, f), e->data, e->bytes);
    CHECK(at);
    memset(at, 0, e->bytes);
    fseek(f, at - all, SEEK_SET);
    CHECK_EQ(fwrite(at, 1, e->bytes, f), e->bytes);
    fclose(f);
    safetensors_close(file);
    free(all);
    snprintf(words, sizeof words, "model=%s/zero", folder());
    CHECK(!evaluate(words));
    snprintf(command, sizeof command, "grep -q 'base video: consistency is NaN' %s/out", folder());
    CHECK(!system(command));
}
