// report: `vader report RUN`: RUN/report.html, one page that shows what a run did and what came of it.
//
// In the order in which one asks: what was trained, the videos before and after, whether the reward was earned, the
// curves, where the time and memory went, the settings, and how to use the adapter. The page is whole: videos and
// drawings lie in it, it loads nothing and needs no script. It can be made at any time, of a run that goes on, too; what
// is not known yet is said in its place.
#ifndef LAUNCH_REPORT_H
#define LAUNCH_REPORT_H

#include "common/base/err.h"

Err report_main(int argc, char **argv);

#endif
