// cli: the commands of `vader`: what each is called, what it does and which program does it.
//
// `vader` itself knows no tensors. Commands that compute are the sibling program `vader-tool`, which lies
// beside the running binary and is put in its place (exec), so that exit status, signals and output are its.
//
//     int main(int argc, char **argv) { return cli_main(argc, argv); }
//
// Exit status: 0, 1 for a failure, 2 for a command line that makes no sense.
#ifndef LAUNCH_CLI_H
#define LAUNCH_CLI_H

#include <stdbool.h>

#include "common/base/err.h"

typedef struct CliCommand {
    const char *name;
    const char *args;                  // for the list of commands
    const char *about;                 // one line
    const char *program;               // sibling binary that gets all arguments; NULL: run here
    Err (*run)(int argc, char **argv); // argv[0] is the command's name
    bool own_help;                     // takes --help itself; else the line of the list is the help
} CliCommand;

// Ends with a row without name.
extern const CliCommand cli_commands[];

// Dispatches argv[1].
int cli_main(int argc, char **argv);

#endif
