// stage_plan: one JSON object out, the same in.
#include "common/proc/stage_plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/format/json.h"
#include "common/proc/run.h"

const char *stage_plan_memory_name(StageMemory kind) {
    static const char *const names[STAGE_MEMORY_CNT] = {
#define X(name, key, what) #key,
        STAGE_MEMORY_TABLE(X)
#undef X
    };
    return names[kind];
}

uint64_t stage_plan_memory_bytes(const StagePlan *p) {
    uint64_t sum = 0;
    for (int k = 0; k < STAGE_MEMORY_CNT; k++) sum += p->memory[k];
    return sum;
}

static void write_text(FILE *out, const char *key, const char *text) {
    Arena a = {0};
    const char *quoted = json_quote(&a, text);
    fprintf(out, "\"%s\": %s", key, quoted ? quoted : "\"\"");
    arena_free(&a);
}

void stage_plan_write(const StagePlan *p, FILE *out) {
    fputs("{", out);
    for (int k = 0; k < SECTION_CNT; k++)
        fprintf(out, "\"section_%s\": %llu, ", section_name((SectionKind)k),
                (unsigned long long)p->section_bytes[k]);
    for (int k = 0; k < STEP_CNT; k++)
        fprintf(out, "\"flops_%s\": %.17g, ", itinerary_step_name((StepKind)k), p->flops[k]);
    for (int k = 0; k < STAGE_MEMORY_CNT; k++)
        fprintf(out, "\"memory_%s\": %llu, ", stage_plan_memory_name((StageMemory)k),
                (unsigned long long)p->memory[k]);
    fprintf(out, "\"mapped_bytes\": %llu, \"threads\": %d, ", (unsigned long long)p->mapped_bytes,
            p->threads);
    write_text(out, "numerics", p->numerics);
    fprintf(out, ", \"weights_hash\": \"%016" PRIx64 "\"", p->weights_hash);
    const BoardSpec *b = &p->board;
    fprintf(out, ", \"window\": [%d, %d], \"window_gain\": %.17g", p->window_at, p->window_steps,
            p->window_gain);
    fprintf(out, ", \"theta_cnt\": %lld, \"rank\": %u, \"alpha\": %.17g, \"modules\": {",
            (long long)b->theta_cnt, b->rank, b->alpha);
    for (uint32_t i = 0; i < b->module_cnt; i++) {
        const BoardModule *m = &p->modules[i];
        fprintf(out, "%s\n\"%s\": [%lld, %lld, %lld, %lld, %u]", i ? "," : "", m->path,
                (long long)m->in, (long long)m->out, (long long)m->a_at, (long long)m->b_at,
                m->dead);
    }
    fputs("}}\n", out);
}

static Err read_u64(Json *j, const char *key, uint64_t *out) {
    int64_t v = 0;
    TRY(json_want_i64(j, key, &v));
    if (v < 0) FAIL(ERR_FORMAT, "%s: %s is %lld", json_label(j), key, (long long)v);
    *out = (uint64_t)v;
    return ERR_OK;
}

static Err read_modules(StagePlan *p, Json *modules) {
    size_t cnt = json_count(modules);
    if (cnt > 65536) FAIL(ERR_FORMAT, "%s: %zu modules", json_label(modules), cnt);
    p->modules = calloc(cnt + 1, sizeof *p->modules);
    die_unless(p->modules, "stage plan: out of memory for %zu modules", cnt);
    void *it = NULL;
    for (const char *path; (path = json_next(modules, &it));) {
        int64_t v[5];
        int got;
        TRY(json_want_i64s(modules, path, v, 5, &got));
        BoardModule *m = &p->modules[p->board.module_cnt++];
        if (got != 5 || strlen(path) >= sizeof m->path)
            FAIL(ERR_FORMAT, "%s: module %s is malformed", json_label(modules), path);
        *m = (BoardModule){
            .in = v[0], .out = v[1], .a_at = v[2], .b_at = v[3], .dead = (uint32_t)v[4]};
        memcpy(m->path, path, strlen(path) + 1);
    }
    return ERR_OK;
}

static Err read_object(StagePlan *p, Json *j) {
    char key[64];
    for (int k = 0; k < SECTION_CNT; k++) {
        snprintf(key, sizeof key, "section_%s", section_name((SectionKind)k));
        TRY(read_u64(j, key, &p->section_bytes[k]));
    }
    for (int k = 0; k < STEP_CNT; k++) {
        snprintf(key, sizeof key, "flops_%s", itinerary_step_name((StepKind)k));
        TRY(json_want_f64(j, key, &p->flops[k]));
    }
    for (int k = 0; k < STAGE_MEMORY_CNT; k++) {
        snprintf(key, sizeof key, "memory_%s", stage_plan_memory_name((StageMemory)k));
        TRY(read_u64(j, key, &p->memory[k]));
    }
    TRY(read_u64(j, "mapped_bytes", &p->mapped_bytes));
    TRY(json_want_int(j, "threads", &p->threads));
    const char *numerics, *weights;
    TRY(json_want_str(j, "numerics", &numerics));
    snprintf(p->numerics, sizeof p->numerics, "%s", numerics);
    TRY(json_want_str(j, "weights_hash", &weights));
    char *end;
    p->weights_hash = strtoull(weights, &end, 16);
    if (end != weights + 16 || *end)
        FAIL(ERR_FORMAT, "%s: weights_hash is \"%s\", want 16 hexadecimal digits", json_label(j),
             weights);
    int rank = 0;
    Json *modules;
    int64_t window[2];
    int got;
    TRY(json_want_i64s(j, "window", window, 2, &got));
    if (got != 2) FAIL(ERR_FORMAT, "%s: window has %d numbers", json_label(j), got);
    p->window_at = (int)window[0];
    p->window_steps = (int)window[1];
    TRY(json_want_f64(j, "window_gain", &p->window_gain));
    TRY(json_want_i64(j, "theta_cnt", &p->board.theta_cnt));
    TRY(json_want_int(j, "rank", &rank));
    TRY(json_want_f64(j, "alpha", &p->board.alpha));
    p->board.rank = (uint32_t)rank;
    TRY(json_want_object(j, "modules", &modules));
    TRY(read_modules(p, modules));
    return json_finish(j, NULL);
}

Err stage_plan_read(StagePlan *p, const char *text, size_t len) {
    Json *j;
    *p = (StagePlan){0};
    TRY(json_open_text(&j, "stage plan", text, len));
    Err err = read_object(p, j);
    json_close(j);
    if (err) stage_plan_fini(p);
    return err;
}

void stage_plan_fini(StagePlan *p) {
    free(p->modules);
    *p = (StagePlan){0};
}

static Err merge(SectionTable *table, const StagePlan *p, StageKind from) {
    for (int k = 0; k < SECTION_CNT; k++) {
        uint64_t have = table->bytes[k], new = p->section_bytes[k];
        if (have && new &&have != new)
            FAIL(
                ERR_SHAPE,
                "section %s: the %s wants %llu bytes, another stage %llu: the models do not fit together",
                section_name((SectionKind)k), itinerary_stage_name(from), (unsigned long long)new,
                (unsigned long long)have);
        if (new) table->bytes[k] = new;
    }
    return ERR_OK;
}

Err stage_plan_combine(const StagePlan plan[STAGE_CNT], const Config *cfg, SectionTable *table,
                       BoardSpec *board, char numerics[512]) {
    int n = 0;
    *table = (SectionTable){.slots = run_slot_count(cfg), .segments = (uint32_t)cfg->segments};
    memset(numerics, 0, 512);
    for (int s = 0; s < STAGE_CNT; s++) {
        TRY(merge(table, &plan[s], (StageKind)s));
        if (n < 512)
            n += snprintf(numerics + n, (size_t)(512 - n), "%s%s: %s weights %016" PRIx64,
                          s ? "; " : "", itinerary_stage_name((StageKind)s), plan[s].numerics,
                          plan[s].weights_hash);
    }
    section_layout(table);
    *board = plan[STAGE_LEARNER].board;
    board->rollouts = (uint32_t)cfg->rollouts;
    board->lag = (uint32_t)cfg->lag;
    return ERR_OK;
}
