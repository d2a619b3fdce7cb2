// setup: threads, device, plans.
#define _GNU_SOURCE
#include "common/stages/setup.h"

#include <sched.h>
#include <xxhash.h>

int setup_cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

int setup_threads(const Config *cfg, StageKind stage) {
    const int64_t asked[STAGE_CNT] = {cfg->sampler_threads, cfg->decoder_threads,
                                      cfg->rewarder_threads, cfg->learner_threads};
    if (asked[stage]) return (int)asked[stage];
    int cores = setup_cores();
    int64_t processes = cfg->sampler_replicas + cfg->decoder_replicas + cfg->rewarder_replicas + 1;
    return cores > processes ? cores / (int)processes : 1;
}

Err setup_backend(Backend **out, const Config *cfg, StageKind stage) {
    return backend_open(out, "cpu",
                        (BackendOptions){.threads = setup_threads(cfg, stage),
                                         .pack_weights = cfg->weights == CONFIG_WEIGHTS_PACKED,
                                         .exact = cfg->exact});
}

Err setup_plan(Plan **out, Graph *g, Backend *be, const Config *cfg, bool dry, const char *title,
               FILE *table) {
    TRY(plan_new(out, g, be, (PlanOptions){.dry = dry, .check = cfg->check_numerics}));
    if (table) {
        fprintf(table, "%s: ", title);
        plan_print(*out, table);
    }
    return ERR_OK;
}

void setup_note_plan(StagePlan *sp, const Plan *plan) {
    const PlanMemory *m = plan_memory(plan);
    uint64_t activations = m->peak_bytes[KIND_ACTIVATION], gradients = m->peak_bytes[KIND_GRADIENT];
    sp->memory[STAGE_MEMORY_ACTIVATIONS] += activations;
    sp->memory[STAGE_MEMORY_GRADIENTS] += gradients;
    sp->memory[STAGE_MEMORY_WORKSPACE] += m->arena_bytes - activations - gradients;
    sp->memory[STAGE_MEMORY_BUFFERS] += m->io_bytes;
    sp->mapped_bytes = m->weight_bytes > sp->mapped_bytes ? m->weight_bytes : sp->mapped_bytes;
}

void setup_note_weights(StagePlan *sp, const Graph *g) {
    uint64_t both[2] = {sp->weights_hash, g->weights_hash};
    sp->weights_hash = XXH3_64bits(both, sizeof both);
}

void setup_note_backend(StagePlan *sp, Backend *be, uint64_t packed_bytes) {
    sp->memory[STAGE_MEMORY_PACKED] += packed_bytes;
    sp->threads = be->opt.threads;
    be->fingerprint(be, sp->numerics, sizeof sp->numerics);
}
