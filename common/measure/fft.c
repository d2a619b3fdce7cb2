// fft: bit reversal, then butterflies; down the columns a butterfly is of whole rows.
#include "common/measure/fft.h"

#include <math.h>
#include <stdlib.h>

#include "common/base/err.h"

typedef struct Axis {
    int n;
    int *swap;       // (n) index with its bits in reverse
    FftValue *twist; // (n / 2) exp(-2 pi i k / n)
} Axis;

struct Fft {
    Axis y, x;
};

int fft_side(int n) {
    int side = 1;
    while (side < n) side *= 2;
    return side;
}

static Axis axis_make(int n) {
    die_unless(n >= 1 && n <= 1 << 15 && fft_side(n) == n, "fft: a side of %d", n);
    Axis a = {n, calloc((size_t)n, sizeof *a.swap), calloc((size_t)n, sizeof *a.twist)};
    die_unless(a.swap && a.twist, "fft: out of memory");
    for (int i = 1; i < n; i++) a.swap[i] = a.swap[i / 2] / 2 + (i % 2 ? n / 2 : 0);
    for (int k = 0; k < n / 2; k++)
        a.twist[k] = (FftValue){cos(2 * M_PI * k / n), -sin(2 * M_PI * k / n)};
    return a;
}

Fft *fft_new(int height, int width) {
    Fft *f = malloc(sizeof *f);
    die_unless(f, "fft: out of memory");
    *f = (Fft){axis_make(height), axis_make(width)};
    return f;
}

void fft_free(Fft *f) {
    if (!f) return;
    free(f->y.swap);
    free(f->y.twist);
    free(f->x.swap);
    free(f->x.twist);
    free(f);
}

// (a, b) <- (a + w b, a - w b), element by element of two rows.
static void butterfly(FftValue *restrict a, FftValue *restrict b, FftValue w, int cnt) {
    for (int i = 0; i < cnt; i++) {
        FftValue t = {w.re * b[i].re - w.im * b[i].im, w.re * b[i].im + w.im * b[i].re};
        b[i] = (FftValue){a[i].re - t.re, a[i].im - t.im};
        a[i] = (FftValue){a[i].re + t.re, a[i].im + t.im};
    }
}

// n rows of `cnt` elements, along the rows' number. sign +1: forward.
static void transform(const Axis *axis, FftValue *x, int cnt, double sign) {
    int n = axis->n;
    for (int i = 0; i < n; i++) {
        if (axis->swap[i] <= i) continue;
        FftValue *a = x + (long)i * cnt, *b = x + (long)axis->swap[i] * cnt;
        for (int k = 0; k < cnt; k++) {
            FftValue t = a[k];
            a[k] = b[k];
            b[k] = t;
        }
    }
    for (int half = 1; half < n; half *= 2)
        for (int k = 0; k < half; k++) {
            FftValue w = axis->twist[k * (n / 2 / half)];
            w.im *= sign;
            for (int at = k; at < n; at += 2 * half)
                butterfly(x + (long)at * cnt, x + (long)(at + half) * cnt, w, cnt);
        }
}

static void both(const Fft *f, FftValue *x, double sign) {
    for (int y = 0; y < f->y.n; y++) transform(&f->x, x + (long)y * f->x.n, 1, sign);
    transform(&f->y, x, f->x.n, sign);
}

void fft_forward(const Fft *f, FftValue *x) { both(f, x, 1); }

void fft_inverse(const Fft *f, FftValue *x) {
    long cnt = (long)f->y.n * f->x.n;
    both(f, x, -1);
    for (long i = 0; i < cnt; i++) {
        x[i].re /= (double)cnt;
        x[i].im /= (double)cnt;
    }
}
