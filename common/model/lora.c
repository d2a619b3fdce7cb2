// lora: the table of adapted modules, theta, and the two file formats.
#include "common/model/lora.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/format/adapter.h"
#include "common/format/json.h"
#include "common/format/safetensors.h"

enum { THETA_ALIGN = 16, NAME_BYTES = 512 };

typedef struct Module {
    LoraModule m;
    int live;               // its number among the live ones
    float *kept_a, *kept_b; // dead modules: values of the file that was read, or NULL
} Module;

struct Lora {
    Arena arena;
    LoraConfig cfg;
    bool *matched; // [target_cnt]
    Module *module;
    int cnt, cap, live_cnt;
    int64_t theta_cnt;
    float *theta, *scratch; // scratch: the largest A or B
    Safetensors *file;      // lora_read: until lora_free
};

// ---- The table ----

Lora *lora_new(const LoraConfig *cfg) {
    Lora *l = calloc(1, sizeof *l);
    die_unless(l && cfg->rank > 0, "lora: out of memory, or rank %d", cfg->rank);
    l->cfg = *cfg;
    l->matched = arena_array(&l->arena, bool, cfg->target_cnt + 1);
    const char **target = arena_array(&l->arena, const char *, cfg->target_cnt + 1);
    for (int i = 0; i < cfg->target_cnt; i++) target[i] = arena_strdup(&l->arena, cfg->target[i]);
    l->cfg.target = target;
    return l;
}

void lora_free(Lora *l) {
    if (!l) return;
    safetensors_close(l->file);
    free(l->module);
    free(l->theta);
    free(l->scratch);
    arena_free(&l->arena);
    free(l);
}

const LoraConfig *lora_config(const Lora *l) { return &l->cfg; }
int lora_module_count(const Lora *l) { return l->cnt; }
const LoraModule *lora_module(const Lora *l, int i) { return &l->module[i].m; }
int64_t lora_theta_count(const Lora *l) { return l->theta_cnt; }
float *lora_theta(Lora *l) { return l->theta; }
double lora_scale(const Lora *l) { return l->cfg.alpha / l->cfg.rank; }

// target is the path or ends it, as whole names.
static bool matches(const char *path, const char *target) {
    size_t n = strlen(path), m = strlen(target);
    return n >= m && !strcmp(path + n - m, target) && (n == m || path[n - m - 1] == '.');
}

bool lora_wants(const Lora *l, const char *path) {
    for (int i = 0; i < l->cfg.target_cnt; i++)
        if (matches(path, l->cfg.target[i])) return true;
    return false;
}

static Module *find_module(const Lora *l, const char *path) {
    for (int i = 0; i < l->cnt; i++)
        if (!strcmp(l->module[i].m.path, path)) return &l->module[i];
    return NULL;
}

static int64_t place(Lora *l, int64_t cnt) {
    int64_t at = l->theta_cnt;
    l->theta_cnt += (cnt + THETA_ALIGN - 1) / THETA_ALIGN * THETA_ALIGN;
    return at;
}

static Module *enter(Lora *l, const char *path, int64_t in, int64_t out, bool dead) {
    Module *known = find_module(l, path);
    if (known) {
        die_unless(known->m.in == in && known->m.out == out && known->m.dead == dead,
                   "lora: %s has changed between two builds", path);
        return known;
    }
    die_unless(!l->theta, "lora: %s is new in a second build", path);
    if (l->cnt == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->module = realloc(l->module, (size_t)l->cap * sizeof *l->module);
        die_unless(l->module, "lora: out of memory");
    }
    for (int i = 0; i < l->cfg.target_cnt; i++)
        if (matches(path, l->cfg.target[i])) l->matched[i] = true;
    Module *m = &l->module[l->cnt++];
    *m = (Module){.m = {arena_strdup(&l->arena, path), in, out, -1, -1, dead}};
    if (dead) return m;
    m->live = l->live_cnt++;
    m->m.a_at = place(l, l->cfg.rank * in);
    m->m.b_at = place(l, l->cfg.rank * out);
    return m;
}

static Tensor *find_input(const Graph *g, const char *path, const char *what) {
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "lora.%s.%s", path, what);
    for (int i = 0; i < g->node_cnt; i++)
        if (g->node[i]->op == OP_INPUT && !strcmp(g->node[i]->name, name)) return g->node[i];
    return NULL;
}

static Tensor *input(Graph *g, const char *path, const char *what, DType dtype, Shape shape) {
    char name[NAME_BYTES];
    Tensor *t = find_input(g, path, what);
    snprintf(name, sizeof name, "lora.%s.%s", path, what);
    return t ? t : graph_input(g, name, dtype, shape);
}

void lora_attach(Lora *l, Graph *g, const char *path, int64_t in, int64_t out, Tensor **a,
                 Tensor **b) {
    enter(l, path, in, out, false);
    *a = input(g, path, "A", DTYPE_F32, SHAPE(l->cfg.rank, in));
    *b = input(g, path, "B", DTYPE_F32, SHAPE(out, l->cfg.rank));
}

void lora_attach_dead(Lora *l, const char *path, int64_t in, int64_t out) {
    enter(l, path, in, out, true);
}

Tensor *lora_key(Lora *l, Graph *g, const char *path) {
    return input(g, path, "key", DTYPE_I32, SHAPE(8));
}

static float *floats(int64_t cnt) {
    size_t bytes = ((size_t)cnt * sizeof(float) + 63) / 64 * 64 + 64;
    float *x = aligned_alloc(64, bytes);
    die_unless(x, "lora: out of memory");
    return memset(x, 0, bytes);
}

Err lora_finish(Lora *l) {
    for (int i = 0; i < l->cfg.target_cnt; i++)
        if (!l->matched[i])
            FAIL(ERR_USAGE, "lora: no linear layer of the model is called '%s'", l->cfg.target[i]);
    if (l->theta) return ERR_OK;
    int64_t wide = 0;
    for (int i = 0; i < l->cnt; i++) {
        const LoraModule *m = &l->module[i].m;
        if (m->in > wide) wide = m->in;
        if (m->out > wide) wide = m->out;
    }
    l->theta = floats(l->theta_cnt);
    l->scratch = floats(wide * l->cfg.rank);
    return ERR_OK;
}

void lora_init(Lora *l, uint64_t seed) {
    memset(l->theta, 0, (size_t)l->theta_cnt * sizeof(float));
    for (int i = 0; i < l->cnt; i++) {
        const LoraModule *m = &l->module[i].m;
        if (m->dead) continue;
        float *a = l->theta + m->a_at;
        int64_t cnt = l->cfg.rank * m->in;
        RngKey key = {.seed = seed, .use = rng_use(RNG_INIT, 0, 0, (unsigned)i, 0)};
        rng_fill_uniform(key, a, (size_t)cnt);
        double bound = 1 / sqrt((double)m->in);
        for (int64_t k = 0; k < cnt; k++) a[k] = (float)((2.0 * a[k] - 1) * bound);
    }
}

// ---- Plans ----

// The adapter's inputs of a graph in one walk: `at` is where the walk stands, `module` the one found. They
// lie in the graph in the order of the table, so that the next module is nearly always the right one.
typedef struct Walk {
    int at;
    Module *module;
    const char *what; // "A", "B", "key"
} Walk;

static Module *module_of(const Lora *l, const char *path, size_t len, const Module *last) {
    for (int n = 0, i = last ? (int)(last - l->module) : 0; n < l->cnt; n++, i = (i + 1) % l->cnt) {
        const char *have = l->module[i].m.path;
        if (!strncmp(have, path, len) && !have[len]) return &l->module[i];
    }
    return NULL;
}

// The next input of g that belongs to l; NULL at the end.
static Tensor *next_input(const Lora *l, const Graph *g, Walk *w) {
    while (w->at < g->node_cnt) {
        Tensor *t = g->node[w->at++];
        if (t->op != OP_INPUT || strncmp(t->name, "lora.", 5)) continue;
        const char *path = t->name + 5, *dot = strrchr(path, '.');
        Module *m = dot ? module_of(l, path, (size_t)(dot - path), w->module) : NULL;
        if (!m) continue;
        w->module = m;
        w->what = dot + 1;
        return t;
    }
    return NULL;
}

int lora_inputs(const Lora *l, const Graph *g, Tensor **tensor) {
    Walk w = {0};
    for (int i = 0; i < 2 * l->live_cnt; i++) tensor[i] = NULL;
    for (Tensor *t; (t = next_input(l, g, &w));)
        if (*w.what != 'k') tensor[2 * w.module->live + (*w.what == 'B')] = t;
    return 2 * l->live_cnt;
}

Err lora_write_theta(const Lora *l, const Graph *g, Plan *plan, const float *theta) {
    Walk w = {0};
    for (Tensor *t; (t = next_input(l, g, &w));) {
        const LoraModule *m = &w.module->m;
        if (*w.what != 'k') TRY(plan_write(plan, t, theta + (*w.what == 'A' ? m->a_at : m->b_at)));
    }
    return ERR_OK;
}

Err lora_write_keys(const Lora *l, const Graph *g, Plan *plan, RngKey key, unsigned step,
                    unsigned branch) {
    Walk w = {0};
    for (Tensor *t; (t = next_input(l, g, &w));) {
        int32_t words[8];
        if (*w.what != 'k') continue;
        key.use = rng_use(RNG_DROPOUT, step, branch, (unsigned)(w.module - l->module), 0);
        rng_key_to_words(key, words);
        TRY(plan_write(plan, t, words));
    }
    return ERR_OK;
}

static Err add_one(const Lora *l, Plan *plan, const Tensor *d, float *grad) {
    if (!d) return ERR_OK;
    TRY(plan_read(plan, d, l->scratch));
    int64_t cnt = shape_count(d->shape);
    for (int64_t k = 0; k < cnt; k++) grad[k] += l->scratch[k];
    return ERR_OK;
}

Err lora_add_gradient(const Lora *l, Plan *plan, Tensor *const *d, float *grad) {
    for (int i = 0; i < l->cnt; i++) {
        const LoraModule *m = &l->module[i].m;
        if (m->dead) continue;
        TRY(add_one(l, plan, *d++, grad + m->a_at));
        TRY(add_one(l, plan, *d++, grad + m->b_at));
    }
    return ERR_OK;
}

// ---- Reading ----

// Splits a key of either format into the module's path and which matrix it is.
static bool split_key(const char *key, char path[NAME_BYTES], bool *is_b) {
    static const char *const prefix[] = {"base_model.model.", "unet."};
    static const char *const suffix[] = {".lora_A.weight", ".lora_B.weight", ".lora.down.weight",
                                         ".lora.up.weight"};
    for (int i = 0; i < 2; i++)
        if (!strncmp(key, prefix[i], strlen(prefix[i]))) {
            key += strlen(prefix[i]);
            break;
        }
    size_t n = strlen(key);
    for (int i = 0; i < 4; i++) {
        size_t m = strlen(suffix[i]);
        if (n <= m || n - m >= NAME_BYTES || strcmp(key + n - m, suffix[i])) continue;
        memcpy(path, key, n - m);
        path[n - m] = 0;
        *is_b = i % 2;
        return true;
    }
    return false;
}

// Settings of peft that change the mathematics have to be off.
static Err want_plain_lora(Json *j) {
    static const char *const off[] = {"fan_in_fan_out", "use_rslora", "use_dora", "lora_bias",
                                      "use_qalora"};
    Json *pattern;
    const char *save[1];
    int cnt = 0;
    TRY(json_only_str(j, "peft_type", "LORA"));
    TRY(json_only_str(j, "bias", "none"));
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) TRY(json_only_bool(j, off[i], false));
    TRY(json_get_object(j, "rank_pattern", &pattern));
    TRY(json_get_object(j, "alpha_pattern", &pattern));
    TRY(json_get_strs(j, "modules_to_save", save, 0, &cnt));
    static const char *const ignore[] = {"auto_mapping",        "base_model_name_or_path",
                                         "inference_mode",      "init_lora_weights",
                                         "loftq_config",        "megatron_config",
                                         "megatron_core",       "revision",
                                         "task_type",           "peft_version",
                                         "eva_config",          "corda_config",
                                         "runtime_config",      "qalora_group_size",
                                         "ensure_weight_tying", NULL};
    return json_finish(j, ignore);
}

static Err read_peft(Lora **out, const char *dir) {
    enum { TARGETS_MAX = 4096 };
    Err err = ERR_OK;
    Arena a = {0};
    Json *j = NULL;
    LoraConfig cfg = {.alpha = 8};
    const char **target = arena_array(&a, const char *, TARGETS_MAX);
    TRY_OUT(json_open(&j, arena_printf(&a, "%s/adapter_config.json", dir)));
    if (json_kind(j, "target_modules") == JSON_KIND_STR)
        FAIL_OUT(ERR_FORMAT, "%s: target_modules is a pattern, want a list of names",
                 json_label(j));
    TRY_OUT(json_want_int(j, "r", &cfg.rank));
    TRY_OUT(json_get_f64(j, "lora_alpha", &cfg.alpha));
    TRY_OUT(json_get_f64(j, "lora_dropout", &cfg.dropout));
    TRY_OUT(json_want_strs(j, "target_modules", target, TARGETS_MAX, &cfg.target_cnt));
    TRY_OUT(want_plain_lora(j));
    if (cfg.rank < 1 || !(cfg.dropout >= 0 && cfg.dropout < 1))
        FAIL_OUT(ERR_FORMAT, "%s: r is %d and lora_dropout %g, want r > 0 and 0 <= dropout < 1",
                 json_label(j), cfg.rank, cfg.dropout);
    cfg.target = target;
    *out = lora_new(&cfg);
    TRY_OUT(safetensors_open(&(*out)->file, arena_printf(&a, "%s/adapter_model.safetensors", dir)));
out:
    json_close(j);
    arena_free(&a);
    return err;
}

// diffusers >= 0.34 may say what alpha is; without that its loader takes alpha = r.
static Err read_alpha(const Safetensors *s, double *alpha) {
    const char *text = safetensors_metadata(s, "lora_adapter_metadata");
    if (!text) return ERR_OK;
    Err err = ERR_OK;
    Json *j = NULL;
    TRY_OUT(json_open_text(&j, safetensors_path(s), text, strlen(text)));
    TRY_OUT(json_get_f64(j, "unet.lora_alpha", alpha));
    TRY_OUT(json_only_bool(j, "unet.use_rslora", false));
    TRY_OUT(json_only_bool(j, "unet.use_dora", false));
out:
    json_close(j);
    return err;
}

// The targets are the modules of the file, in its order; the rank is that of its matrices A.
static Err read_diffusers(Lora **out, const char *path) {
    Err err = ERR_OK;
    Arena a = {0};
    Safetensors *s = NULL;
    LoraConfig cfg = {0};
    TRY_OUT(safetensors_open(&s, path));
    size_t cnt = safetensors_count(s);
    const char **target = arena_array(&a, const char *, cnt + 1);
    for (size_t i = 0; i < cnt; i++) {
        const SafetensorsEntry *e = safetensors_at(s, i);
        char module[NAME_BYTES];
        bool is_b;
        if (!split_key(e->name, module, &is_b))
            FAIL_OUT(ERR_FORMAT, "%s: %s is not a key of a LoRA (want <module>.lora_A.weight)",
                     path, e->name);
        if (is_b) continue;
        if (!cfg.rank) cfg.rank = (int)e->dim[0];
        target[cfg.target_cnt++] = arena_strdup(&a, module);
    }
    if (cfg.rank < 1) FAIL_OUT(ERR_FORMAT, "%s: no matrices lora_A in this file", path);
    cfg.alpha = cfg.rank;
    cfg.target = target;
    TRY_OUT(read_alpha(s, &cfg.alpha));
    *out = lora_new(&cfg);
    (*out)->file = s;
    s = NULL;
out:
    safetensors_close(s);
    arena_free(&a);
    return err;
}

Err lora_read(Lora **out, const char *path) {
    struct stat st;
    Lora *l = NULL;
    if (stat(path, &st)) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    Err err = S_ISDIR(st.st_mode) ? read_peft(&l, path) : read_diffusers(&l, path);
    if (err) {
        lora_free(l);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = l;
    return ERR_OK;
}

// Widens one matrix into dst after checking its shape and values.
static Err load_matrix(const SafetensorsEntry *e, int64_t rows, int64_t cols, float *dst) {
    if (e->rank != 2 || e->dim[0] != rows || e->dim[1] != cols || !dtype_is_float(e->dtype)) {
        char text[192];
        FAIL(ERR_FORMAT, "%s: %s is %s %s, want floats [%lld, %lld]", e->path, e->name,
             dtype_name(e->dtype), safetensors_shape_text(e, text), (long long)rows,
             (long long)cols);
    }
    dtype_convert(dst, DTYPE_F32, e->data, e->dtype, (size_t)(rows * cols));
    for (int64_t i = 0; i < rows * cols; i++)
        if (!isfinite(dst[i]))
            FAIL(ERR_NUMERIC, "%s: %s has NaN or Inf at element %lld", e->path, e->name,
                 (long long)i);
    return ERR_OK;
}

static Err load_entry(Lora *l, const SafetensorsEntry *e, bool *have) {
    char path[NAME_BYTES];
    bool is_b;
    Module *m = split_key(e->name, path, &is_b) ? find_module(l, path) : NULL;
    if (!m)
        FAIL(ERR_FORMAT, "%s: %s: the model has no such module, or it is not a target", e->path,
             e->name);
    bool *seen = &have[2 * (m - l->module) + is_b];
    if (*seen) FAIL(ERR_FORMAT, "%s: %s is there twice", e->path, e->name);
    *seen = true;
    int64_t r = l->cfg.rank, cnt = r * (is_b ? m->m.out : m->m.in);
    float **kept = is_b ? &m->kept_b : &m->kept_a;
    if (m->m.dead && !*kept) *kept = arena_array(&l->arena, float, cnt);
    float *dst = m->m.dead ? *kept : l->theta + (is_b ? m->m.b_at : m->m.a_at);
    return is_b ? load_matrix(e, m->m.out, r, dst) : load_matrix(e, r, m->m.in, dst);
}

Err lora_load_values(Lora *l) {
    die_unless(l->file && l->theta, "lora: load_values before read and finish");
    Err err = ERR_OK;
    bool *have = calloc(2 * (size_t)l->cnt + 1, 1);
    die_unless(have, "lora: out of memory");
    for (size_t i = 0; i < safetensors_count(l->file); i++)
        TRY_OUT(load_entry(l, safetensors_at(l->file, i), have));
    for (int i = 0; i < l->cnt; i++) {
        const LoraModule *m = &l->module[i].m;
        if (have[2 * i] != have[2 * i + 1] || (!have[2 * i] && !m->dead))
            FAIL_OUT(ERR_FORMAT, "%s: %s.lora_%c.weight is missing", safetensors_path(l->file),
                     m->path, have[2 * i] ? 'B' : 'A');
    }
out:
    free(have);
    return err;
}

// ---- Writing ----

static Err write_adapter(const Lora *l, const float *theta, const char *path,
                         Err (*write)(const Adapter *x, const char *path)) {
    AdapterModule *module = calloc((size_t)l->cnt + 1, sizeof *module);
    die_unless(module, "lora: out of memory for %d modules", l->cnt);
    for (int i = 0; i < l->cnt; i++) {
        const Module *m = &l->module[i];
        module[i] = (AdapterModule){.path = m->m.path, .in = m->m.in, .out = m->m.out};
        module[i].a = m->m.dead ? m->kept_a : theta + m->m.a_at;
        module[i].b = m->m.dead ? m->kept_b : theta + m->m.b_at;
    }
    Adapter x = {.rank = l->cfg.rank,
                 .alpha = l->cfg.alpha,
                 .dropout = l->cfg.dropout,
                 .module = module,
                 .module_cnt = l->cnt};
    Err err = write(&x, path);
    free(module);
    return err;
}

Err lora_write_peft(const Lora *l, const float *theta, const char *dir) {
    return write_adapter(l, theta, dir, adapter_write_peft);
}

Err lora_write_diffusers(const Lora *l, const float *theta, const char *file) {
    return write_adapter(l, theta, file, adapter_write_diffusers);
}
