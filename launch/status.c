// status: a snapshot as text.
#include "launch/status.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/format/json.h"
#include "common/proc/recorder.h"
#include "launch/run_dir.h"

enum { LIST_MAX = 1024, STALE_S = 5 };

static const char *span_text(double s, Arena *a) {
    if (s < 60) return arena_printf(a, "%.1f s", s);
    if (s < 3600) return arena_printf(a, "%d:%02d min", (int)s / 60, (int)s % 60);
    return arena_printf(a, "%d:%02d h", (int)s / 3600, (int)s / 60 % 60);
}

static Err print_head(Json *j, const char *dir, bool alive, bool *is_over, Arena *a) {
    const char *state;
    int64_t wall, version, updates, restarts, launcher;
    double elapsed, reward = 0, best = 0, norm = 0;
    TRY(json_want_str(j, "state", &state));
    TRY(json_want_i64(j, "wall_ns", &wall));
    TRY(json_want_i64(j, "launcher", &launcher));
    TRY(json_want_i64(j, "version", &version));
    TRY(json_want_i64(j, "updates", &updates));
    TRY(json_want_i64(j, "restarts", &restarts));
    TRY(json_want_f64(j, "elapsed_s", &elapsed));
    double age = (double)(clock_wall_ns() - wall) / 1e9;
    bool over = strcmp(state, "running") && strcmp(state, "starting");
    printf("%s: ", dir);
    if (alive && !strcmp(state, "starting")) // the launcher waits for the stages to load
        printf("starting for %s, launcher %lld\n", span_text(age, a), (long long)launcher);
    else if (alive && !over && age < STALE_S)
        printf("%s for %s, launcher %lld\n", state, span_text(elapsed, a), (long long)launcher);
    else if (alive && !over)
        printf("the launcher (%lld) has been silent for %s; what it said then:\n",
               (long long)launcher, span_text(age, a));
    else
        printf("%s %s ago, after %s\n", over ? state : "killed", span_text(age, a),
               span_text(elapsed, a));
    printf("update %lld of %lld", (long long)version, (long long)updates);
    if (json_kind(j, "reward") != JSON_KIND_ABSENT) {
        TRY(json_want_f64(j, "reward", &reward));
        TRY(json_want_f64(j, "best_reward", &best));
        TRY(json_want_f64(j, "grad_norm", &norm));
        printf(", reward %.4f (best %.4f), |g| %.3g", reward, best, norm);
    }
    printf(", restarts %lld\n\n", (long long)restarts);
    *is_over = over || !alive;
    return ERR_OK;
}

// What a process does now: "decode.1 of sample 17", "waits for input".
static Err doing_text(Json *p, Arena *a, const char **out) {
    const char *doing, *step;
    int64_t segment, sample;
    double since;
    TRY(json_want_str(p, "doing", &doing));
    TRY(json_want_str(p, "step", &step));
    TRY(json_want_i64(p, "segment", &segment));
    TRY(json_want_i64(p, "sample", &sample));
    TRY(json_want_f64(p, "since_s", &since));
    if (!strcmp(doing, "busy") && !strcmp(step, "update"))
        *out = arena_printf(a, "update %lld", (long long)sample + 1);
    else if (!strcmp(doing, "busy"))
        *out =
            arena_printf(a, "%s.%lld of sample %lld", step, (long long)segment, (long long)sample);
    else if (!strcmp(doing, "input") || !strcmp(doing, "room"))
        *out = arena_printf(a, "waits for %s", doing);
    else
        *out = arena_printf(a, "%s", doing);
    *out = arena_printf(a, "%s, %s", *out, span_text(since, a));
    return ERR_OK;
}

static Err print_steps(Json *p) {
    Json *step[STEP_CNT];
    int cnt;
    TRY(json_want_objects(p, "steps", step, STEP_CNT, &cnt));
    for (int i = 0; i < cnt; i++) {
        const char *name;
        int64_t n;
        double mean;
        TRY(json_want_str(step[i], "step", &name));
        TRY(json_want_i64(step[i], "cnt", &n));
        TRY(json_want_f64(step[i], "mean_s", &mean));
        printf("%s%s %lld x %.3g s", i ? ", " : "             ", name, (long long)n, mean);
    }
    if (cnt) putchar('\n');
    return ERR_OK;
}

// The share of its time under each heading, what it does now (of a run that is over: nothing), the steps it did.
static Err print_process(Json *p, bool over, Arena *a) {
    const char *name, *doing;
    double time[RUN_TIME_CNT], all = 0;
    int64_t pid, bytes, restarts;
    int cnt;
    TRY(json_want_str(p, "name", &name));
    TRY(json_want_i64(p, "pid", &pid));
    TRY(json_want_i64(p, "restarts", &restarts));
    TRY(json_want_i64(p, "peak_bytes", &bytes));
    TRY(json_want_f64s(p, "time_s", time, RUN_TIME_CNT, &cnt));
    TRY(doing_text(p, a, &doing));
    if (cnt != RUN_TIME_CNT) FAIL(ERR_FORMAT, "%s: time_s has %d values", json_label(p), cnt);
    for (int i = 0; i < cnt; i++) all += time[i];
    printf("%-12s", name);
    for (int i = 0; i < cnt; i++) printf(" %5.1f%%", all > 0 ? 100 * time[i] / all : 0);
    printf(" %8.1f MiB %8lld", (double)bytes / (1 << 20), (long long)restarts);
    if (!over) printf(" %8lld  %s", (long long)pid, doing);
    putchar('\n');
    return print_steps(p);
}

static Err print_processes(Json *j, bool over, Arena *a) {
    Json **p = arena_array(a, Json *, LIST_MAX);
    int cnt;
    TRY(json_want_objects(j, "processes", p, LIST_MAX, &cnt));
    printf("%-12s %6s %6s %6s %6s %12s %8s%s\n", "process", "busy", "input", "room", "other",
           "memory", "restarts", over ? "" : "      pid  is doing");
    for (int i = 0; i < cnt; i++) TRY(print_process(p[i], over, a));
    return ERR_OK;
}

static Err print_slot(Json *s, int i, int *free_cnt) {
    const char *step, *purpose, *stage;
    int64_t sample, update, segment;
    TRY(json_want_str(s, "step", &step));
    TRY(json_want_str(s, "purpose", &purpose));
    TRY(json_want_str(s, "stage", &stage));
    TRY(json_want_i64(s, "sample", &sample));
    TRY(json_want_i64(s, "update", &update));
    TRY(json_want_i64(s, "segment", &segment));
    if (!strcmp(step, "free")) {
        ++*free_cnt;
        return ERR_OK;
    }
    if (i == *free_cnt)
        printf("\n%-4s %8s %8s  %-8s %s\n", "slot", "sample", "update", "purpose", "next step");
    printf("%-4d %8lld %8lld  %-8s ", i, (long long)sample, (long long)update, purpose);
    if (*stage)
        printf("%s.%lld (%s)\n", step, (long long)segment, stage);
    else
        printf("%s\n", step);
    return ERR_OK;
}

static Err print_slots(Json *j, Arena *a) {
    Json **s = arena_array(a, Json *, LIST_MAX);
    int cnt, free_cnt = 0;
    TRY(json_want_objects(j, "slots", s, LIST_MAX, &cnt));
    for (int i = 0; i < cnt; i++) TRY(print_slot(s[i], i, &free_cnt));
    if (free_cnt) printf("\n%d of %d slots are free\n", free_cnt, cnt);
    return ERR_OK;
}

static Err show(const char *dir, bool *alive) {
    Err err = ERR_OK;
    Arena a = {0};
    Json *j = NULL;
    bool over;
    TRY_OUT(run_dir_alive(dir, alive));
    const char *path = arena_printf(&a, "%s/" RECORDER_STATUS, dir);
    if (access(path, F_OK)) {
        printf("%s: %s\n", dir,
               *alive ? "starting: asks the stages what they need"
                      : "ended before its stages were started");
        goto out;
    }
    TRY_OUT(json_open(&j, path));
    TRY_OUT(print_head(j, dir, *alive, &over, &a));
    TRY_OUT(print_processes(j, over, &a));
    if (!over) TRY_OUT(print_slots(j, &a));
    fflush(stdout);
out:
    json_close(j);
    arena_free(&a);
    return err;
}

Err status_main(int argc, char **argv) {
    const char *dir = NULL;
    bool watch = false, alive = true;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--watch"))
            watch = true;
        else if (*argv[i] == '-' || dir)
            FAIL(ERR_USAGE, "usage: vader status RUN [--watch]; not understood: %s", argv[i]);
        else
            dir = argv[i];
    }
    if (!dir) FAIL(ERR_USAGE, "usage: vader status RUN [--watch]");
    for (;;) {
        if (watch && isatty(STDOUT_FILENO)) fputs("\033[H\033[J", stdout);
        TRY(show(dir, &alive));
        if (!watch || !alive) return ERR_OK;
        clock_sleep_ns(1000000000);
    }
}
