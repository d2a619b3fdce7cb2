// inline: all stages of a run as function calls in one process, under one debugger.
//
// The same callbacks, loop, conductor and shared memory as the process group, without processes: the
// stages are polled in turn. By contract the files it leaves are byte for byte those of the group.
#ifndef LAUNCH_TOOL_INLINE_H
#define LAUNCH_TOOL_INLINE_H

#include <stdbool.h>

#include "common/config/config.h"

// Runs cfg in the working directory to its end. resume: goes on from the state files there. Replica counts of cfg are
// ignored (set to 1). fault: see fault.h, may be NULL.
// record: also bundles, status.json and spans.bin, as the launcher writes them; false: state and metrics only.
Err inline_run(Config *cfg, bool resume, const char *fault, bool record);

#endif
