// dtype: names, sizes, and conversion by integer arithmetic on the bits.
#include "common/base/dtype.h"

#include <string.h>
#include <strings.h>

#include "common/base/err.h"

static const struct {
    const char *name;
    size_t bytes;
    bool is_float;
} types[DTYPE_CNT] = {
    [DTYPE_F32] = {"f32", 4, true},   [DTYPE_F16] = {"f16", 2, true},
    [DTYPE_BF16] = {"bf16", 2, true}, [DTYPE_F64] = {"f64", 8, true},
    [DTYPE_I32] = {"i32", 4, false},  [DTYPE_I64] = {"i64", 8, false},
    [DTYPE_U8] = {"u8", 1, false},    [DTYPE_BOOL] = {"bool", 1, false},
};

size_t dtype_bytes(DType t) {
    die_unless((unsigned)t < DTYPE_CNT, "dtype %d", (int)t);
    return types[t].bytes;
}

const char *dtype_name(DType t) { return (unsigned)t < DTYPE_CNT ? types[t].name : "unknown"; }

bool dtype_from_name(const char *name, DType *out) {
    for (int t = 0; t < DTYPE_CNT; t++) {
        if (strcasecmp(name, types[t].name)) continue;
        *out = (DType)t;
        return true;
    }
    return false;
}

bool dtype_is_float(DType t) { return (unsigned)t < DTYPE_CNT && types[t].is_float; }

static uint32_t f32_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static float f32_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

// Without branches, so that the loop over it becomes vector code. A subnormal is 2^-14 + man 2^-24 less
// 2^-14: operands and result are normal as F32, so flush-to-zero does not touch them, and it is exact.
static inline uint32_t f16_widen(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = (uint32_t)(h & 0x7fff) << 13;
    uint32_t normal = mag + (mag >= 0x0f800000 ? 0x70000000 : 0x38000000);
    uint32_t small = f32_bits(f32_from_bits(mag + 0x38800000) - 0x1p-14f);
    return sign | (mag < 0x00800000 ? small : normal);
}

// A carry out of the mantissa moves into the exponent, up to Inf, which is what rounding wants.
static inline uint16_t f16_narrow(uint32_t u) {
    uint32_t sign = u >> 16 & 0x8000, mag = u & 0x7fffffff;
    if (mag > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (mag >> 13 & 0x1ff)); // NaN, quiet
    if (mag >= 0x47800000) return (uint16_t)(sign | 0x7c00); // 65536 and above, Inf
    if (mag >= 0x38800000) {                                 // 2^-14 and above: normal
        uint32_t base = mag - 0x38000000;
        return (uint16_t)(sign | (base + 0xfff + (base >> 13 & 1)) >> 13);
    }
    if (mag < 0x33000000) return (uint16_t)sign; // below half of 2^-24
    uint32_t shift = 126 - (mag >> 23);          // 14..24: bits that fall below 2^-24
    uint32_t man = (mag & 0x7fffff) | 0x800000;
    uint32_t half = 1u << (shift - 1);
    return (uint16_t)(sign | (man + half - 1 + (man >> shift & 1)) >> shift);
}

static inline uint16_t bf16_narrow(uint32_t u) {
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float dtype_f16_to_f32(uint16_t bits) { return f32_from_bits(f16_widen(bits)); }
uint16_t dtype_f32_to_f16(float x) { return f16_narrow(f32_bits(x)); }
float dtype_bf16_to_f32(uint16_t bits) { return f32_from_bits((uint32_t)bits << 16); }
uint16_t dtype_f32_to_bf16(float x) { return bf16_narrow(f32_bits(x)); }

// An F64 goes to 16 bits through an F32 rounded to odd, so that it is rounded once in effect: when the F32
// is inexact its last bit is set, which keeps it off every tie of the narrower types.
static uint32_t f64_to_odd_f32_bits(double x) {
    uint64_t u;
    memcpy(&u, &x, 8);
    uint32_t sign = (uint32_t)(u >> 63) << 31;
    uint64_t mag = u & 0x7fffffffffffffff;
    if (mag > 0x7ff0000000000000) return sign | 0x7fc00000 | (uint32_t)(mag >> 29 & 0x3fffff);
    if (mag >= 0x47f0000000000000) // 2^128 and above; Inf stays Inf, the rest rounds to it below
        return sign | 0x7f800000;
    if (mag >= 0x3810000000000000) { // 2^-126 and above
        uint64_t base = mag - 0x3800000000000000;
        return sign | (uint32_t)(base >> 29) | ((base & 0x1fffffff) != 0);
    }
    if (mag < 0x3600000000000000) return sign | (mag != 0); // below 2^-159: only stickiness remains
    uint64_t man = (mag & 0xfffffffffffff) | 0x10000000000000;
    unsigned shift = 29 + 897 - (unsigned)(mag >> 52);
    return sign | (uint32_t)(man >> shift) | ((man & ((1ull << shift) - 1)) != 0);
}

// Likewise from an I64: a magnitude of more than 53 bits keeps 52 and a sticky one.
static double i64_to_odd_f64(int64_t i) {
    uint64_t mag = i < 0 ? -(uint64_t)i : (uint64_t)i;
    if (mag >> 53) mag = (mag >> 11 | ((mag & 0x7ff) != 0)) << 11;
    return i < 0 ? -(double)mag : (double)mag;
}

static int64_t clamp_to_i64(double x, double lo, double hi, int64_t max) {
    if (x != x) return 0;
    if (x <= lo) return (int64_t)lo;
    return x >= hi ? max : (int64_t)x;
}

// Every pair without a loop of its own goes element by element: integers through I64, floats through F64,
// both of which hold every value of the narrower types exactly.
static void convert_any(unsigned char *d, DType dt, const unsigned char *s, DType st) {
    double f = 0;
    int64_t i = 0;
    float f32;
    int32_t i32;
    uint16_t h;
    switch (st) {
    case DTYPE_F32:
        memcpy(&f32, s, 4);
        f = f32;
        break;
    case DTYPE_F16:
        memcpy(&h, s, 2);
        f = dtype_f16_to_f32(h);
        break;
    case DTYPE_BF16:
        memcpy(&h, s, 2);
        f = dtype_bf16_to_f32(h);
        break;
    case DTYPE_F64: memcpy(&f, s, 8); break;
    case DTYPE_I32:
        memcpy(&i32, s, 4);
        i = i32;
        break;
    case DTYPE_I64: memcpy(&i, s, 8); break;
    case DTYPE_U8: i = *s; break;
    case DTYPE_BOOL: i = *s != 0; break;
    case DTYPE_CNT: break;
    }
    bool from_float = types[st].is_float;
    switch (dt) {
    case DTYPE_F32:
        f32 = from_float ? (float)f : (float)i;
        memcpy(d, &f32, 4);
        break;
    case DTYPE_F64:
        if (!from_float) f = (double)i;
        memcpy(d, &f, 8);
        break;
    case DTYPE_F16:
    case DTYPE_BF16: {
        uint32_t u = f64_to_odd_f32_bits(from_float ? f : i64_to_odd_f64(i));
        h = dt == DTYPE_F16 ? f16_narrow(u) : bf16_narrow(u);
        memcpy(d, &h, 2);
        break;
    }
    case DTYPE_I32:
        if (from_float) i = clamp_to_i64(f, -0x1p31, 0x1p31, INT32_MAX);
        i32 = i < INT32_MIN ? INT32_MIN : i > INT32_MAX ? INT32_MAX : (int32_t)i;
        memcpy(d, &i32, 4);
        break;
    case DTYPE_I64:
        if (from_float) i = clamp_to_i64(f, -0x1p63, 0x1p63, INT64_MAX);
        memcpy(d, &i, 8);
        break;
    case DTYPE_U8:
        if (from_float) i = clamp_to_i64(f, 0, 256, 255);
        *d = (unsigned char)(i < 0 ? 0 : i > 255 ? 255 : i);
        break;
    case DTYPE_BOOL: *d = from_float ? f != 0 : i != 0; break;
    case DTYPE_CNT: break;
    }
}

// The three types that are an F32 or part of one.
static bool is_f32_like(DType t) { return t == DTYPE_F32 || t == DTYPE_F16 || t == DTYPE_BF16; }

static void widen(uint32_t *d, const unsigned char *s, DType st, size_t cnt) {
    uint16_t h;
    if (st == DTYPE_F32)
        memcpy(d, s, 4 * cnt);
    else if (st == DTYPE_F16)
        for (size_t i = 0; i < cnt; i++) memcpy(&h, s + 2 * i, 2), d[i] = f16_widen(h);
    else
        for (size_t i = 0; i < cnt; i++) memcpy(&h, s + 2 * i, 2), d[i] = (uint32_t)h << 16;
}

static void narrow(unsigned char *d, DType dt, const uint32_t *s, size_t cnt) {
    uint16_t h;
    if (dt == DTYPE_F32)
        memcpy(d, s, 4 * cnt);
    else if (dt == DTYPE_F16)
        for (size_t i = 0; i < cnt; i++) h = f16_narrow(s[i]), memcpy(d + 2 * i, &h, 2);
    else
        for (size_t i = 0; i < cnt; i++) h = bf16_narrow(s[i]), memcpy(d + 2 * i, &h, 2);
}

void dtype_convert(void *dst, DType dst_type, const void *src, DType src_type, size_t cnt) {
    unsigned char *d = dst;
    const unsigned char *s = src;
    size_t db = dtype_bytes(dst_type), sb = dtype_bytes(src_type);
    if (!cnt) return;
    if (dst_type == src_type && dst_type != DTYPE_BOOL) {
        memmove(d, s, cnt * sb);
    } else if (is_f32_like(dst_type) && is_f32_like(src_type)) {
        uint32_t block[512];
        for (size_t i = 0; i < cnt; i += 512) {
            size_t n = cnt - i < 512 ? cnt - i : 512;
            widen(block, s + i * sb, src_type, n);
            narrow(d + i * db, dst_type, block, n);
        }
    } else {
        for (size_t i = 0; i < cnt; i++) convert_any(d + i * db, dst_type, s + i * sb, src_type);
    }
}
