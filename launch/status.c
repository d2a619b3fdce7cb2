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

static Err print_head(Json *j, const char *dir, bool alive, Arena *a) {
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
        printf("%s%s %lld x %.3g s", i ? ", " : "", name, (long long)n, mean);
    }
    putchar('\n');
    return ERR_OK;
}

static Err print_process(Json *p, Arena *a) {
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
    printf("%-12s %8lld  %-32s", name, (long long)pid, doing);
    for (int i = 0; i < cnt; i++) printf(" %5.1f%%", all > 0 ? 100 * time[i] / all : 0);
    printf(" %8.1f MiB %8lld  ", (double)bytes / (1 << 20), (long long)restarts);
    return print_steps(p);
}

static Err print_processes(Json *j, Arena *a) {
    Json **p = arena_array(a, Json *, LIST_MAX);
    int cnt;
    TRY(json_want_objects(j, "processes", p, LIST_MAX, &cnt));
    printf("%-12s %8s  %-32s %6s %6s %6s %6s %12s %8s  %s\n", "process", "pid", "is doing", "busy",
           "input", "room", "other", "memory", "restarts", "steps done, mean time");
    for (int i = 0; i < cnt; i++) TRY(print_process(p[i], a));
    return ERR_OK;
}

static Err print_slots(Json *j, Arena *a) {
    Json **s = arena_array(a, Json *, LIST_MAX);
    int cnt;
    TRY(json_want_objects(j, "slots", s, LIST_MAX, &cnt));
    printf("\n%-4s %8s %8s  %-8s %s\n", "slot", "sample", "update", "purpose", "next step");
    for (int i = 0; i < cnt; i++) {
        const char *step, *purpose, *stage;
        int64_t sample, update, segment;
        TRY(json_want_str(s[i], "step", &step));
        TRY(json_want_str(s[i], "purpose", &purpose));
        TRY(json_want_str(s[i], "stage", &stage));
        TRY(json_want_i64(s[i], "sample", &sample));
        TRY(json_want_i64(s[i], "update", &update));
        TRY(json_want_i64(s[i], "segment", &segment));
        if (*stage)
            printf("%-4d %8lld %8lld  %-8s %s.%lld (%s)\n", i, (long long)sample, (long long)update,
                   purpose, step, (long long)segment, stage);
        else
            printf("%-4d %8s %8s  %-8s %s\n", i, "", "", "", step);
    }
    return ERR_OK;
}

static Err show(const char *dir, bool *alive) {
    Err err = ERR_OK;
    Arena a = {0};
    Json *j = NULL;
    TRY_OUT(run_dir_alive(dir, alive));
    TRY_OUT(json_open(&j, arena_printf(&a, "%s/" RECORDER_STATUS, dir)));
    TRY_OUT(print_head(j, dir, *alive, &a));
    TRY_OUT(print_processes(j, &a));
    TRY_OUT(print_slots(j, &a));
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
