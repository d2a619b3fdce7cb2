// supervisor: fork, exec, pidfds, epochs.
#include "launch/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/proc/fault.h"
#include "common/transport/control.h"

enum { JOIN_S = 1800, ACK_S = 600, DEATHS_MAX = 3, PATH_BYTES = 4096 };
#define SOCKET_DIR "sock"

typedef struct Child {
    StageKind stage;
    int replica, incarnation;
    pid_t pid;      // 0 = none
    int pidfd;      // -1 = none
    bool joined;    // said hello in this incarnation
    uint64_t acked; // epoch it has acknowledged
    bool reported;  // told us why it ends
    char report[MSG_TEXT_MAX];
    Err report_code;
    uint64_t death_place; // sample and step of the last death
    int deaths;           // in a row at that place
} Child;

struct Supervisor {
    const Config *cfg;
    Run *run;
    Conductor *conductor;
    Control *control;
    const char *fault;
    const volatile int *stop; // the caller's
    Child *child;
    int child_cnt, restarts;
    bool complete; // all have joined: who says hello again has missed its welcome
};

Err supervisor_sibling(const char *name, char out[PATH_BYTES]) {
    char self[PATH_BYTES];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) FAIL(ERR_IO, "/proc/self/exe: %s", strerror(errno));
    self[n] = 0;
    char *slash = strrchr(self, '/');
    if (slash) *slash = 0;
    if (snprintf(out, PATH_BYTES, "%s/vader-%s", self, name) >= PATH_BYTES)
        FAIL(ERR_IO, "%s: path too long", self);
    if (access(out, X_OK)) FAIL(ERR_IO, "%s: %s (it belongs beside vader)", out, strerror(errno));
    return ERR_OK;
}

static volatile int signals;

static void on_signal(int sig) { signals++; }

const volatile int *supervisor_catch_signals(void) {
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    return &signals;
}

void supervisor_last_words(const char *log, char *out, size_t size) {
    FILE *f = fopen(log, "r");
    bool ours = false;
    snprintf(out, size, "no message (%s)", log);
    if (!f) return;
    for (char line[2048]; fgets(line, sizeof line, f);) {
        bool prefix = !strncmp(line, "vader: ", 7),
             frame = strstr(line, "[0x") || strstr(line, ": died of SIG");
        if (*line == '\n' || (!prefix && (ours || frame))) continue;
        ours = prefix;
        const char *text = line + (prefix ? 7 : 0);
        snprintf(out, size, "%.*s", (int)strcspn(text, "\n"), text);
    }
    fclose(f);
}

// ---- Starting ----

// Between fork and exec: only async-signal-safe calls.
static _Noreturn void become_stage(const char *program, char *const argv[], int log_fd) {
    setpgid(0, 0); // the terminal's Ctrl-C is for the launcher, which tells us
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    dup2(log_fd, STDOUT_FILENO);
    dup2(log_fd, STDERR_FILENO);
    execv(program, argv);
    static const char text[] = "vader: exec failed\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(126);
    _exit(127);
}

static Err spawn(Supervisor *s, Child *c) {
    const char *name = itinerary_stage_name(c->stage);
    char program[PATH_BYTES], fds[RUN_FDS_BYTES], replica[16], incarnation[16], parent[16], log[64];
    TRY(supervisor_sibling(name, program));
    run_fds(s->run, fds);
    snprintf(replica, sizeof replica, "%d", c->replica);
    snprintf(incarnation, sizeof incarnation, "%d", c->incarnation);
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    snprintf(log, sizeof log, "log/%s.%d.log", name, c->replica);
    char *const argv[] = {program,
                          "--run",
                          ".",
                          "--sockets",
                          SOCKET_DIR,
                          "--fds",
                          fds,
                          "--replica",
                          replica,
                          "--incarnation",
                          incarnation,
                          "--parent",
                          parent,
                          s->fault ? "--fault" : NULL,
                          (char *)(uintptr_t)s->fault,
                          NULL};
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) FAIL(ERR_IO, "%s: %s", log, strerror(errno));
    c->joined = c->reported = false;
    c->pid = fork();
    if (c->pid == 0) become_stage(program, argv, fd);
    close(fd);
    if (c->pid < 0) {
        c->pid = 0;
        FAIL(ERR_IO, "fork: %s", strerror(errno));
    }
    c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
    if (c->pidfd < 0) FAIL(ERR_IO, "pidfd_open: %s", strerror(errno));
    fcntl(c->pidfd, F_SETFD, FD_CLOEXEC);
    return ERR_OK;
}

static Child *find_child(Supervisor *s, const Msg *m) {
    for (int i = 0; i < s->child_cnt; i++) {
        Child *c = &s->child[i];
        if ((uint32_t)c->stage == m->stage && (uint32_t)c->replica == m->replica &&
            (uint32_t)c->incarnation == m->incarnation)
            return c;
    }
    return NULL;
}

static void send_to(Supervisor *s, const Child *c, MsgKind kind) {
    Msg m = {.kind = kind,
             .stage = c->stage,
             .replica = (uint32_t)c->replica,
             .incarnation = (uint32_t)c->incarnation,
             .epoch = atomic_load(&s->run->state->epoch)};
    if (c->joined) control_send(s->control, &m); // a peer that has gone is seen by its pidfd
}

// ---- Watching ----

// Everything that has arrived. Bells need nothing more: the caller polls the conductor anyway.
static Err read_messages(Supervisor *s) {
    for (;;) {
        Msg m;
        bool got;
        TRY(control_receive(s->control, 0, &m, &got));
        if (!got) return ERR_OK;
        Child *c = find_child(s, &m);
        if (!c) continue;
        if (m.kind == MSG_HELLO && m.value == (uint64_t)c->pid) {
            c->joined = true;
            if (s->complete) send_to(s, c, MSG_WELCOME);
        }
        if (m.kind == MSG_ACK && m.epoch > c->acked) c->acked = m.epoch;
        if (m.kind == MSG_REPORT) {
            c->reported = true;
            c->report_code = m.value > 0 && m.value <= ERR_DEVICE ? (Err)m.value : ERR_PEER;
            snprintf(c->report, sizeof c->report, "%s", m.text);
        }
    }
}

// Waits for a message, a bell or an exit.
static Err wait_event(Supervisor *s, int timeout_ms) {
    TRY(read_messages(s)); // ZMQ_FD is edge-triggered: empty the queue before sleeping on it
    int fd[CONTROL_FDS], cnt = s->child_cnt + CONTROL_FDS;
    struct pollfd *p = calloc((size_t)cnt, sizeof *p);
    die_unless(p, "supervisor: out of memory");
    control_fds(s->control, fd);
    for (int i = 0; i < cnt; i++)
        p[i] = (struct pollfd){.fd = i < CONTROL_FDS ? fd[i] : s->child[i - CONTROL_FDS].pidfd,
                               .events = POLLIN};
    poll(p, (nfds_t)cnt, control_rung(s->control) ? 0 : timeout_ms);
    free(p);
    TRY(read_messages(s));
    control_rung(s->control); // answered: the caller looks
    return ERR_OK;
}

// Reaps c if it has ended; *status is its wait status.
static bool reap(Child *c, int *status) {
    if (!c->pid || waitpid(c->pid, status, WNOHANG) != c->pid) return false;
    close(c->pidfd);
    c->pid = 0;
    c->pidfd = -1;
    return true;
}

static Err failed_by_itself(const Child *c, int status) {
    char path[64], text[1024];
    const char *name = itinerary_stage_name(c->stage);
    if (c->reported) FAIL(c->report_code, "%s.%d: %s", name, c->replica, c->report);
    snprintf(path, sizeof path, "log/%s.%d.log", name, c->replica);
    supervisor_last_words(path, text, sizeof text);
    if (WIFSIGNALED(status)) FAIL(ERR_PEER, "%s.%d gave up: %s", name, c->replica, text);
    FAIL(WEXITSTATUS(status) == 2 ? ERR_USAGE : ERR_PEER, "%s.%d ended with status %d: %s", name,
         c->replica, WEXITSTATUS(status), text);
}

// Where it died, and whether that has happened too often.
static Err note_death(Supervisor *s, Child *c, int sig) {
    const RunPage *p = &s->run->page[run_page_index(s->run, c->stage, c->replica)];
    uint64_t place = atomic_load(&p->sample) * 64 + (uint64_t)atomic_load(&p->step) + 1;
    c->deaths = place == c->death_place ? c->deaths + 1 : 1;
    c->death_place = place;
    log_warn("%s.%d died of signal %d (%s) at sample %llu", itinerary_stage_name(c->stage),
             c->replica, sig, strsignal(sig), (unsigned long long)atomic_load(&p->sample));
    if (c->deaths > DEATHS_MAX)
        FAIL(ERR_PEER, "%s.%d died %d times at the same step of sample %llu (signal %d: %s)",
             itinerary_stage_name(c->stage), c->replica, c->deaths,
             (unsigned long long)atomic_load(&p->sample), sig, strsignal(sig));
    c->incarnation++;
    s->restarts++;
    return ERR_OK;
}

// Collects every child that has ended. *died: at least one by a signal.
static Err collect_deaths(Supervisor *s, bool *died) {
    for (int i = 0; i < s->child_cnt; i++) {
        Child *c = &s->child[i];
        int status;
        if (!reap(c, &status)) continue;
        TRY(read_messages(s)); // its report may have come with its end
        // An abort is its own decision: a broken invariant, no memory. All other signals came from outside.
        if (WIFEXITED(status) || WTERMSIG(status) == SIGABRT) return failed_by_itself(c, status);
        TRY(note_death(s, c, WTERMSIG(status)));
        *died = true;
    }
    return ERR_OK;
}

static bool all_joined(const Supervisor *s) {
    for (int i = 0; i < s->child_cnt; i++)
        if (!s->child[i].joined) return false;
    return true;
}

static bool is_stopping(const Supervisor *s) { return s->stop && *s->stop; }

static Err wait_until_joined(Supervisor *s) {
    int64_t deadline = clock_ns() + (int64_t)JOIN_S * 1000000000;
    while (!all_joined(s) && !is_stopping(s)) {
        bool died = false;
        TRY(wait_event(s, 20));
        TRY(collect_deaths(s, &died));
        for (int i = 0; died && i < s->child_cnt; i++)
            if (!s->child[i].pid) TRY(spawn(s, &s->child[i]));
        if (clock_ns() > deadline)
            FAIL(ERR_TIMEOUT, "not every stage has joined within %d s", JOIN_S);
    }
    for (int i = 0; i < s->child_cnt; i++) send_to(s, &s->child[i], MSG_WELCOME);
    s->complete = true;
    return ERR_OK;
}

// Survivors drop what belongs to the old epoch; who does not answer in time is killed and joins the dead.
static Err wait_for_acks(Supervisor *s, uint32_t epoch) {
    int64_t start = clock_ns(), again = start, deadline = start + (int64_t)ACK_S * 1000000000;
    for (bool waiting = true; waiting && !is_stopping(s);) {
        bool ask = clock_ns() >= again;
        if (ask) again += CONTROL_AGAIN_MS * 1000000;
        waiting = false;
        for (int i = 0; i < s->child_cnt; i++) {
            Child *c = &s->child[i];
            if (!c->pid || !c->joined || c->acked >= epoch) continue;
            waiting = true;
            if (ask) send_to(s, c, MSG_EPOCH);
            if (clock_ns() > deadline) kill(c->pid, SIGKILL);
        }
        bool died = false;
        if (waiting) TRY(wait_event(s, 20));
        TRY(collect_deaths(s, &died));
    }
    return ERR_OK;
}

static Err recover(Supervisor *s) {
    uint32_t epoch = run_new_epoch(s->run);
    s->complete = false;
    TRY(wait_for_acks(s, epoch));
    if (is_stopping(s)) return ERR_OK; // `resume` starts them again
    for (int i = 0; i < s->child_cnt; i++)
        if (!s->child[i].pid) TRY(spawn(s, &s->child[i]));
    TRY(wait_until_joined(s));
    conductor_restart_samples(s->conductor, epoch);
    return ERR_OK;
}

Err supervisor_poll(Supervisor *s, int timeout_ms) {
    bool died = false;
    TRY(wait_event(s, timeout_ms));
    TRY(collect_deaths(s, &died));
    return died ? recover(s) : ERR_OK;
}

int supervisor_restarts(const Supervisor *s) { return s->restarts; }

// ---- Start and stop ----

static void list_children(Supervisor *s) {
    const uint32_t *replicas = s->run->state->replicas;
    int cnt = 0;
    for (int k = 0; k < STAGE_CNT; k++) cnt += (int)replicas[k];
    s->child = calloc((size_t)cnt, sizeof *s->child);
    die_unless(s->child, "supervisor: out of memory");
    for (int k = 0; k < STAGE_CNT; k++)
        for (int r = 0; r < (int)replicas[k]; r++)
            s->child[s->child_cnt++] = (Child){.stage = (StageKind)k, .replica = r, .pidfd = -1};
}

// Tests: the launcher's own messages.
static Err disturb(Supervisor *s) {
    Fault *fault;
    ControlDisturb how;
    TRY(fault_parse(&fault, s->fault, 0));
    if (fault_messages(fault, &how)) control_disturb(s->control, &how);
    fault_free(fault);
    return ERR_OK;
}

static Err start(Supervisor *s) {
    if (mkdir(SOCKET_DIR, 0700) && errno != EEXIST)
        FAIL(ERR_IO, SOCKET_DIR ": %s", strerror(errno));
    if (mkdir("log", 0700) && errno != EEXIST) FAIL(ERR_IO, "log: %s", strerror(errno));
    TRY(control_listen(&s->control, SOCKET_DIR, s->run->state->launcher_bell));
    TRY(disturb(s));
    list_children(s);
    for (int i = 0; i < s->child_cnt; i++) TRY(spawn(s, &s->child[i]));
    return wait_until_joined(s);
}

Err supervisor_start(Supervisor **out, const Config *cfg, Run *run, Conductor *conductor,
                     const char *fault, const volatile int *stop) {
    Supervisor *s = calloc(1, sizeof *s);
    die_unless(s, "supervisor: out of memory");
    *s = (Supervisor){.cfg = cfg, .run = run, .conductor = conductor, .fault = fault, .stop = stop};
    Err err = start(s);
    if (err)
        supervisor_stop(s, true);
    else
        *out = s;
    return err;
}

void supervisor_stop(Supervisor *s, bool kill_now) {
    if (!s) return;
    char keep[2048]; // the caller's message, if this is the end of a failure
    snprintf(keep, sizeof keep, "%s", err_text());
    atomic_store(&s->run->state->stopping, 1);
    int64_t again = clock_ns();
    for (bool left = true; left;) {
        bool ask = clock_ns() >= again;
        if (ask) again += CONTROL_AGAIN_MS * 1000000;
        left = false;
        for (int i = 0; i < s->child_cnt; i++) {
            Child *c = &s->child[i];
            int status;
            if (!c->pid) continue;
            if (ask) send_to(s, c, MSG_STOP);
            if (kill_now || !c->joined || (s->stop && *s->stop > 1)) kill(c->pid, SIGKILL);
            if (!reap(c, &status)) left = true;
        }
        if (left && wait_event(s, 20)) kill_now = true;
    }
    control_close(s->control);
    unlink(SOCKET_DIR "/launcher");
    for (int i = 0; i < s->child_cnt; i++) {
        char path[64];
        snprintf(path, sizeof path, SOCKET_DIR "/%s.%d", itinerary_stage_name(s->child[i].stage),
                 s->child[i].replica);
        unlink(path);
    }
    rmdir(SOCKET_DIR);
    free(s->child);
    free(s);
    if (*keep) err_fail(ERR_PEER, __FILE__, __LINE__, __func__, "%s", keep);
}
