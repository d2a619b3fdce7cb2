// golden: compares plans with the files of tests/golden, which README.md there describes.
//
//     Golden c;
//     CHECK_OK(golden_open(&c, "tests/golden/unet_svd"));
//     CHECK_OK(golden_write(&c, plan, x, "in.sample", 2));      // axis 2 holds the channels: moved last
//     CHECK_OK(plan_run(plan));
//     CHECK_GOLDEN(&c, plan, y, "out.sample", 2, 1e-5);
//     golden_close(&c);
//
// All functions are static: a test includes this file.
#ifndef TESTS_COMMON_MODEL_GOLDEN_H
#define TESTS_COMMON_MODEL_GOLDEN_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/format/model_dir.h"
#include "common/format/safetensors.h"
#include "common/model/params.h"
#include "common/tensor/plan.h"
#include "tests/test.h"

typedef struct Golden {
    char dir[256];
    Safetensors *file;
    double worst; // largest error that golden_error has seen
    char worst_name[640];
} Golden;

static inline Err golden_open(Golden *c, const char *dir) {
    char path[512];
    *c = (Golden){0};
    snprintf(c->dir, sizeof c->dir, "%s", dir);
    snprintf(path, sizeof path, "%s/golden.safetensors", dir);
    return safetensors_open(&c->file, path);
}

static inline void golden_close(Golden *c) {
    safetensors_close(c->file);
    c->file = NULL;
}

static inline int64_t golden_count(const SafetensorsEntry *e) {
    return (int64_t)(e->bytes / dtype_bytes(e->dtype));
}

// The values as F32 with `axis` moved behind the others (-1: as they lie). free() them. NULL: no such tensor.
static inline float *golden_values(const Golden *c, const char *name, int axis) {
    const SafetensorsEntry *e = safetensors_find(c->file, name);
    if (!e) return NULL;
    int64_t cnt = golden_count(e), outer = 1, inner = 1, mid = axis < 0 ? 1 : e->dim[axis];
    float *raw = malloc((size_t)cnt * sizeof *raw), *out = malloc((size_t)cnt * sizeof *out);
    dtype_convert(raw, DTYPE_F32, e->data, e->dtype, (size_t)cnt);
    for (int i = 0; i < axis; i++) outer *= e->dim[i];
    inner = cnt / outer / mid;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t m = 0; m < mid; m++)
            for (int64_t i = 0; i < inner; i++)
                out[(o * inner + i) * mid + m] = raw[(o * mid + m) * inner + i];
    free(raw);
    return out;
}

static inline Err golden_write(const Golden *c, Plan *plan, const Tensor *t, const char *name,
                               int axis) {
    const SafetensorsEntry *e;
    TRY(safetensors_want(c->file, name, &e));
    if (golden_count(e) != shape_count(t->shape))
        FAIL(ERR_SHAPE, "%s has %lld elements, the input %lld", name, (long long)golden_count(e),
             (long long)shape_count(t->shape));
    float *x = golden_values(c, name, axis);
    Err err = plan_write(plan, t, x);
    free(x);
    return err;
}

// |got - want| / |want|, where |want| is at least `least` (for what is zero by construction).
static inline double golden_error(Golden *c, const char *name, int axis, const float *got,
                                  double least) {
    const SafetensorsEntry *e = safetensors_find(c->file, name);
    float *want = golden_values(c, name, axis);
    double diff = 0, norm = 0;
    if (!e) return printf("%s: not in %s\n", name, c->dir), INFINITY;
    for (int64_t i = 0; i < golden_count(e); i++) {
        double d = (double)(got ? got[i] : 0) - want[i];
        diff += d * d;
        norm += (double)want[i] * want[i];
    }
    free(want);
    double error = sqrt(diff) / fmax(sqrt(norm), least + 1e-300);
    if (!(error <= c->worst)) {
        c->worst = error;
        snprintf(c->worst_name, sizeof c->worst_name, "%s", name);
    }
    return error;
}

// The same for a tensor of a plan; t NULL: zeros.
static inline double golden_plan_error(Golden *c, Plan *plan, const Tensor *t, const char *name,
                                       int axis, double least) {
    if (!t) return golden_error(c, name, axis, NULL, least);
    float *got = malloc((size_t)shape_count(t->shape) * sizeof *got);
    double error = INFINITY;
    const SafetensorsEntry *e = safetensors_find(c->file, name);
    if (e && golden_count(e) == shape_count(t->shape) && !plan_read(plan, t, got))
        error = golden_error(c, name, axis, got, least);
    free(got);
    return error;
}

// Largest L2 norm of the tensors whose name begins so.
static inline double golden_largest(const Golden *c, const char *prefix) {
    double best = 0;
    for (size_t i = 0; i < safetensors_count(c->file); i++) {
        const SafetensorsEntry *e = safetensors_at(c->file, i);
        if (strncmp(e->name, prefix, strlen(prefix))) continue;
        float *x = golden_values(c, e->name, -1);
        double norm = 0;
        for (int64_t k = 0; k < golden_count(e); k++) norm += (double)x[k] * x[k];
        best = fmax(best, sqrt(norm));
        free(x);
    }
    return best;
}

// How many keys differ, in name or shape, between what a model asked a recorder for and a list of tests/data
// (key, dims joined by x, ...). Prints the first few.
static inline int golden_keys_differ(const Params *recorder, const char *list) {
    char line[1024], key[512], dims[128], got[128];
    int listed = 0, differ = 0, cnt = params_recorded_count(recorder);
    FILE *f = fopen(list, "r");
    if (!f) return printf("%s: not there\n", list), 1;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%511s %127s", key, dims) != 2 || !strcmp(key, "key")) continue;
        listed++;
        *got = 0;
        for (int i = 0; i < cnt && !*got; i++) {
            Shape s;
            if (strcmp(params_recorded(recorder, i, &s), key)) continue;
            for (int d = 0, n = 0; d < s.rank; d++)
                n += snprintf(got + n, sizeof got - (size_t)n, d ? "x%lld" : "%lld",
                              (long long)s.dim[d]);
        }
        if (strcmp(got, dims) && differ++ < 5)
            printf("%s is %s, want %s\n", key, *got ? got : "not asked for", dims);
    }
    fclose(f);
    if (listed != cnt) printf("%s has %d keys, the model %d\n", list, listed, cnt), differ++;
    return differ;
}

#define CHECK_GOLDEN(c, plan, t, name, axis, tolerance)                         \
    do {                                                                        \
        double error_ = golden_plan_error((c), (plan), (t), (name), (axis), 0); \
        CHECK_MSG(error_ <= (tolerance), "%s: relative error %.3g, want %.3g",  \
                  (const char *)(name), error_, (double)(tolerance));           \
    } while (0)

#endif
