// fuzz_media: the input is a picture; one that is read has the size it says, and can be resized.
#include <stdlib.h>

#include "common/format/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    MediaClip c = {0}, small = {0};
    if (media_read_image_bytes(&c, "fuzz", bytes, len)) {
        if (c.rgb) abort();
        return 0;
    }
    if (c.frames != 1 || c.width < 1 || c.height < 1 || c.width > MEDIA_SIDE_MAX ||
        c.height > MEDIA_SIDE_MAX)
        abort();
    if (c.width * c.height < 1 << 16) media_resize(&small, &c, 7, 5);
    media_clip_fini(&c);
    media_clip_fini(&small);
    return 0;
}
