// resample: nearest doubling, and separable filters as a pass over rows and a pass over columns.
#include <string.h>

#include "common/tensor/cpu/cut.h"

typedef struct ResampleJob {
    const Step *step;
    const SimdTable *simd;
    int64_t frames, c;
    int64_t h, w;   // of the full side: x of resize, the small side of doubling
    int64_t oh, ow; // of the filtered side
    int64_t kh, kw; // taps
    const int32_t *h_start, *w_start;
    const float *h_tap, *w_tap;
    Cut rows; // of a frame of the result
} ResampleJob;

static ResampleJob resample_job(Backend *be, const Step *step) {
    const Tensor *t = step->node, *x = t->in[0];
    const int64_t *y = t->shape.dim;
    ResampleJob job = {
        .step = step, .simd = cpu_device(be)->simd, .frames = y[0] * y[1], .c = y[4]};
    bool down = t->op == OP_resize_dx || t->op == OP_upsample2x_dx;
    const int64_t *full = down ? y : x->shape.dim, *out = down ? x->shape.dim : y;
    job.h = full[2], job.w = full[3], job.oh = out[2], job.ow = out[3];
    job.rows = cut(y[2], y[3] * y[4], 1);
    if (t->in_cnt == 5) {
        job.h_start = step->src[1], job.h_tap = step->src[2], job.w_start = step->src[3],
        job.w_tap = step->src[4];
        job.kh = t->in[2]->shape.dim[1], job.kw = t->in[4]->shape.dim[1];
    }
    return job;
}

static void run_rows(Backend *be, Step *step, PoolFn *fn, int64_t rows_min) {
    ResampleJob job = resample_job(be, step);
    if (job.rows.step < rows_min) job.rows.step = rows_min;
    job.rows.cnt = (job.rows.n + job.rows.step - 1) / job.rows.step;
    pool_run(cpu_device(be)->pool, job.frames * job.rows.cnt, fn, &job);
}

static void upsample2x_chunk(void *ctx, int64_t chunk, int worker) {
    const ResampleJob *job = ctx;
    int64_t frame = chunk / job->rows.cnt, row = cut_first(&job->rows, chunk % job->rows.cnt);
    int64_t end = row + cut_len(&job->rows, chunk % job->rows.cnt), c = job->c, width = job->ow * c;
    size_t pixel = (size_t)c * sizeof(float);
    float *y = (float *)job->step->dst + (frame * job->oh + row) * width;
    for (; row < end; row++, y += width) {
        const float *x = (const float *)job->step->src[0] + (frame * job->h + row / 2) * job->w * c;
        for (int64_t j = 0; j < job->w; j++) {
            memcpy(y + 2 * j * c, x + j * c, pixel);
            memcpy(y + (2 * j + 1) * c, x + j * c, pixel);
        }
    }
}
static void upsample2x_run(Backend *be, Step *step) { run_rows(be, step, upsample2x_chunk, 2); }
const Kernel cpu_kernel_upsample2x = {.run = upsample2x_run};

static void upsample2x_dx_chunk(void *ctx, int64_t chunk, int worker) {
    const ResampleJob *job = ctx;
    int64_t frame = chunk / job->rows.cnt, row = cut_first(&job->rows, chunk % job->rows.cnt);
    int64_t end = row + cut_len(&job->rows, chunk % job->rows.cnt), wide = job->ow * job->c;
    for (; row < end; row++) {
        const float *top = (const float *)job->step->src[0] + (frame * job->oh + 2 * row) * wide;
        job->simd->halve_columns((float *)job->step->dst + (frame * job->h + row) * job->w * job->c,
                                 top, top + wide, job->w, job->c);
    }
}
static void upsample2x_dx_run(Backend *be, Step *step) {
    run_rows(be, step, upsample2x_dx_chunk, 1);
}
const Kernel cpu_kernel_upsample2x_dx = {.run = upsample2x_dx_run};

// One row of x's width per worker.
static Err resize_prepare(Backend *be, Step *step) {
    ResampleJob job = resample_job(be, step);
    step->work_bytes = (size_t)(pool_threads(cpu_device(be)->pool) * job.w * job.c) * sizeof(float);
    return ERR_OK;
}

static void resize_chunk(void *ctx, int64_t chunk, int worker) {
    const ResampleJob *job = ctx;
    int64_t frame = chunk / job->rows.cnt, i = cut_first(&job->rows, chunk % job->rows.cnt);
    int64_t end = i + cut_len(&job->rows, chunk % job->rows.cnt), width = job->w * job->c;
    float *line = (float *)job->step->work + worker * width;
    const float *x = (const float *)job->step->src[0] + frame * job->h * width;
    for (; i < end; i++) {
        memset(line, 0, (size_t)width * sizeof *line);
        for (int64_t a = 0; a < job->kh; a++) {
            int64_t row = job->h_start[i] + a;
            if (row >= 0 && row < job->h)
                job->simd->axpy(line, x + row * width, job->h_tap[i * job->kh + a], width);
        }
        job->simd->resize_columns((float *)job->step->dst +
                                      (frame * job->oh + i) * job->ow * job->c,
                                  line, job->w_start, job->w_tap, job->kw, job->ow, job->w, job->c);
    }
}
static void resize_run(Backend *be, Step *step) { run_rows(be, step, resize_chunk, 1); }
const Kernel cpu_kernel_resize = {.prepare = resize_prepare, .run = resize_run};

// Writes rows [first, end) of dx: every filtered row that reaches one of them is spread over it.
static void resize_dx_chunk(void *ctx, int64_t chunk, int worker) {
    const ResampleJob *job = ctx;
    int64_t frame = chunk / job->rows.cnt, first = cut_first(&job->rows, chunk % job->rows.cnt);
    int64_t end = first + cut_len(&job->rows, chunk % job->rows.cnt), width = job->w * job->c;
    float *line = (float *)job->step->work + worker * width;
    float *dx = (float *)job->step->dst + frame * job->h * width;
    memset(dx + first * width, 0, (size_t)((end - first) * width) * sizeof *dx);
    for (int64_t i = 0; i < job->oh; i++) {
        int64_t start = job->h_start[i];
        if (start >= end || start + job->kh <= first) continue;
        job->simd->resize_columns_dx(
            line, (const float *)job->step->src[0] + (frame * job->oh + i) * job->ow * job->c,
            job->w_start, job->w_tap, job->kw, job->ow, job->w, job->c);
        for (int64_t a = 0; a < job->kh; a++)
            if (start + a >= first && start + a < end)
                job->simd->axpy(dx + (start + a) * width, line, job->h_tap[i * job->kh + a], width);
    }
}
static void resize_dx_run(Backend *be, Step *step) { run_rows(be, step, resize_dx_chunk, 64); }
const Kernel cpu_kernel_resize_dx = {.prepare = resize_prepare, .run = resize_dx_run};
