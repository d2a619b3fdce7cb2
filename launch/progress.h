// progress: what a person sees while a run goes: on a terminal one line that is redrawn, else plain lines.
#ifndef LAUNCH_PROGRESS_H
#define LAUNCH_PROGRESS_H

#include <stdbool.h>

#include "common/proc/conductor.h"

typedef struct Progress {
    const Config *cfg;
    const Run *run;
    bool is_terminal, line_open;
    int64_t start_ns, shown_ns;
    uint64_t first_version;
    double reward, grad_norm;
    uint64_t version;
    bool has_reward;
    int restarts;
} Progress;

void progress_init(Progress *p, const Config *cfg, const Run *run, uint64_t first_version);
// After every poll; redraws at most ten times a second, prints a plain line per update.
void progress_show(Progress *p, const ConductorNews *news, int restarts);
void progress_end(Progress *p);

#endif
