// Convolution over (T, H, W): three ops, one walk over the pairs of pixels that a kernel tap joins.
#include "common/tensor/ref/ref.h"

// Pixel x of (N, T, H, W) reaches pixel y of the result through kernel tap k.
typedef struct Tap {
    int64_t y, x, k, n;
} Tap;

// What each tap does to the channels.
typedef struct Conv {
    RefIn a, b; // conv: x, w; conv_dx: dy, w; conv_dw: dy, x
    const double
        *w; // conv, conv_dx: w as (taps, I, O), in the workspace: widened once, not at each pixel
    double *out;
    int64_t i_cnt, o_cnt, k_cnt; // channels of x and y, taps
} Conv;
typedef void TapFn(const Conv *c, Tap tap);

// x_shape (N, T, H, W, I), y_shape (N, T, H, W, O).
static void each_tap(const Step *s, const Conv *c, Shape x_shape, Shape y_shape, TapFn *fn) {
    const int64_t *kernel = s->node->attr.conv.kernel;
    int64_t at[TENSOR_DIMS_MAX], tap[TENSOR_DIMS_MAX];
    x_shape.dim[4] = y_shape.dim[4] = 1; // pixels
    for (int64_t y = 0; y < shape_count(y_shape); y++)
        for (int64_t k = 0; k < c->k_cnt; k++) {
            ref_coords(y_shape, y, at);
            ref_coords(shape_make(3, kernel), k, tap);
            bool inside = true;
            for (int i = 0; i < 3; i++) {
                at[1 + i] =
                    at[1 + i] * s->node->attr.conv.stride[i] + tap[i] - s->node->attr.conv.lo[i];
                inside &= at[1 + i] >= 0 && at[1 + i] < x_shape.dim[1 + i];
            }
            if (inside) fn(c, (Tap){y, ref_index(x_shape, at), k, at[0]});
        }
}

static Conv conv_of(Step *s, Shape x_shape, Shape y_shape) {
    const int64_t *kernel = s->node->attr.conv.kernel;
    return (Conv){.a = ref_in(s, 0),
                  .b = ref_in(s, 1),
                  .out = ref_zero(s),
                  .i_cnt = x_shape.dim[4],
                  .o_cnt = y_shape.dim[4],
                  .k_cnt = kernel[0] * kernel[1] * kernel[2]};
}

static Err weight_prepare(Backend *be, Step *s) {
    s->work_bytes = sizeof(double) * (size_t)shape_count(s->node->in[1]->shape);
    return ERR_OK;
}

static void widen_weight(Conv *c, const Step *s) {
    double *w = s->work;
    for (int64_t k = 0; k < c->k_cnt; k++)
        for (int64_t i = 0; i < c->i_cnt; i++)
            for (int64_t o = 0; o < c->o_cnt; o++)
                *w++ = ref_get(&c->b, (o * c->i_cnt + i) * c->k_cnt + k);
    c->w = s->work;
}

static void forward(const Conv *c, Tap tap) {
    const double *restrict w = c->w + tap.k * c->i_cnt * c->o_cnt;
    double *restrict y = c->out + tap.y * c->o_cnt;
    for (int64_t i = 0; i < c->i_cnt; i++, w += c->o_cnt) {
        double x = ref_get(&c->a, tap.x * c->i_cnt + i);
        for (int64_t o = 0; o < c->o_cnt; o++) y[o] += x * w[o];
    }
}

REF_OP_WORK(conv, weight_prepare) {
    Shape x = s->node->in[0]->shape, y = s->node->shape;
    RefIn bias = ref_in(s, 2), residual = ref_in(s, 3);
    Conv c = conv_of(s, x, y);
    widen_weight(&c, s);
    each_tap(s, &c, x, y, forward);
    int64_t per_n = shape_span(y, 1, 4) * c.o_cnt;
    for (int64_t p = 0; p < ref_count(s); p++) {
        int64_t o = p % c.o_cnt, n = p / per_n;
        if (bias.t) c.out[p] += ref_get(&bias, bias.t->shape.rank == 2 ? n * c.o_cnt + o : o);
        if (residual.t) c.out[p] += ref_get(&residual, p);
    }
}

static void to_input(const Conv *c, Tap tap) {
    for (int64_t o = 0; o < c->o_cnt; o++)
        for (int64_t i = 0; i < c->i_cnt; i++)
            c->out[tap.x * c->i_cnt + i] +=
                ref_get(&c->a, tap.y * c->o_cnt + o) * c->w[(tap.k * c->i_cnt + i) * c->o_cnt + o];
}

REF_OP_WORK(conv_dx, weight_prepare) {
    Shape x = s->node->shape, y = s->node->in[0]->shape;
    Conv c = conv_of(s, x, y);
    widen_weight(&c, s);
    each_tap(s, &c, x, y, to_input);
}

static void to_weight(const Conv *c, Tap tap) {
    for (int64_t o = 0; o < c->o_cnt; o++)
        for (int64_t i = 0; i < c->i_cnt; i++)
            c->out[(o * c->i_cnt + i) * c->k_cnt + tap.k] +=
                ref_get(&c->a, tap.y * c->o_cnt + o) * ref_get(&c->b, tap.x * c->i_cnt + i);
}

REF_OP(conv_dw) {
    Shape x = s->node->in[1]->shape, y = s->node->in[0]->shape;
    Conv c = conv_of(s, x, y);
    each_tap(s, &c, x, y, to_weight);
}
