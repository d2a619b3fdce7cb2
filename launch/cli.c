// cli: finds the command and runs it, here or in the sibling program.
#include "launch/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/nearest.h"
#include "common/base/version.h"
#include "common/config/config.h"
#include "launch/ckpt.h"
#include "launch/plan.h"
#include "launch/report.h"
#include "launch/status.h"
#include "launch/trace.h"
#include "launch/train.h"

static Err help_main(int argc, char **argv);

const CliCommand cli_commands[] = {
    {"train", "CONF [key=value ...]",
     "start a run: sampler, decoder, rewarder and learner train an adapter", NULL, train_main},
    {"resume", "RUN|BUNDLE [key=value ...]", "go on with a run from its last durable update", NULL,
     train_resume_main},
    {"plan", "CONF [key=value ...]",
     "memory, time of each step, what bounds an update; starts no run", NULL, plan_main},
    {"status", "RUN [--watch]", "who does what, what it waits for, how far the run is", NULL,
     status_main},
    {"trace", "RUN", "a timeline for Perfetto, and which stage bounds the run", NULL, trace_main},
    {"report", "RUN",
     "one page to look at: videos, verdict, curves, timeline, how to use the adapter", NULL,
     report_main},
    {"ckpt", "ls|verify|extract|export BUNDLE",
     "what a bundle holds; its adapter for other programs", NULL, ckpt_main},
    {"sample", "MODEL --image F --out F.mp4", "one video from an image, with or without an adapter",
     "vader-tool", NULL, true},
    {"eval", "RUN|CONF [--lora A]", "base model against adapter: videos, table, eval.json",
     "vader-tool", NULL, true},
    {"verify", "RUN", "make a run again, inline, and compare every byte", "vader-tool", NULL},
    {"help", "[KEY]", "the keys of a config, all or one", NULL, help_main},
    {"forward", "DIR --in X --out Y", "run a model part or a golden case on tensors, with its vjp",
     "vader-tool", NULL, true},
    {"doctor", "MODEL_DIR", "check a model folder: keys, shapes, sizes, what this build cannot run",
     "vader-tool", NULL, true},
    {0},
};

static void print_help(FILE *f) {
    fputs("vader " VADER_VERSION
          ": fine-tunes video diffusion models with the gradients of reward models\n\n"
          "usage: vader COMMAND [ARGUMENTS]\n\n",
          f);
    for (const CliCommand *c = cli_commands; c->name; c++)
        fprintf(f, "  %-8s %-20s %s\n", c->name, c->args, c->about);
    fputs(
        "\n`vader COMMAND --help` says more. Exit status: 0, 1 for a failure, 2 for a wrong command line.\n",
        f);
}

static Err help_main(int argc, char **argv) {
    if (argc < 2) print_help(stdout);
    return config_help(argc < 2 ? NULL : argv[1], stdout);
}

// Becomes <folder of this binary>/<program>. Returns only if that fails.
static Err become(const char *program, char **argv) {
    char path[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    if (n < 0) FAIL(ERR_IO, "/proc/self/exe: %s", strerror(errno));
    path[n] = 0;
    char *slash = strrchr(path, '/');
    snprintf(slash ? slash + 1 : path, sizeof path - (size_t)(slash ? slash + 1 - path : 0), "%s",
             program);
    execv(path, argv);
    FAIL(ERR_IO, "%s: %s (it belongs beside the vader binary; build it with `make`)", path,
         strerror(errno));
}

static Err unknown(const char *word) {
    const char *name[64];
    int cnt = 0;
    while (cli_commands[cnt].name) name[cnt] = cli_commands[cnt].name, cnt++;
    const char *near = nearest_word(word, name, cnt);
    if (near) FAIL(ERR_USAGE, "unknown command '%s', did you mean '%s'?", word, near);
    FAIL(ERR_USAGE, "unknown command '%s'; `vader --help` lists them", word);
}

static bool asks_for_help(const char *word) {
    return !strcmp(word, "--help") || !strcmp(word, "-h");
}

static Err dispatch(int argc, char **argv) {
    const char *word = argv[1];
    for (const CliCommand *c = cli_commands; c->name; c++) {
        if (strcmp(word, c->name)) continue;
        if (argc == 3 && asks_for_help(argv[2]) && !c->own_help) {
            printf("usage: vader %s %s\n\n%s\n", c->name, c->args, c->about);
            return ERR_OK;
        }
        if (c->program) return become(c->program, argv); // argv[0] stays, argv[1] is the command
        return c->run(argc - 1, argv + 1);
    }
    return unknown(word);
}

int cli_main(int argc, char **argv) {
    if (argc < 2) return print_help(stderr), 2;
    if (asks_for_help(argv[1])) return print_help(stdout), 0;
    if (!strcmp(argv[1], "--version")) return puts("vader " VADER_VERSION), 0;
    Err err = dispatch(argc, argv);
    if (err) err_print(0);
    return err_exit_status(err);
}
