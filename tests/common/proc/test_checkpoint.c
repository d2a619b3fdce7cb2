// Checkpoints: when they are due, what is in them, and that a run made of one is the run that was.
#include "common/proc/checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/format/bundle.h"
#include "common/format/safetensors.h"
#include "tests/test.h"

static char dir[300];

static char *at(const char *name) {
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static void put(const char *name, const char *text) {
    FILE *f = fopen(at(name), "w");
    die_unless(f && fputs(text, f) >= 0 && !fclose(f), "cannot write %s", name);
}

static char *content(const char *path) {
    static char text[1 << 16];
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    return text;
}

// ---- A run directory at version 0, without processes ----

static const BoardModule modules[] = {
    {.path = "down.0.to_q", .in = 5, .out = 4, .a_at = 0, .b_at = 16},
    {.path = "down.0.to_k", .in = 5, .out = 4, .a_at = -1, .b_at = -1, .dead = 1},
    {.path = "down.0.to_v", .in = 3, .out = 2, .a_at = 32, .b_at = 48},
};

typedef struct Fake {
    Config *cfg;
    Run run;
    Checkpoint ckpt;
} Fake;

static Err fake_open(Fake *f, const char *more) {
    char text[1024];
    const char *yaml = "model: m\ndata.images: [a.png]\nlora: {rank: 2, alpha: 3}\n"
                       "reward: [{model: videomae, path: p, class: c}]\n"
                       "optim: {updates: 6, rollouts: 2}\nckpt: {every: 2}\n";
    snprintf(dir, sizeof dir, "%s/ckpt.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    die_unless(mkdtemp(dir), "no temporary folder");
    snprintf(text, sizeof text, "%s%s", yaml, more);
    TRY(config_load_text(&f->cfg, "test", ".", text, strlen(text), 0, NULL));
    SectionTable table = {.slots = 2, .segments = 1};
    section_layout(&table);
    BoardSpec spec = {
        .theta_cnt = 64, .rollouts = 2, .module_cnt = 3, .rank = 2, .alpha = 3, .lag = 0};
    TRY(run_create(&f->run, f->cfg, &table, &spec, modules));
    f->ckpt = (Checkpoint){.cfg = f->cfg, .run = &f->run, .run_dir = dir};
    put("config.yaml", yaml);
    put("metrics.jsonl", "");
    return ERR_OK;
}

static void fake_close(Fake *f) {
    run_leave(&f->run);
    config_free(f->cfg);
}

// What conductor and learner leave when version v is durable.
static Err advance(Fake *f, uint64_t v) {
    Board *b = f->run.board;
    for (int i = 0; i < 64; i++) {
        board_theta(b, v)[i] = (float)(100 * v) + (float)i;
        board_m(b, v)[i] = (float)i;
        board_v(b, v)[i] = (float)v;
    }
    board_commit(b, v);
    FILE *m = fopen(at("metrics.jsonl"), "a");
    fprintf(m, "{\"update\": %d}\n", (int)v);
    long bytes = ftell(m);
    fclose(m);
    LedgerHead head = {.version = v,
                       .next_sample = 2 * v,
                       .metrics_bytes = (uint64_t)bytes,
                       .config_hash = config_hash(f->cfg),
                       .numerics = "of a test"};
    return ledger_write(dir, &head, b);
}

static int bundles(void) {
    int n = 0;
    for (int v = 0; v <= 6; v++) {
        char name[64];
        snprintf(name, sizeof name, "ckpt/step-%06d.tar", v);
        n = n * 10 + !access(at(name), F_OK);
    }
    return n; // one digit per version
}

TEST(bundles_are_made_when_due) {
    Fake f = {0};
    CHECK_OK(fake_open(&f, ""));
    CHECK_OK(checkpoint_poll(&f.ckpt, &(ConductorNews){.version = 0}));
    for (uint64_t v = 1; v <= 6; v++) {
        CHECK_OK(advance(&f, v));
        CHECK_OK(checkpoint_poll(&f.ckpt, &(ConductorNews){.version = v, .updated = true}));
        CHECK_OK(checkpoint_poll(&f.ckpt, &(ConductorNews){.version = v}));
    }
    CHECK_EQ(bundles(), 10100); // 2 and 4; the last waits for its previews
    CHECK_OK(checkpoint_poll(&f.ckpt, &(ConductorNews){.version = 6, .done = true}));
    CHECK_EQ(bundles(), 10101);
    CHECK(access(at("ckpt/.part"), F_OK) != 0);
    fake_close(&f);
}

TEST(a_bundle_that_a_kill_prevented_is_made_up_for) {
    Fake f = {0};
    CHECK_OK(fake_open(&f, ""));
    CHECK_OK(advance(&f, 1));
    CHECK_OK(advance(&f, 2));
    mkdir(at("ckpt"), 0700);
    mkdir(at("ckpt/.part"), 0700); // what the kill left
    put("ckpt/.part/adapter_config.json", "half");
    CHECK_OK(
        checkpoint_poll(&f.ckpt, &(ConductorNews){.version = 2})); // the first poll of a resume
    CHECK_EQ(bundles(), 10000);
    CHECK(access(at("ckpt/.part"), F_OK) != 0);
    fake_close(&f);
}

static void check_tensor(const Safetensors *s, const char *name, int rows, int cols, float first,
                         float scale) {
    const SafetensorsEntry *e;
    CHECK_OK(safetensors_want(s, name, &e));
    CHECK(e->rank == 2 && e->dim[0] == rows && e->dim[1] == cols);
    for (int i = 0; i < rows * cols; i++)
        CHECK_NEAR(((const float *)e->data)[i], scale * (first + (float)i), 1e-4);
}

TEST(it_holds_the_adapter_in_both_formats) {
    Fake f = {0};
    Bundle *b;
    char *bytes;
    size_t len;
    Safetensors *s;
    CHECK_OK(fake_open(&f, ""));
    CHECK_OK(advance(&f, 1));
    CHECK_OK(checkpoint_write(&f.ckpt, 1));
    CHECK_OK(bundle_open(&b, at("ckpt/step-000001.tar")));
    CHECK_OK(bundle_load(b, "peft/adapter_model.safetensors", &bytes, &len));
    CHECK_OK(safetensors_open_bytes(&s, "peft", bytes, len));
    CHECK_EQ(safetensors_count(s), 4); // no dead module
    check_tensor(s, "base_model.model.down.0.to_q.lora_A.weight", 2, 5, 100, 1);
    check_tensor(s, "base_model.model.down.0.to_q.lora_B.weight", 4, 2, 116, 1);
    check_tensor(s, "base_model.model.down.0.to_v.lora_A.weight", 2, 3, 132, 1);
    safetensors_close(s);
    free(bytes);
    CHECK_OK(bundle_load(b, "diffusers/pytorch_lora_weights.safetensors", &bytes, &len));
    CHECK_OK(safetensors_open_bytes(&s, "diffusers", bytes, len));
    check_tensor(s, "unet.down.0.to_v.lora_A.weight", 2, 3, 132, 1);
    check_tensor(s, "unet.down.0.to_v.lora_B.weight", 2, 2, 148, 1.5f);
    safetensors_close(s);
    free(bytes);
    CHECK_OK(bundle_load(b, "peft/adapter_config.json", &bytes, &len));
    CHECK_HAS(bytes, "\"r\": 2");
    CHECK_HAS(bytes, "\"down.0.to_v\"");
    CHECK(!strstr(bytes, "to_k"));
    free(bytes);
    CHECK_EQ(bundle_facts(b)->version, 1);
    CHECK_EQ(bundle_facts(b)->updates, 6);
    CHECK_EQ(bundle_facts(b)->config_hash, config_hash(f.cfg));
    CHECK_STR(bundle_facts(b)->numerics, "of a test");
    bundle_close(b);
    fake_close(&f);
}

TEST(the_newest_previews_come_along) {
    Fake f = {0};
    Bundle *b;
    CHECK_OK(fake_open(&f, "ckpt.zstd: true\n"));
    CHECK_OK(advance(&f, 1));
    mkdir(at("previews"), 0700);
    put("previews/step-000000-0.mp4", "old");
    put("previews/step-000001-1.png", "b");
    put("previews/step-000001-0.mp4", "a");
    put("previews/step-000001-0.raw", "raw");
    put("previews/step-000002-0.mp4", "later");
    put("previews/base-0.raw", "base");
    CHECK_OK(checkpoint_write(&f.ckpt, 1));
    CHECK_OK(bundle_open(&b, at("ckpt/step-000001.tar")));
    CHECK_EQ(bundle_count(b), 8);
    CHECK_STR(bundle_at(b, 6)->name, "previews/step-000001-0.mp4");
    CHECK_STR(bundle_at(b, 7)->name, "previews/step-000001-1.png");
    bundle_close(b);
    fake_close(&f);
}

TEST(a_run_made_of_a_bundle_is_the_run_that_was) {
    Fake f = {0};
    LedgerHead head;
    int found;
    char bundle[512], fresh[512];
    CHECK_OK(fake_open(&f, ""));
    for (uint64_t v = 1; v <= 3; v++) CHECK_OK(advance(&f, v));
    CHECK_OK(checkpoint_write(&f.ckpt, 3));
    strcpy(bundle, at("ckpt/step-000003.tar"));
    strcpy(fresh, at("fresh"));
    CHECK_OK(checkpoint_restore(bundle, fresh));
    CHECK_STR(content(at("fresh/metrics.jsonl")),
              "{\"update\": 1}\n{\"update\": 2}\n{\"update\": 3}\n");
    CHECK_HAS(content(at("fresh/config.yaml")), "model: m");
    memset(board_theta(f.run.board, 3), 0, 64 * sizeof(float));
    CHECK_OK(ledger_read(fresh, &head, f.run.board, &found));
    CHECK(found && head.version == 3);
    CHECK_NEAR(board_theta(f.run.board, 3)[7], 307, 0);
    CHECK_NEAR(board_v(f.run.board, 3)[7], 3, 0);
    CHECK_ERR(checkpoint_restore(bundle, fresh), ERR_USAGE, "run=DIR");
    CHECK_ERR(checkpoint_restore(at("config.yaml"), at("other")), ERR_FORMAT, "not a bundle");
    CHECK(access(at("other"), F_OK) != 0);
    fake_close(&f);
}

TEST(a_state_of_another_version_is_no_checkpoint) {
    Fake f = {0};
    CHECK_OK(fake_open(&f, ""));
    CHECK_OK(advance(&f, 1));
    CHECK_ERR(checkpoint_write(&f.ckpt, 2), ERR_FORMAT, "newest state is version 1");
    CHECK_EQ(bundles(), 0);
    fake_close(&f);
}
