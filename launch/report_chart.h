// report_chart: curves, bars and timelines as SVG for a page of any width.
//
// A drawing is stretched to its place (preserveAspectRatio none; lines keep their width), its labels are text of
// the page beside it, so that a phone shows the same figure with letters of the same size. Nothing needs a script;
// report.js adds a reading under the pointer from what data-x and data-y say of the axes. Colours and line styles are
// classes of report.css.
//
// Everything is added to `out` as well-formed markup; text from outside is escaped.
#ifndef LAUNCH_REPORT_CHART_H
#define LAUNCH_REPORT_CHART_H

#include <stdbool.h>

#include "common/base/arena.h"
#include "common/base/strbuf.h"

enum { REPORT_CHART_POINTS_MAX = 2000 };

typedef enum ReportChartMark { REPORT_CHART_DOTS, REPORT_CHART_LINE } ReportChartMark;

typedef struct ReportChartSeries {
    const char *name, *style; // style: class of the mark
    ReportChartMark mark;
    const double *y; // [cnt] of the chart; NaN: a gap
} ReportChartSeries;

typedef struct ReportChart {
    const char *title; // for those who cannot see it
    const char *x_name;
    const double *x; // [cnt], ascending
    size_t cnt;
    ReportChartSeries series[4];
    int series_cnt;
    double guide; // a dashed line at this y; NaN: none
    bool tall;
} ReportChart;

// More than REPORT_CHART_POINTS_MAX points become means of as many neighbours, with their range behind them. The y axis
// is logarithmic when all values are positive and the largest is more than 30 times the smallest. Returns how many
// updates one point stands for (1: all are drawn).
size_t report_chart_curves(StrBuf *out, Arena *a, const ReportChart *c);

// Points (x, y) on two equal axes, with the diagonal.
void report_chart_scatter(StrBuf *out, Arena *a, const char *title, const char *x_name,
                          const char *y_name, const double *x, const double *y, size_t cnt);

// ---- Bars ----

typedef struct ReportChartBar {
    const char *style;
    double from, to;  // shares of the width, 0 .. 1
    double low, high; // a whisker between them; low > high: none
} ReportChartBar;

// One drawing as wide as its cell: bars one below another, or side by side when they do not overlap.
void report_chart_bars(StrBuf *out, const ReportChartBar *bar, int cnt, bool stacked);

// ---- Timelines ----

typedef struct ReportChartPiece {
    int lane;
    double from, to; // seconds
    const char *style, *note;
} ReportChartPiece;

// Pieces of work in lanes, from 0 to `seconds`; note shows under the pointer.
void report_chart_lanes(StrBuf *out, Arena *a, const char *title, const char *const *lane,
                        int lane_cnt, const ReportChartPiece *piece, size_t cnt, double seconds);

#endif
