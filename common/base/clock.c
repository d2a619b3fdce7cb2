// clock: clock_gettime in nanoseconds.
#include "common/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static int64_t read_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_ns(void) { return read_ns(CLOCK_MONOTONIC); }
int64_t clock_wall_ns(void) { return read_ns(CLOCK_REALTIME); }

void clock_sleep_ns(int64_t ns) {
    int64_t end = clock_ns() + ns;
    struct timespec t = {(time_t)(end / 1000000000), (long)(end % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}

char *clock_format(char text[CLOCK_TEXT_BYTES], int64_t wall_ns) {
    time_t s = (time_t)(wall_ns / 1000000000);
    unsigned ms = (unsigned)(wall_ns / 1000000 % 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    char day[40];
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text, CLOCK_TEXT_BYTES, "%.19s.%03uZ", day, ms);
    return text;
}
