// folder: mkdir, from the root down.
#include "common/base/folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

Err folder_make(const char *path) {
    char *copy = strdup(path);
    die_unless(copy, "folder: out of memory");
    Err err = ERR_OK;
    for (char *p = copy + 1; !err; p++) {
        if (*p && *p != '/') continue;
        char c = *p;
        *p = 0;
        if (mkdir(copy, 0700) && errno != EEXIST)
            err = err_fail(ERR_IO, __FILE__, __LINE__, __func__, "%s: %s", copy, strerror(errno));
        *p = c;
        if (!c) break;
    }
    free(copy);
    return err;
}
