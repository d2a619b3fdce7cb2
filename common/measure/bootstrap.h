// bootstrap: how far a mean can be trusted: an interval from resampling (Efron 1979), percentile method.
//
//     BootstrapInterval v = bootstrap_mean(value, cnt, key);
//     printf("%g [%g, %g]\n", v.mean, v.low, v.high);
//
// What is resampled must be independent: videos of one picture are not, so give one value for each picture (a
// cluster), the mean over its videos. The draws are named by the key: for the same key and cnt they are the same
// whatever the values, so that base, tuned and their difference are resampled together.
#ifndef COMMON_MEASURE_BOOTSTRAP_H
#define COMMON_MEASURE_BOOTSTRAP_H

#include "common/base/rng.h"

enum { BOOTSTRAP_DRAWS = 4000 };

typedef struct BootstrapInterval {
    double mean, low, high; // low and high: quantiles 0.025 and 0.975 of the means of the draws
} BootstrapInterval;

// cnt >= 1. One value has no spread: low = high = mean.
BootstrapInterval bootstrap_mean(const double *value, int cnt, RngKey key);

#endif
