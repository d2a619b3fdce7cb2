// plan_run allocates nothing: malloc and its kin are counted from the first run on, in every thread.
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

#include "common/tensor/grad.h"
#include "common/tensor/op.h"
#include "common/tensor/plan.h"
#include "tests/test.h"

static _Atomic bool counting;
static _Atomic int allocations;

#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
enum { CAN_COUNT = 1 };
// glibc's own names: the program's malloc stands in front of them for everything that is linked.
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t cnt, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);
static void count(void) {
    if (counting) atomic_fetch_add(&allocations, 1);
}
void *malloc(size_t size) {
    count();
    return __libc_malloc(size);
}
void *calloc(size_t cnt, size_t size) {
    count();
    return __libc_calloc(cnt, size);
}
void *realloc(void *p, size_t size) {
    count();
    return __libc_realloc(p, size);
}
void *aligned_alloc(size_t align, size_t size) {
    count();
    return __libc_memalign(align, size);
}
int posix_memalign(void **out, size_t align, size_t size) {
    count();
    *out = __libc_memalign(align, size);
    return *out ? 0 : ENOMEM;
}
#else
enum { CAN_COUNT = 0 }; // sanitizers replace malloc themselves
#endif

static float constants[1 << 16];
static Tensor *weight(Graph *g, Shape s) { return graph_weight(g, "w", DTYPE_F32, s, constants); }

// Every dense op and convolution, forward and back, with a computed weight too.
static Tensor *dense_ops(Graph *g) {
    const ConvSpec same = {.lo = {0, 1, 1}, .hi = {0, 1, 1}},
                   time = {.lo = {1, 0, 0}, .hi = {1, 0, 0}};
    const ConvSpec down = {.stride = {1, 2, 2}, .lo = {0, 1, 1}, .hi = {0, 1, 1}};
    Tensor *x = graph_input(g, "x", DTYPE_F32, SHAPE(1, 4, 8, 8, 32));
    Tensor *a = graph_input(g, "a", DTYPE_F32, SHAPE(4, 32)),
           *b = graph_input(g, "b", DTYPE_F32, SHAPE(32, 4));
    Tensor *y = op_conv(g, x, weight(g, SHAPE(32, 32, 1, 3, 3)), weight(g, SHAPE(1, 32)), x, same);
    y = op_conv(g, y, weight(g, SHAPE(32, 32, 3, 1, 1)), NULL, NULL, time);
    y = op_conv(g, y, weight(g, SHAPE(32, 32, 1, 1, 1)), NULL, NULL, (ConvSpec){{0}});
    y = op_lora_linear(g, y, weight(g, SHAPE(32, 32)), a, b, 0.5, NULL, y);
    y = op_linear(g, y, op_linear_dw(g, y, x), NULL, NULL);
    Tensor *dw = op_conv_dw(g, y, x, same, (int64_t[]){1, 3, 3});
    y = op_conv(g, y, dw, NULL, NULL, down);
    return op_conv_dx(g, y, weight(g, SHAPE(32, 32, 1, 3, 3)), down, (int64_t[]){4, 8, 8});
}

// A transformer block with norms and attention over pixels and over frames, and its gradient.
static Tensor *block_and_gradient(Graph *g) {
    Tensor *x = graph_input(g, "x", DTYPE_F32, SHAPE(1, 4, 16, 32)),
           *dy = graph_input(g, "dy", DTYPE_F32, x->shape);
    Tensor *w = weight(g, SHAPE(32, 32)), *gamma = weight(g, SHAPE(32)), *y = x;
    for (int axis = 1; axis <= 2; axis++) {
        Tensor *h = op_groupnorm(g, y, gamma, gamma, 8, 1e-5, true);
        h = op_layernorm(g, h, gamma, gamma, 1e-5);
        Tensor *q = op_linear(g, h, w, NULL, NULL);
        y = op_add(g, y, op_linear(g, op_sdpa(g, q, q, q, 2, axis, 0.25, false), w, NULL, NULL));
    }
    y = op_add(g, y, op_geglu(g, op_linear(g, y, weight(g, SHAPE(64, 32)), NULL, NULL)));
    Tensor *dx = NULL;
    grad_build(g, 1, &y, &dy, 1, &x, &dx);
    return dx;
}

static void check_no_allocation(const char *name, Tensor *(*build)(Graph *g), bool pack) {
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        constants[i] = (float)(i * 7919 % 101) / 1000;
    Graph *g = graph_new();
    Tensor *y = build(g);
    Backend *be = NULL;
    Plan *plan = NULL;
    graph_output(g, &y, "y");
    CHECK_OK(graph_check(g));
    CHECK_OK(backend_open(&be, name, (BackendOptions){.threads = 2, .pack_weights = pack}));
    CHECK_OK(plan_new(&plan, g, be, (PlanOptions){0}));
    allocations = 0;
    counting = true;
    Err err = ERR_OK;
    for (int i = 0; i < 3 && !err; i++) err = plan_run(plan);
    counting = false;
    CHECK_OK(err);
    CHECK_EQ(allocations, 0);
    plan_free(plan);
    backend_close(be);
    graph_free(g);
}

TEST(counting_works) {
    if (!CAN_COUNT) SKIP("a sanitizer owns malloc");
    allocations = 0;
    counting = true;
    void *volatile p = malloc(10);
    free(p);
    counting = false;
    CHECK_EQ(allocations, 1);
}
TEST(dense_ops_allocate_nothing) {
    if (!CAN_COUNT) SKIP("a sanitizer owns malloc");
    check_no_allocation("cpu", dense_ops, true);
    if (!test_failed()) check_no_allocation("cpu", dense_ops, false);
}
TEST(a_block_and_its_gradient_allocate_nothing) {
    if (!CAN_COUNT) SKIP("a sanitizer owns malloc");
    check_no_allocation("cpu", block_and_gradient, true);
}
