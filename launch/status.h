// status: `vader status RUN [--watch]`: who is doing what, what it waits for, and how far the run is.
//
// Reads RUN/status.json, which the launcher rewrites once a second (recorder.h says why not shared memory), and asks
// the run's lock whether a process of the run is alive. --watch shows it anew every second until none is.
#ifndef LAUNCH_STATUS_H
#define LAUNCH_STATUS_H

#include "common/base/err.h"

Err status_main(int argc, char **argv);

#endif
