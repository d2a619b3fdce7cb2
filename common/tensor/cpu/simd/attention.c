// attention: softmax(scale Q K^T) V of one head, and its vjp, in f32 with the probabilities recomputed.
//
// Long sequences: a block of query rows holds its whole row of scores in cache, so the softmax needs no
// running maximum. Q K^T and P V are products with K^T and V packed into panels once per head. Rows
// of scores are 16 floats longer than a power of two: at 4 KB strides they would share cache sets.
//
// Up to SHORT_MAX tokens (frames at one pixel) packing would cost more than the product. There the scores
// lie transposed, S^T[key][query] with queries across the lanes: maxima, sums and exponentials need no work
// across lanes, K and V are read in place, and only Q (and dO) is transposed, in registers.
#include "common/tensor/cpu/simd/fast.h"

enum {
    MR = VLEN == 16 ? 14 : 6, // rows of a gemm tile, see gemm.c
    NV = 2,
    NR = NV * VLEN, // columns of a panel
    SHORT_MAX = 32,
    SHORT_ROWS = VLEN == 16 ? 12 : 6,
    PAD = 16,
    BLOCK_FLOATS = 65536, // scores of a block of queries: more row tiles gain little,
    BLOCK_TILES_MIN =
        VLEN == 16 ? 2 : 4, // fewer make the panels' trip through the cache too expensive
    BLOCK_TILES_MAX = VLEN == 16 ? 4 : 8,
};

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// ---- Transposition in registers ----------------------------------------------------------------

// Exchanges the off-diagonal blocks of width s of two rows s apart: lanes with bit s clear come from a.
#define LANE(i, s) ((i) & (s) ? VLEN + (i) - (s) : (i))
#define LANE_HIGH(i, s) ((i) & (s) ? VLEN + (i) : (i) + (s))
#define LANES4(f, i, s) f(i, s), f(i + 1, s), f(i + 2, s), f(i + 3, s)
#if defined __AVX512F__
#define LANES(f, s) \
    (vi) { LANES4(f, 0, s), LANES4(f, 4, s), LANES4(f, 8, s), LANES4(f, 12, s) }
#elif defined __AVX2__
#define LANES(f, s) \
    (vi) { LANES4(f, 0, s), LANES4(f, 4, s) }
#else
#define LANES(f, s) \
    (vi) { LANES4(f, 0, s) }
#endif
#define TRANSPOSE_STAGE(r, s)                                                  \
    _Pragma("GCC unroll 16") for (int i = 0; i < VLEN; i++) {                  \
        if (i & (s)) continue;                                                 \
        vf lo = __builtin_shuffle(r[i], r[i + (s)], LANES(LANE, s));           \
        r[i + (s)] = __builtin_shuffle(r[i], r[i + (s)], LANES(LANE_HIGH, s)); \
        r[i] = lo;                                                             \
    }

// dst[c*ldd + r] = a * src[r*lds + c] for r < rows <= VLEN, 0 for the rows up to VLEN; c < cols.
static void transpose_rows(float *dst, int64_t ldd, const float *src, int64_t lds, int rows,
                           int64_t cols, float a) {
    for (int64_t c = 0; c < cols; c += VLEN) {
        int lanes = vf_left(cols - c);
        vf r[VLEN];
        if (rows == VLEN && lanes == VLEN) {
#pragma GCC unroll 16
            for (int i = 0; i < VLEN; i++) r[i] = vf_load(src + i * lds + c) * a;
        } else {
#pragma GCC unroll 16
            for (int i = 0; i < VLEN; i++)
                r[i] = i < rows ? vf_load_n(src + i * lds + c, lanes) * a : (vf){0};
        }
#if defined __AVX512F__
        TRANSPOSE_STAGE(r, 8)
#endif
#if defined __AVX2__
        TRANSPOSE_STAGE(r, 4)
#endif
        TRANSPOSE_STAGE(r, 2)
        TRANSPOSE_STAGE(r, 1)
#pragma GCC unroll 16
        for (int i = 0; i < VLEN; i++)
            if (i < lanes) vf_store(dst + (c + i) * ldd, r[i]);
    }
}

// ---- Long sequences ----------------------------------------------------------------------------

// Panels of the transpose of n tokens: [ceil(n/NR)][d][NR].
static void pack_transposed(float *panels, SdpaRows x, int64_t n, int64_t d) {
    for (int64_t i = 0; i < n; i += NR, panels += d * NR)
        for (int v = 0; v < NV; v++) {
            int64_t at = i + v * VLEN;
            transpose_rows(panels + v * VLEN, NR, x.p + at * x.stride, x.stride,
                           (int)max(0, min(VLEN, n - at)), d, 1);
        }
}

static void pack(float *panels, SdpaRows x, int64_t n, int64_t d) {
    SIMD(gemm_pack)(panels, x.p, DTYPE_F32, x.stride, 1, n, d);
}

// Queries of a block; tensors = blocks of scores that are alive at once.
static int64_t block_rows(const SdpaHead *h, int tensors) {
    int64_t tiles = BLOCK_FLOATS / (tensors * MR * round_up(h->lk, NR));
    return MR * max(BLOCK_TILES_MIN, min(tiles, BLOCK_TILES_MAX));
}
static int64_t score_stride(const SdpaHead *h) { return round_up(h->lk, NR) + PAD; }

// Where a block of queries finds the packed keys and values, and its scores.
typedef struct Block {
    int64_t rows;           // at most
    float *kt, *v;          // forward: K^T and V
    float *k, *vt, *q, *dy; // backward, besides kt: panels of K, V^T, and of the block's Q and dO
    float *p, *dp;          // scores, rows at stride ld
    float *inv;             // 1 / sum of each row
    int64_t ld, kt_panel, v_panel, q_panel; // strides
} Block;

static float *take(float **at, int64_t n) {
    float *p = *at;
    *at += round_up(n, 16);
    return p;
}

// Lays out the scratch; returns its floats.
static int64_t block_init(Block *b, const SdpaHead *h, bool back) {
    float *start = h->scratch, *at = start;
    int64_t tokens = round_up(h->lk, NR), width = round_up(h->d, NR);
    *b = (Block){.rows = block_rows(h, back ? 2 : 1), .ld = score_stride(h)};
    b->kt_panel = h->d * NR, b->v_panel = h->lk * NR, b->q_panel = b->rows * NR;
    b->kt = take(&at, tokens * h->d);
    *(back ? &b->k : &b->v) = take(&at, width * h->lk);
    b->p = take(&at, b->rows * b->ld);
    b->inv = take(&at, b->rows);
    if (back) {
        b->vt = take(&at, tokens * h->d);
        b->q = take(&at, width * b->rows);
        b->dy = take(&at, width * b->rows);
        b->dp = take(&at, b->rows * b->ld);
    }
    return at - start;
}

// Keys that some query of [i, i + rows) sees.
static int64_t keys_seen(const SdpaHead *h, int64_t i, int64_t rows) {
    return h->causal ? i + rows : h->lk;
}

// Scores of queries [i, i + rows) to exp(scale (s - max)), and 1 / their sums. Zero behind the last seen key.
static void softmax_block(const SdpaHead *h, const Block *b, int64_t i, int64_t rows) {
    int64_t end = round_up(keys_seen(h, i, rows), NR);
    vf a = vf_set(h->scale * FAST_LOG2E);
    for (int64_t r = 0; r < rows; r++) {
        float *s = b->p + r * b->ld;
        int64_t n = keys_seen(h, i + r, 1), j;
        vf top = vf_set(-INFINITY), top1 = top;
        for (j = n; j < end; j++)
            s[j] = -INFINITY; // at least up to a whole vector, or to the block's last key
        for (j = 0; j < end; j += NR) {
            top = vf_max(top, vf_load(s + j));
            top1 = vf_max(top1, vf_load(s + j + VLEN));
        }
        top = vf_set(vf_max_lane(vf_max(top, top1)));
        vf sum = {0}, sum1 = {0};
        for (j = 0; j < end; j += NR) {
            vf e[2] = {(vf_load(s + j) - top) * a, (vf_load(s + j + VLEN) - top) * a};
            fast_exp2_low(2, e, e); // of 0 at the top, however large that is
            vf_store(s + j, e[0]);
            vf_store(s + j + VLEN, e[1]);
            sum += e[0];
            sum1 += e[1];
        }
        b->inv[r] = 1.0f / vf_sum(sum + sum1);
    }
}

// Scores x (rows, d) times panels of transposed tokens. All NR columns of a panel exist in dst.
static void score_block(const SdpaHead *h, const Block *b, float *dst, SdpaRows x,
                        const float *panels, int64_t i, int64_t rows) {
    int64_t n = round_up(keys_seen(h, i, rows), NR);
    SIMD(gemm)
    (dst, b->ld, x.p + i * x.stride, x.stride, 1, panels, b->kt_panel, rows, n, h->d, NULL, NULL, 0,
     0);
}

static void forward_long(const SdpaHead *h) {
    Block b;
    block_init(&b, h, false);
    int64_t keys = keys_seen(h, h->q0, h->q1 - h->q0);
    pack_transposed(b.kt, h->k, keys, h->d);
    SIMD(gemm_pack)(b.v, h->v.p, DTYPE_F32, h->v.stride, 1, h->lk, h->d);
    for (int64_t i = h->q0, rows; i < h->q1; i += rows) {
        rows = min(b.rows, h->q1 - i);
        score_block(h, &b, b.p, h->q, b.kt, i, rows);
        softmax_block(h, &b, i, rows);
        float *y = h->y.p + i * h->y.stride;
        SIMD(gemm)
        (y, h->y.stride, b.p, b.ld, 1, b.v, b.v_panel, rows, h->d, keys_seen(h, i, rows), NULL,
         NULL, 0, 0);
        for (int64_t r = 0; r < rows; r++, y += h->y.stride)
            for (int64_t c = 0; c < h->d; c += VLEN) {
                int lanes = vf_left(h->d - c);
                vf_store_n(y + c, vf_load_n(y + c, lanes) * b.inv[r], lanes);
            }
    }
}

// p = P, dp = dO V^T to dp = scale P (dp - sum(P dp)); p is divided by its sum.
static void softmax_back_block(const SdpaHead *h, const Block *b, int64_t i, int64_t rows) {
    int64_t end = round_up(keys_seen(h, i, rows), NR);
    for (int64_t r = 0; r < rows; r++) {
        float *p = b->p + r * b->ld, *dp = b->dp + r * b->ld;
        vf inv = vf_set(b->inv[r]), dot = {0}, dot1 = {0};
        for (int64_t j = 0; j < end; j += NR) {
            vf a = vf_load(p + j) * inv, a1 = vf_load(p + j + VLEN) * inv;
            vf_store(p + j, a);
            vf_store(p + j + VLEN, a1);
            dot = vf_fma(a, vf_load(dp + j), dot);
            dot1 = vf_fma(a1, vf_load(dp + j + VLEN), dot1);
        }
        vf mean = vf_set(vf_sum(dot + dot1)), scale = vf_set(h->scale);
        for (int64_t j = 0; j < end; j += VLEN)
            vf_store(dp + j, vf_load(p + j) * (vf_load(dp + j) - mean) * scale);
    }
}

static void back_long(const SdpaHead *h) {
    Block b;
    block_init(&b, h, true);
    SdpaRows dq = h->dq, dk = h->dk, dv = h->dv;
    pack_transposed(b.kt, h->k, h->lk, h->d);
    pack_transposed(b.vt, h->v, h->lk, h->d);
    pack(b.k, h->k, h->lk, h->d);
    for (int64_t i = h->q0, rows; i < h->q1; i += rows) {
        rows = min(b.rows, h->q1 - i);
        int64_t keys = keys_seen(h, i, rows);
        score_block(h, &b, b.p, h->q, b.kt, i, rows);
        softmax_block(h, &b, i, rows);
        score_block(h, &b, b.dp, h->y, b.vt, i, rows);
        softmax_back_block(h, &b, i, rows);
        SIMD(gemm)
        (dq.p + i * dq.stride, dq.stride, b.dp, b.ld, 1, b.k, b.v_panel, rows, h->d, keys, NULL,
         NULL, 0, 0);
        pack(b.q, (SdpaRows){h->q.p + i * h->q.stride, h->q.stride}, rows, h->d);
        pack(b.dy, (SdpaRows){h->y.p + i * h->y.stride, h->y.stride}, rows, h->d);
        bool more = i > h->q0;
        // The first block defines every key's row, seen or not.
        if (!more && keys < h->lk) {
            for (int64_t j = keys; j < h->lk; j++) {
                memset(dk.p + j * dk.stride, 0, (size_t)h->d * sizeof(float));
                memset(dv.p + j * dv.stride, 0, (size_t)h->d * sizeof(float));
            }
        }
        SIMD(gemm)
        (dk.p, dk.stride, b.dp, 1, b.ld, b.q, rows * NR, keys, h->d, rows, NULL, NULL, 0, more);
        SIMD(gemm)
        (dv.p, dv.stride, b.p, 1, b.ld, b.dy, rows * NR, keys, h->d, rows, NULL, NULL, 0, more);
    }
}

// ---- Short sequences ---------------------------------------------------------------------------

// y (rows, lanes) (+)= sum over i < k of a[r*as + i*aks] b[i*ldb + ...]. Rows of b are whole vectors; rows, vectors
// and one of the strides of a are constants where this is inlined.
SIMD_INLINE void short_tile(int rows, int vectors, float *y, int64_t ldy, const float *a,
                            int64_t as, int64_t aks, const float *b, int64_t ldb, int64_t k,
                            int lanes, bool add) {
    vf acc[SHORT_ROWS][NV];
    bool full = lanes == vectors * VLEN;
    int tail = lanes - (vectors - 1) * VLEN;
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) acc[r][v] = (vf){0};
    for (int64_t i = 0; i < k; i++, a += aks, b += ldb) {
        vf b0 = vf_load(b), b1 = vectors > 1 ? vf_load(b + VLEN) : b0;
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            vf x = vf_set(a[r * as]);
            acc[r][0] = vf_fma(x, b0, acc[r][0]);
            if (vectors > 1) acc[r][1] = vf_fma(x, b1, acc[r][1]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++, y += ldy) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            if (v + 1 < vectors || full)
                vf_store(y + v * VLEN, add ? vf_load(y + v * VLEN) + acc[r][v] : acc[r][v]);
            else
                vf_store_n(y + v * VLEN,
                           add ? vf_load_n(y + v * VLEN, tail) + acc[r][v] : acc[r][v], tail);
        }
    }
}

#define SHORT_CASE(rows, vectors, as, aks)                                    \
    case rows:                                                                \
        short_tile(rows, vectors, y, ldy, a, as, aks, b, ldb, k, lanes, add); \
        break;
#define SHORT_CASES_6(v, as, aks) \
    SHORT_CASE(1, v, as, aks)     \
    SHORT_CASE(2, v, as, aks)     \
    SHORT_CASE(3, v, as, aks)     \
    SHORT_CASE(4, v, as, aks) SHORT_CASE(5, v, as, aks) SHORT_CASE(6, v, as, aks)
#if defined __AVX512F__
#define SHORT_CASES(v, as, aks) \
    SHORT_CASES_6(v, as, aks)   \
    SHORT_CASE(7, v, as, aks)   \
    SHORT_CASE(8, v, as, aks)   \
    SHORT_CASE(9, v, as, aks)   \
    SHORT_CASE(10, v, as, aks) SHORT_CASE(11, v, as, aks) SHORT_CASE(12, v, as, aks)
#else
#define SHORT_CASES SHORT_CASES_6
#endif
#define SHORT_FUNCTION(name, v, as, aks)                                               \
    static void name(int64_t rows, float *y, int64_t ldy, const float *a, int64_t lda, \
                     const float *b, int64_t ldb, int64_t k, int lanes, bool add) {    \
        switch (rows) { SHORT_CASES(v, as, aks) }                                      \
    }
SHORT_FUNCTION(short_rows_1, 1, lda, 1)
SHORT_FUNCTION(short_rows_2, 2, lda, 1)
SHORT_FUNCTION(short_cols_1, 1, 1, lda)
SHORT_FUNCTION(short_cols_2, 2, 1, lda)

// y (m, n) (+)= a b where rows of b are whole panels; a(i, k) at a[i*lda + k], or at a[k*lda + i] when cols.
static void short_gemm(float *y, int64_t ldy, const float *a, int64_t lda, bool cols,
                       const float *b, int64_t ldb, int64_t m, int64_t n, int64_t k, bool add) {
    int64_t tiles = (m + SHORT_ROWS - 1) / SHORT_ROWS, step = (m + tiles - 1) / tiles;
    for (int64_t c = 0; c < n; c += NR) {
        int lanes = (int)min(NR, n - c);
        for (int64_t i = 0; i < m; i += step) {
            int64_t rows = min(step, m - i);
            const float *at = a + (cols ? i : i * lda);
            if (lanes > VLEN)
                (cols ? short_cols_2 : short_rows_2)(rows, y + i * ldy + c, ldy, at, lda, b + c,
                                                     ldb, k, lanes, add);
            else
                (cols ? short_cols_1 : short_rows_1)(rows, y + i * ldy + c, ldy, at, lda, b + c,
                                                     ldb, k, lanes, add);
        }
    }
}

// Scratch: copies of a head's rows, zero padded to whole panels; Q^T and dO^T (d, NR) of a block of queries;
// P^T and dP^T (lk, NR). Copies, because tokens a power of two apart share the few ways of a cache set.
typedef struct Short {
    float *q, *k, *v, *dy;
    float *qt, *yt, *p, *dp;
    int64_t ld; // of the copies
} Short;

static int64_t short_init(Short *s, const SdpaHead *h, bool back) {
    float *start = h->scratch, *at = start;
    *s = (Short){.ld = round_up(h->d, NR)};
    s->q = take(&at, NR * s->ld);
    s->k = take(&at, h->lk * s->ld);
    s->v = take(&at, h->lk * s->ld);
    s->qt = take(&at, h->d * NR);
    s->p = take(&at, h->lk * NR);
    if (back) {
        s->dy = take(&at, NR * s->ld);
        s->yt = take(&at, h->d * NR);
        s->dp = take(&at, h->lk * NR);
    }
    return at - start;
}

// Also asks for the rows of the next head, which follow these.
static void short_copy(const Short *s, float *dst, SdpaRows x, int64_t i, int64_t n, int64_t d) {
    const float *src = x.p + i * x.stride;
    for (; n; n--, dst += s->ld, src += x.stride) {
        for (int64_t c = 0; c < d; c += 16) __builtin_prefetch(src + d + c);
        for (int64_t c = 0; c < s->ld; c += VLEN)
            vf_store(dst + c, c < d ? vf_load_n(src + c, vf_left(d - c)) : (vf){0});
    }
}

// Asks for n rows that will be written. Frames of a pixel lie a page or more apart, which no prefetcher follows.
static void short_will_write(SdpaRows x, int64_t i, int64_t n, int64_t d) {
    float *row = x.p + i * x.stride;
    for (; n; n--, row += x.stride)
        for (int64_t c = 0; c < d; c += 16) __builtin_prefetch(row + c, 1);
}

// P^T of queries [i, i + n), n <= NR, in vectors*VLEN lanes.
SIMD_INLINE void short_softmax(const SdpaHead *h, float *p, int64_t i, int vectors) {
    static const vi lane = {
        LANES4(LANE, 0, 0)
#if defined __AVX2__
            ,
        LANES4(LANE, 4, 0)
#endif
#if defined __AVX512F__
            ,
        LANES4(LANE, 8, 0),
        LANES4(LANE, 12, 0)
#endif
    };
    for (int v = 0; v < vectors; v++) {
        float *s = p + v * VLEN;
        int first = (int)i + v * VLEN;
        if (h->causal)
            for (int64_t j = first + 1; j < h->lk; j++)
                vf_store(s + j * NR,
                         vf_select(lane + first < (int)j, vf_set(-INFINITY), vf_load(s + j * NR)));
        vf top = vf_load(s), sum = {0};
        for (int64_t j = 1; j < h->lk; j++) top = vf_max(top, vf_load(s + j * NR));
        for (int64_t j = 0; j < h->lk; j++) {
            vf e = vf_load(s + j * NR) - top;
            fast_exp2_low(1, &e, &e);
            vf_store(s + j * NR, e);
            sum += e;
        }
        vf inv = 1.0f / sum;
        for (int64_t j = 0; j < h->lk; j++) vf_store(s + j * NR, vf_load(s + j * NR) * inv);
    }
}

// dst (d, NR) = a x^T, for n <= NR rows of a copy.
static void short_transpose(float *dst, const Short *s, const float *x, int64_t n, int64_t d,
                            float a) {
    for (int64_t v = 0; v < n; v += VLEN)
        transpose_rows(dst + v, NR, x + v * s->ld, s->ld, (int)min(VLEN, n - v), d, a);
}

// Fills s->p with the probabilities of n queries from i. Returns the lanes in use.
static int short_probabilities(const SdpaHead *h, const Short *s, int64_t i, int64_t n) {
    int lanes = (int)round_up(n, VLEN);
    short_copy(s, s->q, h->q, i, n, h->d);
    short_transpose(s->qt, s, s->q, n, h->d, h->scale * FAST_LOG2E);
    short_gemm(s->p, NR, s->k, s->ld, false, s->qt, NR, h->lk, lanes, h->d, false);
    short_softmax(h, s->p, i, lanes / VLEN);
    return lanes;
}

static void forward_short(const SdpaHead *h) {
    Short s;
    short_init(&s, h, false);
    short_copy(&s, s.k, h->k, 0, h->lk, h->d);
    short_copy(&s, s.v, h->v, 0, h->lk, h->d);
    for (int64_t i = h->q0, n; i < h->q1; i += n) {
        n = min(NR, h->q1 - i);
        short_will_write(h->y, i, n, h->d);
        short_probabilities(h, &s, i, n);
        short_gemm(h->y.p + i * h->y.stride, h->y.stride, s.p, NR, true, s.v, s.ld, n, h->d, h->lk,
                   false);
    }
}

static void back_short(const SdpaHead *h) {
    Short s;
    short_init(&s, h, true);
    short_will_write(h->dk, 0, h->lk, h->d);
    short_will_write(h->dv, 0, h->lk, h->d);
    short_copy(&s, s.k, h->k, 0, h->lk, h->d);
    short_copy(&s, s.v, h->v, 0, h->lk, h->d);
    for (int64_t i = h->q0, n; i < h->q1; i += n) {
        n = min(NR, h->q1 - i);
        short_will_write(h->dq, i, n, h->d);
        int lanes = short_probabilities(h, &s, i, n);
        short_copy(&s, s.dy, h->y, i, n, h->d);
        short_transpose(s.yt, &s, s.dy, n, h->d, 1);
        short_gemm(s.dp, NR, s.v, s.ld, false, s.yt, NR, h->lk, lanes, h->d, false);
        for (int v = 0; v < lanes; v += VLEN) {
            float *p = s.p + v, *dp = s.dp + v;
            vf dot = {0}, scale = vf_set(h->scale);
            for (int64_t j = 0; j < h->lk; j++)
                dot = vf_fma(vf_load(p + j * NR), vf_load(dp + j * NR), dot);
            for (int64_t j = 0; j < h->lk; j++)
                vf_store(dp + j * NR, vf_load(p + j * NR) * (vf_load(dp + j * NR) - dot) * scale);
        }
        bool more = i > h->q0;
        short_gemm(h->dq.p + i * h->dq.stride, h->dq.stride, s.dp, NR, true, s.k, s.ld, n, h->d,
                   h->lk, false);
        short_gemm(h->dk.p, h->dk.stride, s.dp, NR, false, s.q, s.ld, h->lk, h->d, n, more);
        short_gemm(h->dv.p, h->dv.stride, s.p, NR, false, s.dy, s.ld, h->lk, h->d, n, more);
    }
}

// ---- Public ------------------------------------------------------------------------------------

bool SIMD(sdpa_is_short)(const SdpaHead *h) { return h->lq <= SHORT_MAX && h->lk <= SHORT_MAX; }

int64_t SIMD(sdpa_scratch)(const SdpaHead *head, bool back) {
    SdpaHead h = *head;
    h.scratch = NULL;
    Short s;
    Block b;
    return SIMD(sdpa_is_short)(&h) ? short_init(&s, &h, back) : block_init(&b, &h, back);
}

void SIMD(sdpa)(const SdpaHead *h) { SIMD(sdpa_is_short)(h) ? forward_short(h) : forward_long(h); }
void SIMD(sdpa_back)(const SdpaHead *h) { SIMD(sdpa_is_short)(h) ? back_short(h) : back_long(h); }
