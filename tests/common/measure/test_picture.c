// Numbers about pictures, each against one done by hand.
#include "common/measure/picture.h"
#include "tests/test.h"

TEST(raw_values_are_clamped) {
    const float raw[] = {-3, -1, 0, 0.5f, 1, 7};
    float out[6];
    picture_from_raw(raw, 6, out);
    const float want[] = {0, 0, 0.5f, 0.75f, 1, 1};
    for (int i = 0; i < 6; i++) CHECK_NEAR(out[i], want[i], 0);
    picture_from_raw((const float[]){NAN}, 1, out);
    CHECK(isnan(out[0]));
}

TEST(luma) {
    const float rgb[] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1};
    float out[4];
    picture_luma(rgb, 4, out);
    CHECK_NEAR(out[0], 0.299, 1e-7);
    CHECK_NEAR(out[1], 0.587, 1e-7);
    CHECK_NEAR(out[2], 0.114, 1e-7);
    CHECK_NEAR(out[3], 1, 1e-6);
}

TEST(change_and_psnr) {
    const float a[] = {0, 0.5f, 1, 1}, b[] = {0.1f, 0.5f, 0.7f, 1};
    CHECK_NEAR(picture_change(a, b, 4), 0.1, 1e-7);
    CHECK_NEAR(picture_psnr(a, b, 4), -10 * log10(0.1 / 4), 1e-5); // 0.01 + 0.09
    CHECK_NEAR(picture_psnr(a, a, 4), PICTURE_PSNR_MAX, 0);
}

TEST(sharpness) {
    float dot[25] = {[12] = 1}, slope[25];
    for (int i = 0; i < 25; i++) slope[i] = (float)(i % 5) / 5;
    CHECK_NEAR(picture_sharpness(dot, 5, 5), (16.0 + 4) / 9,
               1e-12); // the dot and its four neighbours
    CHECK_NEAR(picture_sharpness(slope, 5, 5), 0, 1e-12);
    CHECK_NEAR(picture_sharpness(dot, 2, 5), 0, 0);
}

TEST(contrast_and_chroma) {
    const float luma[] = {0.25f, 0.75f, 0.25f, 0.75f};
    const float rgb[] = {1, 0.25f, 0.5f, 0.3f, 0.3f, 0.3f};
    CHECK_NEAR(picture_contrast(luma, 4), 0.25, 1e-12);
    CHECK_NEAR(picture_contrast((const float[]){0.3f, 0.3f}, 2), 0, 1e-12);
    CHECK_NEAR(picture_chroma(rgb, 1), 0.75, 1e-12);
    CHECK_NEAR(picture_chroma(rgb, 2), 0.375, 1e-12); // the second is grey
}

TEST(blur) {
    enum { H = 15, W = 21 };
    float rgb[H * W * 3] = {0}, out[H * W * 3], flat[H * W * 3];
    rgb[(7 * W + 10) * 3 + 1] = 1;
    picture_blur(rgb, H, W, 1.5, out);
    double sum = 0, spread = 0;
    for (int i = 0; i < H * W; i++) {
        sum += out[3 * i + 1];
        spread += out[3 * i + 1] * (i % W - 10) * (i % W - 10);
        CHECK_NEAR(out[3 * i], 0, 0);
        flat[3 * i] = flat[3 * i + 1] = flat[3 * i + 2] = 0.3f;
    }
    CHECK_NEAR(sum, 1, 1e-6);
    CHECK_NEAR(sqrt(spread), 1.5, 0.05); // less what is cut off
    CHECK_NEAR(out[(7 * W + 11) * 3 + 1], out[(8 * W + 10) * 3 + 1], 1e-7);
    CHECK_NEAR(out[(7 * W + 12) * 3 + 1] / out[(7 * W + 10) * 3 + 1], exp(-4 / 4.5), 1e-5);
    picture_blur(flat, H, W, 1.5, out); // the edges, too
    for (int i = 0; i < H * W * 3; i++) CHECK_NEAR(out[i], 0.3, 1e-6);
    picture_blur(rgb, H, W, 0, out);
    CHECK(!memcmp(rgb, out, sizeof rgb));
}
