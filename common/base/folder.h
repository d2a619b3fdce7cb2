// folder: folders that are there when they are needed.
#ifndef COMMON_BASE_FOLDER_H
#define COMMON_BASE_FOLDER_H

#include "common/base/err.h"

// Makes `path` and its parents, each with mode 0700, as far as they are missing. ERR_IO names the one that cannot be made.
Err folder_make(const char *path);

#endif
