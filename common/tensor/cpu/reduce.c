// reduce: sums over any axes, and what works row by row on the last axis.
//
// A sum is (kept rows) x (reduced rows) x n contiguous elements, the latter kept or reduced. With few
// results the reduced rows are cut into parts, a number that depends on the shape only; their partial sums
// are doubles, added in order.
#include "common/tensor/cpu/cut.h"

enum { SUM_COLS = 4096, SUM_PARTS = 16, SUM_PART_FLOATS = 32768 };

// A group of axes walked as one number, innermost first.
typedef struct Axes {
    int rank;
    int64_t dim[TENSOR_DIMS_MAX], stride[TENSOR_DIMS_MAX], cnt;
} Axes;

static void axes_add(Axes *a, int64_t dim, int64_t stride) {
    a->dim[a->rank] = dim, a->stride[a->rank++] = stride;
    a->cnt *= dim;
}

static int64_t axes_offset(const Axes *a, int64_t i) {
    int64_t at = 0;
    for (int k = 0; k < a->rank; i /= a->dim[k++]) at += i % a->dim[k] * a->stride[k];
    return at;
}

typedef struct Sum {
    Axes kept, reduced; // without the innermost run of elements
    int64_t n;
    bool keep_inner;       // the innermost n elements are results, not summed
    int64_t cols, col_cnt; // results of one unit of work: pieces of the n
    int64_t units, parts;
} Sum;

static Sum sum_of(const Tensor *t) {
    const Shape s = t->in[0]->shape;
    Sum m = {.kept = {.cnt = 1}, .reduced = {.cnt = 1}, .n = 1};
    int64_t stride = 1;
    bool open = true; // the innermost run still grows
    for (int i = s.rank - 1; i >= 0; stride *= s.dim[i--]) {
        if (s.dim[i] == 1) continue;
        bool keep = !t->attr.sum.axis[i];
        if (m.n == 1) m.keep_inner = keep;
        open = open && keep == m.keep_inner;
        if (open)
            m.n *= s.dim[i];
        else
            axes_add(keep ? &m.kept : &m.reduced, s.dim[i], stride);
    }
    m.cols = m.keep_inner && m.n > SUM_COLS ? SUM_COLS : m.n;
    m.col_cnt = (m.n + m.cols - 1) / m.cols;
    m.units = m.kept.cnt * m.col_cnt;
    int64_t rows = m.keep_inner || m.reduced.cnt > 1 ? m.reduced.cnt : m.n,
            each = m.reduced.cnt * m.cols;
    m.parts = m.units >= SUM_PARTS ? 1 : each / SUM_PART_FLOATS;
    if (m.parts > SUM_PARTS) m.parts = SUM_PARTS;
    if (m.parts > rows) m.parts = rows;
    if (m.parts < 1) m.parts = 1;
    return m;
}

// Adds part of the reduced rows of one unit to sum[0 .. cols).
static void sum_unit(const SimdTable *simd, const Sum *m, const float *x, int64_t unit,
                     int64_t part, double *sum) {
    int64_t col = unit % m->col_cnt * m->cols, cols = m->n - col < m->cols ? m->n - col : m->cols;
    x += axes_offset(&m->kept, unit / m->col_cnt) + col;
    bool cut_inner = !m->keep_inner && m->reduced.cnt == 1;
    int64_t total = cut_inner ? m->n : m->reduced.cnt;
    int64_t i = total * part / m->parts, end = total * (part + 1) / m->parts;
    if (cut_inner) {
        *sum += simd->sum_row(x + i, end - i);
    } else if (!m->keep_inner) {
        for (; i < end; i++) *sum += simd->sum_row(x + axes_offset(&m->reduced, i), m->n);
    } else {
        int64_t run = m->reduced.rank ? m->reduced.dim[0] : 1,
                stride = m->reduced.rank ? m->reduced.stride[0] : 0;
        for (int64_t len; i < end; i += len) {
            len = run - i % run < end - i ? run - i % run : end - i;
            simd->sum_rows(sum, x + axes_offset(&m->reduced, i), stride, len, cols);
        }
    }
}

typedef struct SumJob {
    const Step *step;
    const SimdTable *simd;
    Sum m;
    Cut cut; // of the units, when there is one part
} SumJob;

// Results of a unit lie side by side at the same place in dst.
static int64_t sum_place(const Sum *m, int64_t unit) {
    return m->keep_inner ? unit / m->col_cnt * m->n + unit % m->col_cnt * m->cols : unit;
}
static int64_t sum_width(const Sum *m, int64_t unit) {
    if (!m->keep_inner) return 1;
    int64_t left = m->n - unit % m->col_cnt * m->cols;
    return left < m->cols ? left : m->cols;
}
static int64_t sum_results(const Sum *m) { return m->kept.cnt * (m->keep_inner ? m->n : 1); }

static void sum_part_chunk(void *ctx, int64_t chunk, int worker) {
    const SumJob *job = ctx;
    const Sum *m = &job->m;
    int64_t part = chunk / m->units, unit = chunk % m->units, width = sum_width(m, unit);
    double *sum = (double *)job->step->work + part * sum_results(m) + sum_place(m, unit);
    for (int64_t i = 0; i < width; i++) sum[i] = 0;
    sum_unit(job->simd, m, job->step->src[0], unit, part, sum);
}

static void sum_chunk(void *ctx, int64_t chunk, int worker) {
    const SumJob *job = ctx;
    const Sum *m = &job->m;
    double *sum = (double *)job->step->work + worker * (m->keep_inner ? m->cols : 1);
    int64_t unit = cut_first(&job->cut, chunk), end = unit + cut_len(&job->cut, chunk);
    for (; unit < end; unit++) {
        int64_t width = sum_width(m, unit);
        float *y = (float *)job->step->dst + sum_place(m, unit);
        for (int64_t i = 0; i < width; i++) sum[i] = 0;
        sum_unit(job->simd, m, job->step->src[0], unit, 0, sum);
        for (int64_t i = 0; i < width; i++) y[i] = (float)sum[i];
    }
}

static Err sum_prepare(Backend *be, Step *step) {
    Sum m = sum_of(step->node);
    int64_t each = m.keep_inner ? m.cols : 1;
    int64_t cnt =
        m.parts > 1 ? m.parts * sum_results(&m) : pool_threads(cpu_device(be)->pool) * each;
    step->work_bytes = (size_t)cnt * sizeof(double);
    return ERR_OK;
}

static void sum_run(Backend *be, Step *step) {
    CpuDevice *dev = cpu_device(be);
    SumJob job = {.step = step, .simd = dev->simd, .m = sum_of(step->node)};
    const Sum *m = &job.m;
    job.cut = cut(m->units, m->reduced.cnt * m->cols, 1);
    if (m->parts == 1) {
        pool_run(dev->pool, job.cut.cnt, sum_chunk, &job);
        return;
    }
    pool_run(dev->pool, m->units * m->parts, sum_part_chunk, &job);
    const double *partial = step->work;
    int64_t cnt = sum_results(m);
    for (int64_t i = 0; i < cnt; i++) {
        double sum = 0;
        for (int64_t p = 0; p < m->parts; p++) sum += partial[p * cnt + i];
        ((float *)step->dst)[i] = (float)sum;
    }
}
const Kernel cpu_kernel_sum = {.prepare = sum_prepare, .run = sum_run};

// ---- Rows of the last axis ---------------------------------------------------------------------

#define ROW_KERNEL(name, call)                                                       \
    static void name##_chunk(void *ctx, int64_t chunk, int worker) {                 \
        const CutJob *job = ctx;                                                     \
        int64_t row = cut_first(&job->cut, chunk), rows = cut_len(&job->cut, chunk), \
                n = job->width;                                                      \
        const float *x = (const float *)job->step->src[0] + row * n;                 \
        call;                                                                        \
    }                                                                                \
    static void name##_run(Backend *be, Step *step) {                                \
        cut_run_rows(be, step, step->node->in[0], name##_chunk);                     \
    }                                                                                \
    const Kernel cpu_kernel_##name = {.run = name##_run};
#define ROW_OUT ((float *)job->step->dst + row * n)
#define ROW_SRC1 ((const float *)job->step->src[1] + row * n)

ROW_KERNEL(max, for (int64_t r = 0; r < rows;
                     r++)((float *)job->step->dst)[row + r] = job->simd->max_row(x + r * n, n))
ROW_KERNEL(argmax, for (int64_t r = 0; r < rows; r++)((int32_t *)job->step->dst)[row + r] =
                       (int32_t)job->simd->argmax_row(x + r * n, n))
ROW_KERNEL(softmax, job->simd->softmax(ROW_OUT, x, rows, n))
ROW_KERNEL(softmax_dx, job->simd->softmax_dx(ROW_OUT, x, ROW_SRC1, rows, n))
ROW_KERNEL(log_softmax, job->simd->log_softmax(ROW_OUT, x, rows, n))
ROW_KERNEL(log_softmax_dx, job->simd->log_softmax_dx(ROW_OUT, x, ROW_SRC1, rows, n))
