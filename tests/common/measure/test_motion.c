// Motion: pans and zooms of textures that are formulas of the place, so that every sub-pixel motion is exact.
#include "common/base/rng.h"
#include "common/measure/motion.h"
#include "tests/test.h"

enum { SIDE = 128, FRAMES = 5, WAVES = 40 };

// A sum of waves, 5 to 160 pixels long, whose amplitude grows with their length, as in photographs.
typedef struct Texture {
    double fy[WAVES], fx[WAVES], phase[WAVES], amplitude[WAVES];
} Texture;

static Texture make_texture(uint64_t seed) {
    Texture t;
    RngStream r = rng_stream((RngKey){.seed = seed, .use = rng_use(RNG_TEST, 0, 0, 0, 0)});
    for (int i = 0; i < WAVES; i++) {
        double length = 5 * pow(32, (double)rng_uniform(&r, 3 * (uint64_t)i)),
               angle = M_PI * (double)rng_uniform(&r, 3 * (uint64_t)i + 1);
        t.fy[i] = sin(angle) / length;
        t.fx[i] = cos(angle) / length;
        t.phase[i] = 2 * M_PI * (double)rng_uniform(&r, 3 * (uint64_t)i + 2);
        t.amplitude[i] = 0.022 * pow(length / 30, 0.7);
    }
    return t;
}

static float value_at(const Texture *t, double y, double x) {
    double sum = 0.5;
    for (int i = 0; i < WAVES; i++)
        sum += t->amplitude[i] * cos(2 * M_PI * (t->fy[i] * y + t->fx[i] * x) + t->phase[i]);
    return (float)sum;
}

// From each frame to the next the texture moves by (dx, dy) at the centre and grows by zoom percent about it.
static float *film(uint64_t seed, int frames, int height, int width, Motion v) {
    Texture tex = make_texture(seed);
    float *luma = malloc(sizeof *luma * (size_t)(frames * height * width));
    if (!luma) abort();
    double cy = (height - 1) / 2.0, cx = (width - 1) / 2.0, scale = 1, dy = 0, dx = 0;
    for (int t = 0; t < frames; t++) {
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++)
                luma[(t * height + y) * width + x] =
                    value_at(&tex, cy + (y - cy - dy) / scale, cx + (x - cx - dx) / scale);
        scale *= 1 + v.zoom / 100;
        dy = dy * (1 + v.zoom / 100) + v.shift_y;
        dx = dx * (1 + v.zoom / 100) + v.shift_x;
    }
    return luma;
}

static Motion measure(const float *luma, int frames, int height, int width, int segment) {
    MotionMeter *m = motion_new(height, width);
    Motion got = motion_of_video(m, luma, frames, segment);
    motion_free(m);
    return got;
}

static void check_motion(Motion got, Motion want, double shift_error, double zoom_error) {
    CHECK_NEAR(got.shift_x, want.shift_x, shift_error);
    CHECK_NEAR(got.shift_y, want.shift_y, shift_error);
    CHECK_NEAR(got.zoom, want.zoom, zoom_error);
}

static const Motion motions[] = {
    {.shift_x = 3.37},
    {.shift_x = -4.81, .shift_y = 0.29},
    {.shift_y = 3.5},
    {.shift_x = 0.4, .shift_y = -5},
    {.shift_x = -17.3, .shift_y = 12.6},
    {.zoom = 3},
    {.zoom = -3},
    {.zoom = 4},
    {.zoom = 0.5},
    {.zoom = 8},
    {.zoom = 3, .shift_x = 4.3, .shift_y = -0.6},
    {.zoom = -2, .shift_y = -3.3},
};
enum { MOTIONS = sizeof motions / sizeof *motions };

TEST(pans_and_zooms) {
    for (uint64_t seed = 0; seed < 2; seed++)
        for (int i = 0; i < MOTIONS; i++) {
            float *luma = film(seed, 3, SIDE, SIDE, motions[i]);
            check_motion(measure(luma, 3, SIDE, SIDE, 3), motions[i], 0.02, 0.05);
            free(luma);
            if (test_failed()) printf("motion %d of texture %d\n", i, (int)seed);
        }
}

// As a decoder leaves it: every pixel the mean of 3 x 3, noise, and 8 bits.
TEST(blurred_and_noisy) {
    for (int i = 0; i < MOTIONS; i++) {
        float *luma = film(7, FRAMES, SIDE, SIDE, motions[i]),
              *soft = film(7, FRAMES, SIDE, SIDE, motions[i]);
        RngStream r = rng_stream((RngKey){.seed = 1, .use = rng_use(RNG_TEST, 0, 0, 0, 0)});
        for (int k = 0; k < FRAMES * SIDE * SIDE; k++) {
            int y = k / SIDE % SIDE, x = k % SIDE;
            if (y == 0 || x == 0 || y == SIDE - 1 || x == SIDE - 1) continue;
            double sum = 0.02 * (double)rng_normal(&r, (uint64_t)k);
            for (int j = -1; j <= 1; j++)
                for (int l = -1; l <= 1; l++) sum += (double)luma[k + j * SIDE + l] / 9;
            soft[k] = (float)(rint(sum * 255) / 255);
        }
        check_motion(measure(soft, FRAMES, SIDE, SIDE, FRAMES), motions[i], 0.1, 0.2);
        if (test_failed()) printf("motion %d\n", i);
        free(luma);
        free(soft);
    }
}

TEST(frames_of_any_size) {
    static const int size[][2] = {{100, 180}, {37, 50}, {300, 520}};
    Motion want = {.shift_x = 3.3, .shift_y = -1.2, .zoom = 2};
    for (int i = 0; i < 3; i++) {
        int h = size[i][0], w = size[i][1];
        float *luma = film(3, 2, h, w, want);
        check_motion(measure(luma, 2, h, w, 2), want, 0.1, 0.2);
        free(luma);
        if (test_failed()) printf("%d x %d\n", w, h);
    }
    for (int side = 1; side < 5; side++) { // too small to say anything, but no accident
        float luma[2 * 16] = {0.25f, 0.5f, 0.75f, 0.1f, 0.9f};
        Motion got = measure(luma, 2, side, side, 2);
        CHECK(isfinite(got.shift_x) && isfinite(got.shift_y) && isfinite(got.zoom));
    }
}

TEST(what_does_not_move) {
    float *luma = film(1, 1, SIDE, SIDE, (Motion){0});
    float *twice = malloc(2 * sizeof *luma * SIDE * SIDE),
          *flat = calloc(2 * SIDE * SIDE, sizeof *flat);
    CHECK(twice && flat);
    for (int t = 0; t < 2; t++) memcpy(twice + t * SIDE * SIDE, luma, sizeof *luma * SIDE * SIDE);
    check_motion(measure(twice, 2, SIDE, SIDE, 2), (Motion){0}, 1e-9, 1e-9);
    check_motion(measure(flat, 2, SIDE, SIDE, 2), (Motion){0}, 0, 0);
    for (int i = 0; i < SIDE * SIDE; i++) flat[SIDE * SIDE + i] = 1; // a flash
    check_motion(measure(flat, 2, SIDE, SIDE, 2), (Motion){0}, 0, 0);
    free(luma);
    free(twice);
    free(flat);
}

// Two segments of three frames; the second begins with the last frame of the first, so of the pairs five are left
// without and four with the seam, half of which move.
TEST(seams_are_left_out) {
    Motion want = {.shift_x = 4};
    float *four = film(2, 5, SIDE, SIDE, want), *luma = malloc(6 * sizeof *luma * SIDE * SIDE);
    static const int order[6] = {0, 0, 1, 1, 1, 2}; // still, moves | seam | still, moves
    CHECK(luma);
    for (int t = 0; t < 6; t++)
        memcpy(luma + t * SIDE * SIDE, four + order[t] * SIDE * SIDE, sizeof *luma * SIDE * SIDE);
    CHECK_NEAR(measure(luma, 6, SIDE, SIDE, 3).shift_x, 2, 0.02); // median of 0 0 4 4
    CHECK_NEAR(measure(luma, 6, SIDE, SIDE, 6).shift_x, 0, 0.02); // of 0 0 0 4 4
    free(four);
    free(luma);
}
