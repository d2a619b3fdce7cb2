// image_list: the pictures that a config names, one by one or in a file.
//
//     ConfigStrs images;
//     TRY(image_list_read(&images, &arena, "data", &cfg->data_images, cfg->data_list));
#ifndef COMMON_CONFIG_IMAGE_LIST_H
#define COMMON_CONFIG_IMAGE_LIST_H

#include "common/config/config.h"

enum { IMAGE_LIST_PATH_MAX = 1024 }; // bytes of a path, its end included

// The paths in `images`, or those in the file `list` if that is not "": one a line, relative to its folder; empty lines
// and those with # in front are passed over. group: "data", for messages. Every picture must be there and readable, and
// there must be one: ERR_USAGE.
Err image_list_read(ConfigStrs *out, Arena *a, const char *group, const ConfigStrs *images,
                    const char *list);

#endif
