// checkpoint: bundles of a run: RUN/ckpt/step-000100.tar, made as versions become durable.
//
// A bundle (bundle.h) holds the adapter in both formats (adapter.h), the state that `vader resume` needs, the
// resolved config, the metrics so far and the newest previews. It follows from the board, whose header lists the
// modules, and from the files of the run directory, so that it takes neither tensor code nor the learner's time.
//
// Whoever drives the conductor polls it, after each conductor_poll and before the next. That is soon enough: the
// learner cannot make version v + 2 before v + 1 is booked, so theta of v stays on the board, and RUN/state-(v mod 2)
// stays as it is. It stalls the launcher, not the stages, for as long as writing takes: a rank 16 adapter of Stable
// Video Diffusion (6.6 M floats, 133 MB) took 1.6 s, 2.3 s with zstd, on two busy cores; an update of that model takes
// minutes, so that a process of its own would gain nothing.
//
//     Checkpoint ckpt = {.cfg = cfg, .run = &run, .run_dir = "."};
//     ... TRY(conductor_poll(c, &news)); TRY(checkpoint_poll(&ckpt, &news)); ...
//
// Modules without effect (dead, lora.h) have no values on the board and are left out.
#ifndef COMMON_PROC_CHECKPOINT_H
#define COMMON_PROC_CHECKPOINT_H

#include "common/proc/conductor.h"

typedef struct Checkpoint {
    const Config *cfg;
    const Run *run;
    const char *run_dir;
    uint64_t seen; // version of the last poll that had nothing left to do
} Checkpoint;

// Writes the bundle of the version that is durable if it is due (every ckpt.every updates, and the last, which waits for
// its previews) and not there yet: one that a kill prevented is made up for on resume.
Err checkpoint_poll(Checkpoint *c, const ConductorNews *news);

// Writes that of `version`, which is the newest state of the run directory, at once.
Err checkpoint_write(const Checkpoint *c, uint64_t version);

// Makes a run directory from a bundle: config.yaml, state, metrics.jsonl, so that resume goes on from there. `dir` is
// made; ERR_USAGE if it holds a run. The config comes last: without it, a folder that was cut short is no run.
Err checkpoint_restore(const char *bundle, const char *dir);

#endif
