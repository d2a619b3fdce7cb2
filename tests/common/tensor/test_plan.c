// Plans: what reuse of memory, recomputation and binding may not change, and what the table says.
#include "common/tensor/plan.h"

#include "common/tensor/grad.h"
#include "common/tensor/op.h"
#include "tests/common/tensor/random_graph.h"
#include "tests/common/tensor/values.h"
#include "tests/test.h"

#define F32 DTYPE_F32
enum { SEEDS = 40, OPS = 60, DEVICES = 2 };

static Backend *device[DEVICES]; // ref, cpu
static Backend *ref;

static void open_devices(void) {
    if (ref) return;
    CHECK_OK(backend_open(&device[0], "ref", (BackendOptions){0}));
    CHECK_OK(backend_open(&device[1], "cpu", (BackendOptions){.threads = 2, .pack_weights = true}));
    ref = device[0];
}

#define GRAPH(g)                                                 \
    open_devices();                                              \
    __attribute__((cleanup(free_graph))) Graph *g = graph_new(); \
    (void)g
static void free_graph(Graph **g) { graph_free(*g); }
#define RANDOM_GRAPH(r) __attribute__((cleanup(free_random))) RandomGraph r = {0}
static void free_random(RandomGraph *r) { graph_free(r->g); }
// After its graph, which it needs to the end.
#define PLAN(p) __attribute__((cleanup(free_plan))) Plan *p = NULL
static void free_plan(Plan **p) { plan_free(*p); }

static Tensor *in(Graph *g, const char *name, Shape shape) {
    return graph_input(g, name, F32, shape);
}

// ---- Random graphs: the same bits, whatever the plan -------------------------------------------

enum { VALUES = 2 * RANDOM_OUTPUTS + RANDOM_INPUTS };
typedef struct Outcome {
    double *value[VALUES]; // outputs, then gradients; NULL where there are none
    int64_t cnt[VALUES];
    PlanMemory memory;
} Outcome;

static void outcome_free(Outcome *o) {
    for (int i = 0; i < VALUES; i++) free(o->value[i]);
}

static Err outcome_of(Outcome *o, const RandomGraph *r, Backend *be, PlanOptions opt) {
    Plan *plan;
    *o = (Outcome){0};
    TRY(plan_new(&plan, r->g, be, opt));
    Err err = values_feed(plan, r->g);
    for (int run = 0; run < 2 && !err; run++) err = plan_run(plan);
    for (int i = 0; i < RANDOM_OUTPUTS + RANDOM_INPUTS && !err; i++) {
        const Tensor *t = i < RANDOM_OUTPUTS ? r->out[i] : r->dx[i - RANDOM_OUTPUTS];
        if (!t) continue;
        o->value[i] = values_read(be, plan, t);
        o->cnt[i] = shape_count(t->shape);
    }
    o->memory = *plan_memory(plan);
    plan_free(plan);
    return err;
}

static void compare(const Outcome *a, const Outcome *b, uint64_t seed, const char *what) {
    for (int i = 0; i < VALUES; i++) {
        CHECK_MSG(a->cnt[i] == b->cnt[i], "seed %llu: %s: value %d", (unsigned long long)seed, what,
                  i);
        CHECK_MSG(!a->value[i] ||
                      !memcmp(a->value[i], b->value[i], sizeof(double) * (size_t)a->cnt[i]),
                  "seed %llu: %s changes the bits of value %d", (unsigned long long)seed, what, i);
    }
}

// Reuse on and off, segments on and off, on one device. Memory is added up for the summary.
static void random_case(uint64_t seed, Backend *be, uint64_t sum[3]) {
    RandomGraph plain, segmented;
    Outcome own, reused, again;
    CHECK_OK(random_graph_build(&plain, seed, OPS, true, false));
    CHECK_OK(random_graph_build(&segmented, seed, OPS, true, true));
    CHECK_OK(outcome_of(&own, &plain, be, (PlanOptions){.no_reuse = true}));
    CHECK_OK(outcome_of(&reused, &plain, be, (PlanOptions){0}));
    CHECK_OK(outcome_of(&again, &segmented, be, (PlanOptions){0}));
    compare(&own, &reused, seed, "reuse");
    compare(&own, &again, seed, "recomputation");
    CHECK_MSG(reused.memory.arena_bytes <= own.memory.arena_bytes, "seed %llu: reuse takes more",
              (unsigned long long)seed);
    sum[0] += own.memory.arena_bytes;
    sum[1] += reused.memory.arena_bytes;
    sum[2] += again.memory.arena_bytes;
    outcome_free(&own), outcome_free(&reused), outcome_free(&again);
    graph_free(plain.g), graph_free(segmented.g);
}

static void random_cases(Backend *be) {
    uint64_t sum[3] = {0};
    for (uint64_t seed = 1; seed <= SEEDS && !test_failed(); seed++) random_case(seed, be, sum);
    printf("   %s, %d graphs: %llu KiB without reuse, %llu with, %llu with recomputation\n",
           be->name, SEEDS, (unsigned long long)sum[0] >> 10, (unsigned long long)sum[1] >> 10,
           (unsigned long long)sum[2] >> 10);
}

TEST(ref_random_graphs) {
    open_devices();
    random_cases(ref);
}
TEST(cpu_random_graphs) {
    open_devices();
    random_cases(device[1]);
}
TEST(cpu_is_near_ref_on_random_graphs) {
    open_devices();
    double worst = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        RandomGraph r;
        Outcome want, got;
        CHECK_OK(random_graph_build(&r, seed, OPS, true, false));
        CHECK_OK(outcome_of(&want, &r, ref, (PlanOptions){0}));
        CHECK_OK(outcome_of(&got, &r, device[1], (PlanOptions){0}));
        for (int i = 0; i < VALUES; i++) {
            if (!want.value[i]) continue;
            double error = values_error(got.value[i], want.value[i], want.cnt[i]);
            CHECK_MSG(error < 1e-4, "seed %llu: value %d is off by %.2e", (unsigned long long)seed,
                      i, error);
            worst = fmax(worst, error);
        }
        outcome_free(&want), outcome_free(&got);
        graph_free(r.g);
    }
    printf("   largest error over chains of %d ops: %.1e\n", OPS, worst);
}

// ---- Repetition --------------------------------------------------------------------------------

TEST(runs_do_not_remember) {
    open_devices();
    for (int d = 0; d < DEVICES; d++) {
        RANDOM_GRAPH(r);
        PLAN(p);
        CHECK_OK(random_graph_build(&r, 5, OPS, true, false));
        CHECK_OK(plan_new(&p, r.g, device[d], (PlanOptions){0}));
        CHECK_OK(values_feed(p, r.g));
        CHECK_OK(plan_run(p));
        double *first = values_read(device[d], p, r.out[0]);
        float other[2 * 3 * 7 * 8];
        values_normal(other, 2 * 3 * 7 * 8, 99);
        CHECK_OK(plan_write(p, r.in[1], other));
        CHECK_OK(plan_run(p));
        CHECK_OK(values_feed(p, r.g));
        CHECK_OK(plan_run(p));
        double *last = values_read(device[d], p, r.out[0]);
        CHECK(!memcmp(first, last, sizeof *first * (size_t)shape_count(r.out[0]->shape)));
        free(first), free(last);
    }
}

// Cotangents that come between the two parts, as another process would send them.
static void two_parts(uint64_t seed, int k, Backend *be) {
    RANDOM_GRAPH(r);
    PLAN(p);
    Outcome whole;
    CHECK_OK(random_graph_build(&r, seed, OPS, true, seed % 2));
    CHECK_OK(outcome_of(&whole, &r, be, (PlanOptions){0}));
    CHECK_OK(plan_new(&p, r.g, be, (PlanOptions){0}));
    double part = plan_flops_until(p, r.out[k]), all = plan_memory(p)->flops;
    CHECK(part >= 0 && part < all);
    CHECK_OK(values_feed(p, r.g));
    for (int i = 0; i < RANDOM_OUTPUTS; i++) {
        float *zeros = calloc((size_t)shape_count(r.cot[i]->shape), sizeof *zeros);
        CHECK_OK(plan_write(p, r.cot[i], zeros));
        free(zeros);
    }
    CHECK_OK(plan_run_until(p, r.out[k]));
    double *first = values_read(be, p, r.out[k]);
    bool same = !memcmp(first, whole.value[k], sizeof *first * (size_t)whole.cnt[k]);
    CHECK_MSG(same, "seed %llu: output %d of the first part", (unsigned long long)seed, k);
    CHECK_OK(values_feed(p, r.g));
    CHECK_OK(plan_run_after(p, r.out[k]));
    for (int i = 0; i < RANDOM_OUTPUTS + RANDOM_INPUTS; i++) {
        const Tensor *t = i < RANDOM_OUTPUTS ? r.out[i] : r.dx[i - RANDOM_OUTPUTS];
        if (!t) continue;
        double *value = values_read(be, p, t);
        same = !memcmp(value, whole.value[i], sizeof *value * (size_t)whole.cnt[i]);
        CHECK_MSG(same, "seed %llu: value %d in two parts", (unsigned long long)seed, i);
        free(value);
    }
    free(first);
    outcome_free(&whole);
}

TEST(a_run_in_two_parts) {
    open_devices();
    for (int d = 0; d < DEVICES; d++)
        for (uint64_t seed = 1; seed <= SEEDS && !test_failed(); seed++)
            two_parts(seed, (int)(seed % RANDOM_OUTPUTS), device[d]);
}

// ---- Memory ------------------------------------------------------------------------------------

// x (1024) -> eight exps in a row -> y: in place all the way.
static Tensor *chain(Graph *g, Tensor *x, int cnt) {
    for (int i = 0; i < cnt; i++) x = op_unary(g, UNARY_sin, x);
    return x;
}

TEST(a_chain_runs_in_one_buffer) {
    GRAPH(g);
    PLAN(p);
    Tensor *x = in(g, "x", SHAPE(1024)), *y = chain(g, x, 8);
    graph_output(g, &y, "y");
    CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
    const PlanMemory *m = plan_memory(p);
    CHECK_EQ(m->arena_bytes, 1024 * 8); // seven temporaries share one; x and y are not in the arena
    CHECK_EQ(m->io_bytes, 2 * 1024 * 8);
    CHECK_EQ(m->run_cnt, 8);
    CHECK_EQ(m->node_cnt, 9);
    CHECK_EQ(m->total_bytes, m->arena_bytes + m->io_bytes);
    CHECK_EQ(m->peak_bytes[KIND_ACTIVATION], 1024 * 8);
    CHECK_NEAR(m->flops, 8 * 1024, 0);
}

TEST(the_table_adds_up) {
    open_devices();
    for (uint64_t seed = 1; seed <= 10; seed++)
        for (int reuse = 0; reuse < 2; reuse++) {
            RANDOM_GRAPH(r);
            PLAN(p);
            CHECK_OK(random_graph_build(&r, seed, OPS, true, false));
            CHECK_OK(plan_new(&p, r.g, ref, (PlanOptions){.no_reuse = !reuse}));
            const PlanMemory *m = plan_memory(p);
            uint64_t io = 0, peak = 0, weights = 0;
            for (int i = 0; i < r.g->node_cnt; i++) {
                const Tensor *t = r.g->node[i];
                uint64_t bytes = (uint64_t)shape_count(t->shape);
                if (plan_data(p, t)) io += (bytes * 8 + 63) / 64 * 64;
                if (t->op == OP_WEIGHT) weights += bytes * dtype_bytes(t->dtype);
            }
            for (int k = 0; k < KIND_COUNT; k++) peak += m->peak_bytes[k];
            CHECK_EQ(m->io_bytes, io);
            CHECK_EQ(m->packed_bytes, 0); // ref packs nothing
            CHECK(m->weight_bytes <= weights);
            CHECK_EQ(m->total_bytes, m->arena_bytes + m->io_bytes + m->weight_bytes);
            CHECK(peak <= m->arena_bytes); // holes between buffers make up the rest
            CHECK(!reuse || m->arena_bytes <= peak + peak / 4);
            CHECK(m->run_cnt < m->node_cnt && m->flops > 0);
        }
}

TEST(packed_weights_are_counted_once) {
    GRAPH(g);
    PLAN(a);
    PLAN(b);
    static float w[64 * 64];
    Tensor *x = in(g, "x", SHAPE(8, 64)), *y = x;
    Tensor *t = graph_weight(g, "w", F32, SHAPE(64, 64), w);
    for (int i = 0; i < 3; i++) y = op_linear(g, y, t, NULL, NULL);
    graph_output(g, &y, "y");
    size_t before = backend_pack_bytes(device[1]);
    CHECK_OK(plan_new(&a, g, device[1], (PlanOptions){0}));
    size_t one = backend_pack_bytes(device[1]) - before;
    CHECK_EQ(plan_memory(a)->packed_bytes, one);
    CHECK(one >= sizeof w);
    CHECK_EQ(plan_memory(a)->weight_bytes, sizeof w);
    const PlanMemory *m = plan_memory(a);
    CHECK_EQ(m->total_bytes,
             m->arena_bytes + m->io_bytes + m->packed_bytes); // the file is only packed from
    CHECK_OK(plan_new(&b, g, device[1], (PlanOptions){0}));
    CHECK_EQ(backend_pack_bytes(device[1]) - before, one); // shared
}

TEST(a_refusal_names_what_is_missing) {
    GRAPH(g);
    PLAN(p);
    Tensor *x = in(g, "frames", SHAPE(100, 128)), *a, *b, *c;
    static float w[256 * 128];
    Tensor *t = graph_weight(g, "fc.weight", F32, SHAPE(256, 128), w);
    graph_scope(g, "fc");
    a = op_linear(g, x, t, NULL, NULL); // 200 KiB as double, and the weight as double
    graph_scope(g, "gate");
    b = op_slice(g, a, 1, 0, 50);
    c = op_mul(g, op_copy(g, b, F32), op_slice(g, a, 1, 50, 50));
    graph_output(g, &c, "y");
    CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
    uint64_t total = plan_memory(p)->total_bytes;
    CHECK_OK((plan_free(p), p = NULL, plan_new(&p, g, ref, (PlanOptions){.memory_bytes = total})));
    plan_free(p);
    p = NULL;
    CHECK_ERR(plan_new(&p, g, ref, (PlanOptions){.memory_bytes = total - 1000}), ERR_MEMORY, "");
    CHECK(!p);
    CHECK_STR(
        err_text(),
        "the plan needs 723.06 KiB, the limit is 722.09 KiB: 1000 bytes (1000 B) are missing; "
        "largest: fc.linear#2 (workspace, 256.00 KiB), fc.linear#2 (activation, 200.00 KiB), "
        "fc.weight (weight, 128.00 KiB), frames (input, 100.00 KiB), y (output, 39.06 KiB)");
}

TEST(a_refusal_leaves_nothing_behind) {
    GRAPH(g);
    PLAN(p);
    static float w[32 * 32];
    Tensor *x = in(g, "x", SHAPE(8, 32));
    Tensor *y = op_linear(g, x, graph_weight(g, "w", F32, SHAPE(32, 32), w), NULL, NULL);
    graph_output(g, &y, "y");
    size_t before = backend_pack_bytes(device[1]);
    CHECK_ERR(plan_new(&p, g, device[1], (PlanOptions){.memory_bytes = 1}), ERR_MEMORY, "missing");
    CHECK_EQ(backend_pack_pending(device[1]), 0);
    CHECK_EQ(backend_pack_bytes(device[1]), before);
    CHECK_OK(plan_new(&p, g, device[1], (PlanOptions){0})); // and can be tried again
}

TEST(recomputation_takes_less_memory) {
    GRAPH(warm);
    uint64_t arena[2];
    for (int segments = 0; segments < 2; segments++) {
        GRAPH(g);
        PLAN(p);
        Tensor *x = in(g, "x", SHAPE(64, 32)), *y = x, *dx, *cot;
        for (int block = 0; block < 6; block++) {
            if (segments) graph_segment_begin(g);
            Tensor *h = chain(g, y, 6);
            graph_segment_end(g);
            y = op_add(g, y, h);
        }
        cot = in(g, "cot", y->shape);
        CHECK_OK(grad_build(g, 1, &y, &cot, 1, &x, &dx));
        graph_output(g, &dx, "dx");
        CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
        arena[segments] = plan_memory(p)->arena_bytes;
    }
    CHECK_MSG(arena[1] < arena[0] / 2, "%llu bytes with segments, %llu without",
              (unsigned long long)arena[1], (unsigned long long)arena[0]);
}

TEST(the_printed_table) {
    GRAPH(g);
    PLAN(p);
    Tensor *x = in(g, "x", SHAPE(32, 32)), *y = op_softmax(g, chain(g, x, 3));
    graph_output(g, &y, "y");
    CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    plan_print(p, f);
    fclose(f);
    CHECK_HAS(text, "5 nodes, 4 run");
    CHECK_HAS(text, "8.00 KiB  x (input)");
    CHECK_HAS(text, "3 x unary");
    CHECK_HAS(text, "1 x softmax");
    free(text);
}

// ---- Inputs and outputs ------------------------------------------------------------------------

TEST(bound_memory_gives_what_owned_gives) {
    open_devices();
    for (int d = 0; d < DEVICES; d++) {
        RANDOM_GRAPH(r);
        PLAN(p);
        PLAN(q);
        CHECK_OK(random_graph_build(&r, 11, OPS, true, false));
        CHECK_OK(plan_new(&p, r.g, device[d], (PlanOptions){0}));
        CHECK_OK(plan_new(&q, r.g, device[d], (PlanOptions){0}));
        void *memory[2 * RANDOM_OUTPUTS + RANDOM_INPUTS] = {0};
        Tensor *bound[2 * RANDOM_OUTPUTS + RANDOM_INPUTS];
        int cnt = 0;
        for (int i = 0; i < RANDOM_INPUTS; i++) bound[cnt++] = r.in[i];
        for (int i = 0; i < RANDOM_OUTPUTS; i++) bound[cnt++] = r.out[i], bound[cnt++] = r.cot[i];
        for (int i = 0; i < cnt; i++) {
            size_t bytes = ((size_t)shape_count(bound[i]->shape) * 8 + 63) / 64 * 64;
            memory[i] = aligned_alloc(64, bytes);
            memset(memory[i], 0xff, bytes);
            bool held = plan_data(q, bound[i]) != NULL;
            CHECK_OK(plan_bind(q, bound[i], memory[i]));
            CHECK(plan_data(q, bound[i]) == (held ? memory[i] : NULL));
        }
        CHECK_OK(values_feed(p, r.g));
        CHECK_OK(values_feed(q, r.g));
        CHECK_OK(plan_run(p));
        CHECK_OK(plan_run(q));
        for (int i = 0; i < RANDOM_OUTPUTS; i++) {
            size_t bytes = (size_t)shape_count(r.out[i]->shape) * device[d]->dtype_bytes(F32);
            CHECK(!memcmp(plan_data(p, r.out[i]), plan_data(q, r.out[i]), bytes));
        }
        for (int i = 0; i < cnt; i++) free(memory[i]);
    }
}

TEST(binding_again_and_wrongly) {
    GRAPH(g);
    PLAN(p);
    static _Alignas(64) double memory[3][8];
    Tensor *x = in(g, "x", SHAPE(4)), *mid = op_unary(g, UNARY_square, op_slice(g, x, 0, 1, 2));
    Tensor *y = op_affine(g, mid, 1, 1), *unused = in(g, "unused", SHAPE(4));
    graph_output(g, &y, "y");
    CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
    CHECK_OK(plan_bind(p, y, memory[2]));
    for (int i = 0; i < 2; i++) { // readers of views of x follow
        CHECK_OK(plan_bind(p, x, memory[i]));
        memory[i][1] = 3 + i;
        CHECK_OK(plan_run(p));
        CHECK_NEAR(memory[2][0], (3 + i) * (3 + i) + 1, 0);
    }
    CHECK_ERR(plan_bind(p, x, (char *)memory + 8), ERR_USAGE,
              "plan_bind: the memory for x is not 64-byte aligned");
    CHECK_ERR(plan_bind(p, mid, memory), ERR_USAGE, "is not an input or output of this plan");
    CHECK_ERR(plan_read(p, mid, memory), ERR_USAGE, "is not an input or output of this plan");
    CHECK_ERR(plan_write(p, NULL, memory), ERR_USAGE, "(null) is not an input");
    CHECK_OK(plan_bind(p, unused, memory));
}

TEST(unused_inputs_are_not_held) {
    GRAPH(g);
    PLAN(p);
    float data[4] = {0};
    Tensor *x = in(g, "x", SHAPE(4)), *y = op_affine(g, x, 2, 0),
           *unused = in(g, "unused", SHAPE(4));
    op_unary(g, UNARY_exp, unused); // read, but by nothing that an output needs
    graph_output(g, &y, "y");
    CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
    CHECK(plan_data(p, x) && !plan_data(p, unused) && !plan_data(p, NULL));
    CHECK_OK(plan_write(p, unused, data));
    CHECK_ERR(plan_read(p, unused, data), ERR_USAGE,
              "plan_read: nothing needs unused, so the plan does not hold it");
    CHECK_EQ(plan_memory(p)->run_cnt, 1);
    CHECK_OK(plan_run(p));
}

TEST(outputs_that_are_views_inputs_and_weights) {
    GRAPH(g);
    PLAN(p);
    static const float w[6] = {1, 2, 3, 4, 5, 6};
    float x_data[6] = {10, 20, 30, 40, 50, 60}, got[6];
    Tensor *x = in(g, "x", SHAPE(2, 3)), *t = graph_weight(g, "w", F32, SHAPE(2, 3), w);
    Tensor *out[] = {x, t, op_slice(g, x, 1, 1, 1), op_slice(g, t, 0, 1, 1),
                     op_reshape(g, x, SHAPE(6))};
    static const float want[5][6] = {{10, 20, 30, 40, 50, 60},
                                     {1, 2, 3, 4, 5, 6},
                                     {20, 50},
                                     {4, 5, 6},
                                     {10, 20, 30, 40, 50, 60}};
    for (int i = 0; i < 5; i++) graph_output(g, &out[i], "out");
    CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
    CHECK_OK(plan_write(p, x, x_data));
    CHECK_OK(plan_run(p));
    for (int i = 0; i < 5; i++) {
        CHECK_OK(plan_read(p, out[i], got));
        CHECK(!memcmp(got, want[i], sizeof *got * (size_t)shape_count(out[i]->shape)));
    }
}

TEST(inputs_and_outputs_are_never_written_over) {
    GRAPH(g);
    PLAN(p);
    float one[4] = {1, 2, 3, 4}, got[4];
    Tensor *x = in(g, "x", SHAPE(4)), *y = op_affine(g, x, 1, 1);
    graph_output(g, &y, "y");
    Tensor *z = op_affine(g, op_affine(g, y, 2, 0), 1, 0); // its last reader could go in place
    graph_output(g, &z, "z");
    CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
    CHECK_OK(plan_write(p, x, one));
    for (int run = 0; run < 2; run++) {
        CHECK_OK(plan_run(p));
        CHECK_OK(plan_read(p, x, got));
        CHECK_NEAR(got[0], 1, 0);
        CHECK_OK(plan_read(p, y, got));
        CHECK_NEAR(got[0], 2, 0);
        CHECK_OK(plan_read(p, z, got));
        CHECK_NEAR(got[0], 4, 0);
    }
}

TEST(what_another_input_views_is_not_written_over) { // h minus its own first row
    GRAPH(g);
    PLAN(p);
    float x_data[6] = {1, 2, 3, 10, 20, 30}, got[6];
    Tensor *x = in(g, "x", SHAPE(2, 3)), *h = op_affine(g, x, 1, 0);
    Tensor *y = op_sub(g, h, op_slice(g, h, 0, 0, 1));
    y = op_affine(g, y, 1, 0); // so that the difference is no output
    graph_output(g, &y, "y");
    CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
    CHECK_OK(plan_write(p, x, x_data));
    CHECK_OK(plan_run(p));
    CHECK_OK(plan_read(p, y, got));
    CHECK(!memcmp(got, (const float[6]){0, 0, 0, 9, 18, 27}, sizeof got));
}

TEST(an_empty_graph) {
    GRAPH(g);
    for (int inputs = 0; inputs < 2; inputs++) { // nothing at all, then an input and no output
        PLAN(p);
        CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
        CHECK_OK(plan_run(p));
        CHECK_EQ(plan_memory(p)->total_bytes, 0);
        CHECK_EQ(plan_memory(p)->run_cnt, 0);
        op_unary(g, UNARY_exp, in(g, "x", SHAPE(4)));
    }
}

TEST(a_broken_graph_has_no_plan) {
    GRAPH(g);
    PLAN(p);
    Tensor *y = op_add(g, in(g, "a", SHAPE(2)), in(g, "b", SHAPE(3)));
    graph_output(g, &y, "y");
    CHECK_ERR(plan_new(&p, g, ref, (PlanOptions){0}), ERR_SHAPE,
              "add#2: shapes do not broadcast; inputs: a (2), b (3)");
    CHECK(!p);
}

// ---- Check mode, observers ---------------------------------------------------------------------

TEST(check_mode_names_the_first_bad_node) {
    open_devices();
    for (int d = 0; d < DEVICES; d++) {
        GRAPH(g);
        PLAN(p);
        PLAN(unchecked);
        float x_data[6] = {1, 1, 1, 1, 0, -2};
        Tensor *x = in(g, "x", SHAPE(2, 3));
        graph_scope(g, "head");
        Tensor *y = op_affine(g, op_unary(g, UNARY_log, op_affine(g, x, 2, 0)), 0.5, 0);
        graph_output(g, &y, "y");
        CHECK_OK(plan_new(&p, g, device[d], (PlanOptions){.check = true}));
        CHECK_OK(plan_write(p, x, x_data));
        CHECK_ERR(plan_run(p), ERR_NUMERIC, "");
        CHECK_STR(err_text(), "head.unary#2: Inf at element 4 of (2, 3)");
        x_data[4] = 1;
        CHECK_OK(plan_write(p, x, x_data));
        CHECK_ERR(plan_run(p), ERR_NUMERIC, "");
        CHECK_STR(err_text(), "head.unary#2: NaN at element 5 of (2, 3)");
        x_data[5] = 1;
        CHECK_OK(plan_write(p, x, x_data));
        CHECK_OK(plan_run(p));
        CHECK_OK(plan_new(&unchecked, g, device[d], (PlanOptions){0}));
        x_data[5] = -2;
        CHECK_OK(plan_write(unchecked, x, x_data));
        CHECK_OK(plan_run(unchecked));
    }
}

typedef struct Seen {
    int cnt;
    Op op[8];
    double first[8];
} Seen;
static void observe(void *ctx, const Tensor *node, const void *data, int64_t ns) {
    Seen *seen = ctx;
    seen->op[seen->cnt] = node->op;
    seen->first[seen->cnt++] = *(const double *)data;
    if (ns < 0) TEST_FAIL("%s took %lld ns", node->name, (long long)ns);
}

TEST(an_observer_sees_every_step) {
    GRAPH(g);
    PLAN(p);
    float data[2] = {2, 3};
    Seen seen = {0};
    Tensor *x = in(g, "x", SHAPE(2));
    Tensor *y = op_unary(g, UNARY_square, op_reshape(g, op_affine(g, x, 1, 1), SHAPE(2, 1)));
    graph_output(g, &y, "y");
    CHECK_OK(plan_new(&p, g, ref, (PlanOptions){0}));
    CHECK_OK(plan_write(p, x, data));
    plan_observe(p, observe, &seen);
    CHECK_OK(plan_run(p));
    CHECK_EQ(seen.cnt, 2); // views are no steps
    CHECK(seen.op[0] == OP_affine && seen.op[1] == OP_unary);
    CHECK_NEAR(seen.first[0], 3, 0);
    CHECK_NEAR(seen.first[1], 9, 0);
    plan_observe(p, NULL, NULL);
    CHECK_OK(plan_run(p));
    CHECK_EQ(seen.cnt, 2);
}

TEST(backends_by_name) {
    Backend *be;
    CHECK_ERR(backend_open(&be, "gpu", (BackendOptions){0}), ERR_USAGE,
              "backend gpu is not known, want cpu or ref");
    CHECK_OK(backend_open(&be, "ref", (BackendOptions){.threads = 4}));
    char text[64];
    be->fingerprint(be, text, sizeof text);
    CHECK_STR(text, "ref");
    backend_close(be);
    backend_close(NULL);
}
