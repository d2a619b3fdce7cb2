// Tap tables against numbers worked out by hand, and what must hold for all of them.
#include "common/model/resample.h"
#include "common/model/pixels.h"
#include "common/tensor/op.h"
#include "common/tensor/plan.h"
#include "tests/test.h"

// Weight of input j in output i.
static double weight(const ResampleTable *t, int64_t i, int64_t j) {
    int64_t k = j - t->start[i];
    return k >= 0 && k < t->taps ? (double)t->tap[i * t->taps + k] : 0;
}

static void check_row(ResampleKind kind, int64_t in, int64_t out, int64_t i, const double *want) {
    Arena a = {0};
    ResampleTable t = resample_table(&a, kind, in, out);
    for (int64_t j = 0; j < in; j++) {
        double got = weight(&t, i, j);
        if (!(fabs(got - want[j]) < 1e-7))
            TEST_FAIL("%s %lld -> %lld: weight of %lld in %lld is %.9g, want %.9g",
                      resample_name(kind), (long long)in, (long long)out, (long long)j,
                      (long long)i, got, want[j]);
    }
    arena_free(&a);
}
#define ROW(kind, in, out, i, ...) \
    check_row(RESAMPLE_##kind, in, out, i, (const double[in]){__VA_ARGS__})

TEST(nearest) {
    ROW(NEAREST, 3, 2, 0, 1, 0, 0);
    ROW(NEAREST, 3, 2, 1, 0, 1, 0);
    ROW(NEAREST, 2, 4, 3, 0, 1);
}

TEST(bilinear) { // u = max(0, (i + .5) in/out - .5)
    ROW(BILINEAR, 4, 2, 0, .5, .5, 0, 0);
    ROW(BILINEAR, 4, 2, 1, 0, 0, .5, .5);
    ROW(BILINEAR, 2, 4, 0, 1, 0); // u = -.25, clamped
    ROW(BILINEAR, 2, 4, 1, .75, .25);
    ROW(BILINEAR, 2, 4, 3, 0, 1); // u = 1.25: both taps on the last pixel
}

TEST(bicubic) { // a = -.75: halfway -.09375, .59375, .59375, -.09375
    ROW(BICUBIC, 8, 4, 1, 0, -.09375, .59375, .59375, -.09375, 0, 0, 0);
    ROW(BICUBIC, 4, 2, 0, .5, .59375, -.09375, 0); // the tap at -1 falls on 0
}

TEST(antialiased) {
    ROW(BILINEAR_AA, 4, 2, 0, 3. / 7, 3. / 7, 1. / 7, 0); // triangle of half width 2 around 1
    ROW(BILINEAR_AA, 2, 4, 1, .75, .25);                  // upwards: no stretch
    ROW(BILINEAR_AA, 2, 4, 0, 1, 0);
    // Stretched by 2 around 1, a = -.5: at distances .25, .25, .75, 1.25: .8671875, .8671875, .2265625, -.0703125.
    double s = .8671875 + .8671875 + .2265625 - .0703125;
    ROW(BICUBIC_AA, 4, 2, 0, .8671875 / s, .8671875 / s, .2265625 / s, -.0703125 / s);
}

TEST(svd) {
    ROW(SVD, 2, 3, 1, .5, .5); // upwards: no blur; u = .5, taps at -1 and 2 fall on the edges
    double e = exp(-2), sum = 1 + 2 * e;                       // 8 -> 4: sigma .5, three taps
    ROW(SVD, 8, 4, 0, 1 / sum, 2 * e / sum, 0, 0, 0, 0, 0, 0); // the one at -1 is reflected to 1
    ROW(SVD, 8, 4, 3, 0, 0, 0, 0, 0, 0, 2 * e / sum, 1 / sum);
}

TEST(rows_sum_to_one_and_stay_inside) {
    static const int64_t size[][2] = {{576, 224}, {1024, 224}, {224, 224}, {17, 224},
                                      {40, 56},   {90, 56},    {5, 1},     {1, 5}};
    for (int kind = 0; kind < RESAMPLE_CNT; kind++)
        for (size_t s = 0; s < sizeof size / sizeof *size; s++) {
            int64_t in = size[s][0], out = size[s][1];
            if (kind == RESAMPLE_SVD && out == 1) continue; // a blur wider than the image
            Arena a = {0};
            ResampleTable t = resample_table(&a, (ResampleKind)kind, in, out);
            for (int64_t i = 0; i < out; i++) {
                double sum = 0;
                for (int64_t k = 0; k < t.taps; k++) {
                    double w = (double)t.tap[i * t.taps + k];
                    sum += w;
                    CHECK_MSG(t.start[i] >= 0 && (t.start[i] + k < in || w == 0), "%s: tap outside",
                              resample_name((ResampleKind)kind));
                }
                CHECK_NEAR(sum, 1, 1e-6);
            }
            arena_free(&a);
        }
}

TEST(the_same_size_is_left_alone) {
    Graph *g = graph_new();
    Tensor *x = graph_input(g, "x", DTYPE_F32, SHAPE(1, 1, 4, 6, 3));
    for (int kind = 0; kind < RESAMPLE_CNT; kind++)
        CHECK(resample(g, x, (ResampleKind)kind, 4, 6) == x);
    CHECK(!resample(g, op_reshape(g, x, SHAPE(4, 18)), RESAMPLE_BILINEAR, 2, 2));
    CHECK_ERR(graph_check(g), ERR_SHAPE, "want (N, T, H, W, C)");
    graph_free(g);
}

// 100 x 60 frames cropped to 32: rows 32 to 53 long, columns exactly; what is kept is the centre.
TEST(crop_keeps_the_centre) {
    Graph *g = graph_new();
    PixelSpec spec = {.unit = true,
                      .fit = PIXELS_CROP,
                      .resize = RESAMPLE_BILINEAR_AA,
                      .height = 32,
                      .width = 32};
    Tensor *y = pixels_fit(g, graph_input(g, "x", DTYPE_F32, SHAPE(1, 2, 100, 60, 3)), &spec);
    CHECK_OK(graph_check(g));
    CHECK(shape_equal(y->shape, SHAPE(1, 2, 32, 32, 3)));
    CHECK(y->op == OP_VIEW);
    CHECK_EQ(y->base->shape.dim[2], 53); // int(32 * 100 / 60)
    CHECK_EQ(y->offset, 10 * 32 * 3);    // (53 - 32) / 2 = 10.5, to even
    graph_free(g);
}
