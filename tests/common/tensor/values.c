// values: seeds from names, numbers from rng.h, comparison in double.
#include "tests/common/tensor/values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"

void values_normal(float *x, int64_t n, uint64_t seed) {
    rng_fill_normal((RngKey){.seed = seed, .use = rng_use(RNG_TEST, 0, 0, 0, 0)}, x, (size_t)n);
}

uint64_t values_seed(const char *text) { // FNV-1a
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

Err values_feed(Plan *plan, const Graph *g) {
    for (int i = 0; i < g->node_cnt; i++) {
        const Tensor *t = g->node[i];
        if (t->op != OP_INPUT || t->dtype != DTYPE_F32 || !plan_data(plan, t)) continue;
        int64_t n = shape_count(t->shape);
        float *x = malloc(sizeof *x * (size_t)n);
        die_unless(x, "values: out of memory");
        values_normal(x, n, values_seed(t->name));
        Err err = plan_write(plan, t, x);
        free(x);
        TRY(err);
    }
    return ERR_OK;
}

double *values_read(const Backend *be, const Plan *plan, const Tensor *t) {
    const void *data = plan_data(plan, t);
    size_t n = (size_t)shape_count(t->shape);
    double *x = malloc(sizeof *x * n);
    die_unless(data && x, "values: %s is not held by the plan", t->name);
    bool wide = dtype_is_float(t->dtype) && be->dtype_bytes(t->dtype) == sizeof(double);
    dtype_convert(x, DTYPE_F64, data, wide ? DTYPE_F64 : t->dtype, n);
    return x;
}

double values_error(const double *got, const double *want, int64_t n) {
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    if (!isfinite(difference)) return INFINITY;
    return sqrt(difference / (size > 1e-20 * (double)n ? size : (double)n));
}
