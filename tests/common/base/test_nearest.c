// Suggestions for mistyped words.
#include "common/base/nearest.h"
#include "tests/test.h"

static const char *const words[] = {"forward", "doctor", "train", "resume", "plan"};

TEST(one_slip_is_found) {
    CHECK_STR(nearest_word("forwrad", words, 5), "forward"); // neighbours swapped
    CHECK_STR(nearest_word("foward", words, 5), "forward");
    CHECK_STR(nearest_word("docter", words, 5), "doctor");
    CHECK_STR(nearest_word("plans", words, 5), "plan");
    CHECK_STR(nearest_word("train", words, 5), "train");
}

TEST(what_is_far_is_not) {
    char long_word[200];
    memset(long_word, 'a', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = 0;
    CHECK(!nearest_word("xyz", words, 5));
    CHECK(!nearest_word("", words, 5));
    CHECK(!nearest_word("plainly", words, 5));
    CHECK(!nearest_word(long_word, words, 5));
    CHECK(!nearest_word("forward", words, 0));
}
