// group_plan: asks every stage what it needs, and adds it up.
//
// Each stage binary is run once with `--plan config.yaml` in the run directory; its memory tables go to
// log/plan.<stage>.log. Used before every run, and by `vader plan`.
#ifndef LAUNCH_GROUP_PLAN_H
#define LAUNCH_GROUP_PLAN_H

#include <stdio.h>

#include "common/config/config.h"
#include "common/proc/stage_plan.h"

typedef struct GroupPlan {
    StagePlan stage[STAGE_CNT];
    SectionTable table; // laid out
    BoardSpec board;
    char numerics[512];       // of all stages, for the ledger
    uint64_t shared_bytes;    // sections and board
    uint64_t total_bytes;     // of all processes and shared memory
    uint64_t available_bytes; // of this machine now
} GroupPlan;

// Works in the run directory. A stage that is killed (SIGKILL) while it plans is asked again, up to three times in
// all: planning changes nothing. ERR_USAGE with the message of a stage that refuses, ERR_PEER if one died of a signal,
// ERR_IO if one could not be started. After a failure *g holds nothing; else it goes to group_plan_fini.
Err group_plan_make(GroupPlan *g, const Config *cfg);
void group_plan_fini(GroupPlan *g);

// ERR_USAGE if the group does not fit, with who needs how much and how much is missing.
Err group_plan_check_fit(const GroupPlan *g, const Config *cfg);
void group_plan_print(const GroupPlan *g, const Config *cfg, FILE *out);

#endif
