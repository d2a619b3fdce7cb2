// checkpoint: gathers a bundle's entries from board and run directory, and puts them back.
#include "common/proc/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/version.h"
#include "common/format/adapter.h"
#include "common/format/bundle.h"

// The adapter's files lie in RUN/ckpt/PART while they are made.
#define PART ".part"
#define PEFT_CONFIG "adapter_config.json"
#define PEFT_MODEL "adapter_model.safetensors"
#define DIFFUSERS "pytorch_lora_weights.safetensors"

static Err make_folder(const char *path) {
    if (mkdir(path, 0700) && errno != EEXIST) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    return ERR_OK;
}

// ---- Writing ----

static Err write_adapter(const Checkpoint *c, uint64_t version, const char *part, Arena *a) {
    const Board *board = c->run->board;
    const BoardSpec *spec = board_spec(board);
    const float *theta = board_theta(board, version);
    AdapterModule *m = arena_array(a, AdapterModule, spec->module_cnt);
    for (uint32_t i = 0; i < spec->module_cnt; i++) {
        const BoardModule *b = board_module(board, i);
        m[i] = (AdapterModule){.path = b->path, .in = b->in, .out = b->out};
        if (b->dead) continue;
        m[i].a = theta + b->a_at;
        m[i].b = theta + b->b_at;
    }
    Adapter x = {.rank = (int)spec->rank,
                 .alpha = spec->alpha,
                 .dropout = c->cfg->lora_dropout,
                 .module = m,
                 .module_cnt = (int)spec->module_cnt};
    TRY(adapter_write_peft(&x, part));
    return adapter_write_diffusers(&x, arena_printf(a, "%s/" DIFFUSERS, part));
}

// The number in "step-000100-...": -1 when it is another file.
static long step_of(const char *name) {
    char *end;
    if (strncmp(name, "step-", 5)) return -1;
    long step = strtol(name + 5, &end, 10);
    return end > name + 5 ? step : -1;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// Videos and pictures of the newest step that has any, up to `version`, in order of their names.
static int list_previews(const Checkpoint *c, uint64_t version, Arena *a,
                         const char *names[BUNDLE_PREVIEWS_MAX]) {
    DIR *dir = opendir(arena_printf(a, "%s/previews", c->run_dir));
    long newest = -1;
    int cnt = 0;
    if (!dir) return 0;
    for (struct dirent *e; (e = readdir(dir));) {
        long step = step_of(e->d_name);
        const char *name = arena_printf(a, "previews/%s", e->d_name);
        if (step < 0 || step < newest || (uint64_t)step > version || !bundle_knows(name)) continue;
        if (step > newest) cnt = 0;
        newest = step;
        if (cnt < BUNDLE_PREVIEWS_MAX) names[cnt++] = name;
    }
    closedir(dir);
    qsort(names, (size_t)cnt, sizeof *names, by_name);
    return cnt;
}

static Err add_entries(const Checkpoint *c, const LedgerHead *head, const char *part,
                       BundleWriter *w, Arena *a) {
    const char *dir = c->run_dir, *preview[BUNDLE_PREVIEWS_MAX];
    TRY(bundle_add_file(w, "config.yaml", arena_printf(a, "%s/config.yaml", dir),
                        BUNDLE_WHOLE_FILE));
    TRY(bundle_add_file(w, "metrics.jsonl", arena_printf(a, "%s/metrics.jsonl", dir),
                        head->metrics_bytes));
    TRY(bundle_add_file(w, "state", arena_printf(a, "%s/state-%d", dir, (int)(head->version % 2)),
                        BUNDLE_WHOLE_FILE));
    TRY(bundle_add_file(w, "peft/" PEFT_CONFIG, arena_printf(a, "%s/" PEFT_CONFIG, part),
                        BUNDLE_WHOLE_FILE));
    TRY(bundle_add_file(w, "peft/" PEFT_MODEL, arena_printf(a, "%s/" PEFT_MODEL, part),
                        BUNDLE_WHOLE_FILE));
    TRY(bundle_add_file(w, "diffusers/" DIFFUSERS, arena_printf(a, "%s/" DIFFUSERS, part),
                        BUNDLE_WHOLE_FILE));
    int cnt = list_previews(c, head->version, a, preview);
    for (int i = 0; i < cnt; i++)
        TRY(bundle_add_file(w, preview[i], arena_printf(a, "%s/%s", dir, preview[i]),
                            BUNDLE_WHOLE_FILE));
    return ERR_OK;
}

static Err write_bundle(const Checkpoint *c, const LedgerHead *head, const char *part,
                        const char *path, Arena *a) {
    Err err = ERR_OK;
    BundleWriter *w = NULL;
    BundleFacts facts = {.vader = VADER_VERSION,
                         .version = head->version,
                         .updates = (uint64_t)c->cfg->updates,
                         .config_hash = head->config_hash};
    memcpy(facts.numerics, head->numerics, sizeof facts.numerics);
    TRY_OUT(bundle_create(&w, path, c->cfg->ckpt_zstd));
    TRY_OUT(add_entries(c, head, part, w, a));
    TRY_OUT(bundle_commit(w, &facts));
out:
    bundle_abandon(w);
    return err;
}

static void remove_part(const char *part, Arena *a) {
    unlink(arena_printf(a, "%s/" PEFT_CONFIG, part));
    unlink(arena_printf(a, "%s/" PEFT_MODEL, part));
    unlink(arena_printf(a, "%s/" DIFFUSERS, part));
    rmdir(part);
}

static const char *bundle_path(const Checkpoint *c, uint64_t version, Arena *a) {
    return arena_printf(a, "%s/ckpt/step-%06llu.tar", c->run_dir, (unsigned long long)version);
}

Err checkpoint_write(const Checkpoint *c, uint64_t version) {
    Err err = ERR_OK;
    Arena a = {0};
    LedgerHead head;
    int found;
    const char *part = arena_printf(&a, "%s/ckpt/" PART, c->run_dir);
    TRY_OUT(ledger_read(c->run_dir, &head, NULL, &found));
    if (!found || head.version != version)
        FAIL_OUT(ERR_FORMAT, "%s: its newest state is version %llu, a bundle of %llu is due",
                 c->run_dir, (unsigned long long)(found ? head.version : 0),
                 (unsigned long long)version);
    TRY_OUT(make_folder(arena_printf(&a, "%s/ckpt", c->run_dir)));
    TRY_OUT(write_adapter(c, version, part, &a));
    TRY_OUT(write_bundle(c, &head, part, bundle_path(c, version, &a), &a));
out:
    remove_part(part, &a);
    arena_free(&a);
    return err;
}

Err checkpoint_poll(Checkpoint *c, const ConductorNews *news) {
    uint64_t version = news->version, every = (uint64_t)c->cfg->ckpt_every;
    bool is_last = version >= (uint64_t)c->cfg->updates;
    if (!version || version == c->seen || (is_last && !news->done)) return ERR_OK;
    if (is_last || (every && version % every == 0)) {
        Arena a = {0};
        bool is_there = !access(bundle_path(c, version, &a), F_OK);
        arena_free(&a);
        if (!is_there) TRY(checkpoint_write(c, version));
    }
    c->seen = version;
    return ERR_OK;
}

// ---- Reading ----

static Err check_free(const char *dir, Arena *a) {
    static const char *const names[] = {"config.yaml", "state-0", "state-1", "metrics.jsonl"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!access(arena_printf(a, "%s/%s", dir, names[i]), F_OK))
            FAIL(ERR_USAGE, "%s: there is a %s already; choose another folder with run=DIR", dir,
                 names[i]);
    return ERR_OK;
}

// The state must be of the version, and want the metrics, that the bundle has.
static Err check_state(const char *dir, const Bundle *b) {
    LedgerHead head;
    int found;
    uint64_t metrics = bundle_find(b, "metrics.jsonl")->bytes;
    TRY(ledger_read(dir, &head, NULL, &found));
    if (!found || head.version != bundle_facts(b)->version || head.metrics_bytes != metrics)
        FAIL(
            ERR_FORMAT,
            "%s: the state is of version %llu with %llu bytes of metrics, the bundle has %llu and %llu",
            dir, (unsigned long long)(found ? head.version : 0),
            (unsigned long long)(found ? head.metrics_bytes : 0),
            (unsigned long long)bundle_facts(b)->version, (unsigned long long)metrics);
    return ERR_OK;
}

static Err restore(const Bundle *b, const char *bundle, const char *dir, Arena *a) {
    static const char *const needed[] = {"config.yaml", "metrics.jsonl", "state"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!bundle_find(b, needed[i]))
            FAIL(ERR_FORMAT, "%s: there is no %s in it", bundle, needed[i]);
    TRY(make_folder(dir));
    TRY(check_free(dir, a));
    int parity = (int)(bundle_facts(b)->version % 2);
    TRY(bundle_extract_entry(b, "state", arena_printf(a, "%s/state-%d", dir, parity)));
    TRY(bundle_extract_entry(b, "metrics.jsonl", arena_printf(a, "%s/metrics.jsonl", dir)));
    TRY(check_state(dir, b));
    return bundle_extract_entry(b, "config.yaml", arena_printf(a, "%s/config.yaml", dir));
}

Err checkpoint_restore(const char *bundle, const char *dir) {
    Bundle *b;
    Arena a = {0};
    TRY(bundle_open(&b, bundle));
    Err err = restore(b, bundle, dir, &a);
    bundle_close(b);
    arena_free(&a);
    return err;
}
