// Gradients of graphs: chain rules, what gets nodes and what does not, several outputs, recomputation.
// That each op's own rule is right is test_ops.c.
#include "common/tensor/grad.h"

#include "common/tensor/op.h"
#include "common/tensor/plan.h"
#include "tests/common/tensor/random_graph.h"
#include "tests/common/tensor/values.h"
#include "tests/test.h"

#define F32 DTYPE_F32
#define GRAPH(g)                                                 \
    open_ref();                                                  \
    __attribute__((cleanup(free_graph))) Graph *g = graph_new(); \
    (void)g
static void free_graph(Graph **g) { graph_free(*g); }

static Backend *ref;
static void open_ref(void) {
    if (!ref) CHECK_OK(backend_open_ref(&ref, (BackendOptions){0}));
}

static Tensor *in(Graph *g, const char *name, Shape shape) {
    return graph_input(g, name, F32, shape);
}

// Runs g with each input set to x[i] at element i, and reads t, an output of at most 8 elements.
static void value(Graph *g, Tensor *t, int cnt, Tensor *const *input, const float (*x)[8],
                  double got[8]) {
    Plan *plan;
    CHECK_OK(plan_new(&plan, g, ref, (PlanOptions){0}));
    for (int i = 0; i < cnt; i++) CHECK_OK(plan_write(plan, input[i], x[i]));
    CHECK_OK(plan_run(plan));
    memcpy(got, plan_data(plan, t), sizeof *got * (size_t)shape_count(t->shape));
    plan_free(plan);
}

// ---- Chain rules -------------------------------------------------------------------------------

TEST(
    a_tensor_used_many_times) { // y = x x + 3 x + x / (x + 1) - x, dy/dx = 2 x + 3 + 1 / (x + 1)^2 - 1
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(3)), *cot = in(g, "cot", SHAPE(3)), *dx;
    Tensor *y = op_add(g, op_mul(g, x, x), op_affine(g, x, 3, 0));
    y = op_add(g, y, op_div(g, x, op_affine(g, x, 1, 1)));
    y = op_sub(g, y, x);
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &x, &dx));
    graph_output(g, &dx, "dx");
    const float x_data[2][8] = {{0, 1, -3}, {1, 2, 10}};
    double got[8];
    value(g, dx, 2, (Tensor *[]){x, cot}, x_data, got);
    for (int i = 0; i < 3; i++) {
        double v = x_data[0][i], want = 2 * v + 3 + 1 / ((v + 1) * (v + 1)) - 1;
        CHECK_NEAR(got[i], want * x_data[1][i], 1e-12);
    }
}

TEST(one_tensor_for_two_inputs_of_an_op) { // x + x, x x, [x x], lerp(x, x)
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(2)), *cot = in(g, "cot", SHAPE(4)), *dx;
    Tensor *s = op_add(g, x, x), *m = op_mul(g, x, x);
    Tensor *y =
        op_concat(g, 0, 2, (Tensor *[]){op_mul(g, s, m), op_mul(g, s, m)}); // [2 x^3, 2 x^3]
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &x, &dx));
    graph_output(g, &dx, "dx");
    double got[8];
    value(g, dx, 2, (Tensor *[]){x, cot}, (const float[2][8]){{2, 3}, {1, 1, 10, 100}}, got);
    CHECK_NEAR(got[0], 6 * 4 * 11, 1e-12);
    CHECK_NEAR(got[1], 6 * 9 * 101, 1e-12);
}

TEST(views_of_views) { // y = the middle column of rows 1.. of x, squared
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(2, 4)), *cot = in(g, "cot", SHAPE(1)), *dx;
    Tensor *v =
        op_slice(g, op_slice(g, op_reshape(g, x, SHAPE(4, 2)), 0, 1, 2), 1, 1, 1); // x[3], x[5]
    Tensor *y = op_sum(g, op_unary(g, UNARY_square, op_reshape(g, v, SHAPE(2))), 1);
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &x, &dx));
    CHECK(shape_equal(dx->shape, x->shape));
    graph_output(g, &dx, "dx");
    double got[8];
    const float x_data[2][8] = {{1, 2, 3, 4, 5, 6, 7, 8}, {0.5}};
    value(g, dx, 2, (Tensor *[]){x, cot}, x_data, got);
    for (int i = 0; i < 8; i++) CHECK_NEAR(got[i], i == 3 || i == 5 ? x_data[0][i] : 0, 1e-12);
}

// Derivative of sum_k <cot_k, y_k> along v in input j, by differences.
static double difference(const RandomGraph *r, Plan *plan, int j, const double *at,
                         const float *v) {
    static const double step[] = {-2, -1, 1, 2}, factor[] = {1, -8, 8, -1}, H = 1e-4;
    double sum = 0, *x = plan_data(plan, r->in[j]);
    for (int k = 0; k < 4; k++) {
        for (int64_t i = 0; i < shape_count(r->in[j]->shape); i++)
            x[i] = at[i] + H * step[k] * v[i];
        if (plan_run(plan)) return NAN;
        for (int o = 0; o < RANDOM_OUTPUTS; o++) {
            const double *y = plan_data(plan, r->out[o]), *cot = plan_data(plan, r->cot[o]);
            for (int64_t i = 0; cot && i < shape_count(r->out[o]->shape); i++)
                sum += factor[k] * cot[i] * y[i] / (12 * H);
        }
    }
    return sum;
}

static void random_case(uint64_t seed, double *worst) {
    RandomGraph r;
    Plan *plan;
    CHECK_OK(random_graph_build(&r, seed, 40, true, seed % 2));
    CHECK_OK(plan_new(&plan, r.g, ref, (PlanOptions){0}));
    CHECK_OK(values_feed(plan, r.g));
    CHECK_OK(plan_run(plan));
    double *dx[RANDOM_INPUTS];
    for (int j = 0; j < RANDOM_INPUTS; j++)
        dx[j] = r.dx[j] ? values_read(ref, plan, r.dx[j]) : NULL;
    for (int j = 0; j < RANDOM_INPUTS; j++) {
        if (!plan_data(plan, r.in[j])) continue;
        int64_t n = shape_count(r.in[j]->shape);
        double *at = values_read(ref, plan, r.in[j]), dot = 0, size = 0;
        float *v = malloc(sizeof *v * (size_t)n);
        values_normal(v, n, seed);
        for (int64_t i = 0; i < n && dx[j]; i++)
            dot += dx[j][i] * v[i], size += dx[j][i] * dx[j][i];
        double error = fabs(difference(&r, plan, j, at, v) - dot) / (size > 1e-18 ? sqrt(size) : 1);
        CHECK_MSG(error < 1e-6, "seed %d: gradient %d is off by %.1e", (int)seed, j, error);
        *worst = fmax(*worst, error);
        memcpy(plan_data(plan, r.in[j]), at, sizeof *at * (size_t)n);
        free(at), free(v);
    }
    for (int j = 0; j < RANDOM_INPUTS; j++) free(dx[j]);
    plan_free(plan);
    graph_free(r.g);
}

TEST(random_graphs_against_differences) {
    open_ref();
    double worst = 0;
    for (uint64_t seed = 100; seed < 140 && !test_failed(); seed++) random_case(seed, &worst);
    printf("   largest error: %.1e\n", worst);
}

// ---- What gets nodes ---------------------------------------------------------------------------

static int count(const Graph *g, int from, Op op) {
    int cnt = 0;
    for (int i = from; i < g->node_cnt; i++) cnt += g->node[i]->op == op;
    return cnt;
}

TEST(frozen_parts_get_no_nodes) { // only the last layer trains: nothing behind it
    GRAPH(g);
    static const float frozen[6 * 6];
    Tensor *x = in(g, "x", SHAPE(5, 6)), *w = graph_weight(g, "w", F32, SHAPE(6, 6), frozen),
           *h = x;
    for (int i = 0; i < 4; i++) h = op_unary(g, UNARY_silu, op_linear(g, h, w, NULL, NULL));
    Tensor *a = in(g, "a", SHAPE(2, 6)), *b = in(g, "b", SHAPE(6, 2)),
           *cot = in(g, "cot", SHAPE(5, 6));
    Tensor *y = op_lora_linear(g, h, w, a, b, 1, NULL, h), *wrt[] = {a, b}, *dx[2];
    int before = g->node_cnt;
    CHECK_OK(grad_build(g, 1, &y, &cot, 2, wrt, dx));
    // per factor: narrow = linear, dw = linear_dw, times scale
    CHECK_EQ(g->node_cnt - before, 6);
    CHECK_EQ(count(g, before, OP_linear), 2);
    CHECK_EQ(count(g, before, OP_linear_dw), 2);
    CHECK_EQ(count(g, before, OP_affine), 2);
    CHECK_EQ(count(g, before, OP_unary_dx), 0);
    for (int i = before; i < g->node_cnt; i++)
        CHECK(g->node[i]->is_gradient && g->node[i]->kind == KIND_GRADIENT);
}

TEST(frozen_weights_get_no_nodes) { // the gradient passes through, to x only
    GRAPH(g);
    static const float frozen[6 * 6], vector[6];
    Tensor *x = in(g, "x", SHAPE(5, 6)), *w = graph_weight(g, "w", F32, SHAPE(6, 6), frozen);
    Tensor *v = graph_weight(g, "v", F32, SHAPE(6), vector), *cot = in(g, "cot", SHAPE(5, 6)), *dx;
    Tensor *y = op_linear(g, op_layernorm(g, op_linear(g, x, w, v, NULL), v, v, 1e-5), w, v, NULL);
    int before = g->node_cnt;
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &x, &dx));
    CHECK_EQ(g->node_cnt - before, 3);
    CHECK_EQ(count(g, before, OP_linear), 2);
    CHECK_EQ(count(g, before, OP_layernorm_dx), 1);
    CHECK(dx && dx->id == g->node_cnt - 1);
    CHECK_STR(g->node[before]->name, "grad/linear#6.linear#7");
}

TEST(unreachable_is_null) {
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(4)), *other = in(g, "other", SHAPE(4)),
           *late = in(g, "late", SHAPE(4));
    Tensor *y = op_unary(g, UNARY_exp, x), *cot = in(g, "cot", SHAPE(4));
    Tensor *side = op_mul(g, y, late); // reads y, is no output
    Tensor *wrt[] = {other, x, late, NULL, side}, *dx[5];
    memset(dx, 0xff, sizeof dx);
    CHECK_OK(grad_build(g, 1, &y, &cot, 5, wrt, dx));
    CHECK(!dx[0] && dx[1] && !dx[2] && !dx[3] && !dx[4]);
}

TEST(nothing_to_do_appends_nothing) {
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(4)), *other = in(g, "other", SHAPE(4)), *dx;
    Tensor *y = op_unary(g, UNARY_exp, x), *cot = in(g, "cot", SHAPE(4));
    int before = g->node_cnt;
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &other, &dx));
    CHECK(!dx);
    CHECK_OK(grad_build(g, 0, NULL, NULL, 1, &x, &dx));
    CHECK(!dx);
    CHECK_OK(grad_build(g, 1, &y, &cot, 0, NULL, NULL));
    CHECK_EQ(g->node_cnt, before);
}

TEST(gradients_stop_at_indices) { // argmax picks rows; only the picked values have a gradient
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(1, 4)), *cot = in(g, "cot", SHAPE(1, 1)), *dx;
    Tensor *best = op_reshape(g, op_argmax(g, x), SHAPE(1)), *y = op_gather(g, x, best, 1);
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &x, &dx));
    graph_output(g, &dx, "dx");
    double got[8];
    value(g, dx, 2, (Tensor *[]){x, cot}, (const float[2][8]){{1, 7, 3, 7}, {5}}, got);
    for (int i = 0; i < 4; i++) CHECK_NEAR(got[i], i == 1 ? 5 : 0, 0);
}

TEST(an_op_without_gradient_is_named) {
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(2, 4)), *cot = in(g, "cot", SHAPE(2, 1)), *dx;
    graph_scope(g, "head");
    Tensor *y = op_affine(g, op_max(g, op_unary(g, UNARY_exp, x)), 2, 0);
    CHECK_ERR(grad_build(g, 1, &y, &cot, 1, &x, &dx), ERR_USAGE, "");
    CHECK_STR(err_text(), "head.max#3: max has no gradient");
    CHECK_ERR(graph_check(g), ERR_USAGE, "head.max#3: max has no gradient"); // and stays
}

TEST(off_the_path_it_does_not_matter) {
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(2, 4)), *other = in(g, "other", SHAPE(2, 4));
    Tensor *cot = in(g, "cot", SHAPE(2, 4)), *dx, *y = op_mul(g, x, op_max(g, other));
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &x, &dx));
    CHECK(dx);
}

TEST(no_gradient_of_a_gradient) {
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(4)), *cot = in(g, "cot", SHAPE(4)), *dx, *ddx;
    Tensor *y = op_unary(g, UNARY_silu, x);
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &x, &dx));
    CHECK_ERR(grad_build(g, 1, &dx, &cot, 1, &x, &ddx), ERR_USAGE,
              "grad/unary#2.unary_dx#3: unary_dx has no gradient");
}

// ---- Outputs and cotangents --------------------------------------------------------------------

TEST(several_outputs_add_up) { // y0 = x^2, y1 = 3 x, y0 again
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(2)), *dx;
    Tensor *cot[] = {in(g, "c0", SHAPE(2)), in(g, "c1", SHAPE(2)), in(g, "c2", SHAPE(2))};
    Tensor *square = op_unary(g, UNARY_square, x), *y[] = {square, op_affine(g, x, 3, 0), square};
    CHECK_OK(grad_build(g, 3, y, cot, 1, &x, &dx));
    graph_output(g, &dx, "dx");
    double got[8];
    value(g, dx, 4, (Tensor *[]){x, cot[0], cot[1], cot[2]},
          (const float[4][8]){{2, 5}, {1, 1}, {10, 20}, {100, 200}}, got);
    CHECK_NEAR(got[0], 4 * 1 + 3 * 10 + 4 * 100, 1e-12);
    CHECK_NEAR(got[1], 10 * 1 + 3 * 20 + 10 * 200, 1e-12);
}

TEST(an_output_that_another_reads) { // y0 = exp x, y1 = y0^2
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(1)), *dx, *cot[] = {in(g, "c0", SHAPE(1)), in(g, "c1", SHAPE(1))};
    Tensor *y[] = {op_unary(g, UNARY_exp, x), NULL};
    y[1] = op_unary(g, UNARY_square, y[0]);
    graph_output(g, &y[0], "y0");
    graph_output(g, &y[1], "y1");
    CHECK_OK(grad_build(g, 2, y, cot, 1, &x, &dx));
    graph_output(g, &dx, "dx");
    double got[8], e = exp(0.5);
    value(g, dx, 3, (Tensor *[]){x, cot[0], cot[1]}, (const float[3][8]){{0.5}, {2}, {3}}, got);
    CHECK_NEAR(got[0], 2 * e + 3 * 2 * e * e, 1e-12);
}

TEST(wrt_what_is_between_and_the_output_itself) {
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(1)), *cot = in(g, "cot", SHAPE(1));
    Tensor *mid = op_unary(g, UNARY_square, x), *y = op_mul(g, mid, x), *dx[3]; // x^3
    Tensor *wrt[] = {mid, x, y};
    CHECK_OK(grad_build(g, 1, &y, &cot, 3, wrt, dx));
    CHECK(dx[2] == cot);
    for (int j = 0; j < 3; j++) graph_output(g, &dx[j], "dx");
    const float data[2][8] = {{3}, {10}};
    const double want[] = {3 * 10, 27 * 10, 10}; // x, all of 3 x^2, 1
    for (int j = 0; j < 3; j++) {
        double got[8];
        value(g, dx[j], 2, (Tensor *[]){x, cot}, data, got);
        CHECK_NEAR(got[0], want[j], 1e-12);
    }
}

TEST(wrt_a_view) { // rows 1.. of x
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(3)), *cot = in(g, "cot", SHAPE(2)), *dx;
    Tensor *view = op_slice(g, x, 0, 1, 2), *y = op_unary(g, UNARY_square, view);
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &view, &dx));
    CHECK(shape_equal(dx->shape, SHAPE(2)));
}

TEST(cotangents_must_fit) {
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(4)), *cot = in(g, "cot", SHAPE(2, 2)), *none = NULL, *dx;
    Tensor *y = op_unary(g, UNARY_exp, x);
    CHECK_ERR(grad_build(g, 1, &y, &cot, 1, &x, &dx), ERR_SHAPE, "");
    CHECK_STR(err_text(), "gradient: cotangent cot (2, 2) of output unary#2 (4)");
    CHECK_ERR(grad_build(g, 1, &y, &none, 1, &x, &dx), ERR_USAGE,
              "gradient: output 0 or its cotangent is missing");
    CHECK_ERR(grad_build(g, 1, &none, &cot, 1, &x, &dx), ERR_USAGE,
              "gradient: output 0 or its cotangent is missing");
}

// ---- Recompute segments ------------------------------------------------------------------------

// A small U-Net: two levels, a skip from each way down to its way up, time added in every block.
typedef struct UNet {
    Graph *g;
    Tensor *x, *time, *y, *cot, *dx[2];
    int built; // nodes before the gradient
} UNet;

static Tensor *weight(Graph *g, Shape shape) {
    static float data[16 * 16 * 9];
    if (!data[0]) values_normal(data, 16 * 16 * 9, 5);
    return graph_weight(g, "w", F32, shape, data);
}

static Tensor *block(UNet *u, Tensor *x, bool segment) { // (1, 1, H, W, C) -> the same, C = 8
    Graph *g = u->g;
    int64_t c = x->shape.dim[4];
    ConvSpec same = {.lo = {0, 1, 1}, .hi = {0, 1, 1}};
    if (segment) graph_segment_begin(g);
    Tensor *h = op_groupnorm(g, x, weight(g, SHAPE(c)), weight(g, SHAPE(c)), 4, 1e-5, true);
    h = op_conv(g, h, weight(g, SHAPE(8, c, 1, 3, 3)), weight(g, SHAPE(8)), NULL, same);
    h = op_add(g, h, op_unary(g, UNARY_silu, u->time));
    Tensor *skip =
        c == 8 ? x : op_conv(g, x, weight(g, SHAPE(8, c, 1, 1, 1)), NULL, NULL, (ConvSpec){0});
    h = op_conv(g, op_unary(g, UNARY_silu, h), weight(g, SHAPE(8, 8, 1, 3, 3)), NULL, skip, same);
    graph_segment_end(g);
    return h;
}

static Err unet(UNet *u, bool segments) {
    Graph *g = u->g = graph_new();
    u->x = in(g, "x", SHAPE(1, 1, 8, 6, 8));
    u->time = in(g, "time", SHAPE(8));
    ConvSpec half = {.stride = {1, 2, 2}, .lo = {0, 1, 1}, .hi = {0, 1, 1}};
    Tensor *a = block(u, u->x, segments), *b, *c;
    b = op_conv(g, a, weight(g, SHAPE(8, 8, 1, 3, 3)), NULL, NULL, half);
    b = block(u, b, segments);
    c = block(u, b, segments);
    c = block(u, op_concat(g, 4, 2, (Tensor *[]){c, b}), segments);
    c = op_upsample2x(g, c);
    u->y = block(u, op_concat(g, 4, 2, (Tensor *[]){c, a}), segments);
    u->cot = in(g, "cot", u->y->shape);
    graph_output(g, &u->y, "y");
    u->built = g->node_cnt;
    TRY(grad_build(g, 1, &u->y, &u->cot, 2, (Tensor *[]){u->x, u->time}, u->dx));
    for (int i = 0; i < 2; i++) graph_output(g, &u->dx[i], "dx");
    return ERR_OK;
}

TEST(segments_with_skips_change_no_bit) {
    Backend *device[2];
    CHECK_OK(backend_open(&device[0], "ref", (BackendOptions){0}));
    CHECK_OK(backend_open(&device[1], "cpu", (BackendOptions){.threads = 2}));
    for (int d = 0; d < 2; d++) {
        double *want[3];
        for (int segments = 0; segments < 2; segments++) {
            UNet u;
            Plan *plan;
            CHECK_OK(unet(&u, segments));
            CHECK_OK(plan_new(&plan, u.g, device[d], (PlanOptions){0}));
            CHECK_OK(values_feed(plan, u.g));
            CHECK_OK(plan_run(plan));
            for (int i = 0; i < 3; i++) {
                const Tensor *t = i ? u.dx[i - 1] : u.y;
                double *got = values_read(device[d], plan, t);
                if (!segments) {
                    want[i] = got;
                    continue;
                }
                CHECK_MSG(!memcmp(got, want[i], sizeof *got * (size_t)shape_count(t->shape)),
                          "recomputation changes the bits of value %d on %s", i, device[d]->name);
                free(got), free(want[i]);
            }
            plan_free(plan);
            graph_free(u.g);
        }
    }
    backend_close(device[0]);
    backend_close(device[1]);
}

TEST(segments_are_recomputed_once_and_in_order) {
    UNet plain, u;
    CHECK_OK(unet(&plain, false));
    CHECK_OK(unet(&u, true));
    CHECK_EQ(u.built, plain.built);
    int in_segments = 0, again = 0;
    for (int i = 0; i < u.built; i++) in_segments += u.g->node[i]->segment != 0;
    for (int i = u.built; i < u.g->node_cnt; i++) {
        const Tensor *t = u.g->node[i];
        if (strncmp(t->name, "again/", 6)) continue;
        again++;
        CHECK(t->is_gradient && t->kind == KIND_ACTIVATION);
        for (int k = 0; k < t->in_cnt; k++) CHECK(!t->in[k] || t->in[k]->id < t->id);
    }
    CHECK_EQ(again, in_segments);
    CHECK_EQ(u.g->node_cnt - u.built, plain.g->node_cnt - plain.built + again);
    graph_free(plain.g);
    graph_free(u.g);
}

TEST(frozen_segments_are_not_recomputed) {
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(4)), *p = in(g, "p", SHAPE(4)), *cot = in(g, "cot", SHAPE(4)), *dp;
    graph_segment_begin(g);
    Tensor *h = op_unary(g, UNARY_exp, op_unary(g, UNARY_sin, x));
    graph_segment_end(g);
    graph_segment_begin(g);
    Tensor *y = op_unary(g, UNARY_exp, op_mul(g, h, p));
    graph_segment_end(g);
    int before = g->node_cnt;
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &p, &dp));
    CHECK_EQ(g->node_cnt - before, 4); // mul and exp again, exp's and mul's gradients
}

TEST(the_graph_is_left_as_it_was) {
    GRAPH(g);
    Tensor *x = in(g, "x", SHAPE(4)), *cot = in(g, "cot", SHAPE(4)), *dx;
    Tensor *y = op_unary(g, UNARY_exp, x);
    CHECK_OK(grad_build(g, 1, &y, &cot, 1, &x, &dx));
    Tensor *next = op_affine(g, dx, 2, 0);
    CHECK(!next->is_gradient && next->kind == KIND_ACTIVATION);
    CHECK_STR(next->name, "affine#4");
}
