// Fourier transforms against the sum that defines them, and back.
#include "common/base/rng.h"
#include "common/measure/fft.h"
#include "tests/test.h"

static void fill(FftValue *x, int cnt) {
    RngStream r = rng_stream((RngKey){.seed = 4, .use = rng_use(RNG_TEST, 0, 0, 0, 0)});
    for (int i = 0; i < cnt; i++)
        x[i] = (FftValue){rng_normal(&r, 2 * (uint64_t)i), rng_normal(&r, 2 * (uint64_t)i + 1)};
}

static FftValue by_definition(const FftValue *x, int h, int w, int k, int l) {
    FftValue sum = {0};
    for (int y = 0; y < h; y++)
        for (int c = 0; c < w; c++) {
            double a = -2 * M_PI * ((double)k * y / h + (double)l * c / w);
            FftValue v = x[y * w + c];
            sum.re += v.re * cos(a) - v.im * sin(a);
            sum.im += v.re * sin(a) + v.im * cos(a);
        }
    return sum;
}

static void check_size(int h, int w) {
    FftValue x[16 * 16], want[16 * 16];
    fill(x, h * w);
    for (int k = 0; k < h; k++)
        for (int l = 0; l < w; l++) want[k * w + l] = by_definition(x, h, w, k, l);
    Fft *f = fft_new(h, w);
    fft_forward(f, x);
    for (int i = 0; i < h * w; i++) {
        CHECK_NEAR(x[i].re, want[i].re, 1e-12);
        CHECK_NEAR(x[i].im, want[i].im, 1e-12);
    }
    fft_inverse(f, x);
    fill(want, h * w);
    for (int i = 0; i < h * w; i++) {
        CHECK_NEAR(x[i].re, want[i].re, 1e-14);
        CHECK_NEAR(x[i].im, want[i].im, 1e-14);
    }
    fft_free(f);
}

TEST(is_the_sum_that_defines_it) {
    static const int size[][2] = {{1, 1}, {1, 8}, {8, 1}, {2, 2}, {4, 16}, {16, 8}};
    for (int i = 0; i < 6; i++) check_size(size[i][0], size[i][1]);
}

TEST(sides) {
    CHECK_EQ(fft_side(1), 1);
    CHECK_EQ(fft_side(2), 2);
    CHECK_EQ(fft_side(5), 8);
    CHECK_EQ(fft_side(128), 128);
    CHECK_EQ(fft_side(129), 256);
}
