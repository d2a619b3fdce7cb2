// report_run: the sections of a report that the training run itself decides: reward, norms, window, time, memory.
//
// Each adds one section to the page; what is not known yet is one line that says why.
#ifndef LAUNCH_REPORT_RUN_H
#define LAUNCH_REPORT_RUN_H

#include "launch/report_page.h"

// Updates of the moving mean for so many updates: about a tenth, odd, at least 3 where there are as many.
size_t report_run_smoothing(size_t updates);

void report_run_reward(ReportPage *p); // the curve, and each term of a mix
void report_run_norms(ReportPage *p);  // gradient, parameters, dR/dx_0, saturation
void report_run_window(ReportPage *p); // where the window lay, and its gain
void report_run_stages(ReportPage *p); // timeline, occupancy, overlap
void report_run_memory(ReportPage *p);

#endif
