// shm: shm_open, reserve, unlink, map.
#include "common/transport/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static Err map(Shm *s, const char *what, bool writes) {
    int prot = writes ? PROT_READ | PROT_WRITE : PROT_READ;
    s->base = mmap(NULL, s->bytes, prot, MAP_SHARED, s->fd, 0);
    if (s->base == MAP_FAILED) {
        s->base = NULL;
        FAIL(ERR_MEMORY, "%s: mapping %llu bytes: %s", what, (unsigned long long)s->bytes,
             strerror(errno));
    }
    return ERR_OK;
}

// posix_fallocate returns the error instead of setting errno.
static Err reserve(const Shm *s, const char *what) {
    int rc;
    do rc = posix_fallocate(s->fd, 0, (off_t)s->bytes);
    while (rc == EINTR);
    if (!rc) return ERR_OK;
    struct statvfs fs = {0};
    statvfs("/dev/shm", &fs);
    FAIL(
        ERR_MEMORY,
        "%s: %llu bytes of shared memory wanted, /dev/shm has %llu free: %s (in Docker: --shm-size)",
        what, (unsigned long long)s->bytes, (unsigned long long)fs.f_bavail * fs.f_frsize,
        strerror(rc));
}

static Err create(Shm *s, const char *what) {
    char name[64];
    for (int i = 0; s->fd < 0; i++) {
        snprintf(name, sizeof name, "/vader-%d-%d", (int)getpid(), i);
        s->fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (s->fd < 0 && (errno != EEXIST || i > 1000))
            FAIL(ERR_IO, "%s: shm_open %s: %s", what, name, strerror(errno));
    }
    shm_unlink(name);
    int flags = fcntl(s->fd, F_GETFD); // shm_open sets close-on-exec; stages inherit the descriptor
    if (flags < 0 || fcntl(s->fd, F_SETFD, flags & ~FD_CLOEXEC) < 0)
        FAIL(ERR_IO, "%s: fcntl: %s", what, strerror(errno));
    TRY(reserve(s, what));
    return map(s, what, true);
}

Err shm_create(Shm *s, const char *what, uint64_t bytes) {
    *s = (Shm){.fd = -1, .bytes = bytes};
    Err err = create(s, what);
    if (err) shm_leave(s);
    return err;
}

static Err join(Shm *s, const char *what, uint64_t least_bytes, bool writes) {
    struct stat st;
    if (fstat(s->fd, &st)) FAIL(ERR_PEER, "%s: descriptor %d: %s", what, s->fd, strerror(errno));
    s->bytes = (uint64_t)st.st_size;
    if (s->bytes < least_bytes)
        FAIL(ERR_PEER, "%s: the segment has %llu bytes, want %llu", what,
             (unsigned long long)s->bytes, (unsigned long long)least_bytes);
    return map(s, what, writes);
}

Err shm_join(Shm *s, const char *what, int fd, uint64_t least_bytes, bool writes) {
    *s = (Shm){.fd = fd};
    Err err = join(s, what, least_bytes, writes);
    if (err) *s = (Shm){.fd = -1};
    return err;
}

void shm_leave(Shm *s) {
    if (s->base) munmap(s->base, s->bytes);
    if (s->fd >= 0) close(s->fd);
    *s = (Shm){.fd = -1};
}
