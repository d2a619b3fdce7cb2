// fuzz_video: the input is a video; of one that is read the first frames are there, as large as it says.
#include <stdlib.h>

#include "common/format/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    enum { FRAMES = 3 };
    MediaClip c = {0};
    if (media_read_video_bytes(&c, "fuzz", bytes, len, FRAMES)) {
        if (c.rgb) abort();
        return 0;
    }
    if (c.frames < 1 || c.frames > FRAMES || c.width < 1 || c.height < 1 ||
        c.width > MEDIA_SIDE_MAX || c.height > MEDIA_SIDE_MAX)
        abort();
    unsigned sum = 0;
    for (size_t i = 0; i < (size_t)c.frames * (size_t)c.width * (size_t)c.height * 3; i++)
        sum += c.rgb[i];
    media_clip_fini(&c);
    return sum == 1; // so that every byte is read
}
