// Cosines and variances by hand.
#include "common/measure/features.h"
#include "tests/test.h"

TEST(cosine) {
    const float a[] = {3, 4, 0}, b[] = {0, 5, 0}, c[] = {-6, -8, 0}, zero[3] = {0};
    CHECK_NEAR(features_cosine(a, b, 3), 0.8, 1e-12);
    CHECK_NEAR(features_cosine(a, a, 3), 1, 1e-12);
    CHECK_NEAR(features_cosine(a, c, 3), -1, 1e-12);
    CHECK(isnan(features_cosine(a, zero, 3)));
}

TEST(variance) {
    const float x[] = {1, 10}, y[] = {3, 10}, z[] = {8, 13};
    const float *const two[] = {x, y}, *const three[] = {x, y, z}, *const same[] = {x, x, x, x};
    CHECK_NEAR(features_variance(two, 2, 2), (2 + 0) / 2.0, 1e-12);
    CHECK_NEAR(features_variance(three, 3, 2), (13 + 3) / 2.0, 1e-12); // means 4 and 11
    CHECK_NEAR(features_variance(same, 4, 2), 0, 0);
}
