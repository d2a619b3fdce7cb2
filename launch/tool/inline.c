// inline: one process plays all parts.
#include "launch/tool/inline.h"

#include <stdio.h>
#include <string.h>

#include "common/proc/checkpoint.h"
#include "common/proc/conductor.h"
#include "common/proc/recorder.h"
#include "common/proc/stage.h"
#include "decoder/decoder.h"
#include "launch/tool/tool.h"
#include "learner/learner.h"
#include "rewarder/rewarder.h"
#include "sampler/sampler.h"

typedef struct Inline {
    Config *cfg;
    void *self[STAGE_CNT];
    StagePlan plan[STAGE_CNT];
    StageCtx *ctx[STAGE_CNT];
    Run run;
    Conductor *conductor;
    Recorder *recorder; // NULL: nothing is recorded
    Checkpoint checkpoint;
    Fault *fault;
} Inline;

static const Stage *const stages[STAGE_CNT] = {&sampler_stage, &decoder_stage, &rewarder_stage,
                                               &learner_stage};

static Err open_stages(Inline *r) {
    for (int s = 0; s < STAGE_CNT; s++)
        TRY(stages[s]->open(r->cfg, 0, false, NULL, &r->self[s], &r->plan[s]));
    return ERR_OK;
}

static Err open_run(Inline *r, bool resume) {
    SectionTable table;
    BoardSpec board;
    ConductorStart start = {.run_dir = ".", .window_at = r->plan[STAGE_LEARNER].window_at};
    TRY(stage_plan_combine(r->plan, r->cfg, &table, &board, start.ledger.numerics));
    start.ledger.config_hash = config_hash(r->cfg);
    TRY(run_create(&r->run, r->cfg, &table, &board, r->plan[STAGE_LEARNER].modules));
    if (resume) {
        LedgerHead head;
        int found;
        TRY(ledger_read(".", &head, r->run.board, &found));
        if (found) {
            start.ledger.version = head.version;
            start.ledger.metrics_bytes = head.metrics_bytes;
            board_set_ready(r->run.board);
        }
    }
    TRY(conductor_new(&r->conductor, r->cfg, &r->run, &start));
    for (int s = 0; s < STAGE_CNT; s++)
        TRY(stage_ctx_new(&r->ctx[s], stages[s], r->self[s], r->cfg, 0, &r->run, NULL, r->fault));
    return ERR_OK;
}

static Err play(Inline *r) {
    for (ConductorNews news = {0}; !news.done;) {
        bool any = false;
        TRY(conductor_poll(r->conductor, &news));
        if (news.preview_slot >= 0) conductor_release(r->conductor, (uint32_t)news.preview_slot);
        if (r->recorder) {
            TRY(checkpoint_poll(&r->checkpoint, &news));
            recorder_poll(r->recorder, &news, 0);
        }
        if (news.updated)
            fprintf(stderr, "update %llu/%lld  reward %.4f  |g| %.3g\n",
                    (unsigned long long)news.version, (long long)r->cfg->updates, news.reward,
                    news.grad_norm);
        for (int s = 0; s < STAGE_CNT; s++) {
            bool worked;
            TRY(stage_poll(r->ctx[s], &worked));
            any |= worked;
        }
        die_unless(any || news.updated || news.done || news.preview_slot >= 0 || news.admitted,
                   "inline: no stage can go on");
    }
    return ERR_OK;
}

Err inline_run(Config *cfg, bool resume, const char *fault, bool record) {
    Inline r = {.cfg = cfg, .run = {.state_shm.fd = -1, .board_shm.fd = -1}};
    cfg->sampler_replicas = cfg->decoder_replicas = cfg->rewarder_replicas = 1;
    Err err = fault_parse(&r.fault, fault, 0);
    if (!err) err = open_stages(&r);
    if (!err) err = open_run(&r, resume);
    if (!err && record) {
        r.recorder = recorder_new(cfg, &r.run, ".");
        r.checkpoint = (Checkpoint){.cfg = cfg, .run = &r.run, .run_dir = "."};
    }
    if (!err) err = play(&r);
    recorder_free(r.recorder, err ? "failed" : "ended");
    conductor_free(r.conductor);
    for (int s = 0; s < STAGE_CNT; s++) {
        stage_ctx_free(r.ctx[s]);
        if (r.self[s]) stages[s]->close(r.self[s]);
        stage_plan_fini(&r.plan[s]);
    }
    run_leave(&r.run);
    fault_free(r.fault);
    return err;
}

// Started by `vader train --inline` in the run directory: inline --fresh|--resume [--fault SPEC]
Err tool_inline(int argc, char **argv) {
    Config *cfg;
    const char *fault = NULL;
    bool resume = argc > 1 && !strcmp(argv[1], "--resume");
    for (int i = 2; i + 1 < argc; i++)
        if (!strcmp(argv[i], "--fault")) fault = argv[i + 1];
    TRY(config_load(&cfg, "config.yaml", 0, NULL));
    Err err = ERR_OK;
    for (int s = 0; s < STAGE_CNT && !err; s++)
        if (stages[s]->check) err = stages[s]->check(cfg);
    if (!err) err = inline_run(cfg, resume, fault, true);
    config_free(cfg);
    return err;
}
