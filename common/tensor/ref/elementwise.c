// Elementwise operators. The result may lie over in[0], so element i is read before it is written.
#include <math.h>

#include "common/base/rng.h"
#include "common/tensor/op.h"
#include "common/tensor/ref/ref.h"

#define ZERO 0.0
#define HALF 0.5
#define ONE 1.0
#define EXP exp
#define LOG log
#define TANH tanh
#define ERF erf
#define SQRT sqrt
#define SIN sin
#define COS cos
#define ABS fabs
#define SEL(cond, a, b) ((cond) ? (a) : (b))
#define SIGMOID sigmoid
#define INV_SQRT2 M_SQRT1_2
#define INV_SQRT_2PI (M_2_SQRTPI * M_SQRT1_2 / 2)
#define SQRT_2_PI (M_2_SQRTPI * M_SQRT1_2)
#define C_0447 0.044715
#define C_1702 1.702
#define GELU_TANH_D gelu_tanh_d

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static double gelu_tanh_d(double x) {
    double th = tanh(SQRT_2_PI * (x + C_0447 * x * x * x));
    return 0.5 * (1 + th) + 0.5 * x * (1 - th * th) * SQRT_2_PI * (1 + 3 * C_0447 * x * x);
}

static double unary(int kind, double x) {
    switch ((UnaryKind)kind) {
#define UNARY(name, f, df) \
    case UNARY_##name:     \
        return f;
#include "common/tensor/unary.def"
#undef UNARY
    default: die("unary kind %d", kind);
    }
}

static double unary_slope(int kind, double x) {
    switch ((UnaryKind)kind) {
#define UNARY(name, f, df) \
    case UNARY_##name:     \
        return df;
#include "common/tensor/unary.def"
#undef UNARY
    default: die("unary kind %d", kind);
    }
}

REF_OP(unary) {
    RefIn x = ref_in(s, 0);
    for (int64_t i = 0; i < ref_count(s); i++)
        ref_put(s, i, unary(s->node->attr.unary.kind, ref_get(&x, i)));
}

REF_OP(unary_dx) {
    RefIn dy = ref_in(s, 0), x = ref_in(s, 1);
    for (int64_t i = 0; i < ref_count(s); i++)
        ref_put(s, i, ref_get(&dy, i) * unary_slope(s->node->attr.unary.kind, ref_get(&x, i)));
}

REF_OP(affine) {
    RefIn x = ref_in(s, 0);
    for (int64_t i = 0; i < ref_count(s); i++)
        ref_put(s, i, s->node->attr.affine.a * ref_get(&x, i) + s->node->attr.affine.b);
}

REF_OP(clamp) {
    RefIn x = ref_in(s, 0);
    double lo = s->node->attr.affine.a, hi = s->node->attr.affine.b;
    for (int64_t i = 0; i < ref_count(s); i++) ref_put(s, i, fmin(fmax(ref_get(&x, i), lo), hi));
}

REF_OP(clamp_dx) {
    RefIn dy = ref_in(s, 0), x = ref_in(s, 1);
    double lo = s->node->attr.affine.a, hi = s->node->attr.affine.b;
    for (int64_t i = 0; i < ref_count(s); i++) {
        double v = ref_get(&x, i);
        ref_put(s, i, v >= lo && v <= hi ? ref_get(&dy, i) : 0);
    }
}

// ---- Binary, with broadcasting ----

// The element of x that meets element i of the result: ranks aligned at the end, dims of 1 repeated.
static double broadcast(const RefIn *x, Shape result, int64_t i) {
    int64_t at[TENSOR_DIMS_MAX], x_at[TENSOR_DIMS_MAX];
    int lead = result.rank - x->t->shape.rank;
    ref_coords(result, i, at);
    for (int k = 0; k < x->t->shape.rank; k++) x_at[k] = x->t->shape.dim[k] == 1 ? 0 : at[lead + k];
    return ref_get(x, ref_index(x->t->shape, x_at));
}

#define BINARY(name, expression)                            \
    REF_OP(name) {                                          \
        RefIn in_a = ref_in(s, 0), in_b = ref_in(s, 1);     \
        for (int64_t i = 0; i < ref_count(s); i++) {        \
            double a = broadcast(&in_a, s->node->shape, i); \
            double b = broadcast(&in_b, s->node->shape, i); \
            ref_put(s, i, expression);                      \
        }                                                   \
    }
BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(mul, a *b)
BINARY(div, a / b)

REF_OP(lerp) {
    RefIn a = ref_in(s, 0), b = ref_in(s, 1), weight = ref_in(s, 2);
    double w = ref_get(&weight, 0);
    for (int64_t i = 0; i < ref_count(s); i++)
        ref_put(s, i, ref_get(&a, i) + w * (ref_get(&b, i) - ref_get(&a, i)));
}

// ---- Gated, random, embedding ----

// Row i / d of x (..., 2d) is [value | gate].
REF_OP(geglu) {
    RefIn x = ref_in(s, 0);
    int64_t d = s->node->shape.dim[s->node->shape.rank - 1];
    for (int64_t i = 0; i < ref_count(s); i++) {
        int64_t value = i / d * 2 * d + i % d;
        ref_put(s, i, ref_get(&x, value) * unary(UNARY_gelu_erf, ref_get(&x, value + d)));
    }
}

REF_OP(geglu_dx) {
    RefIn dy = ref_in(s, 0), x = ref_in(s, 1);
    int64_t d = dy.t->shape.dim[dy.t->shape.rank - 1];
    for (int64_t i = 0; i < shape_count(dy.t->shape); i++) {
        int64_t value = i / d * 2 * d + i % d, gate = value + d;
        double g = ref_get(&x, gate);
        ref_put(s, value, ref_get(&dy, i) * unary(UNARY_gelu_erf, g));
        ref_put(s, gate, ref_get(&dy, i) * ref_get(&x, value) * unary_slope(UNARY_gelu_erf, g));
    }
}

REF_OP(dropout) {
    RefIn x = ref_in(s, 0), key = ref_in(s, 1);
    int32_t words[8];
    for (int k = 0; k < 8; k++) words[k] = (int32_t)ref_get(&key, k);
    RngStream stream = rng_stream(rng_key_from_words(words));
    double p = s->node->attr.dropout.p;
    for (int64_t i = 0; i < ref_count(s); i++) {
        bool keep = rng_uniform(&stream, (uint64_t)i) >= p;
        ref_put(s, i, keep ? ref_get(&x, i) / (1 - p) : 0);
    }
}

static double frequency(int64_t j, int64_t half) { return pow(10000, -(double)j / (double)half); }

REF_OP(sinusoid) {
    RefIn t = ref_in(s, 0);
    int64_t dim = s->node->attr.sinusoid.dim, half = dim / 2;
    for (int64_t i = 0; i < t.t->shape.dim[0]; i++)
        for (int64_t j = 0; j < half; j++) {
            ref_put(s, i * dim + j, cos(ref_get(&t, i) * frequency(j, half)));
            ref_put(s, i * dim + half + j, sin(ref_get(&t, i) * frequency(j, half)));
        }
}

REF_OP(sinusoid_dx) {
    RefIn dy = ref_in(s, 0), t = ref_in(s, 1);
    int64_t dim = s->node->attr.sinusoid.dim, half = dim / 2;
    for (int64_t i = 0; i < ref_count(s); i++) {
        double sum = 0, x = ref_get(&t, i);
        for (int64_t j = 0; j < half; j++) {
            double w = frequency(j, half);
            sum += w * (cos(x * w) * ref_get(&dy, i * dim + half + j) -
                        sin(x * w) * ref_get(&dy, i * dim + j));
        }
        ref_put(s, i, sum);
    }
}
