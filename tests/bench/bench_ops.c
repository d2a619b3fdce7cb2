// Our ops, as a plan runs them, against the bare library call or a memory copy of the same bytes.
//
// Shapes are those of a UNet with 64 to 320 channels on 14 frames. `bench_ops text` runs the rows
// whose name holds that text. Exit status 1 when a line is below what is required.
//
// Rows about processes are judged against what the cores give: two of them may share their units or
// their clock, so the same run measures a loop of arithmetic in registers in two processes.
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/tensor/op.h"
#include "common/tensor/plan.h"
#include "tests/bench/bench.h"
#include "tests/bench/library.h"

// ---- Our side: a graph of one op ---------------------------------------------------------------

typedef struct Ours {
    Graph *g;
    Backend *be;
    Plan *plan;
} Ours;

static void run_ours(void *ctx) { die_unless(!plan_run(((Ours *)ctx)->plan), "%s", err_text()); }

static Tensor *input(Graph *g, Shape s) { return graph_input(g, "in", DTYPE_F32, s); }
static Tensor *weight(Graph *g, Shape s) {
    return graph_weight(g, "w", DTYPE_F32, s, library_floats((size_t)shape_count(s)));
}

static Ours ours_open(Graph *g, Tensor *y, int threads) {
    Ours o = {.g = g};
    graph_output(g, &y, "y");
    Err err =
        backend_open(&o.be, "cpu", (BackendOptions){.threads = threads, .pack_weights = true});
    if (!err) err = plan_new(&o.plan, g, o.be, (PlanOptions){0});
    die_unless(!err, "%s", err_trace());
    for (int i = 0; i < g->node_cnt; i++) {
        const Tensor *t = g->node[i];
        if (t->op != OP_INPUT) continue;
        float *data = library_floats((size_t)shape_count(t->shape));
        die_unless(!plan_write(o.plan, t, data), "%s", err_text());
        free(data);
    }
    return o;
}

static void ours_close(Ours *o) {
    plan_free(o->plan);
    backend_close(o->be);
    for (int i = 0; i < o->g->node_cnt; i++)
        if (o->g->node[i]->op == OP_WEIGHT) free((void *)(uintptr_t)o->g->node[i]->data);
    graph_free(o->g);
}

// ---- Rows --------------------------------------------------------------------------------------

// d holds the dims that the two makers of the row's group agree on.
typedef struct Row {
    double required;
    int64_t d[8];
} Row;

// ours builds our op; the other side is a library call (the faster of two, where two are given), or
// a plan (reference), or the copy of bytes(d).
typedef struct Group {
    const char *name;
    const char *dims; // what the numbers of a row's name are
    Tensor *(*ours)(Graph *g, const int64_t *d);
    Library *(*library)(const int64_t *d);
    Library *(*library_too)(const int64_t *d);
    Tensor *(*reference)(Graph *g, const int64_t *d);
    double (*bytes)(const int64_t *d);
    const Row *rows;
} Group;

typedef struct Copy {
    void *to, *from;
    size_t bytes;
} Copy;
static void run_copy(void *ctx) {
    Copy *c = ctx;
    memcpy(c->to, c->from, c->bytes);
}

static void name_row(char *name, size_t len, const Group *group, const Row *row) {
    int at = snprintf(name, len, "%s", group->name);
    for (int i = 0; i < 8 && row->d[i]; i++)
        at += snprintf(name + at, len - (size_t)at, " %lld", (long long)row->d[i]);
}

static void run_row(const Group *group, const Row *row, const char *name) {
    Graph *g = graph_new();
    Ours ours = ours_open(g, group->ours(g, row->d), 1);
    double a, b, work = plan_memory(ours.plan)->flops / 1e9;
    if (group->bytes) {
        double bytes = group->bytes(row->d);
        Copy copy = {library_floats((size_t)bytes / 8), library_floats((size_t)bytes / 8),
                     (size_t)bytes / 2};
        bench_pair(run_ours, &ours, run_copy, &copy, &a, &b);
        free(copy.to), free(copy.from);
        bench_line(name, a, b, row->required, "GB/s", bytes / 1e9);
    } else if (group->reference) {
        Graph *r = graph_new();
        Ours reference = ours_open(r, group->reference(r, row->d), 1);
        bench_pair(run_ours, &ours, run_ours, &reference, &a, &b);
        bench_line(name, a, b, row->required, "GF/s", plan_memory(reference.plan)->flops / 1e9);
        ours_close(&reference);
    } else {
        Library *library = group->library(row->d);
        bench_pair(run_ours, &ours, library_run, library, &a, &b);
        library_free(library);
        if (group->library_too) {
            double c, d;
            library = group->library_too(row->d);
            bench_pair(run_ours, &ours, library_run, library, &c, &d);
            library_free(library);
            a = c < a ? c : a, b = d < b ? d : b;
        }
        bench_line(name, a, b, row->required, "GF/s", work);
    }
    ours_close(&ours);
}

// ---- linear: m n k -----------------------------------------------------------------------------

static Tensor *linear(Graph *g, const int64_t *d) {
    return op_linear(g, input(g, SHAPE(d[0], d[2])), weight(g, SHAPE(d[1], d[2])),
                     weight(g, SHAPE(d[1])), NULL);
}
// The gradient of (m, k) -> n: from n columns back to k, so that d is the shape of the product
// again.
static Tensor *linear_dx(Graph *g, const int64_t *d) {
    return op_linear_t(g, input(g, SHAPE(d[0], d[2])), weight(g, SHAPE(d[2], d[1])), NULL, NULL);
}
static const Row linear_rows[] = {{0.95, {3584, 64, 64}},
                                  {0.95, {3584, 128, 128}},
                                  {0.95, {3584, 256, 256}},
                                  {0.95, {3584, 320, 320}},
                                  {0.95, {3584, 512, 64}},
                                  {0.95, {3584, 64, 256}},
                                  {0.95, {3584, 2560, 320}},
                                  {0.95, {3584, 320, 1280}},
                                  {0.95, {3584, 256, 1024}},
                                  {0.95, {896, 256, 256}},
                                  {0, {3584, 8, 320}},
                                  {0, {14, 1280, 320}},
                                  {0}};
// m n k r: against the plain linear
static Tensor *lora(Graph *g, const int64_t *d) {
    return op_lora_linear(g, input(g, SHAPE(d[0], d[2])), weight(g, SHAPE(d[1], d[2])),
                          input(g, SHAPE(d[3], d[2])), input(g, SHAPE(d[1], d[3])), 0.5,
                          weight(g, SHAPE(d[1])), NULL);
}
static const Row lora_rows[] = {{1 / 1.15, {3584, 64, 64, 16}},    {1 / 1.15, {3584, 128, 128, 16}},
                                {1 / 1.15, {3584, 256, 256, 16}},  {1 / 1.15, {3584, 320, 320, 16}},
                                {1 / 1.15, {14336, 320, 320, 16}}, {0}};

// ---- conv: n h w c o; the other kernels alike --------------------------------------------------

static Tensor *conv_any(Graph *g, const int64_t *d, int64_t t, int64_t k, ConvSpec spec) {
    return op_conv(g, input(g, SHAPE(1, d[0], d[1], d[2], d[3])),
                   weight(g, SHAPE(d[4], d[3], t, k, k)), weight(g, SHAPE(d[4])), NULL, spec);
}
static const ConvSpec spec_3x3 = {.lo = {0, 1, 1}, .hi = {0, 1, 1}},
                      spec_time = {.lo = {1, 0, 0}, .hi = {1, 0, 0}},
                      spec_down = {.stride = {1, 2, 2}, .lo = {0, 1, 1}, .hi = {0, 1, 1}};
static Tensor *conv_3x3(Graph *g, const int64_t *d) { return conv_any(g, d, 1, 3, spec_3x3); }
static Tensor *conv_down(Graph *g, const int64_t *d) { return conv_any(g, d, 1, 3, spec_down); }
static Tensor *conv_1x1(Graph *g, const int64_t *d) {
    return conv_any(g, d, 1, 1, (ConvSpec){{0}});
}
static Tensor *conv_dx(Graph *g, const int64_t *d) {
    return op_conv_dx(g, input(g, SHAPE(1, d[0], d[1], d[2], d[4])),
                      weight(g, SHAPE(d[4], d[3], 1, 3, 3)), spec_3x3,
                      (int64_t[]){d[0], d[1], d[2]});
}
static Tensor *conv_down_dx(Graph *g, const int64_t *d) {
    return op_conv_dx(g, input(g, SHAPE(1, d[0], d[1] / 2, d[2] / 2, d[4])),
                      weight(g, SHAPE(d[4], d[3], 1, 3, 3)), spec_down,
                      (int64_t[]){d[0], d[1], d[2]});
}
static Tensor *conv_time(Graph *g, const int64_t *d) {
    return op_conv(g, input(g, SHAPE(1, d[0], d[1], d[2], d[3])),
                   weight(g, SHAPE(d[4], d[3], 3, 1, 1)), weight(g, SHAPE(d[4])), NULL, spec_time);
}
static Tensor *conv_time_dx(Graph *g, const int64_t *d) {
    return op_conv_dx(g, input(g, SHAPE(1, d[0], d[1], d[2], d[4])),
                      weight(g, SHAPE(d[4], d[3], 3, 1, 1)), spec_time,
                      (int64_t[]){d[0], d[1], d[2]});
}
static Library *library_3x3(const int64_t *d) {
    return library_conv((LibraryConv){d[0], d[1], d[2], d[3], d[4], {3, 3}, 1, {1, 1}, false});
}
static Library *library_3x3_dx(const int64_t *d) {
    return library_conv((LibraryConv){d[0], d[1], d[2], d[3], d[4], {3, 3}, 1, {1, 1}, true});
}
static Library *library_down(const int64_t *d) {
    return library_conv((LibraryConv){d[0], d[1], d[2], d[3], d[4], {3, 3}, 2, {1, 1}, false});
}
static Library *library_down_dx(const int64_t *d) {
    return library_conv((LibraryConv){d[0], d[1], d[2], d[3], d[4], {3, 3}, 2, {1, 1}, true});
}
static Library *library_1x1(const int64_t *d) {
    return library_conv((LibraryConv){d[0], d[1], d[2], d[3], d[4], {1, 1}, 1, {0, 0}, false});
}
// The library over frames, in its two good forms: a 2-D convolution whose height is the frames, and
// a 3-D one.
static Library *library_time_3d(const int64_t *d) {
    return library_conv_time(d[0], d[1] * d[2], d[3], d[4], false);
}
static Library *library_time_3d_dx(const int64_t *d) {
    return library_conv_time(d[0], d[1] * d[2], d[3], d[4], true);
}
static Library *library_time(const int64_t *d) {
    return library_conv((LibraryConv){1, d[0], d[1] * d[2], d[3], d[4], {3, 1}, 1, {1, 0}, false});
}
static Library *library_time_dx(const int64_t *d) {
    return library_conv((LibraryConv){1, d[0], d[1] * d[2], d[3], d[4], {3, 1}, 1, {1, 0}, true});
}
static const Row conv_rows[] = {{1.8, {14, 16, 16, 64, 64}},   {1.8, {14, 8, 8, 128, 128}},
                                {1.8, {14, 4, 4, 256, 256}},   {1.8, {14, 32, 32, 64, 64}},
                                {1.8, {14, 16, 16, 128, 128}}, {1.8, {14, 8, 8, 256, 256}},
                                {1.8, {14, 16, 16, 320, 320}}, {1.8, {14, 32, 32, 320, 320}},
                                {0, {4, 128, 128, 32, 32}},    {0}};
// What Winograd is not used for: few channels, or weights above its limit.
static const Row conv_direct_rows[] = {
    {0.9, {14, 32, 32, 8, 320}}, {0.9, {14, 32, 32, 320, 4}}, {0.9, {4, 8, 8, 1280, 1280}}, {0}};
static const Row conv_down_rows[] = {
    {0.9, {14, 16, 16, 64, 64}}, {0.9, {14, 32, 32, 320, 320}}, {0}};
static const Row conv_down_dx_rows[] = {
    {0, {14, 16, 16, 64, 64}}, {0, {14, 32, 32, 320, 320}}, {0}};
static const Row conv_1x1_rows[] = {
    {0.95, {14, 16, 16, 128, 64}}, {0.95, {14, 32, 32, 320, 320}}, {0}};
static const Row conv_time_rows[] = {{1.0, {14, 16, 16, 64, 64}},   {1.0, {14, 32, 32, 64, 64}},
                                     {1.0, {14, 16, 16, 128, 128}}, {1.0, {14, 16, 16, 256, 256}},
                                     {1.0, {14, 32, 32, 320, 320}}, {0}};

// ---- Attention: batch heads tokens d; over frames the batch is the pixels ----------------------

static Tensor *attention_of(Graph *g, const int64_t *d, int axis, bool back) {
    Shape s = axis == 2 ? SHAPE(d[0], 1, d[2], d[1] * d[3]) : SHAPE(1, d[2], d[0], d[1] * d[3]);
    Tensor *q = input(g, s), *k = input(g, s), *v = input(g, s);
    double scale = 1 / sqrt((double)d[3]);
    if (back) return op_sdpa_back(g, input(g, s), q, k, v, (int)d[1], axis, scale, false);
    return op_sdpa(g, q, k, v, (int)d[1], axis, scale, false);
}
static Tensor *attention(Graph *g, const int64_t *d) { return attention_of(g, d, 2, false); }
static Tensor *attention_back(Graph *g, const int64_t *d) { return attention_of(g, d, 2, true); }
static Tensor *attention_time(Graph *g, const int64_t *d) { return attention_of(g, d, 1, false); }
static Tensor *attention_time_back(Graph *g, const int64_t *d) {
    return attention_of(g, d, 1, true);
}
static Library *library_sdpa(const int64_t *d) {
    return library_attention(d[0], d[1], d[2], d[3], false, false);
}
static Library *library_sdpa_back(const int64_t *d) {
    return library_attention(d[0], d[1], d[2], d[3], false, true);
}
static Library *library_sdpa_time(const int64_t *d) {
    return library_attention(d[0], d[1], d[2], d[3], true, false);
}
static Library *library_sdpa_time_back(const int64_t *d) {
    return library_attention(d[0], d[1], d[2], d[3], true, true);
}
static const Row attention_rows[] = {{1.1, {14, 4, 256, 16}},  {1.1, {14, 4, 256, 32}},
                                     {1.1, {14, 8, 256, 64}},  {1.2, {14, 4, 1024, 32}},
                                     {1.2, {14, 8, 1024, 64}}, {0}};
static const Row attention_back_rows[] = {
    {1.3, {14, 4, 256, 32}}, {1.3, {14, 8, 256, 64}}, {1.3, {14, 4, 1024, 32}}, {0}};
static const Row attention_time_rows[] = {{1.5, {256, 4, 14, 32}}, {1.5, {1024, 4, 14, 32}}, {0}};
static const Row attention_time_back_rows[] = {
    {1.5, {256, 4, 14, 32}}, {1.5, {1024, 4, 14, 32}}, {0}};

// ---- Memory-bound ops: rows channels, against a copy that reads and writes as much -------------

static Tensor *groupnorm_silu(Graph *g, const int64_t *d) {
    return op_groupnorm(g, input(g, SHAPE(d[0], d[1], d[2])), weight(g, SHAPE(d[2])),
                        weight(g, SHAPE(d[2])), 32, 1e-5, true);
}
static Tensor *groupnorm_silu_dx(Graph *g, const int64_t *d) {
    Shape s = SHAPE(d[0], d[1], d[2]);
    return op_groupnorm_dx(g, input(g, s), input(g, s), weight(g, SHAPE(d[2])),
                           weight(g, SHAPE(d[2])), 32, 1e-5, true);
}
static double groupnorm_dx_bytes(const int64_t *d) {
    return 3 * 4.0 * (double)(d[0] * d[1] * d[2]);
}
static double groupnorm_bytes(const int64_t *d) { return 2 * 4.0 * (double)(d[0] * d[1] * d[2]); }
static Tensor *layernorm(Graph *g, const int64_t *d) {
    return op_layernorm(g, input(g, SHAPE(d[0], d[1])), weight(g, SHAPE(d[1])),
                        weight(g, SHAPE(d[1])), 1e-5);
}
static Tensor *layernorm_dx(Graph *g, const int64_t *d) {
    Shape s = SHAPE(d[0], d[1]);
    return op_layernorm_dx(g, input(g, s), input(g, s), weight(g, SHAPE(d[1])), 1e-5);
}
static double layernorm_bytes(const int64_t *d) { return 2 * 4.0 * (double)(d[0] * d[1]); }
static Tensor *geglu(Graph *g, const int64_t *d) {
    return op_geglu(g, input(g, SHAPE(d[0], 2 * d[1])));
}
static double geglu_bytes(const int64_t *d) { return 3 * 4.0 * (double)(d[0] * d[1]); }
static Tensor *add(Graph *g, const int64_t *d) {
    return op_add(g, input(g, SHAPE(d[0], d[1])), input(g, SHAPE(d[0], d[1])));
}
static Tensor *sum_of_rows(Graph *g, const int64_t *d) {
    return op_sum(g, input(g, SHAPE(d[0], d[1])), 1);
}
static Tensor *softmax(Graph *g, const int64_t *d) {
    return op_softmax(g, input(g, SHAPE(d[0], d[1])));
}
static Tensor *permute(Graph *g, const int64_t *d) {
    return op_permute(g, input(g, SHAPE(d[0], d[1])), (int[]){1, 0});
}
static double sum_bytes(const int64_t *d) { return 4.0 * (double)(d[0] * d[1]); }
static double add_bytes(const int64_t *d) { return 3 * 4.0 * (double)(d[0] * d[1]); }
// The first of each lie in cache, where a copy is several times faster than the arithmetic can be.
static const Row groupnorm_rows[] = {
    {0, {14, 256, 64}}, {0, {14, 1024, 64}}, {0, {14, 256, 128}}, {0.5, {14, 1024, 320}}, {0}};
static const Row groupnorm_back_rows[] = {
    {0, {14, 256, 64}}, {0, {14, 1024, 64}}, {0, {14, 256, 128}}, {0, {14, 1024, 320}}, {0}};
static const Row layernorm_rows[] = {{0, {3584, 64}}, {0.5, {3584, 320}}, {0.5, {14336, 320}}, {0}};
static const Row row_rows[] = {{0, {3584, 64}}, {0, {3584, 320}}, {0, {14336, 320}}, {0}};

static const Group groups[] = {
    {"linear", "m n k", linear, .library = library_linear, .rows = linear_rows},
    {"linear_dx", "m n k", linear_dx, .library = library_linear, .rows = linear_rows},
    {"lora_linear / linear", "m n k rank", lora, .reference = linear, .rows = lora_rows},
    {"conv 3x3", "frames h w c o", conv_3x3, .library = library_3x3, .rows = conv_rows},
    {"conv_dx 3x3", "frames h w c o", conv_dx, .library = library_3x3_dx, .rows = conv_rows},
    {"conv 3x3 direct", "frames h w c o", conv_3x3, .library = library_3x3,
     .rows = conv_direct_rows},
    {"conv 3x3 stride 2", "frames h w c o", conv_down, .library = library_down,
     .rows = conv_down_rows},
    {"conv_dx 3x3 stride 2", "frames h w c o", conv_down_dx, .library = library_down_dx,
     .rows = conv_down_dx_rows},
    {"conv 1x1", "frames h w c o", conv_1x1, .library = library_1x1, .rows = conv_1x1_rows},
    {"conv 3x1x1", "frames h w c o", conv_time, .library = library_time,
     .library_too = library_time_3d, .rows = conv_time_rows},
    {"conv_dx 3x1x1", "frames h w c o", conv_time_dx, .library = library_time_dx,
     .library_too = library_time_3d_dx, .rows = conv_time_rows},
    {"attention", "batch heads tokens d", attention, .library = library_sdpa,
     .rows = attention_rows},
    {"attention back", "batch heads tokens d", attention_back, .library = library_sdpa_back,
     .rows = attention_back_rows},
    {"attention over frames", "pixels heads frames d", attention_time, .library = library_sdpa_time,
     .rows = attention_time_rows},
    {"attention over frames back", "pixels heads frames d", attention_time_back,
     .library = library_sdpa_time_back, .rows = attention_time_back_rows},
    {"groupnorm+silu", "frames pixels c", groupnorm_silu, .bytes = groupnorm_bytes,
     .rows = groupnorm_rows},
    {"groupnorm+silu back", "frames pixels c", groupnorm_silu_dx, .bytes = groupnorm_dx_bytes,
     .rows = groupnorm_back_rows},
    {"layernorm", "rows c", layernorm, .bytes = layernorm_bytes, .rows = layernorm_rows},
    {"layernorm back", "rows c", layernorm_dx, .bytes = add_bytes, .rows = layernorm_rows},
    {"geglu", "rows c", geglu, .bytes = geglu_bytes, .rows = row_rows},
    {"add", "rows c", add, .bytes = add_bytes, .rows = row_rows},
    {"softmax", "rows c", softmax, .bytes = layernorm_bytes, .rows = row_rows},
    {"sum over rows", "rows c", sum_of_rows, .bytes = sum_bytes, .rows = row_rows},
    {"permute", "rows c", permute, .bytes = layernorm_bytes, .rows = row_rows},
};

// ---- Processes ---------------------------------------------------------------------------------

enum { PROCESS_MS = 500, PROCESS_ROUNDS = 5, ARITHMETIC_STEPS = 1 << 18, ARITHMETIC_CHAINS = 10 };

// Calls of fn per second of wall time.
static double rate_of(BenchFn *fn, void *ctx) {
    for (int i = 0; i < 20; i++) fn(ctx);
    double start = bench_clock(CLOCK_MONOTONIC), now = start;
    int cnt = 0;
    for (; now < start + PROCESS_MS / 1e3; now = bench_clock(CLOCK_MONOTONIC), cnt++) fn(ctx);
    return cnt / (now - start);
}

// Products, with this many threads.
static double rate_linear(int threads) {
    Graph *g = graph_new();
    Ours o = ours_open(g, linear(g, (int64_t[]){3584, 128, 128}), threads);
    double r = rate_of(run_ours, &o);
    ours_close(&o);
    return r;
}

// Multiply-adds in registers only: nothing of this is ours.
typedef float Lanes __attribute__((vector_size(32)));
__attribute__((target_clones("avx512f", "arch=haswell", "default"))) static void run_arithmetic(
    void *ctx) {
    volatile float *out = ctx;
    Lanes acc[ARITHMETIC_CHAINS] = {{0}}, a = (Lanes){0} + 0.5f + *out, b = a + 1.0f;
    for (int i = 0; i < ARITHMETIC_STEPS; i++)
#pragma GCC unroll 10
        for (int k = 0; k < ARITHMETIC_CHAINS; k++) acc[k] = acc[k] * a + b;
    for (int k = 1; k < ARITHMETIC_CHAINS; k++) acc[0] += acc[k];
    *out = acc[0][0] * 0;
}
static double rate_arithmetic(int threads) {
    float out = 0;
    return rate_of(run_arithmetic, &out);
}

// The sum of the rates of two processes of one thread each, started together.
static double rate_of_two(double (*rate)(int threads)) {
    double *out = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    die_unless(out != MAP_FAILED, "mmap");
    for (int i = 0; i < 2; i++)
        if (!fork()) {
            out[i] = rate(1);
            _exit(0);
        }
    for (int i = 0; i < 2; i++) wait(NULL);
    double sum = out[0] + out[1];
    munmap(out, 4096);
    return sum;
}

static double rate_beside_a_busy_process(int threads) {
    pid_t pid = fork();
    if (!pid)
        for (volatile unsigned spin = 0;; spin++) {}
    double r = rate_linear(threads);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return r;
}

enum { CORE, CORES, ONE, TWO, BOTH, BUSY, RATES };

// Best rates of some rounds. Meaningful on an otherwise idle machine only.
static void measure_rates(double *best) {
    for (int round = 0; round < PROCESS_ROUNDS; round++) {
        double r[RATES] = {[CORE] = rate_arithmetic(1),
                           [CORES] = rate_of_two(rate_arithmetic),
                           [ONE] = rate_linear(1),
                           [TWO] = rate_linear(2),
                           [BOTH] = rate_of_two(rate_linear),
                           [BUSY] = rate_beside_a_busy_process(2)};
        for (int i = 0; i < RATES; i++)
            if (r[i] > best[i]) best[i] = r[i];
    }
}

// Rates are steps per second: "theirs" is the rate to match.
static void processes(void) {
    double best[RATES] = {0};
    measure_rates(best);
    double cores = best[CORES] / best[CORE], all = cores * best[ONE];
    bench_line("arithmetic in 2 processes / 2 x one alone", 1 / best[CORES], 1 / (2 * best[CORE]),
               0, "1/s", 1);
    bench_line("2 processes x 1 thread / that x 2 x one", 1 / best[BOTH], 1 / all, 0.95, "1/s", 1);
    bench_line("2 threads / that x 2 x one thread", 1 / best[TWO], 1 / all, 0.9, "1/s", 1);
    bench_line("2 threads, a busy process / that x one", 1 / best[BUSY], 2 / all, 1.0, "1/s", 1);
}

int main(int argc, char **argv) {
    const char *want = argc > 1 ? argv[1] : "";
    char name[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    library_open();
    printf("  %-44s %8s %8s %-5s %6s\n", "one thread each", "ours", "theirs", "", "ratio");
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        const Group *group = NULL;
        for (const Row *row = groups[i].rows; row->d[0]; row++) {
            name_row(name, sizeof name, &groups[i], row);
            if (!strstr(name, want)) continue;
            if (!group) group = &groups[i], printf("%s: %s\n", group->name, group->dims);
            run_row(group, row, name);
        }
    }
    if (strstr("processes", want)) puts("processes: steps per second"), processes();
    printf("%d below what is required\n", bench_below);
    return bench_below > 0;
}
