// values: numbers for tests of graphs. An input gets the same numbers in every graph that has one of its
// name and size, whatever the backend.
//
//     CHECK_OK(values_feed(plan, g));           // every F32 input, by its name
//     CHECK_OK(plan_run(plan));
//     double *got = values_read(be, plan, y);   // whatever type the backend stores
//     CHECK(values_error(got, want, n) < 1e-5);
#ifndef TESTS_COMMON_TENSOR_VALUES_H
#define TESTS_COMMON_TENSOR_VALUES_H

#include "common/tensor/plan.h"

// n normal numbers that depend on seed alone.
void values_normal(float *x, int64_t n, uint64_t seed);
// A seed made of a text.
uint64_t values_seed(const char *text);

// Writes normal numbers to every F32 input that the plan holds.
Err values_feed(Plan *plan, const Graph *g);

// A copy of an input or output as doubles; the caller frees. I32 is converted.
double *values_read(const Backend *be, const Plan *plan, const Tensor *t);

// |got - want| / |want| (L2); where want is all but zero, the root mean square of the difference. NaN
// counts as infinite.
double values_error(const double *got, const double *want, int64_t n);

#endif
