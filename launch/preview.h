// preview: finished previews become files, without making the training wait.
//
// The frames of a preview are written raw to RUN/previews/ and its slot is free again; a vader-tool child
// then makes step-000010-0.mp4 and .png (a sheet) of them, the base model's video of the same noise on the left. The
// base model's frames are kept (base-0.raw), since they are made once.
#ifndef LAUNCH_PREVIEW_H
#define LAUNCH_PREVIEW_H

#include "common/proc/run.h"

typedef struct Preview Preview;

// Works in the run directory. Keeps cfg and run.
Preview *preview_new(const Config *cfg, Run *run);

// Takes the frames of a finished preview. The slot may be released when it returns.
Err preview_take(Preview *p, uint32_t slot);

// Reaps encoders that have ended; one that failed is a warning in the log.
void preview_poll(Preview *p);

// Waits for all encoders. Frees p; NULL is fine.
void preview_free(Preview *p);

#endif
