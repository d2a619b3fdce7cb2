// rng: packing of names, and what needs a C library.
#include "common/base/rng.h"

#include <math.h>

#include "common/base/err.h"

_Static_assert(sizeof(RngKey) == 32, "a key is eight words");

static uint32_t field(const char *what, unsigned value, int bits, int shift) {
    die_unless(value >> bits == 0, "rng: %s %u does not fit in %d bits", what, value, bits);
    return (uint32_t)value << shift;
}

uint32_t rng_use(RngKind kind, unsigned step, unsigned branch, unsigned module, unsigned draw) {
    return field("kind", kind, 4, 28) | field("step", step, 10, 18) |
           field("guidance branch", branch, 2, 16) | field("module", module, 12, 4) |
           field("draw", draw, 4, 0);
}

uint64_t rng_sample(RngPhase phase, uint64_t n) {
    die_unless(n >> 62 == 0, "rng: sample %llu does not fit in 62 bits", (unsigned long long)n);
    return (uint64_t)phase << 62 | n;
}

// sqrt(-2 ln u) (cos, sin)(2 pi v) of numbers e and e+1, e even: the normals e and e+1.
static void normal_pair(uint32_t bits_u, uint32_t bits_v, float out[2]) {
    double u = (bits_u + 0.5) * 0x1p-32, v = (bits_v + 0.5) * 0x1p-32;
    double radius = sqrt(-2 * log(u)), angle = 6.283185307179586476925 * v;
    out[0] = (float)(radius * cos(angle));
    out[1] = (float)(radius * sin(angle));
}

float rng_normal(const RngStream *r, uint64_t i) {
    uint64_t e = r->element + i;
    RngBlock b = rng_block(r, e / 4);
    const uint32_t *pair = b.x + (e % 4 & 2);
    float out[2];
    normal_pair(pair[0], pair[1], out);
    return out[e % 2];
}

void rng_fill_uniform(RngKey key, float *out, size_t cnt) {
    RngStream r = rng_stream(key);
    for (size_t i = 0; i < cnt;) {
        uint64_t e = key.element + i;
        RngBlock b = rng_block(&r, e / 4);
        for (unsigned j = e % 4; j < 4 && i < cnt; j++) out[i++] = rng_uniform_from_bits(b.x[j]);
    }
}

void rng_fill_normal(RngKey key, float *out, size_t cnt) {
    RngStream r = rng_stream(key);
    for (size_t i = 0; i < cnt;) {
        uint64_t e = key.element + i;
        RngBlock b = rng_block(&r, e / 4);
        float normals[4];
        normal_pair(b.x[0], b.x[1], normals);
        normal_pair(b.x[2], b.x[3], normals + 2);
        for (unsigned j = e % 4; j < 4 && i < cnt; j++) out[i++] = normals[j];
    }
}

// Lemire, "Fast Random Integer Generation in an Interval" (2019).
uint32_t rng_u32_below(RngStream *r, uint32_t n) {
    die_unless(n, "rng: a choice of nothing");
    uint32_t reject = -n % n; // 2^32 mod n
    uint64_t m;
    do {
        m = (uint64_t)rng_u32(r, 0) * n;
        r->element++;
    } while ((uint32_t)m < reject);
    return (uint32_t)(m >> 32);
}

void rng_shuffle(RngStream *r, uint32_t *order, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = rng_u32_below(r, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}
