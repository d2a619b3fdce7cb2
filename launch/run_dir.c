// run_dir: mkdir, flock, chdir.
#include "launch/run_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/folder.h"

// The descriptor stays open, in us and in every stage, until the last of us ends.
static Err lock(const char *path, int wait_s) {
    int fd = open("lock", O_RDWR | O_CREAT, 0600);
    if (fd < 0) FAIL(ERR_IO, "%s/lock: %s", path, strerror(errno));
    int64_t deadline = clock_ns() + (int64_t)wait_s * 1000000000;
    while (flock(fd, LOCK_EX | LOCK_NB)) {
        if (errno == EINTR) continue;
        if (errno != EWOULDBLOCK) FAIL(ERR_IO, "%s/lock: %s", path, strerror(errno));
        if (clock_ns() >= deadline) FAIL(ERR_USAGE, "%s: another run is active there", path);
        clock_sleep_ns(20000000);
    }
    return ERR_OK;
}

Err run_dir_enter(const char *path, int wait_s) {
    if (chdir(path)) FAIL(ERR_USAGE, "%s: %s", path, strerror(errno));
    return lock(path, wait_s);
}

Err run_dir_write_config(const Config *cfg) {
    Err err = ERR_OK;
    FILE *f = fopen("config.yaml.tmp", "w");
    if (!f) FAIL(ERR_IO, "config.yaml: %s", strerror(errno));
    config_write(cfg, f, false);
    bool bad = fflush(f) || fsync(fileno(f));
    if (fclose(f) || bad) FAIL(ERR_IO, "config.yaml: %s", strerror(errno));
    if (rename("config.yaml.tmp", "config.yaml")) FAIL(ERR_IO, "config.yaml: %s", strerror(errno));
    return err;
}

Err run_dir_make(const char *path, const Config *cfg) {
    TRY(folder_make(path));
    TRY(run_dir_enter(path, 0));
    if (!access("state-0", F_OK) || !access("state-1", F_OK) || !access("metrics.jsonl", F_OK))
        FAIL(ERR_USAGE, "%s holds a run already: `vader resume %s`, or choose another with run=DIR",
             path, path);
    return run_dir_write_config(cfg);
}

Err run_dir_alive(const char *path, bool *alive) {
    char lock_path[PATH_MAX];
    *alive = false;
    if (snprintf(lock_path, sizeof lock_path, "%s/lock", path) >= (int)sizeof lock_path)
        FAIL(ERR_USAGE, "a path of %zu bytes", strlen(path));
    int fd = open(lock_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) FAIL(ERR_USAGE, "%s: %s: no run there", lock_path, strerror(errno));
    *alive = flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    close(fd);
    return ERR_OK;
}
