// supervisor: the processes of a run: start, watch, restart, stop. Touches neither tensors nor sections.
//
// A stage that ends by a signal is a death: the epoch is raised, survivors acknowledge that they hold
// nothing older, samples without a gradient start over, the stage is started again (at most three times at
// the same step of the same sample), and the group goes on. A stage that exits by itself with an error
// ends the run with its message. Nothing outlives the launcher: stages die with it (stage_main.c).
//
//     TRY(supervisor_start(&s, cfg, &run, conductor, run_dir, fault));
//     while (...) TRY(supervisor_poll(s, 20));
//     supervisor_stop(s, false);
#ifndef LAUNCH_SUPERVISOR_H
#define LAUNCH_SUPERVISOR_H

#include <stdbool.h>
#include <stddef.h>

#include "common/proc/conductor.h"
#include "common/proc/run.h"

typedef struct Supervisor Supervisor;

// "<folder of the running binary>/vader-<name>" into out.
Err supervisor_sibling(const char *name, char out[4096]);

// What a process said last, from its log: the last line that begins with our name, else the last one that is no frame of
// a backtrace; "no message (LOG)" if there is none.
void supervisor_last_words(const char *log, char *out, size_t size);

// From now on SIGINT and SIGTERM are counted: 1 = finish the running steps, 2 = at once. SIGPIPE is ignored.
const volatile int *supervisor_catch_signals(void);

// Starts all stages of the config in the working directory, which is the run directory, and waits until every
// one has joined. *stop: a signal handler's count, watched as long as the group lives: it ends every wait early, and
// above 1 kills. NULL: none.
Err supervisor_start(Supervisor **out, const Config *cfg, Run *run, Conductor *conductor,
                     const char *fault, const volatile int *stop);

// Waits at most timeout_ms for something to happen and handles it: bells, reports, deaths. Fails when a stage failed by
// itself, or died too often.
Err supervisor_poll(Supervisor *s, int timeout_ms);

// Restarts so far.
int supervisor_restarts(const Supervisor *s);

// Ends all stages: asks (they finish their step), or kills at once. Returns when none is left; err_text stays
// what it was. Frees s; NULL is fine.
void supervisor_stop(Supervisor *s, bool kill_now);

#endif
