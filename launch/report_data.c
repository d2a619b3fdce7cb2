// report_data: one reader per file of a run directory.
#include "launch/report_data.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/run_dir.h"

enum { SAMPLES_MAX = 1 << 16, METRICS_MAX = 64 };

static const char *at(ReportData *d, const char *name) {
    return arena_printf(&d->arena, "%s/%s", d->dir, name);
}

// ---- Files of lines, each a JSON object ----

typedef Err (*LineReader)(ReportData *d, Json *line);

// A last line without its end is one that is being written, or that a kill cut.
static Err read_lines(ReportData *d, const char *name, LineReader read) {
    Err err = ERR_OK;
    char *line = NULL;
    size_t room = 0;
    const char *path = at(d, name);
    FILE *f = fopen(path, "r");
    if (!f && errno == ENOENT) return ERR_OK;
    if (!f) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    for (int n = 1; !err; n++) {
        char label[PATH_MAX + 32];
        Json *j;
        ssize_t len = getline(&line, &room, f);
        if (len <= 0 || line[len - 1] != '\n') break;
        snprintf(label, sizeof label, "%s:%d", path, n);
        err = json_open_text(&j, label, line, (size_t)len);
        if (err) break;
        err = read(d, j);
        json_close(j);
    }
    free(line);
    fclose(f);
    return err ? err_up(err, __FILE__, __LINE__, __func__) : ERR_OK;
}

// ---- metrics.jsonl ----

static ReportSeries *find_series(ReportMetrics *m, const char *name) {
    for (int i = 0; i < m->series_cnt; i++)
        if (!strcmp(m->series[i].name, name)) return &m->series[i];
    return NULL;
}

// Room for one more line, whenever the number of lines is a power of two.
static void grow(double **column, size_t cnt) {
    if (cnt & (cnt - 1)) return;
    *column = realloc(*column, (cnt ? 2 * cnt : 1) * sizeof **column);
    die_unless(*column, "report: out of memory for %zu updates", cnt);
}

static void add_series(ReportData *d, const char *name) {
    ReportMetrics *m = &d->metrics;
    if (m->series_cnt == REPORT_SERIES_MAX) return;
    ReportSeries *s = &m->series[m->series_cnt++];
    s->name = arena_strdup(&d->arena, name);
    for (size_t i = 0; i < m->cnt; i++) {
        grow(&s->value, i);
        s->value[i] = NAN;
    }
}

static bool is_number(const Json *j, const char *key) {
    JsonKind kind = json_kind(j, key);
    return kind == JSON_KIND_INT || kind == JSON_KIND_FLOAT;
}

static Err read_metrics_line(ReportData *d, Json *j) {
    ReportMetrics *m = &d->metrics;
    const char *key;
    for (void *it = NULL; (key = json_next(j, &it));)
        if (is_number(j, key) && strcmp(key, "update") && !find_series(m, key)) add_series(d, key);
    grow(&m->update, m->cnt);
    TRY(json_want_f64(j, "update", &m->update[m->cnt]));
    for (int i = 0; i < m->series_cnt; i++) {
        ReportSeries *s = &m->series[i];
        grow(&s->value, m->cnt);
        s->value[m->cnt] = NAN;
        TRY(json_get_f64(j, s->name, &s->value[m->cnt]));
    }
    m->cnt++;
    return ERR_OK;
}

// ---- timing.jsonl ----

static ReportProcess *find_process(ReportData *d, const char *name) {
    ReportTiming *t = &d->timing;
    for (int i = 0; i < t->process_cnt; i++)
        if (!strcmp(t->process[i].name, name)) return &t->process[i];
    if (t->process_cnt == REPORT_PROCESSES_MAX) return NULL;
    ReportProcess *p = &t->process[t->process_cnt++];
    p->name = arena_strdup(&d->arena, name);
    return p;
}

static Err add_process(ReportProcess *p, Json *j) {
    static const char *const key[RUN_TIME_CNT] = {"busy", "input", "room", "housekeeping"};
    double peak, s;
    int restarts;
    for (int k = 0; k < RUN_TIME_CNT; k++) {
        TRY(json_want_f64(j, key[k], &s));
        p->time_s[k] += s;
    }
    TRY(json_want_f64(j, "peak_bytes", &peak));
    TRY(json_want_int(j, "restarts", &restarts));
    if (peak > p->peak_bytes) p->peak_bytes = peak;
    if (restarts > p->restarts) p->restarts = restarts;
    return ERR_OK;
}

static Err read_timing_line(ReportData *d, Json *j) {
    Json *processes;
    double seconds;
    const char *name;
    TRY(json_want_f64(j, "seconds", &seconds));
    TRY(json_want_object(j, "processes", &processes));
    for (void *it = NULL; (name = json_next(processes, &it));) {
        Json *one;
        ReportProcess *p = find_process(d, name);
        TRY(json_want_object(processes, name, &one));
        if (p) TRY(add_process(p, one));
    }
    d->timing.seconds += seconds;
    d->timing.cnt++;
    return ERR_OK;
}

// ---- eval.json ----

static Err get_interval(Json *j, const char *key, ReportInterval *out) {
    Json *o;
    TRY(json_get_object(j, key, &o));
    if (!o) return ERR_OK;
    TRY(json_want_f64(o, "mean", &out->mean));
    TRY(json_want_f64(o, "low", &out->low));
    TRY(json_want_f64(o, "high", &out->high));
    out->there = true;
    return ERR_OK;
}

static Err read_kept(ReportMetric *m, Json *j) {
    Json *o;
    TRY(json_get_object(j, "kept", &o));
    if (!o) return ERR_OK;
    TRY(json_want_str(o, "sign", &m->sign));
    TRY(json_get_f64(o, "least", &m->least));
    return json_get_f64(o, "most", &m->most);
}

static Err read_metric(ReportMetric *m, Json *j, Json *summary) {
    Json *o;
    *m = (ReportMetric){.unit = "", .better = "", .about = "", .most = INFINITY};
    TRY(json_want_str(j, "name", &m->name));
    TRY(json_get_str(j, "unit", &m->unit));
    TRY(json_get_str(j, "better", &m->better));
    TRY(json_get_str(j, "about", &m->about));
    TRY(read_kept(m, j));
    TRY(json_get_object(summary, m->name, &o));
    if (!o) return ERR_OK;
    TRY(get_interval(o, "base", &m->base));
    TRY(get_interval(o, "tuned", &m->tuned));
    return get_interval(o, "difference", &m->difference);
}

static Err read_metrics(ReportData *d, Json *j) {
    ReportEval *e = &d->eval;
    Json *summary, *row[METRICS_MAX];
    TRY(json_want_object(j, "summary", &summary));
    TRY(json_want_objects(j, "metrics", row, METRICS_MAX, &e->metric_cnt));
    e->metric = arena_array(&d->arena, ReportMetric, METRICS_MAX);
    for (int i = 0; i < e->metric_cnt; i++) TRY(read_metric(&e->metric[i], row[i], summary));
    return ERR_OK;
}

static Err read_headroom(ReportData *d, Json *j) {
    ReportEval *e = &d->eval;
    Json *o;
    const char *name;
    TRY(json_get_object(j, "headroom", &o));
    if (!o) return ERR_OK;
    e->headroom = arena_array(&d->arena, ReportHeadroom, json_count(o));
    for (void *it = NULL; (name = json_next(o, &it)); e->headroom_cnt++) {
        ReportHeadroom *h = &e->headroom[e->headroom_cnt];
        h->name = name;
        TRY(get_interval(o, name, &h->loss));
    }
    return ERR_OK;
}

static Err read_classes(ReportData *d, Json *j) {
    ReportEval *e = &d->eval;
    Json *o, *base, *tuned;
    const char *name;
    TRY(json_get_object(j, "classes", &o));
    if (!o) return ERR_OK;
    TRY(json_want_object(o, "base", &base));
    TRY(json_want_object(o, "tuned", &tuned));
    e->class = arena_array(&d->arena, ReportClass, json_count(base));
    for (void *it = NULL; (name = json_next(base, &it)); e->class_cnt++) {
        ReportClass *c = &e->class[e->class_cnt];
        c->name = name;
        TRY(json_want_f64(base, name, &c->base));
        TRY(json_want_f64(tuned, name, &c->tuned));
    }
    return ERR_OK;
}

static Err read_eval(ReportData *d) {
    ReportEval *e = &d->eval;
    int64_t version;
    int images;
    const char *path = at(d, "eval.json");
    if (access(path, F_OK)) return ERR_OK;
    TRY(json_open(&e->json, path));
    Json *j = e->json;
    TRY(json_want_i64(j, "version", &version));
    if (version != 1) FAIL(ERR_FORMAT, "%s: version %lld, want 1", path, (long long)version);
    const char **name = arena_array(&d->arena, const char *, SAMPLES_MAX);
    e->adapter = e->target = "";
    e->fps = 7;
    e->updates = -1; // an adapter from elsewhere
    TRY(json_get_i64(j, "updates", &e->updates));
    TRY(json_want_i64(j, "seeds", &e->seeds));
    TRY(json_get_i64(j, "fps", &e->fps));
    TRY(json_get_str(j, "adapter", &e->adapter));
    TRY(json_get_str(j, "target", &e->target));
    TRY(json_want_strs(j, "images", name, SAMPLES_MAX, &images));
    e->images = images;
    e->sample = arena_array(&d->arena, Json *, SAMPLES_MAX);
    TRY(json_want_objects(j, "samples", e->sample, SAMPLES_MAX, &e->sample_cnt));
    TRY(read_metrics(d, j));
    TRY(read_headroom(d, j));
    return read_classes(d, j);
}

// ---- Folders ----

static int by_preview(const void *pa, const void *pb) {
    const ReportPreview *a = pa, *b = pb;
    if (a->update != b->update) return a->update > b->update ? -1 : 1;
    return a->sample < b->sample ? -1 : a->sample > b->sample;
}

static void list_previews(ReportData *d) {
    DIR *folder = opendir(at(d, "previews"));
    int cnt = 0, room = 0;
    ReportPreview *all = NULL;
    for (struct dirent *e; folder && (e = readdir(folder));) {
        unsigned long long update, sample;
        int len = 0;
        if (sscanf(e->d_name, "step-%llu-%llu.mp4%n", &update, &sample, &len) != 2 || !len ||
            e->d_name[len])
            continue;
        if (cnt == room) all = realloc(all, (size_t)(room = 2 * room + 16) * sizeof *all);
        die_unless(all, "report: out of memory for %d previews", room);
        char *name = arena_strdup(&d->arena, e->d_name);
        name[len - 4] = 0;
        all[cnt++] = (ReportPreview){name, update, sample};
    }
    if (folder) closedir(folder);
    if (cnt) qsort(all, (size_t)cnt, sizeof *all, by_preview);
    while (d->preview_cnt < cnt && all[d->preview_cnt].update == all[0].update) d->preview_cnt++;
    d->preview = arena_array(&d->arena, ReportPreview, d->preview_cnt + 1);
    if (cnt) memcpy(d->preview, all, (size_t)d->preview_cnt * sizeof *all);
    free(all);
}

static void find_bundle(ReportData *d) {
    DIR *folder = opendir(at(d, "ckpt"));
    unsigned long long newest = 0;
    for (struct dirent *e; folder && (e = readdir(folder));) {
        unsigned long long update;
        int len = 0;
        if (sscanf(e->d_name, "step-%llu.tar%n", &update, &len) != 1 || !len || e->d_name[len] ||
            (d->bundle && update < newest))
            continue;
        newest = update;
        d->bundle = arena_printf(&d->arena, "ckpt/%s", e->d_name);
    }
    if (folder) closedir(folder);
}

// ---- All of it ----

static Err read_spans(ReportData *d) {
    const char *path = at(d, RECORDER_SPANS);
    if (access(path, F_OK)) return ERR_OK;
    return recorder_read(path, &d->span, &d->span_cnt);
}

static Err read_all(ReportData *d) {
    char absolute[PATH_MAX];
    TRY(run_dir_alive(d->dir, &d->alive));
    if (!realpath(d->dir, absolute)) FAIL(ERR_IO, "%s: %s", d->dir, strerror(errno));
    d->name = arena_strdup(&d->arena, strrchr(absolute, '/') + 1);
    TRY(config_load(&d->config, at(d, "config.yaml"), 0, NULL));
    TRY(read_lines(d, "metrics.jsonl", read_metrics_line));
    TRY(read_lines(d, "timing.jsonl", read_timing_line));
    TRY(read_spans(d));
    TRY(read_eval(d));
    list_previews(d);
    find_bundle(d);
    return ERR_OK;
}

Err report_data_open(ReportData **out, const char *dir) {
    ReportData *d = calloc(1, sizeof *d);
    die_unless(d, "report: out of memory");
    d->dir = arena_strdup(&d->arena, dir);
    Err err = read_all(d);
    if (err) {
        report_data_close(d);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    *out = d;
    return ERR_OK;
}

void report_data_close(ReportData *d) {
    if (!d) return;
    for (int i = 0; i < d->metrics.series_cnt; i++) free(d->metrics.series[i].value);
    free(d->metrics.update);
    free(d->span);
    json_close(d->eval.json);
    config_free(d->config);
    arena_free(&d->arena);
    free(d);
}

const double *report_data_series(const ReportData *d, const char *name) {
    for (int i = 0; i < d->metrics.series_cnt; i++)
        if (!strcmp(d->metrics.series[i].name, name)) return d->metrics.series[i].value;
    return NULL;
}

const ReportMetric *report_data_metric(const ReportData *d, const char *name) {
    for (int i = 0; i < d->eval.metric_cnt; i++)
        if (!strcmp(d->eval.metric[i].name, name)) return &d->eval.metric[i];
    return NULL;
}
