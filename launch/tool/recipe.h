// recipe: what `vader forward` is to do in a folder: which models, which calls, on which tensors.
//
// A folder is either a model part (config.json, weights), with one call per name found among the inputs,
// or a case: a case.json that lists models and calls, as the golden folders have it:
//     {"model": "../unet_svd", "lora": ".", "weights_with_gradient": REGEX,
//      "calls": [{"name": "decode", "args": {...}, "in": [...], "out": [...], "grad_of": [...], "grad": [...]}]}
// Names of tensors are "in.", "out.", "cot.", "grad.in.", ... followed by "<call>." and the name; what is common
// to all calls of a case has no call in its name.
#ifndef LAUNCH_TOOL_RECIPE_H
#define LAUNCH_TOOL_RECIPE_H

#include <stdbool.h>

#include "common/base/arena.h"
#include "common/format/json.h"

enum { RECIPE_CALLS_MAX = 64, RECIPE_NAMES_MAX = 256 };

typedef struct RecipeNames {
    const char *name[RECIPE_NAMES_MAX];
    int cnt;
} RecipeNames;

typedef struct RecipeCall {
    const char *name; // "" for an unnamed one
    Json *args;       // NULL: none
    bool listed;      // the lists below count; else everything there is
    RecipeNames out, cot, grad;
} RecipeCall;

typedef struct Recipe {
    Arena arena;
    Json *json;          // case.json; NULL for a model part
    const char *label;   // for messages
    const char *weights; // regex of weights whose gradient is wanted; NULL: none
    // Folders; NULL when the recipe names none. `model` of a part is the folder itself.
    const char *model, *lora, *clip, *head, *vae, *videomae, *scheduler;
    RecipeCall *call;
    int call_cnt;
} Recipe;

// Caller closes with recipe_fini. The calls of a model part are added by recipe_add_call.
Err recipe_open(Recipe *r, const char *dir);
void recipe_fini(Recipe *r);
void recipe_add_call(Recipe *r, const char *name); // once per name

// Is `name` in the list, which may hold patterns ("grad.w.*")?
bool recipe_lists(const RecipeNames *names, const char *name);

// "<kind><call>.<name>" or "<kind><name>", whichever the list has; what is not listed gets the first form. In the arena.
const char *recipe_full_name(Recipe *r, const RecipeCall *c, const RecipeNames *names,
                             const char *kind, const char *name);

#endif
