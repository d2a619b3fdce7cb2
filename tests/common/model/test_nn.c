// nn: names and scopes, adapters merged and with dropout, and the layers' refusals.
#include "common/model/nn.h"

#include "common/format/safetensors.h"
#include "common/tensor/grad.h"
#include "tests/test.h"

enum { IN = 6, OUT = 5, RANK = 2, ROWS = 7 };

static float wave(int i, double step) { return (float)sin(step * (i + 1)); }

// "m.fc": a linear layer with bias; "m.conv": a 3x3 convolution.
static Err write_layer(char path[512]) {
    static float w[OUT * IN], b[OUT], k[OUT * IN * 9];
    for (int i = 0; i < OUT * IN; i++) w[i] = wave(i, 0.7);
    for (int i = 0; i < OUT; i++) b[i] = wave(i, 1.1);
    for (int i = 0; i < OUT * IN * 9; i++) k[i] = wave(i, 0.3);
    SafetensorsEntry e[] = {
        {"m.fc.weight", NULL, DTYPE_F32, 2, {OUT, IN}, w, sizeof w},
        {"m.fc.bias", NULL, DTYPE_F32, 1, {OUT}, b, sizeof b},
        {"m.conv.weight", NULL, DTYPE_F32, 4, {OUT, IN, 3, 3}, k, sizeof k},
        {"m.conv.bias", NULL, DTYPE_F32, 1, {OUT}, b, sizeof b},
    };
    snprintf(path, 512, "%s/layer.safetensors", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    return safetensors_write(path, e, 4, NULL, 0);
}

// The layer with an adapter, its gradients, on ref.
typedef struct Rig {
    Params *params;
    Lora *lora;
    Graph *g;
    Backend *be;
    Plan *plan;
    Tensor *x, *cot, *y, *d[3]; // d: of A, B and x
} Rig;

static void make(Rig *r, double dropout) {
    static const char *const target[] = {"fc"};
    char path[512];
    CHECK_OK(write_layer(path));
    CHECK_OK(params_open(&r->params, path, "", NULL));
    r->lora = lora_new(&(LoraConfig){
        .rank = RANK, .alpha = 3, .dropout = dropout, .target_cnt = 1, .target = target});
    r->g = graph_new();
    NN nn = {.g = r->g, .params = r->params, .lora = r->lora, .dropout = dropout > 0};
    r->x = graph_input(r->g, "x", DTYPE_F32, SHAPE(ROWS, IN));
    nn_push(&nn, "m");
    r->y = nn_linear(&nn, "fc", r->x, OUT, true, NULL);
    nn_pop(&nn);
    CHECK_OK(graph_check(r->g));
    r->cot = graph_input(r->g, "cot", DTYPE_F32, r->y->shape);
    CHECK_OK(lora_finish(r->lora));
    Tensor *wrt[3];
    CHECK_EQ(lora_inputs(r->lora, r->g, wrt), 2);
    wrt[2] = r->x;
    CHECK_OK(grad_build(r->g, 1, &r->y, &r->cot, 3, wrt, r->d));
    graph_output(r->g, &r->y, "y");
    for (int i = 0; i < 3; i++) graph_output(r->g, &r->d[i], "d");
    CHECK_OK(backend_open(&r->be, "ref", (BackendOptions){.threads = 1}));
    CHECK_OK(plan_new(&r->plan, r->g, r->be, (PlanOptions){0}));
    float x[ROWS * IN], cot[ROWS * OUT];
    for (int i = 0; i < ROWS * IN; i++) x[i] = wave(i, 0.9);
    for (int i = 0; i < ROWS * OUT; i++) cot[i] = wave(i, 0.4);
    CHECK_OK(plan_write(r->plan, r->x, x));
    CHECK_OK(plan_write(r->plan, r->cot, cot));
    for (int i = 0; i < lora_theta_count(r->lora); i++) lora_theta(r->lora)[i] = wave(i, 0.6);
}

static void fini(Rig *r) {
    plan_free(r->plan);
    backend_close(r->be);
    graph_free(r->g);
    lora_free(r->lora);
    params_close(r->params);
}

static void run(Rig *r, RngKey name, float y[ROWS * OUT]) {
    CHECK_OK(lora_write_theta(r->lora, r->g, r->plan, lora_theta(r->lora)));
    CHECK_OK(lora_write_keys(r->lora, r->g, r->plan, name, 3, 0));
    CHECK_OK(plan_run(r->plan));
    CHECK_OK(plan_read(r->plan, r->y, y));
}

static double product(const float *a, int cnt) {
    double sum = 0;
    for (int i = 0; i < cnt; i++) sum += a[i] * wave(i, 0.4);
    return sum;
}

// Gradients of A and B against central differences, with the masks held by their key.
static void check_gradient(double dropout) {
    Rig r = {0};
    RngKey name = {.seed = 4, .sample = 2};
    float y[ROWS * OUT], again[ROWS * OUT], up[ROWS * OUT], down[ROWS * OUT];
    make(&r, dropout);
    if (test_failed()) return;
    float grad[64] = {0}, *theta = lora_theta(r.lora);
    run(&r, name, y);
    CHECK_OK(lora_add_gradient(r.lora, r.plan, r.d, grad));
    run(&r, name, again);
    CHECK(!memcmp(y, again, sizeof y));
    const LoraModule *m = lora_module(r.lora, 0);
    const int64_t at[4] = {m->a_at, m->a_at + 7, m->b_at + 1, m->b_at + 8};
    for (int i = 0; i < 4; i++) {
        const float step = 1.0f / 64, keep = theta[at[i]];
        theta[at[i]] = keep + step;
        run(&r, name, up);
        theta[at[i]] = keep - step;
        run(&r, name, down);
        theta[at[i]] = keep;
        double slope = (product(up, ROWS * OUT) - product(down, ROWS * OUT)) / (2 * step);
        CHECK_NEAR(grad[at[i]], slope, 1e-4);
    }
    if (dropout > 0) { // another name, other masks
        run(&r, (RngKey){.seed = 4, .sample = 3}, again);
        CHECK(memcmp(y, again, sizeof y));
    }
    fini(&r);
}

TEST(adapter) { check_gradient(0); }
TEST(adapter_dropout) { check_gradient(0.4); }

// W x + b + (alpha / r) B A x by hand.
TEST(adapter_value) {
    Rig r = {0};
    float y[ROWS * OUT];
    make(&r, 0);
    if (test_failed()) return;
    run(&r, (RngKey){0}, y);
    const LoraModule *m = lora_module(r.lora, 0);
    const float *a = lora_theta(r.lora) + m->a_at, *b = lora_theta(r.lora) + m->b_at;
    for (int row = 0; row < ROWS; row++)
        for (int o = 0; o < OUT; o++) {
            double want = wave(o, 1.1);
            for (int i = 0; i < IN; i++) {
                double w = wave(o * IN + i, 0.7);
                for (int k = 0; k < RANK; k++) w += 1.5 * b[o * RANK + k] * (double)a[k * IN + i];
                want += w * wave(row * IN + i, 0.9);
            }
            CHECK_NEAR(y[row * OUT + o], want, 1e-6);
        }
    fini(&r);
}

TEST(names) {
    char path[512];
    Params *p;
    CHECK_OK(write_layer(path));
    CHECK_OK(params_open(&p, path, "", NULL));
    NN nn = {.g = graph_new(), .params = p};
    nn_push(&nn, "a.%d", 3);
    nn_push(&nn, "b");
    CHECK_STR(nn.prefix, "a.3.b");
    nn_pop(&nn);
    CHECK_STR(nn.prefix, "a.3");
    nn_pop(&nn);
    CHECK_STR(nn.prefix, "");
    nn_push(&nn, "m");
    CHECK(nn_has(&nn, "fc.bias") && !nn_has(&nn, "fc.gain"));
    Tensor *x = graph_input(nn.g, "x", DTYPE_F32, SHAPE(1, 2, 4, 4, IN));
    Tensor *y = nn_conv2d(&nn, "conv", x, NULL, OUT, 3, 2, true, NULL);
    CHECK(y && y->shape.dim[2] == 2 && y->shape.dim[4] == OUT);
    CHECK_HAS(y->name, "m.conv.conv");
    CHECK(!nn_layernorm(&nn, "norm", x, 1e-5));
    CHECK_ERR(graph_check(nn.g), ERR_FORMAT, "m.norm.weight is missing");
    CHECK(!nn_linear(&nn, "fc", x, OUT, true, NULL)); // sticky
    graph_free(nn.g);
    params_close(p);
}

TEST(no_adapter_on_convolutions) {
    static const char *const target[] = {"conv"};
    char path[512];
    Params *p;
    CHECK_OK(write_layer(path));
    CHECK_OK(params_open(&p, path, "", NULL));
    Lora *l = lora_new(&(LoraConfig){.rank = 1, .alpha = 1, .target_cnt = 1, .target = target});
    NN nn = {.g = graph_new(), .params = p, .lora = l};
    Tensor *x = graph_input(nn.g, "x", DTYPE_F32, SHAPE(1, 1, 4, 4, IN));
    nn_push(&nn, "m");
    CHECK(!nn_conv2d(&nn, "conv", x, NULL, OUT, 3, 1, false, NULL));
    CHECK_ERR(graph_check(nn.g), ERR_USAGE, "m.conv: an adapter of a convolution");
    CHECK_ERR(lora_finish(l), ERR_USAGE, "'conv'");
    graph_free(nn.g);
    lora_free(l);
    params_close(p);
}
