// stage: choosing a runnable step, running it, publishing it, and waiting.
#include "common/proc/stage.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base/clock.h"

struct StageCtx {
    const Stage *stage;
    void *self;
    const Config *cfg;
    int replica;
    Run *run;
    Control *control;
    const Fault *fault;
    RunPage *page;
    RunTime doing;
    int64_t since_ns;
};

const Config *stage_config(const StageCtx *c) { return c->cfg; }
Board *stage_board(const StageCtx *c) { return c->run->board; }
const Run *stage_run(const StageCtx *c) { return c->run; }

static void check_writer(const StageCtx *c, SectionKind kind) {
    die_unless(section_writer(kind) == c->stage->kind, "the %s does not write %s",
               itinerary_stage_name(c->stage->kind), section_name(kind));
}

void *stage_write(StageCtx *c, SectionKind kind, uint32_t slot, uint32_t segment) {
    check_writer(c, kind);
    return run_write(c->run, kind, slot, segment, 1);
}

void *stage_write_all(StageCtx *c, SectionKind kind, uint32_t slot) {
    check_writer(c, kind);
    return run_write(c->run, kind, slot, 0, c->run->state->segments);
}

Err stage_read(StageCtx *c, SectionKind kind, uint32_t slot, uint32_t segment, const void **out) {
    return run_read(c->run, kind, slot, segment, 1, out);
}

Err stage_read_all(StageCtx *c, SectionKind kind, uint32_t slot, const void **out) {
    return run_read(c->run, kind, slot, 0, c->run->state->segments, out);
}

// ---- Accounting ----

#define PUT(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)
#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define BUMP(field, value) PUT(field, GET(field) + (value)) // one writer

// Books the time since the last call under what we were doing, and begins `next`.
static void account(StageCtx *c, RunTime next) {
    int64_t now = clock_ns();
    BUMP(c->page->time_ns[c->doing], (uint64_t)(now - c->since_ns));
    c->doing = next;
    c->since_ns = now;
    PUT(c->page->doing, next);
    PUT(c->page->since_ns, now);
}

static void record_span(StageCtx *c, int64_t start, StepKind kind, uint32_t segment,
                        uint64_t sample, uint32_t purpose) {
    RunPage *p = c->page;
    uint64_t n = GET(p->span_cnt);
    p->span[n % RUN_SPANS] =
        (RunSpan){start, clock_ns(), sample, (uint16_t)kind, (uint16_t)segment, purpose};
    atomic_store_explicit(&p->span_cnt, n + 1, memory_order_release);
}

// ---- Runnable steps ----

typedef struct Candidate {
    Slot *slot;
    uint32_t slot_idx;
    uint64_t word, version;
    ItineraryStep step;
} Candidate;

typedef enum Verdict { NOT_OURS, BLOCKED, RUNNABLE } Verdict;

static Verdict judge(const StageCtx *c, uint32_t idx, Candidate *out) {
    Slot *slot = &c->run->state->slot[idx];
    uint64_t word = slot_load(slot);
    uint32_t step = slot_step(word);
    if (step == ITINERARY_DONE || slot_epoch(word) != atomic_load(&c->run->state->epoch))
        return NOT_OURS;
    const Itinerary *it = run_itinerary(c->run, slot);
    if (step >= (uint32_t)it->cnt || it->step[step].stage != c->stage->kind) return NOT_OURS;
    *out = (Candidate){slot, idx, word, 0, it->step[step]};
    if (!c->run->board) return RUNNABLE;
    uint64_t now = board_version(c->run->board), update = slot->header.update,
             lag = c->run->state->lag;
    bool preview = slot->header.purpose != SLOT_TRAIN;
    switch (out->step.kind) {
    case STEP_SAMPLE:
        out->version = preview ? update : update > lag ? update - lag : 0;
        return now >= out->version ? RUNNABLE : BLOCKED;
    case STEP_DENOISE:
    case STEP_LEARN:
        out->version = update;
        die_unless(now <= update, "sample %llu of update %llu lives on at version %llu",
                   (unsigned long long)slot->header.sample, (unsigned long long)update,
                   (unsigned long long)now);
        return now == update ? RUNNABLE : BLOCKED;
    default: return RUNNABLE;
    }
}

static ItineraryTurn turn_of(const Candidate *c) {
    const SlotHeader *h = &c->slot->header;
    return (ItineraryTurn){h->update, h->sample, h->purpose != SLOT_TRAIN, c->step.kind,
                           slot_step(c->word)};
}

static bool comes_before(const Candidate *a, const Candidate *b) {
    ItineraryTurn x = turn_of(a), y = turn_of(b);
    return itinerary_before(&x, &y);
}

// *blocked: a step of ours waits for a version.
static bool find_step(const StageCtx *c, Candidate *best, bool *blocked) {
    const RunState *s = c->run->state;
    bool found = false;
    *blocked = false;
    for (uint32_t i = (uint32_t)c->replica; i < s->slot_cnt; i += s->replicas[c->stage->kind]) {
        Candidate one;
        Verdict v = judge(c, i, &one);
        *blocked |= v == BLOCKED;
        if (v != RUNNABLE || (found && !comes_before(&one, best))) continue;
        *best = one;
        found = true;
    }
    return found;
}

// All gradients of the current version are there, its state is durable, and no slot works for it any more.
static bool update_runnable(const StageCtx *c, uint64_t *update) {
    const RunState *s = c->run->state;
    if (!c->stage->update || !c->run->board) return false;
    uint64_t u = *update = board_version(c->run->board);
    if (u >= (uint64_t)c->cfg->updates || board_durable(c->run->board) != u ||
        !board_update_ready(c->run->board, u))
        return false;
    for (uint32_t i = 0; i < s->slot_cnt; i++)
        if (slot_step(slot_load(&s->slot[i])) != ITINERARY_DONE && s->slot[i].header.update == u)
            return false;
    return true;
}

// ---- Running ----

static void ring(StageCtx *c, StageKind stage, uint32_t slot) {
    int replica = (int)(slot % c->run->state->replicas[stage]);
    if (c->control) control_ring(c->control, run_bell(c->run, stage, replica));
}

static void ring_launcher(StageCtx *c) {
    if (c->control) control_ring(c->control, c->run->state->launcher_bell);
}

// Advances the slot and tells whoever comes next. The fence makes plain stores to sections visible first.
static void publish(StageCtx *c, const Candidate *k) {
    const Itinerary *it = run_itinerary(c->run, k->slot);
    uint32_t next = slot_step(k->word) + 1;
    bool last = next == (uint32_t)it->cnt, preview = k->slot->header.purpose != SLOT_TRAIN;
    atomic_thread_fence(memory_order_seq_cst);
    if (!slot_advance(k->slot, k->word, last && !preview ? ITINERARY_DONE : next)) {
        BUMP(c->page->dropped, 1);
        return;
    }
    if (last)
        ring_launcher(c);
    else if (it->step[next].stage != c->stage->kind)
        ring(c, it->step[next].stage, k->slot_idx);
}

static Err run_step(StageCtx *c, const Candidate *k) {
    StepKind kind = k->step.kind;
    uint32_t segment = (uint32_t)k->step.segment;
    uint64_t sample = k->slot->header.sample;
    die_unless(c->stage->run[kind], "the %s has no %s", itinerary_stage_name(c->stage->kind),
               itinerary_step_name(kind));
    PUT(c->page->step, kind);
    PUT(c->page->segment, (int32_t)segment);
    PUT(c->page->sample, sample);
    account(c, RUN_BUSY);
    int64_t start = c->since_ns;
    fault_at(c->fault, FAULT_BEFORE, kind, segment, sample);
    TRY(fault_error(c->fault, kind, segment, sample));
    StageStep step = {kind, k->slot_idx, segment, &k->slot->header, k->slot, k->version};
    TRY(c->stage->run[kind](c->self, c, &step));
    run_release(c->run);
    fault_at(c->fault, FAULT_AFTER, kind, segment, sample);
    publish(c, k);
    fault_at(c->fault, FAULT_COMMIT, kind, segment, sample);
    record_span(c, start, kind, segment, sample, k->slot->header.purpose);
    account(c, RUN_HOUSEKEEPING);
    BUMP(c->page->steps[kind], 1);
    BUMP(c->page->step_ns[kind], (uint64_t)(c->since_ns - start));
    return ERR_OK;
}

static Err run_update(StageCtx *c, uint64_t update) {
    PUT(c->page->step, STEP_CNT);
    PUT(c->page->sample, update);
    account(c, RUN_BUSY);
    int64_t start = c->since_ns;
    fault_at(c->fault, FAULT_BEFORE, STEP_CNT, 0, update);
    TRY(c->stage->update(c->self, c, update));
    fault_at(c->fault, FAULT_AFTER, STEP_CNT, 0, update);
    atomic_thread_fence(memory_order_seq_cst);
    board_commit(c->run->board, update + 1);
    fault_at(c->fault, FAULT_COMMIT, STEP_CNT, 0, update);
    for (uint32_t i = 0; i < c->run->state->replicas[STAGE_SAMPLER]; i++) ring(c, STAGE_SAMPLER, i);
    ring_launcher(c);
    record_span(c, start, STEP_CNT, 0, update, SLOT_TRAIN);
    account(c, RUN_HOUSEKEEPING);
    return ERR_OK;
}

static void note_bytes(StageCtx *c) {
    struct rusage usage;
    if (c->control) PUT(c->page->sent_bytes, control_sent_bytes(c->control));
    if (!getrusage(RUSAGE_SELF, &usage)) PUT(c->page->peak_bytes, (uint64_t)usage.ru_maxrss * 1024);
}

Err stage_poll(StageCtx *c, bool *worked) {
    Candidate k = {0};
    uint64_t update;
    bool blocked;
    *worked = true;
    if (update_runnable(c, &update)) {
        TRY(run_update(c, update));
    } else if (find_step(c, &k, &blocked)) {
        TRY(run_step(c, &k));
    } else {
        *worked = false;
        account(c, blocked ? RUN_WAIT_ROOM : RUN_WAIT_INPUT);
        return ERR_OK;
    }
    note_bytes(c);
    return ERR_OK;
}

Err stage_ctx_new(StageCtx **out, const Stage *stage, void *self, const Config *cfg, int replica,
                  Run *run, Control *control, const Fault *fault) {
    StageCtx *c = calloc(1, sizeof *c);
    die_unless(c, "stage: out of memory");
    *c = (StageCtx){.stage = stage,
                    .self = self,
                    .cfg = cfg,
                    .replica = replica,
                    .run = run,
                    .control = control,
                    .fault = fault};
    c->page = &run->page[run_page_index(run, stage->kind, replica)];
    c->since_ns = clock_ns();
    c->doing = RUN_HOUSEKEEPING;
    PUT(c->page->stage, (int32_t)stage->kind);
    PUT(c->page->replica, replica);
    note_bytes(c);
    Err err = stage->join ? stage->join(self, c) : ERR_OK;
    if (err) {
        free(c);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = c;
    return ERR_OK;
}

void stage_ctx_free(StageCtx *c) { free(c); }
