// recipe: reads case.json.
#include "launch/tool/recipe.h"

#include <fnmatch.h>
#include <string.h>
#include <unistd.h>

static Err read_names(Json *j, const char *key, RecipeNames *out) {
    return json_get_strs(j, key, out->name, RECIPE_NAMES_MAX, &out->cnt);
}

static Err read_call(Json *j, RecipeCall *c) {
    c->listed = true;
    TRY(json_want_str(j, "name", &c->name));
    TRY(json_get_object(j, "args", &c->args));
    TRY(read_names(j, "out", &c->out));
    TRY(read_names(j, "grad_of", &c->cot));
    return read_names(j, "grad", &c->grad);
}

// A path of the file, relative to its folder.
static Err read_path(Recipe *r, const char *dir, const char *key, const char **out) {
    const char *path = NULL;
    TRY(json_get_str(r->json, key, &path));
    if (path && *path == '/') *out = path;
    if (path && *path != '/')
        *out = strcmp(path, ".") ? arena_printf(&r->arena, "%s/%s", dir, path) : dir;
    return ERR_OK;
}

static Err read_case(Recipe *r, const char *dir) {
    static const char *const key[] = {"model", "lora",     "clip",     "head",
                                      "vae",   "videomae", "scheduler"};
    const char **path[] = {&r->model, &r->lora,     &r->clip,     &r->head,
                           &r->vae,   &r->videomae, &r->scheduler};
    Json *call[RECIPE_CALLS_MAX];
    TRY(json_want_objects(r->json, "calls", call, RECIPE_CALLS_MAX, &r->call_cnt));
    for (int i = 0; i < r->call_cnt; i++) TRY(read_call(call[i], &r->call[i]));
    for (int i = 0; i < 7; i++) TRY(read_path(r, dir, key[i], path[i]));
    return json_get_str(r->json, "weights_with_gradient", &r->weights);
}

Err recipe_open(Recipe *r, const char *dir) {
    *r = (Recipe){0};
    dir = arena_strdup(&r->arena, dir);
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') ((char *)dir)[--len] = 0;
    r->call = arena_array(&r->arena, RecipeCall, RECIPE_CALLS_MAX);
    r->label = arena_printf(&r->arena, "%s/case.json", dir);
    if (access(r->label, F_OK)) {
        r->label = r->model = dir;
        return ERR_OK;
    }
    TRY(json_open(&r->json, r->label));
    return read_case(r, dir);
}

void recipe_fini(Recipe *r) {
    json_close(r->json);
    arena_free(&r->arena);
    *r = (Recipe){0};
}

void recipe_add_call(Recipe *r, const char *name) {
    for (int i = 0; i < r->call_cnt; i++)
        if (!strcmp(r->call[i].name, name)) return;
    if (r->call_cnt < RECIPE_CALLS_MAX) r->call[r->call_cnt++].name = arena_strdup(&r->arena, name);
}

bool recipe_lists(const RecipeNames *names, const char *name) {
    for (int i = 0; i < names->cnt; i++)
        if (!fnmatch(names->name[i], name, 0)) return true;
    return false;
}

const char *recipe_full_name(Recipe *r, const RecipeCall *c, const RecipeNames *names,
                             const char *kind, const char *name) {
    const char *with =
        arena_printf(&r->arena, "%s%s%s%s", kind, c->name, *c->name ? "." : "", name);
    const char *without = arena_printf(&r->arena, "%s%s", kind, name);
    if (recipe_lists(names, with) || !recipe_lists(names, without)) return with;
    return without;
}
