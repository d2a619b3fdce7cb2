// group_plan: one child per stage, one JSON object from each.
#include "launch/group_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/strbuf.h"
#include "common/proc/run.h"
#include "launch/supervisor.h"

enum { PATH_BYTES = 4096, ANSWER_MAX = 64 << 20, ASKED_MAX = 3 };

static int replicas_of(const Config *cfg, int stage) {
    const int64_t n[STAGE_CNT] = {cfg->sampler_replicas, cfg->decoder_replicas,
                                  cfg->rewarder_replicas, 1};
    return (int)n[stage];
}

// ---- Asking one stage ----

static Err read_all(int fd, StrBuf *out) {
    for (;;) {
        char buf[65536];
        ssize_t n = read(fd, buf, sizeof buf);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) FAIL(ERR_IO, "pipe: %s", strerror(errno));
        if (!n) return ERR_OK;
        strbuf_add_bytes(out, buf, (size_t)n);
        if (out->len > ANSWER_MAX) FAIL(ERR_PEER, "a stage plan of more than %d bytes", ANSWER_MAX);
    }
}

typedef struct Question {
    pid_t pid;
    int fd; // its standard output
    char log[64];
} Question;

static Err ask(Question *q, StageKind stage) {
    const char *name = itinerary_stage_name(stage);
    char program[PATH_BYTES];
    int pipe_fd[2];
    TRY(supervisor_sibling(name, program));
    snprintf(q->log, sizeof q->log, "log/plan.%s.log", name);
    int log = open(q->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log < 0) FAIL(ERR_IO, "%s: %s", q->log, strerror(errno));
    if (pipe2(pipe_fd, O_CLOEXEC)) FAIL(ERR_IO, "pipe: %s", strerror(errno));
    q->pid = fork();
    if (q->pid == 0) {
        dup2(pipe_fd[1], STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        execl(program, program, "--plan", "config.yaml", (char *)NULL);
        _exit(127);
    }
    close(log);
    close(pipe_fd[1]);
    q->fd = pipe_fd[0];
    if (q->pid < 0) FAIL(ERR_IO, "fork: %s", strerror(errno));
    return ERR_OK;
}

// Its whole answer, and its end. *killed: by a SIGKILL, which says nothing about the plan.
static Err hear(Question *q, StageKind stage, StrBuf *text, bool *killed) {
    int status;
    Err err = read_all(q->fd, text);
    close(q->fd);
    while (waitpid(q->pid, &status, 0) < 0 && errno == EINTR) continue;
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    *killed = sig == SIGKILL;
    TRY(err);
    const char *name = itinerary_stage_name(stage);
    if (sig && sig != SIGABRT) // an abort has left its words
        FAIL(ERR_PEER, "%s died of signal %d (%s) while it planned", name, sig, strsignal(sig));
    if (status) {
        char message[2048];
        supervisor_last_words(q->log, message, sizeof message);
        FAIL(ERR_USAGE, "%s: %s", name, message);
    }
    return ERR_OK;
}

static Err answer(Question *q, StageKind stage, StagePlan *plan) {
    StrBuf text = {0};
    bool killed;
    Err err = hear(q, stage, &text, &killed);
    for (int asked = 1; killed && asked < ASKED_MAX; asked++) {
        log_warn("%s; asked again", err_text());
        strbuf_clear(&text);
        TRY_OUT(ask(q, stage));
        err = hear(q, stage, &text, &killed);
    }
    if (!err) err = stage_plan_read(plan, strbuf_text(&text), text.len);
out:
    strbuf_fini(&text);
    return err;
}

// ---- The group ----

// The first number of a file; UINT64_MAX when there is none ("max", no such file).
static uint64_t number_in(const char *path) {
    unsigned long long n;
    FILE *f = fopen(path, "r");
    if (!f || fscanf(f, "%llu", &n) != 1) n = UINT64_MAX;
    if (f) fclose(f);
    return n;
}

// Of the machine; no more than a container's limit (what it uses already is mostly page cache, which yields).
static uint64_t memory_available(void) {
    FILE *f = fopen("/proc/meminfo", "r");
    unsigned long long kib = 0;
    for (char line[256]; f && fgets(line, sizeof line, f);)
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    uint64_t free_bytes = (uint64_t)kib * 1024, limit = number_in("/sys/fs/cgroup/memory.max"),
             older = number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    if (older < limit) limit = older;
    return limit < free_bytes ? limit : free_bytes;
}

static Err add_up(GroupPlan *g, const Config *cfg) {
    TRY(stage_plan_combine(g->stage, cfg, &g->table, &g->board, g->numerics));
    for (int s = 0; s < STAGE_CNT; s++)
        g->total_bytes += stage_plan_memory_bytes(&g->stage[s]) * (uint64_t)replicas_of(cfg, s);
    g->shared_bytes = run_shared_bytes(cfg, &g->table, &g->board);
    g->total_bytes += g->shared_bytes;
    g->available_bytes = memory_available();
    return ERR_OK;
}

Err group_plan_make(GroupPlan *g, const Config *cfg) {
    Question q[STAGE_CNT] = {0};
    Err err = ERR_OK, first = ERR_OK;
    char keep[2048] = "";
    *g = (GroupPlan){0};
    if (mkdir("log", 0700) && errno != EEXIST) FAIL(ERR_IO, "log: %s", strerror(errno));
    int asked = 0;
    for (; asked < STAGE_CNT && !err; asked++) err = ask(&q[asked], (StageKind)asked);
    if (err) asked--;
    for (int s = 0; s < asked; s++) { // every child is waited for, whatever the others say
        Err one = answer(&q[s], (StageKind)s, &g->stage[s]);
        if (one && !first) first = one, snprintf(keep, sizeof keep, "%s", err_text());
    }
    if (first) err = err_fail(first, __FILE__, __LINE__, __func__, "%s", keep);
    if (!err) err = add_up(g, cfg);
    if (err) group_plan_fini(g);
    return err;
}

void group_plan_fini(GroupPlan *g) {
    for (int s = 0; s < STAGE_CNT; s++) stage_plan_fini(&g->stage[s]);
}

static double mib(uint64_t bytes) { return (double)bytes / (1 << 20); }

static Err check_shared(const GroupPlan *g) {
    struct statvfs fs;
    if (statvfs("/dev/shm", &fs)) return ERR_OK; // run_create says more
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (g->shared_bytes <= free_bytes) return ERR_OK;
    FAIL(
        ERR_USAGE,
        "the run needs %.1f MiB of shared memory, /dev/shm has %.1f MiB free; make it larger (in Docker: "
        "--shm-size) or try fewer slots",
        mib(g->shared_bytes), mib(free_bytes));
}

Err group_plan_check_fit(const GroupPlan *g, const Config *cfg) {
    // Shared memory is part of the total: where that is missing, a larger /dev/shm would not help.
    if (!g->available_bytes || g->total_bytes <= g->available_bytes) return check_shared(g);
    double each[STAGE_CNT];
    for (int s = 0; s < STAGE_CNT; s++) each[s] = mib(stage_plan_memory_bytes(&g->stage[s]));
    FAIL(
        ERR_USAGE,
        "the run needs %.0f MiB of memory, %.0f MiB are free: %.0f MiB are missing (sampler %.0f x %d, decoder %.0f x %d, rewarder %.0f x %d, "
        "learner %.0f, shared %.0f); try weights: mapped, recompute: true, fewer slots or smaller video",
        mib(g->total_bytes), mib(g->available_bytes), mib(g->total_bytes - g->available_bytes),
        each[0], replicas_of(cfg, 0), each[1], replicas_of(cfg, 1), each[2], replicas_of(cfg, 2),
        each[3], mib(g->shared_bytes));
}

static void print_memory(const GroupPlan *g, const Config *cfg, FILE *out) {
    fprintf(out, "%-10s %9s %7s %10s", "MiB", "processes", "threads", "each");
    for (int k = 0; k < STAGE_MEMORY_CNT; k++)
        fprintf(out, " %11s", stage_plan_memory_name((StageMemory)k));
    fprintf(out, " %10s\n", "(mapped)");
    for (int s = 0; s < STAGE_CNT; s++) {
        const StagePlan *p = &g->stage[s];
        fprintf(out, "%-10s %9d %7d %10.1f", itinerary_stage_name((StageKind)s),
                replicas_of(cfg, s), p->threads, mib(stage_plan_memory_bytes(p)));
        for (int k = 0; k < STAGE_MEMORY_CNT; k++) fprintf(out, " %11.1f", mib(p->memory[k]));
        fprintf(out, " %10.1f\n", mib(p->mapped_bytes));
    }
    fprintf(out, "%-28s %10.1f   %u slots\n", "shared", mib(g->shared_bytes), g->table.slots);
    fprintf(out, "%-28s %10.1f   of %.1f available\n", "total", mib(g->total_bytes),
            mib(g->available_bytes));
}

void group_plan_print(const GroupPlan *g, const Config *cfg, FILE *out) {
    const StagePlan *learner = &g->stage[STAGE_LEARNER];
    print_memory(g, cfg, out);
    fprintf(out, "\n%lld trainable parameters; gradient window: ", (long long)g->board.theta_cnt);
    if (learner->window_at < 0)
        fprintf(out, "%d of steps 0 .. %lld, begins at random in %lld .. %lld\n",
                learner->window_steps, (long long)cfg->steps - 1,
                (long long)cfg->window_range.item[0], (long long)cfg->window_range.item[1]);
    else
        fprintf(out, "steps %d .. %d of 0 .. %lld, gain %.3g (--tables: of every step)\n",
                learner->window_at, learner->window_at + learner->window_steps - 1,
                (long long)cfg->steps - 1, learner->window_gain);
    fprintf(out, "GFLOP per step:");
    for (int s = 0; s < STAGE_CNT; s++)
        for (int k = 0; k < STEP_CNT; k++)
            if (g->stage[s].flops[k] > 0)
                fprintf(out, "  %s %.3g", itinerary_step_name((StepKind)k),
                        g->stage[s].flops[k] / 1e9);
    fputc('\n', out);
}
