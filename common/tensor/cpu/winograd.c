// winograd: blocks of tiles go through transform, 36 products and back while they are in cache.
#include "common/tensor/cpu/winograd.h"

#include <string.h>

#include "common/tensor/cpu/dense.h"
#include "common/tensor/cpu/simd/winograd.h"

enum {
    POINTS = 36,
    BLOCKS_WANTED =
        8, // fewer blocks of tiles than this: all threads share each of the three stages
    WEIGHT_IN_L2 =
        1 << 16 // floats of one product's weights that stay in L2 while several blocks pass
};

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t tile_cnt(const Winograd *j) {
    return j->images * ((j->h + 3) / 4) * ((j->w + 3) / 4);
}

// Tiles per block: a multiple of the product's row tile; more where weights come from far.
static int64_t block_tiles(const CpuDevice *dev, const Winograd *j) {
    int64_t rows = dev->simd->vlen == 16 ? 14 : 6;
    return rows * (j->c * j->o > WEIGHT_IN_L2 ? 8 : 4);
}
static bool is_staged(const CpuDevice *dev, const Winograd *j) {
    return tile_cnt(j) < BLOCKS_WANTED * block_tiles(dev, j);
}
// Floats between planes: one cache line more than needed, so that 36 planes do not meet in the same
// sets.
static int64_t plane(int64_t tiles, int64_t channels) {
    return (tiles * channels + 15) / 16 * 16 + 16;
}

int64_t winograd_weight_count(const CpuDevice *dev, int64_t c, int64_t o) {
    return POINTS * dense_packed_count(dev, c, o);
}

int64_t winograd_work_count(const CpuDevice *dev, const Winograd *j) {
    bool staged = is_staged(dev, j);
    int64_t tiles = staged ? tile_cnt(j) : block_tiles(dev, j),
            owners = staged ? 1 : pool_threads(dev->pool);
    return owners * POINTS * (plane(tiles, j->c) + plane(tiles, j->o)) + (j->c + 15) / 16 * 16;
}

// ---- Weights: G w G^T, in double ---------------------------------------------------------------

typedef struct PackJob {
    const CpuDevice *dev;
    float *dst;
    const void *w;
    DType dtype;
    int64_t c, o, w_i; // of the transformed weight; input channels of w
    bool trans;
} PackJob;

static float read_float(const void *p, DType dtype, int64_t i) {
    if (dtype == DTYPE_F32) return ((const float *)p)[i];
    uint16_t bits = ((const uint16_t *)p)[i];
    return dtype == DTYPE_F16 ? dtype_f16_to_f32(bits) : dtype_bf16_to_f32(bits);
}

// u (6, 6) of one kernel g (3, 3)
static void transform(const float g[9], float u[POINTS]) {
    static const double point[5] = {0, WINOGRAD_A, -WINOGRAD_A, WINOGRAD_B, -WINOGRAD_B};
    double row[6][3] = {{0}}, half[6][3];
    for (int j = 0; j < 5; j++) {
        double d = 1;
        for (int k = 0; k < 5; k++)
            if (k != j) d *= point[j] - point[k];
        row[j][0] = 1 / d, row[j][1] = point[j] / d, row[j][2] = point[j] * point[j] / d;
    }
    row[5][2] = 1;
    for (int i = 0; i < 6; i++)
        for (int b = 0; b < 3; b++)
            half[i][b] = row[i][0] * g[b] + row[i][1] * g[3 + b] + row[i][2] * g[6 + b];
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++)
            u[i * 6 + j] =
                (float)(half[i][0] * row[j][0] + half[i][1] * row[j][1] + half[i][2] * row[j][2]);
}

// One panel of columns in all 36 matrices.
static void pack_chunk(void *ctx, int64_t chunk, int worker) {
    const PackJob *j = ctx;
    int64_t nr = 2 * j->dev->simd->vlen, matrix = dense_packed_count(j->dev, j->c, j->o);
    for (int64_t k = 0; k < j->c; k++)
        for (int64_t n = chunk * nr; n < (chunk + 1) * nr; n++) {
            float g[9] = {0}, u[POINTS];
            for (int i = 0; i < 9 && n < j->o; i++)
                g[i] = j->trans ? read_float(j->w, j->dtype, (k * j->w_i + n) * 9 + 8 - i)
                                : read_float(j->w, j->dtype, (n * j->w_i + k) * 9 + i);
            transform(g, u);
            float *dst = j->dst + chunk * j->c * nr + k * nr + n % nr;
            for (int i = 0; i < POINTS; i++) dst[i * matrix] = u[i];
        }
}

void winograd_pack(CpuDevice *dev, float *dst, const void *w, DType dtype, int64_t w_o, int64_t w_i,
                   bool trans) {
    PackJob job = {dev, dst, w, dtype, trans ? w_o : w_i, trans ? w_i : w_o, w_i, trans};
    pool_run(dev->pool, dense_packed_count(dev, 1, job.o) / (2 * dev->simd->vlen), pack_chunk,
             &job);
}

// ---- Run ---------------------------------------------------------------------------------------

typedef struct RunJob {
    CpuDevice *dev;
    const Winograd *w;
    int64_t tiles, v_plane, m_plane, panel, matrix; // tiles per block; floats
    const float *zeros;
    float *scratch; // v planes, m planes; per worker unless staged
} RunJob;

static float *v_of(const RunJob *j, int worker) {
    return j->scratch + worker * POINTS * (j->v_plane + j->m_plane);
}
static float *m_of(const RunJob *j, int worker) { return v_of(j, worker) + POINTS * j->v_plane; }

static void block_in(const RunJob *j, float *v, int64_t tile, int64_t cnt) {
    j->dev->simd->winograd_in(v, j->v_plane, j->w->x, j->w->h, j->w->w, j->w->c, tile, cnt,
                              j->zeros);
}
static void block_out(const RunJob *j, const float *m, int64_t tile, int64_t cnt) {
    j->dev->simd->winograd_out(j->w->y, m, j->m_plane, j->w->h, j->w->w, j->w->o, tile, cnt,
                               j->w->bias, j->w->bias_images, j->w->residual);
}

static void block_chunk(void *ctx, int64_t chunk, int worker) {
    const RunJob *j = ctx;
    const Winograd *w = j->w;
    int64_t tile = chunk * j->tiles, cnt = min(j->tiles, tile_cnt(w) - tile);
    float *v = v_of(j, worker), *m = m_of(j, worker);
    block_in(j, v, tile, cnt);
    for (int i = 0; i < POINTS; i++)
        j->dev->simd->gemm(m + i * j->m_plane, w->o, v + i * j->v_plane, w->c, 1,
                           w->weight + i * j->matrix, j->panel, cnt, w->o, w->c, NULL, NULL, 0, 0);
    block_out(j, m, tile, cnt);
}

// Staged: v and m hold all tiles; a chunk of a transform is one tile.
static void in_chunk(void *ctx, int64_t chunk, int worker) {
    const RunJob *j = ctx;
    block_in(j, v_of(j, 0) + chunk * j->w->c, chunk, 1);
}
static void out_chunk(void *ctx, int64_t chunk, int worker) {
    const RunJob *j = ctx;
    block_out(j, m_of(j, 0) + chunk * j->w->o, chunk, 1);
}

void winograd_run(CpuDevice *dev, const Winograd *w) {
    bool staged = is_staged(dev, w);
    int64_t all = tile_cnt(w), tiles = staged ? all : block_tiles(dev, w);
    memset(w->work, 0, (size_t)w->c * sizeof(float));
    RunJob job = {.dev = dev,
                  .w = w,
                  .tiles = tiles,
                  .v_plane = plane(tiles, w->c),
                  .m_plane = plane(tiles, w->o),
                  .panel = dense_panel_count(dev, w->c),
                  .matrix = dense_packed_count(dev, w->c, w->o),
                  .zeros = w->work,
                  .scratch = w->work + (w->c + 15) / 16 * 16};
    if (!staged) {
        pool_run(dev->pool, (all + tiles - 1) / tiles, block_chunk, &job);
        return;
    }
    pool_run(dev->pool, all, in_chunk, &job);
    dense_run(dev, &(Dense){.batch = POINTS,
                            .m = all,
                            .n = w->o,
                            .k = w->c,
                            .y = m_of(&job, 0),
                            .y_row = w->o,
                            .y_batch = job.m_plane,
                            .a = v_of(&job, 0),
                            .a_row = w->c,
                            .a_col = 1,
                            .a_batch = job.v_plane,
                            .panels = w->weight,
                            .panels_batch = job.matrix});
    pool_run(dev->pool, all, out_chunk, &job);
}
