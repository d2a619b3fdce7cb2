// train: prepare the run directory, ask the stages, make the shared memory, and drive group and conductor
// until all updates are durable.
#include "launch/train.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/proc/checkpoint.h"
#include "common/proc/recorder.h"
#include "launch/group_plan.h"
#include "launch/preview.h"
#include "launch/progress.h"
#include "launch/run_dir.h"
#include "launch/supervisor.h"

enum { RESUME_WAIT_S = 600, SET_MAX = 256 };

typedef struct Options {
    const char *target;       // CONF or RUN
    const char *set[SET_MAX]; // key=value
    int set_cnt;
    const char *fault;
    bool is_inline, accept_change, is_resume;
} Options;

static const volatile int *stop_asked; // supervisor_catch_signals

static Err parse(Options *o, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--inline"))
            o->is_inline = true;
        else if (!strcmp(argv[i], "--accept-change"))
            o->accept_change = true;
        else if (!strcmp(argv[i], "--fault") && i + 1 < argc)
            o->fault = argv[++i];
        else if (*argv[i] == '-')
            FAIL(ERR_USAGE, "%s: unknown option %s", argv[0], argv[i]);
        else if (strchr(argv[i], '=') && o->set_cnt < SET_MAX)
            o->set[o->set_cnt++] = argv[i];
        else if (!o->target)
            o->target = argv[i];
        else
            FAIL(ERR_USAGE, "%s: one %s at a time; settings are key=value: %s", argv[0],
                 o->is_resume ? "run" : "config", argv[i]);
    }
    if (!o->target)
        FAIL(ERR_USAGE, "usage: vader %s",
             o->is_resume ? "resume RUN|BUNDLE [key=value ...]" : "train CONF [key=value ...]");
    return ERR_OK;
}

// ---- One run ----

typedef struct Training {
    const Options *opt;
    Config *cfg;
    GroupPlan plan;
    Run run;
    Conductor *conductor;
    Supervisor *group;
    Preview *previews;
    ConductorStart start;
    Recorder *recorder;
    Checkpoint checkpoint;
} Training;

// The numbers of a run belong to one set of settings, one way of computing and one set of models.
static Err check_same(const Training *t, const LedgerHead *found) {
    if (t->opt->accept_change) return ERR_OK;
    if (found->config_hash != t->start.ledger.config_hash)
        FAIL(
            ERR_USAGE,
            "the settings that decide the numbers have changed since version %llu was written; --accept-change goes on anyway",
            (unsigned long long)found->version);
    if (strcmp(found->numerics, t->start.ledger.numerics))
        FAIL(
            ERR_USAGE,
            "the numerics or the models' weights differ: the run was made with \"%s\", this is \"%s\"; --accept-change goes on anyway",
            found->numerics, t->start.ledger.numerics);
    return ERR_OK;
}

static Err restore(Training *t) {
    LedgerHead head = {0};
    int found;
    TRY(ledger_read(".", &head, NULL, &found));
    if (!found) return ERR_OK; // stopped before its first update: begin again
    TRY(check_same(t, &head));
    TRY(ledger_read(".", &head, t->run.board, &found));
    board_set_ready(t->run.board);
    t->start.ledger.version = head.version;
    t->start.ledger.metrics_bytes = head.metrics_bytes;
    return ERR_OK;
}

static Err prepare(Training *t) {
    TRY(group_plan_make(&t->plan, t->cfg));
    TRY(group_plan_check_fit(&t->plan, t->cfg));
    TRY(run_create(&t->run, t->cfg, &t->plan.table, &t->plan.board,
                   t->plan.stage[STAGE_LEARNER].modules));
    t->start =
        (ConductorStart){.run_dir = ".", .window_at = t->plan.stage[STAGE_LEARNER].window_at};
    t->start.ledger.config_hash = config_hash(t->cfg);
    memcpy(t->start.ledger.numerics, t->plan.numerics, sizeof t->start.ledger.numerics);
    if (t->opt->is_resume) TRY(restore(t));
    return conductor_new(&t->conductor, t->cfg, &t->run, &t->start);
}

static Err drive(Training *t, Progress *progress) {
    TRY(supervisor_start(&t->group, t->cfg, &t->run, t->conductor, t->opt->fault, stop_asked));
    for (ConductorNews news = {0}; !news.done && !*stop_asked;) {
        TRY(conductor_poll(t->conductor, &news));
        if (news.preview_slot >= 0) {
            TRY(preview_take(t->previews, (uint32_t)news.preview_slot));
            conductor_release(t->conductor, (uint32_t)news.preview_slot);
        }
        preview_poll(t->previews);
        if (news.done) { // the last bundle holds the last previews
            preview_free(t->previews);
            t->previews = NULL;
        }
        TRY(checkpoint_poll(&t->checkpoint, &news));
        recorder_poll(t->recorder, &news, supervisor_restarts(t->group));
        progress_show(progress, &news, supervisor_restarts(t->group));
        if (!news.done) TRY(supervisor_poll(t->group, 20));
    }
    return ERR_OK;
}

static Err start(Training *t) {
    Progress progress;
    t->previews = preview_new(t->cfg, &t->run);
    t->recorder = recorder_new(t->cfg, &t->run, ".");
    t->checkpoint = (Checkpoint){.cfg = t->cfg, .run = &t->run, .run_dir = "."};
    progress_init(&progress, t->cfg, &t->run, t->start.ledger.version);
    Err err = drive(t, &progress);
    progress_end(&progress); // before any message
    return err;
}

static Err train(const Options *opt, Config *cfg) {
    Training t = {.opt = opt, .cfg = cfg, .run = {.state_shm.fd = -1, .board_shm.fd = -1}};
    stop_asked = supervisor_catch_signals();
    Err err = prepare(&t);
    if (!err) err = start(&t);
    if (!err && *stop_asked == 1)
        fputs("vader: stopping once the running steps are done; a second signal stops at once\n",
              stderr);
    if (t.group) supervisor_stop(t.group, err != ERR_OK);
    preview_free(t.previews);
    recorder_free(t.recorder, err ? "failed" : *stop_asked ? "stopped" : "ended");
    conductor_free(t.conductor);
    run_leave(&t.run);
    group_plan_fini(&t.plan);
    return err;
}

// All stages as function calls in one process: vader-tool takes our place, in the run directory.
static Err become_inline(const Options *opt) {
    char program[4096];
    TRY(supervisor_sibling("tool", program));
    execl(program, program, "inline", opt->is_resume ? "--resume" : "--fresh",
          opt->fault ? "--fault" : NULL, opt->fault, (char *)NULL);
    FAIL(ERR_IO, "%s: %s", program, strerror(errno));
}

static void say_how_to_go_on(const char *dir, const Config *cfg) {
    if (stop_asked && *stop_asked)
        fprintf(stderr, "vader: stopped; `vader resume %s` goes on\n", dir);
    else
        fprintf(
            stderr,
            "vader: done; the adapter is in %s/ckpt/step-%06lld.tar (vader ckpt export), `vader report %s` shows the run\n",
            dir, (long long)cfg->updates, dir);
}

Err train_main(int argc, char **argv) {
    Options opt = {0};
    Config *cfg;
    TRY(parse(&opt, argc, argv));
    TRY(config_load(&cfg, opt.target, opt.set_cnt, opt.set));
    const char *dir = config_run_dir(cfg);
    fprintf(stderr, "vader: run directory %s\n", dir);
    Err err = run_dir_make(dir, cfg);
    if (!err) err = opt.is_inline ? become_inline(&opt) : train(&opt, cfg);
    if (!err) say_how_to_go_on(dir, cfg);
    config_free(cfg);
    return err;
}

static Err resume(const Options *opt) {
    Config *before, *cfg;
    Arena arena = {0};
    TRY(config_load(&before, "config.yaml", 0, NULL));
    Err err = config_load(&cfg, "config.yaml", opt->set_cnt, opt->set);
    if (!err) {
        const char *diff = config_diff(before, cfg, &arena, true);
        if (*diff && !opt->accept_change)
            err = err_fail(
                ERR_USAGE, __FILE__, __LINE__, __func__,
                "these settings decide the numbers and would change (--accept-change goes on anyway):\n%s",
                diff);
        if (!err && opt->set_cnt) err = run_dir_write_config(cfg);
        if (!err) err = opt->is_inline ? become_inline(opt) : train(opt, cfg);
        if (!err) say_how_to_go_on(opt->target, cfg);
        config_free(cfg);
    }
    arena_free(&arena);
    config_free(before);
    return err;
}

// A bundle becomes a run directory, which the word run=DIR names; from there on it is a run like any other.
static Err unpack(Options *o) {
    static char dir[PATH_MAX], word[PATH_MAX + 8];
    struct stat st;
    int at = o->set_cnt;
    if (stat(o->target, &st) || !S_ISREG(st.st_mode)) return ERR_OK;
    while (--at >= 0 && strncmp(o->set[at], "run=", 4)) {}
    if (at < 0)
        FAIL(ERR_USAGE, "%s is a bundle: `vader resume %s run=DIR` makes a run directory of it",
             o->target, o->target);
    TRY(checkpoint_restore(o->target, o->set[at] + 4));
    if (!realpath(o->set[at] + 4, dir)) FAIL(ERR_IO, "%s: %s", o->set[at] + 4, strerror(errno));
    snprintf(word, sizeof word, "run=%s", dir); // it is read again from inside that folder
    o->set[at] = word;
    o->target = dir;
    return ERR_OK;
}

Err train_resume_main(int argc, char **argv) {
    Options opt = {.is_resume = true};
    TRY(parse(&opt, argc, argv));
    TRY(unpack(&opt));
    TRY(run_dir_enter(opt.target, RESUME_WAIT_S));
    return resume(&opt);
}
