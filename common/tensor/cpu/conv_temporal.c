// conv_temporal: kernel (3,1,1) by F(2, 3) over pairs of frames, for a block of pixels at a time.
#include "common/tensor/cpu/conv.h"
#include "common/tensor/cpu/dense.h"

enum { PLANES = 4, BLOCK_BYTES = 256 << 10, BLOCK_PIXELS_MAX = 96 };

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t pixels(const Conv *c) { return c->in[1] * c->in[2]; }
static int64_t block_pixels(const Conv *c) {
    int64_t fit = BLOCK_BYTES / (PLANES * (int64_t)sizeof(float)) / (c->c + c->o) / 12 * 12;
    return fit < 24 ? 24 : min(fit, BLOCK_PIXELS_MAX);
}
static int64_t plane(const Conv *c, int64_t channels) {
    return (block_pixels(c) * channels + 15) / 16 * 16 + 16;
}
static int64_t worker_count(const Conv *c) { return PLANES * (plane(c, c->c) + plane(c, c->o)); }

static int64_t weight_count(const CpuDevice *dev, const Conv *c) {
    return PLANES * dense_packed_count(dev, c->c, c->o);
}
static int64_t work_count(const CpuDevice *dev, const Conv *c) {
    return pool_threads(dev->pool) * worker_count(c);
}

// G g: each of the three taps packed as a matrix, then combined in place; plane 3 serves as the
// third.
static void pack(CpuDevice *dev, float *dst, const Conv *c, const void *w, DType dtype) {
    int64_t matrix = dense_packed_count(dev, c->c, c->o);
    static const int place[3] = {0, 1, 3};
    for (int tap = 0; tap < 3; tap++) {
        const char *from =
            (const char *)w + (size_t)(c->trans ? 2 - tap : tap) * dtype_bytes(dtype);
        int64_t ks = 3 * (c->trans ? c->o : 1), ns = 3 * (c->trans ? 1 : c->c);
        dense_pack(dev, dst + place[tap] * matrix, from, dtype, ks, ns, c->c, c->o, 1, 0);
    }
    for (int64_t i = 0; i < matrix; i++) {
        float even = (dst[i] + dst[3 * matrix + i]) * 0.5f, odd = dst[matrix + i] * 0.5f;
        dst[matrix + i] = even + odd, dst[2 * matrix + i] = even - odd;
    }
}

typedef struct RunJob {
    CpuDevice *dev;
    const Conv *c;
    int64_t block, blocks, pairs;
} RunJob;

static void run_chunk(void *ctx, int64_t chunk, int worker) {
    const RunJob *j = ctx;
    const Conv *c = j->c;
    int64_t first = chunk % j->blocks * j->block, t = chunk / j->blocks % j->pairs * 2;
    int64_t n = chunk / j->blocks / j->pairs, frames = c->in[0], size = pixels(c),
            cnt = min(j->block, size - first);
    float *v = c->work + worker * worker_count(c), *m = v + PLANES * plane(c, c->c);
    const float *x[4];
    for (int64_t i = 0; i < 4; i++) {
        bool inside = t + i >= 1 && t + i <= frames;
        x[i] = inside ? c->x + ((n * frames + t + i - 1) * size + first) * c->c : NULL;
    }
    j->dev->simd->temporal_in(v, plane(c, c->c), x, cnt * c->c);
    for (int i = 0; i < PLANES; i++)
        j->dev->simd->gemm(m + i * plane(c, c->o), c->o, v + i * plane(c, c->c), c->c, 1,
                           c->weight + i * dense_packed_count(j->dev, c->c, c->o),
                           dense_panel_count(j->dev, c->c), cnt, c->o, c->c, NULL, NULL, 0, 0);
    int64_t at = ((n * frames + t) * size + first) * c->o, next = size * c->o;
    bool two = t + 1 < frames;
    j->dev->simd->temporal_out(c->y + at, two ? c->y + at + next : NULL, m, plane(c, c->o), cnt,
                               c->o, c->bias ? c->bias + (c->bias_each ? n * c->o : 0) : NULL,
                               c->residual ? c->residual + at : NULL,
                               c->residual && two ? c->residual + at + next : NULL);
}

static void run(CpuDevice *dev, const Conv *c) {
    RunJob job = {dev, c, block_pixels(c), (pixels(c) + block_pixels(c) - 1) / block_pixels(c),
                  (c->in[0] + 1) / 2};
    pool_run(dev->pool, c->n * job.blocks * job.pairs, run_chunk, &job);
}

const ConvAlgorithm conv_temporal = {"temporal F(2,3)", "temporal.n", "temporal.t", weight_count,
                                     work_count,        pack,         run};
