// doctor: `vader doctor MODEL_DIR`: looks at configs and headers and says what would run, without reading weights.
//
// What a model needs is found by building its graph with a recorder in place of its weights (params.h): the
// same code that will run decides. It is then compared with what the file's header lists.
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/model/clip_vision.h"
#include "common/model/diffusion.h"
#include "common/model/unet_svd.h"
#include "common/model/vae_temporal.h"
#include "common/model/videomae.h"
#include "common/model/vjepa.h"
#include "launch/tool/args.h"
#include "launch/tool/parts.h"
#include "launch/tool/tool.h"

enum { LISTED_MAX = 10, PARTS_MAX = 64 };

static const char usage[] =
    "usage: vader doctor MODEL_DIR [options]\n\n"
    "Checks every part of a model folder (or one part's folder) by its config and the headers\n"
    "of its weights. Exit status 1 when something would not run.\n\n";

typedef struct Doctor {
    bool keys;    // print what is expected instead
    int64_t rank; // of the adapter whose size is told
    int problem_cnt;
} Doctor;

// One part under examination.
typedef struct Patient {
    Doctor *d;
    Arena arena;
    const char *name, *path;
    ModelPart *part;
    const char *unreadable; // why its weights cannot be opened; NULL: they can
    Graph *g;
    Params *expected; // a recorder
    Lora *lora;       // for classes that are trained; else NULL
} Patient;

__attribute__((format(printf, 3, 4))) static void say(const Patient *p, const char *what,
                                                      const char *fmt, ...) {
    va_list ap;
    if (p->d->keys) return;
    printf("  %-12s ", what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

static void problem(Patient *p, const char *what, const char *text) {
    p->d->problem_cnt++;
    say(p, what, "%s", text);
}

// 1234567 -> "1,234,567", in the arena.
static const char *grouped(Arena *a, int64_t n) {
    if (n < 1000) return arena_printf(a, "%lld", (long long)n);
    return arena_printf(a, "%s,%03lld", grouped(a, n / 1000), (long long)(n % 1000));
}

static const char *bytes_text(Arena *a, double bytes) {
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB"};
    int u = 0;
    while (bytes >= 1000 && u < 4) bytes /= 1000, u++;
    return arena_printf(a, u ? "%.2f %s" : "%.0f %s", bytes, unit[u]);
}

// ---- Building each class from inputs of the smallest size ----

static Err expect_unet(Patient *p, NN *nn) {
    UnetSvdConfig c;
    static const char *const targets[] = {"to_q", "to_k", "to_v", "to_out.0"};
    TRY(unet_svd_config(&c, p->part->config));
    p->lora = lora_new(
        &(LoraConfig){.rank = (int)p->d->rank, .alpha = 1, .target_cnt = 4, .target = targets});
    nn->lora = p->lora;
    int64_t side = 1ll << (c.level_cnt - 1);
    Graph *g = p->g;
    UnetSvdIo io = {graph_input(g, "sample", DTYPE_F32, SHAPE(1, 1, side, side, c.in_channels)),
                    graph_input(g, "timestep", DTYPE_F32, SHAPE(1)),
                    graph_input(g, "context", DTYPE_F32, SHAPE(1, 1, c.context_dim)),
                    graph_input(g, "time_ids", DTYPE_F32, SHAPE(1, c.ids_cnt))};
    unet_svd_build(nn, &c, io, (UnetSvdOptions){0});
    TRY(graph_check(g));
    return lora_finish(p->lora);
}

static Err expect_vae(Patient *p, NN *nn) {
    VaeTemporalConfig c;
    TRY(vae_temporal_config(&c, p->part->config));
    int64_t side = vae_temporal_stride(&c);
    Tensor *image = graph_input(p->g, "image", DTYPE_F32, SHAPE(1, 1, side, side, c.in_channels));
    Tensor *z = graph_input(p->g, "z", DTYPE_F32, SHAPE(1, 1, 1, 1, c.latent_channels));
    vae_temporal_encode(nn, &c, image, (VaeTemporalOptions){0});
    vae_temporal_decode(nn, &c, z, (VaeTemporalOptions){0});
    return graph_check(p->g);
}

static Err expect_clip(Patient *p, NN *nn) {
    ClipVisionConfig c;
    TRY(clip_vision_config(&c, p->part->config));
    clip_vision_build(nn, &c, false,
                      graph_input(p->g, "pixels", DTYPE_F32, SHAPE(1, 1, c.image, c.image, 3)));
    return graph_check(p->g);
}

static Err expect_videomae(Patient *p, NN *nn) {
    VideoMaeConfig c;
    TRY(videomae_config(&c, p->part->config));
    videomae_build(
        nn, &c, false,
        graph_input(p->g, "pixels", DTYPE_F32, SHAPE(1, c.tubelet, c.image, c.image, 3)));
    return graph_check(p->g);
}

static Err expect_vjepa(Patient *p, NN *nn) {
    Vjepa *v;
    VjepaLoss loss;
    VjepaMask mask[2];
    TRY(vjepa_of_params(&v, p->part->config, nn->params));
    const VjepaConfig *c = vjepa_config(v);
    Tensor *clips =
        graph_input(p->g, "clips", DTYPE_F32, SHAPE(1, c->tubelet, c->image_h, c->image_w, 3));
    for (int i = 0; i < 2; i++) {
        mask[i].context = graph_input(p->g, "context", DTYPE_I32, SHAPE(1, 1));
        mask[i].masked = graph_input(p->g, "masked", DTYPE_I32, SHAPE(1, 1));
    }
    vjepa_build(v, p->g, clips, mask, 2, VJEPA_FULL, 0, false, &loss);
    vjepa_close(v);
    return graph_check(p->g);
}

static Err check_scheduler(Patient *p) {
    DiffusionSchedule s;
    TRY(diffusion_schedule(&s, &p->arena, p->part->config, &(DiffusionOptions){.steps = 25}));
    say(p, "schedule", "%s, %s; 25 steps: sigma %g to %g, initial noise %g", s.sampler,
        s.prediction, s.step[0].sigma, s.step[s.cnt - 1].sigma, s.init_noise_sigma);
    return ERR_OK;
}

static const struct {
    const char *class_name;
    Err (*expect)(Patient *p, NN *nn);
} classes[] = {
    {"UNetSpatioTemporalConditionModel", expect_unet},
    {"AutoencoderKLTemporalDecoder", expect_vae},
    {"CLIPVisionModelWithProjection", expect_clip},
    {"CLIPModel", expect_clip},
    {"VideoMAEForVideoClassification", expect_videomae},
    {"vjepa", expect_vjepa},
};

// ---- Comparing ----

// The recorded keys, sorted, with their shapes.
typedef struct Expected {
    const char *key;
    Shape shape;
    bool found;
} Expected;

static int by_key(const void *a, const void *b) {
    return strcmp(((const Expected *)a)->key, ((const Expected *)b)->key);
}

static Expected *expected_list(Patient *p, int *cnt) {
    *cnt = params_recorded_count(p->expected);
    Expected *e = arena_array(&p->arena, Expected, *cnt + 1);
    for (int i = 0; i < *cnt; i++) e[i].key = params_recorded(p->expected, i, &e[i].shape);
    qsort(e, (size_t)*cnt, sizeof *e, by_key);
    return e;
}

static bool same_shape(const SafetensorsEntry *e, Shape s) {
    bool same = e->rank == s.rank;
    for (int i = 0; i < s.rank && same; i++) same = e->dim[i] == s.dim[i];
    return same;
}

// "what key ..." for the first LISTED_MAX; then their number.
static void list_problem(Patient *p, const char *what, int *cnt, const char *text) {
    if ((*cnt)++ < LISTED_MAX) problem(p, what, text);
}
static void list_end(Patient *p, const char *what, int cnt) {
    if (cnt > LISTED_MAX)
        problem(p, what, arena_printf(&p->arena, "... and %d more", cnt - LISTED_MAX));
}

static void compare(Patient *p) {
    int cnt, missing = 0, surplus = 0, shape = 0;
    char found[192], want[96];
    Expected *e = expected_list(p, &cnt);
    for (size_t i = 0; i < model_dir_count(p->part); i++) {
        const SafetensorsEntry *t = model_dir_at(p->part, i);
        Expected probe = {.key = t->name};
        Expected *x = bsearch(&probe, e, (size_t)cnt, sizeof *e, by_key);
        if (x) x->found = true;
        if (!x && !params_ignores(p->expected, t->name))
            list_problem(
                p, "surplus", &surplus,
                arena_printf(&p->arena, "%s %s", t->name, safetensors_shape_text(t, found)));
        if (x && !same_shape(t, x->shape))
            list_problem(p, "shape", &shape,
                         arena_printf(&p->arena, "%s is %s, want %s", t->name,
                                      safetensors_shape_text(t, found),
                                      shape_text(x->shape, want)));
        if (x && !dtype_is_float(t->dtype))
            list_problem(
                p, "type", &shape,
                arena_printf(&p->arena, "%s holds %s, want floats", t->name, dtype_name(t->dtype)));
    }
    for (int i = 0; i < cnt; i++)
        if (!e[i].found)
            list_problem(p, "missing", &missing,
                         arena_printf(&p->arena, "%s %s", e[i].key, shape_text(e[i].shape, want)));
    list_end(p, "surplus", surplus);
    list_end(p, "shape", shape);
    list_end(p, "missing", missing);
    if (!missing && !surplus && !shape) say(p, "keys", "all %d found, none left over", cnt);
}

static void print_keys(Patient *p) {
    for (int i = 0, cnt = params_recorded_count(p->expected); i < cnt; i++) {
        Shape s;
        printf("%s\t%s\t", p->name, params_recorded(p->expected, i, &s));
        for (int k = 0; k < s.rank; k++) printf("%s%lld", k ? "x" : "", (long long)s.dim[k]);
        putchar('\n');
    }
}

// ---- Telling ----

// "f16" or "900 f16, 28 f32"
static const char *dtype_counts(Patient *p, size_t total) {
    size_t cnt[DTYPE_CNT] = {0};
    const char *text = "";
    for (size_t i = 0; i < total; i++) cnt[model_dir_at(p->part, i)->dtype]++;
    for (int t = 0; t < DTYPE_CNT; t++)
        if (cnt[t] == total) return dtype_name((DType)t);
    for (int t = 0; t < DTYPE_CNT; t++)
        if (cnt[t])
            text = arena_printf(&p->arena, "%s%s%zu %s", text, *text ? ", " : "", cnt[t],
                                dtype_name((DType)t));
    return text;
}

static void tell_weights(Patient *p) {
    size_t cnt = model_dir_count(p->part);
    double bytes = 0;
    int64_t numbers = 0;
    for (size_t i = 0; i < cnt; i++) {
        const SafetensorsEntry *e = model_dir_at(p->part, i);
        bytes += (double)e->bytes;
        numbers += (int64_t)(e->bytes / dtype_bytes(e->dtype));
    }
    const char *slash = strrchr(p->part->weights, '/');
    say(p, "weights", "%s: %zu tensors, %s parameters, %s, %s",
        slash ? slash + 1 : p->part->weights, cnt, grouped(&p->arena, numbers),
        dtype_counts(p, cnt), bytes_text(&p->arena, bytes));
}

static void tell_expected(Patient *p) {
    int cnt = params_recorded_count(p->expected);
    int64_t numbers = 0;
    Shape s;
    for (int i = 0; i < cnt; i++) {
        params_recorded(p->expected, i, &s);
        numbers += shape_count(s);
    }
    say(p, "expects", "%d tensors, %s parameters", cnt, grouped(&p->arena, numbers));
}

static void tell_lora(Patient *p) {
    int live = 0, cnt = lora_module_count(p->lora);
    int64_t numbers = 0;
    for (int i = 0; i < cnt; i++) {
        const LoraModule *m = lora_module(p->lora, i);
        if (m->dead) continue;
        live++;
        numbers += (m->in + m->out) * p->d->rank;
    }
    say(p, "adapter", "%d modules, %d more without effect; rank %lld: %s parameters, %s", live,
        cnt - live, (long long)p->d->rank, grouped(&p->arena, numbers),
        bytes_text(&p->arena, 4.0 * (double)numbers));
}

static Err examine_weights(Patient *p, Err (*expect)(Patient *p, NN *nn)) {
    p->g = graph_new();
    p->expected = params_new_recorder();
    NN nn = {.g = p->g, .params = p->expected};
    TRY(expect(p, &nn));
    if (p->d->keys) {
        print_keys(p);
        return ERR_OK;
    }
    tell_expected(p);
    if (!p->unreadable) {
        tell_weights(p);
        compare(p);
    } else {
        problem(p, "weights", p->unreadable);
    }
    if (p->lora) tell_lora(p);
    return ERR_OK;
}

// Opens the weights too, if they can be opened.
static void open_weights(Patient *p) {
    ModelPart *whole = NULL;
    if (model_dir_open(&whole, p->path, NULL, NULL, NULL)) {
        p->unreadable = arena_strdup(&p->arena, err_text());
        return;
    }
    model_dir_close(p->part);
    p->part = whole;
}

static Err examine(Patient *p) {
    ModelDirOptions bare = {.config_only = true};
    TRY(model_dir_open(&p->part, p->path, NULL, NULL, &bare));
    if (!p->d->keys)
        printf("%-14s %s\n", p->name, p->part->config ? p->part->class_name : "(no config)");
    if (!p->part->config) return ERR_OK;
    const char *class_name = arena_strdup(&p->arena, p->part->class_name);
    if (strstr(class_name, "Scheduler")) return p->d->keys ? ERR_OK : check_scheduler(p);
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (strcmp(classes[i].class_name, class_name)) continue;
        open_weights(p);
        return examine_weights(p, classes[i].expect);
    }
    if (!access(arena_printf(&p->arena, "%s/preprocessor_config.json", p->path), F_OK) ||
        strstr(class_name, "Tokenizer")) {
        say(p, "note", "not read: images and text are prepared by vader itself");
        return ERR_OK;
    }
    FAIL(ERR_FORMAT, "class '%s' is not built; this build runs %s", class_name,
         parts_class_list(&p->arena));
}

static void examine_part(Doctor *d, const char *name, const char *path) {
    Patient p = {.d = d, .name = name, .path = path};
    if (examine(&p)) {
        if (d->keys) err_print(0);
        problem(&p, "cannot run", err_text());
    }
    params_close(p.expected);
    lora_free(p.lora);
    graph_free(p.g);
    model_dir_close(p.part);
    arena_free(&p.arena);
}

// ---- The folder ----

static bool is_part(Arena *a, const char *path) {
    static const char *const configs[] = {"config.json", "scheduler_config.json",
                                          "preprocessor_config.json"};
    for (int i = 0; i < 3; i++)
        if (!access(arena_printf(a, "%s/%s", path, configs[i]), F_OK)) return true;
    return false;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// The folders below path that are parts, sorted; returns how many.
static Err list_parts(Arena *a, const char *path, const char *name[PARTS_MAX], int *cnt) {
    DIR *dir = opendir(path);
    if (!dir) FAIL(ERR_IO, "%s: no such folder", path);
    *cnt = 0;
    for (struct dirent *e; (e = readdir(dir));)
        if (*e->d_name != '.' && *cnt < PARTS_MAX &&
            is_part(a, arena_printf(a, "%s/%s", path, e->d_name)))
            name[(*cnt)++] = arena_strdup(a, e->d_name);
    closedir(dir);
    qsort(name, (size_t)*cnt, sizeof *name, by_text);
    return ERR_OK;
}

static Err examine_folder(Doctor *d, Arena *a, const char *path) {
    char pipeline[MODEL_DIR_CLASS_BYTES];
    const char *name[PARTS_MAX];
    int cnt;
    TRY(model_dir_pipeline(path, pipeline));
    if (*pipeline && !d->keys) printf("%s: %s\n", path, pipeline);
    TRY(list_parts(a, path, name, &cnt));
    if (is_part(a, path)) {
        const char *slash = strrchr(path, '/');
        examine_part(d, slash && slash[1] ? slash + 1 : path, path);
    } else if (!cnt) {
        FAIL(ERR_FORMAT, "%s: neither a model part (config.json) nor a folder of parts", path);
    }
    for (int i = 0; i < cnt; i++) examine_part(d, name[i], arena_printf(a, "%s/%s", path, name[i]));
    if (d->problem_cnt)
        FAIL(ERR_FORMAT, "%s: %d problem%s", path, d->problem_cnt, d->problem_cnt > 1 ? "s" : "");
    return ERR_OK;
}

Err tool_doctor(int argc, char **argv) {
    Doctor d = {.rank = 16};
    bool help = false;
    const char *dir = NULL;
    int words = 0;
    const Arg table[] = {
        {"keys", ARG_FLAG, &d.keys, NULL,
         "print the tensors that each part needs: part, key, shape"},
        {"rank", ARG_INT, &d.rank, "R", "of the adapter whose size is told (16)"},
        {"help", ARG_FLAG, &help, NULL, "this text"},
        {0},
    };
    TRY(args_parse(table, argc, argv, &dir, 1, &words));
    if (help) {
        fputs(usage, stdout);
        args_help(table, stdout);
        return ERR_OK;
    }
    if (!words) FAIL(ERR_USAGE, "doctor: want MODEL_DIR; `vader doctor --help` says more");
    if (d.rank < 1 || d.rank > 1024)
        FAIL(ERR_USAGE, "--rank %lld: want 1 to 1024", (long long)d.rank);
    Arena a = {0};
    Err err = examine_folder(&d, &a, dir);
    arena_free(&a);
    return err;
}
