// report_chart: scales with round numbers, paths, rectangles.
#include "launch/report_chart.h"

#include <math.h>
#include <stdlib.h>

#include "common/format/html.h"

enum { SIDE = 1000, TICKS_MAX = 16 }; // of every drawing, in its own units

// ---- Scales ----

typedef struct Scale {
    double low, high; // of what is drawn: with `logs`, their logarithms to base 10
    bool logs;
    double tick[TICKS_MAX]; // as values
    int tick_cnt;
} Scale;

static double place(const Scale *s, double v) {
    double x = s->logs ? log10(v) : v;
    return (x - s->low) / (s->high - s->low);
}

// 1, 2 or 5 times a power of ten, at least `least`.
static double round_step(double least) {
    double power = pow(10, floor(log10(least)));
    return least <= power * 1.0000001 ? power
           : least <= 2 * power       ? 2 * power
           : least <= 5 * power       ? 5 * power
                                      : 10 * power;
}

static void add_tick(Scale *s, double v) {
    double p = place(s, v);
    if (s->tick_cnt < TICKS_MAX && p > -1e-9 && p < 1 + 1e-9) s->tick[s->tick_cnt++] = v;
}

static void make_ticks(Scale *s, int about, double least) {
    if (s->logs) {
        double span = s->high - s->low, jump = fmax(1, ceil(span / TICKS_MAX));
        for (double e = floor(s->low); e <= s->high; e += jump) {
            add_tick(s, pow(10, e));
            if (span < 2.5) add_tick(s, 2 * pow(10, e)), add_tick(s, 5 * pow(10, e));
        }
        return;
    }
    double step = fmax(least, round_step((s->high - s->low) / about));
    for (double k = ceil(s->low / step - 1e-9); k * step <= s->high + step * 1e-9; k++)
        add_tick(s, k * step);
}

// A scale that shows low .. high with some room, about so many ticks and at least `least` between two.
static Scale make_scale(double low, double high, bool logs, double room, int about, double least) {
    if (logs) low = log10(low), high = log10(high);
    double width = high > low ? high - low : fmax(least, fmax(fabs(high) * 0.1, 1e-9));
    Scale s = {.logs = logs, .low = low - width * room, .high = high + width * room};
    if (!(high > low)) s.low = low - width / 2, s.high = high + width / 2;
    make_ticks(&s, about, least);
    return s;
}

// As many digits as tell the ticks apart.
static const char *tick_text(Arena *a, const Scale *s, double v) {
    double step = s->tick_cnt > 1 ? fabs(s->tick[1] - s->tick[0]) : fabs(v);
    if (s->logs) return html_real(a, v, 1);
    if (fabs(v) < step * 1e-6) return "0";
    int digits = (int)(floor(log10(fabs(v)) + 1e-9) - floor(log10(step) + 1e-9)) + 1;
    return html_real(a, v, digits < 1 ? 1 : digits);
}

// ---- The frame of a plot ----

static void open_plot(StrBuf *out, const char *title, const char *style, const Scale *x,
                      const Scale *y) {
    html_printf(out, "<div class=\"plot %s\" role=\"img\" aria-label=\"%s\"", style, title);
    if (y)
        strbuf_printf(out, " data-x=\"%.9g %.9g\" data-y=\"%.9g %.9g\"%s", x->low, x->high, y->low,
                      y->high, y->logs ? " data-log=\"\"" : "");
    strbuf_printf(out,
                  "><svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
                  SIDE, SIDE);
}

static void add_grid(StrBuf *out, const Scale *s) {
    strbuf_add(out, "<path class=\"grid\" d=\"");
    for (int i = 0; i < s->tick_cnt; i++)
        strbuf_printf(out, "M0 %.1fH%d", SIDE * (1 - place(s, s->tick[i])), SIDE);
    strbuf_add(out, "\"/>");
}

static void add_x_labels(StrBuf *out, Arena *a, const Scale *s, const char *name) {
    for (int i = 0; i < s->tick_cnt; i++)
        html_printf(out, "<span class=\"x\" style=\"left:%.2f%%\">%s</span>",
                    100 * place(s, s->tick[i]), tick_text(a, s, s->tick[i]));
    html_printf(out, "<span class=\"axis\">%s</span>", name);
}

static void add_y_labels(StrBuf *out, Arena *a, const Scale *s) {
    for (int i = 0; i < s->tick_cnt; i++)
        html_printf(out, "<span class=\"y\" style=\"top:%.2f%%\">%s</span>",
                    100 * (1 - place(s, s->tick[i])), tick_text(a, s, s->tick[i]));
}

// ---- Curves ----

// A series as it is drawn: each point stands for `each` neighbours.
typedef struct Points {
    size_t cnt, each;
    double *x, *y, *low, *high; // mean and range; y is NaN where there is nothing
} Points;

static Points thin_out(Arena *a, const ReportChart *c, const double *y) {
    size_t each = (c->cnt + REPORT_CHART_POINTS_MAX - 1) / REPORT_CHART_POINTS_MAX;
    if (!each) each = 1;
    Points p = {.each = each, .cnt = (c->cnt + each - 1) / each};
    double **column[] = {&p.x, &p.y, &p.low, &p.high};
    for (int i = 0; i < 4; i++) *column[i] = arena_array(a, double, p.cnt + 1);
    for (size_t i = 0; i < p.cnt; i++) {
        double sum = 0, sum_x = 0;
        size_t n = 0, end = (i + 1) * each < c->cnt ? (i + 1) * each : c->cnt;
        p.low[i] = INFINITY, p.high[i] = -INFINITY;
        for (size_t k = i * each; k < end; k++) {
            if (!isfinite(y[k])) continue;
            sum += y[k], sum_x += c->x[k], n++;
            p.low[i] = fmin(p.low[i], y[k]);
            p.high[i] = fmax(p.high[i], y[k]);
        }
        p.y[i] = n ? sum / (double)n : NAN;
        p.x[i] = n ? sum_x / (double)n : NAN;
    }
    return p;
}

static Scale y_scale(const ReportChart *c, const Points *p) {
    double low = INFINITY, high = -INFINITY;
    for (int k = 0; k < c->series_cnt; k++)
        for (size_t i = 0; i < p[k].cnt; i++)
            low = fmin(low, p[k].low[i]), high = fmax(high, p[k].high[i]);
    if (isfinite(c->guide)) low = fmin(low, c->guide), high = fmax(high, c->guide);
    if (!(low <= high)) low = 0, high = 1;
    return make_scale(low, high, low > 0 && high > 30 * low, 0.06, c->tall ? 5 : 4, 0);
}

static void add_range(StrBuf *out, const ReportChartSeries *s, const Points *p, const Scale *x,
                      const Scale *y) {
    html_printf(out, "<path class=\"range %s\" d=\"", s->style);
    for (size_t i = 0; i < p->cnt; i++)
        if (isfinite(p->y[i]))
            strbuf_printf(out, "M%.1f %.1fV%.1f", SIDE * place(x, p->x[i]),
                          SIDE * (1 - place(y, p->high[i])), SIDE * (1 - place(y, p->low[i])));
    strbuf_add(out, "\"/>");
}

static void add_series(StrBuf *out, const ReportChartSeries *s, const Points *p, const Scale *x,
                       const Scale *y) {
    bool dots = s->mark == REPORT_CHART_DOTS, pen_down = false;
    html_printf(out, "<path class=\"%s %s\" data-name=\"%s\" d=\"", dots ? "dots" : "line",
                s->style, s->name);
    for (size_t i = 0; i < p->cnt; i++) {
        if (!isfinite(p->y[i])) {
            pen_down = false;
            continue;
        }
        strbuf_printf(out, "%c%.1f %.1f%s", pen_down ? 'L' : 'M', SIDE * place(x, p->x[i]),
                      SIDE * (1 - place(y, p->y[i])), dots || !pen_down ? "h0" : "");
        pen_down = !dots;
    }
    strbuf_add(out, "\"/>");
}

size_t report_chart_curves(StrBuf *out, Arena *a, const ReportChart *c) {
    Points p[4];
    for (int k = 0; k < c->series_cnt; k++) p[k] = thin_out(a, c, c->series[k].y);
    Scale x = make_scale(c->cnt ? c->x[0] : 0, c->cnt ? c->x[c->cnt - 1] : 1, false, 0.02, 6, 1);
    Scale y = y_scale(c, p);
    open_plot(out, c->title, c->tall ? "tall" : "low", &x, &y);
    add_grid(out, &y);
    if (isfinite(c->guide))
        strbuf_printf(out, "<path class=\"guide\" d=\"M0 %.1fH%d\"/>",
                      SIDE * (1 - place(&y, c->guide)), SIDE);
    for (int k = 0; k < c->series_cnt; k++) {
        if (p[k].each > 1 && c->series[k].mark == REPORT_CHART_DOTS)
            add_range(out, &c->series[k], &p[k], &x, &y);
        add_series(out, &c->series[k], &p[k], &x, &y);
    }
    strbuf_add(out, "</svg>");
    add_y_labels(out, a, &y);
    add_x_labels(out, a, &x, c->x_name);
    strbuf_add(out, "</div>\n");
    return c->series_cnt ? p[0].each : 1;
}

void report_chart_scatter(StrBuf *out, Arena *a, const char *title, const char *x_name,
                          const char *y_name, const double *x, const double *y, size_t cnt) {
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < cnt; i++) {
        low = fmin(low, fmin(x[i], y[i]));
        high = fmax(high, fmax(x[i], y[i]));
    }
    Scale s = make_scale(low, high, false, 0.06, 4, 0);
    open_plot(out, title, "square", &s, NULL);
    add_grid(out, &s);
    strbuf_printf(out, "<path class=\"guide\" d=\"M0 %dL%d 0\"/><path class=\"dots tuned\" d=\"",
                  SIDE, SIDE);
    for (size_t i = 0; i < cnt; i++)
        strbuf_printf(out, "M%.1f %.1fh0", SIDE * place(&s, x[i]), SIDE * (1 - place(&s, y[i])));
    strbuf_add(out, "\"/></svg>");
    add_y_labels(out, a, &s);
    html_printf(out, "<span class=\"up\">%s</span>", y_name);
    add_x_labels(out, a, &s, x_name);
    strbuf_add(out, "</div>\n");
}

// ---- Bars ----

void report_chart_bars(StrBuf *out, const ReportChartBar *bar, int cnt, bool stacked) {
    int rows = stacked ? 1 : cnt;
    strbuf_printf(out,
                  "<svg class=\"bars\" style=\"height:%.1fem\" viewBox=\"0 0 %d %d\" "
                  "preserveAspectRatio=\"none\" aria-hidden=\"true\">",
                  0.3 + 0.6 * rows, SIDE, 10 * rows);
    for (int i = 0; i < cnt; i++) {
        const ReportChartBar *b = &bar[i];
        int top = stacked ? 0 : 10 * i;
        html_printf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"8\"/>",
                    b->style, SIDE * b->from, top + 1, SIDE * (b->to - b->from));
        if (b->low <= b->high)
            strbuf_printf(out, "<path class=\"whisker\" d=\"M%.1f %dH%.1f\"/>", SIDE * b->low,
                          top + 5, SIDE * b->high);
    }
    strbuf_add(out, "</svg>");
}

// ---- Timelines ----

void report_chart_lanes(StrBuf *out, Arena *a, const char *title, const char *const *lane,
                        int lane_cnt, const ReportChartPiece *piece, size_t cnt, double seconds) {
    bool millis = seconds < 1;
    double unit = millis ? 1000 : 1, each = (double)SIDE / lane_cnt;
    Scale x = make_scale(0, seconds * unit, false, 0, 6, 0);
    strbuf_printf(out, "<div style=\"--lanes:%d\">", lane_cnt);
    open_plot(out, title, "lanes", &x, NULL);
    strbuf_add(out, "<path class=\"grid\" d=\"");
    for (int i = 0; i < lane_cnt; i++) strbuf_printf(out, "M0 %.1fH%d", each * (i + 0.5), SIDE);
    strbuf_add(out, "\"/>");
    for (size_t i = 0; i < cnt; i++) {
        const ReportChartPiece *p = &piece[i];
        html_printf(out, "<rect class=\"%s\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\">",
                    p->style, SIDE * p->from / seconds, each * (p->lane + 0.14),
                    fmax(1.5, SIDE * (p->to - p->from) / seconds), each * 0.72);
        html_printf(out, "<title>%s</title></rect>", p->note);
    }
    strbuf_add(out, "</svg>");
    for (int i = 0; i < lane_cnt; i++)
        html_printf(out, "<span class=\"y\" style=\"top:%.2f%%\">%s</span>",
                    100 * (i + 0.5) / lane_cnt, lane[i]);
    add_x_labels(out, a, &x, millis ? "milliseconds" : "seconds");
    strbuf_add(out, "</div></div>\n");
}
