// generator: two stages polled in turn over one slot.
#include "launch/tool/generator.h"

#include <stdlib.h>
#include <string.h>

#include "common/proc/stage.h"
#include "decoder/decoder.h"
#include "sampler/sampler.h"

static const Stage *const stages[] = {
    [STAGE_SAMPLER] = &sampler_stage, [STAGE_DECODER] = &decoder_stage};
enum { STAGES = 2 };

struct Generator {
    Config cfg; // the caller's, with the settings below; owns nothing
    void *self[STAGES];
    StagePlan plan[STAGE_CNT];
    StageCtx *ctx[STAGES];
    Run run;
};

// One slot whose videos are kept, nothing that only training needs.
static Config settings(const Config *cfg, int threads) {
    Config c = *cfg;
    c.sampler_threads = c.decoder_threads = threads;
    c.sampler_replicas = c.decoder_replicas = c.rewarder_replicas = 1;
    c.slots = c.preview_every = 1;
    c.reward_cnt = 0;
    return c;
}

static Err open_stages(Generator *g, bool dry) {
    for (int i = 0; i < STAGES; i++)
        TRY(stages[i]->open(&g->cfg, 0, dry, NULL, &g->self[i], &g->plan[i]));
    return ERR_OK;
}

static Err open_run(Generator *g) {
    SectionTable table;
    BoardSpec board;
    char numerics[512];
    TRY(stage_plan_combine(g->plan, &g->cfg, &table, &board, numerics));
    TRY(run_create(&g->run, &g->cfg, &table, NULL, NULL));
    for (int i = 0; i < STAGES; i++)
        TRY(stage_ctx_new(&g->ctx[i], stages[i], g->self[i], &g->cfg, 0, &g->run, NULL, NULL));
    return ERR_OK;
}

static Generator *make(const Config *cfg, int threads) {
    Generator *g = calloc(1, sizeof *g);
    die_unless(g, "generator: out of memory");
    g->cfg = settings(cfg, threads);
    return g;
}

Err generator_open(Generator **out, const Config *cfg, int threads) {
    Generator *g = make(cfg, threads);
    Err err = open_stages(g, false);
    if (!err) err = open_run(g);
    if (err) {
        generator_close(g);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = g;
    return ERR_OK;
}

void generator_close(Generator *g) {
    if (!g) return;
    for (int i = 0; i < STAGES; i++) {
        stage_ctx_free(g->ctx[i]);
        if (g->self[i]) stages[i]->close(g->self[i]);
        stage_plan_fini(&g->plan[i]);
    }
    if (g->run.state) run_leave(&g->run);
    free(g);
}

Err generator_memory(const Config *cfg, int threads, uint64_t *bytes) {
    Generator *g = make(cfg, threads);
    Err err = open_stages(g, true);
    *bytes = 0;
    for (int i = 0; i < STAGES; i++) *bytes += stage_plan_memory_bytes(&g->plan[i]);
    generator_close(g);
    return err;
}

Lora *generator_lora(Generator *g) { return sampler_lora(g->self[STAGE_SAMPLER]); }

static Err play(Generator *g) {
    for (bool any = true; any;) {
        any = false;
        for (int i = 0; i < STAGES; i++) {
            bool worked;
            TRY(stage_poll(g->ctx[i], &worked));
            any |= worked;
        }
    }
    return ERR_OK;
}

// All blocks are ours, so that none is staged.
static const float *sections(Generator *g, SectionKind kind, uint32_t segment, uint32_t cnt) {
    const void *data;
    Err err = run_read(&g->run, kind, 0, segment, cnt, &data);
    die_unless(!err, "generator: %s", err_text());
    return data;
}

Err generator_run(Generator *g, const SlotHeader *header, float *frames) {
    Slot *slot = &g->run.state->slot[0];
    size_t part = g->run.state->table.bytes[SECTION_PREVIEW];
    die_unless(header->purpose != SLOT_TRAIN, "generator: a sample for training");
    slot_reset(slot, 1, ITINERARY_DONE);
    slot_publish(slot, 1, header);
    TRY(play(g));
    for (uint32_t k = 0; k < (uint32_t)g->cfg.segments; k++)
        memcpy((char *)frames + k * part, sections(g, SECTION_PREVIEW, k, 1), part);
    return ERR_OK;
}

const float *generator_pictures(Generator *g) {
    return sections(g, SECTION_PIXELS, 0, (uint32_t)g->cfg.segments);
}

Err generator_embed(Generator *g, const float *pixels, float *embedding) {
    return sampler_embed(g->self[STAGE_SAMPLER], pixels, embedding);
}

int64_t generator_embed_dim(const Generator *g) {
    return sampler_embed_dim(g->self[STAGE_SAMPLER]);
}
