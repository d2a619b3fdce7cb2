// shm: POSIX shared memory that cannot be left behind.
//
// The launcher creates a segment, reserves every page of it (posix_fallocate, so that a full /dev/shm is an
// error now and not a SIGBUS later), unlinks the name at once and hands the descriptor down to the stages by
// inheritance. When the last process that has it ends, it is gone: nothing to sweep after a kill -9.
#ifndef COMMON_TRANSPORT_SHM_H
#define COMMON_TRANSPORT_SHM_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

typedef struct Shm {
    int fd;     // -1 = none
    void *base; // mapped
    uint64_t bytes;
} Shm;

// Zeroed memory. what names it in errors ("sections of the decoder"). ERR_MEMORY says how much /dev/shm has
// and what was asked (and that Docker gives 64 MiB unless told --shm-size). The descriptor is not close-on-exec.
Err shm_create(Shm *s, const char *what, uint64_t bytes);
// Maps all of an inherited descriptor, to read and, if this process writes there, to write; ERR_PEER if that is less
// than least_bytes.
Err shm_join(Shm *s, const char *what, int fd, uint64_t least_bytes, bool writes);
// Unmaps and closes; a zeroed Shm or one with fd -1 and base NULL is fine.
void shm_leave(Shm *s);

#endif
