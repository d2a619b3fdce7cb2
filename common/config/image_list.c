// image_list: lines of a file, and whether the files are there.
#include "common/config/image_list.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static Err read_list(ConfigStrs *out, Arena *a, const char *group, const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) FAIL(ERR_USAGE, "%s.list %s: %s", group, path, strerror(errno));
    char line[IMAGE_LIST_PATH_MAX + 2];
    const char *slash = strrchr(path, '/');
    Err err = ERR_OK;
    *out = (ConfigStrs){0, arena_array(a, const char *, CONFIG_LIST_MAX)};
    while (fgets(line, sizeof line, f)) {
        size_t n = strcspn(line, "\r\n");
        if (!line[n] && n >= IMAGE_LIST_PATH_MAX)
            FAIL_OUT(ERR_USAGE, "%s: a line is longer than %d bytes", path,
                     IMAGE_LIST_PATH_MAX - 1);
        line[n] = 0;
        if (!n || *line == '#') continue;
        if (out->cnt == CONFIG_LIST_MAX)
            FAIL_OUT(ERR_USAGE, "%s: more than %d images", path, CONFIG_LIST_MAX);
        out->item[out->cnt++] = *line == '/' || !slash
                                    ? arena_strdup(a, line)
                                    : arena_printf(a, "%.*s/%s", (int)(slash - path), path, line);
    }
    if (!out->cnt) FAIL_OUT(ERR_USAGE, "%s: no image paths in it", path);
out:
    fclose(f);
    return err;
}

static Err check(const ConfigStrs *images) {
    for (int i = 0; i < images->cnt; i++) {
        if (strlen(images->item[i]) >= IMAGE_LIST_PATH_MAX)
            FAIL(ERR_USAGE, "image path of %zu bytes, at most %d: %s", strlen(images->item[i]),
                 IMAGE_LIST_PATH_MAX - 1, images->item[i]);
        if (access(images->item[i], R_OK))
            FAIL(ERR_USAGE, "image %s: %s", images->item[i], strerror(errno));
    }
    return ERR_OK;
}

Err image_list_read(ConfigStrs *out, Arena *a, const char *group, const ConfigStrs *images,
                    const char *list) {
    *out = *images;
    if (*list) TRY(read_list(out, a, group, list));
    if (!out->cnt) FAIL(ERR_USAGE, "no images: %s.images or %s.list", group, group);
    return check(out);
}
