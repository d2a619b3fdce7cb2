// args: the command line of one tool, from a table of options.
//
//     const char *in = NULL; int64_t threads = 0; bool exact = false;
//     const Arg table[] = {
//         {"in", ARG_STR, &in, "FILE", "input tensors"},
//         {"threads", ARG_INT, &threads, "N", "threads; 0: all cores"},
//         {"exact", ARG_FLAG, &exact, NULL, "direct convolution only"},
//         {0}};
//     TRY(args_parse(table, argc, argv, words, 1, &word_cnt));
//
// "--name value" or "--name=value"; what is no option is a word. ERR_USAGE names the option and what it wants.
#ifndef LAUNCH_TOOL_ARGS_H
#define LAUNCH_TOOL_ARGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/err.h"

typedef enum ArgKind {
    ARG_FLAG,  // bool
    ARG_STR,   // const char *
    ARG_INT,   // int64_t, not negative
    ARG_BYTES, // uint64_t: 4096, 20G, 512M, 1.5K (powers of 1024)
} ArgKind;

typedef struct Arg {
    const char *name; // without the dashes
    ArgKind kind;
    void *value;
    const char *takes; // what follows, for the help; NULL for flags
    const char *about;
} Arg;

// argv[0] is skipped. At most word_max words.
Err args_parse(const Arg *table, int argc, char **argv, const char **word, int word_max,
               int *word_cnt);

// One line per option.
void args_help(const Arg *table, FILE *f);

#endif
