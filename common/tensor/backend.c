// backend: opening by name, and the packed weights of a device.
#include "common/tensor/backend.h"

#include <stdlib.h>
#include <string.h>

Err backend_open(Backend **out, const char *name, BackendOptions opt) {
    if (!strcmp(name, "cpu")) return backend_open_cpu(out, opt);
    if (!strcmp(name, "ref")) return backend_open_ref(out, opt);
    FAIL(ERR_USAGE, "backend %s is not known, want cpu or ref", name);
}

void backend_close(Backend *be) {
    if (!be) return;
    for (Packed *p = be->packed, *next; p; p = next) {
        next = p->next;
        free(p->data);
        free(p);
    }
    be->close(be);
    free(be);
}

Packed *backend_pack(Backend *be, const Tensor *weight, const char *layout, size_t bytes,
                     void (*fill)(Backend *be, const Tensor *weight, void *dst)) {
    for (Packed *p = be->packed; p; p = p->next)
        if (p->weight == weight->data && !strcmp(p->layout, layout) && p->bytes == bytes) return p;
    Packed *p = calloc(1, sizeof *p);
    die_unless(p, "backend: out of memory");
    *p = (Packed){.weight = weight->data,
                  .layout = layout,
                  .bytes = bytes,
                  .fill = fill,
                  .source = weight,
                  .next = be->packed};
    return be->packed = p;
}

static size_t pack_sum(const Backend *be, bool pending) {
    size_t sum = 0;
    for (const Packed *p = be->packed; p; p = p->next)
        if (!p->data == pending) sum += p->bytes;
    return sum;
}

size_t backend_pack_pending(const Backend *be) { return pack_sum(be, true); }
size_t backend_pack_bytes(const Backend *be) { return pack_sum(be, false); }

Err backend_commit(Backend *be) {
    for (Packed *p = be->packed; p; p = p->next) {
        if (p->data) continue;
        size_t bytes = (p->bytes + 63) & ~(size_t)63;
        p->data = aligned_alloc(64, bytes ? bytes : 64);
        if (!p->data)
            FAIL(ERR_MEMORY, "packing %s needs %zu bytes, which the system refuses",
                 p->source->name, p->bytes);
        p->fill(be, p->source, p->data);
        p->source = NULL;
    }
    return ERR_OK;
}

void backend_forget_pending(Backend *be) {
    for (Packed **at = &be->packed; *at;) {
        Packed *p = *at;
        if (p->data) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        free(p);
    }
}
