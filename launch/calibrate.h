// calibrate: how long each step of a config takes on this machine.
//
// Two rollouts go through the processes of a run, a single slot, so that one step runs at a time and has the
// machine for itself; the first warms caches and maps weights, the second is measured. Then one update.
#ifndef LAUNCH_CALIBRATE_H
#define LAUNCH_CALIBRATE_H

#include "launch/group_plan.h"

typedef struct Calibration {
    double step_s[STEP_CNT + 1]; // of one segment, the mean over segments; [STEP_CNT]: the update
    uint64_t peak_bytes[STAGE_CNT]; // resident, of one process, what it shares included
} Calibration;

// The words that turn a run's config into that of its calibration.
enum { CALIBRATE_WORDS = 7 };
extern const char *const calibrate_words[CALIBRATE_WORDS];

// cfg: the run's with calibrate_words behind. plan: of the run. Works in the current directory, which is
// left full of a run's files. *stop as in supervisor_start; when it is set the result is worth nothing.
Err calibrate(Calibration *out, const Config *cfg, const GroupPlan *plan, const volatile int *stop);

#endif
