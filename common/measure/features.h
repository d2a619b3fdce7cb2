// features: how alike, and how various, the vectors are that a network makes of pictures and videos.
#ifndef COMMON_MEASURE_FEATURES_H
#define COMMON_MEASURE_FEATURES_H

// a . b / (|a| |b|), in [-1, 1]; NaN when one of them is all zeros.
double features_cosine(const float *a, const float *b, int dim);

// Diversity of n >= 2 vectors: the variance over them (n - 1 in the denominator) of each dimension, mean over
// dimensions. vector (n) of (dim) each.
double features_variance(const float *const *vector, int n, int dim);

#endif
