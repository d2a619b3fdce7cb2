// attention: cuts sdpa and its vjp into heads of sequences, and long lone sequences into ranges of queries.
//
// A sequence is one line of tokens along the axis, at that axis's stride: spatial and temporal attention differ in
// two numbers. Heads that share a sequence are neighbours in memory and in the order of work.
#include <string.h>

#include "common/tensor/cpu/cut.h"

enum {
    CHUNK_FLOPS = 1 << 19, // short sequences are taken several at a time
    CHUNKS_WANTED = 8,     // below this many, queries are cut too,
    QUERIES_MIN = 256,     // but not into shorter pieces
};

// Where a tensor (B, T, S, A*d) keeps its tokens.
typedef struct Lines {
    int64_t token, outer, inner; // strides of a token and of the two axes that count sequences
} Lines;

static Lines lines_of(const Tensor *t, int axis) {
    int64_t row;
    die_unless(tensor_has_rows(t, &row), "%s: not rows of one stride", t->name);
    int64_t s = row, frame = row * t->shape.dim[2], batch = frame * t->shape.dim[1];
    return axis == 2 ? (Lines){s, batch, frame} : (Lines){frame, batch, s};
}

typedef struct SdpaJob {
    const Step *step;
    const SimdTable *simd;
    bool back;
    SdpaHead shape;
    Lines q, k, v, y, flat_q, flat_k; // flat: of contiguous results in q's and k's shape
    int64_t heads, inner;             // heads; sequences per batch entry
    int64_t items, per_chunk,
        pieces;      // heads of sequences; how many a chunk takes; parts of the queries
    int64_t scratch; // floats per worker
    float *partial;  // (items, pieces, 2, lk, d) when pieces > 1
    float *dq, *dk, *dv;
} SdpaJob;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Fills all but the pointers.
static SdpaJob sdpa_job(Backend *be, const Step *step) {
    const Tensor *t = step->node;
    bool back = t->op == OP_sdpa_back;
    const Tensor *q = t->in[back], *k = t->in[1 + back], *v = t->in[2 + back];
    int axis = t->attr.sdpa.axis;
    SdpaJob job = {
        .step = step, .simd = cpu_device(be)->simd, .back = back, .heads = t->attr.sdpa.heads};
    job.shape = (SdpaHead){.lq = q->shape.dim[axis],
                           .lk = k->shape.dim[axis],
                           .d = q->shape.dim[3] / job.heads,
                           .scale = (float)t->attr.sdpa.scale,
                           .causal = t->attr.sdpa.causal};
    job.q = lines_of(q, axis), job.k = lines_of(k, axis), job.v = lines_of(v, axis);
    job.inner = q->shape.dim[3 - axis];
    job.items = q->shape.dim[0] * job.inner * job.heads;
    job.scratch = (job.simd->sdpa_scratch(&job.shape, back) + 63) / 64 * 64 +
                  64; // workers' lines never touch
    double flops =
        (back ? 10.0 : 4.0) * (double)job.shape.lq * (double)job.shape.lk * (double)job.shape.d;
    job.per_chunk = flops < CHUNK_FLOPS ? (int64_t)(CHUNK_FLOPS / flops) : 1;
    job.pieces = 1;
    if (job.items < CHUNKS_WANTED) job.pieces = ceil_div(CHUNKS_WANTED, job.items);
    if (job.pieces > job.shape.lq / QUERIES_MIN) job.pieces = job.shape.lq / QUERIES_MIN;
    if (job.pieces < 1) job.pieces = 1;
    return job;
}

static SdpaRows rows_at(const void *base, const Lines *l, const SdpaJob *job, int64_t item) {
    int64_t head = item % job->heads, line = item / job->heads;
    int64_t at = line / job->inner * l->outer + line % job->inner * l->inner + head * job->shape.d;
    return (SdpaRows){(float *)base + at, l->token};
}

static void sdpa_item(const SdpaJob *job, int64_t item, int64_t piece, int worker) {
    SdpaHead h = job->shape;
    const void *const *src = job->step->src + job->back;
    h.q = rows_at(src[0], &job->q, job, item);
    h.k = rows_at(src[1], &job->k, job, item);
    h.v = rows_at(src[2], &job->v, job, item);
    h.q0 = h.lq * piece / job->pieces;
    h.q1 = h.lq * (piece + 1) / job->pieces;
    h.scratch = (float *)job->step->work + worker * job->scratch;
    if (!job->back) {
        h.y = rows_at(job->step->dst, &job->y, job, item);
        job->simd->sdpa(&h);
        return;
    }
    h.y = rows_at(job->step->src[0], &job->y, job, item);
    h.dq = rows_at(job->dq, &job->flat_q, job, item);
    h.dk = rows_at(job->dk, &job->flat_k, job, item);
    h.dv = rows_at(job->dv, &job->flat_k, job, item);
    if (job->pieces > 1) {
        int64_t cnt = h.lk * h.d;
        h.dk = (SdpaRows){job->partial + (item * job->pieces + piece) * 2 * cnt, h.d};
        h.dv = (SdpaRows){h.dk.p + cnt, h.d};
    }
    job->simd->sdpa_back(&h);
}

static void sdpa_chunk(void *ctx, int64_t chunk, int worker) {
    const SdpaJob *job = ctx;
    int64_t item = chunk / job->pieces * job->per_chunk, end = item + job->per_chunk;
    for (; item < end && item < job->items; item++)
        sdpa_item(job, item, chunk % job->pieces, worker);
}

static Err sdpa_prepare(Backend *be, Step *step) {
    SdpaJob job = sdpa_job(be, step);
    int64_t floats = job.scratch * pool_threads(cpu_device(be)->pool);
    if (job.back && job.pieces > 1)
        floats += job.items * job.pieces * 2 * job.shape.lk * job.shape.d;
    step->work_bytes = (size_t)floats * sizeof(float);
    strcpy(step->note, job.simd->sdpa_is_short(&job.shape) ? "short" : "row blocks");
    return ERR_OK;
}

// A contiguous tensor of t's shape.
static Lines lines_flat(const Tensor *t, int axis) {
    Tensor flat = *t;
    int64_t stride = 1;
    for (int i = 3; i >= 0; stride *= t->shape.dim[i--]) flat.stride[i] = stride;
    return lines_of(&flat, axis);
}

static void run_chunks(CpuDevice *dev, SdpaJob *job) {
    pool_run(dev->pool, ceil_div(job->items, job->per_chunk) * job->pieces, sdpa_chunk, job);
}

static void sdpa_run(Backend *be, Step *step) {
    SdpaJob job = sdpa_job(be, step);
    job.y = lines_of(step->node, step->node->attr.sdpa.axis);
    run_chunks(cpu_device(be), &job);
}
const Kernel cpu_kernel_sdpa = {.prepare = sdpa_prepare, .run = sdpa_run};

// Adds the pieces of one item in order.
static void join_chunk(void *ctx, int64_t item, int worker) {
    const SdpaJob *job = ctx;
    int64_t d = job->shape.d, cnt = job->shape.lk * d;
    float *first = job->partial + item * job->pieces * 2 * cnt;
    for (int64_t p = 1; p < job->pieces; p++)
        job->simd->axpy(first, first + p * 2 * cnt, 1, 2 * cnt);
    SdpaRows dk = rows_at(job->dk, &job->flat_k, job, item),
             dv = rows_at(job->dv, &job->flat_k, job, item);
    for (int64_t j = 0; j < job->shape.lk; j++) {
        memcpy(dk.p + j * dk.stride, first + j * d, (size_t)d * sizeof *first);
        memcpy(dv.p + j * dv.stride, first + cnt + j * d, (size_t)d * sizeof *first);
    }
}

static void sdpa_back_run(Backend *be, Step *step) {
    CpuDevice *dev = cpu_device(be);
    const Tensor *t = step->node;
    SdpaJob job = sdpa_job(be, step);
    int axis = t->attr.sdpa.axis;
    job.y = lines_of(t->in[0], axis);
    job.flat_q = lines_flat(t->in[1], axis);
    job.flat_k = lines_flat(t->in[2], axis);
    job.dq = step->dst;
    job.dk = job.dq + shape_count(t->in[1]->shape);
    job.dv = job.dk + shape_count(t->in[2]->shape);
    job.partial = (float *)step->work + job.scratch * pool_threads(dev->pool);
    run_chunks(dev, &job);
    if (job.pieces > 1) pool_run(dev->pool, job.items, join_chunk, &job);
}
const Kernel cpu_kernel_sdpa_back = {.prepare = sdpa_prepare, .run = sdpa_back_run};
