// model_dir: which folder, which config, which weights; then the reader of that format.
#include "common/format/model_dir.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/arena.h"

enum { PARTS_LISTED_BYTES = 300, CLASS_PAIR = 2 };

typedef struct Part { // what the caller sees, and what it lives in
    ModelPart seen;
    Arena arena;
} Part;

static const char *const part_configs[] = {"config.json", "scheduler_config.json",
                                           "preprocessor_config.json", NULL};
static const char *const adapter_configs[] = {"adapter_config.json", NULL};
static const char *const part_stems[] = {"diffusion_pytorch_model", "model", NULL};
static const char *const adapter_stems[] = {"adapter_model", "pytorch_lora_weights", NULL};
static const char *const part_torch_stems[] = {"pytorch_model", "diffusion_pytorch_model", NULL};

static bool is_kind(const char *path, mode_t kind) {
    struct stat st;
    return !stat(path, &st) && (st.st_mode & S_IFMT) == kind;
}

static bool is_folder(const char *path) { return is_kind(path, S_IFDIR); }
static bool is_file(const char *path) { return is_kind(path, S_IFREG); }

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

// Part names and variants become parts of paths.
static bool plain(const char *s) {
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return n && n <= 64 && !s[n];
}

// Is s one of "A|B"?
static bool among(const char *classes, const char *s) {
    size_t n = strlen(s);
    for (const char *c = classes; n && *c; c += strcspn(c, "|"), c += *c == '|')
        if (strcspn(c, "|") == n && !strncmp(c, s, n)) return true;
    return false;
}

// ---- where the part is

// models--org--name/snapshots/<the commit that refs/main names>; other paths as they are.
static Err cache_resolve(Arena *a, const char **path) {
    char commit[65] = "";
    const char *ref = arena_printf(a, "%s/refs/main", *path);
    if (!is_file(ref) || !is_folder(arena_printf(a, "%s/snapshots", *path))) return ERR_OK;
    FILE *f = fopen(ref, "re");
    if (!f) FAIL(ERR_IO, "%s: %s", ref, strerror(errno));
    size_t n = fread(commit, 1, sizeof commit - 1, f);
    fclose(f);
    commit[n] = 0;
    commit[strcspn(commit, "\r\n")] = 0;
    if (!plain(commit)) FAIL(ERR_FORMAT, "%s: does not hold the name of a snapshot", ref);
    *path = arena_printf(a, "%s/snapshots/%s", *path, commit);
    if (!is_folder(*path)) FAIL(ERR_IO, "%s: the snapshot that %s names is not there", *path, ref);
    return ERR_OK;
}

// The names of the parts, for a message.
static const char *parts_text(const Json *index, char buf[PARTS_LISTED_BYTES]) {
    const char *key;
    size_t n = 0;
    *buf = 0;
    for (void *it = NULL; (key = json_next(index, &it)) && n < PARTS_LISTED_BYTES;)
        if (plain(key) && *key != '_' && json_kind(index, key) == JSON_KIND_ARRAY)
            n += (size_t)snprintf(buf + n, PARTS_LISTED_BYTES - n, "%s%s", n ? ", " : "", key);
    return buf;
}

// model_index.json must know the part, under one of the classes.
static Err index_check(const char *file, const char *part, const char *classes) {
    Err err = ERR_OK;
    Json *index = NULL;
    char buf[PARTS_LISTED_BYTES];
    const char *pair[CLASS_PAIR] = {0};
    int cnt = 0;
    TRY_OUT(json_open(&index, file));
    if (json_kind(index, part) == JSON_KIND_ARRAY) // [null, null] is how a pipeline says "none"
        (void)json_get_strs(index, part, pair, CLASS_PAIR, &cnt);
    if (cnt != CLASS_PAIR)
        FAIL_OUT(ERR_FORMAT, "%s: the model has no part '%s'; it has: %s", file, part,
                 parts_text(index, buf));
    if (classes && !among(classes, pair[1]))
        FAIL_OUT(ERR_FORMAT, "%s: part '%s' is a %.100s, want %s", file, part, pair[1], classes);
out:
    json_close(index);
    return err;
}

// The folder of the part.
static Err folder_find(Arena *a, const char *path, const char *part, const char *classes,
                       const char **out) {
    *out = path;
    if (!part) return ERR_OK;
    if (!plain(part)) FAIL(ERR_USAGE, "%s: '%.64s' is not the name of a part", path, part);
    const char *index = arena_printf(a, "%s/model_index.json", path);
    const char *sub = arena_printf(a, "%s/%s", path, part);
    if (is_file(index)) {
        TRY(index_check(index, part, classes));
        if (!is_folder(sub)) FAIL(ERR_IO, "%s: the folder is missing, but %s names it", sub, index);
        *out = sub;
    } else if (is_folder(sub)) {
        *out = sub;
    }
    return ERR_OK;
}

// ---- config

static Err class_find(Part *p) {
    Json *c = p->seen.config;
    const char *name = NULL, *many[8];
    int cnt = 0;
    TRY(json_get_str(c, "_class_name", &name));
    TRY(json_get_strs(c, "architectures", many, 8, &cnt));
    if (!name && cnt) name = many[0];
    const char *fallback = NULL;
    TRY(json_get_str(c, "model_type", &fallback));
    if (!name) name = fallback;
    if (!name) return ERR_OK;
    p->seen.class_name = name;
    return ERR_OK;
}

static Err config_open(Part *p, const char *const *names, const char *classes) {
    const char *dir = p->seen.path, *file = NULL;
    for (int i = 0; names[i] && !file; i++) {
        const char *f = arena_printf(&p->arena, "%s/%s", dir, names[i]);
        if (is_file(f)) file = f;
    }
    if (!file) {
        if (classes) FAIL(ERR_IO, "%s: no %s, want the config of a %s", dir, names[0], classes);
        return ERR_OK;
    }
    TRY(json_open(&p->seen.config, file));
    TRY(class_find(p));
    if (classes && !among(classes, p->seen.class_name))
        FAIL(ERR_FORMAT, "%s: config of a '%.100s', want %s", file, p->seen.class_name, classes);
    return ERR_OK;
}

// ---- weights

static Err weights_open(Part *p, const char *file, const char *sub) {
    p->seen.weights = file;
    if (ends_with(file, ".safetensors") || ends_with(file, ".json"))
        return safetensors_open(&p->seen.safetensors, file);
    return torch_zip_open(&p->seen.torch_zip, file, sub);
}

// The first of the names that exists in the folder; NULL when none does.
static const char *first_file(Arena *a, const char *dir, const char *stem, const char *variant,
                              const char *const *patterns) {
    for (; *patterns; patterns++) {
        const char *f = arena_printf(a, *patterns, dir, stem, variant);
        if (is_file(f)) return f;
    }
    return NULL;
}

static const char *weights_find(Arena *a, const char *dir, const char *const *stems,
                                const char *const *torch_stems, const char *variant) {
    static const char *const safe_plain[] = {"%s/%s.safetensors", "%s/%s.safetensors.index.json",
                                             NULL};
    static const char *const safe_variant[] = {"%s/%s.%s.safetensors",
                                               "%s/%s.safetensors.index.%s.json",
                                               "%s/%s.%s.safetensors.index.json", NULL};
    static const char *const torch_plain[] = {"%s/%s.bin", NULL};
    static const char *const torch_variant[] = {"%s/%s.%s.bin", NULL};
    const char *const order[] = {variant ? variant : "", "", "fp16"}; // "" = no variant
    const char *found = NULL;
    for (int torch = 0; torch < 2; torch++)
        for (int v = 0; v < 3; v++)
            for (const char *const *s = torch ? torch_stems : stems; *s; s++) {
                const char *const *patterns = *order[v] ? (torch ? torch_variant : safe_variant)
                                                        : (torch ? torch_plain : safe_plain);
                found = first_file(a, dir, *s, order[v], patterns);
                if (found) return found;
            }
    return NULL;
}

static Err weights_search(Part *p, const ModelDirOptions *o) {
    const char *dir = p->seen.path;
    const char *const *stems = o->adapter ? adapter_stems : part_stems;
    const char *const *torch_stems = o->adapter ? adapter_stems : part_torch_stems;
    if (o->variant && *o->variant && !plain(o->variant))
        FAIL(ERR_USAGE, "%s: '%.64s' is not the name of a variant", dir, o->variant);
    const char *file = weights_find(&p->arena, dir, stems, torch_stems, o->variant);
    if (file) return weights_open(p, file, o->sub);
    for (const char *const *s = torch_stems; *s; s++) {
        const char *shards = arena_printf(&p->arena, "%s/%s.bin.index.json", dir, *s);
        if (is_file(shards))
            FAIL(ERR_FORMAT, "%s: sharded PyTorch files are not read; save safetensors", shards);
    }
    FAIL(
        ERR_IO,
        "%s: no weights; looked for %s and %s (.safetensors, .safetensors.index.json, also .fp16), %s.bin",
        dir, stems[0], stems[1], torch_stems[0]);
}

Err model_dir_open(ModelPart **out, const char *path, const char *part, const char *classes,
                   const ModelDirOptions *options) {
    static const ModelDirOptions none;
    const ModelDirOptions *o = options ? options : &none;
    Err err = ERR_OK;
    Part *p = calloc(1, sizeof *p);
    die_unless(p, "model_dir: out of memory");
    *out = NULL;
    p->seen.class_name = "";
    p->seen.path = arena_strdup(&p->arena, path);
    if (is_file(path)) {
        if (classes)
            FAIL_OUT(ERR_USAGE, "%s: a file, want the folder with the config of a %s", path,
                     classes);
        TRY_OUT(weights_open(p, p->seen.path, o->sub));
    } else {
        if (!is_folder(path)) FAIL_OUT(ERR_IO, "%s: no such file or folder", path);
        TRY_OUT(cache_resolve(&p->arena, &p->seen.path));
        TRY_OUT(folder_find(&p->arena, p->seen.path, part, classes, &p->seen.path));
        TRY_OUT(config_open(p, o->adapter ? adapter_configs : part_configs, classes));
        if (!o->config_only) TRY_OUT(weights_search(p, o));
    }
    *out = &p->seen;
out:
    if (err) model_dir_close(&p->seen);
    return err;
}

void model_dir_close(ModelPart *seen) {
    Part *p = (Part *)seen; // its first member
    if (!p) return;
    json_close(seen->config);
    safetensors_close(seen->safetensors);
    torch_zip_close(seen->torch_zip);
    arena_free(&p->arena);
    free(p);
}

const SafetensorsEntry *model_dir_find(const ModelPart *p, const char *name) {
    return p->safetensors ? safetensors_find(p->safetensors, name)
           : p->torch_zip ? torch_zip_find(p->torch_zip, name)
                          : NULL;
}

Err model_dir_want(const ModelPart *p, const char *name, const SafetensorsEntry **out) {
    *out = model_dir_find(p, name);
    if (!*out)
        FAIL(ERR_FORMAT, "%s: tensor '%s' is missing", p->weights ? p->weights : p->path, name);
    return ERR_OK;
}

size_t model_dir_count(const ModelPart *p) {
    return p->safetensors ? safetensors_count(p->safetensors)
           : p->torch_zip ? torch_zip_count(p->torch_zip)
                          : 0;
}

const SafetensorsEntry *model_dir_at(const ModelPart *p, size_t i) {
    die_unless(p->safetensors || p->torch_zip, "model_dir: %s has no weights", p->path);
    return p->safetensors ? safetensors_at(p->safetensors, i) : torch_zip_at(p->torch_zip, i);
}

Err model_dir_pipeline(const char *path, char class_name[MODEL_DIR_CLASS_BYTES]) {
    Err err = ERR_OK;
    Arena a = {0};
    Json *index = NULL;
    const char *name = "";
    *class_name = 0;
    TRY_OUT(cache_resolve(&a, &path));
    const char *file = arena_printf(&a, "%s/model_index.json", path);
    if (!is_file(file)) goto out;
    TRY_OUT(json_open(&index, file));
    TRY_OUT(json_want_str(index, "_class_name", &name));
    if (snprintf(class_name, MODEL_DIR_CLASS_BYTES, "%s", name) >= MODEL_DIR_CLASS_BYTES)
        FAIL_OUT(ERR_FORMAT, "%s: _class_name has more than %d bytes", file,
                 MODEL_DIR_CLASS_BYTES - 1);
out:
    json_close(index);
    arena_free(&a);
    return err;
}
