// plan: `vader plan CONF [key=value ...] [--dry] [--tables]`: does it fit, how long will it take, what bounds it?
//
// Prints the memory of every stage by kind. Then two rollouts are run (calibrate.h), and from the time of each step
// follows how long an update takes, which stage bounds it and what one more process of each stage would buy
// (forecast.h). --dry leaves that out; --tables adds the memory table of every compiled plan and the schedule. Works in
// a temporary folder. Exit status 2 when the group does not fit.
#ifndef LAUNCH_PLAN_H
#define LAUNCH_PLAN_H

#include "common/base/err.h"

Err plan_main(int argc, char **argv);

#endif
