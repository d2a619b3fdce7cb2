// conductor: which sample goes into which slot, what is durable, and what the metrics say. No processes, no
// tensors: the launcher polls it between its other duties, and so does --inline.
//
// Samples are admitted in order: sample i to slot i mod slot_cnt as soon as that slot is DONE, up to
// updates x B. After each update (board version v + 1, release-stored by the learner):
//   1. the state goes to RUN/state-{0,1} alternately (ledger.h), fsync;
//   2. metrics.jsonl gets its line (reproducible numbers only), timing.jsonl its own;
//   3. durable = v + 1, which lets the learner make the next version.
// On resume metrics.jsonl is cut to the length that the ledger recorded.
//
//     TRY(conductor_new(&c, cfg, &run, run_dir, first_version));
//     for (bool done = false; !done;) { TRY(conductor_poll(c, &done)); ... }
#ifndef COMMON_PROC_CONDUCTOR_H
#define COMMON_PROC_CONDUCTOR_H

#include <stdbool.h>

#include "common/config/config.h"
#include "common/proc/run.h"
#include "common/transport/ledger.h"

typedef struct Conductor Conductor;

// What happened since the last poll, for the caller to show or act on.
typedef struct ConductorNews {
    bool updated;     // a new version is durable
    uint64_t version; // durable versions so far
    double reward;    // mean over the samples of the last update
    double grad_norm;
    int preview_slot; // a finished preview's frames lie in this slot until conductor_release; -1: none
    bool admitted;    // a slot got a new sample
    bool done;        // all updates are durable
} ConductorNews;

// What the caller knows when a run begins or goes on.
typedef struct ConductorStart {
    const char *run_dir; // exists and is locked by the caller
    LedgerHead ledger;   // numerics and config_hash for every state; on resume as ledger_read gave
                         // it, else version 0
    int window_at;       // first step of the window; -1: random in window.range per rollout
} ConductorStart;

// Keeps cfg and run. On resume cuts metrics.jsonl to the length in the ledger.
Err conductor_new(Conductor **out, const Config *cfg, Run *run, const ConductorStart *start);
void conductor_free(Conductor *c);
Err conductor_poll(Conductor *c, ConductorNews *news);
// The caller has taken the frames of a preview.
void conductor_release(Conductor *c, uint32_t slot);
// After a death, when the epoch has been raised: samples without gradient tag start over.
void conductor_restart_samples(Conductor *c, uint32_t epoch);

#endif
