// clock: time for measuring and for deadlines, in nanoseconds.
//
// Never a source of chance: no number that a run computes may depend on it.
#ifndef COMMON_BASE_CLOCK_H
#define COMMON_BASE_CLOCK_H

#include <stdint.h>

// Monotonic, from an arbitrary start; equal in all processes of a machine.
int64_t clock_ns(void);

// The calendar's time, since 1970.
int64_t clock_wall_ns(void);

// Returns after at least that long, signals or not.
void clock_sleep_ns(int64_t ns);

// Writes wall_ns as "2025-01-31T14:05:09.123Z" into text; returns text.
enum { CLOCK_TEXT_BYTES = 25 };
char *clock_format(char text[CLOCK_TEXT_BYTES], int64_t wall_ns);

#endif
