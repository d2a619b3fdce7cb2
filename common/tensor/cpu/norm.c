// norm: layer normalisation by rows; group normalisation in passes over (sample, block of rows).
//
// Group statistics come from sums per channel, shifted by the mean of a few rows, kept as doubles per
// block of rows and added in order. The backward pass needs per channel the sums of dz and dz xhat: they are
// the parameter gradients, and weighted by gamma they are the two group means of the data gradient.
#include <math.h>
#include <string.h>

#include "common/tensor/cpu/cut.h"

enum {
    BLOCKS_MAX = 64, // of rows, per sample
    BLOCK_FLOATS = 32768,
    BLOCK_ALIGN = 64,
    SHIFT_ROWS = 8,
    SAMPLES_MANY = 8,
};

// ---- Layer normalisation -----------------------------------------------------------------------

static void layernorm_chunk(void *ctx, int64_t chunk, int worker) {
    const CutJob *job = ctx;
    const Step *s = job->step;
    int64_t row = cut_first(&job->cut, chunk), at = row * job->width;
    job->simd->layernorm((float *)s->dst + at, (const float *)s->src[0] + at, s->src[1], s->src[2],
                         s->node->attr.norm.eps, cut_len(&job->cut, chunk), job->width);
}
static void layernorm_run(Backend *be, Step *step) {
    cut_run_rows(be, step, step->node, layernorm_chunk);
}
const Kernel cpu_kernel_layernorm = {.run = layernorm_run};

static void layernorm_dx_chunk(void *ctx, int64_t chunk, int worker) {
    const CutJob *job = ctx;
    const Step *s = job->step;
    int64_t row = cut_first(&job->cut, chunk), at = row * job->width;
    job->simd->layernorm_dx((float *)s->dst + at, (const float *)s->src[0] + at,
                            (const float *)s->src[1] + at, s->src[2], s->node->attr.norm.eps,
                            cut_len(&job->cut, chunk), job->width);
}
static void layernorm_dx_run(Backend *be, Step *step) {
    cut_run_rows(be, step, step->node, layernorm_dx_chunk);
}
const Kernel cpu_kernel_layernorm_dx = {.run = layernorm_dx_run};

// Rows in at most BLOCKS_MAX blocks.
static Cut cut_blocks(int64_t rows, int64_t c) {
    Cut k = {.n = rows, .step = BLOCK_FLOATS / c};
    if (k.step < (rows + BLOCKS_MAX - 1) / BLOCKS_MAX)
        k.step = (rows + BLOCKS_MAX - 1) / BLOCKS_MAX;
    k.step = (k.step + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
    if (k.step < BLOCK_ALIGN) k.step = BLOCK_ALIGN;
    k.cnt = (rows + k.step - 1) / k.step;
    return k;
}

// What all passes of a norm share. sum: (samples, blocks, 2, c); acc: (threads, 2, c).
typedef struct NormJob {
    const Step *step;
    const SimdTable *simd;
    const float *x, *dy, *gamma, *beta;
    int64_t samples, c, groups;
    Cut rows; // of one sample
    double *sum;
    float *acc;
    float *channels; // (samples, CHANNEL_ROWS, c)
    float *dz;       // where the backward pass leaves dz; NULL = nowhere
} NormJob;

enum { AT_SHIFT, AT_MEAN, AT_RSTD, AT_OFF, AT_GAIN, AT_BIAS, AT_A, AT_B, AT_K, CHANNEL_ROWS };

static float *channel_row(const NormJob *job, int64_t sample, int which) {
    return job->channels + (sample * CHANNEL_ROWS + which) * job->c;
}
static NormChannels channels_of(const NormJob *job, int64_t n) {
    return (NormChannels){channel_row(job, n, AT_MEAN), channel_row(job, n, AT_RSTD),
                          channel_row(job, n, AT_OFF), channel_row(job, n, AT_GAIN),
                          channel_row(job, n, AT_BIAS)};
}

static int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// Lays out step->work for a tensor (samples, rows, c); returns its bytes.
static size_t norm_layout(NormJob *job, Backend *be, const Step *step, const Tensor *x,
                          int64_t samples) {
    CpuDevice *dev = cpu_device(be);
    *job = (NormJob){.step = step,
                     .simd = dev->simd,
                     .samples = samples,
                     .c = cut_last_dim(x),
                     .groups = step->node->attr.norm.groups};
    job->rows = cut_blocks(shape_count(x->shape) / job->c / samples, job->c);
    char *at = step->work, *start = at;
    job->sum = (double *)at;
    at += round_up(samples * job->rows.cnt * 2 * job->c * (int64_t)sizeof(double), 64);
    job->acc = (float *)at;
    at += round_up(pool_threads(dev->pool) * 2 * job->c * (int64_t)sizeof(float), 64);
    job->channels = (float *)at;
    at += round_up(samples * CHANNEL_ROWS * job->c * (int64_t)sizeof(float), 64);
    return (size_t)(at - start);
}

// Where one chunk works.
typedef struct NormBlock {
    int64_t sample, rows, at; // at: of its first element
    double *sum;
    float *acc;
} NormBlock;

static NormBlock block_of(const NormJob *job, int64_t chunk, int worker) {
    int64_t n = chunk / job->rows.cnt, block = chunk % job->rows.cnt;
    return (NormBlock){n, cut_len(&job->rows, block),
                       (n * job->rows.n + cut_first(&job->rows, block)) * job->c,
                       job->sum + chunk * 2 * job->c, job->acc + worker * 2 * job->c};
}

// Adds the blocks of a sample into its first one.
static double *sum_blocks(const NormJob *job, int64_t n) {
    double *sum = job->sum + n * job->rows.cnt * 2 * job->c;
    for (int64_t b = 1; b < job->rows.cnt; b++)
        for (int64_t i = 0; i < 2 * job->c; i++) sum[i] += sum[b * 2 * job->c + i];
    return sum;
}

static void layernorm_dp_chunk(void *ctx, int64_t chunk, int worker) {
    const NormJob *job = ctx;
    NormBlock b = block_of(job, chunk, worker);
    memset(b.sum, 0, (size_t)(2 * job->c) * sizeof *b.sum);
    job->simd->layernorm_dp(b.sum, b.acc, job->dy + b.at, job->x + b.at,
                            job->step->node->attr.norm.eps, b.rows, job->c);
}

static Err layernorm_dp_prepare(Backend *be, Step *step) {
    NormJob job;
    step->work_bytes = norm_layout(&job, be, step, step->node->in[1], 1);
    return ERR_OK;
}

static void layernorm_dp_run(Backend *be, Step *step) {
    NormJob job;
    norm_layout(&job, be, step, step->node->in[1], 1);
    job.dy = step->src[0], job.x = step->src[1];
    pool_run(cpu_device(be)->pool, job.rows.cnt, layernorm_dp_chunk, &job);
    const double *sum = sum_blocks(&job, 0);
    for (int64_t i = 0; i < 2 * job.c; i++) ((float *)step->dst)[i] = (float)sum[i];
}
const Kernel cpu_kernel_layernorm_dp = {.prepare = layernorm_dp_prepare, .run = layernorm_dp_run};

// ---- Group normalisation -----------------------------------------------------------------------

static void shift_chunk(void *ctx, int64_t n, int worker) {
    const NormJob *job = ctx;
    int64_t rows = job->rows.n, c = job->c, cnt = rows < SHIFT_ROWS ? rows : SHIFT_ROWS;
    float *shift = channel_row(job, n, AT_SHIFT);
    for (int64_t i = 0; i < c; i++) shift[i] = 0;
    for (int64_t k = 0; k < cnt; k++) {
        const float *x = job->x + (n * rows + rows * k / cnt) * c;
        for (int64_t i = 0; i < c; i++) shift[i] += x[i] / (float)cnt;
    }
}

static void moments_chunk(void *ctx, int64_t chunk, int worker) {
    const NormJob *job = ctx;
    NormBlock b = block_of(job, chunk, worker);
    memset(b.sum, 0, (size_t)(2 * job->c) * sizeof *b.sum);
    job->simd->groupnorm_moments(b.sum, b.acc, job->x + b.at, channel_row(job, b.sample, AT_SHIFT),
                                 b.rows, job->c);
}

// From the sums of one sample to what its channels are scaled with.
static void channels_chunk(void *ctx, int64_t n, int worker) {
    const NormJob *job = ctx;
    int64_t width = job->c / job->groups;
    double rows = (double)job->rows.n, *sum = sum_blocks(job, n), *square = sum + job->c;
    double per_row = 1 / rows, per_channel = 1 / (double)width,
           eps = job->step->node->attr.norm.eps;
    double unit = job->step->node->attr.norm.silu ? -1.44269504088896341 : 1;
    const float *shift = channel_row(job, n, AT_SHIFT);
    NormChannels p = channels_of(job, n);
    for (int64_t first = 0; first < job->c; first += width) {
        double mean = 0, m2 = 0;
        for (int64_t i = first; i < first + width; i++) {
            square[i] -= sum[i] * sum[i] * per_row; // about the channel's own mean
            sum[i] = (double)shift[i] + sum[i] * per_row;
            mean += sum[i] * per_channel;
        }
        for (int64_t i = first; i < first + width; i++)
            m2 += square[i] + rows * (sum[i] - mean) * (sum[i] - mean);
        double var = m2 * (per_row * per_channel);
        double rstd = 1 / sqrt((var < 0 ? 0 : var) + eps);
        for (int64_t i = first; i < first + width; i++) {
            p.mean[i] = (float)mean;
            double off = ((double)p.mean[i] - mean) * rstd;
            p.rstd[i] = (float)rstd;
            p.off[i] = (float)off;
            p.gain[i] = (float)(rstd * (double)job->gamma[i] * unit);
            p.bias[i] = (float)((off * (double)job->gamma[i] + (double)job->beta[i]) * unit);
        }
    }
}

// With many samples each is taken through all its passes by one thread, while it is in cache; with few, every
// pass is cut into blocks of rows. The bits are the same.
static bool by_sample(const NormJob *job) { return job->samples >= SAMPLES_MANY; }

static void each_block(PoolFn *fn, const NormJob *job, int64_t n, int worker) {
    for (int64_t b = 0; b < job->rows.cnt; b++)
        fn((void *)(uintptr_t)job, n * job->rows.cnt + b, worker);
}
// What the pass before has read last is still in cache.
static void each_block_reversed(PoolFn *fn, const NormJob *job, int64_t n, int worker) {
    for (int64_t b = job->rows.cnt; b-- > 0;)
        fn((void *)(uintptr_t)job, n * job->rows.cnt + b, worker);
}

static void find_channels_of(const NormJob *job, int64_t n, int worker) {
    shift_chunk((void *)(uintptr_t)job, n, worker);
    each_block(moments_chunk, job, n, worker);
    channels_chunk((void *)(uintptr_t)job, n, worker);
}

static void find_channels(CpuDevice *dev, NormJob *job) {
    pool_run(dev->pool, job->samples, shift_chunk, job);
    pool_run(dev->pool, job->samples * job->rows.cnt, moments_chunk, job);
    pool_run(dev->pool, job->samples, channels_chunk, job);
}

static void apply_chunk(void *ctx, int64_t chunk, int worker) {
    const NormJob *job = ctx;
    NormBlock b = block_of(job, chunk, worker);
    NormChannels p = channels_of(job, b.sample);
    job->simd->groupnorm_apply((float *)job->step->dst + b.at, job->x + b.at, &p,
                               job->step->node->attr.norm.silu, b.rows, job->c);
}

static void sample_chunk(void *ctx, int64_t n, int worker) {
    find_channels_of(ctx, n, worker);
    each_block_reversed(apply_chunk, ctx, n, worker);
}

static Err groupnorm_prepare(Backend *be, Step *step) {
    NormJob job;
    const Tensor *x = step->node->in[step->node->op == OP_groupnorm ? 0 : 1];
    step->work_bytes = norm_layout(&job, be, step, x, x->shape.dim[0]);
    return ERR_OK;
}

static void groupnorm_run(Backend *be, Step *step) {
    CpuDevice *dev = cpu_device(be);
    const Tensor *x = step->node->in[0];
    NormJob job;
    norm_layout(&job, be, step, x, x->shape.dim[0]);
    job.x = step->src[0], job.gamma = step->src[1], job.beta = step->src[2];
    if (by_sample(&job)) {
        pool_run(dev->pool, job.samples, sample_chunk, &job);
        return;
    }
    find_channels(dev, &job);
    pool_run(dev->pool, job.samples * job.rows.cnt, apply_chunk, &job);
}
const Kernel cpu_kernel_groupnorm = {.prepare = groupnorm_prepare, .run = groupnorm_run};

static void back_chunk(void *ctx, int64_t chunk, int worker) {
    const NormJob *job = ctx;
    NormBlock b = block_of(job, chunk, worker);
    NormChannels p = channels_of(job, b.sample);
    memset(b.sum, 0, (size_t)(2 * job->c) * sizeof *b.sum);
    job->simd->groupnorm_back(b.sum, b.acc, job->dz ? job->dz + b.at : NULL, job->dy + b.at,
                              job->x + b.at, &p, job->step->node->attr.norm.silu, b.rows, job->c);
}

// dx = rstd (gamma dz - mean(gamma dz) - xhat mean(gamma dz xhat)), as a dz + b (x - mean) + k.
static void slopes_chunk(void *ctx, int64_t n, int worker) {
    const NormJob *job = ctx;
    int64_t width = job->c / job->groups;
    const double *dot = sum_blocks(job, n), *sum = dot + job->c;
    NormChannels p = channels_of(job, n);
    float *a = channel_row(job, n, AT_A), *b = channel_row(job, n, AT_B),
          *k = channel_row(job, n, AT_K);
    for (int64_t first = 0; first < job->c; first += width) {
        double mean = 0, slope = 0, cnt = (double)job->rows.n * (double)width;
        for (int64_t i = first; i < first + width; i++) {
            mean += (double)job->gamma[i] * sum[i] / cnt;
            slope += (double)job->gamma[i] * dot[i] / cnt;
        }
        for (int64_t i = first; i < first + width; i++) {
            double rstd = (double)p.rstd[i];
            a[i] = (float)(rstd * (double)job->gamma[i]);
            b[i] = (float)(-rstd * rstd * slope);
            k[i] = (float)(-rstd * (mean + (double)p.off[i] * slope));
        }
    }
}

static void dx_chunk(void *ctx, int64_t chunk, int worker) {
    const NormJob *job = ctx;
    NormBlock b = block_of(job, chunk, worker);
    const float *dz = job->dz ? job->dz : job->dy;
    job->simd->groupnorm_dx((float *)job->step->dst + b.at, dz + b.at, job->x + b.at,
                            channel_row(job, b.sample, AT_MEAN), channel_row(job, b.sample, AT_A),
                            channel_row(job, b.sample, AT_B), channel_row(job, b.sample, AT_K),
                            b.rows, job->c);
}

static void sample_back_chunk(void *ctx, int64_t n, int worker) {
    const NormJob *job = ctx;
    find_channels_of(job, n, worker);
    each_block_reversed(back_chunk, job, n, worker);
    if (job->step->node->op == OP_groupnorm_dp) return;
    slopes_chunk(ctx, n, worker);
    each_block(dx_chunk, job, n, worker);
}

// All of dx; for dp the sums of dz xhat and of dz of every block.
static void run_back(Backend *be, Step *step, NormJob *job) {
    CpuDevice *dev = cpu_device(be);
    const Tensor *x = step->node->in[1];
    bool want_dx = step->node->op == OP_groupnorm_dx;
    norm_layout(job, be, step, x, x->shape.dim[0]);
    job->dy = step->src[0], job->x = step->src[1], job->gamma = step->src[2],
    job->beta = step->src[3];
    if (want_dx && step->node->attr.norm.silu) job->dz = step->dst;
    if (by_sample(job)) {
        pool_run(dev->pool, job->samples, sample_back_chunk, job);
        return;
    }
    find_channels(dev, job);
    pool_run(dev->pool, job->samples * job->rows.cnt, back_chunk, job);
    if (!want_dx) return;
    pool_run(dev->pool, job->samples, slopes_chunk, job);
    pool_run(dev->pool, job->samples * job->rows.cnt, dx_chunk, job);
}

static void groupnorm_dx_run(Backend *be, Step *step) {
    NormJob job;
    run_back(be, step, &job);
}
const Kernel cpu_kernel_groupnorm_dx = {.prepare = groupnorm_prepare, .run = groupnorm_dx_run};

static void groupnorm_dp_run(Backend *be, Step *step) {
    NormJob job;
    run_back(be, step, &job);
    double *total = job.sum;
    for (int64_t n = 0; n < job.samples; n++) {
        const double *sum = sum_blocks(&job, n);
        for (int64_t i = 0; n && i < 2 * job.c; i++) total[i] += sum[i];
    }
    for (int64_t i = 0; i < 2 * job.c; i++) ((float *)step->dst)[i] = (float)total[i];
}
const Kernel cpu_kernel_groupnorm_dp = {.prepare = groupnorm_prepare, .run = groupnorm_dp_run};
