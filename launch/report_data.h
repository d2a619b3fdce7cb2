// report_data: all that a run directory holds for its report, read and checked.
//
// Only config.yaml and the lock have to be there; everything else is absent (a count of 0) until the run, or
// `vader eval`, has made it. A file that is there and is not what it should be is an error that names it.
//
//     ReportData *d;
//     TRY(report_data_open(&d, "runs/tiny"));
//     ... d->metrics ..., d->eval ...
//     report_data_close(d);
#ifndef LAUNCH_REPORT_DATA_H
#define LAUNCH_REPORT_DATA_H

#include "common/base/arena.h"
#include "common/config/config.h"
#include "common/format/json.h"
#include "common/proc/recorder.h"

enum { REPORT_PROCESSES_MAX = RUN_PROCESSES_MAX, REPORT_SERIES_MAX = 64 };

// metrics.jsonl, column by column.
typedef struct ReportSeries {
    const char *name; // a key of the lines: "reward", "videomae.0"
    double *value;    // [cnt]; NaN where a line lacks it
} ReportSeries;

typedef struct ReportMetrics {
    size_t cnt;     // updates
    double *update; // [cnt]
    ReportSeries series[REPORT_SERIES_MAX];
    int series_cnt;
} ReportMetrics;

// timing.jsonl, summed over its lines.
typedef struct ReportProcess {
    const char *name;            // "sampler.0"
    double time_s[RUN_TIME_CNT]; // RunTime
    double peak_bytes;
    int restarts; // most within one session
} ReportProcess;

typedef struct ReportTiming {
    size_t cnt;     // updates
    double seconds; // of all
    ReportProcess process[REPORT_PROCESSES_MAX];
    int process_cnt;
} ReportTiming;

// A mean and its 95 % interval.
typedef struct ReportInterval {
    bool there;
    double mean, low, high;
} ReportInterval;

typedef struct ReportMetric {
    const char *name, *unit, *better, *about; // better: "up", "down", ""
    ReportInterval base, tuned, difference;
    // What a reward can be won by: of the base's mean, the share between which the tuned model's has to stay, and what
    // one sees otherwise; NULL: not of this kind.
    double least, most;
    const char *sign;
} ReportMetric;

typedef struct ReportClass {
    const char *name;
    double base, tuned; // shares in [0, 1]
} ReportClass;

typedef struct ReportHeadroom {
    const char *name; // "real"
    ReportInterval loss;
} ReportHeadroom;

// eval.json. What it says of single samples stays JSON.
typedef struct ReportEval {
    Json *json; // NULL: no evaluation yet
    int64_t updates, images, seeds, fps;
    const char *adapter, *target;
    ReportMetric *metric; // in the order of the file
    ReportClass *class;
    ReportHeadroom *headroom;
    Json **sample;
    int metric_cnt, class_cnt, headroom_cnt, sample_cnt;
} ReportEval;

// One preview: previews/<name>.mp4 and .png.
typedef struct ReportPreview {
    const char *name; // "step-000050-0"
    uint64_t update, sample;
} ReportPreview;

typedef struct ReportData {
    Arena arena;
    const char *dir, *name; // as given; the last part of its absolute path
    bool alive;             // a process of the run is there
    Config *config;
    ReportMetrics metrics;
    ReportTiming timing;
    RecorderSpan *span;
    size_t span_cnt;
    ReportEval eval;
    ReportPreview *preview; // of the newest version that has some, by sample
    int preview_cnt;
    const char *bundle; // newest, within dir: "ckpt/step-000050.tar"; NULL: none
} ReportData;

Err report_data_open(ReportData **out, const char *dir);
void report_data_close(ReportData *d); // NULL is fine

// The column of metrics.jsonl, or NULL.
const double *report_data_series(const ReportData *d, const char *name);
// The metric of eval.json, or NULL.
const ReportMetric *report_data_metric(const ReportData *d, const char *name);

#endif
