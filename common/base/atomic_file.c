// atomic_file: temporary file, fsync, rename, fsync of the folder.
#include "common/base/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Err sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *dir = slash == path ? strdup("/")
                : slash       ? strndup(path, (size_t)(slash - path))
                              : strdup(".");
    die_unless(dir, "atomic_file: out of memory");
    Err err = ERR_OK;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) FAIL_OUT(ERR_IO, "%s: %s", dir, strerror(errno));
    if (fsync(fd)) FAIL_OUT(ERR_IO, "%s: fsync: %s", dir, strerror(errno));
out:
    if (fd >= 0) close(fd);
    free(dir);
    return err;
}

Err atomic_file_open(AtomicFile *f, const char *path) {
    *f = (AtomicFile){.path = strdup(path), .fd = -1};
    die_unless(f->path && asprintf(&f->tmp, "%s.tmp-%d", path, (int)getpid()) > 0,
               "atomic_file: out of memory");
    f->fd = open(f->tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (f->fd >= 0) return ERR_OK;
    Err err = err_fail(ERR_IO, __FILE__, __LINE__, __func__, "%s: %s", f->tmp, strerror(errno));
    atomic_file_abandon(f);
    return err;
}

Err atomic_file_write(AtomicFile *f, const void *bytes, size_t len) {
    for (const char *p = bytes; len;) {
        ssize_t n = write(f->fd, p, len < 1 << 30 ? len : 1 << 30);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) FAIL(ERR_IO, "%s: write: %s", f->tmp, strerror(n ? errno : ENOSPC));
        p += n;
        len -= (size_t)n;
    }
    return ERR_OK;
}

Err atomic_file_commit(AtomicFile *f, AtomicFileCommit how) {
    if (how == ATOMIC_FILE_DURABLE && fsync(f->fd))
        FAIL(ERR_IO, "%s: fsync: %s", f->tmp, strerror(errno));
    if (rename(f->tmp, f->path)) FAIL(ERR_IO, "%s: rename: %s", f->path, strerror(errno));
    free(f->tmp);
    f->tmp = NULL;
    return how == ATOMIC_FILE_DURABLE ? sync_folder(f->path) : ERR_OK;
}

void atomic_file_abandon(AtomicFile *f) {
    if (f->tmp) unlink(f->tmp);
    if (f->path && f->fd >= 0) close(f->fd); // a zeroed one has no path
    free(f->tmp);
    free(f->path);
    *f = (AtomicFile){.fd = -1};
}

Err atomic_file_put(const char *path, const void *bytes, size_t len, AtomicFileCommit how) {
    Err err = ERR_OK;
    AtomicFile f = {0};
    TRY_OUT(atomic_file_open(&f, path));
    TRY_OUT(atomic_file_write(&f, bytes, len));
    TRY_OUT(atomic_file_commit(&f, how));
out:
    atomic_file_abandon(&f);
    return err;
}
