// calibrate: a run of two rollouts, and the spans that it leaves.
#include "launch/calibrate.h"

#include "launch/run_dir.h"
#include "launch/supervisor.h"

const char *const calibrate_words[CALIBRATE_WORDS] = {"slots=1",
                                                      "optim.rollouts=2",
                                                      "optim.updates=1",
                                                      "preview.every=0",
                                                      "stages.sampler.replicas=1",
                                                      "stages.decoder.replicas=1",
                                                      "stages.rewarder.replicas=1"};

static Err drive(Supervisor *group, Conductor *conductor, const volatile int *stop) {
    for (ConductorNews news = {0}; !news.done && !*stop;) {
        TRY(conductor_poll(conductor, &news));
        if (!news.done) TRY(supervisor_poll(group, 20));
    }
    return ERR_OK;
}

// The second rollout's spans, and the update's.
static void read_page(const RunPage *page, Calibration *out, int cnt[STEP_CNT + 1]) {
    uint64_t n = atomic_load_explicit(&page->span_cnt, memory_order_acquire);
    for (uint64_t i = 0; i < n && i < RUN_SPANS; i++) {
        const RunSpan *s = &page->span[i];
        if (s->step < STEP_CNT && s->sample != 1) continue;
        out->step_s[s->step] += (double)(s->end_ns - s->start_ns) / 1e9;
        cnt[s->step]++;
    }
}

static void read_pages(const Run *run, Calibration *out) {
    int cnt[STEP_CNT + 1] = {0};
    for (int s = 0; s < STAGE_CNT; s++) {
        const RunPage *page = &run->page[run_page_index(run, (StageKind)s, 0)];
        read_page(page, out, cnt);
        out->peak_bytes[s] = atomic_load(&page->peak_bytes);
    }
    for (int k = 0; k <= STEP_CNT; k++)
        if (cnt[k]) out->step_s[k] /= cnt[k];
}

Err calibrate(Calibration *out, const Config *cfg, const GroupPlan *plan,
              const volatile int *stop) {
    Err err = ERR_OK;
    Run run = {0};
    Conductor *conductor = NULL;
    Supervisor *group = NULL;
    SectionTable table;
    BoardSpec board;
    ConductorStart start = {.run_dir = ".", .window_at = plan->stage[STAGE_LEARNER].window_at};
    *out = (Calibration){0};
    TRY(stage_plan_combine(plan->stage, cfg, &table, &board, start.ledger.numerics));
    TRY(run_dir_write_config(cfg));
    TRY(run_create(&run, cfg, &table, &board, plan->stage[STAGE_LEARNER].modules));
    TRY_OUT(conductor_new(&conductor, cfg, &run, &start));
    TRY_OUT(supervisor_start(&group, cfg, &run, conductor, NULL, stop));
    TRY_OUT(drive(group, conductor, stop));
    read_pages(&run, out);
out:
    supervisor_stop(group, err != ERR_OK);
    conductor_free(conductor);
    run_leave(&run);
    return err;
}
