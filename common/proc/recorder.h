// recorder: what a run leaves for those who watch it: RUN/status.json once a second, and RUN/spans.bin.
//
// The pages of a run (run.h) lie in shared memory without a name. A watcher could map it through
// /proc/<launcher>/fd, but then it would need the same user, the same pid namespace and the same build, and hold the
// run's memory while it looks. So the launcher, which has the pages mapped anyway, copies what is worth seeing: a snapshot
// as JSON, renamed into place (readers see the old one or the new one, never half), and every finished step, drained
// from the ring of each page before it wraps (4096 steps a second and process). What a stopped or killed run did
// last stays there to be read. Nothing here can end a run: a file that cannot be written is a warning.
//
//     Recorder *rec = recorder_new(cfg, &run, ".");
//     ... recorder_poll(rec, &news, restarts); ...
//     recorder_free(rec, "ended");
//
// spans.bin grows with resumes, on the calendar's time. At RECORDER_FILE_MAX recording ends.
#ifndef COMMON_PROC_RECORDER_H
#define COMMON_PROC_RECORDER_H

#include <stddef.h>
#include <stdint.h>

#include "common/proc/conductor.h"

#define RECORDER_FILE_MAX (512ll << 20)
#define RECORDER_STATUS "status.json"
#define RECORDER_SPANS "spans.bin"
enum { RECORDER_SESSION = 0xFFFF };

// One record of spans.bin; native byte order. stage RECORDER_SESSION opens a session (train or resume): start_ns its
// begin, sample the rollouts of an update.
typedef struct RecorderSpan {
    int64_t start_ns, end_ns; // clock_wall_ns
    uint64_t sample;          // of an update: its number
    uint16_t stage, replica;
    uint16_t step, segment; // StepKind; STEP_CNT = update
    uint32_t purpose;       // SlotPurpose
    uint32_t lost;          // spans of this process that were overwritten before this one was read
} RecorderSpan;

typedef struct Recorder Recorder;

// Keeps all three. Never NULL.
Recorder *recorder_new(const Config *cfg, const Run *run, const char *run_dir);
// After every conductor_poll.
void recorder_poll(Recorder *r, const ConductorNews *news, int restarts);
// The last snapshot says `how` the run came to an end: "ended", "stopped", "failed". NULL is fine.
void recorder_free(Recorder *r, const char *how);

// All records of a file, malloc'd, the caller's; a torn one at the end is left out. Every field is in range.
Err recorder_read(const char *path, RecorderSpan **out, size_t *cnt);

#endif
