// golden_compare: is what we computed what a golden file says? The rules of tests/golden/README.md.
//
//     GoldenCompare c;
//     CHECK_OK(golden_compare("tests/golden/vjepa/golden.safetensors", "y.safetensors", &c));
//     CHECK_MSG(!c.bad_cnt, "%s", c.bad);
//
// Relative L2 error per tensor: out.* within 1e-5, grad.* within 1e-4, mix_factor within 1e-3. A gradient
// that is zero by construction (below 1e-9 of the largest of its kind) must stay below 1e-6 of that largest.
#ifndef TESTS_GOLDEN_COMPARE_H
#define TESTS_GOLDEN_COMPARE_H

#include "common/base/err.h"

typedef struct GoldenWorst {
    double error;
    char name[256];
    int cnt; // tensors compared
} GoldenWorst;

typedef struct GoldenCompare {
    GoldenWorst out, grad, mix, zero; // zero: largest value over the largest of its kind
    int bad_cnt;
    char bad[1024]; // the first few: name, error
} GoldenCompare;

// Compares every out.* and grad.* tensor of `want` with the one of that name in `got`. Fails only if a file
// cannot be read; what is missing, of another shape or beyond its tolerance is counted in bad_cnt.
Err golden_compare(const char *want, const char *got, GoldenCompare *out);

#endif
