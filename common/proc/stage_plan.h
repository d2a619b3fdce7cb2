// stage_plan: what a stage says about itself before a run is made, and how that crosses to the launcher.
//
// The launcher links no tensor code; it asks each stage binary with `--plan CONF` and reads one JSON
// object from its standard output: section sizes, memory, operation counts and, from the learner, the table of
// adapter modules.
#ifndef COMMON_PROC_STAGE_PLAN_H
#define COMMON_PROC_STAGE_PLAN_H

#include <stdint.h>
#include <stdio.h>

#include "common/config/config.h"
#include "common/proc/itinerary.h"
#include "common/transport/board.h"
#include "common/transport/section.h"

// What the memory of a process is for.
// clang-format off
#define STAGE_MEMORY_TABLE(X)                                                    \
    X(PACKED,      packed,      "weights as the kernels want them")              \
    X(ACTIVATIONS, activations, "at the peak of each compiled plan, summed up")  \
    X(GRADIENTS,   gradients,   "likewise")                                      \
    X(WORKSPACE,   workspace,   "of the kernels, and gaps")                      \
    X(BUFFERS,     buffers,     "inputs, outputs, and what a stage keeps beside its plans")
// clang-format on

typedef enum StageMemory {
#define X(name, key, what) STAGE_MEMORY_##name,
    STAGE_MEMORY_TABLE(X)
#undef X
        STAGE_MEMORY_CNT,
} StageMemory;

typedef struct StagePlan {
    uint64_t section_bytes[SECTION_CNT]; // of the sections whose size this stage knows; else 0
    uint64_t memory[STAGE_MEMORY_CNT];   // of this process
    uint64_t mapped_bytes;               // weights read through the page cache
    double flops[STEP_CNT];              // of one step of each kind
    int threads;                         // of one process
    char numerics[256];                  // fingerprint: what decides the bits
    uint64_t weights_hash;               // of its models
    int window_at, window_steps; // learner only: first step (-1: random per rollout) and length
    double window_gain;          // learner only: sum of the gains of its steps; random: 0
    BoardSpec board;             // learner only: theta_cnt, module_cnt, rank, alpha
    BoardModule *modules;        // learner only, malloc'd
} StagePlan;

const char *stage_plan_memory_name(StageMemory kind); // "packed"
// All of it, without what is mapped.
uint64_t stage_plan_memory_bytes(const StagePlan *plan);

void stage_plan_write(const StagePlan *plan, FILE *out);
// ERR_FORMAT if the text is not such an object; *plan is then empty. After success it goes to stage_plan_fini.
Err stage_plan_read(StagePlan *plan, const char *text, size_t len);
void stage_plan_fini(StagePlan *plan);

// Adds up the plans of all stages: the table, laid out; the learner's board spec with the config's rollouts and
// lag; and the numerics and weights of all, for the ledger. Two stages may state the same section: sizes must agree
// (ERR_SHAPE).
Err stage_plan_combine(const StagePlan plan[STAGE_CNT], const Config *cfg, SectionTable *table,
                       BoardSpec *board, char numerics[512]);

#endif
