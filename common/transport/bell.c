// bell: eventfd.
#include "common/transport/bell.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

Err bell_create(int *fd) {
    *fd = eventfd(0, EFD_NONBLOCK);
    if (*fd < 0) FAIL(ERR_IO, "eventfd: %s", strerror(errno));
    return ERR_OK;
}

void bell_ring(int fd) {
    const uint64_t one = 1;
    ssize_t rung =
        write(fd, &one, sizeof one); // fails only when rung 2^64 - 2 times: it is loud enough
    (void)rung;
}

bool bell_answer(int fd) {
    uint64_t cnt;
    return read(fd, &cnt, sizeof cnt) == sizeof cnt;
}
