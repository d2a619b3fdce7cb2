// vader-tool: runs the command named by its first argument. `vader` finds and starts it.
#include <stdio.h>
#include <string.h>

#include "launch/tool/tool.h"

static const struct {
    const char *name;
    Err (*run)(int argc, char **argv);
} tools[] = {
    {"forward", tool_forward}, {"doctor", tool_doctor}, {"inline", tool_inline},
    {"sample", tool_sample},   {"verify", tool_verify}, {"encode", tool_encode},
    {"poster", tool_poster},   {"eval", tool_eval},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof tools / sizeof *tools; i++) {
        if (strcmp(argv[1], tools[i].name)) continue;
        Err err = tools[i].run(argc - 1, argv + 1);
        if (err) err_print(0);
        return err_exit_status(err);
    }
    fprintf(stderr, "vader-tool: part of vader; use `vader --help`\n");
    return 2;
}
