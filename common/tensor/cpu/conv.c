// conv: chooses a convolution algorithm by shape and options, packs its weight and runs it.
#include "common/tensor/cpu/conv.h"

#include <stdio.h>

#include "common/tensor/cpu/dense.h"
#include "common/tensor/cpu/winograd.h"

enum {
    WINOGRAD_CHANNELS_MIN = 16,
    WINOGRAD_WEIGHT_MAX = 16 << 20, // floats: 640 -> 640 channels (59 MB); above, direct
};

// ---- dense and winograd, in terms of Conv ------------------------------------------------------

static int64_t volume(const int64_t d[3]) { return d[0] * d[1] * d[2]; }

static int64_t dense_weight_count(const CpuDevice *dev, const Conv *c) {
    return dense_packed_count(dev, c->c, c->o);
}
static int64_t dense_work_count(const CpuDevice *dev, const Conv *c) { return 0; }
static void dense_weight_pack(CpuDevice *dev, float *dst, const Conv *c, const void *w,
                              DType dtype) {
    dense_pack(dev, dst, w, dtype, c->trans ? c->o : 1, c->trans ? 1 : c->c, c->c, c->o, 1, 0);
}
static void dense_conv_run(CpuDevice *dev, const Conv *c) {
    int64_t batch = c->bias_each ? c->n : 1, m = c->n * volume(c->out) / batch;
    dense_run(dev, &(Dense){.batch = batch,
                            .m = m,
                            .n = c->o,
                            .k = c->c,
                            .y = c->y,
                            .y_row = c->o,
                            .y_batch = m * c->o,
                            .a = c->x,
                            .a_row = c->c,
                            .a_col = 1,
                            .a_batch = m * c->c,
                            .panels = c->weight,
                            .bias = c->bias,
                            .bias_batch = c->o,
                            .residual = c->residual,
                            .residual_row = c->o,
                            .residual_batch = m * c->o});
}
static const ConvAlgorithm conv_dense = {
    "dense",          "conv1.n",         "conv1.t",     dense_weight_count,
    dense_work_count, dense_weight_pack, dense_conv_run};

static Winograd winograd_job(const Conv *c) {
    return (Winograd){.images = c->n * c->in[0],
                      .h = c->in[1],
                      .w = c->in[2],
                      .c = c->c,
                      .o = c->o,
                      .y = c->y,
                      .x = c->x,
                      .weight = c->weight,
                      .bias = c->bias,
                      .residual = c->residual,
                      .work = c->work,
                      .bias_images = c->bias_each ? c->in[0] : c->n * c->in[0]};
}
static int64_t winograd_conv_weight_count(const CpuDevice *dev, const Conv *c) {
    return winograd_weight_count(dev, c->c, c->o);
}
static int64_t winograd_conv_work_count(const CpuDevice *dev, const Conv *c) {
    Winograd job = winograd_job(c);
    return winograd_work_count(dev, &job);
}
static void winograd_conv_pack(CpuDevice *dev, float *dst, const Conv *c, const void *w,
                               DType dtype) {
    winograd_pack(dev, dst, w, dtype, c->trans ? c->c : c->o, c->trans ? c->o : c->c, c->trans);
}
static void winograd_conv_run(CpuDevice *dev, const Conv *c) {
    Winograd job = winograd_job(c);
    winograd_run(dev, &job);
}
static const ConvAlgorithm conv_winograd = {
    "winograd F(4x4,3x3)",    "winograd.n",       "winograd.t",     winograd_conv_weight_count,
    winograd_conv_work_count, winograd_conv_pack, winograd_conv_run};

// ---- Choice ------------------------------------------------------------------------------------

static bool is_kernel(const Conv *c, int t, int h, int w) {
    return c->kernel[0] == t && c->kernel[1] == h && c->kernel[2] == w;
}
// Stride 1, and the output as large as the input with the kernel's centre on it.
static bool is_same(const Conv *c) {
    for (int i = 0; i < 3; i++)
        if (c->stride[i] != 1 || c->lo[i] != c->kernel[i] / 2 || c->in[i] != c->out[i])
            return false;
    return true;
}

static const ConvAlgorithm *choose(Backend *be, const Conv *c, bool packed) {
    if (is_kernel(c, 1, 1, 1) && is_same(c)) return &conv_dense;
    if (!be->opt.exact && packed && is_same(c)) {
        bool wide = c->c >= WINOGRAD_CHANNELS_MIN && c->o >= WINOGRAD_CHANNELS_MIN;
        if (is_kernel(c, 1, 3, 3) && wide &&
            winograd_weight_count(cpu_device(be), c->c, c->o) <= WINOGRAD_WEIGHT_MAX)
            return &conv_winograd;
        if (is_kernel(c, 3, 1, 1) && wide && c->in[0] > 1) return &conv_temporal;
    }
    return c->trans && volume(c->stride) > 1 ? &conv_direct_strided : &conv_direct;
}

// The node's shapes; for conv and conv_dx the result's, for conv_dw those of the forward
// convolution.
static Conv conv_of(const Tensor *t) {
    bool trans = t->op == OP_conv_dx;
    const Tensor *x = t->op == OP_conv_dw ? t->in[1] : t->in[0],
                 *y = t->op == OP_conv_dw ? t->in[0] : t;
    Conv c = {.n = x->shape.dim[0], .c = x->shape.dim[4], .o = y->shape.dim[4], .trans = trans};
    for (int i = 0; i < 3; i++) {
        c.in[i] = x->shape.dim[1 + i], c.out[i] = y->shape.dim[1 + i],
        c.kernel[i] = t->attr.conv.kernel[i];
        c.stride[i] = t->attr.conv.stride[i], c.lo[i] = t->attr.conv.lo[i];
    }
    return c;
}

typedef struct ConvState {
    Conv conv;
    const ConvAlgorithm *algorithm;
} ConvState;

// The shape facts that a packing needs; the layout's name says the rest.
static void fill(Backend *be, const Tensor *w, void *dst, const ConvAlgorithm *algorithm,
                 bool trans) {
    const int64_t *d = w->shape.dim;
    Conv c = {
        .c = d[trans ? 0 : 1], .o = d[trans ? 1 : 0], .kernel = {d[2], d[3], d[4]}, .trans = trans};
    algorithm->pack(cpu_device(be), dst, &c, w->data, w->dtype);
}
#define FILL(algorithm)                                                         \
    static void fill_##algorithm##_n(Backend *be, const Tensor *w, void *dst) { \
        fill(be, w, dst, &algorithm, false);                                    \
    }                                                                           \
    static void fill_##algorithm##_t(Backend *be, const Tensor *w, void *dst) { \
        fill(be, w, dst, &algorithm, true);                                     \
    }
FILL(conv_dense)
FILL(conv_winograd)
FILL(conv_temporal)
FILL(conv_direct)
FILL(conv_direct_strided)
static const struct {
    const ConvAlgorithm *algorithm;
    void (*fill[2])(Backend *be, const Tensor *w, void *dst);
} fills[] = {{&conv_dense, {fill_conv_dense_n, fill_conv_dense_t}},
             {&conv_winograd, {fill_conv_winograd_n, fill_conv_winograd_t}},
             {&conv_temporal, {fill_conv_temporal_n, fill_conv_temporal_t}},
             {&conv_direct, {fill_conv_direct_n, fill_conv_direct_t}},
             {&conv_direct_strided, {fill_conv_direct_strided_n, fill_conv_direct_strided_t}}};

// Work of the algorithm, then (unless packed once) the packed weight.
static Err conv_prepare(Backend *be, Step *step) {
    CpuDevice *dev = cpu_device(be);
    ConvState *s = step->state = arena_new(step->arena, ConvState);
    const Tensor *w = be->opt.pack_weights ? cpu_constant(step, step->node->in[1]) : NULL;
    s->conv = conv_of(step->node);
    s->algorithm = choose(be, &s->conv, w != NULL);
    size_t weight_bytes = (size_t)s->algorithm->weight_count(dev, &s->conv) * sizeof(float);
    step->work_bytes =
        (size_t)((s->algorithm->work_count(dev, &s->conv) + 15) / 16 * 16) * sizeof(float);
    if (!w) step->work_bytes += weight_bytes;
    for (size_t i = 0; w && i < sizeof fills / sizeof *fills; i++)
        if (fills[i].algorithm == s->algorithm)
            step->packed = backend_pack(
                be, w, s->conv.trans ? s->algorithm->layout_trans : s->algorithm->layout,
                weight_bytes, fills[i].fill[s->conv.trans]);
    snprintf(step->note, sizeof step->note, "%s", s->algorithm->name);
    return ERR_OK;
}

static void conv_run(Backend *be, Step *step) {
    CpuDevice *dev = cpu_device(be);
    const Tensor *t = step->node;
    const ConvState *s = step->state;
    Conv c = s->conv;
    c.x = step->src[0], c.y = step->dst, c.work = step->work;
    if (t->op == OP_conv) {
        c.bias = step->src[2], c.residual = step->src[3];
        c.bias_each = c.bias && t->in[2]->shape.rank == 2;
    }
    float *packed = step->packed ? step->packed->data
                                 : c.work + (s->algorithm->work_count(dev, &c) + 15) / 16 * 16;
    if (!step->packed) s->algorithm->pack(dev, packed, &c, step->src[1], t->in[1]->dtype);
    c.weight = packed;
    s->algorithm->run(dev, &c);
}
const Kernel cpu_kernel_conv = {.prepare = conv_prepare, .run = conv_run};
const Kernel cpu_kernel_conv_dx = {.prepare = conv_prepare, .run = conv_run};

static Err conv_dw_prepare(Backend *be, Step *step) {
    Conv c = conv_of(step->node);
    step->work_bytes = (size_t)conv_direct_dw_work_count(cpu_device(be), &c) * sizeof(float);
    snprintf(step->note, sizeof step->note, "direct");
    return ERR_OK;
}

static void dw_run(Backend *be, Step *step) {
    Conv c = conv_of(step->node);
    c.x = step->src[1], c.work = step->work;
    conv_direct_dw_run(cpu_device(be), &c, step->dst, step->src[0]);
}
const Kernel cpu_kernel_conv_dw = {.prepare = conv_dw_prepare, .run = dw_run};
