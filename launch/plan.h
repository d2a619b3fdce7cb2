// plan: `vader plan CONF [key=value ...]`: does it fit, and where does the work lie?
#ifndef LAUNCH_PLAN_H
#define LAUNCH_PLAN_H

#include "common/base/err.h"

// Prints the memory of every stage and of the group, operation counts per step, and the stage that bounds an
// update. Starts no run; works in a temporary folder. Exit status 2 when the group does not fit.
Err plan_main(int argc, char **argv);

#endif
