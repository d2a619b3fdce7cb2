// picture: plain loops.
#include "common/measure/picture.h"

#include <math.h>
#include <stdlib.h>

#include "common/base/err.h"

void picture_from_raw(const float *raw, size_t cnt, float *out) {
    for (size_t i = 0; i < cnt; i++) {
        float p = raw[i] / 2 + 0.5f;
        out[i] = p < 0 ? 0 : p > 1 ? 1 : p;
    }
}

void picture_luma(const float *rgb, size_t pixels, float *luma) {
    for (size_t i = 0; i < pixels; i++)
        luma[i] = 0.299f * rgb[3 * i] + 0.587f * rgb[3 * i + 1] + 0.114f * rgb[3 * i + 2];
}

double picture_change(const float *a, const float *b, size_t cnt) {
    double sum = 0;
    for (size_t i = 0; i < cnt; i++) sum += fabs((double)a[i] - (double)b[i]);
    return sum / (double)cnt;
}

double picture_sharpness(const float *luma, int height, int width) {
    double sum = 0;
    if (height < 3 || width < 3) return 0;
    for (int y = 1; y < height - 1; y++)
        for (int x = 1; x < width - 1; x++) {
            const float *p = luma + (ptrdiff_t)y * width + x;
            double d = (double)p[-1] + p[1] + p[-width] + p[width] - 4.0 * p[0];
            sum += d * d;
        }
    return sum / ((double)(height - 2) * (width - 2));
}

double picture_contrast(const float *luma, size_t pixels) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < pixels; i++) sum += luma[i];
    double mean = sum / (double)pixels;
    for (size_t i = 0; i < pixels; i++) squares += (luma[i] - mean) * (luma[i] - mean);
    return sqrt(squares / (double)pixels);
}

double picture_chroma(const float *rgb, size_t pixels) {
    double sum = 0;
    for (const float *p = rgb; p < rgb + 3 * pixels; p += 3)
        sum += fmax(fmax(p[0], p[1]), p[2]) - fmin(fmin(p[0], p[1]), p[2]);
    return sum / (double)pixels;
}

double picture_psnr(const float *a, const float *b, size_t cnt) {
    double sum = 0;
    for (size_t i = 0; i < cnt; i++) sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    double psnr = -10 * log10(sum / (double)cnt);
    return psnr > PICTURE_PSNR_MAX ? PICTURE_PSNR_MAX : psnr;
}

static int clamp(int i, int n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }

// One direction: cnt lines of n pixels; a pixel and the next in a line lie `step` floats apart.
static void blur_lines(const double *weight, int reach, const float *in, float *out, int cnt,
                       size_t line, int n, size_t step) {
    for (int k = 0; k < cnt; k++)
        for (int i = 0; i < n; i++)
            for (size_t c = 0; c < 3; c++) {
                double sum = 0;
                for (int j = -reach; j <= reach; j++)
                    sum += weight[j + reach] *
                           (double)in[(size_t)k * line + (size_t)clamp(i + j, n) * step + c];
                out[(size_t)k * line + (size_t)i * step + c] = (float)sum;
            }
}

void picture_blur(const float *rgb, int height, int width, double sigma, float *out) {
    int reach = (int)ceil(3 * sigma);
    size_t row = 3 * (size_t)width;
    double *weight = calloc(2 * (size_t)reach + 1, sizeof *weight), sum = 0;
    float *half = malloc(row * (size_t)height * sizeof *half);
    die_unless(weight && half, "picture: out of memory");
    for (int j = -reach; j <= reach; j++)
        sum += weight[j + reach] = sigma > 0 ? exp(-j * j / (2 * sigma * sigma)) : 1;
    for (int j = 0; j <= 2 * reach; j++) weight[j] /= sum;
    blur_lines(weight, reach, rgb, half, height, row, width, 3);
    blur_lines(weight, reach, half, out, width, 3, height, row);
    free(weight);
    free(half);
}
