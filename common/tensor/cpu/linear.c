// linear: products with a weight: linear, lora_linear, linear_dw, and bmm.
//
// A constant weight is packed once; its LoRA (scale B A, a low-rank product) is added to the panels
// at each run, into the step's workspace: for M rows that costs r/M of the product itself. Weights
// that are results of the graph, or all of them without pack_weights, are packed into the workspace
// at each run.
#include <string.h>

#include "common/tensor/cpu/dense.h"

static int64_t last_dim(const Tensor *t) { return t->shape.dim[t->shape.rank - 1]; }
static int64_t rows_of(const Tensor *t) { return shape_count(t->shape) / last_dim(t); }
static int64_t row_stride(const Tensor *t) {
    int64_t stride = last_dim(t);
    if (t->shape.rank > 1)
        die_unless(tensor_has_rows(t, &stride), "%s: not rows of one stride", t->name);
    return stride;
}

// ---- The weight (N, K) of linear and lora_linear -----------------------------------------------

// Packs w (N, K) for x W^T, or for x W.
static void pack_weight(Backend *be, const Tensor *w, const void *data, bool trans, float *panels) {
    int64_t n = w->shape.dim[0], k = shape_count(w->shape) / n, stride = row_stride(w);
    if (trans)
        dense_pack(cpu_device(be), panels, data, w->dtype, stride, 1, n, k, 1, 0);
    else
        dense_pack(cpu_device(be), panels, data, w->dtype, 1, stride, k, n, 1, 0);
}
static void fill_plain(Backend *be, const Tensor *w, void *dst) {
    pack_weight(be, w, w->data, false, dst);
}
static void fill_trans(Backend *be, const Tensor *w, void *dst) {
    pack_weight(be, w, w->data, true, dst);
}

static size_t weight_bytes(Backend *be, const Tensor *w, bool trans) {
    int64_t n = w->shape.dim[0], k = w->shape.dim[1];
    int64_t cnt =
        trans ? dense_packed_count(cpu_device(be), n, k) : dense_packed_count(cpu_device(be), k, n);
    return (size_t)cnt * sizeof(float);
}

// Leaves step->packed NULL when the weight must be packed at each run.
static void prepare_weight(Backend *be, Step *step) {
    bool trans = step->node->attr.linear.trans;
    const Tensor *w = be->opt.pack_weights ? cpu_constant(step, step->node->in[1]) : NULL;
    if (w)
        step->packed = backend_pack(be, w, trans ? "gemm.t" : "gemm.n", weight_bytes(be, w, trans),
                                    trans ? fill_trans : fill_plain);
    strcpy(step->note, w ? "packed gemm" : "gemm");
}

// x (..., K) panels + bias + residual; the last two are at in[at] and in[at + 1].
static void run_product(Backend *be, Step *step, const float *panels, int at) {
    const Tensor *t = step->node, *x = t->in[0],
                 *residual = at + 1 < t->in_cnt ? t->in[at + 1] : NULL;
    Dense d = {.m = rows_of(x),
               .n = last_dim(t),
               .k = last_dim(x),
               .y = step->dst,
               .y_row = last_dim(t),
               .a = step->src[0],
               .a_row = row_stride(x),
               .a_col = 1,
               .panels = panels,
               .bias = at < t->in_cnt ? step->src[at] : NULL};
    if (residual) d.residual = step->src[at + 1], d.residual_row = row_stride(residual);
    dense_run(cpu_device(be), &d);
}

static Err linear_prepare(Backend *be, Step *step) {
    prepare_weight(be, step);
    if (!step->packed)
        step->work_bytes = weight_bytes(be, step->node->in[1], step->node->attr.linear.trans);
    return ERR_OK;
}

static void linear_run(Backend *be, Step *step) {
    const Tensor *w = step->node->in[1];
    if (!step->packed) pack_weight(be, w, step->src[1], step->node->attr.linear.trans, step->work);
    run_product(be, step, step->packed ? step->packed->data : step->work, 2);
}
const Kernel cpu_kernel_linear = {.prepare = linear_prepare, .run = linear_run};

// ---- LoRA --------------------------------------------------------------------------------------

// Workspace: merged panels, then B (or A, transposed) as panels of r rows.
typedef struct LoraJob {
    const CpuDevice *dev;
    float *merged;
    const float *panels; // of W; may be merged itself
    const float *low;    // packed: B^T (r, N), or A (r, K) when trans
    const float *high;   // A (r, K), or B (N, r) when trans
    float scale;
    int64_t rows, r, high_row, high_col; // rows of a panel; element (row, j) of high
} LoraJob;

// One panel: merged = panels + high low. The strip of low is scaled in place first; nobody else
// reads it.
static void lora_chunk(void *ctx, int64_t chunk, int worker) {
    const LoraJob *j = ctx;
    int64_t nr = 2 * j->dev->simd->vlen;
    float *low = (float *)j->low + chunk * j->r * nr;
    for (int64_t i = 0; i < j->r * nr; i++) low[i] *= j->scale;
    j->dev->simd->gemm(j->merged + chunk * j->rows * nr, nr, j->high, j->high_row, j->high_col, low,
                       j->r * nr, j->rows, nr, j->r, NULL, j->panels + chunk * j->rows * nr, nr, 0);
}

static Err lora_prepare(Backend *be, Step *step) {
    const Tensor *w = step->node->in[1], *a = step->node->in[2];
    bool trans = step->node->attr.linear.trans;
    prepare_weight(be, step);
    int64_t low = dense_packed_count(cpu_device(be), a->shape.dim[0], w->shape.dim[trans ? 1 : 0]);
    step->work_bytes = weight_bytes(be, w, trans) + (size_t)low * sizeof(float);
    strcpy(step->note, step->packed ? "merged packed gemm" : "merged gemm");
    return ERR_OK;
}

static void lora_run(Backend *be, Step *step) {
    CpuDevice *dev = cpu_device(be);
    const Tensor *t = step->node, *w = t->in[1], *a = t->in[2], *b = t->in[3];
    bool trans = t->attr.linear.trans;
    int64_t n = w->shape.dim[0], k = w->shape.dim[1], r = a->shape.dim[0];
    int64_t a_row = row_stride(a), b_row = row_stride(b), cols = trans ? k : n;
    float *merged = step->work, *low = merged + weight_bytes(be, w, trans) / sizeof(float);
    if (!step->packed) pack_weight(be, w, step->src[1], trans, merged);
    if (trans)
        dense_pack(dev, low, step->src[2], DTYPE_F32, a_row, 1, r, k, 1, 0);
    else
        dense_pack(dev, low, step->src[3], DTYPE_F32, 1, b_row, r, n, 1, 0);
    LoraJob job = {.dev = dev,
                   .merged = merged,
                   .panels = step->packed ? step->packed->data : merged,
                   .low = low,
                   .high = step->src[trans ? 3 : 2],
                   .scale = (float)t->attr.linear.scale,
                   .rows = trans ? n : k,
                   .r = r,
                   .high_row = trans ? b_row : 1,
                   .high_col = trans ? 1 : a_row};
    pool_run(dev->pool, dense_packed_count(dev, 1, cols) / (2 * dev->simd->vlen), lora_chunk, &job);
    run_product(be, step, merged, 4);
}
const Kernel cpu_kernel_lora_linear = {.prepare = lora_prepare, .run = lora_run};

// ---- linear_dw: (N, K) = dy^T x, a sum over rows ------------------------------------------------

// Rows are cut into slices (each with its own partial result, added in order) when the result is
// small, the result into blocks; a chunk walks its rows in pieces that it packs for itself.
enum { DW_PIECE = 512, DW_COLS = 256, DW_ROWS = 192, DW_SLICES_MAX = 16, DW_SMALL = 1 << 16 };

typedef struct DwJob {
    const CpuDevice *dev;
    const float *dy, *x;
    float *y, *partial, *scratch;
    int64_t m, n, k, dy_row, x_row;
    int64_t slices, slice_rows, n_cnt, k_cnt, scratch_count;
} DwJob;

static DwJob dw_job(const CpuDevice *dev, const Tensor *t) {
    DwJob j = {
        .dev = dev, .m = rows_of(t->in[0]), .n = last_dim(t->in[0]), .k = last_dim(t->in[1])};
    j.slices = 1;
    if (j.n * j.k <= DW_SMALL) j.slices = j.m / DW_PIECE;
    if (j.slices > DW_SLICES_MAX) j.slices = DW_SLICES_MAX;
    if (j.slices < 1) j.slices = 1;
    j.slice_rows = (j.m + j.slices - 1) / j.slices;
    j.n_cnt = (j.n + DW_ROWS - 1) / DW_ROWS;
    j.k_cnt = (j.k + DW_COLS - 1) / DW_COLS;
    j.scratch_count = dense_packed_count(dev, DW_PIECE, j.k < DW_COLS ? j.k : DW_COLS);
    return j;
}

static void dw_chunk(void *ctx, int64_t chunk, int worker) {
    const DwJob *j = ctx;
    int64_t k0 = chunk % j->k_cnt * DW_COLS, n0 = chunk / j->k_cnt % j->n_cnt * DW_ROWS;
    int64_t slice = chunk / (j->k_cnt * j->n_cnt);
    int64_t cols = j->k - k0 < DW_COLS ? j->k - k0 : DW_COLS,
            rows = j->n - n0 < DW_ROWS ? j->n - n0 : DW_ROWS;
    float *y = (j->slices > 1 ? j->partial + slice * j->n * j->k : j->y) + n0 * j->k + k0;
    float *panels = j->scratch + worker * j->scratch_count;
    int64_t from = slice * j->slice_rows,
            to = from + j->slice_rows < j->m ? from + j->slice_rows : j->m;
    for (int64_t i = from; i < to; i += DW_PIECE) {
        int64_t piece = to - i < DW_PIECE ? to - i : DW_PIECE;
        j->dev->simd->gemm_pack(panels, j->x + i * j->x_row + k0, DTYPE_F32, j->x_row, 1, piece,
                                cols);
        j->dev->simd->gemm(y, j->k, j->dy + i * j->dy_row + n0, 1, j->dy_row, panels,
                           dense_panel_count(j->dev, piece), rows, cols, piece, NULL, NULL, 0,
                           i > from);
    }
}

static Err linear_dw_prepare(Backend *be, Step *step) {
    DwJob j = dw_job(cpu_device(be), step->node);
    int64_t partial = j.slices > 1 ? j.slices * j.n * j.k : 0;
    step->work_bytes =
        (size_t)(pool_threads(j.dev->pool) * j.scratch_count + partial) * sizeof(float);
    strcpy(step->note, "gemm");
    return ERR_OK;
}

static void linear_dw_run(Backend *be, Step *step) {
    DwJob j = dw_job(cpu_device(be), step->node);
    j.dy = step->src[0], j.x = step->src[1], j.y = step->dst;
    j.dy_row = row_stride(step->node->in[0]), j.x_row = row_stride(step->node->in[1]);
    j.scratch = step->work;
    j.partial = j.scratch + pool_threads(j.dev->pool) * j.scratch_count;
    pool_run(j.dev->pool, j.slices * j.n_cnt * j.k_cnt, dw_chunk, &j);
    if (j.slices == 1) return;
    for (int64_t i = 0; i < j.n * j.k; i++) {
        float sum = j.partial[i];
        for (int64_t s = 1; s < j.slices; s++) sum += j.partial[s * j.n * j.k + i];
        j.y[i] = sum;
    }
}
const Kernel cpu_kernel_linear_dw = {.prepare = linear_dw_prepare, .run = linear_dw_run};

// ---- bmm ---------------------------------------------------------------------------------------

static Err bmm_prepare(Backend *be, Step *step) {
    const Tensor *t = step->node;
    const int64_t *b = t->in[1]->shape.dim + t->in[1]->shape.rank - 2;
    int64_t batch = shape_span(t->shape, 0, t->shape.rank - 2);
    bool tb = t->attr.bmm.tb;
    step->work_bytes =
        (size_t)(batch * dense_packed_count(cpu_device(be), b[tb ? 1 : 0], b[tb ? 0 : 1])) *
        sizeof(float);
    strcpy(step->note, "gemm");
    return ERR_OK;
}

static void bmm_run(Backend *be, Step *step) {
    CpuDevice *dev = cpu_device(be);
    const Tensor *t = step->node, *a = t->in[0];
    bool ta = t->attr.bmm.ta, tb = t->attr.bmm.tb;
    int64_t n = last_dim(t), m = t->shape.dim[t->shape.rank - 2],
            k = a->shape.dim[a->shape.rank - (ta ? 2 : 1)];
    int64_t batch = shape_span(t->shape, 0, t->shape.rank - 2);
    dense_pack(dev, step->work, step->src[1], DTYPE_F32, tb ? 1 : n, tb ? k : 1, k, n, batch,
               k * n);
    Dense d = {.batch = batch,
               .m = m,
               .n = n,
               .k = k,
               .y = step->dst,
               .y_row = n,
               .y_batch = m * n,
               .a = step->src[0],
               .a_row = ta ? 1 : k,
               .a_col = ta ? m : 1,
               .a_batch = m * k,
               .panels = step->work,
               .panels_batch = dense_packed_count(dev, k, n)};
    dense_run(dev, &d);
}
const Kernel cpu_kernel_bmm = {.prepare = bmm_prepare, .run = bmm_run};
