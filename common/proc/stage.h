// stage: the one loop that sampler, decoder, rewarder and learner share.
//
// A stage is a table of callbacks; the loop does everything else: joining the run, finding runnable
// steps, epochs, bells, control messages, metrics, spans, parent death. The same callbacks serve the
// process (stage_main) and --inline (stage_poll of all stages in turn in one process, inline.h).
//
// A step is runnable for this stage when
//   its slot belongs to our replica (slot mod replicas = replica), its word names a step of ours,
//   the epoch is current, and versions allow it:
//       sample           board version >= max(0, u - lag), and exactly that version of theta is used
//       denoise, learn   board version == u
//   (previews use the version of their update.)
// Of the runnable ones the loop takes the oldest sample, and of equal samples the latest step; the
// learner prefers any denoise over any learn of the same update, so that decoder and rewarder never starve.
//
// A step reads sections, board and weights and writes only its own sections, so that it can be redone.
// A callback that fails ends the process with its message and status 1 (the launcher then stops the run);
// only a death by signal is restarted. Callbacks allocate no tensor memory.
//
// Every nanosecond of the loop is booked as busy, waiting for input, waiting for room (a later step holds the
// slot we need: versions or slots are exhausted), or housekeeping; waits have names (metrics.h).
#ifndef COMMON_PROC_STAGE_H
#define COMMON_PROC_STAGE_H

#include <stdbool.h>
#include <stdio.h>

#include "common/config/config.h"
#include "common/proc/fault.h"
#include "common/proc/run.h"
#include "common/proc/stage_plan.h"
#include "common/transport/control.h"

typedef struct StageCtx StageCtx;

// What a running step may touch.
typedef struct StageStep {
    StepKind kind;
    uint32_t slot, segment;
    const SlotHeader *header;
    Slot *line;       // score, norms: only the lines this stage writes
    uint64_t version; // theta version to use (sample, denoise, learn)
} StageStep;

typedef struct Stage {
    StageKind kind;
    // Loads models and compiles plans for the config, and fills *plan. table: print memory tables there (NULL: don't).
    // dry: only the plan is wanted; allocate nothing large.
    Err (*open)(const Config *cfg, int replica, bool dry, FILE *table, void **self,
                StagePlan *plan);
    // Before a run: reads what the config names and `open` does not, so that it is refused now. NULL: nothing.
    Err (*check)(const Config *cfg);
    // The run's memory is mapped: bind what can be bound once.
    Err (*join)(void *self, StageCtx *ctx);
    Err (*run[STEP_CNT])(void *self, StageCtx *ctx, const StageStep *step); // NULL: not ours
    // Learner: all gradients of update u are there; writes version u + 1 to the board (the loop commits it).
    Err (*update)(void *self, StageCtx *ctx, uint64_t update);
    void (*close)(void *self);
} Stage;

// ---- For callbacks ----

const Config *stage_config(const StageCtx *ctx);
Board *stage_board(const StageCtx *ctx);
const Run *stage_run(const StageCtx *ctx);
// A section of a slot: for its writer, and for readers until the step ends (memory local to this process's device).
void *stage_write(StageCtx *ctx, SectionKind kind, uint32_t slot, uint32_t segment);
Err stage_read(StageCtx *ctx, SectionKind kind, uint32_t slot, uint32_t segment, const void **out);
// Those of all segments in a row (run_write, run_read).
void *stage_write_all(StageCtx *ctx, SectionKind kind, uint32_t slot);
Err stage_read_all(StageCtx *ctx, SectionKind kind, uint32_t slot, const void **out);

// ---- The loop ----

// Joins a stage that has been opened to a run. control: NULL for --inline (no bells are rung).
// fault: what tests ask for (fault.h), NULL = nothing.
Err stage_ctx_new(StageCtx **out, const Stage *stage, void *self, const Config *cfg, int replica,
                  Run *run, Control *control, const Fault *fault);
void stage_ctx_free(StageCtx *ctx); // NULL is fine; closes neither stage nor run

// Runs at most one step, or one update. *worked = false when nothing is runnable.
Err stage_poll(StageCtx *ctx, bool *worked);

// The whole of a stage's main.c:
//     int main(int argc, char **argv) { return stage_main(&sampler_stage, argc, argv); }
// Arguments come from the launcher: `--plan CONF` prints the stage's plan (stage_plan.h) and table, and
// `--run DIR --replica K --incarnation N --fds LIST` joins a run. Ends with the exit status of err.h.
int stage_main(const Stage *stage, int argc, char **argv);

#endif
