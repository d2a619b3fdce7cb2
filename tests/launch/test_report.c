// `vader report` on run directories made by hand: partial, hostile, damaged, large; and the verdict's limits.
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/base/strbuf.h"
#include "common/format/media.h"
#include "common/proc/recorder.h"
#include "tests/test.h"

static Arena arena;
static char dir[300], *page;

// ---- Run directories ----

static const char *at(const char *name) { return arena_printf(&arena, "%s/%s", dir, name); }

static void put(const char *name, const char *text) {
    FILE *f = fopen(at(name), "wb");
    die_unless(f, "%s cannot be written", at(name));
    fputs(text, f);
    die_unless(!fclose(f), "%s cannot be written", at(name));
}

// What a run has from its first moment on. more: further lines of config.yaml.
static void new_run(const char *more) {
    snprintf(dir, sizeof dir, "%s/run.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    die_unless(mkdtemp(dir), "no temporary folder");
    put("lock", "");
    put("config.yaml", arena_printf(&arena,
                                    "model: tests/data/tiny-svd\ndata.images: [a.png]\n"
                                    "video: {frames: 4, width: 32, height: 32}\nsampler.steps: 6\n"
                                    "optim: {updates: 9, rollouts: 2}\n%s",
                                    more));
}

#define DRIFT "reward: [{model: videomae, path: p, class: drift}]\n"

static void put_metrics(int cnt) {
    StrBuf b = {0};
    for (int i = 1; i <= cnt; i++)
        strbuf_printf(
            &b,
            "{\"update\": %d, \"samples\": [0, 1], \"reward\": %.17g, \"videomae.0\": 1, "
            "\"window\": 3, \"gain\": 0.5, \"grad_x0\": 1, \"grad_norm\": %g, \"clip\": 1, "
            "\"theta_norm\": 1, \"lr\": 1, \"saturated\": 0}\n",
            i, i % 7 + 0.001 * i, i == 4321 ? 500.0 : 2.0);
    put("metrics.jsonl", strbuf_text(&b));
    strbuf_fini(&b);
}

// A video and its sheet, as encoders of vader leave them.
static void put_video(const char *name) {
    MediaClip clip = {.frames = 4, .height = 32, .width = 64}, sheet = {0};
    clip.rgb = calloc(4 * 32 * 64, 3);
    for (int i = 0; i < 4 * 32 * 64 * 3; i++) clip.rgb[i] = (uint8_t)(i * 7 + i / 999);
    media_sheet(&sheet, &clip, 4);
    die_unless(!media_write_mp4(at(arena_printf(&arena, "%s.mp4", name)), &clip, 7) &&
                   !media_write_png(at(arena_printf(&arena, "%s.png", name)), &sheet),
               "%s", err_text());
    media_clip_fini(&clip);
    media_clip_fini(&sheet);
}

typedef struct Pair {
    const char *name;
    double base, tuned, spread;
    const char *kept; // as eval.json says it, or NULL
} Pair;

// eval.json with these metrics and samples; both lists as JSON texts come from the caller.
static void put_eval(const Pair *pair, int cnt, const char *samples, const char *more) {
    StrBuf b = {0};
    strbuf_add(&b, "{\"version\": 1, \"updates\": 9, \"adapter\": \"a\", \"target\": \"drift\", "
                   "\"images\": [\"x.png\"], \"seeds\": 2, \"fps\": 7, \"metrics\": [");
    for (int i = 0; i < cnt; i++)
        strbuf_printf(
            &b, "%s{\"name\": \"%s\", \"unit\": \"u\", \"better\": \"up\", \"about\": \"z\"%s}",
            i ? "," : "", pair[i].name, pair[i].kept ? pair[i].kept : "");
    strbuf_printf(&b, "], \"samples\": [%s], \"summary\": {", samples);
    for (int i = 0; i < cnt; i++) {
        const Pair *p = &pair[i];
        const double mean[] = {p->base, p->tuned, p->tuned - p->base};
        static const char *const who[] = {"base", "tuned", "difference"};
        strbuf_printf(&b, "%s\"%s\": {", i ? "," : "", p->name);
        for (int k = 0; k < 3; k++)
            strbuf_printf(&b, "%s\"%s\": {\"mean\": %g, \"low\": %g, \"high\": %g}", k ? "," : "",
                          who[k], mean[k], mean[k] - p->spread, mean[k] + p->spread);
        strbuf_add(&b, "}");
    }
    strbuf_printf(&b, "}%s}", more);
    put("eval.json", strbuf_text(&b));
    strbuf_fini(&b);
}

// ---- Pages ----

#define SAYS(part) CHECK_MSG(page &&strstr(page, (part)), "the page does not say: %s", (part))

static int report(void) {
    char command[1024];
    const char *vader = getenv("VADER");
    snprintf(command, sizeof command, "%s report %s >%s/out 2>&1", vader ? vader : "./vader", dir,
             dir);
    int rc = system(command);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

static char *load(const char *name) {
    StrBuf b = {0};
    char part[65536];
    FILE *f = fopen(at(name), "rb");
    for (size_t n; f && (n = fread(part, 1, sizeof part, f)) > 0;) strbuf_add_bytes(&b, part, n);
    if (f) fclose(f);
    return strbuf_take(&b);
}

static int count(const char *what) {
    int n = 0;
    for (const char *s = page; (s = strstr(s, what)); s += strlen(what)) n++;
    return n;
}

static bool is_entity(const char *s) {
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&#160;"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(s, known[i], strlen(known[i]))) return true;
    return false;
}

// One tag at s, which begins with '<'. Checks attributes; what is loaded must lie in the page. Returns its end.
static const char *check_tag(const char *s, char name[32], bool *empty) {
    size_t n = strcspn(s + 1, " >/\n");
    die_unless(n && n < 32, "a name of %zu bytes in a tag", n);
    snprintf(name, 32, "%.*s", (int)n, s + 1);
    s += n + 1;
    while (*s && *s != '>' && *s != '/') {
        s += strspn(s, " \n");
        size_t len = strcspn(s, "= >/\n");
        char attribute[40];
        snprintf(attribute, sizeof attribute, "%.*s", (int)len, s);
        s += len;
        if (!len) break;
        if (strncmp(s, "=\"", 2)) return TEST_FAIL("<%s %s> is not quoted", name, attribute), NULL;
        s += 2;
        static const char *const loads[] = {"src", "href", "poster", "data", "action", "srcset"};
        for (int i = 0; i < 6; i++)
            if (!strcmp(attribute, loads[i]) && strncmp(s, "data:", 5))
                return TEST_FAIL("<%s %s> loads %.60s", name, attribute, s), NULL;
        if (!strncmp(attribute, "on", 2))
            return TEST_FAIL("<%s %s> is a script", name, attribute), NULL;
        for (; *s != '"'; s++)
            if (!*s || *s == '<' || (*s == '&' && !is_entity(s)))
                return TEST_FAIL("<%s %s>: %.60s", name, attribute, s), NULL;
        s++;
    }
    *empty = *s == '/';
    s += *empty;
    if (*s != '>') return TEST_FAIL("<%s> has no end: %.60s", name, s), NULL;
    return s + 1;
}

// Tags are balanced, attributes quoted, text escaped; nothing outside is named as a source.
static void check_page(void) {
    char open[64][32];
    int depth = 0;
    bool empty;
    CHECK_MSG(!strncmp(page, "<!DOCTYPE html>\n", 16), "no page: %.60s", page);
    for (const char *s = page + 16; *s;) {
        if (*s != '<') {
            CHECK_MSG(*s != '&' || is_entity(s), "an entity: %.60s", s);
            s++;
            continue;
        }
        if (s[1] == '/') {
            size_t n = strcspn(s + 2, ">");
            CHECK_MSG(depth && strlen(open[depth - 1]) == n && !memcmp(open[depth - 1], s + 2, n),
                      "%.40s closes <%s>", s, depth ? open[depth - 1] : "nothing");
            depth--;
            s += n + 3;
            continue;
        }
        CHECK(depth < 64);
        s = check_tag(s, open[depth], &empty);
        if (!s) return;
        depth += !empty;
    }
    CHECK_EQ(depth, 0);
    CHECK(!strstr(page, "@import") && !strstr(page, "url(") && !strstr(page, "http:") &&
          !strstr(page, "https:"));
}

static char *said; // by the last report

static void run_report(int status) {
    free(said);
    int rc = report();
    said = load("out");
    CHECK_MSG(rc == status, "status %d, want %d: %s", rc, status, said);
}

static void make_page(void) {
    free(page);
    page = NULL;
    run_report(0);
    if (test_failed()) return;
    page = load("report.html");
    check_page();
}

static void refused(int status, const char *part) {
    run_report(status);
    CHECK_HAS(said, part);
}

// ---- Tests ----

static const char *const sections[] = {"videos", "verdict",  "reward",   "norms",
                                       "window", "classes",  "headroom", "stages",
                                       "memory", "settings", "use"};

TEST(a_run_that_has_just_begun) {
    new_run(DRIFT);
    make_page();
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        SAYS(arena_printf(&arena, "<section id=\"%s\">", sections[i]));
    SAYS("stopped before its end, 0 of 9 updates");
    CHECK_EQ(count("class=\"none\""), 11); // two of them in the stages; none in the settings
    SAYS("optim.updates: 9");
    CHECK(!strstr(page, "<figure"));
}

TEST(one_update) {
    new_run(DRIFT);
    put_metrics(1);
    put("timing.jsonl",
        "{\"update\": 1, \"seconds\": 4.5, \"processes\": {\"sampler.0\": {\"busy\": 1, \"input\": 2, "
        "\"room\": 1, \"housekeeping\": 0, \"peak_bytes\": 2500000000, \"restarts\": 3}}}\n"
        "{\"update\": 2, \"sec"); // being written
    make_page();
    SAYS("The reward of its rollouts was <b>1.00</b>");
    SAYS("restarted 3 times");
    SAYS("2.50 GB");
    SAYS("<td>25&#160;%</td><td>50&#160;%</td>");
    CHECK(!strstr(page, "moving mean over"));
}

TEST(what_came_in_stays_text) {
    new_run("reward: [{model: videomae, path: p, class: \"</code><script>alert(1)</script>\"}]\n");
    mkdir(at("eval"), 0700);
    put_video("eval/a");
    put_eval((Pair[]){{"reward", 1, 2, 0.1}, {"<b>&metric", 1, 2, 0.1}}, 2,
             "{\"image\": \"dir/\\\"><img src=x onerror=alert(1)>.png\", \"seed\": 0, "
             "\"video\": \"eval/a.mp4\", \"base\": {\"reward\": 1}, \"tuned\": {\"reward\": 2}}",
             ", \"classes\": {\"base\": {\"<i>\": 0.5}, \"tuned\": {\"<i>\": 1}}");
    make_page();
    CHECK_EQ(count("<script"), 1); // ours
    CHECK_EQ(count("<img"), 0);
    SAYS("&lt;/code&gt;&lt;script&gt;alert(1)");
    SAYS("&quot;&gt;&lt;img src=x onerror=alert(1)&gt;.png, seed 0");
    SAYS("&lt;b&gt;&amp;metric");
    CHECK_EQ(count("<video "), 1);
    SAYS("poster=\"data:image/png;base64,");
    SAYS("default-src 'none'");
}

TEST(videos_are_bounded_and_stay_inside) {
    StrBuf b = {0};
    static const char *const bad[] = {
        "secret.mp4",    "/etc/passwd",   "eval/../secret.mp4", "eval/sub/../../secret.mp4",
        "eval/link.mp4", "eval/text.mp4", "eval/absent.mp4",    "eval/.mp4"};
    new_run(DRIFT);
    mkdir(at("eval"), 0700);
    put_video("eval/good");
    mkdir(at("eval/sub"), 0700);
    put_video("secret"); // beside the run's videos, and behind a link
    CHECK(!symlink(at("secret.mp4"), at("eval/link.mp4")));
    put("eval/text.mp4", "not a video, though it is long enough");
    for (int i = 0; i < 8; i++)
        strbuf_printf(&b, "{\"image\": \"out-of-bounds-%d.png\", \"seed\": 0, \"video\": \"%s\"},",
                      i, bad[i]);
    for (int i = 0; i < 20; i++)
        strbuf_printf(&b, "%s{\"image\": \"i%d.png\", \"seed\": %d, \"video\": \"eval/good.mp4\"}",
                      i ? "," : "", i / 2, i % 2);
    put_eval((Pair[]){{"reward", 1, 2, 0.1}}, 1, strbuf_text(&b), "");
    strbuf_fini(&b);
    make_page();
    CHECK_EQ(count("<video "), 12);
    CHECK_EQ(count("out-of-bounds"), 0); // letters that no hash or encoded video can hold
    CHECK_EQ(count("<summary>More videos</summary>"), 1); // the second half
    SAYS("12 of 28 videos are shown; 16 are left out");
    SAYS("i9.png, seed 0"); // first seeds first
    SAYS("i1.png, seed 1");
    CHECK(!strstr(page, "i2.png, seed 1"));
}

TEST(previews_stand_in_for_an_evaluation) {
    new_run(DRIFT);
    mkdir(at("previews"), 0700);
    put_video("previews/step-000000-0");
    put_video("previews/step-000005-1");
    put_video("previews/step-000005-0");
    make_page();
    CHECK_EQ(count("<video "), 2);
    CHECK_EQ(count("after 5 updates"), 2);
    CHECK_EQ(count("class=\"frame beside\""), 2); // 64 pixels wide, base and tuned
    CHECK(strstr(page, "Preview 0") < strstr(page, "Preview 1"));
}

#define AT_LEAST(share) ", \"kept\": {\"sign\": \"that\", \"least\": " share "}"
#define AT_MOST(share) ", \"kept\": {\"sign\": \"that\", \"least\": 0.0, \"most\": " share "}"

static void verdict(double motion, double diversity, double sharpness, double reward) {
    new_run(DRIFT);
    put_eval((Pair[]){{"motion", 2, 2 * motion, 0.1, AT_LEAST("0.7")},
                      {"reward", 1, reward, 0.1},
                      {"diversity", 4, 4 * diversity, 0.1, AT_LEAST("0.7")},
                      {"sharpness", 8, 8 * sharpness, 0.1, AT_LEAST("0.8")}},
             4, "", "");
    make_page();
}

static void verdict_of_colours(double contrast, double chroma) {
    new_run(DRIFT);
    put_eval((Pair[]){{"reward", 1, 2, 0.1},
                      {"contrast", 2, 2 * contrast, 0.1, AT_MOST("1.4")},
                      {"chroma", 4, 4 * chroma, 0.1, AT_MOST("1.4")}},
             3, "", "");
    make_page();
}

TEST(a_reward_that_was_bought_is_called_so) {
    verdict(0.71, 0.71, 0.81, 2);
    SAYS("no sign of reward hacking");
    CHECK_EQ(count("Caution"), 0);
    verdict(0.69, 1, 1, 2);
    SAYS("motion fell to 69 % of the base");
    CHECK_EQ(count("Caution"), 1);
    verdict(1, 0.69, 1, 2);
    SAYS("diversity fell to 69 % of the base");
    verdict(1, 1, 0.79, 2);
    SAYS("sharpness fell to 79 % of the base");
    verdict_of_colours(1.41, 1.39);
    SAYS("contrast rose to 141 % of the base");
    CHECK_EQ(count("Caution"), 1);
    CHECK_EQ(count("class=\"short\""), 1);
    CHECK_EQ(count("class=\"enough\""), 1);
    verdict_of_colours(0.5, 1.41);
    SAYS("chroma rose to 141 % of the base");
    CHECK_EQ(count("Caution"), 1);
    verdict(0.5, 0.5, 0.5, 2);
    CHECK_EQ(count("Caution"), 3);
    CHECK(!strstr(page, "no sign of reward hacking"));
    verdict(0.5, 0.5, 0.5, 0.5); // nothing was gained by it
    CHECK_EQ(count("Caution"), 0);
    SAYS("The reward fell.");
    verdict(1, 1, 1, 1.05);
    SAYS("may be chance");
    CHECK(!strstr(page, "no sign of reward hacking"));
    CHECK(strstr(page, ">reward ↑<") < strstr(page, ">motion ↑<")); // whatever the file's order
}

TEST(classes_and_headroom) {
    new_run(DRIFT);
    put_eval(
        (Pair[]){{"reward", 1, 2, 0.1}, {"vjepa_loss", 0.5, 0.35, 0.01}}, 2, "",
        ", \"classes\": {\"base\": {\"drift\": 0.25, \"still\": 0.75}, \"tuned\": {\"drift\": 1, "
        "\"still\": 0}}, \"headroom\": {\"base\": {\"mean\": 0.5, \"low\": 0.4, \"high\": 0.6}, "
        "\"real\": {\"mean\": 0.3, \"low\": 0.2, \"high\": 0.4}, "
        "\"frozen\": {\"mean\": 0.2, \"low\": 0.1, \"high\": 0.3}}");
    make_page();
    SAYS("drift<small>rewarded</small>");
    SAYS("<td>25 %</td><td>100 %</td>");
    SAYS("closed <b>75 %</b> of the gap");
    SAYS("A frozen picture has a lower loss");
    CHECK_EQ(count("class=\"whisker\""), 4);
    const char *real = strstr(page, ">real</th>"),
               *base = strstr(page, ">base</th><td class=\"bar\">");
    CHECK(real && base && real < base);
}

// Points of the path that begins at s.
static int points(const char *s) {
    int n = 0;
    for (s = strstr(s, " d=\"") + 4; *s != '"'; s++) n += *s == 'M' || *s == 'L';
    return n;
}

TEST(long_runs_are_thinned_out) {
    new_run(DRIFT);
    put_metrics(5000);
    make_page();
    const char *dots = strstr(page, "data-name=\"reward\"");
    CHECK(dots);
    CHECK_EQ(points(dots), 1667); // threes
    SAYS("a point is the mean of 3 updates");
    SAYS("moving mean over 501 updates");
    CHECK_EQ(points(strstr(page, "data-name=\"moving mean\"")), 1667);
    // One spike of 500 among gradients of 2 must be seen: a logarithmic axis, and the range behind the means.
    const char *norm = strstr(page, "aria-label=\"gradient norm");
    CHECK(norm);
    const char *end = strstr(norm, "</svg>"), *log = strstr(norm, "data-log=\"\""),
               *range = strstr(norm, "class=\"range soft\"");
    CHECK(log && log < end && range && range < end);
    CHECK(strlen(page) < 3 << 20);
}

TEST(a_mix_shows_its_terms_and_a_moving_window_moves) {
    new_run(
        "window: {at: random, range: [0, 4]}\nreward: [{model: videomae, path: p, class: drift}, "
        "{model: aesthetic, path: p, head: h, form: score, weight: 0.25}]\n");
    put("metrics.jsonl", "{\"update\": 1, \"reward\": 1, \"videomae.0\": 2, \"aesthetic.1\": 3, "
                         "\"window\": 2.5, \"gain\": 0.5, \"grad_norm\": 1, \"saturated\": 0}\n"
                         "{\"update\": 2, \"reward\": 2, \"videomae.0\": 2, \"aesthetic.1\": 3, "
                         "\"window\": 1.5, \"gain\": 0.4, \"grad_norm\": 1, \"saturated\": 0}\n");
    make_page();
    SAYS("The term videomae.0 before its weight, 1.00.");
    SAYS("The term aesthetic.1 before its weight, 0.250.");
    SAYS("0.25 × the LAION aesthetic score");
    SAYS("It was drawn for each rollout, from step 0 to 4.");
    SAYS("data-name=\"gain\"");
}

TEST(a_loss_counts_against_the_reward) {
    new_run("reward: [{model: vjepa, path: p, form: score}, {model: first_frame, form: score, "
            "weight: 20}, {model: videomae, path: p, class: drift, weight: -2}, {model: aesthetic, "
            "path: p, head: h, form: abs_target, weight: -1}]\noptim: {lr: 0.01, half_life: 30}\n");
    make_page();
    SAYS("<b>minus V-JEPA’s prediction loss − 20 × the first frame’s squared error − 2 × "
         "VideoMAE’s log p(“drift”) + 0.100·|the LAION aesthetic score − 10.0|</b>");
    SAYS("learning rate 0.01, halved every 30 updates, seed");
}

// Two processes, four updates of one second: the sampler works half of each second, the learner all of it.
static void put_spans(void) {
    char magic[16] = "VADspans 1\n";
    FILE *f = fopen(at("spans.bin"), "wb");
    const int64_t s = 1000000000;
    fwrite(magic, 1, sizeof magic, f);
    fwrite(&(RecorderSpan){.start_ns = s, .end_ns = s, .sample = 2, .stage = RECORDER_SESSION},
           sizeof(RecorderSpan), 1, f);
    for (int i = 0; i < 4; i++) {
        int64_t t = (10 + i) * s;
        RecorderSpan of[] = {
            {t, t + s / 2, (uint64_t)(2 * i), STAGE_SAMPLER, 0, STEP_SAMPLE, 0, 0, 0},
            {t, t + 9 * s / 10, (uint64_t)(2 * i), STAGE_LEARNER, 0, STEP_LEARN, 0, 0, 0},
            {t + 9 * s / 10, t + s, (uint64_t)i, STAGE_LEARNER, 0, STEP_CNT, 0, 0, 0}};
        fwrite(of, sizeof *of, 3, f);
    }
    fclose(f);
}

TEST(the_timeline_shows_whole_updates) {
    new_run(DRIFT);
    put_spans();
    make_page();
    CHECK_HAS(page,
              "On average <b>1.50</b> processes worked at once. The learner bounds the run: it was "
              "busy 100 % of the time.");
    SAYS("from the start to the end of update 3"); // the middle three of four
    CHECK_EQ(count("<title>sample.0 of sample"), 3);
    CHECK_EQ(count("<title>learn.0 of sample"), 3);
    SAYS("<title>update 1, 100 ms</title>");
    SAYS("<title>learn.0 of sample 4, update 3, 900 ms</title>");
    SAYS("sample <small>500 ms</small>");
}

TEST(damage_is_named) {
    new_run(DRIFT);
    put("metrics.jsonl", "{\"update\": 1}\n{\"update\": tw\n{\"update\": 3}\n");
    refused(1, "metrics.jsonl:2");
    put_metrics(1);
    put("eval.json", "{\"version\": 2}");
    refused(1, "eval.json: version 2, want 1");
    put("eval.json",
        "{\"version\": 1, \"updates\": 1, \"seeds\": 1, \"images\": [], \"samples\": 7}");
    refused(1, "samples");
    unlink(at("eval.json"));
    put("spans.bin", "something else altogether");
    refused(1, "not the spans");
    unlink(at("spans.bin"));
    put("config.yaml", "model: m\nvideo.frame: 3\n");
    refused(2, "did you mean video.frames");
    unlink(at("lock"));
    refused(2, "no run there");
    CHECK(access(at("report.html"), F_OK)); // nothing half made
}
