// forecast: events in virtual time.
#include "common/proc/forecast.h"

#include <math.h>
#include <stdlib.h>

#include "common/base/err.h"
#include "common/proc/run.h"

enum { FREE = -1, UPDATE = -2, UPDATES = 24, WORK_MAX = 400000000 };

typedef struct PlaySlot {
    uint64_t sample;
    int step; // FREE, or an index into the itinerary
    bool busy;
} PlaySlot;

typedef struct PlayProcess {
    StageKind stage;
    uint32_t replica;
    int doing;      // a slot, UPDATE, or FREE
    double until_s; // while it does
} PlayProcess;

typedef struct Play {
    const ForecastSpec *spec;
    Itinerary it;
    PlaySlot *slot;
    PlayProcess process[RUN_PROCESSES_MAX];
    int process_cnt;
    double now_s;
    uint64_t version, next_sample;
    uint32_t learned; // samples of the current update that are done
} Play;

// ---- Turns ----

static bool version_allows(const Play *p, StepKind kind, uint64_t update) {
    if (kind == STEP_SAMPLE) return p->version + p->spec->lag >= update;
    return (kind != STEP_DENOISE && kind != STEP_LEARN) || p->version == update;
}

static bool find_turn(const Play *p, const PlayProcess *who, int *slot) {
    ItineraryTurn best = {0};
    *slot = FREE;
    for (uint32_t i = who->replica; i < p->spec->slots;
         i += (uint32_t)p->spec->replicas[who->stage]) {
        const PlaySlot *s = &p->slot[i];
        if (s->step == FREE || s->busy) continue;
        ItineraryStep step = p->it.step[s->step];
        ItineraryTurn turn = {.update = s->sample / p->spec->rollouts,
                              .sample = s->sample,
                              .kind = step.kind,
                              .step = (uint32_t)s->step};
        if (step.stage != who->stage || !version_allows(p, step.kind, turn.update)) continue;
        if (*slot != FREE && !itinerary_before(&turn, &best)) continue;
        best = turn;
        *slot = (int)i;
    }
    return *slot != FREE;
}

static void begin(Play *p, PlayProcess *who) {
    const double *step_s = p->spec->step_s;
    int slot;
    if (who->stage == STAGE_LEARNER && p->learned == p->spec->rollouts) {
        who->doing = UPDATE;
        who->until_s = p->now_s + step_s[STEP_CNT];
    } else if (find_turn(p, who, &slot)) {
        who->doing = slot;
        who->until_s = p->now_s + step_s[p->it.step[p->slot[slot].step].kind];
        p->slot[slot].busy = true;
    }
}

static void finish(Play *p, PlayProcess *who) {
    if (who->doing == UPDATE) {
        p->version++;
        p->learned = 0;
    } else {
        PlaySlot *s = &p->slot[who->doing];
        s->busy = false;
        if (++s->step == p->it.cnt) {
            s->step = FREE;
            p->learned++;
        }
    }
    who->doing = FREE;
}

static void admit(Play *p) {
    for (;; p->next_sample++) { // without end: a run that drains would end faster than it goes on
        PlaySlot *s = &p->slot[p->next_sample % p->spec->slots];
        if (s->step != FREE) return;
        *s = (PlaySlot){.sample = p->next_sample};
    }
}

// To the next moment at which something is finished.
static void advance(Play *p) {
    double next = INFINITY;
    admit(p);
    for (int i = 0; i < p->process_cnt; i++) {
        PlayProcess *who = &p->process[i];
        if (who->doing == FREE) begin(p, who);
        if (who->doing != FREE && who->until_s < next) next = who->until_s;
    }
    die_unless(next < INFINITY, "forecast: nothing goes on at version %llu",
               (unsigned long long)p->version);
    p->now_s = next;
    for (int i = 0; i < p->process_cnt; i++)
        if (p->process[i].doing != FREE && p->process[i].until_s <= next) finish(p, &p->process[i]);
}

// ---- A run ----

static void add_processes(Play *p) {
    for (int s = 0; s < STAGE_CNT; s++)
        for (int r = 0; r < p->spec->replicas[s]; r++) {
            die_unless(p->process_cnt < RUN_PROCESSES_MAX, "forecast: too many processes");
            p->process[p->process_cnt++] =
                (PlayProcess){.stage = (StageKind)s, .replica = (uint32_t)r, .doing = FREE};
        }
}

// Enough updates for the pipeline to fill, fewer of large ones.
static uint64_t updates_of(const Play *p) {
    double one = (double)p->spec->rollouts * p->it.cnt * p->spec->slots;
    uint64_t least = 2 * p->spec->lag + 4, n = UPDATES;
    while (n > least && (double)n * one > WORK_MAX) n--;
    return n > least ? n : least;
}

static double play(Play *p) {
    uint64_t updates = updates_of(p), from = updates / 2;
    double from_s = 0;
    while (p->version < updates) {
        uint64_t before = p->version;
        advance(p);
        if (before < from && p->version == from) from_s = p->now_s;
    }
    return (p->now_s - from_s) / (double)(updates - from);
}

static void add_work(Forecast *f, const ForecastSpec *spec, const Itinerary *it) {
    for (int i = 0; i < it->cnt; i++)
        f->work_s[it->step[i].stage] +=
            spec->step_s[it->step[i].kind] * spec->rollouts / spec->replicas[it->step[i].stage];
    for (int s = 0; s < STAGE_CNT; s++)
        if (f->work_s[s] > f->work_s[f->bound]) f->bound = (StageKind)s;
}

void forecast_spec(ForecastSpec *out, const Config *cfg) {
    *out = (ForecastSpec){.segments = (int)cfg->segments,
                          .sampler_handover = cfg->handover == CONFIG_HANDOVER_SAMPLER,
                          .rollouts = (uint32_t)cfg->rollouts,
                          .lag = (uint32_t)cfg->lag,
                          .slots = run_slot_count(cfg),
                          .replicas = {(int)cfg->sampler_replicas, (int)cfg->decoder_replicas,
                                       (int)cfg->rewarder_replicas, 1}};
}

Forecast forecast_make(const ForecastSpec *spec) {
    Forecast f = {0};
    Play p = {.spec = spec,
              .it = itinerary_make((ItinerarySpec){.segments = spec->segments,
                                                   .image_to_video = true,
                                                   .sampler_handover = spec->sampler_handover})};
    p.slot = calloc(spec->slots, sizeof *p.slot);
    die_unless(p.slot, "forecast: out of memory for %u slots", spec->slots);
    for (uint32_t i = 0; i < spec->slots; i++) p.slot[i].step = FREE;
    add_processes(&p);
    add_work(&f, spec, &p.it);
    f.update_s = play(&p);
    free(p.slot);
    return f;
}
