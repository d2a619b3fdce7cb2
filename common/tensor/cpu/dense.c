// dense: cuts a product into chunks by its shape and hands them to the pool.
#include "common/tensor/cpu/dense.h"

enum {
    ROW_TILES = 16, // row tiles per chunk: a panel slice in L1 serves this many.
    // Every chunk streams the whole right side. Where that is more than half of a small L2, more
    // rows share it, as long as they are not.
    ROW_TILES_MAX = 40,
    CACHE_FLOATS = 1 << 16,
    CHUNKS_WANTED = 24,    // below this many, columns are cut too,
    CHUNK_FLOPS = 1 << 19, // but not into pieces smaller than this (some microseconds)
};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t panel_cols(const CpuDevice *dev) { return 2 * dev->simd->vlen; }

int64_t dense_panel_count(const CpuDevice *dev, int64_t k) { return k * panel_cols(dev); }
int64_t dense_packed_count(const CpuDevice *dev, int64_t k, int64_t n) {
    return ceil_div(n, panel_cols(dev)) * dense_panel_count(dev, k);
}

typedef struct DenseJob {
    const CpuDevice *dev;
    const Dense *d;
    int64_t rows, cols, row_cnt, col_cnt; // size of a chunk; chunks per batch entry
} DenseJob;

static void dense_chunk(void *ctx, int64_t chunk, int worker) {
    const DenseJob *job = ctx;
    const Dense *d = job->d;
    int64_t col = chunk % job->col_cnt * job->cols, rest = chunk / job->col_cnt;
    int64_t row = rest % job->row_cnt * job->rows, b = rest / job->row_cnt;
    int64_t panel = dense_panel_count(job->dev, d->k);
    job->dev->simd->gemm(
        d->y + b * d->y_batch + row * d->y_row + col, d->y_row,
        d->a + b * d->a_batch + row * d->a_row, d->a_row, d->a_col,
        d->panels + b * d->panels_batch + col / panel_cols(job->dev) * panel, panel,
        min(job->rows, d->m - row), min(job->cols, d->n - col), d->k,
        d->bias ? d->bias + b * d->bias_batch + col : NULL,
        d->residual ? d->residual + b * d->residual_batch + row * d->residual_row + col : NULL,
        d->residual_row, GEMM_COLD | (d->accumulate ? GEMM_ADD : 0));
}

static int64_t chunk_rows(const CpuDevice *dev, const Dense *d) {
    int64_t tile = dev->simd->vlen == 16 ? 14 : 6, tiles = ROW_TILES;
    if (d->k * d->n > CACHE_FLOATS) tiles = min(ROW_TILES_MAX, CACHE_FLOATS / (d->k * tile));
    return (tiles > ROW_TILES ? tiles : ROW_TILES) * tile;
}

void dense_run(CpuDevice *dev, const Dense *d) {
    int64_t batch = d->batch ? d->batch : 1;
    DenseJob job = {.dev = dev, .d = d, .rows = chunk_rows(dev, d), .cols = d->n};
    job.row_cnt = ceil_div(d->m, job.rows);
    int64_t pieces = ceil_div(CHUNKS_WANTED, batch * job.row_cnt);
    double flops = 2.0 * (double)min(d->m, job.rows) * (double)d->k * (double)d->n;
    pieces = min(pieces, (int64_t)(flops / CHUNK_FLOPS) + 1);
    job.cols = ceil_div(ceil_div(d->n, pieces), panel_cols(dev)) * panel_cols(dev);
    job.col_cnt = ceil_div(d->n, job.cols);
    pool_run(dev->pool, batch * job.row_cnt * job.col_cnt, dense_chunk, &job);
}

typedef struct PackJob {
    const CpuDevice *dev;
    float *panels;
    const char *b;
    DType dtype;
    int64_t ks, ns, k, n, bs, panel_cnt;
} PackJob;

static void pack_chunk(void *ctx, int64_t chunk, int worker) {
    const PackJob *j = ctx;
    int64_t nr = panel_cols(j->dev), col = chunk % j->panel_cnt * nr, entry = chunk / j->panel_cnt;
    j->dev->simd->gemm_pack(j->panels + chunk * dense_panel_count(j->dev, j->k),
                            j->b + (size_t)(entry * j->bs + col * j->ns) * dtype_bytes(j->dtype),
                            j->dtype, j->ks, j->ns, j->k, min(nr, j->n - col));
}

void dense_pack(CpuDevice *dev, float *panels, const void *b, DType dtype, int64_t ks, int64_t ns,
                int64_t k, int64_t n, int64_t batch, int64_t bs) {
    PackJob job = {dev, panels, b, dtype, ks, ns, k, n, bs, ceil_div(n, panel_cols(dev))};
    pool_run(dev->pool, batch * job.panel_cnt, pack_chunk, &job);
}
