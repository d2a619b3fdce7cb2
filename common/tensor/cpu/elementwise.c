// elementwise: one pass over the elements; broadcasting binary operators reduce to rows with a step of 0 or 1.
#include <math.h>
#include <string.h>

#include "common/base/rng.h"
#include "common/tensor/cpu/cut.h"

#define JOB                                                                  \
    const CutJob *job = ctx;                                                 \
    const OpAttr *attr = &job->step->node->attr;                             \
    int64_t at = cut_first(&job->cut, chunk), n = cut_len(&job->cut, chunk); \
    float *y = (float *)job->step->dst + at;                                 \
    (void)attr
#define SRC(i) ((const float *)job->step->src[i] + at)

// A kernel whose chunks are ranges of elements.
#define ELEMENT_KERNEL(name, call)                                                                \
    static void name##_chunk(void *ctx, int64_t chunk, int worker) {                              \
        JOB;                                                                                      \
        job->simd->call;                                                                          \
    }                                                                                             \
    static void name##_run(Backend *be, Step *step) { cut_run_elements(be, step, name##_chunk); } \
    const Kernel cpu_kernel_##name = {.run = name##_run};

ELEMENT_KERNEL(unary, unary(attr->unary.kind, y, SRC(0), n))
ELEMENT_KERNEL(unary_dx, unary_dx(attr->unary.kind, y, SRC(0), SRC(1), n))
ELEMENT_KERNEL(affine, affine(y, SRC(0), (float)attr->affine.a, (float)attr->affine.b, n))
ELEMENT_KERNEL(clamp, clamp(y, SRC(0), (float)attr->affine.a, (float)attr->affine.b, n))
ELEMENT_KERNEL(clamp_dx,
               clamp_dx(y, SRC(0), SRC(1), (float)attr->affine.a, (float)attr->affine.b, n))
ELEMENT_KERNEL(lerp, lerp(y, SRC(0), SRC(1), *(const float *)job->step->src[2], n))

// ---- Binary operators --------------------------------------------------------------------------

// The result as (outer..., rows, n); dims that both inputs walk without a break are merged.
typedef struct Broadcast {
    char op;
    int rank; // of outer, at most 4
    int64_t outer[TENSOR_DIMS_MAX], a_outer[TENSOR_DIMS_MAX], b_outer[TENSOR_DIMS_MAX];
    int64_t rows, a_row, b_row;
    int64_t n, a_step, b_step;
} Broadcast;

// Stride of `in` along axis i of the result; 0 where it is repeated.
static int64_t broadcast_stride(const Tensor *t, const Tensor *in, int i) {
    int axis = i - (t->shape.rank - in->shape.rank);
    return axis < 0 || in->shape.dim[axis] == 1 ? 0
                                                : shape_span(in->shape, axis + 1, in->shape.rank);
}

static Broadcast broadcast_of(const Tensor *t) {
    Broadcast b = {0};
    int64_t dim[TENSOR_DIMS_MAX], sa[TENSOR_DIMS_MAX], sb[TENSOR_DIMS_MAX];
    int rank = 0; // innermost first here
    for (int i = t->shape.rank - 1; i >= 0; i--) {
        int64_t d = t->shape.dim[i], x = broadcast_stride(t, t->in[0], i),
                y = broadcast_stride(t, t->in[1], i);
        if (d == 1) continue;
        int k = rank - 1;
        if (rank && x == sa[k] * dim[k] && y == sb[k] * dim[k]) {
            dim[k] *= d;
            continue;
        }
        dim[rank] = d, sa[rank] = x, sb[rank++] = y;
    }
    b.n = b.rows = 1;
    if (rank > 0) b.n = dim[0], b.a_step = sa[0], b.b_step = sb[0];
    if (rank > 1) b.rows = dim[1], b.a_row = sa[1], b.b_row = sb[1];
    for (int i = 2; i < rank; i++, b.rank++)
        b.outer[b.rank] = dim[i], b.a_outer[b.rank] = sa[i], b.b_outer[b.rank] = sb[i];
    return b;
}

typedef struct BinaryJob {
    const Step *step;
    const SimdTable *simd;
    Broadcast b;
    Cut rows, cols;
} BinaryJob;

static void binary_chunk(void *ctx, int64_t chunk, int worker) {
    const BinaryJob *job = ctx;
    const Broadcast *b = &job->b;
    int64_t col = cut_first(&job->cols, chunk % job->cols.cnt),
            cols = cut_len(&job->cols, chunk % job->cols.cnt);
    int64_t row = cut_first(&job->rows, chunk / job->cols.cnt),
            left = cut_len(&job->rows, chunk / job->cols.cnt);
    for (int64_t len; left; row += len, left -= len) {
        int64_t inner = row % b->rows, rest = row / b->rows;
        int64_t a = inner * b->a_row + col * b->a_step, c = inner * b->b_row + col * b->b_step;
        len = left < b->rows - inner ? left : b->rows - inner;
        for (int i = 0; i < b->rank; rest /= b->outer[i++]) {
            a += rest % b->outer[i] * b->a_outer[i];
            c += rest % b->outer[i] * b->b_outer[i];
        }
        job->simd->binary(b->op, (float *)job->step->dst + row * b->n + col,
                          (const float *)job->step->src[0] + a, b->a_row, b->a_step,
                          (const float *)job->step->src[1] + c, b->b_row, b->b_step, len, cols);
    }
}

static void binary_run(Backend *be, Step *step, char op) {
    CpuDevice *dev = cpu_device(be);
    BinaryJob job = {.step = step, .simd = dev->simd, .b = broadcast_of(step->node)};
    int64_t rows = shape_count(step->node->shape) / job.b.n;
    job.b.op = op;
    job.rows = cut(rows, job.b.n, 1);
    job.cols = cut(job.b.n, 1,
                   64); // rows are cut where one of them makes a chunk; a chunk is then one row
    if (job.rows.step > 1) job.cols = (Cut){job.b.n, job.b.n, 1};
    pool_run(dev->pool, job.rows.cnt * job.cols.cnt, binary_chunk, &job);
}

#define BINARY_KERNEL(name, op)                                                   \
    static void name##_run(Backend *be, Step *step) { binary_run(be, step, op); } \
    const Kernel cpu_kernel_##name = {.run = name##_run};
BINARY_KERNEL(add, '+')
BINARY_KERNEL(sub, '-')
BINARY_KERNEL(mul, '*')
BINARY_KERNEL(div, '/')

// ---- Gated and random --------------------------------------------------------------------------

static void geglu_chunk(void *ctx, int64_t chunk, int worker) {
    const CutJob *job = ctx;
    int64_t row = cut_first(&job->cut, chunk), d = job->width / 2;
    job->simd->geglu((float *)job->step->dst + row * d,
                     (const float *)job->step->src[0] + row * 2 * d, cut_len(&job->cut, chunk), d);
}
static void geglu_run(Backend *be, Step *step) {
    cut_run_rows(be, step, step->node->in[0], geglu_chunk);
}
const Kernel cpu_kernel_geglu = {.run = geglu_run};

static void geglu_dx_chunk(void *ctx, int64_t chunk, int worker) {
    const CutJob *job = ctx;
    int64_t row = cut_first(&job->cut, chunk), d = job->width / 2;
    job->simd->geglu_dx(
        (float *)job->step->dst + row * 2 * d, (const float *)job->step->src[0] + row * d,
        (const float *)job->step->src[1] + row * 2 * d, cut_len(&job->cut, chunk), d);
}
static void geglu_dx_run(Backend *be, Step *step) {
    cut_run_rows(be, step, step->node, geglu_dx_chunk);
}
const Kernel cpu_kernel_geglu_dx = {.run = geglu_dx_run};

static void dropout_chunk(void *ctx, int64_t chunk, int worker) {
    JOB;
    RngStream rng = rng_stream(rng_key_from_words(job->step->src[1]));
    const float *x = SRC(0);
    double p = attr->dropout.p;
    float scale = (float)(1 / (1 - p));
    for (int64_t i = 0; i < n;) {
        uint64_t e = rng.element + (uint64_t)(at + i);
        RngBlock b = rng_block(&rng, e / 4);
        for (uint64_t k = e % 4; k < 4 && i < n; k++, i++)
            y[i] = (double)rng_uniform_from_bits(b.x[k]) >= p ? x[i] * scale : 0;
    }
}
static void dropout_run(Backend *be, Step *step) { cut_run_elements(be, step, dropout_chunk); }
const Kernel cpu_kernel_dropout = {.run = dropout_run};

// ---- Sinusoid: few elements, in double ---------------------------------------------------------

static double frequency(int64_t j, int64_t half) { return pow(10000, -(double)j / (double)half); }

static void sinusoid_run(Backend *be, Step *step) {
    int64_t dim = step->node->attr.sinusoid.dim, half = dim / 2, n = step->node->shape.dim[0];
    const float *t = step->src[0];
    float *y = step->dst;
    for (int64_t j = 0; j < half; j++) {
        double w = frequency(j, half);
        for (int64_t i = 0; i < n; i++) {
            y[i * dim + j] = (float)cos((double)t[i] * w);
            y[i * dim + half + j] = (float)sin((double)t[i] * w);
        }
    }
}
const Kernel cpu_kernel_sinusoid = {.run = sinusoid_run};

static void sinusoid_dx_run(Backend *be, Step *step) {
    const float *dy = step->src[0], *t = step->src[1];
    float *dx = step->dst;
    int64_t dim = cut_last_dim(step->node->in[0]), half = dim / 2, n = step->node->shape.dim[0];
    for (int64_t i = 0; i < n; i++, dy += dim) {
        double sum = 0;
        for (int64_t j = 0; j < half; j++) {
            double w = frequency(j, half), angle = (double)t[i] * w;
            sum += w * ((double)dy[half + j] * cos(angle) - (double)dy[j] * sin(angle));
        }
        dx[i] = (float)sum;
    }
}
const Kernel cpu_kernel_sinusoid_dx = {.run = sinusoid_dx_run};
