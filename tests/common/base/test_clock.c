// test_clock: it goes forward, sleeps long enough, and writes dates.
#include "common/base/clock.h"

#include "tests/test.h"

TEST(goes_forward) {
    int64_t before = clock_ns();
    clock_sleep_ns(3000000);
    CHECK(clock_ns() - before >= 3000000);
    CHECK(clock_wall_ns() > 1700000000ll * 1000000000);
}

TEST(writes_dates) {
    char text[CLOCK_TEXT_BYTES];
    CHECK_STR(clock_format(text, 0), "1970-01-01T00:00:00.000Z");
    CHECK_STR(clock_format(text, 951782399987654321), "2000-02-28T23:59:59.987Z");
}
