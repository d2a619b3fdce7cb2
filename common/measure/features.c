// features: sums in double.
#include "common/measure/features.h"

#include <math.h>

#include "common/base/err.h"

double features_cosine(const float *a, const float *b, int dim) {
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < dim; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

double features_variance(const float *const *vector, int n, int dim) {
    die_unless(n >= 2 && dim >= 1, "features: %d vectors of %d", n, dim);
    double sum = 0;
    for (int d = 0; d < dim; d++) {
        double mean = 0;
        for (int k = 0; k < n; k++) mean += (double)vector[k][d] / n;
        for (int k = 0; k < n; k++) sum += (vector[k][d] - mean) * (vector[k][d] - mean) / (n - 1);
    }
    return sum / dim;
}
