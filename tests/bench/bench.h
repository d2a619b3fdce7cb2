// bench: times our op against another way to do the same, in one process, round by round.
//
// The machine is never quiet, so both sides take turns and each keeps its best round. One thread
// each, measured in CPU time of that thread: what other processes do on the core does not count.
//
//     double ours, theirs;
//     bench_pair(run_plan, plan, run_library, library, &ours, &theirs);   // seconds per call
//     bench_line("linear 320 -> 2560", ours, theirs, 0.95, "GF/s", flops / 1e9);
//
// A line shows both rates, theirs / ours (above 1: we are faster), what is required, and PASS or
// below.
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef void BenchFn(void *ctx);

static inline double bench_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline double bench_once(BenchFn *fn, void *ctx) {
    double t = bench_clock(CLOCK_THREAD_CPUTIME_ID);
    fn(ctx);
    return bench_clock(CLOCK_THREAD_CPUTIME_ID) - t;
}

// Best seconds of each over at least 9 rounds and BENCH_SECONDS (1) of work. The first round only
// warms.
static inline void bench_pair(BenchFn *ours, void *our_ctx, BenchFn *theirs, void *their_ctx,
                              double *our_s, double *their_s) {
    const char *text = getenv("BENCH_SECONDS");
    double limit = text ? atof(text) : 1, spent = 0;
    *our_s = *their_s = 1e9;
    for (int round = 0; round < 10 || (spent < limit && round < 2000); round++) {
        double a = bench_once(ours, our_ctx), b = bench_once(theirs, their_ctx);
        if (!round) continue;
        spent += a + b;
        if (a < *our_s) *our_s = a;
        if (b < *their_s) *their_s = b;
    }
}

static int bench_below; // lines below what is required

static inline void bench_line(const char *name, double ours, double theirs, double required,
                              const char *unit, double work) {
    double ratio = theirs / ours;
    const char *verdict = required <= 0 ? "" : ratio >= required ? "PASS" : "below";
    bench_below += required > 0 && ratio < required;
    printf("  %-44s %8.1f %8.1f %-5s %6.2f", name, work / ours, work / theirs, unit, ratio);
    if (required > 0) printf("  >= %.2f  %s", required, verdict);
    putchar('\n');
}

#endif
