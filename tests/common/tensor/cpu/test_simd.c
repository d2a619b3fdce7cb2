// The elementary functions of every instruction set against libm, and what they do at the edges.
#include "common/tensor/cpu/cpu.h"
#include "tests/test.h"

typedef struct Case {
    const char *name;
    void (*const *map)(float *y, const float *x, int64_t n); // in the table
    double (*exact)(double);
    double lo, hi, tolerance; // relative
} Case;

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void check_function(const char *isa, Case c) {
    enum { N = 100003 }; // odd: a tail for every vector length
    static float x[N], y[N];
    for (int i = 0; i < N; i++) x[i] = (float)(c.lo + (c.hi - c.lo) * i / (N - 1));
    (*c.map)(y, x, N);
    for (int i = 0; i < N; i++) {
        double want = c.exact(x[i]), error = fabs(y[i] - want) / fmax(fabs(want), 1e-3);
        if (fabs(want) > 1e-3) error = fabs(y[i] - want) / fabs(want);
        CHECK_MSG(error <= c.tolerance, "%s %s(%g) = %.9g, want %.9g", isa, c.name, x[i], y[i],
                  want);
    }
}

TEST(functions_are_accurate) {
    static const char *const isa[] = {"avx512", "avx2", "base"};
    for (int i = 0; i < 3; i++) {
        const SimdTable *t = cpu_simd_table(isa[i]);
        const Case cases[] = {{"exp", t ? &t->map_exp : 0, exp, -80, 88.7, 2e-7},
                              {"log", t ? &t->map_log : 0, log, 1e-20, 100, 2e-7},
                              {"erf", t ? &t->map_erf : 0, erf, -10, 10, 2e-7},
                              {"tanh", t ? &t->map_tanh : 0, tanh, -12, 12, 3e-7},
                              {"sigmoid", t ? &t->map_sigmoid : 0, sigmoid, -60, 40, 3e-7},
                              {"sin", t ? &t->map_sin : 0, sin, -1000, 1000, 2e-4},
                              {"cos", t ? &t->map_cos : 0, cos, -3, 3, 1e-4}};
        for (size_t k = 0; t && k < sizeof cases / sizeof *cases && !test_failed(); k++)
            check_function(isa[i], cases[k]);
    }
}

TEST(edges) {
    static const char *const isa[] = {"avx512", "avx2", "base"};
    for (int i = 0; i < 3; i++) {
        const SimdTable *t = cpu_simd_table(isa[i]);
        if (!t) continue;
        const float x[] = {INFINITY, -INFINITY, NAN, 0};
        float y[4];
        t->map_exp(y, x, 4);
        CHECK(y[0] == INFINITY && y[1] < 1e-37f && isnan(y[2]) && y[3] == 1);
        t->map_log(y, x, 4);
        CHECK(y[0] == INFINITY && isnan(y[1]) && isnan(y[2]) && y[3] == -INFINITY);
        t->map_erf(y, x, 4);
        CHECK(y[0] == 1 && y[1] == -1 && isnan(y[2]) && y[3] == 0);
        t->map_tanh(y, x, 4);
        CHECK(y[0] == 1 && y[1] == -1 && isnan(y[2]) && y[3] == 0);
        t->map_sigmoid(y, x, 4);
        CHECK(y[0] == 1 && y[1] == 0 && isnan(y[2]) && y[3] == 0.5f);
    }
}

TEST(halves_widen_exactly) {
    static const char *const isa[] = {"avx512", "avx2", "base"};
    static const DType type[] = {DTYPE_F16, DTYPE_BF16};
    enum { N = 0x7c00 }; // every finite positive F16
    static uint16_t bits[N];
    static float got[N], want[N];
    for (int i = 0; i < N; i++) bits[i] = (uint16_t)i;
    for (int i = 0; i < 6; i++) {
        const SimdTable *t = cpu_simd_table(isa[i / 2]);
        if (!t) continue;
        t->widen(got, bits, type[i % 2], N);
        dtype_convert(want, DTYPE_F32, bits, type[i % 2], N);
        CHECK(!memcmp(got, want, sizeof got));
    }
}

TEST(the_environment_chooses) {
    static const char *const isa[] = {"avx512", "avx2", "base"};
    Backend *be = NULL;
    char *before = getenv("VADER_ISA") ? strdup(getenv("VADER_ISA")) : NULL, text[64];
    for (int i = 0; i < 3; i++) {
        setenv("VADER_ISA", isa[i], 1);
        if (!cpu_simd_table(isa[i])) {
            CHECK_ERR(backend_open(&be, "cpu", (BackendOptions){.threads = 1}), ERR_DEVICE, isa[i]);
            continue;
        }
        CHECK_OK(backend_open(&be, "cpu", (BackendOptions){.threads = 1}));
        be->fingerprint(be, text, sizeof text);
        CHECK_MSG(strstr(text, isa[i]), "%s where %s was asked for", text, isa[i]);
        backend_close(be);
    }
    setenv("VADER_ISA", "sse9", 1);
    CHECK_ERR(backend_open(&be, "cpu", (BackendOptions){.threads = 1}), ERR_USAGE, "sse9");
    before ? setenv("VADER_ISA", before, 1) : unsetenv("VADER_ISA");
    free(before);
}
