// stage_main: a stage as a process: arguments, parent death, the star, and waiting between steps.
//
// The wait is always the same: a bell or a control message, at most 20 ms (bells may be lost). The page
// shows what it waits for.
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/crash.h"
#include "common/base/log.h"
#include "common/proc/stage.h"

enum { RESCAN_MS = 20, WELCOME_MS = 600000 };

typedef struct Args {
    const char *plan_conf; // --plan
    const char *run_dir, *fds, *sockets, *fault;
    int replica, incarnation, parent;
} Args;

static Err parse_args(Args *a, int argc, char **argv) {
    static const struct option options[] = {{"plan", required_argument, NULL, 'p'},
                                            {"run", required_argument, NULL, 'r'},
                                            {"fds", required_argument, NULL, 'f'},
                                            {"sockets", required_argument, NULL, 's'},
                                            {"replica", required_argument, NULL, 'k'},
                                            {"parent", required_argument, NULL, 'P'},
                                            {"incarnation", required_argument, NULL, 'i'},
                                            {"fault", required_argument, NULL, 'F'},
                                            {0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'p': a->plan_conf = optarg; break;
        case 'r': a->run_dir = optarg; break;
        case 'f': a->fds = optarg; break;
        case 's': a->sockets = optarg; break;
        case 'k': a->replica = atoi(optarg); break;
        case 'P': a->parent = atoi(optarg); break;
        case 'i': a->incarnation = atoi(optarg); break;
        case 'F': a->fault = optarg; break;
        default: FAIL(ERR_USAGE, "%s is started by vader, not by hand", argv[0]);
        }
    }
    if (!a->plan_conf && !(a->run_dir && a->fds && a->sockets))
        FAIL(ERR_USAGE, "%s is started by vader, not by hand", argv[0]);
    return ERR_OK;
}

// The kernel kills us when the launcher dies; it may already have died before we asked.
static Err die_with_parent(int parent) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL)) FAIL(ERR_IO, "prctl: %s", strerror(errno));
    if (parent && getppid() != parent) FAIL(ERR_PEER, "the launcher (process %d) is gone", parent);
    return ERR_OK;
}

static Err print_plan(const Stage *stage, const char *conf) {
    Config *cfg;
    StagePlan plan = {0};
    void *self = NULL;
    TRY(config_load(&cfg, conf, 0, NULL));
    Err err = stage->open(cfg, 0, true, stderr, &self, &plan);
    if (!err && stage->check) err = stage->check(cfg);
    if (!err) stage_plan_write(&plan, stdout);
    if (self) stage->close(self);
    stage_plan_fini(&plan);
    config_free(cfg);
    return err;
}

// ---- A run ----

typedef struct Process {
    const Stage *stage;
    Args args;
    Config *cfg;
    Fault *fault;
    Run run;
    Control *control;
    StageCtx *ctx;
    void *self;
    bool stop;
} Process;

static Err send(Process *p, MsgKind kind, uint64_t epoch, uint64_t value) {
    return control_send(p->control, &(Msg){.kind = kind, .epoch = epoch, .value = value});
}

static Err handle(Process *p, const Msg *m) {
    switch (m->kind) {
    case MSG_EPOCH: return send(p, MSG_ACK, m->epoch, 0); // between steps nothing old is held
    case MSG_STOP: p->stop = true; return ERR_OK;
    default: return ERR_OK;
    }
}

// Says hello until somebody answers.
static Err wait_for_welcome(Process *p) {
    int64_t start = clock_ns(), again = start, deadline = start + WELCOME_MS * (int64_t)1000000;
    while (clock_ns() < deadline) {
        Msg m;
        bool got;
        if (clock_ns() >= again) {
            TRY(send(p, MSG_HELLO, 0, (uint64_t)getpid()));
            again += CONTROL_AGAIN_MS * 1000000;
        }
        TRY(control_receive(p->control, RESCAN_MS, &m, &got));
        if (got && m.kind == MSG_WELCOME) return ERR_OK;
        if (got) TRY(handle(p, &m));
        if (p->stop) return ERR_OK;
    }
    FAIL(ERR_TIMEOUT, "the launcher has not welcomed us within %d s", WELCOME_MS / 1000);
}

static Err loop(Process *p) {
    while (!p->stop) {
        bool worked = false, got = true;
        if (!atomic_load(&p->run.state->stopping)) TRY(stage_poll(p->ctx, &worked));
        for (int wait = worked ? 0 : RESCAN_MS; got && !p->stop; wait = 0) { // all that has come
            Msg m;
            TRY(control_receive(p->control, wait, &m, &got));
            if (got) TRY(handle(p, &m));
        }
    }
    return ERR_OK;
}

static Err open_run(Process *p) {
    char path[4096];
    Args *a = &p->args;
    snprintf(path, sizeof path, "%s/config.yaml", a->run_dir);
    TRY(config_load(&p->cfg, path, 0, NULL));
    TRY(fault_parse(&p->fault, a->fault, a->incarnation));
    TRY(run_join(&p->run, a->fds, p->stage->kind));
    TRY(control_connect(&p->control, a->sockets, p->stage->kind, (uint32_t)a->replica,
                        (uint32_t)a->incarnation, run_bell(&p->run, p->stage->kind, a->replica)));
    ControlDisturb disturb;
    if (fault_messages(p->fault, &disturb)) {
        disturb.seed = (uint64_t)((p->stage->kind + 1) * 1000 + a->replica * 100 + a->incarnation);
        control_disturb(p->control, &disturb);
    }
    StagePlan plan = {0};
    Err err = p->stage->open(p->cfg, a->replica, false, NULL, &p->self, &plan);
    stage_plan_fini(&plan);
    if (err) return err;
    TRY(stage_ctx_new(&p->ctx, p->stage, p->self, p->cfg, a->replica, &p->run, p->control,
                      p->fault));
    RunPage *page = &p->run.page[run_page_index(&p->run, p->stage->kind, a->replica)];
    atomic_store(&page->incarnation, a->incarnation);
    atomic_store(&page->pid, (int32_t)getpid());
    return wait_for_welcome(p);
}

// Tells the launcher why we end with an error; it stops the run with this message.
static void report(Process *p, Err err) {
    if (!p->control) return;
    Msg m = {.kind = MSG_REPORT, .value = err};
    snprintf(m.text, sizeof m.text, "%s", err_text());
    control_send(p->control, &m);
}

static Err take_part(const Stage *stage, const Args *args) {
    Process p = {.stage = stage, .args = *args, .run = {.state_shm.fd = -1, .board_shm.fd = -1}};
    Err err = open_run(&p);
    if (!err) err = loop(&p);
    if (err) report(&p, err);
    stage_ctx_free(p.ctx);
    if (p.self) stage->close(p.self);
    control_close(p.control);
    run_leave(&p.run);
    fault_free(p.fault);
    config_free(p.cfg);
    return err;
}

int stage_main(const Stage *stage, int argc, char **argv) {
    Args args = {0};
    crash_install(itinerary_stage_name(stage->kind));
    Err err = parse_args(&args, argc, argv);
    if (!err && !args.plan_conf) err = die_with_parent(args.parent);
    if (!err) err = args.plan_conf ? print_plan(stage, args.plan_conf) : take_part(stage, &args);
    if (err) err_print(1);
    return err_exit_status(err);
}
