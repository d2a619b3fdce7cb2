// report_run: metrics.jsonl, timing.jsonl and spans.bin as figures.
#include "launch/report_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/format/html.h"
#include "launch/report_chart.h"
#include "launch/trace.h"

#define REAL(x) report_page_real(p, x)
#define NO_UPDATE "<p class=\"none\">No update has been finished yet.</p>\n"

enum { TIMELINE_UPDATES = 3, TIMELINE_SPANS = 2000, TIMELINE_LANES = 24 };

// ---- Curves ----

size_t report_run_smoothing(size_t updates) {
    size_t n = updates / 10 | 1;
    return updates < 3 ? 1 : n < 3 ? 3 : n;
}

// Centred mean over `width` updates, fewer at the ends.
static double *moving_mean(Arena *a, const double *y, size_t cnt, size_t width) {
    double *out = arena_array(a, double, cnt + 1), sum = 0;
    size_t half = width / 2, from = 0, to = 0, n = 0; // the sum is over finite ones of [from, to)
    for (size_t i = 0; i < cnt; i++) {
        for (; to < cnt && to <= i + half; to++)
            if (isfinite(y[to])) sum += y[to], n++;
        for (; from + half < i; from++)
            if (isfinite(y[from])) sum -= y[from], n--;
        out[i] = n ? sum / (double)n : NAN;
    }
    return out;
}

// "from 1 at update 1 to 2 at update 50" for those who cannot see the curve.
static const char *in_words(ReportPage *p, const char *name, const double *y) {
    const ReportMetrics *m = &p->d->metrics;
    return arena_printf(&p->arena, "%s: %s at update %.0f, %s at update %.0f", name, REAL(y[0]),
                        m->update[0], REAL(y[m->cnt - 1]), m->update[m->cnt - 1]);
}

// One series as dots with its moving mean. Returns the updates per point.
static size_t add_curve(ReportPage *p, const char *name, const double *y, double guide, bool tall) {
    const ReportMetrics *m = &p->d->metrics;
    size_t width = report_run_smoothing(m->cnt);
    ReportChart c = {.title = in_words(p, name, y),
                     .x_name = "update",
                     .x = m->update,
                     .cnt = m->cnt,
                     .guide = guide,
                     .tall = tall,
                     .series = {{name, "soft", REPORT_CHART_DOTS, y}},
                     .series_cnt = 1};
    if (width > 1)
        c.series[c.series_cnt++] = (ReportChartSeries){"moving mean", "tuned", REPORT_CHART_LINE,
                                                       moving_mean(&p->arena, y, m->cnt, width)};
    return report_chart_curves(&p->out, &p->arena, &c);
}

static void add_terms(ReportPage *p) {
    const ReportData *d = p->d;
    if (d->config->reward_cnt < 2) return;
    strbuf_add(&p->out, "<div class=\"pairs\">\n");
    for (int i = 0; i < d->metrics.series_cnt; i++) {
        const ReportSeries *s = &d->metrics.series[i];
        const char *dot = strchr(s->name, '.');
        int k = dot ? atoi(dot + 1) : -1;
        if (k < 0 || k >= d->config->reward_cnt) continue;
        strbuf_add(&p->out, "<figure>\n");
        add_curve(p, s->name, s->value, NAN, false);
        report_page_caption(p, "The term %s before its weight, %s.", s->name,
                            REAL(d->config->reward[k].weight));
        strbuf_add(&p->out, "</figure>\n");
    }
    strbuf_add(&p->out, "</div>\n");
}

void report_run_reward(ReportPage *p) {
    const ReportMetrics *m = &p->d->metrics;
    const double *y = report_data_series(p->d, "reward");
    report_page_section(p, "reward", "Reward");
    if (!m->cnt || !y) {
        strbuf_add(&p->out, NO_UPDATE);
        report_page_end(p);
        return;
    }
    strbuf_add(&p->out, "<figure>\n");
    size_t each = add_curve(p, "reward", y, NAN, true);
    size_t width = report_run_smoothing(m->cnt);
    report_page_caption(
        p, "Reward of the %lld rollouts of each update, made on fresh noise%s%s%s.",
        (long long)p->d->config->rollouts,
        width > 1 ? arena_printf(&p->arena, "; the line is the moving mean over %zu updates", width)
                  : "",
        each > 1 ? arena_printf(&p->arena,
                                "; a point is the mean of %zu updates, the grey bar "
                                "behind it their range",
                                each)
                 : "",
        p->d->config->reward_cnt == 1 ? ". The reward has one term" : "");
    strbuf_add(&p->out, "</figure>\n");
    add_terms(p);
    report_page_end(p);
}

// ---- Norms ----

static double largest(const double *y, size_t cnt) {
    double most = -INFINITY;
    for (size_t i = 0; i < cnt; i++) most = fmax(most, y[i]);
    return most;
}

static void add_grad_norm(ReportPage *p, const double *y) {
    double clip = p->d->config->clip, most = largest(y, p->d->metrics.cnt);
    bool near = clip > 0 && clip < 2 * most; // else the line would squeeze the curve
    add_curve(p, "gradient norm", y, near ? clip : NAN, false);
    report_page_caption(p, "Norm of dR/dθ before clipping%s%s.",
                        near       ? "; dashed: what is let through, optim.clip "
                        : clip > 0 ? "; it stayed below optim.clip, "
                                   : "; nothing is clipped",
                        clip > 0 ? REAL(clip) : "");
}

void report_run_norms(ReportPage *p) {
    static const struct {
        const char *key, *name, *caption;
    } row[] = {{"theta_norm", "θ norm", "Norm of the adapter’s parameters θ."},
               {"grad_x0", "|dR/dx₀|",
                "|dR/dx₀|: what the reward asks of the latents, mean over rollouts."},
               {"saturated", "saturated",
                "Fraction of colour values outside [0, 1]: they carry no gradient."}};
    const ReportData *d = p->d;
    const double *y = report_data_series(d, "grad_norm");
    report_page_section(p, "norms", "Gradients");
    if (!d->metrics.cnt || !y) {
        strbuf_add(&p->out, NO_UPDATE);
        report_page_end(p);
        return;
    }
    strbuf_add(&p->out, "<div class=\"pairs\">\n<figure>\n");
    add_grad_norm(p, y);
    strbuf_add(&p->out, "</figure>\n");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        y = report_data_series(d, row[i].key);
        if (!y) continue;
        strbuf_add(&p->out, "<figure>\n");
        add_curve(p, row[i].name, y, NAN, false);
        report_page_caption(p, "%s", row[i].caption);
        strbuf_add(&p->out, "</figure>\n");
    }
    strbuf_add(&p->out, "</div>\n");
    report_page_end(p);
}

// ---- Window ----

static bool is_constant(const double *y, size_t cnt) {
    for (size_t i = 1; i < cnt; i++)
        if (y[i] != y[0]) return false;
    return true;
}

// One mark per step of the schedule; those from `first` on, `cnt` of them, carry gradient.
static void add_schedule(ReportPage *p, int first, int cnt) {
    int all = (int)p->d->config->steps;
    double each = 1.0 / all, gap = all > 60 ? 0 : fmin(0.15 * each, 0.004);
    ReportChartBar *bar = arena_array(&p->arena, ReportChartBar, all);
    for (int k = 0; k < all; k++)
        bar[k] = (ReportChartBar){k >= first && k < first + cnt ? "tuned" : "other", k * each,
                                  (k + 1) * each - gap, 1, 0};
    strbuf_add(&p->out,
               "<figure>\n<div class=\"ends\"><span>noise</span><span>video</span></div>\n");
    report_chart_bars(&p->out, bar, all, true);
    report_page_caption(p, "The %d denoising steps; %s gradient.", all,
                        cnt == 1 ? "the marked one carries" : "the marked ones carry");
    strbuf_add(&p->out, "</figure>\n");
}

static void add_window_curves(ReportPage *p, const double *window, const double *gain) {
    strbuf_add(&p->out, "<div class=\"pairs\">\n<figure>\n");
    add_curve(p, "window", window, NAN, false);
    report_page_caption(p, "First step of the window, mean over the rollouts of an update.");
    strbuf_add(&p->out, "</figure>\n<figure>\n");
    add_curve(p, "gain", gain, NAN, false);
    report_page_caption(p, "Its gain: how much the first step’s output counts in x₀.");
    strbuf_add(&p->out, "</figure>\n</div>\n");
}

static const char *range_text(ReportPage *p) {
    const ConfigInts *range = &p->d->config->window_range;
    if (range->cnt != 2) return "";
    return arena_printf(&p->arena, ", from step %lld to %lld", (long long)range->item[0],
                        (long long)range->item[1]);
}

void report_run_window(ReportPage *p) {
    const Config *cfg = p->d->config;
    const ReportMetrics *m = &p->d->metrics;
    const double *window = report_data_series(p->d, "window");
    const double *gain = report_data_series(p->d, "gain");
    bool to_end = !strcmp(cfg->window_steps, "to_end");
    long long steps = atoll(cfg->window_steps);
    report_page_section(p, "window", "Window");
    if (!m->cnt || !window || !gain) {
        strbuf_add(&p->out, NO_UPDATE);
        report_page_end(p);
        return;
    }
    bool fixed = is_constant(window, m->cnt);
    html_printf(&p->out,
                "<p>The window is where the gradient enters the sampler: <code>window.at: "
                "%s</code>, <code>window.steps: %s</code>. ",
                cfg->window_at, cfg->window_steps);
    if (fixed)
        html_printf(&p->out,
                    "In all updates it began with step %.0f of %lld, counted from 0, whose gain is "
                    "<b>%s</b>.</p>\n",
                    window[0], (long long)cfg->steps, REAL(gain[0]));
    else
        html_printf(&p->out, "It was drawn for each rollout%s.</p>\n", range_text(p));
    if (fixed)
        add_schedule(p, (int)window[0], to_end ? (int)cfg->steps : (int)steps);
    else
        add_window_curves(p, window, gain);
    report_page_end(p);
}

// ---- Stages ----

// Styles of report.css for steps, by StepKind; the last is the update.
static const char *const step_style[] = {"s-encode",   "s-sample", "s-denoise",
                                         "s-handover", "s-decode", "s-score",
                                         "s-pull",     "s-learn",  "s-update"};

static const char *step_name(int step) {
    return step == STEP_CNT ? "update" : itinerary_step_name((StepKind)step);
}

static const char *span_note(ReportPage *p, const RecorderSpan *s, uint64_t rollouts) {
    double ms = (double)(s->end_ns - s->start_ns) / 1e6;
    unsigned long long n = s->sample;
    if (s->step == STEP_CNT) return arena_printf(&p->arena, "update %llu, %.3g ms", n + 1, ms);
    if (s->purpose == SLOT_PREVIEW)
        return arena_printf(&p->arena, "%s.%d of preview %llu, %.3g ms", step_name(s->step),
                            s->segment, n, ms);
    return arena_printf(&p->arena, "%s.%d of sample %llu, update %llu, %.3g ms", step_name(s->step),
                        s->segment, n, (unsigned long long)(n / rollouts + 1), ms);
}

// The lane of a process: in the order of stages and replicas; -1: beyond TIMELINE_LANES.
static int lane_of(const TraceSums *u, int stage, int replica) {
    int lane = replica;
    for (int s = 0; s < stage; s++) lane += u->replicas[s];
    return lane < TIMELINE_LANES ? lane : -1;
}

static int name_lanes(ReportPage *p, const TraceSums *u, const char *name[TIMELINE_LANES]) {
    int cnt = 0;
    for (int s = 0; s < STAGE_CNT; s++)
        for (int r = 0; r < u->replicas[s] && cnt < TIMELINE_LANES; r++)
            name[cnt++] = arena_printf(&p->arena, "%s.%d", itinerary_stage_name((StageKind)s), r);
    return cnt;
}

static void add_legend(ReportPage *p, const TraceSums *u) {
    strbuf_add(&p->out, "<ul class=\"legend\">");
    for (int k = 0; k <= STEP_CNT; k++)
        if (u->step_cnt[k])
            html_printf(&p->out, "<li><i class=\"%s\"></i>%s <small>%s ms</small></li>",
                        step_style[k], step_name(k),
                        REAL(1e3 * u->step_s[k] / (double)u->step_cnt[k]));
    strbuf_add(&p->out, "</ul>\n");
}

static void add_timeline(ReportPage *p, const TraceSums *u, const TracePart *part) {
    const char *lane[TIMELINE_LANES];
    int lanes = name_lanes(p, u, lane);
    ReportChartPiece *piece = arena_array(&p->arena, ReportChartPiece, part->cnt + 1);
    double seconds = (double)(part->end_ns - part->start_ns) / 1e9;
    size_t cnt = 0;
    bool hidden = false;
    for (size_t i = 0; i < part->cnt; i++) {
        const RecorderSpan *s = &part->span[i];
        int at = lane_of(u, s->stage, s->replica);
        hidden |= at < 0;
        if (at < 0 || s->end_ns <= part->start_ns || s->start_ns >= part->end_ns) continue;
        piece[cnt++] =
            (ReportChartPiece){.lane = at,
                               .from = fmax(0, (double)(s->start_ns - part->start_ns) / 1e9),
                               .to = fmin(seconds, (double)(s->end_ns - part->start_ns) / 1e9),
                               .style = step_style[s->step],
                               .note = span_note(p, s, (uint64_t)p->d->config->rollouts)};
    }
    strbuf_add(&p->out, "<figure>\n");
    add_legend(p, u);
    report_chart_lanes(&p->out, &p->arena, "Timeline of the processes: who worked on what, when",
                       lane, lanes, piece, cnt, seconds);
    unsigned long long first = part->first_update, last = first + (unsigned)part->updates - 1;
    const char *where =
        !part->updates ? arena_printf(&p->arena, "%zu steps of one update", part->cnt)
        : first == 1   ? arena_printf(&p->arena, "from the start to the end of update %llu", last)
                     : arena_printf(&p->arena, "from the end of update %llu to that of update %llu",
                                    first - 1, last);
    report_page_caption(p,
                        "Who worked when: %s. In the legend the mean time of a step over the whole "
                        "run.%s",
                        where, hidden ? " The other processes are left out." : "");
    strbuf_add(&p->out, "</figure>\n");
}

// What time goes to, by RunTime: class of report.css and name.
static const struct {
    const char *style, *name;
} time_kind[RUN_TIME_CNT] = {{"t-busy", "busy"},
                             {"t-input", "waits for input"},
                             {"t-room", "waits for room"},
                             {"t-other", "housekeeping"}};

static void add_occupancy_row(ReportPage *p, const ReportProcess *r) {
    ReportChartBar bar[RUN_TIME_CNT];
    double all = 0, at = 0;
    for (int k = 0; k < RUN_TIME_CNT; k++) all += r->time_s[k];
    if (!(all > 0)) return;
    html_printf(&p->out, "<tr><th scope=\"row\">%s", r->name);
    if (r->restarts) html_printf(&p->out, "<small>restarted %d times</small>", r->restarts);
    strbuf_add(&p->out, "</th><td class=\"bar\">");
    for (int k = 0; k < RUN_TIME_CNT; k++) {
        double to = at + r->time_s[k] / all;
        bar[k] = (ReportChartBar){time_kind[k].style, at, to, 1, 0};
        at = to;
    }
    report_chart_bars(&p->out, bar, RUN_TIME_CNT, true);
    strbuf_add(&p->out, "</td>");
    for (int k = 0; k < RUN_TIME_CNT; k++)
        html_printf(&p->out, "<td>%.0f&#160;%%</td>", 100 * r->time_s[k] / all);
    strbuf_add(&p->out, "</tr>\n");
}

static void add_occupancy(ReportPage *p) {
    const ReportTiming *t = &p->d->timing;
    strbuf_add(&p->out, "<figure>\n<ul class=\"legend\">");
    for (int k = 0; k < RUN_TIME_CNT; k++)
        html_printf(&p->out, "<li><i class=\"%s\"></i>%s</li>", time_kind[k].style,
                    time_kind[k].name);
    strbuf_add(&p->out, "</ul>\n<table class=\"rows occupancy\">\n<thead><tr><th "
                        "scope=\"col\">process</th><td class=\"bar\"></td>");
    for (int k = 0; k < RUN_TIME_CNT; k++)
        html_printf(&p->out, "<th scope=\"col\"><i class=\"%s\"></i><span>%s</span></th>",
                    time_kind[k].style, time_kind[k].name);
    strbuf_add(&p->out, "</tr></thead>\n<tbody>\n");
    for (int i = 0; i < t->process_cnt; i++) add_occupancy_row(p, &t->process[i]);
    strbuf_add(&p->out, "</tbody>\n</table>\n");
    report_page_caption(p,
                        "Share of its time that each process was busy, waited for input, waited "
                        "for room to put its results, or kept house; over %zu updates.",
                        t->cnt);
    strbuf_add(&p->out, "</figure>\n");
}

void report_run_stages(ReportPage *p) {
    const ReportData *d = p->d;
    TraceSums u;
    TracePart part;
    report_page_section(p, "stages", "Stages");
    trace_sum(&u, d->span, d->span_cnt);
    trace_part(&part, d->span, d->span_cnt, TIMELINE_UPDATES, TIMELINE_SPANS);
    if (u.wall_s > 0 && part.cnt) {
        html_printf(&p->out,
                    "<p>On average <b>%.2f</b> processes worked at once. The %s bounds the run: it "
                    "was busy %.0f %% of the time.%s</p>\n",
                    u.overlap, itinerary_stage_name(u.bound), 100 * u.bound_busy,
                    u.lost ? " Some steps were too many to be recorded." : "");
        add_timeline(p, &u, &part);
    } else {
        strbuf_add(&p->out, "<p class=\"none\">No timeline: no step has been recorded "
                            "(<code>spans.bin</code>).</p>\n");
    }
    if (d->timing.cnt)
        add_occupancy(p);
    else
        strbuf_add(&p->out, "<p class=\"none\">No occupancy yet: <code>timing.jsonl</code> gets a "
                            "line with each update.</p>\n");
    report_page_end(p);
}

// ---- Memory ----

static const char *bytes_text(ReportPage *p, double bytes) {
    bool large = bytes >= 1e9;
    return arena_printf(&p->arena, "%s %s", REAL(bytes / (large ? 1e9 : 1e6)), large ? "GB" : "MB");
}

void report_run_memory(ReportPage *p) {
    const ReportTiming *t = &p->d->timing;
    double most = 0, all = 0;
    for (int i = 0; i < t->process_cnt; i++) {
        most = fmax(most, t->process[i].peak_bytes);
        all += t->process[i].peak_bytes;
    }
    report_page_section(p, "memory", "Memory");
    if (!(most > 0)) {
        strbuf_add(&p->out, NO_UPDATE);
        report_page_end(p);
        return;
    }
    strbuf_add(&p->out, "<figure>\n<table class=\"rows\">\n<tbody>\n");
    for (int i = 0; i < t->process_cnt; i++) {
        const ReportProcess *r = &t->process[i];
        html_printf(&p->out, "<tr><th scope=\"row\">%s</th><td class=\"bar\">", r->name);
        ReportChartBar bar = {"other", 0, r->peak_bytes / most, 1, 0};
        report_chart_bars(&p->out, &bar, 1, false);
        html_printf(&p->out, "</td><td>%s</td></tr>\n", bytes_text(p, r->peak_bytes));
    }
    strbuf_add(&p->out, "</tbody>\n</table>\n");
    report_page_caption(p,
                        "Largest resident memory of each process, %s in all. What several of "
                        "them map, shared memory and model files, counts in each.",
                        bytes_text(p, all));
    strbuf_add(&p->out, "</figure>\n");
    report_page_end(p);
}
