// parts: every model that `vader forward` can run, with its inputs and outputs under the library's names.
//
// A row says what the part takes and builds one call of it. Tensors keep the library's axis order outside
// (N, C, H, W and so on) and are permuted at the edge of the graph.
#ifndef LAUNCH_TOOL_PARTS_H
#define LAUNCH_TOOL_PARTS_H

#include "launch/tool/run.h"

typedef struct Part {
    const char *class_name; // of the config, or what a composed case is called in messages
    const RunTakes *takes;
    Err (*call)(Session *s, const struct Part *part, RecipeCall *call, RunReport *report);
} Part;

// The part of a recipe: a composed case by the models it names, else by the class of its model.
// ERR_FORMAT for a class that this build does not know; the message lists those it does.
Err parts_of_recipe(Session *s, const Part **out);

// NULL when unknown.
const Part *parts_by_class(const char *class_name);
// "A, B, C" in the arena.
const char *parts_class_list(Arena *a);

// rollout.c: denoising with guidance, decoding, reward, and its gradient inside a window of steps.
Err rollout_call(Session *s, const Part *part, RecipeCall *call, RunReport *report);
extern const RunTakes rollout_takes[];

#endif
