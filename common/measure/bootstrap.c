// bootstrap: draws with replacement, sorted.
#include "common/measure/bootstrap.h"

#include <math.h>
#include <stdlib.h>

#include "common/base/err.h"

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Of sorted values, linear between them (type 7 of Hyndman and Fan 1996).
static double quantile(const double *sorted, int cnt, double q) {
    double at = q * (cnt - 1);
    int i = (int)floor(at), next = i + 1 < cnt ? i + 1 : i;
    return sorted[i] + (at - i) * (sorted[next] - sorted[i]);
}

BootstrapInterval bootstrap_mean(const double *value, int cnt, RngKey key) {
    die_unless(cnt >= 1, "bootstrap: no values");
    RngStream r = rng_stream(key);
    double *draw = calloc(BOOTSTRAP_DRAWS, sizeof *draw), sum = 0;
    die_unless(draw, "bootstrap: out of memory");
    for (int i = 0; i < cnt; i++)
        sum += value[i] - value[0]; // equal values have exactly that mean,
    double mean = value[0] + sum / cnt;
    for (int k = 0; k < BOOTSTRAP_DRAWS; k++) {
        double off = 0; // and an interval without width
        for (int i = 0; i < cnt; i++) off += value[rng_u32_below(&r, (uint32_t)cnt)] - mean;
        draw[k] = mean + off / cnt;
    }
    qsort(draw, BOOTSTRAP_DRAWS, sizeof *draw, by_value);
    BootstrapInterval out = {mean, quantile(draw, BOOTSTRAP_DRAWS, 0.025),
                             quantile(draw, BOOTSTRAP_DRAWS, 0.975)};
    free(draw);
    return out;
}
