// sink: a growing list of entries.
#include "launch/tool/sink.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static SafetensorsEntry *slot(Sink *s, const char *name) {
    for (size_t i = 0; i < s->cnt; i++)
        if (!strcmp(s->entry[i].name, name)) return &s->entry[i];
    if (s->cnt == s->room) {
        s->room = s->room ? 2 * s->room : 64;
        s->entry = realloc(s->entry, s->room * sizeof *s->entry);
        die_unless(s->entry, "sink: out of memory");
    }
    return &s->entry[s->cnt++];
}

float *sink_add(Sink *s, const char *name, int rank, const int64_t *dim) {
    SafetensorsEntry e = {.name = arena_strdup(&s->arena, name), .dtype = DTYPE_F32, .rank = rank};
    int64_t cnt = 1;
    for (int i = 0; i < SAFETENSORS_DIMS_MAX; i++)
        e.dim[i] = i < rank ? dim[i] : 1, cnt *= e.dim[i];
    e.bytes = (size_t)cnt * sizeof(float);
    float *data = arena_alloc(&s->arena, e.bytes);
    e.data = data;
    *slot(s, name) = e;
    return data;
}

float *sink_addf(Sink *s, int rank, const int64_t *dim, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *name = arena_vprintf(&s->arena, fmt, ap);
    va_end(ap);
    return sink_add(s, name, rank, dim);
}

Err sink_write(const Sink *s, const char *path) {
    return safetensors_write(path, s->entry, s->cnt, NULL, 0);
}

void sink_fini(Sink *s) {
    free(s->entry);
    arena_free(&s->arena);
    *s = (Sink){0};
}
