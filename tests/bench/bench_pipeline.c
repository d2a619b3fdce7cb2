// bench_pipeline: what the pipeline itself costs, with stages that sleep instead of computing.
//
// The bound of an update is what `vader plan` would say (forecast.h): with lag 1 the longest stage's work,
// else more. And a published step should be begun at once by a stage that waits for it. Wanted: at most 1.05 times the
// bound, and a median of at most 100 us. Sleeping needs no cores, so this measures protocol, not arithmetic.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/proc/forecast.h"
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

// Mean time of each step, as it was: who sleeps for 2 ms is away for a little longer.
static void read_times(const Run *run, double step_s[STEP_CNT + 1]) {
    double sum[STEP_CNT + 1] = {0}, cnt[STEP_CNT + 1] = {0};
    for (int i = 0; i <= run_page_index(run, STAGE_LEARNER, 0); i++) {
        const RunPage *p = &run->page[i];
        for (uint64_t n = 0; n < p->span_cnt && n < RUN_SPANS; n++) {
            const RunSpan *span = &p->span[n];
            sum[span->step] += (double)(span->end_ns - span->start_ns) / 1e9;
            cnt[span->step]++;
        }
    }
    for (int k = 0; k <= STEP_CNT; k++) step_s[k] = cnt[k] > 0 ? sum[k] / cnt[k] : 0;
}

static const char *wanted = ""; // rows whose name holds this
static int below;

static const char *verdict(bool good) {
    below += !good;
    return good ? "PASS" : "below";
}

static Err measure(const char *what, const char *const *set, int set_cnt) {
    if (!strstr(what, wanted)) return ERR_OK;
    static const int64_t us[STEP_CNT + 1] = {
        [STEP_ENCODE] = 1000,   [STEP_SAMPLE] = 10000, [STEP_DENOISE] = 3000,
        [STEP_HANDOVER] = 1000, [STEP_DECODE] = 2000,  [STEP_SCORE] = 3000,
        [STEP_PULL] = 3000,     [STEP_LEARN] = 4000,   [STEP_CNT] = 2000};
    char dir[] = "/tmp/bench_pipeline.XXXXXX", command[64];
    Synthetic s;
    ForecastSpec spec;
    if (!mkdtemp(dir)) FAIL(ERR_IO, "no temporary folder");
    TRY(synthetic_open(&s, dir, false, set_cnt, set));
    forecast_spec(&spec, s.cfg);
    for (int k = 0; k <= STEP_CNT; k++) atomic_store(&s.shared->sleep_us[k], us[k]);
    TRY(synthetic_processes(&s));
    read_times(&s.run, spec.step_s);
    int64_t last = s.cfg->updates - 1, from = 3;
    uint64_t longest = 0; // a disk or a neighbour that holds us up once is seen here
    for (int64_t u = from + 1; u <= last; u++) {
        uint64_t took = s.shared->update_ns[u] - s.shared->update_ns[u - 1];
        if (took > longest) longest = took;
    }
    Forecast f = forecast_make(&spec);
    double update_s = (double)(s.shared->update_ns[last] - s.shared->update_ns[from]) / 1e9 /
                      (double)(last - from);
    double ratio = update_s / f.update_s, begun = gap_us(s.shared, 0.5);
    printf("  %-36s %6.1f ms per update (the longest %.0f), bound %6.1f (the %s's work %5.1f), "
           "ratio %5.3f <= 1.05 %s",
           what, update_s * 1e3, (double)longest / 1e6, f.update_s * 1e3,
           itinerary_stage_name(f.bound), f.work_s[f.bound] * 1e3, ratio, verdict(ratio <= 1.05));
    uint64_t bytes = 0, steps = 0;
    for (int i = 0; i <= run_page_index(&s.run, STAGE_LEARNER, 0); i++) {
        bytes += s.run.page[i].sent_bytes;
        for (int k = 0; k < STEP_CNT; k++) steps += s.run.page[i].steps[k];
    }
    printf("; %.0f bytes of messages per step", (double)bytes / (double)steps);
    printf("; begun after %3.0f us (p90 %3.0f) <= 100 %s\n", begun, gap_us(s.shared, 0.9),
           verdict(begun <= 100));
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
    const char *doubled[] = {"optim.rollouts=8", "slots=16", "optim.lag=1", "optim.updates=24",
                             "stages.sampler.replicas=2"};
    TRY(measure("1 segment, lag 1", one, 4));
    TRY(measure("3 segments, handover sampler", three, 6));
    TRY(measure("3 segments, handover learner", learner, 5));
    TRY(measure("1 segment, lag 0 (no overlap asked)", strict, 3));
    TRY(measure("1 segment, lag 1, 2 samplers", doubled, 5));
    return ERR_OK;
}

int main(int argc, char **argv) {
    if (argc > 1) wanted = argv[1];
    Err err = all();
    if (err) err_print(1);
    return err != ERR_OK || below > 0;
}
