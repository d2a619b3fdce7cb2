// setup: what every stage does with a config before it loads its models: threads, device, plan options.
#ifndef COMMON_STAGES_SETUP_H
#define COMMON_STAGES_SETUP_H

#include "common/config/config.h"
#include "common/proc/itinerary.h"
#include "common/proc/stage_plan.h"
#include "common/tensor/plan.h"

// Cores that this process may use.
int setup_cores(void);

// Threads of one process of a stage: its key, or the cores we may use divided by all processes, at least 1.
int setup_threads(const Config *cfg, StageKind stage);

// Opens the device of a stage with the config's weights and exact settings. Caller closes.
Err setup_backend(Backend **out, const Config *cfg, StageKind stage);

// Compiles with the config's check_numerics; dry plans only fill their table. Prints the table under `title`.
Err setup_plan(Plan **out, Graph *g, Backend *be, const Config *cfg, bool dry, const char *title,
               FILE *table);

// Adds a compiled plan to what the stage needs: its arena, inputs and outputs, and weights read as stored.
void setup_note_plan(StagePlan *sp, const Plan *plan);
// Adds the weights of a model's graph to what the numbers of a run belong to. Once per model, however many plans.
void setup_note_weights(StagePlan *sp, const Graph *g);
// After the last plan: adds the packed weights of the device, once, and its fingerprint: what decides the bits.
void setup_note_backend(StagePlan *sp, Backend *be, uint64_t packed_bytes);

#endif
