// synthetic: the callbacks, and two ways to drive them.
#include "tests/common/proc/synthetic.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"

static SyntheticShared *shared; // the newest run's; inherited by its processes

// What a section holds.
typedef struct Record {
    uint64_t sample, segment, kind, mix;
    int64_t done_ns;
    int64_t process; // who wrote it
} Record;

static const SectionKind output_of[STEP_CNT] = {
    [STEP_ENCODE] = SECTION_COND,   [STEP_SAMPLE] = SECTION_X_K,
    [STEP_DENOISE] = SECTION_X_0,   [STEP_HANDOVER] = SECTION_LAST,
    [STEP_DECODE] = SECTION_FRAMES, [STEP_SCORE] = SECTION_GRAD_FRAMES,
    [STEP_PULL] = SECTION_GRAD_X_0, [STEP_LEARN] = SECTION_GRAD_THETA,
};

static uint64_t mix(uint64_t a, uint64_t b) {
    a = (a ^ b) * 0x9e3779b97f4a7c15;
    return a ^ a >> 29;
}

// Reads the output of `kind` of this sample; anything else in its place is a mistake.
static uint64_t take(StageCtx *ctx, const StageStep *step, StepKind kind, uint32_t segment) {
    const Record *r = stage_read(ctx, output_of[kind], step->slot, segment);
    bool ok = r->sample == step->header->sample && r->segment == segment && r->kind == kind;
    if (!ok) atomic_fetch_add(&shared->mistakes, 1);
    return r->mix;
}

// From the previous step's output to our start, where another process made it. It is noise unless we were idle.
static void note_gap(StageCtx *ctx, const StageStep *step, int64_t now, int64_t idle_since) {
    const Itinerary *it = run_itinerary(stage_run(ctx), step->line);
    uint32_t at = slot_step(slot_load(step->line));
    bool versioned =
        step->kind == STEP_SAMPLE || step->kind == STEP_DENOISE || step->kind == STEP_LEARN;
    if (!at || versioned) return; // those wait for versions too
    ItineraryStep before = it->step[at - 1];
    const Record *r = stage_read(ctx, output_of[before.kind], step->slot, (uint32_t)before.segment);
    if (r->process == getpid() || r->done_ns < idle_since) return;
    uint64_t n = atomic_fetch_add(&shared->gap_cnt, 1);
    if (n < SYNTHETIC_GAPS) atomic_store(&shared->gap_ns[n], (uint64_t)(now - r->done_ns));
}

static Err count_call(void) {
    uint64_t call = atomic_fetch_add(&shared->calls, 1) + 1;
    if (call == atomic_load(&shared->fail_at)) FAIL(ERR_DEVICE, "synthetic: told to fail");
    return ERR_OK;
}

static uint64_t inputs(StageCtx *ctx, const StageStep *step) {
    uint64_t m = mix(step->header->sample + 1, (uint64_t)step->kind * 64 + step->segment);
    uint32_t s = step->segment, segments = stage_run(ctx)->state->segments;
    bool ahead = stage_run(ctx)->state->sampler_handover;
    switch (step->kind) {
    case STEP_ENCODE: return s ? mix(m, take(ctx, step, STEP_HANDOVER, s - 1)) : m;
    case STEP_SAMPLE:
        m = mix(m, step->version);
        m = mix(m, (uint64_t)board_theta(stage_board(ctx), step->version)[0]);
        return mix(m, take(ctx, step, STEP_ENCODE, s));
    case STEP_DENOISE:
        m = mix(m, (uint64_t)board_theta(stage_board(ctx), step->version)[0]);
        return mix(m, take(ctx, step, STEP_SAMPLE, s));
    case STEP_HANDOVER:
        return mix(m,
                   take(ctx, step,
                        ahead || step->header->purpose == SLOT_PREVIEW ? STEP_SAMPLE : STEP_DENOISE,
                        s));
    case STEP_DECODE:
        return mix(m, take(ctx, step,
                           step->header->purpose == SLOT_PREVIEW ? STEP_SAMPLE : STEP_DENOISE, s));
    case STEP_SCORE:
        for (uint32_t i = 0; i < segments; i++) m = mix(m, take(ctx, step, STEP_DECODE, i));
        return m;
    case STEP_PULL: return mix(m, take(ctx, step, STEP_SCORE, 0));
    case STEP_LEARN:
        m = mix(m, take(ctx, step, STEP_SAMPLE, s));
        return mix(m, take(ctx, step, STEP_PULL, s));
    case STEP_CNT: break;
    }
    return 0;
}

static void finish_sample(StageCtx *ctx, const StageStep *step) {
    Board *b = stage_board(ctx);
    float *row = board_row(b, step->header->sample);
    uint64_t m = 0;
    for (uint32_t i = 0; i < stage_run(ctx)->state->segments; i++)
        m = mix(m, take(ctx, step, STEP_LEARN, i));
    for (int i = 0; i < SYNTHETIC_THETA; i++) row[i] = (float)(mix(m, (uint64_t)i) % 1000);
    *board_row_note(b, step->header->sample) = (BoardRowNote){.sample = step->header->sample,
                                                              .grad_norm = (double)(m % 100),
                                                              .score.reward = (double)(m % 10)};
    board_set_tag(b, step->header->sample);
}

static int64_t idle_since; // of this process

static Err run_any(void *self, StageCtx *ctx, const StageStep *step) {
    note_gap(ctx, step, clock_ns(), idle_since);
    TRY(count_call());
    uint64_t m = inputs(ctx, step);
    int64_t us = atomic_load(&shared->sleep_us[step->kind]);
    if (us) clock_sleep_ns(us * 1000);
    Record *r = stage_write(ctx, output_of[step->kind], step->slot, step->segment);
    *r = (Record){step->header->sample, step->segment, step->kind, m, 0, getpid()};
    if (step->kind == STEP_LEARN && !step->segment) finish_sample(ctx, step);
    r->done_ns = idle_since = clock_ns();
    return count_call();
}

static Err run_update(void *self, StageCtx *ctx, uint64_t u) {
    Board *b = stage_board(ctx);
    TRY(count_call());
    uint64_t rollouts = board_spec(b)->rollouts;
    int64_t us = atomic_load(&shared->sleep_us[STEP_CNT]);
    if (us) clock_sleep_ns(us * 1000);
    for (int i = 0; i < SYNTHETIC_THETA; i++) {
        float sum = 0;
        for (uint64_t k = 0; k < rollouts; k++) sum += board_row(b, u * rollouts + k)[i];
        board_theta(b, u + 1)[i] = (float)((uint64_t)(board_theta(b, u)[i] * 3 + sum) % 100003);
        board_m(b, u + 1)[i] = board_m(b, u)[i] + sum;
        board_v(b, u + 1)[i] = board_v(b, u)[i] + 1;
    }
    *board_note(b, u + 1) = (BoardNote){.version = u + 1, .theta_norm = board_theta(b, u + 1)[0]};
    if (u < 1024) atomic_store(&shared->update_ns[u], (uint64_t)clock_ns());
    idle_since = clock_ns();
    return count_call();
}

static Err open_stage(const Config *cfg, int replica, bool dry, FILE *table, void **self,
                      StagePlan *plan) {
    *self = calloc(1, 1);
    return ERR_OK;
}

static Err join_learner(void *self, StageCtx *ctx) {
    Board *b = stage_board(ctx);
    if (board_ready(b)) return ERR_OK;
    for (int i = 0; i < SYNTHETIC_THETA; i++) board_theta(b, 0)[i] = (float)i + 1;
    board_set_ready(b);
    return ERR_OK;
}

// clang-format off
const Stage synthetic_stage[STAGE_CNT] = {
    [STAGE_SAMPLER] = {.kind = STAGE_SAMPLER, .open = open_stage, .close = free,
                       .run = {[STEP_SAMPLE] = run_any}},
    [STAGE_DECODER] = {.kind = STAGE_DECODER, .open = open_stage, .close = free,
                       .run = {[STEP_ENCODE] = run_any, [STEP_HANDOVER] = run_any,
                               [STEP_DECODE] = run_any, [STEP_PULL] = run_any}},
    [STAGE_REWARDER] = {.kind = STAGE_REWARDER, .open = open_stage, .close = free,
                        .run = {[STEP_SCORE] = run_any}},
    [STAGE_LEARNER] = {.kind = STAGE_LEARNER, .open = open_stage, .close = free, .join = join_learner,
                       .run = {[STEP_DENOISE] = run_any, [STEP_LEARN] = run_any},
                       .update = run_update},
};
// clang-format on

// ---- Opening ----

static Err load_config(Synthetic *s, int set_cnt, const char *const *set) {
    static const char text[] =
        "model: .\n"
        "data.images: [pictures/dawn.png, pictures/hills.png, pictures/tiles.png]\n"
        "optim: {rollouts: 2, updates: 4}\n"
        "reward: [{model: videomae, path: ., class: ebb}]\n";
    char path[600];
    TRY(config_load_text(&s->cfg, "synthetic", "tests/data", text, strlen(text), set_cnt, set));
    snprintf(path, sizeof path, "%s/config.yaml", s->dir);
    FILE *f = fopen(path, "w");
    if (!f) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    config_write(s->cfg, f, false);
    fclose(f);
    return ERR_OK;
}

static Err make_run(Synthetic *s, bool resume) {
    SectionTable table = {.slots = run_slot_count(s->cfg), .segments = (uint32_t)s->cfg->segments};
    for (int k = 0; k < STEP_CNT; k++) table.bytes[output_of[k]] = sizeof(Record);
    section_layout(&table);
    BoardSpec board = {.theta_cnt = SYNTHETIC_THETA,
                       .rollouts = (uint32_t)s->cfg->rollouts,
                       .lag = (uint32_t)s->cfg->lag,
                       .rank = 1,
                       .alpha = 1};
    TRY(run_create(&s->run, s->cfg, &table, &board, NULL));
    s->start = (ConductorStart){.run_dir = s->dir};
    if (resume) {
        int found;
        TRY(ledger_read(s->dir, &s->start.ledger, s->run.board, &found));
        if (found) board_set_ready(s->run.board);
    }
    return conductor_new(&s->conductor, s->cfg, &s->run, &s->start);
}

Err synthetic_open(Synthetic *s, const char *dir, bool resume, int set_cnt,
                   const char *const *set) {
    *s = (Synthetic){0};
    for (int i = 0; i < STAGE_CNT; i++) s->run.block_shm[i].fd = -1;
    s->run.state_shm.fd = s->run.board_shm.fd = -1;
    snprintf(s->dir, sizeof s->dir, "%s", dir);
    void *m = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    die_unless(m != MAP_FAILED, "synthetic: out of memory");
    s->shared = shared = m;
    idle_since = 0;
    Err err = load_config(s, set_cnt, set);
    if (!err) err = make_run(s, resume);
    if (err) synthetic_close(s);
    return err;
}

void synthetic_close(Synthetic *s) {
    for (int p = 0; p < s->process_cnt; p++) {
        stage_ctx_free(s->ctx[p]);
        free(s->self[p]);
    }
    conductor_free(s->conductor);
    run_leave(&s->run);
    config_free(s->cfg);
    if (s->shared) munmap(s->shared, sizeof *s->shared);
    *s = (Synthetic){0};
}

// ---- In one process ----

static StageKind kind_of(const Synthetic *s, int process, int *replica) {
    int k = 0;
    *replica = process;
    while (*replica >= (int)s->run.state->replicas[k]) *replica -= (int)s->run.state->replicas[k++];
    return (StageKind)k;
}

static Err join_one(Synthetic *s, int p) {
    int replica;
    const Stage *stage = &synthetic_stage[kind_of(s, p, &replica)];
    return stage_ctx_new(&s->ctx[p], stage, s->self[p], s->cfg, replica, &s->run, NULL, NULL);
}

Err synthetic_join(Synthetic *s) {
    for (int k = 0; k < STAGE_CNT; k++) s->process_cnt += (int)s->run.state->replicas[k];
    die_unless(s->process_cnt <= SYNTHETIC_PROCESSES, "synthetic: too many processes");
    for (int p = 0; p < s->process_cnt; p++) TRY(join_one(s, p));
    return ERR_OK;
}

Err synthetic_poll(Synthetic *s, int p, bool *worked) { return stage_poll(s->ctx[p], worked); }

Err synthetic_die(Synthetic *s, int p) {
    stage_ctx_free(s->ctx[p]);
    s->ctx[p] = NULL;
    uint32_t epoch = atomic_fetch_add(&s->run.state->epoch, 1) + 1;
    TRY(join_one(s, p));
    conductor_restart_samples(s->conductor, epoch);
    return ERR_OK;
}

static Err poll_conductor(Synthetic *s, bool *done) {
    ConductorNews news;
    TRY(conductor_poll(s->conductor, &news));
    if (news.preview_slot >= 0) conductor_release(s->conductor, (uint32_t)news.preview_slot);
    *done = news.done;
    return ERR_OK;
}

Err synthetic_inline(Synthetic *s) {
    TRY(synthetic_join(s));
    for (bool done = false; !done;) {
        TRY(poll_conductor(s, &done));
        bool worked;
        for (int p = 0; p < s->process_cnt; p++) TRY(synthetic_poll(s, p, &worked));
    }
    return ERR_OK;
}

// ---- In processes ----

static _Noreturn void be_stage(const Synthetic *s, int p, int launcher) {
    char fds[128], replica_text[16], parent[16];
    int replica;
    StageKind kind = kind_of(s, p, &replica);
    if (chdir(s->dir)) _exit(1);
    run_fds(&s->run, fds);
    snprintf(replica_text, sizeof replica_text, "%d", replica);
    snprintf(parent, sizeof parent, "%d", launcher);
    const char *argv[] = {"synthetic",  "--run",    ".",    "--sockets",
                          ".",          "--fds",    fds,    "--replica",
                          replica_text, "--parent", parent, s->fault ? "--fault" : NULL,
                          s->fault,     NULL};
    int argc = s->fault ? 13 : 11;
    _exit(stage_main(&synthetic_stage[kind], argc, (char **)(uintptr_t)argv));
}

// Zero when a process has ended.
static int processes_alive(const Synthetic *s) {
    for (int p = 0; p < s->process_cnt; p++)
        if (waitpid(s->pid[p], NULL, WNOHANG) == s->pid[p]) return 0;
    return 1;
}

static Err drive(Synthetic *s, Control *control) {
    int joined = 0;
    bool known[SYNTHETIC_PROCESSES] = {false}, got; // a stage that waits long says hello again
    Msg m;
    while (joined < s->process_cnt) {
        TRY(control_receive(control, 20, &m, &got));
        if (!got && !processes_alive(s)) FAIL(ERR_PEER, "a stage has ended");
        if (!got || m.kind != MSG_HELLO) continue;
        bool *seen = &known[run_page_index(&s->run, (StageKind)m.stage, (int)m.replica)];
        joined += !*seen;
        *seen = true;
        TRY(control_send(control,
                         &(Msg){.kind = MSG_WELCOME, .stage = m.stage, .replica = m.replica}));
    }
    for (bool done = false; !done;) {
        TRY(poll_conductor(s, &done));
        TRY(control_receive(control, done ? 0 : 20, &m, &got));
        while (got) TRY(control_receive(control, 0, &m, &got));
        if (!done && !processes_alive(s)) FAIL(ERR_PEER, "a stage has ended");
    }
    atomic_store(&s->run.state->stopping, 1);
    for (int p = 0; p < s->process_cnt; p++) {
        int replica;
        StageKind kind = kind_of(s, p, &replica);
        TRY(control_send(control,
                         &(Msg){.kind = MSG_STOP, .stage = kind, .replica = (uint32_t)replica}));
    }
    return ERR_OK;
}

Err synthetic_processes(Synthetic *s) {
    Control *control = NULL;
    char home[4096];
    int cnt = 0, self = (int)getpid();
    for (int k = 0; k < STAGE_CNT; k++) cnt += (int)s->run.state->replicas[k];
    fflush(NULL);
    for (int p = 0; p < cnt; p++) { // before we have sockets, which do not survive a fork
        int pid = (int)fork();
        if (!pid) be_stage(s, p, self);
        s->pid[s->process_cnt++] = pid;
    }
    if (!getcwd(home, sizeof home) || chdir(s->dir)) FAIL(ERR_IO, "%s", s->dir);
    Err err = control_listen(&control, "."); // paths of sockets are short
    if (chdir(home)) die("synthetic: cannot go back to %s", home);
    if (!err) err = drive(s, control);
    for (int p = 0; p < s->process_cnt; p++) {
        if (err) kill(s->pid[p], SIGKILL);
        waitpid(s->pid[p], NULL, 0);
    }
    control_close(control);
    return err;
}

uint64_t synthetic_theta(const Synthetic *s) {
    const Board *b = s->run.board;
    uint64_t v = board_version(b), h = mix(v, 1);
    for (int i = 0; i < SYNTHETIC_THETA; i++) {
        h = mix(h, (uint64_t)board_theta(b, v)[i]);
        h = mix(h, (uint64_t)board_m(b, v)[i]);
        h = mix(h, (uint64_t)board_v(b, v)[i]);
    }
    return h;
}
