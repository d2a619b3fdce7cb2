// Linear maps and convolutions of the cpu backend against plain loops in double: shapes that leave
// tails, views, storage types, every algorithm, both ways to hold weights, any number of threads.
#include <stdint.h>

#include "common/tensor/cpu/cpu.h"
#include "common/tensor/op.h"
#include "common/tensor/plan.h"
#include "tests/test.h"

// ---- A graph of one node, run ------------------------------------------------------------------

static uint32_t seed = 1;
static float uniform(void) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / (1 << 24) - 0.5f;
}
static float *values(int64_t n) {
    float *v = malloc((size_t)n * sizeof *v + 4);
    for (int64_t i = 0; i < n; i++) v[i] = uniform();
    return v;
}

static BackendOptions option = {.threads = 2, .pack_weights = true};
static const char *isa;      // instruction set to use instead of the machine's best
static uint64_t output_hash; // FNV-1a over the bytes of every result since it was reset
static Graph *g;
static struct {
    Tensor *t;
    float *data;
} input[8];
static int input_cnt;

static void begin(void) { g = graph_new(), input_cnt = 0; }
static Tensor *in(Shape shape) {
    Tensor *t = graph_input(g, "in", DTYPE_F32, shape);
    input[input_cnt].t = t, input[input_cnt].data = values(shape_count(shape));
    return input[input_cnt++].t;
}
static float *data_of(const Tensor *t) {
    for (int i = 0; i < input_cnt; i++)
        if (input[i].t == t) return input[i].data;
    return NULL;
}

// Compares y of a run with want: relative L2 error. Frees the graph and want. Prints what failed.
static void check(Tensor *y, double *want, const char *what, double tolerance) {
    Backend *be = NULL;
    Plan *plan = NULL;
    graph_output(g, &y, "y");
    CHECK_OK(graph_check(g));
    CHECK_OK(backend_open_cpu(&be, option));
    if (isa) cpu_device(be)->simd = cpu_simd_table(isa);
    CHECK_OK(plan_new(&plan, g, be, (PlanOptions){0}));
    for (int i = 0; i < input_cnt; i++) CHECK_OK(plan_write(plan, input[i].t, input[i].data));
    for (int run = 0; run < 2; run++) CHECK_OK(plan_run(plan));
    const float *got = plan_data(plan, y);
    double error = 0, norm = 0;
    for (int64_t i = 0; i < shape_count(y->shape); i++)
        error += (got[i] - want[i]) * (got[i] - want[i]), norm += want[i] * want[i];
    error = sqrt(error / norm);
    CHECK_MSG(error <= tolerance, "%s: relative error %.2e, want at most %.1e", what, error,
              tolerance);
    for (size_t i = 0; i < (size_t)shape_count(y->shape) * sizeof *got; i++)
        output_hash = (output_hash ^ ((const unsigned char *)got)[i]) * 0x100000001b3u;
    plan_free(plan);
    backend_close(be);
    graph_free(g);
    for (int i = 0; i < input_cnt; i++) free(input[i].data);
    free(want);
}

// ---- Linear ------------------------------------------------------------------------------------

typedef struct LinearCase {
    int64_t m, n, k, r; // r > 0: LoRA
    bool trans, strided, bias, residual;
    DType dtype;
} LinearCase;

static void linear_case(LinearCase c) {
    char what[128];
    snprintf(what, sizeof what, "linear m %d n %d k %d r %d%s%s %s", (int)c.m, (int)c.n, (int)c.k,
             (int)c.r, c.trans ? " trans" : "", c.strided ? " strided" : "", dtype_name(c.dtype));
    begin();
    int64_t ci = c.trans ? c.n : c.k, co = c.trans ? c.k : c.n;
    Tensor *wide = in(SHAPE(c.m, ci + (c.strided ? 5 : 0)));
    Tensor *x = c.strided ? op_slice(g, wide, 1, 3, ci) : wide;
    float *w = values(c.n * c.k);
    void *stored = malloc((size_t)(c.n * c.k) * 4);
    dtype_convert(stored, c.dtype, w, DTYPE_F32, (size_t)(c.n * c.k));
    dtype_convert(w, DTYPE_F32, stored, c.dtype, (size_t)(c.n * c.k));
    Tensor *wt = graph_weight(g, "w", c.dtype, SHAPE(c.n, c.k), stored);
    Tensor *bias = c.bias ? in(SHAPE(co)) : NULL, *res = c.residual ? in(SHAPE(c.m, co)) : NULL;
    Tensor *a = c.r ? in(SHAPE(c.r, c.k)) : NULL, *b = c.r ? in(SHAPE(c.n, c.r)) : NULL, *y;
    double scale = 0.75;
    if (c.r)
        y = (c.trans ? op_lora_linear_t : op_lora_linear)(g, x, wt, a, b, scale, bias, res);
    else
        y = (c.trans ? op_linear_t : op_linear)(g, x, wt, bias, res);
    double *want = calloc((size_t)(c.m * co), sizeof *want),
           *full = calloc((size_t)(c.n * c.k), sizeof *full);
    for (int64_t i = 0; i < c.n; i++)
        for (int64_t j = 0; j < c.k; j++) {
            full[i * c.k + j] = w[i * c.k + j];
            for (int64_t q = 0; q < c.r; q++)
                full[i * c.k + j] += scale * data_of(b)[i * c.r + q] * data_of(a)[q * c.k + j];
        }
    for (int64_t i = 0; i < c.m; i++)
        for (int64_t j = 0; j < co; j++) {
            double sum = (bias ? data_of(bias)[j] : 0) + (res ? data_of(res)[i * co + j] : 0);
            for (int64_t q = 0; q < ci; q++)
                sum += (double)data_of(wide)[i * wide->shape.dim[1] + q + (c.strided ? 3 : 0)] *
                       (c.trans ? full[q * c.k + j] : full[j * c.k + q]);
            want[i * co + j] = sum;
        }
    check(y, want, what, 1e-6);
    free(full), free(w), free(stored);
}

static void linear_cases(void) {
    static const LinearCase cases[] = {
        {1, 1, 1},
        {7, 5, 3, .bias = true},
        {100, 33, 64, .bias = true, .residual = true},
        {6, 16, 300, .dtype = DTYPE_F16},
        {97, 17, 600, .bias = true, .dtype = DTYPE_BF16},
        {50, 8, 40, .strided = true},
        {50, 100, 40, .trans = true, .strided = true, .residual = true},
        {33, 40, 24, .trans = true, .dtype = DTYPE_F16},
        {64, 48, 40, .r = 4, .bias = true, .residual = true},
        {64, 48, 40, .r = 16, .trans = true},
        {13, 21, 35, .r = 1, .dtype = DTYPE_BF16, .strided = true},
        {13, 21, 35, .r = 3, .trans = true, .dtype = DTYPE_F16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases && !test_failed(); i++)
        linear_case(cases[i]);
}
TEST(linear_packed_once) { linear_cases(); }
TEST(linear_packed_each_run) {
    option.pack_weights = false;
    linear_cases();
    option.pack_weights = true;
}

TEST(linear_with_a_computed_weight) {
    begin();
    Tensor *x = in(SHAPE(9, 20)), *w = in(SHAPE(12, 20));
    double *want = calloc(9 * 12, sizeof *want);
    for (int i = 0; i < 9; i++)
        for (int j = 0; j < 12; j++)
            for (int k = 0; k < 20; k++)
                want[i * 12 + j] += (double)data_of(x)[i * 20 + k] * data_of(w)[j * 20 + k];
    check(op_linear(g, x, w, NULL, NULL), want, "computed weight", 1e-6);
}

static void linear_dw_case(int64_t m, int64_t n, int64_t k) {
    begin();
    Tensor *dy = in(SHAPE(m, n)), *x = in(SHAPE(m, k));
    double *want = calloc((size_t)(n * k), sizeof *want);
    for (int64_t i = 0; i < m; i++)
        for (int64_t a = 0; a < n; a++)
            for (int64_t b = 0; b < k; b++)
                want[a * k + b] += (double)data_of(dy)[i * n + a] * data_of(x)[i * k + b];
    check(op_linear_dw(g, dy, x), want, "linear_dw", 1e-6);
}
TEST(linear_dw) {
    linear_dw_case(1, 3, 5);
    linear_dw_case(1200, 16, 40); // small result: sliced
    linear_dw_case(700, 260, 300);
}

TEST(bmm_in_every_transposition) {
    for (int mode = 0; mode < 4 && !test_failed(); mode++) {
        bool ta = mode & 1, tb = mode & 2;
        enum { B = 3, M = 13, N = 21, K = 10 };
        begin();
        Tensor *a = in(ta ? SHAPE(B, K, M) : SHAPE(B, M, K)),
               *b = in(tb ? SHAPE(B, N, K) : SHAPE(B, K, N));
        double *want = calloc(B * M * N, sizeof *want);
        for (int q = 0; q < B; q++)
            for (int i = 0; i < M; i++)
                for (int j = 0; j < N; j++)
                    for (int k = 0; k < K; k++)
                        want[(q * M + i) * N + j] +=
                            (double)data_of(a)[q * M * K + (ta ? k * M + i : i * K + k)] *
                            data_of(b)[q * K * N + (tb ? j * K + k : k * N + j)];
        check(op_bmm(g, a, b, ta, tb), want, "bmm", 1e-6);
    }
}

// ---- Convolution -------------------------------------------------------------------------------

typedef struct ConvCase {
    int64_t n, in[3], c, o, kernel[3];
    ConvSpec spec;
    int bias; // 0, 1: (O), 2: (N, O)
    bool residual;
    DType dtype;
} ConvCase;

static int64_t out_size(const ConvCase *c, int i) {
    int s = c->spec.stride[i] ? c->spec.stride[i] : 1;
    return (c->in[i] + c->spec.lo[i] + c->spec.hi[i] - c->kernel[i]) / s + 1;
}

// Calls visit for every pair of an output position and an input position that a tap joins, with
// flat indices.
static void each_pair(const ConvCase *c,
                      void (*visit)(void *ctx, int64_t out, int64_t in, int64_t tap), void *ctx) {
    int64_t o[3], k[3], i[3];
    for (int64_t n = 0; n < c->n; n++)
        for (o[0] = 0; o[0] < out_size(c, 0); o[0]++)
            for (o[1] = 0; o[1] < out_size(c, 1); o[1]++)
                for (o[2] = 0; o[2] < out_size(c, 2); o[2]++)
                    for (k[0] = 0; k[0] < c->kernel[0]; k[0]++)
                        for (k[1] = 0; k[1] < c->kernel[1]; k[1]++)
                            for (k[2] = 0; k[2] < c->kernel[2]; k[2]++) {
                                bool inside = true;
                                for (int d = 0; d < 3; d++) {
                                    int s = c->spec.stride[d] ? c->spec.stride[d] : 1;
                                    i[d] = o[d] * s + k[d] - c->spec.lo[d];
                                    inside = inside && i[d] >= 0 && i[d] < c->in[d];
                                }
                                if (!inside) continue;
                                visit(ctx,
                                      ((n * out_size(c, 0) + o[0]) * out_size(c, 1) + o[1]) *
                                              out_size(c, 2) +
                                          o[2],
                                      ((n * c->in[0] + i[0]) * c->in[1] + i[1]) * c->in[2] + i[2],
                                      (k[0] * c->kernel[1] + k[1]) * c->kernel[2] + k[2]);
                            }
}

typedef struct Naive {
    const ConvCase *c;
    int64_t taps;
    const float *x, *w, *dy;
    double *y, *dx, *dw;
} Naive;
static void visit(void *ctx, int64_t out, int64_t in_at, int64_t tap) {
    Naive *v = ctx;
    int64_t ci = v->c->c, co = v->c->o;
    for (int64_t o = 0; o < co; o++)
        for (int64_t i = 0; i < ci; i++) {
            int64_t w = (o * ci + i) * v->taps + tap;
            if (v->y) v->y[out * co + o] += (double)v->x[in_at * ci + i] * v->w[w];
            if (v->dx) v->dx[in_at * ci + i] += (double)v->dy[out * co + o] * v->w[w];
            if (v->dw) v->dw[w] += (double)v->dy[out * co + o] * v->x[in_at * ci + i];
        }
}

enum { FORWARD, DATA, WEIGHT };
static void conv_case(const ConvCase *c, int pass, double tolerance) {
    char what[160];
    snprintf(what, sizeof what, "conv pass %d: %dx(%d,%d,%d) %d->%d kernel (%d,%d,%d)", pass,
             (int)c->n, (int)c->in[0], (int)c->in[1], (int)c->in[2], (int)c->c, (int)c->o,
             (int)c->kernel[0], (int)c->kernel[1], (int)c->kernel[2]);
    begin();
    int64_t out[3] = {out_size(c, 0), out_size(c, 1), out_size(c, 2)},
            taps = c->kernel[0] * c->kernel[1] * c->kernel[2];
    Shape xs = SHAPE(c->n, c->in[0], c->in[1], c->in[2], c->c),
          ys = SHAPE(c->n, out[0], out[1], out[2], c->o);
    Shape ws = SHAPE(c->o, c->c, c->kernel[0], c->kernel[1], c->kernel[2]);
    Tensor *x = pass != DATA ? in(xs) : NULL, *dy = pass != FORWARD ? in(ys) : NULL, *y;
    size_t w_cnt = (size_t)shape_count(ws);
    float *w = values(shape_count(ws));
    void *stored = malloc(w_cnt * 4);
    dtype_convert(stored, c->dtype, w, DTYPE_F32, w_cnt);
    dtype_convert(w, DTYPE_F32, stored, c->dtype, w_cnt);
    Tensor *wt = graph_weight(g, "w", c->dtype, ws, stored);
    Tensor *bias =
        pass == FORWARD && c->bias ? in(c->bias == 1 ? SHAPE(c->o) : SHAPE(c->n, c->o)) : NULL;
    Tensor *res = pass == FORWARD && c->residual ? in(ys) : NULL;
    Shape rs = pass == FORWARD ? ys : pass == DATA ? xs : ws;
    double *want = calloc((size_t)shape_count(rs), sizeof *want);
    Naive v = {c, taps, x ? data_of(x) : NULL, w, dy ? data_of(dy) : NULL};
    *(pass == FORWARD ? &v.y : pass == DATA ? &v.dx : &v.dw) = want;
    each_pair(c, visit, &v);
    for (int64_t i = 0; i < shape_count(rs); i++) {
        int64_t per = shape_count(ys) / c->n;
        if (bias) want[i] += data_of(bias)[i % c->o + (c->bias == 2 ? i / per * c->o : 0)];
        if (res) want[i] += data_of(res)[i];
    }
    if (pass == FORWARD)
        y = op_conv(g, x, wt, bias, res, c->spec);
    else if (pass == DATA)
        y = op_conv_dx(g, dy, wt, c->spec, c->in);
    else
        y = op_conv_dw(g, dy, x, c->spec, c->kernel);
    check(y, want, what, tolerance);
    free(w), free(stored);
}

#define SAME_2D                            \
    {                                      \
        .lo = {0, 1, 1}, .hi = { 0, 1, 1 } \
    }
#define SAME_T                             \
    {                                      \
        .lo = {1, 0, 0}, .hi = { 1, 0, 0 } \
    }
static const ConvCase conv_cases[] = {
    {1, {1, 8, 8}, 16, 16, {1, 3, 3}, SAME_2D},           // winograd
    {2, {3, 7, 10}, 20, 36, {1, 3, 3}, SAME_2D, 2, true}, // tails everywhere
    {1, {2, 33, 5}, 64, 17, {1, 3, 3}, SAME_2D, 1, false, DTYPE_F16},
    {1, {14, 32, 32}, 16, 24, {1, 3, 3}, SAME_2D, 1, true}, // many blocks
    {2, {2, 3, 2}, 18, 300, {1, 3, 3}, SAME_2D, 1},         // one tile per frame
    {1, {1, 9, 9}, 4, 40, {1, 3, 3}, SAME_2D, 1},           // few channels: direct
    {1, {2, 9, 6}, 40, 3, {1, 3, 3}, SAME_2D, 1, true, DTYPE_BF16},
    {2, {2, 5, 6}, 24, 40, {1, 1, 1}, {{0}}, 2, true},  // dense
    {2, {5, 6, 7}, 32, 20, {3, 1, 1}, SAME_T, 2, true}, // temporal, odd frames
    {1, {4, 20, 20}, 36, 48, {3, 1, 1}, SAME_T, 1, false, DTYPE_F16},
    {1, {1, 6, 6}, 16, 16, {3, 1, 1}, SAME_T, 1},                                  // one frame
    {2, {2, 8, 8}, 24, 20, {1, 3, 3}, {{1, 2, 2}, {0, 1, 1}, {0, 1, 1}}, 2, true}, // downsample
    {1,
     {1, 9, 7},
     12,
     20,
     {1, 3, 3},
     {{1, 2, 2}, {0, 0, 0}, {0, 1, 1}},
     1}, // VAE: zeros behind only
    {1, {5, 6, 5}, 10, 12, {3, 3, 3}, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}, 1, true}, // 3-D
    {1, {6, 9, 8}, 5, 9, {2, 4, 3}, {{2, 3, 1}, {1, 0, 2}, {0, 2, 1}}, 1},         // anything
    {1, {4, 16, 16}, 3, 24, {2, 8, 8}, {{2, 8, 8}, {0}, {0}}, 1},                  // patches
    {1, {1, 5, 5}, 6, 8, {1, 1, 1}, {{1, 3, 3}, {0}, {0}}, 1}, // untouched inputs
};
static void conv_all(int pass, double tolerance) {
    for (size_t i = 0; i < sizeof conv_cases / sizeof *conv_cases && !test_failed(); i++)
        conv_case(&conv_cases[i], pass, tolerance);
}
TEST(conv_forward) { conv_all(FORWARD, 3e-6); }
TEST(conv_data_gradient) { conv_all(DATA, 3e-6); }
TEST(conv_weight_gradient) { conv_all(WEIGHT, 1e-6); }
TEST(conv_exact) {
    option.exact = true;
    conv_all(FORWARD, 1e-6);
    conv_all(DATA, 1e-6);
    option.exact = false;
}
TEST(conv_packed_each_run) {
    option.pack_weights = false;
    conv_all(FORWARD, 1e-6);
    conv_all(DATA, 1e-6);
    option.pack_weights = true;
}

// The error of Winograd on the widest layer that uses it stays far below the 1e-5 of the parity
// tests.
TEST(winograd_error) {
    ConvCase wide = {1, {1, 8, 8}, 512, 16, {1, 3, 3}, SAME_2D};
    conv_case(&wide, FORWARD, 4e-6);
}

TEST(every_instruction_set) {
    static const char *const names[] = {"avx512", "avx2", "base"};
    for (int i = 0; i < 3 && !test_failed(); i++) {
        isa = names[i];
        if (!cpu_simd_table(isa)) continue;
        linear_cases();
        conv_all(FORWARD, 3e-6);
        conv_all(DATA, 3e-6);
        conv_all(WEIGHT, 1e-6);
    }
    isa = NULL;
}

TEST(bits_do_not_depend_on_threads) {
    uint64_t want = 0;
    for (int threads = 1; threads <= 5 && !test_failed(); threads += 2) {
        option.threads = threads, output_hash = 0xcbf29ce484222325u, seed = 7;
        linear_cases();
        linear_dw_case(3000, 16, 40);
        conv_all(FORWARD, 3e-6);
        conv_all(DATA, 3e-6);
        conv_all(WEIGHT, 1e-6);
        if (threads == 1) want = output_hash;
        CHECK_MSG(output_hash == want, "other bits with %d threads than with one", threads);
    }
    option.threads = 2;
}
