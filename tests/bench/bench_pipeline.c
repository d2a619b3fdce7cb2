// bench_pipeline: what the pipeline itself costs, with stages that sleep instead of computing.
//
// The bound of an update is the longest stage's work; with lag 1 everything else should hide behind it. And a
// published step should be begun at once by a stage that waits for it. Wanted: at most 1.05 times the bound, and a
// median of at most 100 us. Sleeping needs no cores, so this measures protocol, not arithmetic.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/common/proc/synthetic.h"

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double gap_us(const SyntheticShared *sh, double part) {
    static uint64_t gap[SYNTHETIC_GAPS];
    uint64_t n = sh->gap_cnt < SYNTHETIC_GAPS ? sh->gap_cnt : SYNTHETIC_GAPS;
    for (uint64_t i = 0; i < n; i++) gap[i] = sh->gap_ns[i];
    qsort(gap, n, sizeof *gap, by_size);
    return n ? (double)gap[(uint64_t)((double)(n - 1) * part)] / 1e3 : 0;
}

// bound_us: the sampler's work of one update, the longest. most: wanted at most, of the ratio; 0: nothing is.
static Err measure(const char *what, const char *const *set, int set_cnt, double bound_us,
                   double most) {
    static const int64_t us[STEP_CNT + 1] = {
        [STEP_ENCODE] = 1000,   [STEP_SAMPLE] = 10000, [STEP_DENOISE] = 3000,
        [STEP_HANDOVER] = 1000, [STEP_DECODE] = 2000,  [STEP_SCORE] = 3000,
        [STEP_PULL] = 3000,     [STEP_LEARN] = 4000,   [STEP_CNT] = 2000};
    char dir[] = "/tmp/bench_pipeline.XXXXXX", command[64];
    Synthetic s;
    if (!mkdtemp(dir)) FAIL(ERR_IO, "no temporary folder");
    TRY(synthetic_open(&s, dir, false, set_cnt, set));
    for (int k = 0; k <= STEP_CNT; k++) atomic_store(&s.shared->sleep_us[k], us[k]);
    TRY(synthetic_processes(&s));
    int64_t last = s.cfg->updates - 1, from = 3;
    double update_us = (double)(s.shared->update_ns[last] - s.shared->update_ns[from]) / 1e3 /
                       (double)(last - from);
    double ratio = update_us / bound_us, begun = gap_us(s.shared, 0.5);
    printf("  %-36s %7.1f ms per update, bound %6.1f, ratio %5.3f", what, update_us / 1e3,
           bound_us / 1e3, ratio);
    if (most > 0) printf(" <= %.2f %s", most, ratio <= most ? "PASS" : "below");
    printf("; begun after %4.0f us (p90 %4.0f)", begun, gap_us(s.shared, 0.9));
    if (most > 0) printf(" <= 100 %s", begun <= 100 ? "PASS" : "below");
    putchar('\n');
    synthetic_close(&s);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) ? ERR_IO : ERR_OK;
}

static Err all(void) {
    const char *one[] = {"optim.rollouts=8", "slots=16", "optim.lag=1", "optim.updates=24"};
    const char *three[] = {"optim.rollouts=4", "slots=16",         "optim.lag=1",
                           "optim.updates=16", "video.segments=3", "video.handover=sampler"};
    const char *learner[] = {"optim.rollouts=4", "slots=16", "optim.lag=1", "optim.updates=16",
                             "video.segments=3"};
    const char *strict[] = {"optim.rollouts=8", "slots=8", "optim.updates=16"};
    TRY(measure("1 segment, lag 1", one, 4, 8 * 10000, 1.05));
    TRY(measure("3 segments, handover sampler", three, 6, 4 * 3 * 10000, 1.05));
    TRY(measure("3 segments, handover learner", learner, 5, 4 * 3 * 10000, 0));
    TRY(measure("1 segment, lag 0 (no overlap asked)", strict, 3, 8 * 10000, 0));
    return ERR_OK;
}

int main(void) {
    Err err = all();
    if (err) err_print(1);
    return err != ERR_OK;
}
