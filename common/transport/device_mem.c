// device_mem: bounds, the pattern test, staging, and the host's kind.
#include "common/transport/device_mem.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"

enum { STAGING_ALIGN = 64 };

// ---- The host's memory ----

static Err host_create(DeviceMem *m, const char *what, uint64_t bytes) {
    TRY(shm_create(&m->shm, what, bytes));
    m->base = m->shm.base;
    return ERR_OK;
}

static void host_export(const DeviceMem *m, unsigned char opaque[DEVICE_MEM_OPAQUE]) {
    memcpy(opaque, &m->shm.fd, sizeof m->shm.fd);
}

static Err host_open(DeviceMem *m, const char *what, const unsigned char opaque[DEVICE_MEM_OPAQUE],
                     uint64_t bytes) {
    int fd;
    memcpy(&fd, opaque, sizeof fd);
    TRY(shm_join(&m->shm, what, fd, bytes, m->writes));
    m->base = m->shm.base;
    return ERR_OK;
}

static void host_close(DeviceMem *m) { shm_leave(&m->shm); }

const DeviceMemKind device_mem_host = {.id = 1,
                                       .name = "host",
                                       .create = host_create,
                                       .export = host_export,
                                       .open = host_open,
                                       .close = host_close};

// ---- Every kind ----

static DeviceMem none(const DeviceMemKind *kind, uint64_t bytes) {
    return (DeviceMem){.kind = kind, .bytes = bytes, .shm.fd = -1};
}

// Tells blocks of this machine apart: never 0, which is what untouched memory holds.
static uint64_t new_pattern(void) {
    static _Atomic uint64_t made;
    return ((uint64_t)clock_ns() << 20 ^ (uint64_t)getpid() << 8 ^ ++made << 1) | 1;
}

Err device_mem_create(DeviceMem *m, const DeviceMemKind *kind, const char *what, uint64_t bytes) {
    *m = none(kind, bytes);
    m->writes = true;
    m->pattern = new_pattern();
    Err err = kind->create(m, what, bytes + DEVICE_MEM_TAIL);
    if (err) {
        device_mem_close(m);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    memcpy(m->base + bytes, &m->pattern, sizeof m->pattern);
    return ERR_OK;
}

DeviceHandle device_mem_export(const DeviceMem *m, uint32_t epoch) {
    DeviceHandle h = {
        .bytes = m->bytes, .pattern = m->pattern, .epoch = epoch, .kind = m->kind->id};
    m->kind->export(m, h.opaque);
    return h;
}

static Err read_pattern(DeviceMem *m, uint64_t *out) {
    *out = 0;
    if (m->base)
        memcpy(out, m->base + m->bytes, sizeof *out);
    else
        TRY(m->kind->fetch(m, m->bytes, sizeof *out, out));
    return ERR_OK;
}

// A mapping that does not show the pattern is given up for copies, where the kind has them.
static Err open_checked(DeviceMem *m, const char *what, const DeviceHandle *h) {
    uint64_t seen;
    TRY(m->kind->open(m, what, h->opaque, h->bytes + DEVICE_MEM_TAIL));
    TRY(read_pattern(m, &seen));
    if (seen != h->pattern && m->base && m->kind->fetch && !m->writes) {
        m->base = NULL;
        TRY(read_pattern(m, &seen));
    }
    if (seen != h->pattern)
        FAIL(ERR_PEER, "%s: the memory reads %016llx where its owner wrote %016llx", what,
             (unsigned long long)seen, (unsigned long long)h->pattern);
    if (m->base) return ERR_OK;
    if (m->writes) FAIL(ERR_PEER, "%s: their writer cannot map them", what);
    if (!(m->staging = aligned_alloc(STAGING_ALIGN, m->staging_bytes)))
        FAIL(ERR_MEMORY, "%s: %llu bytes for staging copies", what,
             (unsigned long long)m->staging_bytes);
    return ERR_OK;
}

Err device_mem_open(DeviceMem *m, const DeviceMemKind *kind, const char *what,
                    const DeviceHandle *h, uint32_t epoch, bool writes, uint64_t staging_bytes) {
    *m = none(NULL, 0);
    if (h->kind != kind->id)
        FAIL(ERR_PEER, "%s: memory of kind %u, want %s (%u)", what, h->kind, kind->name, kind->id);
    if (h->epoch != epoch)
        FAIL(ERR_PEER, "%s: exported in epoch %u, now is %u", what, h->epoch, epoch);
    *m = none(kind, h->bytes);
    m->pattern = h->pattern;
    m->writes = writes;
    m->staging_bytes = (staging_bytes + STAGING_ALIGN - 1) / STAGING_ALIGN * STAGING_ALIGN;
    Err err = open_checked(m, what, h);
    if (err) {
        device_mem_close(m);
        return err_up(err, __FILE__, __LINE__, __func__);
    }
    return ERR_OK;
}

static void check_bounds(const DeviceMem *m, uint64_t at, uint64_t n) {
    die_unless(at <= m->bytes && n <= m->bytes - at, "bytes %llu + %llu of a block of %llu",
               (unsigned long long)at, (unsigned long long)n, (unsigned long long)m->bytes);
}

void *device_mem_write(const DeviceMem *m, uint64_t at, uint64_t n) {
    die_unless(m->writes, "a block is written by a process that opened it to read");
    check_bounds(m, at, n);
    return m->base + at;
}

Err device_mem_acquire(DeviceMem *m, uint64_t at, uint64_t n, const void **out) {
    check_bounds(m, at, n);
    *out = m->base + at;
    if (m->base) return ERR_OK;
    unsigned char *to = m->staging + m->staged;
    uint64_t room = (n + STAGING_ALIGN - 1) / STAGING_ALIGN * STAGING_ALIGN;
    die_unless(room <= m->staging_bytes - m->staged, "%llu bytes to stage, %llu of %llu are left",
               (unsigned long long)n, (unsigned long long)(m->staging_bytes - m->staged),
               (unsigned long long)m->staging_bytes);
    *out = to;
    TRY(m->kind->fetch(m, at, n, to));
    m->staged += room;
    return ERR_OK;
}

void device_mem_release(DeviceMem *m) { m->staged = 0; }

void device_mem_close(DeviceMem *m) {
    if (m->kind) m->kind->close(m);
    free(m->staging);
    *m = none(NULL, 0);
}
