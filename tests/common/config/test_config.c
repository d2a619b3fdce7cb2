// Configs: what is read, what is refused and with which words, and that writing and reading are inverse.
#include "common/config/config.h"

#include <dirent.h>
#include <unistd.h>

#include "tests/test.h"

#define BASE                                        \
    "model: m\n"                                    \
    "data.images: [a.png, sub/b.png, /abs/c.png]\n" \
    "reward:\n"                                     \
    "  - {model: videomae, path: vm, class: \"two\"}\n"

static Config *cfg;

static Err load_with(const char *text, int set_cnt, const char *const *set) {
    config_free(cfg);
    cfg = NULL;
    return config_load_text(&cfg, "x.yaml", "/tmp", text, strlen(text), set_cnt, set);
}

static Err load(const char *text) { return load_with(text, 0, NULL); }

static Err set(const char *word) { return load_with(BASE, 1, &word); }

TEST(defaults_and_values) {
    CHECK_OK(load(BASE));
    CHECK_EQ(cfg->steps, 25);
    CHECK_NEAR(cfg->lr, 2e-4, 0);
    CHECK(cfg->recompute && !cfg->exact);
    CHECK_STR(cfg->window_steps, "1");
    CHECK_EQ(cfg->reward_cnt, 1);
    CHECK_EQ(cfg->reward[0].model, CONFIG_REWARD_VIDEOMAE);
    CHECK_STR(cfg->reward[0].label, "two");
    CHECK_NEAR(cfg->reward[0].weight, 1, 0);
    CHECK_EQ(cfg->lora_targets.cnt, 0);
    CHECK_EQ(cfg->window_range.cnt, 0);
}

TEST(nested_and_dotted_keys_are_the_same) {
    CHECK_OK(load(BASE "video:\n  frames: 6\noptim: {lr: 1e-3, lag: 2}\nwindow.at: gain\n"));
    CHECK_EQ(cfg->frames, 6);
    CHECK_EQ(cfg->lag, 2);
    CHECK_NEAR(cfg->lr, 1e-3, 0);
    CHECK_STR(cfg->window_at, "gain");
}

TEST(paths_become_absolute) {
    char cwd[4096], want[4200];
    CHECK(getcwd(cwd, sizeof cwd));
    const char *words[] = {"model=here/m", "lora.init="};
    CHECK_OK(load_with(BASE, 2, words));
    snprintf(want, sizeof want, "%s/here/m", cwd);
    CHECK_STR(cfg->model, want); // the command line: from where we are
    CHECK_EQ(cfg->data_images.cnt, 3);
    CHECK_STR(cfg->data_images.item[1], "/tmp/sub/b.png"); // the file: from its folder
    CHECK_STR(cfg->data_images.item[2], "/abs/c.png");
    CHECK_STR(cfg->reward[0].path, "/tmp/vm");
    CHECK_STR(cfg->lora_init, ""); // empty stays empty
    CHECK_OK(
        load(BASE "eval: {images: [a.png], real: [a.mp4], vjepa: v}\npreview.images: [b.png]\n"));
    CHECK_STR(cfg->eval_images.item[0], "/tmp/a.png");
    CHECK_STR(cfg->eval_real.item[0], "/tmp/a.mp4");
    CHECK_STR(cfg->eval_vjepa, "/tmp/v");
    CHECK_STR(cfg->preview_images.item[0], "/tmp/b.png");
    CHECK_OK(load(BASE));
    CHECK_STR(cfg->reward[0].label, "two");
}

TEST(lists) {
    CHECK_OK(load(BASE "window: {at: random, range: [0, 7], steps: 2}\nlora.targets: [to_q]\n"));
    CHECK_EQ(cfg->window_range.cnt, 2);
    CHECK_EQ(cfg->window_range.item[1], 7);
    CHECK_STR(cfg->lora_targets.item[0], "to_q");
    CHECK_OK(load(BASE "lora.targets: to_v\n")); // one value is a list of one
    CHECK_EQ(cfg->lora_targets.cnt, 1);
    CHECK_OK(load(BASE "lora.targets: []\n"));
    CHECK_EQ(cfg->lora_targets.cnt, 0);
    CHECK_OK(load(BASE "lora.targets:\n- to_q\n- to_k\n"));
    CHECK_EQ(cfg->lora_targets.cnt, 2);
    CHECK_OK(set("window.range=[3, 4]"));
    CHECK_EQ(cfg->window_range.cnt, 2);
    CHECK_EQ(cfg->window_range.item[1], 4);
    CHECK_OK(set("lora.targets=[to_q,to_k]"));
    CHECK_STR(cfg->lora_targets.item[1], "to_k");
    CHECK_OK(set("lora.targets=[\"to_q\", 'to_k, too']"));
    CHECK_EQ(cfg->lora_targets.cnt, 2);
    CHECK_STR(cfg->lora_targets.item[0], "to_q");
    CHECK_STR(cfg->lora_targets.item[1], "to_k, too");
    CHECK_ERR(set("lora.targets=[\"to_q]"), ERR_USAGE, "command line: lora.targets:1: not YAML");
    CHECK_ERR(set("lora.targets=[a] b]"), ERR_USAGE, "command line: lora.targets:1: not YAML");
    CHECK_ERR(set("lora.targets=[a]\n---\n[b]"), ERR_USAGE, "want one list");
    CHECK_ERR(set("lora.targets=[[a]]"), ERR_USAGE, "plain values");
    CHECK_ERR(set("lora.targets=[{a: b}]"), ERR_USAGE, "plain values");
    CHECK_ERR(set("lora.targets=[{a: [b]}]"), ERR_USAGE,
              "command line: lora.targets: want plain values");
    CHECK_OK(set("lora.targets=[]"));
    CHECK_EQ(cfg->lora_targets.cnt, 0);
    CHECK_OK(set("lora.targets=["));
    CHECK_STR(cfg->lora_targets.item[0], "[");
    CHECK_ERR(set("video.frames=[1]"), ERR_USAGE, "takes one value, not a list");
    CHECK_ERR(load(BASE "video.frames: [1, 2]\n"), ERR_USAGE, "takes one value, not a list");
    CHECK_ERR(load(BASE "window.range: [1, x]\n"), ERR_USAGE, "\"x\", want a whole number");
    CHECK_ERR(load(BASE "lora.targets: [[a]]\n"), ERR_USAGE, "plain values");
    CHECK_ERR(load(BASE "lora.targets: [a, {b: c}]\n"), ERR_USAGE, "plain values");
}

TEST(rewards) {
    CHECK_OK(load("model: m\ndata.images: [a]\nreward:\n"
                  "  - model: vjepa\n    path: j\n    form: score\n    weight: -0.5\n"
                  "  - {model: aesthetic, path: c, head: h, form: abs_target, target: 7}\n"));
    CHECK_EQ(cfg->reward_cnt, 2);
    CHECK_EQ(cfg->reward[1].form, CONFIG_FORM_ABS_TARGET);
    CHECK_NEAR(cfg->reward[0].weight, -0.5, 0);
    CHECK_NEAR(cfg->reward[1].target, 7, 0);
    CHECK_OK(set("reward.0.weight=3"));
    CHECK_NEAR(cfg->reward[0].weight, 3, 0);
    const char *second[] = {"reward.1.model=vjepa", "reward.1.form=score", "reward.1.path=j"};
    CHECK_OK(load_with(BASE, 3, second));
    CHECK_EQ(cfg->reward_cnt, 2);
    CHECK_ERR(set("reward.2.weight=3"), ERR_USAGE, "there are 1 rewards");
    CHECK_ERR(set("reward.-1.weight=3"), ERR_USAGE, "there are 1 rewards");
    CHECK_ERR(set("reward.weight=3"), ERR_USAGE, "reward.0.weight=1");
    CHECK_ERR(set("reward.0.wieght=3"), ERR_USAGE, "did you mean reward.0.weight");
    CHECK_ERR(load(BASE "  - {modle: vjepa}\n"), ERR_USAGE, "did you mean reward.1.model");
}

TEST(an_unknown_key_names_line_and_nearest) {
    CHECK_ERR(load(BASE "video:\n  frame: 6\n"), ERR_USAGE,
              "x.yaml:6: unknown key video.frame, did you mean video.frames?");
    CHECK_ERR(set("optim.larning_rate=1"), ERR_USAGE, "command line: unknown key");
    CHECK_ERR(load(BASE "nonsense: 1\n"), ERR_USAGE, "x.yaml:5: unknown key nonsense");
    CHECK_ERR(load(BASE "video: 6\n"), ERR_USAGE, "x.yaml:5: unknown key video");
    CHECK_ERR(load(BASE "video.frames:\n  x: 1\n"), ERR_USAGE, "unknown key video.frames.x");
}

TEST(bounds_and_types) {
    CHECK_ERR(load(BASE "optim.lr: 20\n"), ERR_USAGE, "x.yaml:5: optim.lr is 20, want 0 to 10");
    CHECK_ERR(set("video.frames=0"), ERR_USAGE, "want 1 to 1024");
    CHECK_ERR(set("video.frames=4.5"), ERR_USAGE, "want a whole number");
    CHECK_ERR(set("video.frames=99999999999999999999"), ERR_USAGE, "want a whole number");
    CHECK_ERR(set("optim.lr=nan"), ERR_USAGE, "want a number");
    CHECK_ERR(set("optim.lr=inf"), ERR_USAGE, "want a number");
    CHECK_ERR(set("optim.lr="), ERR_USAGE, "want a number");
    CHECK_ERR(set("exact=maybe"), ERR_USAGE, "want true or false");
    CHECK_ERR(set("video.seam=drop"), ERR_USAGE, "want keep|drop_first");
    CHECK_ERR(set("video.seam=kee"), ERR_USAGE, "want keep|drop_first");
    CHECK_ERR(set("no equals sign"), ERR_USAGE, "want key=value");
    CHECK_OK(set("exact=on"));
    CHECK(cfg->exact);
    CHECK_OK(set("seed=9223372036854775807"));
    CHECK_EQ(cfg->seed, INT64_MAX);
    CHECK_ERR(set("seed=-1"), ERR_USAGE, "seed is -1");
}

TEST(yaml_that_is_not_ours) {
    CHECK_ERR(load("model: [a\n"), ERR_USAGE, "not YAML");
    CHECK_ERR(load(BASE "a: &x 1\nb: *x\n"), ERR_USAGE, "x.yaml:6: aliases");
    CHECK_ERR(load("just words\n"), ERR_USAGE, "want `key: value` lines");
    CHECK_ERR(load("- a\n- b\n"), ERR_USAGE, "want `key: value` lines");
    CHECK_ERR(load(BASE "seed: 1\nseed: 2\n"), ERR_USAGE,
              "x.yaml:6: seed is given twice, first on line 5");
    CHECK_ERR(load(BASE "video: {frames: 3}\nvideo.frames: 4\n"), ERR_USAGE, "given twice");
    CHECK_ERR(load(BASE "? [a]\n: 1\n"), ERR_USAGE, "want a key");
    CHECK_ERR(load("a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}\n"), ERR_USAGE, "want a key");
    CHECK_ERR(load(""), ERR_USAGE, "model is missing");
    CHECK_ERR(load("\x01\x02"), ERR_USAGE, "not YAML");
    CHECK_ERR(config_load(&cfg, "no/such.yaml", 0, NULL), ERR_USAGE, "no/such.yaml");
    cfg = NULL;
}

TEST(what_keys_mean_together) {
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"video.cross_segment_gradient: true", "is not built"},
        {"video.handover: sampler", "lag of at least 1"},
        {"guidance: {min: 0.5, max: 1}", "guidance is off"},
        {"guidance: {min: 4, max: 2}", "is above guidance.max"},
        {"decode.chunk: 15", "above video.frames"},
        {"video: {seam: drop_first, frames: 1}", "at least 2 frames"},
        {"window.steps: some", "number of steps or to_end"},
        {"window.steps: 0", "number of steps or to_end"},
        {"window.steps: 26", "past the last"},
        {"window.at: somewhere", "last, gain, random or an index"},
        {"window.at: 25", "past the last"},
        {"window: {at: 24, steps: 2}", "past the last"},
        {"window.at: random", "[lowest, highest]"},
        {"window: {at: random, range: [5, 4]}", "[lowest, highest]"},
        {"window: {at: random, range: [5, 25]}", "past the last"},
        {"decode.grad_frames: window 15", "window n"},
        {"decode.grad_frames: random 1", "needs a video"},
        {"decode.grad_frames: odd", "random 1 or alt"},
        {"vjepa.windows: slide", "seam, linspace or slide n"},
        {"vjepa.gradient: segmented", "at least 2 segments"},
        {"vjepa: {gradient: segmented, windows: linspace}", "in order"},
        {"data.list: l.txt", "not both"},
        {"eval: {images: [a.png], list: l.txt}", "eval.images or eval.list, not both"},
        {"eval: {images: [a.png], real: [a.mp4]}", "eval.vjepa is missing"},
        {"eval: {images: [a.png, b.png], real: [a.mp4], vjepa: v}", "want one for each"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[512];
        snprintf(text, sizeof text, "%s%s\n", BASE, bad[i].text);
        CHECK_ERR(load(text), ERR_USAGE, bad[i].words);
    }
    CHECK_ERR(load("model: m\nreward: [{model: videomae, path: p, class: a}]\n"), ERR_USAGE,
              "no images");
    CHECK_OK(load("model: m\ndata.images: [a]\n")); // no reward: enough for a preview
    CHECK_ERR(load("model: m\ndata.images: [a]\nreward: [{model: videomae, class: a}]\n"),
              ERR_USAGE, "reward.0.path is missing");
    CHECK_ERR(load("model: m\ndata.images: [a]\nreward: [{model: videomae, path: p}]\n"), ERR_USAGE,
              "reward.0.class is missing");
    CHECK_ERR(load("model: m\ndata.images: [a]\nreward: [{model: vjepa, path: p}]\n"), ERR_USAGE,
              "reward.0.form");
    CHECK_ERR(
        load("model: m\ndata.images: [a]\nreward: [{model: aesthetic, path: p, form: score}]\n"),
        ERR_USAGE, "reward.0.head is missing");
    CHECK_OK(load("model: m\ndata.images: [a]\nreward: [{model: first_frame, form: score}]\n"));
    CHECK_ERR(
        load("model: m\ndata.images: [a]\nreward: [{model: first_frame, path: p, form: score}]\n"),
        ERR_USAGE, "first_frame reads no model");
    CHECK_ERR(load("model: m\ndata.images: [a]\ndecode.grad_frames: window 2\n"
                   "reward: [{model: first_frame, form: score}]\n"),
              ERR_USAGE, "may leave out the frame");
    CHECK_OK(load("model: m\ndata.images: [a]\nvideo.frames: 4\ndecode.grad_frames: window 4\n"
                  "reward: [{model: first_frame, form: score}]\n"));
    static const char *const unfit[] = {"model: first_frame",
                                        "model: vjepa, path: p, form: abs_target",
                                        "model: aesthetic, path: p, head: h, form: prob"};
    for (int i = 0; i < 3; i++) {
        char text[256];
        snprintf(text, sizeof text, "model: m\ndata.images: [a]\nreward: [{%s}]\n", unfit[i]);
        CHECK_ERR(load(text), ERR_USAGE, "want log_prob or prob for videomae, score or abs_target");
    }
}

// drop_first takes away the first frame of a segment, so that one must be there, and not be all.
TEST(seams_and_scored_frames) {
    static const struct {
        const char *scored;
        int frames;
        bool fine;
    } one[] = {{"all", 2, true},      {"all", 4, true},      {"alt", 3, true},
               {"alt", 2, false},     {"window 4", 4, true}, {"window 2", 4, false},
               {"random 1", 4, false}};
    for (size_t i = 0; i < sizeof one / sizeof *one; i++)
        for (int segments = 1; segments < 3; segments++) {
            char text[256];
            snprintf(text, sizeof text,
                     "model: m\ndata.images: [a]\nvideo.seam: drop_first\nvideo.segments: %d\n"
                     "video.frames: %d\ndecode.grad_frames: %s\n"
                     "reward: [{model: aesthetic, path: p, head: h, form: score}]\n",
                     segments, one[i].frames, one[i].scored);
            if (one[i].fine || segments == 1)
                CHECK_OK(load(text));
            else
                CHECK_ERR(load(text), ERR_USAGE, "want all, or alt of at least 3");
        }
}

// Metrics and evaluations are named as the file names the models.
TEST(names_of_rewards) {
    static const char *const name[] = {"videomae", "vjepa", "aesthetic", "first_frame"};
    CHECK_OK(load("model: m\ndata.images: [a]\nreward:\n"
                  "  - {model: videomae, path: p, class: a}\n"
                  "  - {model: vjepa, path: p, form: score}\n"
                  "  - {model: aesthetic, path: p, head: h, form: score}\n"
                  "  - {model: first_frame, form: score}\n"));
    CHECK_EQ(cfg->reward_cnt, 4);
    for (int i = 0; i < cfg->reward_cnt; i++)
        CHECK_STR(config_reward_name(&cfg->reward[i]), name[i]);
}

TEST(text_is_unicode) {
    CHECK_OK(set("model=m\xc3\xa4\xf0\x9f\x98\x80"));
    static const char *const bad[] = {"model=\xdf", "model=a\xc3", "model=\xc0\x80",
                                      "model=\xed\xa0\x80", "model=\xf5\x80\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_ERR(set(bad[i]), ERR_USAGE, "is not UTF-8");
    CHECK_ERR(set("lora.targets=[a,\xff]"), ERR_USAGE,
              "lora.targets:1: not YAML: invalid leading UTF-8");
}

static char *read_text(const char *path, size_t *len) {
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(path, "r");
    if (!f || !text) abort();
    *len = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    return text;
}

static char *written(const Config *c, bool docs) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f) return NULL;
    config_write(c, f, docs);
    fclose(f);
    return text;
}

TEST(writing_and_reading_are_inverse) {
    static const char *const configs[] = {
        BASE,
        BASE "seed: 9007199254740993\noptim: {lr: 0.1, eps: 1e-300}\ncond.fps: 7.25\n",
        BASE
        "window: {at: random, range: [1, 3]}\nlora.targets: ['it''s', \"a\\\"b\\\\c\", 'ä ü']\n",
        BASE
        "lora.targets: [\"\\x7f\\x01\\e\", \"\\u0080\\u0085\\ufeff\\u2028\\ufffe\\U0001f600\"]\n",
        "model: \"a b: c # d\"\ndata.images: [\"new\\nline\", \"tab\\t\", '- x', '*y', '&z']\n"
        "reward:\n  - {model: vjepa, path: 'x: y', form: score, weight: 0.1}\n"
        "  - {model: aesthetic, path: p, head: h, form: score, per_frame: sum}\n",
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        for (int docs = 0; docs < 2; docs++) {
            Arena arena = {0};
            Config *again = NULL;
            CHECK_OK(load(configs[i]));
            char *one = written(cfg, docs);
            CHECK_OK(config_load_text(&again, "again.yaml", "/", one, strlen(one), 0, NULL));
            char *two = written(again, docs);
            CHECK_STR(two, one);
            CHECK_STR(config_diff(cfg, again, &arena, false), "");
            CHECK(config_hash(cfg) == config_hash(again));
            free(one);
            free(two);
            config_free(again);
            arena_free(&arena);
        }
    }
}

TEST(docs_stand_before_every_key) {
    CHECK_OK(load(BASE));
    char *text = written(cfg, true), *rest = text, previous = 0;
    int keys = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        bool key = *line && *line != '#' && strncmp(line, "reward:", 7) && *line != ' ';
        if (key) CHECK_MSG(previous == '#', "no description before: %s", line);
        keys += key;
        previous = *line;
    }
    CHECK(keys > 60);
    free(text);
}

TEST(run_directories) {
    static const struct {
        const char *label, *run;
    } named[] = {{"a/b/my.conf.yaml", "runs/my.conf"}, {"x", "runs/x"}, {"a.b/x", "runs/x"}};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        Config *c;
        CHECK_OK(config_load_text(&c, named[i].label, "/", BASE, strlen(BASE), 0, NULL));
        CHECK_STR(config_run_dir(c), named[i].run);
        config_free(c);
    }
    CHECK_OK(set("run=/elsewhere"));
    CHECK_STR(config_run_dir(cfg), "/elsewhere");
}

// Configs that promise every key have every key, with its description as it is now.
TEST(commented_configs_are_complete) {
    int complete = 0;
    DIR *dir = opendir("launch/conf");
    CHECK(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        char path[300];
        size_t len;
        if (!strstr(e->d_name, ".yaml")) continue;
        snprintf(path, sizeof path, "launch/conf/%s", e->d_name);
        config_free(cfg);
        cfg = NULL;
        CHECK_OK(config_load(&cfg, path, 0, NULL));
        char *text = read_text(path, &len), *all = written(cfg, true), *rest = all, *about = NULL;
        bool promises = strstr(text, "# Every key is here") || strstr(text, "# ---- The run ----");
        complete += promises;
        for (char *line; promises && (line = strsep(&rest, "\n"));) {
            char key[128], *colon = strchr(line, ':');
            if (*line == '#') about = line;
            if (!*line || *line == '#' || *line == ' ' || !strncmp(line, "reward:", 7)) continue;
            snprintf(key, sizeof key, "\n%s\n%.*s: ", about, (int)(colon - line), line);
            CHECK_MSG(strstr(text, key), "%s: no%s", path, key);
        }
        free(text);
        free(all);
    }
    closedir(dir);
    CHECK(complete >= 4);
}

TEST(differences) {
    Arena arena = {0};
    Config *other = NULL;
    CHECK_OK(load(BASE));
    const char *words[] = {"optim.lr=0.001", "slots=9", "ckpt.every=7", "reward.0.weight=2"};
    CHECK_OK(config_load_text(&other, "y.yaml", "/tmp", BASE, strlen(BASE), 4, words));
    const char *all = config_diff(cfg, other, &arena, false);
    CHECK_HAS(all, "optim.lr: 0.00020000000000000001 -> 0.001");
    CHECK_HAS(all, "slots: 0 -> 9\n");
    CHECK_HAS(all, "reward.0.weight: 1 -> 2\n");
    const char *loose = config_diff(cfg, other, &arena, true);
    CHECK_HAS(loose, "optim.lr");
    CHECK(!strstr(loose, "slots") && !strstr(loose, "ckpt"));
    CHECK(config_hash(cfg) != config_hash(other));
    config_free(other);
    arena_free(&arena);
}

TEST(the_hash_sees_what_decides_numbers_and_nothing_else) {
    static const char *const same[] = {"run=elsewhere",
                                       "slots=3",
                                       "optim.updates=7",
                                       "stages.sampler.replicas=2",
                                       "stages.decoder.replicas=2",
                                       "stages.rewarder.replicas=2",
                                       "preview.every=3",
                                       "ckpt.every=1",
                                       "eval.images=x.png",
                                       "eval.seeds=9",
                                       "eval.lora_scale=2"};
    static const char *const other[] = {
        "seed=1",         "optim.lag=1", "stages.learner.threads=2", "reward.0.class=one",
        "window.at=gain", "exact=true",  "model=elsewhere",          "optim.rollouts=2"};
    CHECK_OK(load(BASE));
    uint64_t base = config_hash(cfg);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        CHECK_OK(set(same[i]));
        CHECK_MSG(config_hash(cfg) == base, "%s changes the hash", same[i]);
    }
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        CHECK_OK(set(other[i]));
        CHECK_MSG(config_hash(cfg) != base, "%s does not change the hash", other[i]);
    }
}

TEST(help) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    CHECK_OK(config_help("optim", f));
    CHECK_OK(config_help("reward", f));
    CHECK_ERR(config_help("optm.lr", f), ERR_USAGE, "did you mean optim.lr");
    fclose(f);
    CHECK_HAS(text, "optim.rollouts");
    CHECK_HAS(text, "reward.N.class");
    CHECK(!strstr(text, "sampler.steps"));
    free(text);
}

// Every file of a tree of mutations either loads or is refused: no crash (with sanitizers: no error).
TEST(mutated_texts) {
    static const char text[] = BASE "video: {frames: 6}\nwindow.range: [1, 2]\n";
    char copy[sizeof text];
    static const char bytes[] = "\0\n:{}[],\"'#&*-? \t\xff";
    for (size_t at = 0; at < sizeof text - 1; at++) {
        for (size_t b = 0; b < sizeof bytes; b++) {
            memcpy(copy, text, sizeof text);
            copy[at] = bytes[b];
            config_free(cfg);
            cfg = NULL;
            Err err = config_load_text(&cfg, "x.yaml", "/tmp", copy, sizeof text - 1, 0, NULL);
            CHECK_MSG(!err || err == ERR_USAGE, "byte %zu -> %02x: %s", at, bytes[b] & 0xff,
                      err_name(err));
        }
        config_free(cfg);
        cfg = NULL;
        (void)config_load_text(&cfg, "x.yaml", "/tmp", text, at, 0, NULL); // cut short
    }
}
