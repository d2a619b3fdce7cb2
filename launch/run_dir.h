// run_dir: the folder of a run: made, locked, entered.
//
//   config.yaml metrics.jsonl timing.jsonl state-0 state-1 log/ previews/ ckpt/ lock
//
// The launcher works inside it (chdir), so that socket paths are short whatever the folder is called. The
// lock is a descriptor that the stages inherit: a second run, or a resume, waits for all of them.
#ifndef LAUNCH_RUN_DIR_H
#define LAUNCH_RUN_DIR_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/config/config.h"

// Makes `path` (and its parents) with mode 0700, locks it, enters it and writes config.yaml. ERR_USAGE if a run is
// active there, or if it holds one already (then: vader resume).
Err run_dir_make(const char *path, const Config *cfg);

// Locks and enters an existing run, waiting up to wait_s for the processes of one that is ending.
Err run_dir_enter(const char *path, int wait_s);

// Writes config.yaml anew (a resume with changed settings).
Err run_dir_write_config(const Config *cfg);

// Does some process of the run at `path` hold its lock? ERR_USAGE if there is no run. Disturbs nobody: the lock is shared
// for an instant, and whoever starts a run waits or tries again.
Err run_dir_alive(const char *path, bool *alive);

#endif
