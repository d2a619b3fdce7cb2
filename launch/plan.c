// plan: asks the stages as a run would, times them, and prints what follows.
#include "launch/plan.h"

#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/proc/forecast.h"
#include "launch/calibrate.h"
#include "launch/run_dir.h"
#include "launch/supervisor.h"

enum { SET_MAX = 256 };

typedef struct Options {
    const char *conf;
    const char *set[SET_MAX];
    int set_cnt;
    bool dry, tables;
} Options;

static Err parse(Options *o, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--dry"))
            o->dry = true;
        else if (!strcmp(argv[i], "--tables"))
            o->tables = true;
        else if (*argv[i] == '-')
            FAIL(ERR_USAGE, "plan: unknown option %s", argv[i]);
        else if (strchr(argv[i], '=') && o->set_cnt < SET_MAX)
            o->set[o->set_cnt++] = argv[i];
        else if (!o->conf)
            o->conf = argv[i];
        else
            FAIL(ERR_USAGE, "plan: one config at a time; settings are key=value: %s", argv[i]);
    }
    if (!o->conf) FAIL(ERR_USAGE, "usage: vader plan CONF [key=value ...] [--dry] [--tables]");
    return ERR_OK;
}

// ---- Memory ----

// The tables of every stage, as they printed them.
static void print_tables(void) {
    for (int s = 0; s < STAGE_CNT; s++) {
        char path[64], line[512];
        snprintf(path, sizeof path, "log/plan.%s.log", itinerary_stage_name((StageKind)s));
        FILE *f = fopen(path, "r");
        if (!f) continue;
        printf("-- %s --\n", itinerary_stage_name((StageKind)s));
        while (fgets(line, sizeof line, f)) fputs(line, stdout);
        putchar('\n');
        fclose(f);
    }
}

// ---- Time ----

static const char *seconds(double s, char text[32]) {
    const char *unit = s >= 1 ? "s" : s >= 1e-3 ? "ms" : "us";
    snprintf(text, 32, "%.3g %s", s >= 1 ? s : s >= 1e-3 ? s * 1e3 : s * 1e6, s > 0 ? unit : "s");
    return text;
}

static const char *minutes(double s, char text[32]) {
    snprintf(text, 32, "%lld:%02d h", (long long)(s / 3600), (int)(s / 60) % 60);
    return text;
}

// The steps of a stage in the order in which a rollout comes by, with their times.
static void print_stage(const ForecastSpec *spec, const Forecast *f, const Calibration *c,
                        int stage) {
    Itinerary it = itinerary_make((ItinerarySpec){.segments = spec->segments,
                                                  .image_to_video = true,
                                                  .sampler_handover = spec->sampler_handover});
    bool seen[STEP_CNT] = {0};
    char text[32];
    printf("%-10s %10s %11.1f  ", itinerary_stage_name((StageKind)stage),
           seconds(f->work_s[stage], text), (double)c->peak_bytes[stage] / (1 << 20));
    for (int i = 0; i < it.cnt; i++) {
        StepKind kind = it.step[i].kind;
        if ((int)it.step[i].stage != stage || seen[kind]) continue;
        seen[kind] = true;
        printf(" %s %s", itinerary_step_name(kind), seconds(spec->step_s[kind], text));
    }
    if (stage == STAGE_LEARNER) printf(" update %s", seconds(spec->step_s[STEP_CNT], text));
    putchar('\n');
}

static void print_replicas(const ForecastSpec *spec, const Forecast *f) {
    for (int s = 0; s < STAGE_LEARNER; s++) {
        char text[32];
        ForecastSpec more = *spec;
        more.replicas[s]++;
        double update_s = forecast_make(&more).update_s,
               percent = 100 * (update_s / f->update_s - 1);
        printf("  one more %-9s %10s", itinerary_stage_name((StageKind)s), seconds(update_s, text));
        if (percent < -0.5)
            printf("  %.0f%%\n", percent);
        else
            puts("  no gain");
    }
}

// Where processes share cores, all work together bounds an update, too. Returns what is to be expected here.
static double print_cores(const GroupPlan *g, const ForecastSpec *spec, const Forecast *f) {
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set), threads = 0;
    double work_s = spec->step_s[STEP_CNT] * g->stage[STAGE_LEARNER].threads;
    char text[32], least[32];
    for (int s = 0; s < STAGE_CNT; s++) {
        threads += spec->replicas[s] * g->stage[s].threads;
        work_s += f->work_s[s] * spec->replicas[s] * g->stage[s].threads;
    }
    if (threads <= cores) return f->update_s;
    printf("here %d threads share %d cores: %s of work in all, at least %s\n", threads, cores,
           seconds(work_s, text), seconds(work_s / cores, least));
    return work_s / cores > f->update_s ? work_s / cores : f->update_s;
}

static void print_time(const GroupPlan *g, const Config *cfg, const Calibration *c) {
    ForecastSpec spec;
    char text[32], work[32], tail[32];
    forecast_spec(&spec, cfg);
    memcpy(spec.step_s, c->step_s, sizeof spec.step_s);
    Forecast f = forecast_make(&spec);
    double tail_s = f.update_s - f.work_s[f.bound];
    printf("\nmeasured, one step at a time:\n%-10s %10s %11s   %s\n", "stage", "per update",
           "peak MiB", "time of a step");
    for (int s = 0; s < STAGE_CNT; s++) print_stage(&spec, &f, c, s);
    printf("\nan update of %u rollouts takes at least %s, with cores of its own for each process\n",
           spec.rollouts, seconds(f.update_s, text));
    printf("  bound by the %s: %s of work, %s of waiting and update that nothing overlaps\n",
           itinerary_stage_name(f.bound), seconds(f.work_s[f.bound], work),
           seconds(tail_s > 1e-9 ? tail_s : 0, tail));
    print_replicas(&spec, &f);
    double here_s = print_cores(g, &spec, &f) * (double)cfg->updates;
    printf("%lld updates: about %s\n", (long long)cfg->updates,
           here_s < 600 ? seconds(here_s, text) : minutes(here_s, text));
}

// A window at random costs what one in the middle of its range does.
static Err measure(const Config *cfg, GroupPlan *g) {
    Config *two;
    Calibration c;
    const char *word[CALIBRATE_WORDS + 1];
    char middle[64];
    int cnt = CALIBRATE_WORDS;
    const volatile int *stop = supervisor_catch_signals();
    memcpy(word, calibrate_words, sizeof *word * CALIBRATE_WORDS);
    if (g->stage[STAGE_LEARNER].window_at < 0) {
        int64_t at = (cfg->window_range.item[0] + cfg->window_range.item[1]) / 2;
        snprintf(middle, sizeof middle, "window.at=%lld", (long long)at);
        word[cnt++] = middle;
        g->stage[STAGE_LEARNER].window_at = (int)at;
    }
    fputs("vader: two rollouts are measured; --dry leaves that out\n", stderr);
    TRY(config_load(&two, "config.yaml", cnt, word));
    Err err = calibrate(&c, two, g, stop);
    config_free(two);
    if (!err && !*stop) print_time(g, cfg, &c);
    return err;
}

static Err print_plan(const Options *o, const Config *cfg) {
    GroupPlan g;
    TRY(run_dir_write_config(cfg));
    TRY(group_plan_make(&g, cfg));
    if (o->tables) print_tables();
    group_plan_print(&g, cfg, stdout);
    fflush(stdout);
    Err err = group_plan_check_fit(&g, cfg);
    if (!err && !o->dry) err = measure(cfg, &g);
    group_plan_fini(&g);
    return err;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    return remove(path);
}

Err plan_main(int argc, char **argv) {
    Options o = {0};
    Config *cfg;
    const char *tmp = getenv("TMPDIR");
    char folder[4096];
    TRY(parse(&o, argc, argv));
    TRY(config_load(&cfg, o.conf, o.set_cnt, o.set));
    snprintf(folder, sizeof folder, "%s/vader-plan-XXXXXX", tmp && *tmp == '/' ? tmp : "/tmp");
    if (!mkdtemp(folder) || chdir(folder)) FAIL(ERR_IO, "%s: %s", folder, strerror(errno));
    Err err = print_plan(&o, cfg);
    if (!chdir("/")) nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    config_free(cfg);
    return err;
}
