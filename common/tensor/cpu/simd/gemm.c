// gemm: one packed matrix product in C with vector types: tiles of 6 x 16, on AVX-512 14 x 32.
//
// The right side is packed into panels of NR columns; the left side is read in place, broadcast
// element by element. A panel's slice of at most GEMM_KC rows stays in L1 while all row tiles pass
// over it; longer sums are added to y slice by slice, so every element of y is one fixed sequence
// of fused multiply-adds, whatever the caller's cut into rows and columns. With few rows the time
// goes into waiting for panels, so each tile asks for its share of the next one.
#include "common/tensor/cpu/simd/simd.h"

enum {
    MR = VLEN == 16
             ? 14
             : 6, // rows of a tile: MR*NV accumulators, NV of b and one of a fill the registers
    NV = 2,
    NR = NV * VLEN,
    GEMM_KC = VLEN == 16 ? 256 : 384,
    PREFETCH_MIN = 64, // columns of the left side: below, asking for them costs more than it gains
};

// What happens to the sums of a tile.
typedef struct Epilogue {
    float *y;              // of the tile
    const float *bias;     // NR columns from here, or NULL
    const float *residual; // of the tile, or NULL
    int64_t ldy, ldr;
    int cols; // columns that exist, 1..NR
    bool accumulate;
} Epilogue;

// One slice of a panel of the right side.
typedef struct Panel {
    const float *b; // k rows of NR
    int64_t k;
    const float *next; // where the tile begins to ask for what is read after this slice
    int64_t step;      // floats further per row
} Panel;

// The vectors of one row. full: all lanes exist (a constant where this is inlined).
SIMD_INLINE void row_store(const Epilogue *e, int row, const vf *acc, int vectors, bool full) {
    float *y = e->y + row * e->ldy;
    const float *residual = e->residual ? e->residual + row * e->ldr : NULL;
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) {
        int at = v * VLEN, lanes = full ? VLEN : vf_left(e->cols - at);
        vf sum = acc[v];
        if (e->accumulate) sum += vf_load_n(y + at, lanes);
        if (e->bias) sum += vf_load_n(e->bias + at, lanes);
        if (residual) sum += vf_load_n(residual + at, lanes);
        vf_store_n(y + at, sum, lanes);
    }
}

// rows and vectors are constants where this is inlined, and so is one of the strides (1).
SIMD_INLINE void tile(int rows, int vectors, const float *a, int64_t as, int64_t aks,
                      const Panel *p, const Epilogue *e) {
    const float *b = p->b, *next = p->next;
    vf acc[2 * MR][NV];
#pragma GCC unroll 28
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) acc[r][v] = (vf){0};
    for (int64_t i = 0; i < p->k; i++, b += NR, a += aks, next += p->step) {
        // Into L2 (vf_prefetch: into L1, which this slice fills). A narrow tile has no load to spare.
#pragma GCC unroll 2
        for (int line = 0; vectors > 1 && line < NR; line += 16)
            __builtin_prefetch(next + line, 0, 2);
        vf b0 = vf_load(b), b1 = vectors > 1 ? vf_load(b + VLEN) : b0;
#pragma GCC unroll 28
        for (int r = 0; r < rows; r++) {
            vf x = vf_set(a[r * as]);
            acc[r][0] = vf_fma(x, b0, acc[r][0]);
            if (vectors > 1) acc[r][1] = vf_fma(x, b1, acc[r][1]);
        }
    }
    if (e->cols == vectors * VLEN) {
#pragma GCC unroll 28
        for (int r = 0; r < rows; r++) row_store(e, r, acc[r], vectors, true);
        return;
    }
    vf sum[2 * MR][NV]; // a copy, so that acc itself never needs an address
#pragma GCC unroll 28
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = acc[r][v];
    for (int r = 0; r < rows; r++) row_store(e, r, sum[r], vectors, false);
}

// One function per panel width and per way to walk a (rows or columns next to each other).
#define TILE(rows)                             \
    case rows:                                 \
        tile(rows, vectors, a, as, aks, p, e); \
        break;
#define TILES_6 TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if defined __AVX512F__
#define TILES TILES_6 TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
#else
#define TILES TILES_6
#endif
#define TILE_FUNCTION(name, vectors_, cases, as_, aks_)                                          \
    static void name(int rows, const float *a, int64_t lda, const Panel *p, const Epilogue *e) { \
        enum { vectors = vectors_ };                                                             \
        const int64_t as = as_, aks = aks_;                                                      \
        switch (rows) { cases }                                                                  \
    }
TILE_FUNCTION(tile_rows, NV, TILES, lda, 1)
TILE_FUNCTION(tile_rows_narrow, 1, TILES TILE(2 * MR), lda, 1)
TILE_FUNCTION(tile_cols, NV, TILES, 1, lda)
TILE_FUNCTION(tile_cols_narrow, 1, TILES TILE(2 * MR), 1, lda)

// One panel: columns [0, cols) of b.
static void pack_panel(float *panel, const void *b, DType dtype, int64_t ks, int64_t ns, int64_t k,
                       int cols) {
    size_t size = dtype_bytes(dtype);
    if (cols < NR) memset(panel, 0, (size_t)(k * NR) * sizeof *panel);
    if (ns == 1) {
        for (int64_t i = 0; i < k; i++)
            SIMD(widen)(panel + i * NR, (const char *)b + (size_t)(i * ks) * size, dtype, cols);
        return;
    }
    enum { BLOCK = 128 };
    for (int64_t i = 0; i < k; i += BLOCK) {
        int64_t len = k - i < BLOCK ? k - i : BLOCK;
        float column[BLOCK];
        for (int c = 0; c < cols; c++) {
            if (ks == 1)
                SIMD(widen)(column, (const char *)b + (size_t)(c * ns + i) * size, dtype, len);
            else
                for (int64_t j = 0; j < len; j++)
                    column[j] = vf_scalar(b, dtype, (i + j) * ks + c * ns);
            for (int64_t j = 0; j < len; j++) panel[(i + j) * NR + c] = column[j];
        }
    }
}

void SIMD(gemm_pack)(float *panels, const void *b, DType dtype, int64_t ks, int64_t ns, int64_t k,
                     int64_t n) {
    size_t size = dtype_bytes(dtype);
    for (int64_t n0 = 0; n0 < n; n0 += NR, panels += k * NR)
        pack_panel(panels, (const char *)b + (size_t)(n0 * ns) * size, dtype, ks, ns, k,
                   n - n0 < NR ? (int)(n - n0) : NR);
}

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

// Rows that the next tile reads for the first time: so many short streams escape the hardware.
static void prefetch_rows(const float *a, int64_t rows, int64_t k, int64_t as) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < k; i += 16) __builtin_prefetch(a + r * as + i);
}

void SIMD(gemm)(float *y, int64_t ldy, const float *a, int64_t as, int64_t aks, const float *panels,
                int64_t panel_stride, int64_t m, int64_t n, int64_t k, const float *bias,
                const float *residual, int64_t ldr, int flags) {
    if (m <= 0) return;
    bool ahead = flags & GEMM_COLD && aks == 1 && n > VLEN && k > PREFETCH_MIN;
    int64_t slices = (k + GEMM_KC - 1) / GEMM_KC,
            slice = slices > 1 ? (k + slices - 1) / slices : k;
    int64_t tiles = (m + MR - 1) / MR, even = (m + tiles - 1) / tiles; // 14 rows: 5 + 5 + 4
    for (int64_t k0 = 0; k0 < k; k0 += slice) {
        int64_t kc = k - k0 < slice ? k - k0 : slice;
        for (int64_t n0 = 0; n0 < n; n0 += NR) {
            const float *b = panels + n0 / NR * panel_stride + k0 * NR;
            const float *after = n0 + NR < n   ? b + panel_stride
                                 : k0 + kc < k ? panels + (k0 + kc) * NR
                                               : b;
            Panel panel = {b, kc, after, NR / tiles};
            Epilogue e = {.ldy = ldy,
                          .ldr = ldr,
                          .accumulate = flags & GEMM_ADD || k0,
                          .cols = n - n0 < NR ? (int)(n - n0) : NR,
                          .bias = bias && !k0 ? bias + n0 : NULL};
            bool narrow = e.cols <= VLEN;
            for (int64_t i = 0, rows; i < m; i += rows, panel.next += kc * panel.step) {
                rows = narrow && m - i >= 2 * MR ? 2 * MR : min(even, m - i);
                e.y = y + i * ldy + n0;
                e.residual = residual && !k0 ? residual + i * ldr + n0 : NULL;
                const float *at = a + i * as + k0 * aks;
                if (ahead && !n0) prefetch_rows(at + rows * as, min(rows, m - i - rows), kc, as);
                if (aks == 1)
                    (narrow ? tile_rows_narrow : tile_rows)((int)rows, at, as, &panel, &e);
                else
                    (narrow ? tile_cols_narrow : tile_cols)((int)rows, at, aks, &panel, &e);
            }
        }
    }
}
