// resample: each rule fills one dense row of weights in double; a table is the rows without their zeros.
#include "common/model/resample.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tensor/op.h"

static int64_t clamp_index(int64_t j, int64_t n) { return j < 0 ? 0 : j >= n ? n - 1 : j; }

// Without repeating the edge, as torch's reflect padding: ... 2 1 | 0 1 2 ...
static int64_t reflect_index(int64_t j, int64_t n) {
    if (n == 1) return 0;
    if (j < 0) j = -j;
    return j >= n ? 2 * (n - 1) - j : j;
}

// Keys' cubic convolution kernel.
static double cubic(double x, double a) {
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
    return 0;
}

static double triangle(double x) { return fmax(0, 1 - fabs(x)); }

static void add_bicubic(double *row, int64_t in, double u) {
    double floor_u = floor(u);
    for (int k = -1; k <= 2; k++)
        row[clamp_index((int64_t)floor_u + k, in)] += cubic(u - (floor_u + k), -0.75);
}

static void row_nearest(double *row, int64_t in, int64_t out, int64_t i) { row[i * in / out] = 1; }

static void row_bilinear(double *row, int64_t in, int64_t out, int64_t i) {
    double u = fmax(0, ((double)i + 0.5) * (double)in / (double)out - 0.5), f = u - floor(u);
    row[clamp_index((int64_t)u, in)] += 1 - f;
    row[clamp_index((int64_t)u + 1, in)] += f;
}

static void row_bicubic(double *row, int64_t in, int64_t out, int64_t i) {
    add_bicubic(row, in, ((double)i + 0.5) * (double)in / (double)out - 0.5);
}

static void row_antialias(double *row, int64_t in, int64_t out, int64_t i, bool is_cubic) {
    double s = (double)in / (double)out, stretch = fmax(s, 1), centre = ((double)i + 0.5) * s;
    double support = (is_cubic ? 2 : 1) * stretch, sum = 0;
    int64_t first = (int64_t)fmax(0, centre - support + 0.5);
    int64_t end = (int64_t)fmin((double)in, centre + support + 0.5);
    for (int64_t j = first; j < end; j++) {
        double x = ((double)j + 0.5 - centre) / stretch;
        row[j] = is_cubic ? cubic(x, -0.5) : triangle(x);
        sum += row[j];
    }
    for (int64_t j = first; j < end; j++) row[j] /= sum;
}

static void row_bilinear_aa(double *row, int64_t in, int64_t out, int64_t i) {
    row_antialias(row, in, out, i, false);
}

static void row_bicubic_aa(double *row, int64_t in, int64_t out, int64_t i) {
    row_antialias(row, in, out, i, true);
}

// The bicubic row, each entry of which is spread over the blurred pixel's own neighbours.
static void row_svd(double *row, int64_t in, int64_t out, int64_t i) {
    double sigma = fmax(((double)in / (double)out - 1) / 2, 0.001);
    int64_t width = (int64_t)fmax(4 * sigma, 3), half;
    width += width % 2 == 0;
    half = width / 2;
    die_unless(half < in || in == 1, "resample: a blur of %lld over %lld pixels", (long long)width,
               (long long)in);
    double sum = 0;
    for (int64_t k = -half; k <= half; k++) sum += exp(-(double)(k * k) / (2 * sigma * sigma));

    double sharp[4], u = out > 1 ? (double)i * (double)(in - 1) / (double)(out - 1) : 0;
    for (int t = 0; t < 4; t++) sharp[t] = cubic(u - (floor(u) + t - 1), -0.75);
    for (int t = 0; t < 4; t++)
        for (int64_t k = -half, j = clamp_index((int64_t)u + t - 1, in); k <= half; k++)
            row[reflect_index(j + k, in)] +=
                sharp[t] * exp(-(double)(k * k) / (2 * sigma * sigma)) / sum;
}

static const struct {
    const char *name;
    void (*row)(double *row, int64_t in, int64_t out, int64_t i); // adds into zeros [in]
} rules[RESAMPLE_CNT] = {
    [RESAMPLE_NEAREST] = {"nearest", row_nearest},
    [RESAMPLE_BILINEAR] = {"bilinear", row_bilinear},
    [RESAMPLE_BICUBIC] = {"bicubic", row_bicubic},
    [RESAMPLE_BILINEAR_AA] = {"bilinear_aa", row_bilinear_aa},
    [RESAMPLE_BICUBIC_AA] = {"bicubic_aa", row_bicubic_aa},
    [RESAMPLE_SVD] = {"svd", row_svd},
};

const char *resample_name(ResampleKind kind) { return rules[kind].name; }

static double *rows_new(ResampleKind kind, int64_t in, int64_t out) {
    double *rows = calloc((size_t)(in * out), sizeof *rows);
    die_unless(rows, "resample: out of memory for %lld x %lld", (long long)in, (long long)out);
    for (int64_t i = 0; i < out; i++) rules[kind].row(rows + i * in, in, out, i);
    return rows;
}

// Where the non-zero part of a row begins and ends.
static void row_extent(const double *row, int64_t in, int64_t *first, int64_t *end) {
    for (*first = 0; *first < in - 1 && row[*first] == 0;) ++*first;
    for (*end = in; *end > *first + 1 && row[*end - 1] == 0;) --*end;
}

ResampleTable resample_table(Arena *a, ResampleKind kind, int64_t in, int64_t out) {
    die_unless(in > 0 && out > 0, "resample: %lld to %lld pixels", (long long)in, (long long)out);
    ResampleTable t = {.in = in, .out = out, .start = arena_array(a, int32_t, out)};
    double *rows = rows_new(kind, in, out);
    int64_t first, end;
    for (int64_t i = 0; i < out; i++) {
        row_extent(rows + i * in, in, &first, &end);
        t.start[i] = (int32_t)first;
        if (end - first > t.taps) t.taps = end - first;
    }
    t.tap = arena_array(a, float, out *t.taps);
    for (int64_t i = 0; i < out; i++)
        for (int64_t k = 0; k < t.taps && t.start[i] + k < in; k++)
            t.tap[i * t.taps + k] = (float)rows[i * in + t.start[i] + k];
    free(rows);
    return t;
}

static void table_weights(Graph *g, const char *axis, const ResampleTable *t, Tensor **start,
                          Tensor **tap) {
    char name[32];
    snprintf(name, sizeof name, "resample.%s.start", axis);
    *start = graph_weight(g, name, DTYPE_I32, SHAPE(t->out), t->start);
    snprintf(name, sizeof name, "resample.%s.tap", axis);
    *tap = graph_weight(g, name, DTYPE_F32, SHAPE(t->out, t->taps), t->tap);
}

Tensor *resample(Graph *g, Tensor *x, ResampleKind kind, int64_t h, int64_t w) {
    if (!x) return NULL;
    char text[96];
    if (x->shape.rank != 5)
        return graph_fail(g, ERR_SHAPE, "%s: %s cannot be resized, want (N, T, H, W, C)", x->name,
                          shape_text(x->shape, text));
    if (x->shape.dim[2] == h && x->shape.dim[3] == w) return x;
    ResampleTable rows = resample_table(&g->arena, kind, x->shape.dim[2], h);
    ResampleTable cols = resample_table(&g->arena, kind, x->shape.dim[3], w);
    Tensor *h_start, *h_tap, *w_start, *w_tap;
    table_weights(g, "h", &rows, &h_start, &h_tap);
    table_weights(g, "w", &cols, &w_start, &w_tap);
    return op_resize(g, x, h_start, h_tap, w_start, w_tap);
}
