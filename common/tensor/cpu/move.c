// move: copies. Every map between two strided tensors is one list of dims with two strides each.
#include <string.h>

#include "common/tensor/cpu/cut.h"

enum {
    MOVE_DIMS = 8,
    TILE = 16, // of a transposition
};

// ---- Strided copies ----------------------------------------------------------------------------

// dst[sum of i*ds] = src[sum of i*ss], outermost dim first. Strides in elements; ss 0 repeats.
typedef struct Move {
    const SimdTable *simd;
    char *dst;
    const char *src;
    DType to, from;
    int rank;
    int64_t dim[MOVE_DIMS], ds[MOVE_DIMS], ss[MOVE_DIMS];
    int64_t outer; // product of all dims but those one unit of work covers
    bool
        transpose; // a unit is (TILE entries of the last dim but one) x (last dim), where ss of the former is 1
    Cut cut; // of units; or of the only row, when there is but one
} Move;

static void move_dim(Move *m, int64_t dim, int64_t ds, int64_t ss) {
    if (dim == 1) return;
    int k = m->rank - 1;
    if (m->rank && m->ds[k] == ds * dim && m->ss[k] == ss * dim) {
        m->dim[k] *= dim, m->ds[k] = ds, m->ss[k] = ss;
        return;
    }
    m->dim[m->rank] = dim, m->ds[m->rank] = ds, m->ss[m->rank++] = ss;
}

static void fill_row(char *dst, const char *src, int64_t n, size_t size) {
    if (size == 4) {
        uint32_t v;
        memcpy(&v, src, 4);
        for (int64_t i = 0; i < n; i++) ((uint32_t *)dst)[i] = v;
    } else {
        for (int64_t i = 0; i < n; i++) memcpy(dst + (size_t)i * size, src, size);
    }
}

static void move_row(const Move *m, char *dst, const char *src, int64_t n, int64_t ds, int64_t ss) {
    size_t size = dtype_bytes(m->to), from = dtype_bytes(m->from);
    bool dense = (ds == 1 && ss == 1) || n == 1;
    if (m->to != m->from) {
        if (dense && m->to == DTYPE_F32 && (m->from == DTYPE_F16 || m->from == DTYPE_BF16))
            m->simd->widen((float *)dst, src, m->from, n);
        else if (dense)
            dtype_convert(dst, m->to, src, m->from, (size_t)n);
        else
            for (int64_t i = 0; i < n; i++)
                dtype_convert(dst + (size_t)(i * ds) * size, m->to, src + (size_t)(i * ss) * from,
                              m->from, 1);
    } else if (dense) {
        memcpy(dst, src, (size_t)n * size);
    } else if (ds == 1 && ss == 0) {
        fill_row(dst, src, n, size);
    } else if (size == 4) {
        for (int64_t i = 0; i < n; i++) ((uint32_t *)dst)[i * ds] = ((const uint32_t *)src)[i * ss];
    } else {
        for (int64_t i = 0; i < n; i++)
            memcpy(dst + (size_t)(i * ds) * size, src + (size_t)(i * ss) * size, size);
    }
}

// rows x cols elements of 4 bytes; dst rows ds apart, src columns ss apart.
static void move_tile(uint32_t *dst, int64_t ds, const uint32_t *src, int64_t ss, int64_t rows,
                      int64_t cols) {
    for (int64_t c = 0; c < cols; c += TILE) {
        int64_t end = c + TILE < cols ? c + TILE : cols;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = c; k < end; k++) dst[r * ds + k] = src[k * ss + r];
    }
}

static void move_chunk(void *ctx, int64_t chunk, int worker) {
    const Move *m = ctx;
    size_t size = dtype_bytes(m->to), from = dtype_bytes(m->from);
    int last = m->rank - 1,
        inner = m->transpose ? last - 1 : last; // dims before `inner` count units
    int64_t unit = cut_first(&m->cut, chunk), end = unit + cut_len(&m->cut, chunk);
    if (m->outer == 1 && !m->transpose) { // a single row, cut along itself
        move_row(m, m->dst + (size_t)(unit * m->ds[last]) * size,
                 m->src + (size_t)(unit * m->ss[last]) * from, end - unit, m->ds[last],
                 m->ss[last]);
        return;
    }
    int64_t tiles = m->transpose ? (m->dim[inner] + TILE - 1) / TILE : 1;
    for (; unit < end; unit++) {
        int64_t d = 0, s = 0, rest = unit / tiles, tile = unit % tiles * TILE;
        for (int i = inner - 1; i >= 0; rest /= m->dim[i--]) {
            d += rest % m->dim[i] * m->ds[i];
            s += rest % m->dim[i] * m->ss[i];
        }
        if (!m->transpose) {
            move_row(m, m->dst + (size_t)d * size, m->src + (size_t)s * from, m->dim[last],
                     m->ds[last], m->ss[last]);
            continue;
        }
        int64_t rows = m->dim[inner] - tile < TILE ? m->dim[inner] - tile : TILE;
        move_tile((uint32_t *)m->dst + d + tile * m->ds[inner], m->ds[inner],
                  (const uint32_t *)m->src + s + tile, m->ss[last], rows, m->dim[last]);
    }
}

static void swap(int64_t *a, int64_t *b) {
    int64_t c = *a;
    *a = *b, *b = c;
}

// Brings the dim that src walks element by element next to the one that dst does.
static void find_transpose(Move *m) {
    int last = m->rank - 1, at = last - 1;
    if (last < 1 || m->ds[last] != 1 || m->ss[last] <= 1 || m->to != m->from ||
        dtype_bytes(m->to) != 4)
        return;
    while (at >= 0 && m->ss[at] != 1) at--;
    if (at < 0 || m->dim[last] < 4 || m->dim[at] < 4) return;
    for (; at < last - 1; at++) {
        swap(&m->dim[at], &m->dim[at + 1]);
        swap(&m->ds[at], &m->ds[at + 1]);
        swap(&m->ss[at], &m->ss[at + 1]);
    }
    m->transpose = true;
}

static void move_run(CpuDevice *dev, Move *m) {
    m->simd = dev->simd;
    if (!m->rank) move_dim(m, 1, 1, 1), m->dim[0] = m->ds[0] = m->ss[0] = 1, m->rank = 1;
    find_transpose(m);
    m->outer = 1;
    for (int i = 0; i < m->rank - 1 - m->transpose; i++) m->outer *= m->dim[i];
    int64_t n = m->dim[m->rank - 1];
    if (m->transpose)
        m->cut = cut(m->outer * ((m->dim[m->rank - 2] + TILE - 1) / TILE), n * TILE, 1);
    else
        m->cut = m->outer == 1 ? cut(n, 1, 64) : cut(m->outer, n, 1);
    pool_run(dev->pool, m->cut.cnt, move_chunk, m);
}

static Move move_between(const Step *step) {
    return (Move){.dst = step->dst,
                  .src = step->src[0],
                  .to = step->node->dtype,
                  .from = step->node->in[0]->dtype};
}

static void copy_run(Backend *be, Step *step) {
    const Tensor *t = step->node;
    Move m = move_between(step);
    for (int i = 0; i < t->shape.rank; i++)
        move_dim(&m, t->shape.dim[i], t->stride[i], t->in[0]->stride[i]);
    move_run(cpu_device(be), &m);
}
const Kernel cpu_kernel_copy = {.run = copy_run};

static void permute_run(Backend *be, Step *step) {
    const Tensor *t = step->node;
    Move m = move_between(step);
    for (int i = 0; i < t->shape.rank; i++)
        move_dim(&m, t->shape.dim[i], t->stride[i], t->in[0]->stride[t->attr.permute.perm[i]]);
    move_run(cpu_device(be), &m);
}
const Kernel cpu_kernel_permute = {.run = permute_run};

static void expand_run(Backend *be, Step *step) {
    const Tensor *t = step->node, *x = t->in[0];
    Move m = move_between(step);
    for (int i = 0; i < t->shape.rank; i++)
        move_dim(&m, t->shape.dim[i], t->stride[i], x->shape.dim[i] == 1 ? 0 : x->stride[i]);
    move_run(cpu_device(be), &m);
}
const Kernel cpu_kernel_expand = {.run = expand_run};

static void concat_run(Backend *be, Step *step) {
    const Tensor *t = step->node;
    int axis = t->attr.index.axis;
    int64_t at = 0;
    for (int k = 0; k < t->in_cnt; at += t->in[k++]->shape.dim[axis]) {
        const Tensor *x = t->in[k];
        Move m = {.dst = (char *)step->dst + (size_t)(at * t->stride[axis]) * dtype_bytes(t->dtype),
                  .src = step->src[k],
                  .to = t->dtype,
                  .from = x->dtype};
        for (int i = 0; i < t->shape.rank; i++)
            move_dim(&m, x->shape.dim[i], t->stride[i], x->stride[i]);
        move_run(cpu_device(be), &m);
    }
}
const Kernel cpu_kernel_concat = {.run = concat_run};

// The patch side is contiguous (N, T', H', W', C, pt, ph, pw); the other strides are those of x (N, T, H, W, C).
static void patch_run(Backend *be, Step *step, const Tensor *x, const Tensor *patches,
                      bool unpatch) {
    int pt = step->node->attr.patch.pt, ph = step->node->attr.patch.ph,
        pw = step->node->attr.patch.pw;
    const int64_t *d = x->shape.dim, *s = x->stride;
    int64_t dim[MOVE_DIMS] = {d[0], d[1] / pt, d[2] / ph, d[3] / pw, d[4], pt, ph, pw};
    int64_t image[MOVE_DIMS] = {s[0], s[1] * pt, s[2] * ph, s[3] * pw, s[4], s[1], s[2], s[3]},
            row[MOVE_DIMS];
    for (int64_t i = MOVE_DIMS - 1, n = 1; i >= 0; n *= dim[i--]) row[i] = n;
    Move m = move_between(step);
    static const int image_order[MOVE_DIMS] = {0, 1, 5, 2,
                                               6, 3, 7, 4}; // so that dst is walked in order
    for (int i = 0; i < MOVE_DIMS; i++) {
        int k = unpatch ? image_order[i] : i;
        move_dim(&m, dim[k], unpatch ? image[k] : row[k], unpatch ? row[k] : image[k]);
    }
    move_run(cpu_device(be), &m);
}

static void patchify_run(Backend *be, Step *step) {
    patch_run(be, step, step->node->in[0], step->node, false);
}
const Kernel cpu_kernel_patchify = {.run = patchify_run};
static void unpatchify_run(Backend *be, Step *step) {
    patch_run(be, step, step->node, step->node->in[0], true);
}
const Kernel cpu_kernel_unpatchify = {.run = unpatchify_run};

// ---- pad ---------------------------------------------------------------------------------------

// Rows of the last padded axis with all that lies behind it; axes before it count rows.
typedef struct PadJob {
    const Step *step;
    int axis;
    int64_t inner, row, x_row; // elements of one entry of the axis, of a row, of a row of x
    size_t size;
    Cut cut;
} PadJob;

static void pad_chunk(void *ctx, int64_t chunk, int worker) {
    const PadJob *job = ctx;
    const Tensor *t = job->step->node, *x = t->in[0];
    size_t size = job->size, lo = (size_t)(t->attr.pad.lo[job->axis] * job->inner) * size;
    size_t len = (size_t)job->x_row * size, all = (size_t)job->row * size;
    int64_t row = cut_first(&job->cut, chunk), end = row + cut_len(&job->cut, chunk);
    for (; row < end; row++) {
        int64_t rest = row, from = 0, step = 1;
        bool inside = true;
        for (int i = job->axis - 1; i >= 0; rest /= t->shape.dim[i--]) {
            int64_t k = rest % t->shape.dim[i] - t->attr.pad.lo[i];
            inside = inside && k >= 0 && k < x->shape.dim[i];
            from += k * step;
            step *= x->shape.dim[i];
        }
        char *y = (char *)job->step->dst + (size_t)row * all;
        if (!inside) {
            memset(y, 0, all);
            continue;
        }
        memset(y, 0, lo);
        memcpy(y + lo, (const char *)job->step->src[0] + (size_t)from * len, len);
        memset(y + lo + len, 0, all - lo - len);
    }
}

static void pad_run(Backend *be, Step *step) {
    const Tensor *t = step->node;
    PadJob job = {.step = step, .size = dtype_bytes(t->dtype), .axis = t->shape.rank - 1};
    while (job.axis > 0 && !t->attr.pad.lo[job.axis] && !t->attr.pad.hi[job.axis]) job.axis--;
    job.inner = shape_span(t->shape, job.axis + 1, t->shape.rank);
    job.row = t->shape.dim[job.axis] * job.inner;
    job.x_row = t->in[0]->shape.dim[job.axis] * job.inner;
    job.cut = cut(shape_span(t->shape, 0, job.axis), job.row, 1);
    pool_run(cpu_device(be)->pool, job.cut.cnt, pad_chunk, &job);
}
const Kernel cpu_kernel_pad = {.run = pad_run};

// ---- gather, scatter_add -----------------------------------------------------------------------

typedef struct IndexJob {
    const Step *step;
    const SimdTable *simd;
    int64_t m, len, inner,
        outer;      // indices per outer entry; rows they choose from; elements of a row
    bool per_outer; // every outer entry has its own indices
    Cut cut;        // gather: rows of the result; scatter_add: columns
} IndexJob;

static IndexJob index_job(Backend *be, const Step *step, int64_t len) {
    const Tensor *x = step->node->in[0], *idx = step->node->in[1];
    int axis = step->node->attr.index.axis;
    return (IndexJob){.step = step,
                      .simd = cpu_device(be)->simd,
                      .m = cut_last_dim(idx),
                      .len = len,
                      .inner = shape_span(x->shape, axis + 1, x->shape.rank),
                      .outer = shape_span(x->shape, 0, axis),
                      .per_outer = idx->shape.rank == 2};
}

static int64_t index_at(const IndexJob *job, int64_t outer, int64_t j) {
    int64_t at = ((const int32_t *)job->step->src[1])[job->per_outer ? outer * job->m + j : j];
    die_unless(at >= 0 && at < job->len, "%s: index %lld at position %lld, want 0 to %lld",
               job->step->node->name, (long long)at, (long long)j, (long long)(job->len - 1));
    return at;
}

static void gather_chunk(void *ctx, int64_t chunk, int worker) {
    const IndexJob *job = ctx;
    DType from = job->step->node->in[0]->dtype, to = job->step->node->dtype;
    size_t size = dtype_bytes(from);
    int64_t row = cut_first(&job->cut, chunk), end = row + cut_len(&job->cut, chunk);
    for (; row < end; row++) {
        int64_t outer = row / job->m, at = outer * job->len + index_at(job, outer, row % job->m);
        const char *x = (const char *)job->step->src[0] + (size_t)(at * job->inner) * size;
        char *y = (char *)job->step->dst + (size_t)(row * job->inner) * dtype_bytes(to);
        if (from == to)
            memcpy(y, x, (size_t)job->inner * size);
        else
            job->simd->widen((float *)y, x, from, job->inner);
    }
}

static void gather_run(Backend *be, Step *step) {
    const Tensor *x = step->node->in[0];
    IndexJob job = index_job(be, step, x->shape.dim[step->node->attr.index.axis]);
    job.cut = cut(job.outer * job.m, job.inner, 1);
    pool_run(cpu_device(be)->pool, job.cut.cnt, gather_chunk, &job);
}
const Kernel cpu_kernel_gather = {.run = gather_run};

static void scatter_add_chunk(void *ctx, int64_t chunk, int worker) {
    const IndexJob *job = ctx;
    int64_t outer = chunk / job->cut.cnt, col = cut_first(&job->cut, chunk % job->cut.cnt);
    int64_t cols = cut_len(&job->cut, chunk % job->cut.cnt);
    const float *x = (const float *)job->step->src[0] + outer * job->m * job->inner + col;
    float *y = (float *)job->step->dst + outer * job->len * job->inner + col;
    for (int64_t i = 0; i < job->len; i++) memset(y + i * job->inner, 0, (size_t)cols * sizeof *y);
    for (int64_t j = 0; j < job->m; j++)
        job->simd->axpy(y + index_at(job, outer, j) * job->inner, x + j * job->inner, 1, cols);
}

static void scatter_add_run(Backend *be, Step *step) {
    IndexJob job = index_job(be, step, step->node->attr.index.len);
    job.cut = cut(job.inner, job.m + job.len, 64);
    pool_run(cpu_device(be)->pool, job.outer * job.cut.cnt, scatter_add_chunk, &job);
}
const Kernel cpu_kernel_scatter_add = {.run = scatter_add_run};
