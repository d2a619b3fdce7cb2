// stage: the one loop that sampler, decoder, rewarder and learner share.
//
// A stage is a table of callbacks; the loop does everything else: joining the run, finding runnable
// steps, epochs, doorbells, control messages, metrics, spans, parent death. The same callbacks serve the
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

#include "common/config/config.h"
#include "common/proc/itinerary.h"
#include "common/transport/board.h"
#include "common/transport/section.h"
#include "common/transport/slot.h"

typedef struct StageCtx StageCtx;

// What a stage says before a run is made: section sizes it decides, its memory, the adapter's table.
typedef struct StagePlan {
    uint64_t section_bytes[SECTION_CNT]; // of the sections whose size this stage knows; else 0
    uint64_t memory_bytes;               // peak of this process, packed weights included
    uint64_t mapped_bytes;               // weights read through the page cache
    double flops[STEP_CNT];              // per step of each kind
    char numerics[256];                  // fingerprint: what decides the bits
    BoardSpec board;                     // learner only: theta_cnt, module_cnt, rank, alpha
    BoardModule *modules;                // learner only, malloc'd
} StagePlan;

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
    // Loads models and compiles plans for the config; prints their tables to `table` when not NULL. No run exists yet.
    Err (*open)(const Config *cfg, int replica, FILE *table, void **self, StagePlan *plan);
    // The run's memory is mapped: bind what can be bound once.
    Err (*join)(void *self, StageCtx *ctx);
    Err (*run[STEP_CNT])(void *self, StageCtx *ctx, const StageStep *step); // NULL: not ours
    // Learner: all gradients of update u are there; writes version u + 1 to the board (the loop commits it).
    Err (*update)(void *self, StageCtx *ctx, uint64_t update);
    void (*close)(void *self);
} Stage;

// For callbacks.
const Config *stage_config(const StageCtx *ctx);
Board *stage_board(const StageCtx *ctx);
const SectionTable *stage_sections(const StageCtx *ctx);
// The section of a slot: for its writer, and for readers (memory local to this process's device).
void *stage_write(StageCtx *ctx, SectionKind kind, uint32_t slot, uint32_t segment);
const void *stage_read(StageCtx *ctx, SectionKind kind, uint32_t slot, uint32_t segment);

// The whole of a stage's main.c:  int main(int argc, char **argv) { return stage_main(&sampler_stage, argc, argv); }
// Arguments are written by the launcher: --run FD-table ..., or --plan CONF for a table and JSON on stdout.
int stage_main(const Stage *stage, int argc, char **argv);

#endif
