// synthetic: a run whose stages compute nothing but who read what, for tests of the protocol and its timing.
//
// Each step checks that its inputs were written by the right step of the right sample, mixes them into one
// number, sleeps for a while and writes that number as its output; `learn` makes it a gradient and `update` sums
// gradients into theta. So the final theta is a fingerprint of the order of all reads and writes: two runs of
// one config agree in it exactly when no step ever saw anything but what it should. Loop, slots, board, ledger, control
// and conductor are the real ones.
//
//     Synthetic s;
//     TRY(synthetic_open(&s, dir, 2, (const char *[]){"optim.lag=1", "slots=4"}));
//     TRY(synthetic_inline(&s));                  // polls the stages in turn, or
//     TRY(synthetic_processes(&s));               // forks them
//     uint64_t fingerprint = synthetic_theta(&s);
//     synthetic_close(&s);
#ifndef TESTS_COMMON_PROC_SYNTHETIC_H
#define TESTS_COMMON_PROC_SYNTHETIC_H

#include "common/proc/conductor.h"
#include "common/proc/stage.h"

enum { SYNTHETIC_THETA = 8, SYNTHETIC_PROCESSES = 16, SYNTHETIC_GAPS = 1 << 16 };

// Shared by all processes of a run; what a test sets before it starts and reads afterwards.
typedef struct SyntheticShared {
    _Atomic int64_t sleep_us[STEP_CNT + 1]; // per step; [STEP_CNT]: update
    _Atomic uint64_t mistakes;              // inputs that were not what they should be
    _Atomic uint64_t fail_at; // inline: this call of count fails: odd before, even after the work
    _Atomic uint64_t calls;   // twice per callback: before and after its work
    _Atomic uint64_t update_ns[1024]; // when update u was done
    _Atomic uint64_t gap_cnt,
        gap_ns[SYNTHETIC_GAPS]; // from an output to the start of the next step elsewhere
} SyntheticShared;

typedef struct Synthetic {
    Config *cfg;
    Run run;
    Conductor *conductor;
    ConductorStart start;
    SyntheticShared *shared;
    char dir[512];
    const char *fault; // for processes, fault.h
    StageCtx *ctx[SYNTHETIC_PROCESSES];
    void *self[SYNTHETIC_PROCESSES];
    int pid[SYNTHETIC_PROCESSES], process_cnt;
} Synthetic;

extern const Stage synthetic_stage[STAGE_CNT];

// dir exists and is empty, or holds the run that goes on (resume). set: config words over a small default
// (two rollouts, four updates, one segment).
Err synthetic_open(Synthetic *s, const char *dir, bool resume, int set_cnt, const char *const *set);
void synthetic_close(Synthetic *s);

// One context per process of the config, for synthetic_poll.
Err synthetic_join(Synthetic *s);
// Polls process p (not the conductor).
Err synthetic_poll(Synthetic *s, int p, bool *worked);
// What a supervisor does when process p has died.
Err synthetic_die(Synthetic *s, int p);

// To the end, in one process.
Err synthetic_inline(Synthetic *s);
// To the end, with a forked process per stage, the real stage_main and the real sockets. The calling process
// plays the launcher; a death ends the run with ERR_PEER.
Err synthetic_processes(Synthetic *s);

// Of the newest version: a hash of theta, moments and row notes.
uint64_t synthetic_theta(const Synthetic *s);

#endif
