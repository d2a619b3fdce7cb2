// Every row of op.def: `cpu` against `ref`, forward and gradients; ref's gradients against differences.
//
// rows[] below has one line per op and shape. Each line is built several times: plain, on slices of wider
// tensors (padded with NaN), and between copies so that it may run in place; with its weight computed by the
// graph and as a constant of every storage type. Each of those runs on `cpu` with {exact, Winograd} x
// {packed, not packed} x {1, 2 threads}, where the number of threads may not change a bit.
//
// There is a test for each op: `test_ops conv` runs one.
#include <float.h>

#include "common/base/rng.h"
#include "common/tensor/grad.h"
#include "common/tensor/op.h"
#include "common/tensor/plan.h"
#include "tests/common/tensor/values.h"
#include "tests/test.h"

#define LEN(a) ((int)(sizeof(a) / sizeof *(a)))
static const double FORWARD_TOLERANCE = 1e-5, GRADIENT_TOLERANCE = 1e-5,
                    DIFFERENCE_TOLERANCE = 1e-6;

typedef enum Variant { PLAIN, SLICED, IN_PLACE, VARIANT_CNT } Variant;
static const char *const variant_name[] = {"plain", "sliced", "in place"};

// How a builder's weight() comes about.
typedef enum WeightKind { COMPUTED, F32, F16, BF16, SLICE, F16_RESULT, WEIGHT_CNT } WeightKind;
static const char *const weight_name[] = {"an input", "f32",       "f16",
                                          "bf16",     "f32 slice", "f16 result"};

typedef struct Case Case;
typedef struct Row {
    Op op;
    Tensor *(*build)(Case *c);
    int64_t dim[TENSOR_DIMS_MAX]; // of the first input, usually; 0 ends it
    int64_t k[16];                // whatever else the builder reads
    double f[2];
    bool rounds; // the gradient is not that of what is computed: no differences
    bool large;  // enough work for several threads: no differences, no variants
} Row;

// An input of the graph and what the op sees of it.
typedef struct Source {
    Tensor *input, *seen;
    void *data; // of input, in its dtype; lives as long as the program
    bool differentiable;
} Source;

struct Case {
    const Row *row;
    int number; // of the row among those of its op
    Variant variant;
    WeightKind weight;
    bool has_weight;
    Graph *g;
    Source source[12];
    int source_cnt;
    uint64_t seed;
};

static Arena forever; // data of inputs and weights: packed copies are keyed by its address

// ---- What builders ask for ---------------------------------------------------------------------

typedef float MapFn(float normal);
static float normal(float x) { return x; }
static float positive(float x) { return 0.1f + 2 * fabsf(x); }
static float away_from_zero(float x) { return x + copysignf(0.1f, x); }
static float wide(float x) { return 20 * x; }
static float shifted(float x) { return x + 3; }
static float few_levels(float x) { return rintf(x); }
static float huge(float x) { return 0x1p15f * rintf(x); }
static float huge_positive(float x) { return 0x1p15f * (1 + rintf(fabsf(x))); }

static Shape dims_of(const int64_t *dim, int max) {
    int rank = 0;
    while (rank < max && dim[rank]) rank++;
    return shape_make(rank, dim);
}
static Shape dims(const Case *c) { return dims_of(c->row->dim, TENSOR_DIMS_MAX); }
static int64_t K(const Case *c, int i) { return c->row->k[i]; }

static float *numbers(Case *c, int64_t n, MapFn *map) {
    float *x = arena_array(&forever, float, n);
    values_normal(x, n, ++c->seed);
    for (int64_t i = 0; i < n; i++) x[i] = map(x[i]);
    return x;
}

static Source *add_source(Case *c, Tensor *input, void *data) {
    die_unless(c->source_cnt < LEN(c->source), "too many sources");
    Source *s = &c->source[c->source_cnt++];
    *s = (Source){.input = input, .seen = input, .data = data};
    return s;
}

// Columns [2, 2 + d) of a tensor that is NaN elsewhere.
static Tensor *sliced(Case *c, Source *s, const float *x, Shape shape) {
    int64_t d = shape.dim[shape.rank - 1], rows = shape_count(shape) / d;
    shape.dim[shape.rank - 1] = d + 5;
    float *padded = arena_array(&forever, float, rows *(d + 5));
    for (int64_t i = 0; i < rows * (d + 5); i++) padded[i] = NAN;
    for (int64_t r = 0; r < rows; r++)
        memcpy(padded + r * (d + 5) + 2, x + r * d, sizeof *x * (size_t)d);
    s->input = graph_input(c->g, "in", DTYPE_F32, shape);
    s->data = padded;
    return op_slice(c->g, s->input, -1, 2, d);
}

// A differentiable input of mapped normal numbers.
static Tensor *in_map(Case *c, Shape shape, MapFn *map) {
    float *x = numbers(c, shape_count(shape), map);
    Source *s = add_source(c, NULL, x);
    s->differentiable = true;
    if (c->variant == SLICED) return s->seen = sliced(c, s, x, shape);
    s->seen = s->input = graph_input(c->g, "in", DTYPE_F32, shape);
    if (c->variant == IN_PLACE && s == c->source) s->seen = op_copy(c->g, s->input, DTYPE_F32);
    return s->seen;
}
static Tensor *in(Case *c, Shape shape) { return in_map(c, shape, normal); }
static Tensor *indices(Case *c, Shape shape, int64_t below) {
    RngStream r = rng_stream((RngKey){.seed = ++c->seed, .use = rng_use(RNG_TEST, 0, 0, 0, 1)});
    int32_t *x = arena_array(&forever, int32_t, shape_count(shape));
    for (int64_t i = 0; i < shape_count(shape); i++)
        x[i] = (int32_t)rng_u32_below(&r, (uint32_t)below);
    Tensor *t = graph_input(c->g, "index", DTYPE_I32, shape);
    add_source(c, t, x);
    return t;
}

// A weight of small numbers, as c->weight says.
static Tensor *weight(Case *c, Shape shape) {
    static const DType stored[] = {
        [F32] = DTYPE_F32, [F16] = DTYPE_F16, [BF16] = DTYPE_BF16, [SLICE] = DTYPE_F32};
    c->has_weight = true;
    if (c->weight == COMPUTED) return in(c, shape);
    if (c->weight == F16_RESULT) return op_copy(c->g, in(c, shape), DTYPE_F16);
    Shape whole = shape;
    if (c->weight == SLICE) whole.dim[0] += 2;
    int64_t n = shape_count(whole);
    DType type = stored[c->weight];
    float *x = numbers(c, n, normal);
    void *data = arena_alloc(&forever, (size_t)n * sizeof(float));
    dtype_convert(data, type, x, DTYPE_F32, (size_t)n);
    Tensor *w = graph_weight(c->g, "w", type, whole, data);
    return c->weight == SLICE ? op_slice(c->g, w, 0, 1, shape.dim[0]) : w;
}

static Tensor *in_if(Case *c, bool wanted, Shape shape) { return wanted ? in(c, shape) : NULL; }

// ---- Builders: data movement -------------------------------------------------------------------

static Tensor *copy_plain(Case *c) { return op_copy(c->g, in(c, dims(c)), DTYPE_F32); }
static Tensor *copy_slice(Case *c) { // k: axis, start, len
    return op_copy(c->g, op_slice(c->g, in(c, dims(c)), (int)K(c, 0), K(c, 1), K(c, 2)), DTYPE_F32);
}
static Tensor *copy_rounded(Case *c) { // k: dtype
    return op_copy(c->g, op_copy(c->g, in(c, dims(c)), (DType)K(c, 0)), DTYPE_F32);
}
static Tensor *copy_index(Case *c) {
    return op_copy(c->g, op_slice(c->g, indices(c, dims(c), 1 << 30), -1, 1, 2), DTYPE_I32);
}
static Tensor *permute(Case *c) {
    int perm[TENSOR_DIMS_MAX];
    for (int i = 0; i < TENSOR_DIMS_MAX; i++) perm[i] = (int)K(c, i);
    return op_permute(c->g, in(c, dims(c)), perm);
}
static Tensor *pad(Case *c) { return op_pad(c->g, in(c, dims(c)), c->row->k, c->row->k + 6); }
static Tensor *concat(Case *c) { // k: axis, count; entries grow by one along axis
    Tensor *x[TENSOR_INPUTS_MAX];
    Shape shape = dims(c);
    int axis = (int)K(c, 0);
    for (int i = 0; i < K(c, 1); i++) {
        x[i] = in(c, shape);
        shape.dim[axis < 0 ? axis + shape.rank : axis]++;
    }
    return op_concat(c->g, axis, (int)K(c, 1), x);
}
static Tensor *expand(Case *c) { // k: shape
    return op_expand(c->g, in(c, dims(c)), dims_of(c->row->k, TENSOR_DIMS_MAX));
}
static Tensor *gather(Case *c) { // k: axis, indices, whether they differ per outer entry
    Shape x = dims(c);
    int axis = (int)K(c, 0);
    int64_t outer = shape_span(x, 0, axis);
    Tensor *t = in(c, x);
    return op_gather(
        c->g, t, indices(c, K(c, 2) ? SHAPE(outer, K(c, 1)) : SHAPE(K(c, 1)), x.dim[axis]), axis);
}
static Tensor *scatter_add(Case *c) { // k: axis, length, whether indices differ per outer entry
    Shape x = dims(c);
    int axis = (int)K(c, 0);
    int64_t outer = shape_span(x, 0, axis), m = x.dim[axis];
    Tensor *t = in(c, x);
    return op_scatter_add(c->g, t, indices(c, K(c, 2) ? SHAPE(outer, m) : SHAPE(m), K(c, 1)), axis,
                          K(c, 1));
}
static Tensor *patchify(Case *c) { // k: pt, ph, pw
    return op_patchify(c->g, in(c, dims(c)), (int)K(c, 0), (int)K(c, 1), (int)K(c, 2));
}
static Tensor *unpatchify(Case *c) { // dim: of the video
    const int64_t *d = c->row->dim, *p = c->row->k;
    int64_t patch = p[0] * p[1] * p[2];
    Tensor *x = in(c, SHAPE(d[0], d[1] * d[2] * d[3] / patch, d[4] * patch));
    return op_unpatchify(c->g, x, (int)p[0], (int)p[1], (int)p[2], d[1], d[2], d[3], d[4]);
}
static Tensor *upsample2x(Case *c) { return op_upsample2x(c->g, in(c, dims(c))); }
static Tensor *upsample2x_dx(Case *c) { return op_upsample2x_dx(c->g, in(c, dims(c))); }

// Tables that walk over `from` in `to` steps, the last taps past the edge, which are zero.
static void tap_table(Case *c, int64_t from, int64_t to, int64_t taps, Tensor **start,
                      Tensor **tap) {
    int32_t *at = arena_array(&forever, int32_t, to);
    float *w = numbers(c, to * taps, normal);
    for (int64_t i = 0; i < to; i++) {
        at[i] = (int32_t)(i * from / to);
        for (int64_t a = 0; a < taps; a++)
            if (at[i] + a >= from) w[i * taps + a] = 0;
    }
    *start = graph_weight(c->g, "start", DTYPE_I32, SHAPE(to), at);
    *tap = graph_weight(c->g, "tap", DTYPE_F32, SHAPE(to, taps), w);
}
static Tensor *resize(Case *c) { // k: h, w, taps along each
    Tensor *hs, *ht, *ws, *wt, *x = in(c, dims(c));
    tap_table(c, c->row->dim[2], K(c, 0), K(c, 2), &hs, &ht);
    tap_table(c, c->row->dim[3], K(c, 1), K(c, 3), &ws, &wt);
    return op_resize(c->g, x, hs, ht, ws, wt);
}
static Tensor *resize_dx(Case *c) { // dim: of x; k: as resize
    Tensor *hs, *ht, *ws, *wt;
    const int64_t *d = c->row->dim;
    Tensor *dy = in(c, SHAPE(d[0], d[1], K(c, 0), K(c, 1), d[4]));
    tap_table(c, d[2], K(c, 0), K(c, 2), &hs, &ht);
    tap_table(c, d[3], K(c, 1), K(c, 3), &ws, &wt);
    return op_resize_dx(c->g, dy, hs, ht, ws, wt, d[2], d[3]);
}

// ---- Builders: elementwise ---------------------------------------------------------------------

static MapFn *domain_of(int64_t kind) {
    switch (kind) {
    case UNARY_sqrt:
    case UNARY_rsqrt:
    case UNARY_log: return positive;
    case UNARY_abs:
    case UNARY_sign:
    case UNARY_relu: return away_from_zero;
    case UNARY_sin:
    case UNARY_cos: return wide;
    default: return normal;
    }
}
static Tensor *unary(Case *c) { // k: kind
    return op_unary(c->g, (UnaryKind)K(c, 0), in_map(c, dims(c), domain_of(K(c, 0))));
}
static Tensor *unary_far(Case *c) { // the ends of the range
    return op_unary(c->g, (UnaryKind)K(c, 0), in_map(c, dims(c), wide));
}
static Tensor *unary_dx(Case *c) {
    Tensor *dy = in(c, dims(c));
    return op_unary_dx(c->g, (UnaryKind)K(c, 0), dy, in_map(c, dims(c), domain_of(K(c, 0))));
}
static Tensor *affine(Case *c) {
    return op_affine(c->g, in(c, dims(c)), c->row->f[0], c->row->f[1]);
}
// Numbers that keep off the two corners.
static float off_corners(float x) {
    return fabsf(x - 0.75f) < 0.1f || fabsf(x + 0.5f) < 0.1f ? x + 0.2f : x;
}
static Tensor *clamp(Case *c) {
    return op_clamp(c->g, in_map(c, dims(c), off_corners), c->row->f[0], c->row->f[1]);
}
static Tensor *clamp_dx(Case *c) {
    Tensor *dy = in(c, dims(c));
    return op_clamp_dx(c->g, dy, in_map(c, dims(c), off_corners), c->row->f[0], c->row->f[1]);
}
#define BINARY(op, map_b)                                          \
    static Tensor *binary_##op(Case *c) { /* k: shape of b */      \
        Tensor *a = in(c, dims(c)), *b;                            \
        b = in_map(c, dims_of(c->row->k, TENSOR_DIMS_MAX), map_b); \
        return op_##op(c->g, a, b);                                \
    }
BINARY(add, normal)
BINARY(sub, normal)
BINARY(mul, normal)
BINARY(div, away_from_zero)
static Tensor *lerp(Case *c) {
    Tensor *a = in(c, dims(c)), *b = in(c, dims(c));
    return op_lerp(c->g, a, b, in(c, SHAPE(1)));
}
static Tensor *geglu(Case *c) { return op_geglu(c->g, in(c, dims(c))); }
static Tensor *geglu_dx(Case *c) { // dim: of x
    Shape half = dims(c);
    half.dim[half.rank - 1] /= 2;
    Tensor *dy = in(c, half);
    return op_geglu_dx(c->g, dy, in(c, dims(c)));
}
static Tensor *dropout(Case *c) { // f: p; k: first element
    RngKey key = {.seed = 7, .sample = 3, .use = rng_use(RNG_DROPOUT, 1, 0, 2, 0)};
    key.element = (uint64_t)K(c, 0);
    int32_t *words = arena_array(&forever, int32_t, 8);
    rng_key_to_words(key, words);
    Tensor *x = in(c, dims(c)), *t = graph_input(c->g, "key", DTYPE_I32, SHAPE(8));
    add_source(c, t, words);
    return op_dropout(c->g, x, t, c->row->f[0]);
}
static Tensor *sinusoid(Case *c) { // k: dim
    return op_sinusoid(c->g, in_map(c, dims(c), wide), K(c, 0));
}
static Tensor *sinusoid_dx(Case *c) {
    Tensor *dy = in(c, SHAPE(c->row->dim[0], K(c, 0)));
    return op_sinusoid_dx(c->g, dy, in_map(c, dims(c), wide));
}

// ---- Builders: reductions, norms ---------------------------------------------------------------

static Tensor *sum(Case *c) { return op_sum(c->g, in(c, dims(c)), (unsigned)K(c, 0)); } // k: axes
static Tensor *max(Case *c) { return op_max(c->g, in(c, dims(c))); }
static Tensor *argmax(Case *c) { return op_argmax(c->g, in_map(c, dims(c), few_levels)); }
static Tensor *softmax(Case *c) {
    return op_softmax(c->g, in_map(c, dims(c), K(c, 0) ? wide : normal));
}
static Tensor *softmax_dx(Case *c) {
    Tensor *dy = in(c, dims(c));
    return op_softmax_dx(c->g, dy, op_softmax(c->g, in(c, dims(c))));
}
static Tensor *log_softmax(Case *c) {
    return op_log_softmax(c->g, in_map(c, dims(c), K(c, 0) ? wide : normal));
}
static Tensor *log_softmax_dx(Case *c) {
    Tensor *dy = in(c, dims(c));
    return op_log_softmax_dx(c->g, dy, op_log_softmax(c->g, in(c, dims(c))));
}
static Shape channels(const Case *c) {
    Shape s = dims(c);
    return SHAPE(s.dim[s.rank - 1]);
}
static Tensor *layernorm(Case *c) { // k: affine
    Tensor *x = in_map(c, dims(c), shifted), *gamma = in_if(c, K(c, 0), channels(c));
    return op_layernorm(c->g, x, gamma, in_if(c, K(c, 0), channels(c)), 1e-5);
}
static Tensor *layernorm_dx(Case *c) {
    Tensor *dy = in(c, dims(c)), *x = in_map(c, dims(c), shifted);
    return op_layernorm_dx(c->g, dy, x, in_if(c, K(c, 0), channels(c)), 1e-5);
}
static Tensor *layernorm_dp(Case *c) {
    Tensor *dy = in(c, dims(c));
    return op_layernorm_dp(c->g, dy, in_map(c, dims(c), shifted), 1e-5);
}
static Tensor *groupnorm(Case *c) { // k: groups, silu
    Tensor *x = in_map(c, dims(c), shifted), *gamma = in(c, channels(c)),
           *beta = in(c, channels(c));
    return op_groupnorm(c->g, x, gamma, beta, (int)K(c, 0), 1e-5, K(c, 1));
}
static Tensor *groupnorm_dx(Case *c) {
    Tensor *dy = in(c, dims(c)), *x = in_map(c, dims(c), shifted);
    Tensor *gamma = in(c, channels(c)), *beta = in(c, channels(c));
    return op_groupnorm_dx(c->g, dy, x, gamma, beta, (int)K(c, 0), 1e-5, K(c, 1));
}
static Tensor *groupnorm_dp(Case *c) {
    Tensor *dy = in(c, dims(c)), *x = in_map(c, dims(c), shifted);
    Tensor *gamma = in(c, channels(c)), *beta = in(c, channels(c));
    return op_groupnorm_dp(c->g, dy, x, gamma, beta, (int)K(c, 0), 1e-5, K(c, 1));
}

// ---- Builders: dense, convolution, attention ---------------------------------------------------

static Shape with_last(Shape s, int64_t d) { return s.dim[s.rank - 1] = d, s; }
enum {
    BIAS = 1,
    RESIDUAL = 2,
    TRANSPOSED = 4,
    BIAS_PER_N = 8,
    CAUSAL = 1,
    FUSED = 2,
    HUGE_LOGITS = 4
};

static Tensor *linear(Case *c) { // k: columns of y, flags
    Shape x = dims(c), y = with_last(x, K(c, 0));
    bool trans = K(c, 1) & TRANSPOSED;
    int64_t from = x.dim[x.rank - 1], to = K(c, 0);
    Tensor *t = in(c, x), *w = weight(c, trans ? SHAPE(from, to) : SHAPE(to, from));
    Tensor *bias = in_if(c, K(c, 1) & BIAS, SHAPE(to)), *residual = in_if(c, K(c, 1) & RESIDUAL, y);
    return (trans ? op_linear_t : op_linear)(c->g, t, w, bias, residual);
}
static Tensor *linear_dw(Case *c) { // k: columns of x
    Tensor *dy = in(c, dims(c));
    return op_linear_dw(c->g, dy, in(c, with_last(dims(c), K(c, 0))));
}
static Tensor *lora_linear(Case *c) { // k: columns of y, flags, rank
    Shape x = dims(c), y = with_last(x, K(c, 0));
    bool trans = K(c, 1) & TRANSPOSED;
    int64_t from = x.dim[x.rank - 1], to = K(c, 0), r = K(c, 2);
    Tensor *t = in(c, x), *w = weight(c, trans ? SHAPE(from, to) : SHAPE(to, from));
    Tensor *a = in(c, SHAPE(r, trans ? to : from)), *b = in(c, SHAPE(trans ? from : to, r));
    Tensor *bias = in_if(c, K(c, 1) & BIAS, SHAPE(to)), *residual = in_if(c, K(c, 1) & RESIDUAL, y);
    return (trans ? op_lora_linear_t : op_lora_linear)(c->g, t, w, a, b, 0.75, bias, residual);
}
static Tensor *bmm(Case *c) { // dim: leading, rows, depth; k: columns, ta, tb
    Shape a = dims(c), b = a;
    int64_t rows = a.dim[a.rank - 2], depth = a.dim[a.rank - 1];
    if (K(c, 1)) a.dim[a.rank - 2] = depth, a.dim[a.rank - 1] = rows;
    b.dim[b.rank - 2] = K(c, 2) ? K(c, 0) : depth;
    b.dim[b.rank - 1] = K(c, 2) ? depth : K(c, 0);
    Tensor *t = in(c, a);
    return op_bmm(c->g, t, in(c, b), K(c, 1), K(c, 2));
}

// k: O, kernel (3), stride (3), lo (3), hi (3), flags
static ConvSpec conv_spec(const Case *c) {
    ConvSpec s;
    for (int i = 0; i < 3; i++)
        s.stride[i] = (int)K(c, 4 + i), s.lo[i] = (int)K(c, 7 + i), s.hi[i] = (int)K(c, 10 + i);
    return s;
}
static Shape conv_result(const Case *c) {
    Shape y = dims(c);
    ConvSpec s = conv_spec(c);
    for (int i = 0; i < 3; i++)
        y.dim[1 + i] = (y.dim[1 + i] + s.lo[i] + s.hi[i] - K(c, 1 + i)) / s.stride[i] + 1;
    return with_last(y, K(c, 0));
}
static Tensor *conv_weight(Case *c) {
    return weight(c, SHAPE(K(c, 0), c->row->dim[4], K(c, 1), K(c, 2), K(c, 3)));
}
static Tensor *conv(Case *c) {
    Tensor *x = in(c, dims(c)), *w = conv_weight(c),
           *bias = in_if(c, K(c, 13) & BIAS, SHAPE(K(c, 0)));
    if (K(c, 13) & BIAS_PER_N) bias = in(c, SHAPE(c->row->dim[0], K(c, 0)));
    return op_conv(c->g, x, w, bias, in_if(c, K(c, 13) & RESIDUAL, conv_result(c)), conv_spec(c));
}
static Tensor *conv_dx(Case *c) { // dim: of x
    Tensor *dy = in(c, conv_result(c)), *w = conv_weight(c);
    return op_conv_dx(c->g, dy, w, conv_spec(c), c->row->dim + 1);
}
static Tensor *conv_dw(Case *c) { // dim: of x
    Tensor *dy = in(c, conv_result(c));
    return op_conv_dw(c->g, dy, in(c, dims(c)), conv_spec(c), c->row->k + 1);
}

// dim: (B, T, S, heads*d); k: heads, axis, keys (0: as many as queries), flags
static void queries_keys_values(Case *c, Tensor *qkv[3]) {
    Shape q = dims(c), kv = q;
    if (K(c, 2)) kv.dim[K(c, 1)] = K(c, 2);
    if (K(c, 3) & FUSED) {
        Tensor *all = in(c, with_last(q, 3 * q.dim[3]));
        for (int i = 0; i < 3; i++) qkv[i] = op_slice(c->g, all, 3, i * q.dim[3], q.dim[3]);
        return;
    }
    static MapFn *const map[] = {huge, huge_positive,
                                 normal}; // logits of 1e9, of one sign in a row
    for (int i = 0; i < 3; i++)
        qkv[i] = in_map(c, i ? kv : q, K(c, 3) & HUGE_LOGITS ? map[i] : normal);
}
static double scale_of(const Case *c) { return 1 / sqrt((double)c->row->dim[3] / (double)K(c, 0)); }
static Tensor *sdpa(Case *c) {
    Tensor *t[3];
    queries_keys_values(c, t);
    return op_sdpa(c->g, t[0], t[1], t[2], (int)K(c, 0), (int)K(c, 1), scale_of(c),
                   K(c, 3) & CAUSAL);
}
static Tensor *sdpa_back(Case *c) {
    Tensor *t[3], *dy = in(c, dims(c));
    queries_keys_values(c, t);
    return op_sdpa_back(c->g, dy, t[0], t[1], t[2], (int)K(c, 0), (int)K(c, 1), scale_of(c),
                        K(c, 3) & CAUSAL);
}

// ---- The table ---------------------------------------------------------------------------------

// clang-format off
#define BROADCAST(op)                                                            \
    {OP_##op, binary_##op, {1}, {1}}, {OP_##op, binary_##op, {7}, {7}}, {OP_##op, binary_##op, {3, 1037}, {3, 1037}}, \
    {OP_##op, binary_##op, {2, 3, 4, 5}, {5}}, {OP_##op, binary_##op, {2, 3, 4, 5}, {3, 1, 5}},    \
    {OP_##op, binary_##op, {2, 3, 4}, {1}}, {OP_##op, binary_##op, {5}, {2, 3, 5}},                \
    {OP_##op, binary_##op, {2, 1, 5}, {1, 3, 1}}, {OP_##op, binary_##op, {2, 3, 6, 7, 32}, {32}},  \
    {OP_##op, binary_##op, {2, 3, 4, 4, 17}, {2, 1, 1, 1, 17}}, {OP_##op, binary_##op, {4, 1}, {1, 1000}}, \
    {OP_##op, binary_##op, {2, 3, 4, 5}, {2, 3, 4, 1}}, {OP_##op, binary_##op, {1, 2, 3, 4, 5, 6}, {1, 2, 1, 4, 1, 6}}, \
    {OP_##op, binary_##op, {3, 40, 41, 17}, {17}, .large = true},                \
    {OP_##op, binary_##op, {40, 41, 33}, {40, 1, 33}, .large = true},            \
    {OP_##op, binary_##op, {40001}, {40001}, .large = true}
#define CONV(op)                                                                                      \
    /* N  T   H   W   C     O   kernel   stride   lo       hi       flags */                          \
    {OP_##op, op, {1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0}},                        \
    {OP_##op, op, {1, 1, 1, 1, 5}, {3, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, BIAS}},                     \
    {OP_##op, op, {1, 1, 5, 7, 3}, {4, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, BIAS}},                     \
    {OP_##op, op, {2, 1, 9, 6, 16}, {16, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, BIAS_PER_N}},             \
    {OP_##op, op, {1, 2, 8, 12, 32}, {48, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, BIAS | RESIDUAL}},       \
    {OP_##op, op, {2, 2, 5, 3, 24}, {40, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, BIAS_PER_N | RESIDUAL}},  \
    {OP_##op, op, {1, 1, 13, 10, 17}, {19, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, RESIDUAL}},             \
    {OP_##op, op, {1, 1, 3, 17, 64}, {4, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, BIAS}},                   \
    {OP_##op, op, {1, 1, 6, 6, 4}, {64, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, BIAS}},                    \
    {OP_##op, op, {2, 1, 7, 9, 16}, {32, 1, 3, 3, 1, 2, 2, 0, 1, 1, 0, 1, 1, BIAS}},                   \
    {OP_##op, op, {1, 2, 8, 7, 5}, {7, 1, 3, 3, 1, 2, 2, 0, 0, 0, 0, 1, 1, BIAS}},                     \
    {OP_##op, op, {2, 3, 5, 4, 16}, {33, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, BIAS_PER_N | RESIDUAL}},  \
    {OP_##op, op, {1, 1, 5, 7, 8}, {6, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0}},                        \
    {OP_##op, op, {2, 7, 3, 5, 16}, {32, 3, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, BIAS_PER_N}},             \
    {OP_##op, op, {1, 25, 2, 3, 17}, {17, 3, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, BIAS | RESIDUAL}},       \
    {OP_##op, op, {1, 1, 4, 4, 16}, {16, 3, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, BIAS}},                   \
    {OP_##op, op, {1, 2, 2, 3, 5}, {4, 3, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0}},                        \
    {OP_##op, op, {2, 4, 5, 6, 8}, {12, 3, 3, 3, 1, 1, 1, 2, 1, 1, 0, 1, 1, BIAS}},                    \
    {OP_##op, op, {1, 5, 4, 3, 6}, {5, 3, 3, 3, 2, 1, 1, 1, 1, 1, 0, 1, 1, BIAS}},                     \
    {OP_##op, op, {1, 4, 8, 8, 3}, {20, 2, 4, 4, 2, 4, 4, 0, 0, 0, 0, 0, 0, BIAS}},                    \
    {OP_##op, op, {1, 1, 11, 14, 3}, {16, 1, 7, 7, 1, 2, 2, 0, 3, 3, 0, 3, 3, BIAS}},                  \
    {OP_##op, op, {1, 1, 6, 9, 16}, {16, 1, 1, 5, 1, 1, 1, 0, 0, 2, 0, 0, 2, 0}},                      \
    {OP_##op, op, {1, 1, 6, 9, 16}, {16, 1, 5, 1, 1, 1, 1, 0, 2, 0, 0, 2, 0, 0}},                      \
    {OP_##op, op, {1, 1, 6, 5, 3}, {2, 1, 3, 3, 1, 3, 2, 0, 2, 0, 0, 1, 3, BIAS}},                       \
    {OP_##op, op, {2, 1, 33, 30, 32}, {32, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, BIAS_PER_N | RESIDUAL}, .large = true}, \
    {OP_##op, op, {1, 1, 5, 6, 272}, {256, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, BIAS}, .large = true}, \
    {OP_##op, op, {1, 1, 70, 70, 8}, {8, 1, 3, 3, 1, 1, 1, 0, 1, 1, 0, 1, 1, BIAS}, .large = true},     \
    {OP_##op, op, {1, 1, 64, 63, 8}, {24, 1, 3, 3, 1, 2, 2, 0, 1, 1, 0, 1, 1, BIAS}, .large = true},    \
    {OP_##op, op, {2, 9, 16, 17, 32}, {32, 3, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, BIAS}, .large = true},   \
    {OP_##op, op, {1, 3, 30, 31, 33}, {40, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, BIAS | RESIDUAL}, .large = true}
#define ATTENTION(op)                                                                                 \
    {OP_##op, op, {1, 1, 1, 1}, {1, 2}}, {OP_##op, op, {1, 1, 5, 8}, {1, 2}},                          \
    {OP_##op, op, {2, 3, 7, 72}, {3, 2}}, {OP_##op, op, {2, 9, 3, 64}, {2, 1}},                        \
    {OP_##op, op, {2, 1, 9, 55}, {1, 2, 77}}, {OP_##op, op, {1, 2, 6, 128}, {2, 2, 1}},                \
    {OP_##op, op, {1, 1, 33, 80}, {1, 2, 0, CAUSAL}}, {OP_##op, op, {1, 11, 2, 48}, {3, 1, 0, CAUSAL}},\
    {OP_##op, op, {2, 2, 17, 72}, {1, 2, 0, FUSED}}, {OP_##op, op, {1, 25, 3, 64}, {1, 1, 0, FUSED}},  \
    {OP_##op, op, {1, 1, 4, 64}, {1, 1}}, {OP_##op, op, {1, 1, 130, 64}, {1, 2, 257}},                 \
    {OP_##op, op, {2, 4, 3, 10}, {2, 1, 6}}, {OP_##op, op, {1, 1, 20, 512}, {1, 2, 0, FUSED}},    \
    {OP_##op, op, {1, 1, 520, 24}, {1, 2, 700}, .large = true}, {OP_##op, op, {2, 25, 40, 64}, {2, 1}, .large = true}, \
    {OP_##op, op, {1, 1, 12, 1}, {1, 2, 0, HUGE_LOGITS}, .large = true}, {OP_##op, op, {1, 1, 40, 1}, {1, 2, 0, HUGE_LOGITS}, .large = true}, \
    {OP_##op, op, {1, 1, 530, 16}, {1, 2, 0, CAUSAL}, .large = true}, {OP_##op, op, {2, 2, 60, 128}, {2, 2, 77}, .large = true}
#define SOFTMAX(op)                                                                                   \
    {OP_##op, op, {7}}, {OP_##op, op, {3, 5, 17}}, {OP_##op, op, {2, 3, 1}}, {OP_##op, op, {4, 1000}, {1}}, \
    {OP_##op, op, {2, 4099}}, {OP_##op, op, {300, 3}}, \
    {OP_##op, op, {300, 401}, .large = true}, {OP_##op, op, {3, 40001}, .large = true}
#define LAYERNORM(op)                                                                                 \
    {OP_##op, op, {7}, {1}}, {OP_##op, op, {3, 17}}, {OP_##op, op, {2, 3, 64}, {1}},                   \
    {OP_##op, op, {5, 1024}, {1}}, {OP_##op, op, {300, 24}, {1}}, {OP_##op, op, {2, 4099}}, \
    {OP_##op, op, {1000, 65}, {1}, .large = true}, {OP_##op, op, {130, 1280}, {1}, .large = true}
#define GROUPNORM(op)                                                                                 \
    {OP_##op, op, {2, 3, 4, 5, 32}, {32, 1}}, {OP_##op, op, {1, 1, 5, 7, 64}, {32, 0}},                \
    {OP_##op, op, {2, 3, 6}, {2, 1}}, {OP_##op, op, {2, 6}, {2, 0}},                                   \
    {OP_##op, op, {1, 2, 9, 11, 96}, {32, 1}}, {OP_##op, op, {3, 1, 4, 4, 40}, {8, 1}},                \
    {OP_##op, op, {1, 3, 16, 16, 17}, {1, 1}}, {OP_##op, op, {5, 1, 3, 3, 320}, {32, 0}}, \
    {OP_##op, op, {2, 3, 30, 31, 64}, {32, 1}, .large = true}, {OP_##op, op, {1, 1, 40, 50, 320}, {32, 0}, .large = true}

static const Row rows[] = {
    {OP_copy, copy_plain, {1}}, {OP_copy, copy_plain, {1037}}, {OP_copy, copy_plain, {2, 1, 3, 4, 5, 6}},
    {OP_copy, copy_slice, {3, 5, 17}, {0, 1, 2}}, {OP_copy, copy_slice, {3, 5, 17}, {1, 2, 3}},
    {OP_copy, copy_slice, {3, 5, 17}, {2, 4, 9}}, {OP_copy, copy_slice, {2, 2, 3, 4, 5, 6}, {3, 1, 2}},
    {OP_copy, copy_rounded, {3, 101}, {DTYPE_F16}, .rounds = true},
    {OP_copy, copy_rounded, {3, 101}, {DTYPE_BF16}, .rounds = true},
    {OP_copy, copy_index, {5, 7}},
    {OP_permute, permute, {5}, {0}}, {OP_permute, permute, {3, 5}, {1, 0}},
    {OP_permute, permute, {2, 3, 4}, {2, 0, 1}}, {OP_permute, permute, {2, 3, 4, 5}, {0, 2, 1, 3}},
    {OP_permute, permute, {2, 3, 4, 5, 6}, {0, 4, 1, 2, 3}}, {OP_permute, permute, {1, 2, 3, 4, 5, 6}, {5, 4, 3, 2, 1, 0}},
    {OP_permute, permute, {2, 65, 130}, {0, 2, 1}}, {OP_permute, permute, {2, 3, 4, 64}, {1, 2, 0, 3}},
    {OP_pad, pad, {5}, {[0] = 1, [6] = 2}}, {OP_pad, pad, {2, 3, 4, 5, 16}, {[1] = 2, [2] = 1, [8] = 1, [9] = 3}},
    {OP_pad, pad, {3, 4}, {0}}, {OP_pad, pad, {2, 3, 4}, {[2] = 1, [6] = 1, [8] = 2}},
    {OP_pad, pad, {1, 2, 1, 3, 2, 4}, {1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2}},
    {OP_concat, concat, {3}, {0, 1}}, {OP_concat, concat, {2, 3, 5}, {2, 2}}, {OP_concat, concat, {2, 3, 5}, {0, 3}},
    {OP_concat, concat, {2, 3, 5}, {1, 6}}, {OP_concat, concat, {1, 2, 3, 4, 16}, {-1, 2}}, {OP_concat, concat, {1, 1, 1}, {-2, 2}},
    {OP_expand, expand, {1}, {5}}, {OP_expand, expand, {2, 1, 4}, {2, 3, 4}},
    {OP_expand, expand, {1, 1, 1, 16}, {2, 3, 5, 16}}, {OP_expand, expand, {3, 1}, {3, 1000}},
    {OP_expand, expand, {2, 1, 3, 1, 5, 1}, {2, 2, 3, 4, 5, 3}},
    {OP_gather, gather, {7, 5}, {0, 4}}, {OP_gather, gather, {2, 7, 5}, {1, 9, 1}}, {OP_gather, gather, {2, 7, 5}, {1, 3}},
    {OP_gather, gather, {3, 9}, {1, 1}}, {OP_gather, gather, {2, 3, 6, 4}, {2, 8, 1}}, {OP_gather, gather, {1, 300, 64}, {1, 77, 1}},
    {OP_scatter_add, scatter_add, {4, 5}, {0, 7}}, {OP_scatter_add, scatter_add, {2, 9, 5}, {1, 4, 1}},
    {OP_scatter_add, scatter_add, {2, 3, 5}, {1, 1}}, {OP_scatter_add, scatter_add, {3, 9}, {1, 5}},
    {OP_scatter_add, scatter_add, {1, 77, 64}, {1, 300, 1}},
    {OP_patchify, patchify, {1, 1, 4, 6, 3}, {1, 2, 3}}, {OP_patchify, patchify, {2, 4, 6, 4, 5}, {2, 3, 2}},
    {OP_patchify, patchify, {1, 2, 28, 42, 3}, {1, 14, 14}}, {OP_patchify, patchify, {2, 1, 1, 1, 1}, {1, 1, 1}},
    {OP_unpatchify, unpatchify, {1, 1, 4, 6, 3}, {1, 2, 3}}, {OP_unpatchify, unpatchify, {2, 4, 6, 4, 5}, {2, 3, 2}},
    {OP_unpatchify, unpatchify, {1, 2, 28, 42, 3}, {1, 14, 14}}, {OP_unpatchify, unpatchify, {2, 1, 1, 1, 1}, {1, 1, 1}},
    {OP_upsample2x, upsample2x, {1, 1, 1, 1, 1}}, {OP_upsample2x, upsample2x, {2, 1, 3, 5, 7}}, {OP_upsample2x, upsample2x, {1, 2, 4, 3, 16}},
    {OP_upsample2x_dx, upsample2x_dx, {1, 1, 2, 2, 1}}, {OP_upsample2x_dx, upsample2x_dx, {2, 1, 6, 10, 7}},
    {OP_upsample2x_dx, upsample2x_dx, {1, 2, 8, 6, 16}},
    {OP_resize, resize, {1, 1, 5, 7, 3}, {8, 4, 2, 4}}, {OP_resize, resize, {2, 2, 9, 6, 16}, {4, 11, 7, 1}},
    {OP_resize, resize, {1, 1, 1, 1, 1}, {1, 1, 1, 1}}, {OP_resize, resize, {1, 3, 6, 5, 3}, {1, 17, 6, 2}},
    {OP_resize_dx, resize_dx, {1, 1, 5, 7, 3}, {8, 4, 2, 4}}, {OP_resize_dx, resize_dx, {2, 2, 9, 6, 16}, {4, 11, 7, 1}},
    {OP_resize_dx, resize_dx, {1, 1, 1, 1, 1}, {1, 1, 1, 1}}, {OP_resize_dx, resize_dx, {1, 3, 6, 5, 3}, {1, 17, 6, 2}},

#define UNARY(name, f, df) {OP_unary, unary, {1}, {UNARY_##name}}, {OP_unary, unary, {3, 5, 23}, {UNARY_##name}}, \
    {OP_unary, unary, {1, 2, 9, 7, 33}, {UNARY_##name}}, {OP_unary_dx, unary_dx, {3, 345}, {UNARY_##name}},
#include "common/tensor/unary.def"
#undef UNARY
    {OP_unary, unary_far, {1037}, {UNARY_sigmoid}}, {OP_unary, unary_far, {1037}, {UNARY_tanh}},
    {OP_unary, unary_far, {1037}, {UNARY_silu}}, {OP_unary, unary_far, {1037}, {UNARY_gelu_erf}},
    {OP_unary, unary_far, {1037}, {UNARY_gelu_tanh}}, {OP_unary, unary_far, {1037}, {UNARY_quick_gelu}},
    {OP_affine, affine, {1}, .f = {2, 1}}, {OP_affine, affine, {3, 5, 17}, .f = {-0.3, 0.1}}, {OP_affine, affine, {2, 1037}, .f = {1, 0}},
    {OP_clamp, clamp, {1}, .f = {-0.5, 0.75}}, {OP_clamp, clamp, {3, 5, 67}, .f = {-0.5, 0.75}},
    {OP_clamp_dx, clamp_dx, {1}, .f = {-0.5, 0.75}}, {OP_clamp_dx, clamp_dx, {3, 5, 67}, .f = {-0.5, 0.75}},
    BROADCAST(add), BROADCAST(sub), BROADCAST(mul), BROADCAST(div),
    {OP_lerp, lerp, {1}}, {OP_lerp, lerp, {2, 3, 5, 7, 17}}, {OP_lerp, lerp, {1037}},
    {OP_geglu, geglu, {1, 2}}, {OP_geglu, geglu, {3, 34}}, {OP_geglu, geglu, {2, 3, 128}},
    {OP_geglu_dx, geglu_dx, {1, 2}}, {OP_geglu_dx, geglu_dx, {3, 34}}, {OP_geglu_dx, geglu_dx, {2, 3, 128}},
    {OP_dropout, dropout, {7}, .f = {0.1}}, {OP_dropout, dropout, {3, 1001}, {3}, {0.5}}, {OP_dropout, dropout, {2, 9, 64}, {1 << 20}, {0.05}},
    {OP_sinusoid, sinusoid, {1}, {2}}, {OP_sinusoid, sinusoid, {5}, {34}}, {OP_sinusoid, sinusoid, {3}, {320}},
    {OP_sinusoid_dx, sinusoid_dx, {1}, {2}}, {OP_sinusoid_dx, sinusoid_dx, {5}, {34}}, {OP_sinusoid_dx, sinusoid_dx, {3}, {320}},

    {OP_sum, sum, {7}, {1}}, {OP_sum, sum, {3, 5, 17}, {1}}, {OP_sum, sum, {3, 5, 17}, {2}}, {OP_sum, sum, {3, 5, 17}, {4}},
    {OP_sum, sum, {3, 5, 17}, {7}}, {OP_sum, sum, {3, 5, 17}, {5}}, {OP_sum, sum, {2, 3, 4, 5, 6}, {0xe}},
    {OP_sum, sum, {2, 3, 4, 5, 6}, {0x11}}, {OP_sum, sum, {4, 10007}, {2}}, {OP_sum, sum, {10007, 4}, {1}}, {OP_sum, sum, {2, 33, 31, 64}, {6}},
    {OP_max, max, {1}}, {OP_max, max, {3, 5, 17}}, {OP_max, max, {2, 1}}, {OP_max, max, {5, 1000}},
    {OP_argmax, argmax, {1}}, {OP_argmax, argmax, {3, 5, 17}}, {OP_argmax, argmax, {2, 1}}, {OP_argmax, argmax, {5, 1000}},
    SOFTMAX(softmax), SOFTMAX(softmax_dx), SOFTMAX(log_softmax), SOFTMAX(log_softmax_dx),
    LAYERNORM(layernorm), LAYERNORM(layernorm_dx), LAYERNORM(layernorm_dp),
    GROUPNORM(groupnorm), GROUPNORM(groupnorm_dx), GROUPNORM(groupnorm_dp),

    {OP_linear, linear, {1, 1}, {1}}, {OP_linear, linear, {7, 5}, {3, BIAS}}, {OP_linear, linear, {5}, {9, BIAS}},
    {OP_linear, linear, {2, 3, 17}, {33, BIAS | RESIDUAL}}, {OP_linear, linear, {65, 64}, {96, RESIDUAL}}, {OP_linear, linear, {3, 300}, {1}},
    {OP_linear, linear, {2, 5, 320}, {64, BIAS}}, {OP_linear, linear, {3, 5, 40}, {24, TRANSPOSED | BIAS | RESIDUAL}},
    {OP_linear, linear, {33, 24}, {40, TRANSPOSED}}, {OP_linear, linear, {300, 17}, {5, BIAS}}, {OP_linear, linear, {2, 1200}, {65}},
    {OP_linear_dw, linear_dw, {1, 1}, {1}}, {OP_linear_dw, linear_dw, {7, 5}, {3}}, {OP_linear_dw, linear_dw, {2, 3, 17}, {33}},
    {OP_linear_dw, linear_dw, {2100, 8}, {24}}, {OP_linear_dw, linear_dw, {65, 96}, {64}}, {OP_linear_dw, linear_dw, {5}, {4}},
    {OP_lora_linear, lora_linear, {1, 1}, {1, 0, 1}}, {OP_lora_linear, lora_linear, {7, 5}, {3, BIAS, 2}},
    {OP_lora_linear, lora_linear, {2, 3, 17}, {33, BIAS | RESIDUAL, 4}}, {OP_lora_linear, lora_linear, {65, 64}, {96, RESIDUAL, 16}},
    {OP_lora_linear, lora_linear, {3, 5, 40}, {24, TRANSPOSED | BIAS | RESIDUAL, 3}}, {OP_lora_linear, lora_linear, {33, 24}, {40, TRANSPOSED, 8}},
    {OP_bmm, bmm, {1, 1}, {1}}, {OP_bmm, bmm, {7, 5}, {3}}, {OP_bmm, bmm, {7, 5}, {3, 1, 0}}, {OP_bmm, bmm, {7, 5}, {3, 0, 1}},
    {OP_bmm, bmm, {7, 5}, {3, 1, 1}}, {OP_bmm, bmm, {2, 3, 4, 5}, {6, 0, 1}}, {OP_bmm, bmm, {2, 33, 65}, {17, 0, 0}},
    {OP_bmm, bmm, {2, 33, 65}, {17, 1, 0}}, {OP_bmm, bmm, {3, 70, 16}, {70, 1, 1}},
    CONV(conv), CONV(conv_dx), CONV(conv_dw),
    ATTENTION(sdpa), ATTENTION(sdpa_back),

    // Enough work for several chunks of every kernel.
    {OP_copy, copy_plain, {100003}, .large = true}, {OP_copy, copy_slice, {40, 50, 33}, {1, 7, 40}, .large = true}, {OP_copy, copy_slice, {3, 200, 101}, {2, 1, 99}, .large = true},
    {OP_permute, permute, {3, 257, 130}, {0, 2, 1}, .large = true}, {OP_permute, permute, {2, 40, 33, 17, 5}, {0, 3, 1, 4, 2}, .large = true}, {OP_permute, permute, {4, 30, 7, 64}, {0, 2, 1, 3}, .large = true},
    {OP_pad, pad, {2, 3, 40, 41, 16}, {[2] = 1, [3] = 1, [8] = 1, [9] = 1}, .large = true}, {OP_concat, concat, {40, 30, 17}, {1, 3}, .large = true}, {OP_concat, concat, {300, 64}, {1, 2}, .large = true},
    {OP_expand, expand, {1, 1, 1, 64}, {3, 20, 21, 64}, .large = true}, {OP_expand, expand, {500, 1}, {500, 101}, .large = true},
    {OP_gather, gather, {1, 300, 64}, {1, 1000}, .large = true}, {OP_gather, gather, {5, 400, 33}, {1, 200, 1}, .large = true}, {OP_scatter_add, scatter_add, {1, 1000, 64}, {1, 300}, .large = true}, {OP_scatter_add, scatter_add, {5, 200, 33}, {1, 400, 1}, .large = true},
    {OP_patchify, patchify, {2, 4, 56, 56, 3}, {2, 14, 14}, .large = true}, {OP_unpatchify, unpatchify, {2, 4, 56, 56, 3}, {2, 14, 14}, .large = true},
    {OP_upsample2x, upsample2x, {2, 3, 20, 21, 33}, .large = true}, {OP_upsample2x_dx, upsample2x_dx, {2, 3, 40, 42, 33}, .large = true},
    {OP_resize, resize, {1, 3, 64, 48, 16}, {30, 100, 5, 2}, .large = true}, {OP_resize_dx, resize_dx, {1, 3, 64, 48, 16}, {30, 100, 5, 2}, .large = true},
    {OP_unary, unary, {40001}, {UNARY_silu}, .large = true}, {OP_unary, unary, {40001}, {UNARY_sin}, .large = true}, {OP_unary_dx, unary_dx, {40001}, {UNARY_gelu_erf}, .large = true},
    {OP_affine, affine, {40001}, .f = {2, 1}, .large = true}, {OP_clamp, clamp, {40001}, .f = {-0.5, 0.75}, .large = true}, {OP_clamp_dx, clamp_dx, {40001}, .f = {-0.5, 0.75}, .large = true},
    {OP_lerp, lerp, {3, 20001}, .large = true}, {OP_geglu, geglu, {300, 322}, .large = true}, {OP_geglu_dx, geglu_dx, {300, 322}, .large = true}, {OP_dropout, dropout, {3, 20001}, {1}, {0.3}, .large = true},
    {OP_sinusoid, sinusoid, {300}, {320}, .large = true}, {OP_sinusoid_dx, sinusoid_dx, {300}, {320}, .large = true},
    {OP_sum, sum, {3, 70000}, {2}, .large = true}, {OP_sum, sum, {70000, 3}, {1}, .large = true}, {OP_sum, sum, {500, 40, 11}, {5}, .large = true}, {OP_sum, sum, {200003}, {1}, .large = true}, {OP_sum, sum, {30, 2, 5000}, {1}, .large = true}, {OP_sum, sum, {2000, 65}, {2}, .large = true},
    {OP_max, max, {300, 401}, .large = true}, {OP_argmax, argmax, {300, 401}, .large = true},
    {OP_linear, linear, {700, 65}, {130, BIAS | RESIDUAL}, .large = true}, {OP_linear, linear, {33, 2000}, {300}, .large = true}, {OP_linear, linear, {700, 130}, {65, TRANSPOSED}, .large = true},
    {OP_linear_dw, linear_dw, {3000, 40}, {70}, .large = true}, {OP_linear_dw, linear_dw, {600, 300}, {280}, .large = true},
    {OP_lora_linear, lora_linear, {700, 65}, {130, BIAS, 8}, .large = true}, {OP_lora_linear, lora_linear, {300, 200}, {320, TRANSPOSED | RESIDUAL, 16}, .large = true},
    {OP_bmm, bmm, {3, 300, 65}, {130}, .large = true}, {OP_bmm, bmm, {3, 300, 65}, {130, 1, 1}, .large = true},
};
// clang-format on

// ---- Building and running a case ---------------------------------------------------------------

static bool has_gradient(Op op) {
    switch (op) {
    case OP_unary_dx:
    case OP_clamp_dx:
    case OP_geglu_dx:
    case OP_sinusoid_dx:
    case OP_max:
    case OP_argmax:
    case OP_softmax_dx:
    case OP_log_softmax_dx:
    case OP_layernorm_dx:
    case OP_layernorm_dp:
    case OP_groupnorm_dx:
    case OP_groupnorm_dp:
    case OP_sdpa_back: return false;
    default: return true;
    }
}

typedef struct Built {
    Tensor *y, *cot;
    float *cot_data;
    Tensor *dx[LEN(((Case *)0)->source)]; // per source; NULL where there is none
} Built;

// Appends the case to a new graph c->g, with its gradients if it has any and they are wanted.
static Err build(Case *c, bool gradients, Built *b) {
    *b = (Built){0};
    c->g = graph_new();
    c->source_cnt = 0;
    c->seed = values_seed(op_info(c->row->op)->name) + 1000 * (uint64_t)c->number;
    b->y = c->row->build(c);
    if (c->variant == IN_PLACE) b->y = op_copy(c->g, b->y, b->y ? b->y->dtype : DTYPE_F32);
    graph_output(c->g, &b->y, "y");
    TRY(graph_check(c->g));
    if (b->y->dtype == DTYPE_I32) return ERR_OK;
    b->cot_data = numbers(c, shape_count(b->y->shape), normal);
    if (!gradients || !has_gradient(c->row->op)) return ERR_OK;
    Tensor *wrt[LEN(c->source)];
    for (int i = 0; i < c->source_cnt; i++)
        wrt[i] = c->source[i].differentiable ? c->source[i].seen : NULL;
    b->cot = graph_input(c->g, "cot", DTYPE_F32, b->y->shape);
    TRY(grad_build(c->g, 1, &b->y, &b->cot, c->source_cnt, wrt, b->dx));
    for (int i = 0; i < c->source_cnt; i++) graph_output(c->g, &b->dx[i], "dx");
    return ERR_OK;
}

static Err feed(const Case *c, const Built *b, Plan *plan) {
    for (int i = 0; i < c->source_cnt; i++)
        TRY(plan_write(plan, c->source[i].input, c->source[i].data));
    if (b->cot) TRY(plan_write(plan, b->cot, b->cot_data));
    return ERR_OK;
}

// What a run gave: y and the gradients.
typedef struct Result {
    double *y, *dx[LEN(((Case *)0)->source)];
} Result;

static void result_free(Result *r) {
    free(r->y);
    for (int i = 0; i < LEN(r->dx); i++) free(r->dx[i]);
    *r = (Result){0};
}

static Backend *ref;

// cpu runs twice, so that what the first run left in memory would show. arena_bytes may be NULL.
static Err run(const Case *c, const Built *b, Backend *be, PlanOptions opt, Result *r,
               uint64_t *arena_bytes) {
    Plan *plan;
    TRY(plan_new(&plan, c->g, be, opt));
    if (arena_bytes) *arena_bytes = plan_memory(plan)->arena_bytes;
    Err err = feed(c, b, plan);
    for (int i = 0; i < (be == ref ? 1 : 2) && !err; i++) err = plan_run(plan);
    if (!err) r->y = values_read(be, plan, b->y);
    for (int i = 0; i < c->source_cnt && !err; i++)
        if (b->dx[i]) r->dx[i] = values_read(be, plan, b->dx[i]);
    plan_free(plan);
    return err;
}

static bool same_bits(const Built *b, const Result *p, const Result *q) {
    if (memcmp(p->y, q->y, sizeof(double) * (size_t)shape_count(b->y->shape))) return false;
    for (int i = 0; i < LEN(b->dx); i++)
        if (b->dx[i] &&
            memcmp(p->dx[i], q->dx[i], sizeof(double) * (size_t)shape_count(b->dx[i]->shape)))
            return false;
    return true;
}

// ---- Checks ------------------------------------------------------------------------------------

// cpu devices: bit 0 exact, bit 1 weights not packed, bit 2 two threads.
enum { EXACT = 1, UNPACKED = 2, TWO_THREADS = 4, DEVICE_CNT = 8 };
static Backend *cpu[DEVICE_CNT];

static Err open_devices(void) {
    if (ref) return ERR_OK;
    TRY(backend_open_ref(&ref, (BackendOptions){0}));
    for (int i = 0; i < DEVICE_CNT; i++)
        TRY(backend_open_cpu(&cpu[i], (BackendOptions){.threads = i & TWO_THREADS ? 2 : 1,
                                                       .pack_weights = !(i & UNPACKED),
                                                       .exact = i & EXACT}));
    return ERR_OK;
}

// The largest errors of an op.
static struct Worst {
    double forward, gradient, difference;
    int cases;
} worst;

static const char *where(const Case *c) {
    static char text[256];
    char shape[96];
    snprintf(text, sizeof text, "%s row %d %s [%lld %lld %lld], %s%s%s", op_info(c->row->op)->name,
             c->number, shape_text(dims(c), shape), (long long)K(c, 0), (long long)K(c, 1),
             (long long)K(c, 2), variant_name[c->variant], c->has_weight ? ", weight is " : "",
             c->has_weight ? weight_name[c->weight] : "");
    return text;
}

static void check_error(const Case *c, const char *what, double error, double tolerance,
                        double *largest) {
    *largest = fmax(*largest, error);
    CHECK_MSG(error <= tolerance, "%s: %s is off by %.2e, want at most %.0e", where(c), what, error,
              tolerance);
}

static void check_against(const Case *c, const Built *b, const Result *got, const Result *want,
                          int device) {
    char what[64];
    const char *how = device & EXACT ? "exact" : "default";
    snprintf(what, sizeof what, "y (%s)", how);
    check_error(c, what, values_error(got->y, want->y, shape_count(b->y->shape)),
                b->y->dtype == DTYPE_I32 ? 0 : FORWARD_TOLERANCE, &worst.forward);
    for (int i = 0; i < c->source_cnt; i++) {
        if (!b->dx[i]) continue;
        snprintf(what, sizeof what, "gradient %d (%s)", i, how);
        check_error(c, what, values_error(got->dx[i], want->dx[i], shape_count(b->dx[i]->shape)),
                    GRADIENT_TOLERANCE, &worst.gradient);
    }
}

static void check_cpu(const Case *c, const Built *b, const Result *want) {
    Result result[DEVICE_CNT] = {0};
    for (int i = 0; i < DEVICE_CNT && !test_failed(); i++) {
        if (!c->has_weight && (i & ~TWO_THREADS) && (i & ~TWO_THREADS) != (EXACT | UNPACKED))
            continue; // nothing reads those options
        Err err = run(c, b, cpu[i], (PlanOptions){0}, &result[i], NULL);
        if (err)
            TEST_FAIL("%s: %s", where(c), err_text());
        else if (!(i & TWO_THREADS))
            check_against(c, b, &result[i], want, i);
        else if (!same_bits(b, &result[i], &result[i - TWO_THREADS]))
            TEST_FAIL("%s: two threads give other bits than one (device %d)", where(c), i);
    }
    for (int i = 0; i < DEVICE_CNT; i++) result_free(&result[i]);
}

// Whether the op of the node may and can write over its first input.
static bool goes_in_place(const Tensor *y) {
    return (op_info(y->op)->flags & OP_FLAG_INPLACE) && shape_equal(y->in[0]->shape, y->shape);
}

// An in-place op between two copies: one tensor less than without reuse of memory, and the same bits.
static void check_reuse(const Case *c, const Built *b, Backend *be) {
    const Tensor *y = b->y->in[0];
    Result reused = {0}, own = {0};
    uint64_t small = 0, large = 0;
    Err err = run(c, b, be, (PlanOptions){0}, &reused, &small);
    if (!err) err = run(c, b, be, (PlanOptions){.no_reuse = true}, &own, &large);
    uint64_t bytes = (uint64_t)shape_count(y->shape) * be->dtype_bytes(y->dtype);
    if (err)
        TEST_FAIL("%s: %s", where(c), err_text());
    else if (!same_bits(b, &reused, &own))
        TEST_FAIL("%s: reuse changes the bits of %s", where(c), be->name);
    else if (goes_in_place(y) && small + bytes > large)
        TEST_FAIL("%s: not in place on %s: %llu bytes, %llu without reuse", where(c), be->name,
                  (unsigned long long)small, (unsigned long long)large);
    result_free(&reused);
    result_free(&own);
}

// Derivative of <cot, y> along direction v of one source, from four more runs of ref.
static double difference(const Built *b, Plan *plan, double *x, const double *at, const float *v,
                         int64_t n) {
    static const double step[] = {-2, -1, 1, 2}, factor[] = {1, -8, 8, -1}, H = 1e-4;
    double sum = 0;
    for (int k = 0; k < 4; k++) {
        for (int64_t i = 0; i < n; i++) x[i] = at[i] + H * step[k] * v[i];
        Err err = plan_run(plan);
        die_unless(!err, "%s", err_text());
        const double *y = plan_data(plan, b->y);
        for (int64_t i = 0; i < shape_count(b->y->shape); i++)
            sum += factor[k] * b->cot_data[i] * y[i] / (12 * H);
    }
    return sum;
}

static void check_differences(const Case *c, const Built *b, Plan *plan, const Result *want) {
    for (int s = 0; s < c->source_cnt; s++) {
        if (!want->dx[s] || test_failed()) continue;
        const Tensor *input = c->source[s].input;
        int64_t n = shape_count(input->shape);
        double *x = plan_data(plan, input), *at = values_read(ref, plan, input);
        float *v = malloc(sizeof *v * (size_t)n);
        for (uint64_t round = 0; round < 2; round++) {
            values_normal(v, n, 77 + round);
            double dot = 0, size = 0;
            for (int64_t i = 0; i < n; i++)
                dot += want->dx[s][i] * v[i], size += want->dx[s][i] * want->dx[s][i];
            size = sqrt(size); // what <dx, v> is like
            double error = fabs(difference(b, plan, x, at, v, n) - dot);
            check_error(c, "ref's gradient", error / (size > 1e-9 ? size : 1), DIFFERENCE_TOLERANCE,
                        &worst.difference);
        }
        memcpy(x, at, sizeof *x * (size_t)n);
        free(at), free(v);
    }
}

static void difference_case(Case *c, const Result *want) {
    Built b;
    Plan *plan;
    CHECK_OK(build(c, false, &b));
    CHECK_OK(plan_new(&plan, c->g, ref, (PlanOptions){0}));
    CHECK_OK(feed(c, &b, plan));
    check_differences(c, &b, plan, want);
    plan_free(plan);
    graph_free(c->g);
}

static bool has_differences(const Case *c) {
    return c->variant == PLAIN && c->weight == COMPUTED && !c->row->rounds && !c->row->large;
}

static void run_case(Case *c) {
    Built b;
    Result want = {0};
    CHECK_OK(build(c, c->variant != IN_PLACE, &b)); // gradients would keep its input alive
    CHECK_OK(run(c, &b, ref, (PlanOptions){0}, &want, NULL));
    check_cpu(c, &b, &want);
    if (c->variant == IN_PLACE) {
        check_reuse(c, &b, ref);
        check_reuse(c, &b, cpu[0]);
    }
    graph_free(c->g);
    if (has_differences(c)) difference_case(c, &want);
    result_free(&want);
    worst.cases++;
}

// Weights are of every kind where it may matter how x lies in memory, too.
static bool wanted(const Case *c) {
    if (c->row->large) return c->variant == PLAIN && (c->weight == COMPUTED || c->weight == F16);
    return c->variant != IN_PLACE || c->weight == COMPUTED;
}

static void run_row(const Row *row, int number) {
    bool has_weight = true; // until one was built
    for (int variant = 0; variant < VARIANT_CNT; variant++)
        for (int kind = 0; kind < (has_weight ? WEIGHT_CNT : 1) && !test_failed(); kind++) {
            Case c = {row, number, (Variant)variant, (WeightKind)kind};
            if (!wanted(&c)) continue;
            run_case(&c);
            has_weight = c.has_weight;
        }
}

static void run_op(Op op) {
    worst = (struct Worst){0};
    CHECK_OK(open_devices());
    for (int i = 0, number = 0; i < LEN(rows); i++)
        if (rows[i].op == op) run_row(&rows[i], number++);
    CHECK_MSG(worst.cases, "no row for %s", op_info(op)->name);
    printf(
        "   %-16s %4d cases; cpu against ref: forward %.1e, gradient %.1e; ref against differences: "
        "%.1e\n",
        op_info(op)->name, worst.cases, worst.forward, worst.gradient, worst.difference);
}

#define OP(name, inputs_min, inputs_max, flags) \
    TEST(name) { run_op(OP_##name); }
#include "common/tensor/op.def"
#undef OP
