// dtype: names, and conversion against arithmetic in double.
#include <stdint.h>

#include "common/base/dtype.h"
#include "tests/test.h"

static float f32(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static uint32_t bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

TEST(names_and_sizes) {
    DType t;
    for (int i = 0; i < DTYPE_CNT; i++) {
        CHECK(dtype_from_name(dtype_name((DType)i), &t));
        CHECK_EQ(t, i);
    }
    CHECK(dtype_from_name("BF16", &t));
    CHECK_EQ(t, DTYPE_BF16);
    t = DTYPE_U8;
    CHECK(!dtype_from_name("float", &t));
    CHECK_EQ(t, DTYPE_U8);
    CHECK_EQ(dtype_bytes(DTYPE_BF16), 2);
    CHECK_EQ(dtype_bytes(DTYPE_I64), 8);
    CHECK(dtype_is_float(DTYPE_F64) && !dtype_is_float(DTYPE_BOOL));
}

// What the bits of a float of this layout mean, by the definition.
static double value_of(uint32_t h, int man_bits, int bias) {
    int exp_max = man_bits == 10 ? 31 : 255;
    int exp = (int)(h >> man_bits) & exp_max;
    double man = (double)(h & ((1u << man_bits) - 1)) / (1 << man_bits);
    double mag = exp == exp_max ? (man != 0.0 ? NAN : INFINITY)
                 : exp          ? ldexp(1 + man, exp - bias)
                                : ldexp(man, 1 - bias);
    return h >> 15 & 1 ? -mag : mag;
}

TEST(every_16_bit_value_widens_exactly_and_comes_back) {
    for (uint32_t h = 0; h < 65536; h++) {
        double want = value_of(h, 10, 15), got = (double)dtype_f16_to_f32((uint16_t)h);
        CHECK_MSG(isnan(want) ? isnan(got) : want == got, "f16 %04x is %g, want %g", h, got, want);
        if (!isnan(want)) CHECK_EQ(dtype_f32_to_f16((float)got), h);
        if (isnan(want))
            CHECK(isnan(dtype_f16_to_f32(dtype_f32_to_f16(dtype_f16_to_f32((uint16_t)h)))));
        want = value_of(h, 7, 127), got = (double)dtype_bf16_to_f32((uint16_t)h);
        CHECK_MSG(isnan(want) ? isnan(got) : want == got, "bf16 %04x is %g, want %g", h, got, want);
        if (!isnan(want)) CHECK_EQ(dtype_f32_to_bf16((float)got), h);
    }
}

TEST(narrowing_takes_the_nearest_and_ties_go_to_even) {
    for (uint32_t h = 0; h < 0x7bff; h++) { // neighbours h, h + 1 and what lies between them
        double lo = value_of(h, 10, 15), hi = value_of(h + 1, 10, 15);
        float mid = (float)((lo + hi) / 2); // exact
        CHECK_EQ(dtype_f32_to_f16(mid), h % 2 ? h + 1 : h);
        CHECK_EQ(dtype_f32_to_f16(f32(bits(mid) - 1)), h);
        CHECK_EQ(dtype_f32_to_f16(f32(bits(mid) + 1)), h + 1);
        CHECK_EQ(dtype_f32_to_f16(-f32(bits(mid) + 1)), (h + 1) | 0x8000);
    }
    for (uint32_t h = 0; h < 0x7f80; h += 3)
        for (uint32_t low = 0; low < 65536; low += 1023) {
            uint32_t want = low > 0x8000 || (low == 0x8000 && h % 2) ? h + 1 : h;
            CHECK_EQ(dtype_f32_to_bf16(f32(h << 16 | low)), want);
        }
    CHECK_EQ(dtype_f32_to_f16(65519.996f), 0x7bff);
    CHECK_EQ(dtype_f32_to_f16(65520.0f), 0x7c00); // overflow
    CHECK_EQ(dtype_f32_to_f16(-1e30f), 0xfc00);
    CHECK_EQ(dtype_f32_to_f16(0x1p-25f), 0); // a tie between 0 and the smallest
    CHECK_EQ(dtype_f32_to_f16(0x1.000002p-25f), 1);
    CHECK_EQ(dtype_f32_to_f16(-0.0f), 0x8000);
    CHECK_EQ(dtype_f32_to_bf16(f32(0x7f7fffff)), 0x7f80);
    CHECK_EQ(dtype_f32_to_bf16(f32(0x7f800001)), 0x7fc0); // a NaN stays one
    CHECK_EQ(dtype_f32_to_f16(f32(0xff800001)), 0xfe00);
}

TEST(double_is_rounded_once) {
    static const struct {
        double x;
        uint16_t f16, bf16;
    } rows[] = {
        {0x1.002p0 + 0x1p-40, 0x3c01, 0x3f80}, // as F32 first it would be the tie, and round down
        {0x1.002p0 - 0x1p-40, 0x3c00, 0x3f80},
        {0x1.01p0 + 0x1p-50, 0x3c04, 0x3f81},
        {0x1p-25 + 0x1p-70, 0x0001, 0x3300},
        {-0x1.01p-134, 0x8000, 0x8001},
        {1e300, 0x7c00, 0x7f80},
        {0x1p-300, 0, 0},
        {0x1p-134 + 0x1p-180, 0, 0x0001},
        {-INFINITY, 0xfc00, 0xff80},
        {0x1p-134, 0, 0x0000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint16_t h, b;
        dtype_convert(&h, DTYPE_F16, &rows[i].x, DTYPE_F64, 1);
        dtype_convert(&b, DTYPE_BF16, &rows[i].x, DTYPE_F64, 1);
        CHECK_MSG(h == rows[i].f16, "%a: f16 %04x, want %04x", rows[i].x, h, rows[i].f16);
        CHECK_MSG(b == rows[i].bf16, "%a: bf16 %04x, want %04x", rows[i].x, b, rows[i].bf16);
    }
    int64_t big = ((int64_t)1 << 60) + ((int64_t)1 << 52); // halfway between two BF16
    for (int d = -1; d <= 1; d++) {
        int64_t x = big + d;
        uint16_t b;
        dtype_convert(&b, DTYPE_BF16, &x, DTYPE_I64, 1);
        CHECK_EQ(b, d > 0 ? 0x5d81 : 0x5d80);
    }
}

TEST(every_pair_converts_small_numbers_exactly) {
    static const float numbers[] = {0, 1, 2, 3, 100, 127};
    enum { CNT = 6, ODD = 1 };
    unsigned char a[CNT * 8 + ODD], b[CNT * 8 + ODD]; // deliberately not aligned
    float out[CNT];
    for (int s = 0; s < DTYPE_CNT; s++)
        for (int d = 0; d < DTYPE_CNT; d++) {
            dtype_convert(a + ODD, (DType)s, numbers, DTYPE_F32, CNT);
            dtype_convert(b + ODD, (DType)d, a + ODD, (DType)s, CNT);
            dtype_convert(out, DTYPE_F32, b + ODD, (DType)d, CNT);
            for (int i = 0; i < CNT; i++) {
                float want = s == DTYPE_BOOL || d == DTYPE_BOOL ? numbers[i] != 0 : numbers[i];
                CHECK_MSG(out[i] == want, "%s to %s: %g, want %g", dtype_name((DType)s),
                          dtype_name((DType)d), (double)out[i], (double)want);
            }
        }
}

TEST(integers_are_clamped) {
    static const double x[] = {1e10, -1e10, NAN, -3.9, 255.5, 0x1p63, -INFINITY};
    int32_t i32[7];
    int64_t i64[7];
    uint8_t u8[7];
    dtype_convert(i32, DTYPE_I32, x, DTYPE_F64, 7);
    dtype_convert(i64, DTYPE_I64, x, DTYPE_F64, 7);
    dtype_convert(u8, DTYPE_U8, x, DTYPE_F64, 7);
    CHECK_EQ(i32[0], INT32_MAX);
    CHECK_EQ(i32[1], INT32_MIN);
    CHECK_EQ(i32[2], 0);
    CHECK_EQ(i32[3], -3);
    CHECK_EQ(i64[0], 10000000000);
    CHECK_EQ(i64[5], INT64_MAX);
    CHECK_EQ(i64[6], INT64_MIN);
    CHECK_EQ(u8[0], 255);
    CHECK_EQ(u8[3], 0);
    CHECK_EQ(u8[4], 255);
}

TEST(long_rows_and_the_same_place) {
    enum { CNT = 1300 };
    static float f[CNT], back[CNT];
    static uint16_t h[CNT];
    for (int i = 0; i < CNT; i++) f[i] = (float)(i - 650) / 8;
    dtype_convert(h, DTYPE_F16, f, DTYPE_F32, CNT);
    dtype_convert(back, DTYPE_F32, h, DTYPE_F16, CNT);
    CHECK(!memcmp(f, back, sizeof f));
    dtype_convert(h, DTYPE_BF16, h, DTYPE_F16, CNT);
    for (int i = 0; i < CNT; i++) CHECK_EQ(h[i], dtype_f32_to_bf16(f[i]));
    dtype_convert(NULL, DTYPE_F32, NULL, DTYPE_F16, 0);
}
