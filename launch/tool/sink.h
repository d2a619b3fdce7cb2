// sink: tensors on their way into one safetensors file.
//
//     Sink s = {0};
//     float *x = sink_add(&s, "out.sample", 5, dims);   // fill it
//     TRY(sink_write(&s, "y.safetensors"));
//     sink_fini(&s);
#ifndef LAUNCH_TOOL_SINK_H
#define LAUNCH_TOOL_SINK_H

#include "common/base/arena.h"
#include "common/format/safetensors.h"

typedef struct Sink {
    Arena arena;
    SafetensorsEntry *entry;
    size_t cnt, room;
} Sink;

// Room for one F32 tensor, zeroed; a name that is there already is replaced. Valid until sink_fini.
float *sink_add(Sink *s, const char *name, int rank, const int64_t *dim);
// The same for a text in the name.
float *sink_addf(Sink *s, int rank, const int64_t *dim, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

Err sink_write(const Sink *s, const char *path);
void sink_fini(Sink *s);

#endif
