// Intervals whose ends are known: by counting, by the normal law, and without any spread.
#include "common/measure/bootstrap.h"
#include "tests/test.h"

static RngKey key(uint64_t seed) {
    return (RngKey){.seed = seed, .use = rng_use(RNG_TEST, 0, 0, 0, 1)};
}

TEST(few_values) {
    BootstrapInterval one = bootstrap_mean((const double[]){0.1}, 1, key(0)),
                      same = bootstrap_mean((const double[]){0.1, 0.1, 0.1}, 3, key(0)),
                      two = bootstrap_mean((const double[]){2, 6}, 2, key(0));
    CHECK_NEAR(one.low, 0.1, 0);
    CHECK_NEAR(one.high, 0.1, 0);
    CHECK(same.low == same.mean && same.high == same.mean);
    CHECK_NEAR(two.mean, 4, 0); // a quarter of the draws gives 2, another 6
    CHECK_NEAR(two.low, 2, 0);
    CHECK_NEAR(two.high, 6, 0);
}

// 0 and 1 with equal chance: the mean of 16 is 1/2 +- 1.96 / 8, in steps of 1/16.
TEST(coins) {
    double x[16];
    for (int i = 0; i < 16; i++) x[i] = i % 2;
    BootstrapInterval v = bootstrap_mean(x, 16, key(3));
    CHECK_NEAR(v.mean, 0.5, 1e-15);
    CHECK_NEAR(v.low, 0.25, 1e-12); // P(sum <= 3) = 0.011, P(sum <= 4) = 0.038
    CHECK_NEAR(v.high, 0.75, 1e-12);
}

// The interval holds the true mean about as often as it says.
TEST(holds_the_truth) {
    enum { N = 40, TIMES = 100 };
    int held = 0;
    for (uint64_t k = 0; k < TIMES; k++) {
        double x[N];
        RngStream r = rng_stream((RngKey){.seed = k, .use = rng_use(RNG_TEST, 0, 0, 0, 0)});
        for (int i = 0; i < N; i++) x[i] = 3 + 2 * (double)rng_normal(&r, (uint64_t)i);
        BootstrapInterval v = bootstrap_mean(x, N, key(k));
        held += v.low <= 3 && v.high >= 3;
        CHECK(v.low < v.mean && v.mean < v.high);
        CHECK_NEAR((v.high - v.low) / 2, 1.96 * 2 / sqrt(N), 0.35);
    }
    CHECK_MSG(held > 0.86 * TIMES && held < 0.99 * TIMES, "%d of %d", held, TIMES);
}

// The same draws for base, tuned and difference: what is shifted or scaled stays so.
TEST(draws_go_by_their_name) {
    double a[9], b[9];
    for (int i = 0; i < 9; i++) a[i] = i * i % 7, b[i] = 5 - 2 * a[i];
    BootstrapInterval x = bootstrap_mean(a, 9, key(1)), y = bootstrap_mean(b, 9, key(1)),
                      again = bootstrap_mean(a, 9, key(1)), other = bootstrap_mean(a, 9, key(2));
    CHECK_NEAR(y.low, 5 - 2 * x.high, 1e-12);
    CHECK_NEAR(y.high, 5 - 2 * x.low, 1e-12);
    CHECK(!memcmp(&x, &again, sizeof x));
    CHECK(memcmp(&x, &other, sizeof x));
}
