// Convolution over (T, H, W) of a channels-last video.
#include <string.h>

#include "common/tensor/ops/rules.h"

static OpAttr conv_attr(ConvSpec s) {
    OpAttr attr = {0};
    for (int i = 0; i < 3; i++) {
        attr.conv.stride[i] = s.stride[i] ? s.stride[i] : 1;
        attr.conv.lo[i] = s.lo[i];
        attr.conv.hi[i] = s.hi[i];
    }
    return attr;
}

static ConvSpec conv_spec(const Tensor *t) {
    ConvSpec s;
    memcpy(s.stride, t->attr.conv.stride, sizeof s.stride);
    memcpy(s.lo, t->attr.conv.lo, sizeof s.lo);
    memcpy(s.hi, t->attr.conv.hi, sizeof s.hi);
    return s;
}

// Output size along axis i for an input and kernel of these sizes; 0 if nothing fits.
static int64_t out_size(const Tensor *t, int i, int64_t in, int64_t kernel) {
    int64_t span = in + t->attr.conv.lo[i] + t->attr.conv.hi[i] - kernel;
    return span < 0 ? 0 : span / t->attr.conv.stride[i] + 1;
}

Tensor *op_conv(Graph *g, Tensor *x, Tensor *w, Tensor *bias, Tensor *residual, ConvSpec spec) {
    return NODE(g, OP_conv, conv_attr(spec), x, w, bias, residual);
}

Err op_shape_conv(Tensor *t) {
    const Tensor *x = t->in[0], *w = t->in[1], *bias = t->in[2], *residual = t->in[3];
    WANT(x->shape.rank == 5 && w->shape.rank == 5,
         "want x (N, T, H, W, I) and w (O, I, kt, kh, kw)");
    WANT(last_dim(x) == w->shape.dim[1], "x has %lld channels, the weight takes %lld",
         (long long)last_dim(x), (long long)w->shape.dim[1]);
    int64_t n = x->shape.dim[0], o = w->shape.dim[0];
    t->shape = SHAPE(n, 0, 0, 0, o);
    for (int i = 0; i < 3; i++) {
        t->shape.dim[1 + i] = out_size(t, i, x->shape.dim[1 + i], w->shape.dim[2 + i]);
        WANT(t->shape.dim[1 + i] > 0, "the kernel is larger than the padded input");
        t->attr.conv.in[i] = x->shape.dim[1 + i];
        t->attr.conv.kernel[i] = w->shape.dim[2 + i];
    }
    if (bias) {
        bool one = bias->shape.rank == 1 && bias->shape.dim[0] == o;
        bool each = bias->shape.rank == 2 && bias->shape.dim[0] == n && bias->shape.dim[1] == o;
        WANT(one || each, "the bias must be (%lld) or (%lld, %lld)", (long long)o, (long long)n,
             (long long)o);
    }
    WANT(!residual || shape_equal(residual->shape, t->shape),
         "the residual must have the shape of the result");
    return ERR_OK;
}

void op_grad_conv(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    Tensor *x = t->in[0], *w = t->in[1], *bias = t->in[2];
    if (want[0]) dx[0] = op_conv_dx(g, dy, w, conv_spec(t), x->shape.dim + 1);
    if (want[1]) dx[1] = op_conv_dw(g, dy, x, conv_spec(t), w->shape.dim + 2);
    if (want[2])
        dx[2] = op_reshape(g, op_sum(g, dy, bias->shape.rank == 1 ? 0xF : 0xE), bias->shape);
    if (want[3]) dx[3] = dy;
}

Tensor *op_conv_dx(Graph *g, Tensor *dy, Tensor *w, ConvSpec spec, const int64_t in[3]) {
    OpAttr attr = conv_attr(spec);
    memcpy(attr.conv.in, in, sizeof attr.conv.in);
    return NODE(g, OP_conv_dx, attr, dy, w);
}

Err op_shape_conv_dx(Tensor *t) {
    const Tensor *dy = t->in[0], *w = t->in[1];
    WANT(dy->shape.rank == 5 && w->shape.rank == 5 && last_dim(dy) == w->shape.dim[0],
         "want dy (N, T, H, W, O) and w (O, I, kt, kh, kw)");
    const int64_t *in = t->attr.conv.in;
    for (int i = 0; i < 3; i++) {
        t->attr.conv.kernel[i] = w->shape.dim[2 + i];
        WANT(out_size(t, i, in[i], w->shape.dim[2 + i]) == dy->shape.dim[1 + i],
             "dy is not the result of x on axis %d", 1 + i);
    }
    t->shape = SHAPE(dy->shape.dim[0], in[0], in[1], in[2], w->shape.dim[1]);
    return ERR_OK;
}

void op_grad_conv_dx(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    if (want[0]) dx[0] = op_conv(g, dy, t->in[1], NULL, NULL, conv_spec(t));
    if (want[1]) dx[1] = op_conv_dw(g, t->in[0], dy, conv_spec(t), t->in[1]->shape.dim + 2);
}

Tensor *op_conv_dw(Graph *g, Tensor *dy, Tensor *x, ConvSpec spec, const int64_t kernel[3]) {
    OpAttr attr = conv_attr(spec);
    memcpy(attr.conv.kernel, kernel, sizeof attr.conv.kernel);
    return NODE(g, OP_conv_dw, attr, dy, x);
}

Err op_shape_conv_dw(Tensor *t) {
    const Tensor *dy = t->in[0], *x = t->in[1];
    WANT(dy->shape.rank == 5 && x->shape.rank == 5 && dy->shape.dim[0] == x->shape.dim[0],
         "want dy (N, T, H, W, O) and x (N, T, H, W, I)");
    const int64_t *k = t->attr.conv.kernel;
    for (int i = 0; i < 3; i++) {
        t->attr.conv.in[i] = x->shape.dim[1 + i];
        WANT(out_size(t, i, x->shape.dim[1 + i], k[i]) == dy->shape.dim[1 + i],
             "dy is not the result of x on axis %d", 1 + i);
    }
    t->shape = SHAPE(last_dim(dy), last_dim(x), k[0], k[1], k[2]);
    return ERR_OK;
}

void op_grad_conv_dw(Graph *g, Tensor *t, Tensor *dy, const bool *want, Tensor **dx) {
    if (want[0]) dx[0] = op_conv(g, t->in[1], dy, NULL, NULL, conv_spec(t));
    if (want[1]) dx[1] = op_conv_dx(g, t->in[0], dy, conv_spec(t), t->in[1]->shape.dim + 1);
}
