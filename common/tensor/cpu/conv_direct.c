// conv_direct: any convolution, and its gradients, as gathered patches times a packed matrix.
//
// A block of output positions gathers its patches (positions, taps * channels), or one row of taps
// or one tap of them at a time, into scratch that stays in L2 and multiplies it there. The data
// gradient of stride 1 is the same with the kernel turned round. For a stride s > 1 the input
// positions i = s q + r of one phase r see the taps k = (r + lo) mod s + s m only: each phase is a
// convolution of stride 1 over q with those taps.
#include "common/tensor/cpu/conv.h"

#include <string.h>

#include "common/tensor/cpu/dense.h"

enum { BLOCK_BYTES = 256 << 10, BLOCK_TILES_MIN = 8, BLOCK_TILES_MAX = 16, CHUNKS_WANTED = 24 };

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t volume(const int64_t d[3]) { return d[0] * d[1] * d[2]; }
static int64_t tile_rows(const CpuDevice *dev) { return dev->simd->vlen == 16 ? 14 : 6; }
static int64_t panel_cols(const CpuDevice *dev) { return 2 * dev->simd->vlen; }

// A grid of positions q and the taps of each: x index = q*step + tap - lo along each axis.
typedef struct Grid {
    int64_t size[3], step[3], lo[3], taps[3];
} Grid;

static int64_t block_rows(const CpuDevice *dev, int64_t patch) {
    int64_t tiles = BLOCK_BYTES / (int64_t)sizeof(float) / patch / tile_rows(dev);
    return tile_rows(dev) * max(BLOCK_TILES_MIN, min(tiles, BLOCK_TILES_MAX));
}

// Row of the patch of position q: zeros outside x, c floats per tap. x is one n.
static void gather_patch(float *row, const Conv *c, const Grid *g, int64_t q, const float *x) {
    int64_t w = q % g->size[2] * g->step[2] - g->lo[2],
            h = q / g->size[2] % g->size[1] * g->step[1] - g->lo[1];
    int64_t t = q / (g->size[1] * g->size[2]) * g->step[0] - g->lo[0];
    int64_t from = max(0, -w), to = max(from, min(g->taps[2], c->in[2] - w)),
            line = g->taps[2] * c->c;
    size_t front = (size_t)min(from, g->taps[2]) * (size_t)c->c,
           inside = (size_t)(to - from) * (size_t)c->c;
    if (from >= g->taps[2]) front = (size_t)line, inside = 0;
    for (int64_t a = 0; a < g->taps[0]; a++)
        for (int64_t b = 0; b < g->taps[1]; b++, row += line) {
            bool out = t + a < 0 || t + a >= c->in[0] || h + b < 0 || h + b >= c->in[1];
            if (out || !inside) {
                memset(row, 0, (size_t)line * sizeof *row);
                continue;
            }
            const float *src = x + (((t + a) * c->in[1] + h + b) * c->in[2] + w + from) * c->c;
            if (front) memset(row, 0, front * sizeof *row);
            memcpy(row + front, src, inside * sizeof *row);
            size_t tail = (size_t)line - front - inside;
            if (tail) memset(row + front + inside, 0, tail * sizeof *row);
        }
}

// ---- direct ------------------------------------------------------------------------------------

static Grid direct_grid(const Conv *c) {
    Grid g;
    for (int i = 0; i < 3; i++) {
        g.size[i] = c->out[i], g.taps[i] = c->kernel[i];
        g.step[i] = c->trans ? 1 : c->stride[i];
        g.lo[i] = c->trans ? c->kernel[i] - 1 - c->lo[i] : c->lo[i];
    }
    return g;
}
// The taps that are gathered at once: all, one frame of them, one row, or one.
typedef struct Unit {
    int64_t taps[3], patch, cnt; // patch: floats; cnt: units in the kernel
} Unit;
static Unit direct_unit(const CpuDevice *dev, const Conv *c) {
    Unit u = {.taps = {c->kernel[0], c->kernel[1], c->kernel[2]}};
    int64_t fit = BLOCK_BYTES / (int64_t)sizeof(float) / (BLOCK_TILES_MIN * tile_rows(dev));
    for (int i = 0; i < 3 && volume(u.taps) * c->c > fit; i++) u.taps[i] = 1;
    u.patch = volume(u.taps) * c->c;
    u.cnt = volume(c->kernel) / volume(u.taps);
    return u;
}
static int64_t direct_weight_count(const CpuDevice *dev, const Conv *c) {
    return dense_packed_count(dev, volume(c->kernel) * c->c, c->o);
}
static int64_t direct_work_count(const CpuDevice *dev, const Conv *c) {
    Unit u = direct_unit(dev, c);
    return pool_threads(dev->pool) * block_rows(dev, u.patch) * u.patch;
}

typedef struct PackJob {
    const CpuDevice *dev;
    const Conv *c;
    float *dst;
    const char *w;
    DType dtype;
    int64_t panel, tap; // floats between panels, between taps in dst
    bool flip;
} PackJob;

// One tap of one panel: (c, panel_cols).
static void pack_chunk(void *ctx, int64_t chunk, int worker) {
    const PackJob *j = ctx;
    const Conv *c = j->c;
    int64_t taps = volume(c->kernel), tap = chunk % taps, n = chunk / taps * panel_cols(j->dev);
    int64_t ks = taps * (c->trans ? c->o : 1), ns = taps * (c->trans ? 1 : c->c);
    int64_t from = n * ns + (j->flip ? taps - 1 - tap : tap);
    j->dev->simd->gemm_pack(j->dst + chunk / taps * j->panel + tap * j->tap,
                            j->w + (size_t)from * dtype_bytes(j->dtype), j->dtype, ks, ns, c->c,
                            min(panel_cols(j->dev), c->o - n));
}

static void direct_pack(CpuDevice *dev, float *dst, const Conv *c, const void *w, DType dtype) {
    int64_t taps = volume(c->kernel), tap = dense_panel_count(dev, c->c);
    PackJob job = {dev, c, dst, w, dtype, taps * tap, tap, c->trans};
    pool_run(dev->pool, ceil_div(c->o, panel_cols(dev)) * taps, pack_chunk, &job);
}

typedef struct DirectJob {
    const CpuDevice *dev;
    const Conv *c;
    Grid g;
    Unit unit;
    int64_t rows, blocks, cols,
        col_cnt; // positions per block, blocks per n; channels per piece, pieces
} DirectJob;

static void direct_chunk(void *ctx, int64_t chunk, int worker) {
    const DirectJob *j = ctx;
    const Conv *c = j->c;
    int64_t col = chunk % j->col_cnt * j->cols, block = chunk / j->col_cnt, n = block / j->blocks;
    int64_t q = block % j->blocks * j->rows, cnt = min(j->rows, volume(c->out) - q);
    int64_t at = (n * volume(c->out) + q) * c->o + col,
            panel = dense_panel_count(j->dev, volume(c->kernel) * c->c);
    float *rows = c->work + worker * j->rows * j->unit.patch;
    const float *bias = c->bias ? c->bias + (c->bias_each ? n * c->o : 0) + col : NULL;
    for (int64_t u = 0; u < j->unit.cnt; u++) {
        int64_t tap = u * volume(j->unit.taps); // the first of the unit
        int64_t first[3] = {tap / (c->kernel[1] * c->kernel[2]), tap / c->kernel[2] % c->kernel[1],
                            tap % c->kernel[2]};
        Grid g = j->g;
        for (int i = 0; i < 3; i++) g.taps[i] = j->unit.taps[i], g.lo[i] -= first[i];
        for (int64_t i = 0; i < cnt; i++)
            gather_patch(rows + i * j->unit.patch, c, &g, q + i, c->x + n * volume(c->in) * c->c);
        j->dev->simd->gemm(c->y + at, c->o, rows, j->unit.patch, 1,
                           c->weight + col / panel_cols(j->dev) * panel +
                               tap * dense_panel_count(j->dev, c->c),
                           panel, cnt, min(j->cols, c->o - col), j->unit.patch, u ? NULL : bias,
                           c->residual && !u ? c->residual + at : NULL, c->o, u > 0);
    }
}

static void direct_run(CpuDevice *dev, const Conv *c) {
    DirectJob job = {.dev = dev, .c = c, .g = direct_grid(c), .unit = direct_unit(dev, c)};
    job.rows = block_rows(dev, job.unit.patch);
    job.blocks = ceil_div(volume(c->out), job.rows);
    int64_t pieces = ceil_div(CHUNKS_WANTED, c->n * job.blocks),
            panels = ceil_div(c->o, panel_cols(dev));
    job.cols = max(ceil_div(panels, pieces), min(panels, 8)) * panel_cols(dev);
    job.col_cnt = ceil_div(c->o, job.cols);
    pool_run(dev->pool, c->n * job.blocks * job.col_cnt, direct_chunk, &job);
}

const ConvAlgorithm conv_direct = {"direct",          "direct.n",  "direct.t", direct_weight_count,
                                   direct_work_count, direct_pack, direct_run};

// ---- strided: data gradient of stride > 1 ------------------------------------------------------

// Weights are one matrix (c, o) per tap, so that every phase takes the taps it needs.
static int64_t strided_weight_count(const CpuDevice *dev, const Conv *c) {
    return volume(c->kernel) * dense_packed_count(dev, c->c, c->o);
}
static int64_t strided_rows(const CpuDevice *dev, const Conv *c) {
    return block_rows(dev, c->c + c->o);
}
static int64_t strided_work_count(const CpuDevice *dev, const Conv *c) {
    return pool_threads(dev->pool) * strided_rows(dev, c) * (c->c + c->o);
}
static void strided_pack(CpuDevice *dev, float *dst, const Conv *c, const void *w, DType dtype) {
    PackJob job = {
        dev,  c, dst, w, dtype, dense_panel_count(dev, c->c), dense_packed_count(dev, c->c, c->o),
        false};
    pool_run(dev->pool, ceil_div(c->o, panel_cols(dev)) * volume(c->kernel), pack_chunk, &job);
}

typedef struct StridedJob {
    const CpuDevice *dev;
    const Conv *c;
    int64_t rows, blocks, phase[3]; // positions per block; blocks per n
    Grid g; // of the phase: tap m is the kernel's first + m*stride, counted from the end
    int64_t first[3];
} StridedJob;

static void strided_chunk(void *ctx, int64_t chunk, int worker) {
    const StridedJob *j = ctx;
    const Conv *c = j->c;
    int64_t n = chunk / j->blocks, q0 = chunk % j->blocks * j->rows,
            cnt = min(j->rows, volume(j->g.size) - q0);
    float *rows = c->work + worker * j->rows * (c->c + c->o), *sum = rows + j->rows * c->c;
    int64_t matrix = dense_packed_count(j->dev, c->c, c->o), tap_cnt = volume(j->g.taps);
    if (!tap_cnt) memset(sum, 0, (size_t)(cnt * c->o) * sizeof *sum);
    for (int64_t tap = 0; tap < tap_cnt; tap++) {
        int64_t m[3] = {tap / (j->g.taps[1] * j->g.taps[2]), tap / j->g.taps[2] % j->g.taps[1],
                        tap % j->g.taps[2]};
        int64_t kernel_tap = 0;
        Grid one = j->g; // this tap alone
        for (int i = 0; i < 3; i++) {
            one.taps[i] = 1, one.lo[i] = j->g.lo[i] - m[i];
            kernel_tap =
                kernel_tap * c->kernel[i] + j->first[i] + (j->g.taps[i] - 1 - m[i]) * c->stride[i];
        }
        for (int64_t i = 0; i < cnt; i++)
            gather_patch(rows + i * c->c, c, &one, q0 + i, c->x + n * volume(c->in) * c->c);
        j->dev->simd->gemm(sum, c->o, rows, c->c, 1, c->weight + kernel_tap * matrix,
                           dense_panel_count(j->dev, c->c), cnt, c->o, c->c, NULL, NULL, 0,
                           tap > 0);
    }
    for (int64_t i = 0; i < cnt; i++) {
        int64_t q = q0 + i, w = q % j->g.size[2], h = q / j->g.size[2] % j->g.size[1],
                t = q / (j->g.size[1] * j->g.size[2]);
        int64_t at = ((n * c->out[0] + t * c->stride[0] + j->phase[0]) * c->out[1] +
                      h * c->stride[1] + j->phase[1]) *
                         c->out[2] +
                     w * c->stride[2] + j->phase[2];
        memcpy(c->y + at * c->o, sum + i * c->o, (size_t)c->o * sizeof *sum);
    }
}

static void strided_run(CpuDevice *dev, const Conv *c) {
    for (int64_t p = 0; p < volume(c->stride); p++) {
        StridedJob job = {.dev = dev,
                          .c = c,
                          .rows = strided_rows(dev, c),
                          .phase = {p / (c->stride[1] * c->stride[2]),
                                    p / c->stride[2] % c->stride[1], p % c->stride[2]}};
        for (int i = 0; i < 3; i++) {
            int64_t s = c->stride[i], r = job.phase[i];
            job.first[i] = (r + c->lo[i]) % s;
            job.g.size[i] = r < c->out[i] ? ceil_div(c->out[i] - r, s) : 0;
            job.g.step[i] = 1;
            job.g.taps[i] =
                job.first[i] < c->kernel[i] ? ceil_div(c->kernel[i] - job.first[i], s) : 0;
            job.g.lo[i] = job.g.taps[i] - 1 - (r + c->lo[i] - job.first[i]) / s;
        }
        job.blocks = ceil_div(volume(job.g.size), job.rows);
        pool_run(dev->pool, c->n * job.blocks, strided_chunk, &job);
    }
}

const ConvAlgorithm conv_direct_strided = {
    "strided",          "taps.n",     "taps.t",   strided_weight_count,
    strided_work_count, strided_pack, strided_run};

// ---- Weight gradient ---------------------------------------------------------------------------

// A chunk is one tap over one slice of the positions; partial results are added in slice order.
enum { DW_PIECE = 256, DW_SLICE = 2048, DW_SLICES_MAX = 8, DW_PARTIAL_MAX = 1 << 22 };

static int64_t dw_slices(const Conv *c) {
    int64_t rows = c->n * volume(c->out), size = volume(c->kernel) * c->c * c->o;
    return max(1, min(min(rows / DW_SLICE, DW_SLICES_MAX), DW_PARTIAL_MAX / size));
}
static int64_t dw_scratch(const CpuDevice *dev, const Conv *c) {
    return DW_PIECE * c->c + dense_packed_count(dev, DW_PIECE, c->c);
}

int64_t conv_direct_dw_work_count(const CpuDevice *dev, const Conv *c) {
    return dw_slices(c) * volume(c->kernel) * c->c * c->o +
           pool_threads(dev->pool) * dw_scratch(dev, c);
}

typedef struct DwJob {
    const CpuDevice *dev;
    const Conv *c;
    const float *dy;
    float *dw, *partial, *scratch; // partial (slices, taps, o, c)
    int64_t slices, taps;
} DwJob;

static void dw_chunk(void *ctx, int64_t chunk, int worker) {
    const DwJob *j = ctx;
    const Conv *c = j->c;
    int64_t tap = chunk % j->taps, slice = chunk / j->taps, all = c->n * volume(c->out),
            len = ceil_div(all, j->slices);
    int64_t k[3] = {tap / (c->kernel[1] * c->kernel[2]), tap / c->kernel[2] % c->kernel[1],
                    tap % c->kernel[2]};
    Grid g;
    for (int i = 0; i < 3; i++)
        g.size[i] = c->out[i], g.step[i] = c->stride[i], g.taps[i] = 1, g.lo[i] = c->lo[i] - k[i];
    float *rows = j->scratch + worker * dw_scratch(j->dev, c), *panels = rows + DW_PIECE * c->c;
    float *sum = j->partial + chunk * c->o * c->c;
    int64_t from = slice * len, to = min(from + len, all);
    if (from >= to) memset(sum, 0, (size_t)(c->o * c->c) * sizeof *sum);
    for (int64_t q = from; q < to; q += DW_PIECE) {
        int64_t cnt = min(DW_PIECE, to - q), per = volume(c->out);
        for (int64_t i = 0; i < cnt; i++)
            gather_patch(rows + i * c->c, c, &g, (q + i) % per,
                         c->x + (q + i) / per * volume(c->in) * c->c);
        j->dev->simd->gemm_pack(panels, rows, DTYPE_F32, c->c, 1, cnt, c->c);
        j->dev->simd->gemm(sum, c->c, j->dy + q * c->o, 1, c->o, panels,
                           dense_panel_count(j->dev, cnt), c->o, c->c, cnt, NULL, NULL, 0,
                           q > from);
    }
}

// One output channel: dw[o][c][tap] = sum over slices of partial[slice][tap][o][c].
static void dw_sum_chunk(void *ctx, int64_t o, int worker) {
    const DwJob *j = ctx;
    int64_t c_cnt = j->c->c, matrix = j->c->o * c_cnt;
    for (int64_t tap = 0; tap < j->taps; tap++)
        for (int64_t c = 0; c < c_cnt; c++) {
            float sum = 0;
            for (int64_t s = 0; s < j->slices; s++)
                sum += j->partial[(s * j->taps + tap) * matrix + o * c_cnt + c];
            j->dw[(o * c_cnt + c) * j->taps + tap] = sum;
        }
}

void conv_direct_dw_run(CpuDevice *dev, const Conv *c, float *dw, const float *dy) {
    DwJob job = {
        .dev = dev, .c = c, .dy = dy, .dw = dw, .slices = dw_slices(c), .taps = volume(c->kernel)};
    job.partial = c->work;
    job.scratch = job.partial + job.slices * job.taps * c->c * c->o;
    pool_run(dev->pool, job.slices * job.taps, dw_chunk, &job);
    pool_run(dev->pool, c->o, dw_sum_chunk, &job);
}
