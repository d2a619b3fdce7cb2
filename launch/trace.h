// trace: `vader trace RUN`: RUN/trace.json for ui.perfetto.dev or chrome://tracing, and who bounds the run.
//
// One track per process; every step is a slice named "decode.1" with its sample and update; arrows follow a
// sample from stage to stage. The summary on standard output says which stage is busiest, which bounds the run however
// much is overlapped, and how many processes work at once: sum of busy time / time passed.
//
// Works on RUN/spans.bin (recorder.h) while the run goes on and afterwards. Chrome's JSON (public description: "Trace
// Event Format") and no protobuf: slices of a process never overlap, so that nothing is lost.
#ifndef LAUNCH_TRACE_H
#define LAUNCH_TRACE_H

#include <stddef.h>
#include <stdio.h>

#include "common/proc/recorder.h"

Err trace_main(int argc, char **argv);

// path: the file to make. Sorts span, and drops the sessions' marks: the last thing to do with it.
Err trace_write(const char *path, RecorderSpan *span, size_t cnt);

// Who worked for how long.
typedef struct TraceSums {
    double wall_s; // of all sessions, each from its first span to its last; 0: nothing was recorded
    double busy_s[STAGE_CNT][RUN_PROCESSES_MAX]; // by replica
    double step_s[STEP_CNT + 1];                 // STEP_CNT: update
    uint64_t step_cnt[STEP_CNT + 1];
    uint64_t lost; // steps that were too many to be recorded
    int replicas[STAGE_CNT];
    StageKind bound;   // the stage whose processes are busiest
    double bound_busy; // their share of wall_s
    double overlap;    // processes at work at once, on average
} TraceSums;

// Sorts span by time.
void trace_sum(TraceSums *u, RecorderSpan *span, size_t cnt);
void trace_print(const TraceSums *u, FILE *out);

// Some updates to look at: those in the middle of the session with the most, so that nothing starts up or runs dry.
typedef struct TracePart {
    const RecorderSpan
        *span;  // by time; those that end before start_ns or begin after end_ns are not part of it
    size_t cnt; // 0: nothing was recorded
    int64_t start_ns, end_ns; // from the end of one update to the end of another
    uint64_t first_update;    // counted from 1
    int updates;              // whole ones; 0: none was finished, or `most` ended it before
} TracePart;

// At most `updates` updates and about `most` spans. Sorts span by time; the part points into it.
void trace_part(TracePart *part, RecorderSpan *span, size_t cnt, int updates, size_t most);

#endif
