// fault: parsing the spec and doing the harm.
#include "common/proc/fault.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

typedef enum Harm { HARM_KILL, HARM_FAIL } Harm;

typedef struct Rule {
    Harm harm;
    FaultPhase phase;
    StepKind kind; // STEP_CNT = update
    uint32_t segment;
    uint64_t sample;
} Rule;

enum { RULES_MAX = 16 };

struct Fault {
    Rule rule[RULES_MAX];
    int rule_cnt;
    uint64_t delay_state; // 0 = no delays
    int64_t delay_max_us;
    ControlDisturb messages;
};

static bool parse_kind(const char *name, StepKind *out) {
    for (int k = 0; k < STEP_CNT; k++)
        if (!strcmp(name, itinerary_step_name((StepKind)k))) return *out = (StepKind)k, true;
    *out = STEP_CNT;
    return !strcmp(name, "update");
}

// "denoise.1@5" or "score@2"
static bool parse_place(const char *text, Rule *r) {
    char name[32];
    unsigned long long sample;
    unsigned segment = 0;
    if (sscanf(text, "%31[a-z].%u@%llu", name, &segment, &sample) != 3 &&
        sscanf(text, "%31[a-z]@%llu", name, &sample) != 2)
        return false;
    r->segment = segment;
    r->sample = sample;
    return parse_kind(name, &r->kind);
}

static Err parse_word(Fault *f, char *word, int incarnation) {
    unsigned long long seed;
    long long most;
    if (sscanf(word, "delay:%llu:%lld", &seed, &most) == 2) {
        f->delay_state = seed * 2 + 1 + (uint64_t)incarnation * 1000003;
        f->delay_max_us = most;
        return ERR_OK;
    }
    ControlDisturb m = {.all = !strncmp(word, "messages:", 9)};
    if (sscanf(word, m.all ? "messages:%u:%u:%u" : "bells:%u:%u:%u", &m.drop, &m.twice, &m.delay) ==
        3) {
        f->messages = m;
        return ERR_OK;
    }
    Rule r = {0};
    char *phase = NULL, *place = NULL;
    bool kill = !strncmp(word, "kill:", 5), always = !strncmp(word, "crash:", 6);
    if (kill || always) {
        r.harm = HARM_KILL;
        place = strchr(word, ':') + 1;
        phase = strchr(place, ':');
        if (!phase)
            FAIL(ERR_USAGE, "fault %s: want kill:<step>.<segment>@<sample>:before|after|commit",
                 word);
        *phase++ = 0;
        r.phase = !strcmp(phase, "before")  ? FAULT_BEFORE
                  : !strcmp(phase, "after") ? FAULT_AFTER
                                            : FAULT_COMMIT;
        if (r.phase == FAULT_COMMIT && strcmp(phase, "commit"))
            FAIL(ERR_USAGE, "fault phase %s: want before, after or commit", phase);
    } else if (!strncmp(word, "fail:", 5)) {
        r.harm = HARM_FAIL;
        place = word + 5;
    }
    if (!place || !parse_place(place, &r))
        FAIL(ERR_USAGE, "fault \"%s\" is not known (see fault.h)", word);
    if (f->rule_cnt == RULES_MAX) FAIL(ERR_USAGE, "more than %d faults", RULES_MAX);
    if (!kill || incarnation == 0) f->rule[f->rule_cnt++] = r;
    return ERR_OK;
}

Err fault_parse(Fault **out, const char *spec, int incarnation) {
    *out = NULL;
    if (!spec || !*spec) return ERR_OK;
    Fault *f = calloc(1, sizeof *f);
    char *copy = strdup(spec), *rest = copy;
    die_unless(f && copy, "fault: out of memory");
    Err err = ERR_OK;
    for (char *word; !err && (word = strsep(&rest, " ,"));)
        if (*word) err = parse_word(f, word, incarnation);
    free(copy);
    if (err) {
        free(f);
        return err;
    }
    *out = f;
    return ERR_OK;
}

void fault_free(Fault *f) { free(f); }

static const Rule *find(const Fault *f, Harm harm, StepKind kind, uint32_t segment,
                        uint64_t sample) {
    for (int i = 0; f && i < f->rule_cnt; i++) {
        const Rule *r = &f->rule[i];
        if (r->harm == harm && r->kind == kind && r->segment == segment && r->sample == sample)
            return r;
    }
    return NULL;
}

static void random_delay(const Fault *f) {
    static _Thread_local uint64_t state;
    if (!state) state = f->delay_state * 0x9e3779b97f4a7c15u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    clock_sleep_ns((int64_t)(state % (uint64_t)(f->delay_max_us + 1)) * 1000);
}

void fault_at(const Fault *f, FaultPhase phase, StepKind kind, uint32_t segment, uint64_t sample) {
    if (!f) return;
    const Rule *r = find(f, HARM_KILL, kind, segment, sample);
    if (r && r->phase == phase) raise(SIGKILL);
    if (f->delay_state && phase != FAULT_COMMIT) random_delay(f);
}

Err fault_error(const Fault *f, StepKind kind, uint32_t segment, uint64_t sample) {
    if (find(f, HARM_FAIL, kind, segment, sample))
        FAIL(ERR_DEVICE, "fault: this step was told to fail");
    return ERR_OK;
}

bool fault_messages(const Fault *f, ControlDisturb *how) {
    if (!f || !(f->messages.drop | f->messages.twice | f->messages.delay)) return false;
    *how = f->messages;
    return true;
}
