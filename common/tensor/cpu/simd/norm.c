// norm: layer normalisation of rows, and the passes over rows and channels that group normalisation is made of.
//
// Means are taken first and subtracted before anything is squared, so that a mean far from zero costs no
// digits. Sums over many rows run in f32 over FLUSH rows and are then added to doubles.
#include "common/tensor/cpu/simd/fast.h"

enum {
    FLUSH = 64,
    NARROW = 192, // rows up to here are normalised four at a time; longer ones stream better alone
};

// ---- Layer normalisation -----------------------------------------------------------------------

// xhat = (x - mean) rstd + off: the mean is in two parts, and off carries the lower.
typedef struct RowStats {
    float mean, rstd, off;
} RowStats;

// Sums of x - shift and, into *square, of its square.
SIMD_INLINE float row_sums(const float *x, float shift, float *square, int64_t n) {
    vf s[4] = {0}, q[4] = {0};
    int64_t i = 0;
    for (; i + 4 * VLEN <= n; i += 4 * VLEN)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            vf v = vf_load(x + i + k * VLEN) - shift;
            s[k] += v;
            if (square) q[k] = vf_fma(v, v, q[k]);
        }
    float tail = 0, tail_square = 0;
    for (; i + VLEN <= n; i += VLEN) {
        vf v = vf_load(x + i) - shift;
        s[0] += v;
        if (square) q[0] = vf_fma(v, v, q[0]);
    }
    for (; i < n; i++) {
        float v = x[i] - shift;
        tail += v;
        tail_square += v * v;
    }
    if (square) *square = vf_sum((q[0] + q[1]) + (q[2] + q[3])) + tail_square;
    return vf_sum((s[0] + s[1]) + (s[2] + s[3])) + tail;
}

// Of n rows next to each other, stage by stage: what is done across lanes takes long, and meanwhile the
// core works on the next row. The first mean is good to some f32 digits; the mean of what remains repairs it.
SIMD_INLINE void row_stats(int n, RowStats *out, const float *x, double eps, int64_t c) {
    float inv = 1.0f / (float)c, low[FAST_MAX], square[FAST_MAX];
    FAST_EACH out[k].mean = row_sums(x + k * c, 0, NULL, c) * inv;
    FAST_EACH low[k] = row_sums(x + k * c, out[k].mean, &square[k], c) * inv;
    FAST_EACH {
        float var = square[k] * inv - low[k] * low[k];
        out[k].rstd = 1.0f / sqrtf((var > 0 || var != var ? var : 0) + (float)eps);
        out[k].off = -low[k] * out[k].rstd;
    }
}

SIMD_INLINE vf row_xhat(RowStats s, vf x) {
    return vf_fma(x - s.mean, vf_set(s.rstd), vf_set(s.off));
}

SIMD_INLINE void layernorm_rows(int n, float *y, const float *x, const float *gamma,
                                const float *beta, double eps, int64_t c) {
    RowStats s[FAST_MAX];
    row_stats(n, s, x, eps, c);
    FAST_EACH for (int64_t i = 0; i < c; i += VLEN) {
        int m = vf_left(c - i);
        vf h = row_xhat(s[k], vf_load_n(x + k * c + i, m));
        if (gamma) h = vf_fma(h, vf_load_n(gamma + i, m), vf_load_n(beta + i, m));
        vf_store_n(y + k * c + i, h, m);
    }
}

void SIMD(layernorm)(float *y, const float *x, const float *gamma, const float *beta, double eps,
                     int64_t rows, int64_t c) {
    int64_t r = 0;
    for (; c <= NARROW && r + FAST_MAX <= rows; r += FAST_MAX)
        layernorm_rows(FAST_MAX, y + r * c, x + r * c, gamma, beta, eps, c);
    for (; r < rows; r++) layernorm_rows(1, y + r * c, x + r * c, gamma, beta, eps, c);
}

SIMD_INLINE void layernorm_dx_rows(int n, float *dx, const float *dy, const float *x,
                                   const float *gamma, double eps, int64_t c) {
    RowStats s[FAST_MAX];
    row_stats(n, s, x, eps, c);
    float mean[FAST_MAX], slope[FAST_MAX];
    FAST_EACH {
        vf sum = {0}, dot = {0};
        for (int64_t i = 0; i < c; i += VLEN) {
            int m = vf_left(c - i);
            vf a = vf_load_n(dy + k * c + i, m); // lanes past the end are 0
            if (gamma) a *= vf_load_n(gamma + i, m);
            sum += a;
            dot = vf_fma(a, row_xhat(s[k], vf_load_n(x + k * c + i, m)), dot);
        }
        mean[k] = vf_sum(sum) / (float)c, slope[k] = vf_sum(dot) / (float)c;
    }
    FAST_EACH for (int64_t i = 0; i < c; i += VLEN) {
        int m = vf_left(c - i);
        vf h = row_xhat(s[k], vf_load_n(x + k * c + i, m)), a = vf_load_n(dy + k * c + i, m);
        if (gamma) a *= vf_load_n(gamma + i, m);
        vf_store_n(dx + k * c + i, s[k].rstd * (a - mean[k] - h * slope[k]), m);
    }
}

void SIMD(layernorm_dx)(float *dx, const float *dy, const float *x, const float *gamma, double eps,
                        int64_t rows, int64_t c) {
    int64_t r = 0;
    for (; c <= NARROW && r + FAST_MAX <= rows; r += FAST_MAX)
        layernorm_dx_rows(FAST_MAX, dx + r * c, dy + r * c, x + r * c, gamma, eps, c);
    for (; r < rows; r++) layernorm_dx_rows(1, dx + r * c, dy + r * c, x + r * c, gamma, eps, c);
}

// Adds f32 sums to doubles and clears them.
static void flush(double *sum, float *acc, int64_t n) {
    for (int64_t i = 0; i < n; i++) sum[i] += (double)acc[i], acc[i] = 0;
}

void SIMD(layernorm_dp)(double *sum, float *acc, const float *dy, const float *x, double eps,
                        int64_t rows, int64_t n) {
    memset(acc, 0, (size_t)(2 * n) * sizeof *acc);
    for (int64_t r = 0; r < rows; r++, dy += n, x += n) {
        RowStats s;
        row_stats(1, &s, x, eps, n);
        for (int64_t i = 0; i < n; i += VLEN) {
            int m = vf_left(n - i);
            vf h = row_xhat(s, vf_load_n(x + i, m)), a = vf_load_n(dy + i, m);
            vf_store_n(acc + i, vf_fma(a, h, vf_load_n(acc + i, m)), m);
            vf_store_n(acc + n + i, vf_load_n(acc + n + i, m) + a, m);
        }
        if (r % FLUSH == FLUSH - 1 || r == rows - 1) flush(sum, acc, 2 * n);
    }
}

// ---- Group normalisation: per channel ----------------------------------------------------------

// rows is 1 or 4: sums of so many rows are added before the accumulators are touched. m channels from i on.
SIMD_INLINE void moments_one(float *acc, const float *x, const float *shift, int rows, int64_t c,
                             int64_t i, int m) {
    vf at = vf_load_n(shift + i, m), s = {0}, q = {0};
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        __builtin_prefetch(x + (r + 8) * c +
                           i); // the four streams are too short for the hardware's guess
        vf v = vf_load_n(x + r * c + i, m) - at;
        s += v;
        q = vf_fma(v, v, q);
    }
    vf_store_n(acc + i, vf_load_n(acc + i, m) + s, m);
    vf_store_n(acc + c + i, vf_load_n(acc + c + i, m) + q, m);
}

SIMD_INLINE void moments_rows(float *acc, const float *x, const float *shift, int rows, int64_t c) {
    int64_t i = 0;
    for (; i + VLEN <= c; i += VLEN) moments_one(acc, x, shift, rows, c, i, VLEN);
    if (i < c) moments_one(acc, x, shift, rows, c, i, (int)(c - i));
}

void SIMD(groupnorm_moments)(double *sum, float *acc, const float *x, const float *shift,
                             int64_t rows, int64_t c) {
    memset(acc, 0, (size_t)(2 * c) * sizeof *acc);
    for (int64_t r = 0; r < rows;) {
        int64_t end = r + FLUSH < rows ? r + FLUSH : rows;
        for (; r + 4 <= end; r += 4) moments_rows(acc, x + r * c, shift, 4, c);
        for (; r < end; r++) moments_rows(acc, x + r * c, shift, 1, c);
        flush(sum, acc, 2 * c);
    }
}

// d/dz of silu(z) = s (1 + z (1 - s)), from u = -z log2 e.
SIMD_INLINE void silu_slope(int n, vf *y, const vf *u) {
    vf s[FAST_MAX], ln2 = vf_set(1 / FAST_LOG2E);
    fast_sigmoid_scaled(n, s, u);
    FAST_EACH y[k] = s[k] * vf_fma(u[k], vf_fma(s[k], ln2, -ln2), vf_set(1.0f));
}

// n vectors of m channels each from channel i on.
SIMD_INLINE void apply_some(int n, float *y, const float *x, const NormChannels *p, bool silu,
                            int64_t i, int m) {
    vf z[FAST_MAX];
    vf_prefetch(x + i + SIMD_AHEAD, n);
    FAST_EACH {
        int64_t at = i + k * VLEN;
        z[k] = vf_fma(vf_load_n(x + at, m) - vf_load_n(p->mean + at, m), vf_load_n(p->gain + at, m),
                      vf_load_n(p->bias + at, m));
    }
    if (silu) fast_silu_scaled(n, z, z);
    FAST_EACH vf_store_n(y + i + k * VLEN, z[k], m);
}

SIMD_INLINE void apply_rows(float *y, const float *x, NormChannels p, bool silu, int64_t rows,
                            int64_t c) {
    for (int64_t r = 0; r < rows; r++, y += c, x += c) {
        int64_t i = 0;
        for (; i + FAST_MAX * VLEN <= c; i += FAST_MAX * VLEN)
            apply_some(FAST_MAX, y, x, &p, silu, i, VLEN);
        for (; i < c; i += VLEN) apply_some(1, y, x, &p, silu, i, vf_left(c - i));
    }
}

void SIMD(groupnorm_apply)(float *y, const float *x, const NormChannels *p, bool silu, int64_t rows,
                           int64_t c) {
    if (silu)
        apply_rows(y, x, *p, true, rows, c);
    else
        apply_rows(y, x, *p, false, rows, c);
}

SIMD_INLINE void back_one(float *acc, float *dz, const float *dy, const float *x,
                          const NormChannels *p, bool silu, int n, int64_t c, int64_t i, int m) {
    vf mean = vf_load_n(p->mean + i, m), rstd = vf_load_n(p->rstd + i, m),
       off = vf_load_n(p->off + i, m);
    vf gain = vf_load_n(p->gain + i, m), bias = vf_load_n(p->bias + i, m), s = {0}, q = {0};
    vf v[FAST_MAX], slope[FAST_MAX];
    FAST_EACH {
        __builtin_prefetch(x + (k + 8) * c + i);
        __builtin_prefetch(dy + (k + 8) * c + i);
        v[k] = vf_load_n(x + k * c + i, m) - mean;
        if (silu) slope[k] = vf_fma(v[k], gain, bias);
    }
    if (silu) silu_slope(n, slope, slope);
    FAST_EACH {
        vf a = vf_load_n(dy + k * c + i, m);
        if (silu) a *= slope[k];
        if (dz) vf_store_n(dz + k * c + i, a, m);
        s = vf_fma(a, vf_fma(v[k], rstd, off), s);
        q += a;
    }
    vf_store_n(acc + i, vf_load_n(acc + i, m) + s, m);
    vf_store_n(acc + c + i, vf_load_n(acc + c + i, m) + q, m);
}

SIMD_INLINE void back_rows(float *acc, float *dz, const float *dy, const float *x,
                           const NormChannels *p, bool silu, int rows, int64_t c) {
    int64_t i = 0;
    for (; i + VLEN <= c; i += VLEN) back_one(acc, dz, dy, x, p, silu, rows, c, i, VLEN);
    if (i < c) back_one(acc, dz, dy, x, p, silu, rows, c, i, (int)(c - i));
}

#define BACK_LOOP(dz_at, silu)                                                                    \
    for (int64_t r = 0; r < rows;) {                                                              \
        int64_t end = r + FLUSH < rows ? r + FLUSH : rows;                                        \
        for (; r + 4 <= end; r += 4) back_rows(acc, dz_at, dy + r * c, x + r * c, p, silu, 4, c); \
        for (; r < end; r++) back_rows(acc, dz_at, dy + r * c, x + r * c, p, silu, 1, c);         \
        flush(sum, acc, 2 * c);                                                                   \
    }

void SIMD(groupnorm_back)(double *sum, float *acc, float *dz, const float *dy, const float *x,
                          const NormChannels *p, bool silu, int64_t rows, int64_t c) {
    memset(acc, 0, (size_t)(2 * c) * sizeof *acc);
    if (dz && silu)
        BACK_LOOP(dz + r * c, true)
    else if (silu)
        BACK_LOOP(NULL, true)
    else
        BACK_LOOP(NULL, false)
}

void SIMD(groupnorm_dx)(float *dx, const float *dz, const float *x, const float *mean,
                        const float *a, const float *b, const float *k, int64_t rows, int64_t c) {
    for (int64_t r = 0; r < rows; r++, dx += c, dz += c, x += c)
        for (int64_t i = 0; i < c; i += VLEN) {
            int m = vf_left(c - i);
            vf v = vf_load_n(x + i, m) - vf_load_n(mean + i, m);
            vf y = vf_fma(v, vf_load_n(b + i, m), vf_load_n(k + i, m));
            vf_store_n(dx + i, vf_fma(vf_load_n(dz + i, m), vf_load_n(a + i, m), y), m);
        }
}
