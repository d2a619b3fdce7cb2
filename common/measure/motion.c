// motion: phase correlation for a start, least squares for the rest.
#include "common/measure/motion.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/measure/fft.h"

enum { LEVELS = 2, ROUNDS = 6, STRIDE = 2 }; // blurred frames need only every other pixel
static const double BLUR[LEVELS] = {4, 2};   // pixels
static const double ZOOM_MAX = 0.25;

typedef struct Frame {
    double *luma;          // (height, width), averaged down
    double *level[LEVELS]; // blurred
    FftValue *spectrum;    // (rows, cols) under the window
} Frame;

struct MotionMeter {
    int full_height, full_width, shrink; // of the frames as given
    int height, width;                   // of those that are measured
    int rows, cols;                      // of their spectra: powers of two, the rest is zero
    Fft *fft;
    double *window;  // (height, width)
    double *damping; // (rows, cols)
    double *half;    // (height, width), at work
    FftValue *work;  // (rows, cols)
    Frame of[2];     // frame t in of[t % 2]
};

static void *room(size_t cnt, size_t bytes) {
    void *p = calloc(cnt + 1, bytes);
    die_unless(p, "motion: out of memory");
    return p;
}

// ---- The meter ----

static double hann(int i, int n) { return 0.5 - 0.5 * cos(2 * M_PI * (i + 0.5) / n); }

// Frequency of row or column k of n, in cycles per pixel.
static double frequency(int k, int n) { return (double)(k <= n / 2 ? k : k - n) / n; }

static void fill_tables(MotionMeter *m) {
    for (int y = 0; y < m->height; y++)
        for (int x = 0; x < m->width; x++)
            m->window[y * m->width + x] = hann(y, m->height) * hann(x, m->width);
    for (int y = 0; y < m->rows; y++)
        for (int x = 0; x < m->cols; x++) {
            double a = frequency(y, m->rows), b = frequency(x, m->cols);
            m->damping[y * m->cols + x] = exp(-2 * M_PI * M_PI * (a * a + b * b));
        }
}

MotionMeter *motion_new(int height, int width) {
    die_unless(height >= 1 && width >= 1, "motion: frames of %d x %d", width, height);
    MotionMeter *m = room(1, sizeof *m);
    int side = height > width ? height : width, least = height < width ? height : width;
    *m = (MotionMeter){
        .full_height = height, .full_width = width, .shrink = (side - 1) / MOTION_SIDE_MAX + 1};
    if (m->shrink > least) m->shrink = least;
    m->height = height / m->shrink;
    m->width = width / m->shrink;
    m->rows = fft_side(m->height);
    m->cols = fft_side(m->width);
    m->fft = fft_new(m->rows, m->cols);
    size_t pixels = (size_t)m->height * (size_t)m->width, cnt = (size_t)m->rows * (size_t)m->cols;
    m->window = room(pixels, sizeof *m->window);
    m->half = room(pixels, sizeof *m->half);
    m->damping = room(cnt, sizeof *m->damping);
    m->work = room(cnt, sizeof *m->work);
    for (int i = 0; i < 2; i++) {
        m->of[i].luma = room(pixels, sizeof(double));
        m->of[i].spectrum = room(cnt, sizeof(FftValue));
        for (int k = 0; k < LEVELS; k++) m->of[i].level[k] = room(pixels, sizeof(double));
    }
    fill_tables(m);
    return m;
}

void motion_free(MotionMeter *m) {
    if (!m) return;
    fft_free(m->fft);
    free(m->window);
    free(m->half);
    free(m->damping);
    free(m->work);
    for (int i = 0; i < 2; i++) {
        free(m->of[i].luma);
        free(m->of[i].spectrum);
        for (int k = 0; k < LEVELS; k++) free(m->of[i].level[k]);
    }
    free(m);
}

// ---- Frames ----

// Means of squares of `shrink` pixels a side.
static void shrink(const MotionMeter *m, const float *luma, double *out) {
    int k = m->shrink;
    for (int y = 0; y < m->height; y++)
        for (int x = 0; x < m->width; x++) {
            double sum = 0;
            for (int j = 0; j < k; j++)
                for (int i = 0; i < k; i++)
                    sum += (double)luma[(y * k + j) * m->full_width + x * k + i];
            out[y * m->width + x] = sum / (k * k);
        }
}

static int clamp(int i, int n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }

// A Gaussian of standard deviation sigma, cut at 3 sigma; edges are repeated.
static void blur(const MotionMeter *m, const double *in, double sigma, double *out) {
    double weight[32], sum = 0;
    int reach = (int)(3 * sigma), h = m->height, w = m->width;
    die_unless(reach < 32, "motion: a blur of %g", sigma);
    for (int j = 0; j <= reach; j++)
        sum += (j ? 2 : 1) * (weight[j] = exp(-j * j / (2 * sigma * sigma)));
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            double v = weight[0] * in[y * w + x];
            for (int j = 1; j <= reach; j++)
                v += weight[j] * (in[y * w + clamp(x - j, w)] + in[y * w + clamp(x + j, w)]);
            m->half[y * w + x] = v / sum;
        }
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            double v = weight[0] * m->half[y * w + x];
            for (int j = 1; j <= reach; j++)
                v += weight[j] *
                     (m->half[clamp(y - j, h) * w + x] + m->half[clamp(y + j, h) * w + x]);
            out[y * w + x] = v / sum;
        }
}

// The transform of the luma less its mean, under the window.
static void transform(const MotionMeter *m, const double *luma, FftValue *out) {
    double sum = 0, weight = 0;
    for (int i = 0; i < m->height * m->width; i++) {
        sum += m->window[i] * luma[i];
        weight += m->window[i];
    }
    memset(out, 0, sizeof *out * (size_t)m->rows * (size_t)m->cols);
    for (int i = 0; i < m->height * m->width; i++)
        out[i / m->width * m->cols + i % m->width].re = m->window[i] * (luma[i] - sum / weight);
    fft_forward(m->fft, out);
}

static void take_frame(MotionMeter *m, const float *luma, const Frame *out) {
    shrink(m, luma, out->luma);
    for (int k = 0; k < LEVELS; k++) blur(m, out->luma, BLUR[k], out->level[k]);
    transform(m, out->luma, out->spectrum);
}

// ---- Phase correlation ----

static double at(const MotionMeter *m, int y, int x) {
    return m->work[(y + m->rows) % m->rows * m->cols + (x + m->cols) % m->cols].re;
}

// Where the parabola through three values, or through their logarithms, has its top: -1/2 to 1/2 around the middle.
static double top(double before, double peak, double after) {
    if (before > 0 && after > 0 && peak > 0)
        before = log(before), peak = log(peak), after = log(after);
    double bend = before - 2 * peak + after;
    return bend < 0 ? (before - after) / 2 / bend : 0;
}

// The largest value of work within a quarter of a side around the origin. zoom stays 0.
static Motion find_peak(const MotionMeter *m) {
    int y = 0, x = 0;
    for (int j = -m->height / 4; j <= m->height / 4; j++)
        for (int i = -m->width / 4; i <= m->width / 4; i++)
            if (at(m, j, i) > at(m, y, x)) y = j, x = i;
    double peak = at(m, y, x);
    return (Motion){.shift_y = y + top(at(m, y - 1, x), peak, at(m, y + 1, x)),
                    .shift_x = x + top(at(m, y, x - 1), peak, at(m, y, x + 1))};
}

// By how much b is a, shifted.
static Motion correlate(MotionMeter *m, const FftValue *a, const FftValue *b) {
    int cnt = m->rows * m->cols;
    double most = 0;
    for (int i = 0; i < cnt; i++) {
        FftValue c = {b[i].re * a[i].re + b[i].im * a[i].im, b[i].im * a[i].re - b[i].re * a[i].im};
        most = fmax(most, fmax(fabs(c.re), fabs(c.im)));
        m->work[i] = c;
    }
    double least = 1e-6 * most + 1e-300; // where there is nothing, there is no phase
    for (int i = 0; i < cnt; i++) {
        FftValue *c = &m->work[i];
        double keep = m->damping[i] / (sqrt(c->re * c->re + c->im * c->im) + least);
        c->re *= keep;
        c->im *= keep;
    }
    fft_inverse(m->fft, m->work);
    return find_peak(m);
}

// ---- Least squares ----

// Sums of the normal equations H p = -g in p = (d_y, d_x, log s).
typedef struct Normal {
    double h[3][3], g[3];
} Normal;

// Adds what pixel (y, x) of a says, compared with b where the motion v brings it.
static void add_pixel(Normal *n, const MotionMeter *m, const double *a, const double *b, int y,
                      int x, const Motion *v) {
    int w = m->width;
    double cy = (m->height - 1) / 2.0, cx = (w - 1) / 2.0, scale = 1 + v->zoom / 100;
    double to_y = cy + scale * (y - cy) + v->shift_y, to_x = cx + scale * (x - cx) + v->shift_x;
    if (!(to_y >= 0 && to_x >= 0 && to_y < m->height - 1 && to_x < w - 1)) return;
    int j = (int)to_y, i = (int)to_x;
    double fy = to_y - j, fx = to_x - i;
    const double *p = b + j * w + i, *q = a + y * w + x;
    double there =
        (1 - fy) * ((1 - fx) * p[0] + fx * p[1]) + fy * ((1 - fx) * p[w] + fx * p[w + 1]);
    double d[3] = {(q[w] - q[-w]) / 2, (q[1] - q[-1]) / 2, 0}, weight = m->window[y * w + x];
    d[2] = d[0] * (y - cy) + d[1] * (x - cx);
    for (int r = 0; r < 3; r++) {
        n->g[r] += weight * d[r] * (there - *q);
        for (int c = 0; c < 3; c++) n->h[r][c] += weight * d[r] * d[c];
    }
}

// H p = -g by elimination. H is a sum of squares; false when it leaves a direction open.
static bool solve(Normal *n, double p[3]) {
    double least = 1e-9 * (n->h[0][0] + n->h[1][1] + n->h[2][2]);
    for (int k = 0; k < 3; k++) {
        if (!(n->h[k][k] > least)) return false;
        for (int r = k + 1; r < 3; r++) {
            double by = n->h[r][k] / n->h[k][k];
            for (int c = k; c < 3; c++) n->h[r][c] -= by * n->h[k][c];
            n->g[r] -= by * n->g[k];
        }
    }
    for (int k = 2; k >= 0; k--) {
        p[k] = -n->g[k];
        for (int c = k + 1; c < 3; c++) p[k] -= n->h[k][c] * p[c];
        p[k] /= n->h[k][k];
    }
    return true;
}

// From the start on, until the frames agree best. What runs away goes back to the start.
static Motion refine(const MotionMeter *m, const Frame *a, const Frame *b, Motion start) {
    Motion v = start;
    for (int i = 0; i < LEVELS * ROUNDS; i++) {
        Normal n = {0};
        double p[3];
        for (int y = 1; y < m->height - 1; y += STRIDE)
            for (int x = 1; x < m->width - 1; x += STRIDE)
                add_pixel(&n, m, a->level[i / ROUNDS], b->level[i / ROUNDS], y, x, &v);
        if (!solve(&n, p)) return start;
        v.shift_y += p[0];
        v.shift_x += p[1];
        v.zoom = 100 * ((1 + v.zoom / 100) * exp(p[2]) - 1);
        if (!(fabs(v.shift_y) < m->height / 4.0 && fabs(v.shift_x) < m->width / 4.0 &&
              fabs(v.zoom) < 100 * ZOOM_MAX))
            return start;
    }
    return v;
}

// ---- Videos ----

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int cnt) {
    qsort(x, (size_t)cnt, sizeof *x, by_value);
    return cnt % 2 ? x[cnt / 2] : (x[cnt / 2 - 1] + x[cnt / 2]) / 2;
}

Motion motion_of_video(MotionMeter *m, const float *luma, int frames, int segment) {
    int cnt = 0;
    size_t pixels = (size_t)m->full_width * (size_t)m->full_height;
    double *x = room((size_t)frames, sizeof *x), *y = room((size_t)frames, sizeof *y),
           *z = room((size_t)frames, sizeof *z);
    for (int t = 0; t < frames; t++) {
        Frame *now = &m->of[t % 2], *before = &m->of[(t + 1) % 2];
        take_frame(m, luma + (size_t)t * pixels, now);
        if (t % segment == 0) continue; // nothing before it, or what it repeats
        Motion v = refine(m, before, now, correlate(m, before->spectrum, now->spectrum));
        x[cnt] = v.shift_x * m->shrink, y[cnt] = v.shift_y * m->shrink, z[cnt++] = v.zoom;
    }
    die_unless(cnt, "motion: %d frames in segments of %d have no pairs", frames, segment);
    Motion out = {median(x, cnt), median(y, cnt), median(z, cnt)};
    free(x);
    free(y);
    free(z);
    return out;
}
