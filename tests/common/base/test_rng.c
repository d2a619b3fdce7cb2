// test_rng: published vectors, the chain from name to number, moments, and that names do not collide.
#include "common/base/rng.h"

#include "tests/test.h"

enum { SAMPLE_CNT = 400000 };

static RngKey test_key(void) {
    return (RngKey){.seed = 0x123456789abcdef0,
                    .sample = rng_sample(RNG_PREVIEW, 5),
                    .segment = 2,
                    .use = rng_use(RNG_TEST, 3, 1, 300, 7)};
}

// Random123, tests/kat_vectors, philox4x32 10.
TEST(published_vectors) {
    static const struct {
        RngBlock counter;
        uint32_t key[2];
        uint32_t want[4];
    } row[] = {
        {{{0, 0, 0, 0}}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{{~0u, ~0u, ~0u, ~0u}}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        RngBlock got = rng_philox4x32(row[i].counter, row[i].key[0], row[i].key[1]);
        for (int j = 0; j < 4; j++) CHECK_EQ(got.x[j], row[i].want[j]);
    }
}

// The packing as rng.h states it, step by step, and the numbers it gave when it was written.
TEST(chain_is_as_documented) {
    RngKey key = test_key();
    CHECK_EQ(key.use, 9u << 28 | 3u << 18 | 1u << 16 | 300u << 4 | 7u);
    CHECK_EQ(key.sample >> 62, 1);
    RngBlock name = {{5, 1u << 30, 2, key.use}};
    RngBlock h = rng_philox4x32(name, 0x9abcdef0, 0x12345678);
    uint64_t b = 0x500000003;
    RngBlock want = rng_philox4x32((RngBlock){{3, 5, h.x[2], h.x[3]}}, h.x[0], h.x[1]);
    RngStream r = rng_stream(key);
    for (unsigned j = 0; j < 4; j++) CHECK_EQ(rng_u32(&r, 4 * b + j), want.x[j]);
    static const uint32_t first[4] = {0x253adc2e, 0x5c53ec24, 0x93a9797f, 0xaf176179};
    for (unsigned j = 0; j < 4; j++) CHECK_EQ(rng_u32(&r, j), first[j]);
    static const float normal[4] = {-1.2579330f, 1.5078905f, -0.4229670f, -0.9600010f};
    for (unsigned j = 0; j < 4; j++) CHECK_NEAR(rng_normal(&r, j), normal[j], 1e-6);
}

TEST(words_carry_a_key) {
    RngKey key = test_key();
    key.element = 0xfedcba9876543210;
    int32_t words[8];
    rng_key_to_words(key, words);
    CHECK_EQ(words[1], 0x12345678);
    CHECK_EQ((uint32_t)words[5], key.use);
    RngKey back = rng_key_from_words(words);
    CHECK(!memcmp(&back, &key, sizeof key));
}

// Any start and any length give the same numbers as one by one.
TEST(fills_agree_with_elements) {
    float u[23], n[23];
    for (uint64_t start = 0; start < 9; start++) {
        RngKey key = test_key();
        RngStream r = rng_stream(key);
        key.element = start;
        for (size_t cnt = 0; cnt <= 23; cnt++) {
            rng_fill_uniform(key, u, cnt);
            rng_fill_normal(key, n, cnt);
            for (size_t i = 0; i < cnt; i++) {
                CHECK(u[i] == rng_uniform(&r, start + i));
                CHECK(n[i] == rng_normal(&r, start + i));
            }
        }
    }
}

TEST(uniform_ends_are_open) {
    CHECK(rng_uniform_from_bits(0) == 0x1p-24f);
    CHECK(rng_uniform_from_bits(~0u) == 1 - 0x1p-24f);
    CHECK(rng_uniform_from_bits(0x80000000u) == 0.5f + 0x1p-24f);
}

// Mean, variance, skewness, kurtosis and lag-1 correlation, each within five of its standard errors.
TEST(moments) {
    float *x = malloc(SAMPLE_CNT * sizeof *x);
    double n = SAMPLE_CNT;
    for (int normal = 0; normal < 2; normal++) {
        (normal ? rng_fill_normal : rng_fill_uniform)(test_key(), x, SAMPLE_CNT);
        double scale = normal ? 1 : sqrt(12), shift = normal ? 0 : 0.5;
        double m1 = 0, m2 = 0, m3 = 0, m4 = 0, lag = 0, before = 0;
        for (int i = 0; i < SAMPLE_CNT; i++) {
            double z = (x[i] - shift) * scale;
            m1 += z / n, m2 += z * z / n, m3 += z * z * z / n, m4 += z * z * z * z / n;
            lag += z * before / n, before = z;
        }
        // standard errors of the k-th moment: sqrt((E z^2k - (E z^k)^2) / n)
        CHECK_NEAR(m1, 0, 5 * sqrt(1 / n));
        CHECK_NEAR(m2, 1, 5 * sqrt((normal ? 2 : 0.8) / n));
        CHECK_NEAR(m3, 0, 5 * sqrt((normal ? 15 : 27. / 7) / n));
        CHECK_NEAR(m4, normal ? 3 : 1.8, 5 * sqrt((normal ? 96 : 9 - 3.24) / n));
        CHECK_NEAR(lag, 0, 5 * sqrt(1 / n));
    }
    free(x);
}

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// 64 bits from each of 4,000 names that differ in one field each: any collision would be no accident.
TEST(names_are_disjoint) {
    static uint64_t seen[4000];
    size_t cnt = 0;
    RngKey base = {.seed = 7};
    for (unsigned i = 0; i < 1000; i++) {
        RngKey k[4] = {base, base, base, base};
        k[0].seed = 1000 + i;
        k[1].sample = rng_sample(i % 3, 1 + i);
        k[2].segment = 1 + i;
        k[3].use = rng_use(1 + i % 9, i, i % 4, 4 * i % 4096, i % 16);
        for (int j = 0; j < 4; j++) {
            RngStream r = rng_stream(k[j]);
            seen[cnt++] = rng_u32(&r, 0) | (uint64_t)rng_u32(&r, 1) << 32;
        }
    }
    qsort(seen, cnt, sizeof *seen, by_value);
    for (size_t i = 1; i < cnt; i++) CHECK(seen[i] != seen[i - 1]);
}

// Two uses of one sample: correlation of their normals within five standard errors of zero.
TEST(uses_are_independent) {
    enum { CNT = 100000 };
    static float a[CNT], b[CNT];
    RngKey key = test_key();
    rng_fill_normal(key, a, CNT);
    key.use = rng_use(RNG_TEST, 3, 1, 300, 8);
    rng_fill_normal(key, b, CNT);
    double dot = 0;
    for (int i = 0; i < CNT; i++) dot += (double)a[i] * b[i] / CNT;
    CHECK_NEAR(dot, 0, 5 / sqrt(CNT));
}

TEST(below_is_even_and_in_range) {
    RngStream r = rng_stream(test_key());
    enum { N = 7, CNT = 70000 };
    int hit[N] = {0};
    for (int i = 0; i < CNT; i++) {
        uint32_t x = rng_u32_below(&r, N);
        CHECK(x < N);
        hit[x]++;
    }
    double chi2 = 0;
    for (int i = 0; i < N; i++) chi2 += pow(hit[i] - CNT / N, 2) / (CNT / N);
    CHECK_MSG(chi2 < 30, "chi squared of %d choices is %g, want below 30", N, chi2);
    CHECK_EQ(rng_u32_below(&r, 1), 0);
    // 3 * 2^30 rejects a quarter of all draws, and must still reach its upper third
    int upper = 0;
    uint64_t before = r.element;
    for (int i = 0; i < 3000; i++) upper += rng_u32_below(&r, 3u << 30) >> 31;
    CHECK_NEAR(upper, 1000, 5 * sqrt(3000 * 2. / 9));
    CHECK_NEAR((double)(r.element - before), 4000, 5 * sqrt(3000 * 4. / 9));
}

TEST(shuffle_permutes) {
    RngStream r = rng_stream(test_key());
    uint32_t order[100];
    bool seen[100] = {0};
    int fixed = 0;
    rng_shuffle(&r, order, 100);
    for (uint32_t i = 0; i < 100; i++) {
        CHECK(order[i] < 100 && !seen[order[i]]);
        seen[order[i]] = true;
        fixed += order[i] == i;
    }
    CHECK(fixed < 10);
}
