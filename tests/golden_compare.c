// golden_compare: one pass for the largest gradients, one to compare.
#include "tests/golden_compare.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/format/safetensors.h"

static size_t count(const SafetensorsEntry *e) { return e->bytes / dtype_bytes(e->dtype); }

static float *floats(const SafetensorsEntry *e) {
    float *x = malloc((count(e) + 1) * sizeof *x);
    die_unless(x, "golden_compare: out of memory");
    dtype_convert(x, DTYPE_F32, e->data, e->dtype, count(e));
    return x;
}

static double largest(const SafetensorsEntry *e) {
    float *x = floats(e);
    double top = 0;
    for (size_t i = 0; i < count(e); i++) top = fmax(top, fabs(x[i]));
    free(x);
    return top;
}

// "grad.in.", "grad.w.", "grad.lora.", "grad.out.": kinds whose sizes are comparable.
static size_t kind_len(const char *name) {
    const char *second = strchr(name, '.');
    const char *end = second ? strchr(second + 1, '.') : NULL;
    return end ? (size_t)(end - name) : strlen(name);
}

static double largest_of_kind(const Safetensors *s, const char *name) {
    double top = 0;
    size_t len = kind_len(name);
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const SafetensorsEntry *e = safetensors_at(s, i);
        if (kind_len(e->name) == len && !strncmp(e->name, name, len)) top = fmax(top, largest(e));
    }
    return top;
}

__attribute__((format(printf, 3, 4))) static void bad(GoldenCompare *c, const char *name,
                                                      const char *fmt, ...) {
    va_list ap;
    char why[128];
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    size_t len = strlen(c->bad);
    if (c->bad_cnt++ < 5)
        snprintf(c->bad + len, sizeof c->bad - len, "%s%s %s", len ? "; " : "", name, why);
}

static void note(GoldenWorst *w, const char *name, double error) {
    w->cnt++;
    if (error <= w->error) return;
    w->error = error;
    snprintf(w->name, sizeof w->name, "%s", name);
}

static void compare_values(GoldenCompare *c, const Safetensors *s, const SafetensorsEntry *want,
                           const SafetensorsEntry *got) {
    float *a = floats(want), *b = floats(got);
    double diff = 0, norm = 0, top = 0;
    bool is_out = !strncmp(want->name, "out.", 4),
         is_mix = strstr(want->name, "mix_factor") != NULL;
    for (size_t i = 0; i < count(want); i++) {
        diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)a[i] * a[i];
        top = fmax(top, fabs(a[i]));
    }
    double kind = is_out ? 0 : largest_of_kind(s, want->name);
    if (!is_out && top <= 1e-9 * kind) {
        double e = kind > 0 ? largest(got) / kind : largest(got);
        note(&c->zero, want->name, e);
        if (!(e <= 1e-6)) bad(c, want->name, "is %.2g of the largest, want 0", e);
    } else {
        double e = sqrt(diff) / sqrt(norm + 1e-300), tolerance = is_out   ? 1e-5
                                                                 : is_mix ? 1e-3
                                                                          : 1e-4;
        note(is_out ? &c->out : is_mix ? &c->mix : &c->grad, want->name, e);
        if (!(e <= tolerance))
            bad(c, want->name, "differs by %.2g, want at most %.0e", e, tolerance);
    }
    free(a);
    free(b);
}

static void compare_tensor(GoldenCompare *c, const Safetensors *s, const SafetensorsEntry *want,
                           const Safetensors *got) {
    char text[192];
    const SafetensorsEntry *e = safetensors_find(got, want->name);
    if (!e)
        bad(c, want->name, "is missing");
    else if (e->rank != want->rank || memcmp(e->dim, want->dim, sizeof e->dim))
        bad(c, want->name, "has shape %s", safetensors_shape_text(e, text));
    else
        compare_values(c, s, want, e);
}

Err golden_compare(const char *want_path, const char *got_path, GoldenCompare *out) {
    Safetensors *want = NULL, *got = NULL;
    Err err = ERR_OK;
    *out = (GoldenCompare){0};
    TRY_OUT(safetensors_open(&want, want_path));
    TRY_OUT(safetensors_open(&got, got_path));
    for (size_t i = 0; i < safetensors_count(want); i++) {
        const SafetensorsEntry *e = safetensors_at(want, i);
        if (!strncmp(e->name, "out.", 4) || !strncmp(e->name, "grad.", 5))
            compare_tensor(out, want, e, got);
    }
out:
    safetensors_close(want);
    safetensors_close(got);
    return err;
}
