// report_eval: the sections of a report that `vader eval` decides: videos, verdict, classes, headroom.
//
// Each adds one section to the page; what is not known yet is one line that says how to come to know it.
#ifndef LAUNCH_REPORT_EVAL_H
#define LAUNCH_REPORT_EVAL_H

#include "launch/report_page.h"

// The base model's videos beside the tuned ones; without an evaluation the newest previews.
void report_eval_videos(ReportPage *p);

// The table, and in words whether the reward was earned: it was not if it rose while something else was lost or overdone
// ("kept" of a metric in eval.json).
void report_eval_verdict(ReportPage *p);

// Share of each class before and after.
void report_eval_classes(ReportPage *p);

// V-JEPA's loss of real, base, tuned, frozen and blurred videos.
void report_eval_headroom(ReportPage *p);

#endif
