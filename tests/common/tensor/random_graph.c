// random_graph: a pool of tensors; each step takes some of them and puts one back.
#include "tests/common/tensor/random_graph.h"

#include <math.h>
#include <stdio.h>

#include "common/base/rng.h"
#include "common/tensor/grad.h"
#include "common/tensor/op.h"
#include "tests/common/tensor/values.h"

enum { POOL_MAX = 256, COUNT_MAX = 3000 };

typedef struct Maker {
    Graph *g;
    RngStream rng;
    Tensor *pool[POOL_MAX];
    int cnt;
    uint64_t weights;
} Maker;

static Arena forever; // weights: backends key packed copies by their address

static int below(Maker *m, int n) { return (int)rng_u32_below(&m->rng, (uint32_t)n); }
static int64_t last(const Tensor *t) { return t->shape.dim[t->shape.rank - 1]; }

// A tensor of the pool, recent ones more often.
static Tensor *any(Maker *m) {
    int back = below(m, 2) ? m->cnt : m->cnt < 4 ? m->cnt : 4;
    return m->pool[m->cnt - 1 - below(m, back)];
}

// One of this shape: the last of them, or t itself.
static Tensor *like(Maker *m, Tensor *t) {
    for (int i = m->cnt - 1; i >= 0; i--)
        if (m->pool[i] != t && shape_equal(m->pool[i]->shape, t->shape)) return m->pool[i];
    return t;
}

static Tensor *weight(Maker *m, DType type, Shape shape) {
    int64_t n = shape_count(shape);
    float *x = arena_array(&forever, float, n);
    values_normal(x, n, 1000 + m->rng.element + m->weights++);
    float scale = 1 / sqrtf((float)(n / shape.dim[0]));
    for (int64_t i = 0; i < n; i++) x[i] *= scale;
    void *data = arena_alloc(&forever, (size_t)n * sizeof *x);
    dtype_convert(data, type, x, DTYPE_F32, (size_t)n);
    return graph_weight(m->g, "w", type, shape, data);
}
static DType any_float(Maker *m) {
    return (DType[]){DTYPE_F32, DTYPE_F16, DTYPE_BF16}[below(m, 3)];
}

// ---- Steps: NULL where the tensor does not suit ------------------------------------------------

typedef Tensor *StepFn(Maker *m, Tensor *x);

static Tensor *unary(Maker *m, Tensor *x) {
    static const UnaryKind kinds[] = {UNARY_silu, UNARY_tanh,    UNARY_gelu_erf, UNARY_gelu_tanh,
                                      UNARY_sin,  UNARY_sigmoid, UNARY_neg,      UNARY_quick_gelu};
    return op_unary(m->g, kinds[below(m, 8)], x);
}
static Tensor *affine(Maker *m, Tensor *x) { return op_affine(m->g, x, -0.7, 0.2); }
static Tensor *add(Maker *m, Tensor *x) { return op_add(m->g, x, like(m, x)); }
static Tensor *sub(Maker *m, Tensor *x) {
    return op_sub(m->g, op_affine(m->g, like(m, x), 2, 0), x);
}
static Tensor *mul(Maker *m, Tensor *x) {
    return op_unary(m->g, UNARY_tanh, op_mul(m->g, x, like(m, x)));
}
static Tensor *lerp(Maker *m, Tensor *x) {
    return op_lerp(m->g, x, like(m, x), weight(m, DTYPE_F32, SHAPE(1)));
}
static Tensor *bias(Maker *m, Tensor *x) {
    return op_add(m->g, x, weight(m, DTYPE_F32, SHAPE(last(x))));
}
static Tensor *slice(Maker *m, Tensor *x) {
    int axis = below(m, x->shape.rank);
    int64_t d = x->shape.dim[axis], from = d > 1 ? below(m, (int)d - 1) : 0;
    return op_slice(m->g, x, axis, from, d - from > 1 ? d - from - 1 : 1);
}
static Tensor *reshape(Maker *m, Tensor *x) {
    return op_reshape(m->g, x, below(m, 2) ? SHAPE(-1, last(x)) : SHAPE(1, -1, 1, last(x)));
}
static Tensor *permute(Maker *m, Tensor *x) {
    int perm[TENSOR_DIMS_MAX], rank = x->shape.rank, shift = below(m, rank);
    for (int i = 0; i < rank; i++) perm[i] = (i + shift) % rank;
    return op_permute(m->g, x, perm);
}
static Tensor *concat(Maker *m, Tensor *x) {
    if (shape_count(x->shape) > COUNT_MAX / 2) return NULL;
    return op_concat(m->g, below(m, x->shape.rank), 2, (Tensor *[]){x, like(m, x)});
}
static Tensor *pad(Maker *m, Tensor *x) {
    int64_t lo[TENSOR_DIMS_MAX] = {0}, hi[TENSOR_DIMS_MAX] = {0};
    if (shape_count(x->shape) > COUNT_MAX / 2) return NULL;
    lo[below(m, x->shape.rank)] = 1;
    return op_pad(m->g, x, lo, hi);
}
static Tensor *mean_and_back(Maker *m, Tensor *x) {
    Tensor *mean = op_mean(m->g, x, 1u << below(m, x->shape.rank));
    return op_sub(m->g, x, mean);
}
static Tensor *linear(Maker *m, Tensor *x) {
    int64_t n = (int64_t[]){4, 8, 17, 32}[below(m, 4)];
    if (shape_count(x->shape) / last(x) * n > COUNT_MAX) n = 4;
    Tensor *w = weight(m, any_float(m), SHAPE(n, last(x)));
    return op_linear(m->g, x, w, below(m, 2) ? weight(m, DTYPE_F32, SHAPE(n)) : NULL, NULL);
}
static Tensor *lora(Maker *m, Tensor *x) { // square, onto itself
    int64_t d = last(x);
    Tensor *w = weight(m, any_float(m), SHAPE(d, d)), *a = weight(m, DTYPE_F32, SHAPE(2, d));
    return op_lora_linear(m->g, x, w, a, weight(m, DTYPE_F32, SHAPE(d, 2)), 0.5, NULL, like(m, x));
}
static Tensor *layernorm(Maker *m, Tensor *x) {
    Tensor *gamma = weight(m, DTYPE_F32, SHAPE(last(x)));
    return last(x) < 4 ? NULL : op_layernorm(m->g, x, gamma, gamma, 1e-3);
}
static Tensor *groupnorm(Maker *m, Tensor *x) {
    if (x->shape.rank < 3 || last(x) % 4) return NULL;
    Tensor *gamma = weight(m, DTYPE_F32, SHAPE(last(x)));
    return op_groupnorm(m->g, x, gamma, gamma, 2, 1e-3, below(m, 2));
}
static Tensor *softmax(Maker *m, Tensor *x) { return op_softmax(m->g, x); }
static Tensor *geglu(Maker *m, Tensor *x) { return last(x) % 2 ? NULL : op_geglu(m->g, x); }
static Tensor *conv(Maker *m, Tensor *x) {
    if (x->shape.rank != 5 || shape_count(x->shape) / last(x) * 16 > COUNT_MAX) return NULL;
    Tensor *w = weight(m, any_float(m), SHAPE(16, last(x), 1, 3, 3));
    return op_conv(m->g, x, w, weight(m, DTYPE_F32, SHAPE(16)), NULL,
                   (ConvSpec){.lo = {0, 1, 1}, .hi = {0, 1, 1}});
}
static Tensor *attention(Maker *m, Tensor *x) {
    if (x->shape.rank != 4 || last(x) % 2) return NULL;
    return op_sdpa(m->g, x, like(m, x), like(m, x), 2, 1 + below(m, 2), 0.5, false);
}
static Tensor *fused_attention(Maker *m, Tensor *x) { // q, k, v are columns of one tensor
    if (x->shape.rank != 4 || shape_count(x->shape) / last(x) * 24 > COUNT_MAX) return NULL;
    Tensor *all = op_linear(m->g, x, weight(m, DTYPE_F32, SHAPE(24, last(x))), NULL, NULL);
    return op_sdpa(m->g, op_slice(m->g, all, 3, 0, 8), op_slice(m->g, all, 3, 8, 8),
                   op_slice(m->g, all, 3, 16, 8), 1, 2, 0.5, false);
}
static Tensor *frames(Maker *m, Tensor *x) { // selects and puts back
    static const int32_t idx[] = {0, 0};
    Tensor *at = graph_weight(m->g, "idx", DTYPE_I32, SHAPE(2), idx);
    return op_scatter_add(m->g, op_gather(m->g, x, at, 0), at, 0, x->shape.dim[0]);
}

static StepFn *const steps[] = {
    unary,         affine,    add,     sub,    mul,  lerp,      bias,
    slice,         reshape,   permute, concat, pad,  linear,    lora,
    layernorm,     groupnorm, softmax, geglu,  conv, attention, fused_attention,
    mean_and_back, frames};

// ---- The graph ---------------------------------------------------------------------------------

static void random_steps(Maker *m, int ops, bool segments) {
    int steps_cnt = (int)(sizeof steps / sizeof *steps);
    for (int i = 0; i < ops; i++) {
        if (segments && i % 7 == 1) graph_segment_begin(m->g);
        Tensor *y = steps[below(m, steps_cnt)](m, any(m));
        if (y && m->cnt < POOL_MAX) m->pool[m->cnt++] = y;
        if (segments && i % 7 == 5) graph_segment_end(m->g);
    }
    graph_segment_end(m->g);
}

static void choose_outputs(RandomGraph *r, Maker *m) {
    for (int i = 0; i < RANDOM_OUTPUTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "y%d", i);
        r->out[i] = i ? any(m) : m->pool[m->cnt - 1];
        graph_output(m->g, &r->out[i], name);
    }
}

static Err append_gradients(RandomGraph *r) {
    char name[16];
    for (int i = 0; i < RANDOM_OUTPUTS; i++) {
        snprintf(name, sizeof name, "cot%d", i);
        r->cot[i] = graph_input(r->g, name, DTYPE_F32, r->out[i]->shape);
    }
    TRY(grad_build(r->g, RANDOM_OUTPUTS, r->out, r->cot, RANDOM_INPUTS, r->in, r->dx));
    for (int i = 0; i < RANDOM_INPUTS; i++) {
        snprintf(name, sizeof name, "dx%d", i);
        graph_output(r->g, &r->dx[i], name);
    }
    return ERR_OK;
}

Err random_graph_build(RandomGraph *r, uint64_t seed, int ops, bool gradients, bool segments) {
    *r = (RandomGraph){.g = graph_new()};
    Maker m = {.g = r->g};
    m.rng = rng_stream((RngKey){.seed = seed, .use = rng_use(RNG_TEST, 0, 0, 0, 2)});
    const Shape shape[RANDOM_INPUTS] = {SHAPE(1, 2, 5, 3, 8), SHAPE(2, 3, 7, 8), SHAPE(6, 8),
                                        SHAPE(2, 3, 7, 8)};
    for (int i = 0; i < RANDOM_INPUTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        m.pool[m.cnt++] = r->in[i] = graph_input(r->g, name, DTYPE_F32, shape[i]);
    }
    random_steps(&m, ops, segments);
    TRY(graph_check(r->g));
    choose_outputs(r, &m);
    return gradients ? append_gradients(r) : ERR_OK;
}
