// train: `vader train CONF [key=value ...]` and `vader resume RUN|BUNDLE [key=value ...]`.
#ifndef LAUNCH_TRAIN_H
#define LAUNCH_TRAIN_H

#include "common/base/err.h"

// argv[0] is the command's name. Options: --inline (all stages as function calls in one process, by vader-tool),
// --fault SPEC (tests), --accept-change (resume with settings, numerics or models that change the bytes).
Err train_main(int argc, char **argv);
Err train_resume_main(int argc, char **argv);

#endif
