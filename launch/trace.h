// trace: `vader trace RUN`: RUN/trace.json for ui.perfetto.dev or chrome://tracing, and who bounds the run.
//
// One track per process; every step is a slice named "decode.1" with its sample and update; arrows follow a
// sample from stage to stage. The summary on standard output says which stage is busiest, which bounds the run however
// much is overlapped, and how many processes work at once: sum of busy time / time passed.
//
// Works on RUN/spans.bin (recorder.h) while the run goes on and afterwards. Chrome's JSON (public description: "Trace
// Event Format") and no protobuf: slices of a process never overlap, so that nothing is lost.
#ifndef LAUNCH_TRACE_H
#define LAUNCH_TRACE_H

#include <stddef.h>
#include <stdio.h>

#include "common/proc/recorder.h"

Err trace_main(int argc, char **argv);

// Both sort span. path: the file to make.
Err trace_write(const char *path, RecorderSpan *span, size_t cnt);
void trace_summarise(RecorderSpan *span, size_t cnt, FILE *out);

#endif
