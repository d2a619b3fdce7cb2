// media: pictures and videos in, PNG pictures and MP4 videos out; the only file that knows libav.
//
// A clip is frames of 8-bit RGB; a picture is a clip of one frame.
//
//     float *pixels = ...;                                          // (H, W, 3)
//     TRY(media_read_pixels("dog.jpg", 1024, 576, pixels));         // a conditioning image
//
//     MediaClip clip = {0}, sheet = {0};
//     media_clip_from_raw(&clip, frames, 14, 576, 1024);            // as the VAE decodes them
//     TRY_OUT(media_write_mp4("out.mp4", &clip, 7));
//   out:
//     media_clip_fini(&clip);
//
// Reading. PNG, JPEG, WebP, BMP, TIFF, GIF (first picture) and PNM, as far as libavcodec has the decoder, told
// apart by their first bytes; playlists and the like, which may name other files, are never opened. Alpha is
// dropped, 16 bits become 8, a turned JPEG (EXIF) is set upright. Refused with ERR_FORMAT: what is not such a
// picture, is cut short or damaged, or is larger than MEDIA_SIDE_MAX a side or MEDIA_PIXELS_MAX. PNG and BMP
// decode to the same bytes everywhere; JPEG and WebP differ from Pillow's by a few levels, because the colour
// conversions do.
//
// Videos: MP4 and MOV with H.264, HEVC or MPEG-4 (part 2), from the first frame on, set upright; sound is passed over.
// The container is read from memory and opens nothing else. The same bounds hold for each frame, and
// MEDIA_CLIP_BYTES_MAX for all of them.
//
// Resizing is Pillow's Image.resize(LANCZOS), which the pipelines of diffusers use: a = 3, antialiased,
// horizontal before vertical, weights in 22-bit fixed point, both passes rounded to 8 bits (public source:
// Pillow up to 12, src/libImaging/Resample.c; 13 goes vertically first where that is less work, which
// moves some values by one level).
//
// Writing is atomic (atomic_file.h) and gives the same bytes for the same pixels and libav: one thread, no dates.
#ifndef COMMON_FORMAT_MEDIA_H
#define COMMON_FORMAT_MEDIA_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

enum {
    MEDIA_SIDE_MAX = 16384,
    MEDIA_PIXELS_MAX = 64 << 20,
    MEDIA_FILE_BYTES_MAX = 256 << 20,
};
#define MEDIA_CLIP_BYTES_MAX (4ll << 30)

typedef struct MediaClip {
    int frames, height, width;
    uint8_t *rgb; // (T, H, W, 3), malloc'd
} MediaClip;

void media_clip_fini(MediaClip *c); // a zeroed one is fine

// ---- In ----

// One picture. *out is the caller's to finish. ERR_IO: no such file.
Err media_read_image(MediaClip *out, const char *path);
// The same from memory, which is not kept; label is what messages call it.
Err media_read_image_bytes(MediaClip *out, const char *label, const void *bytes, size_t len);

// A video's first frames, at most frames_max (>= 1). *out is the caller's to finish. ERR_IO: no such file.
Err media_read_video(MediaClip *out, const char *path, int frames_max);
// The same from memory, borrowed for the call.
Err media_read_video_bytes(MediaClip *out, const char *label, const void *bytes, size_t len,
                           int frames_max);

// Every frame to width x height; the size it has already: a copy.
void media_resize(MediaClip *out, const MediaClip *in, int width, int height);

// Reads, resizes, and divides by 255: out (height, width, 3) in [0, 1].
Err media_read_pixels(const char *path, int width, int height, float *out);

// ---- Between ----

// raw (T, H, W, 3) in [-1, 1], as the VAE decodes: round(255 clamp(x / 2 + 1/2, 0, 1)); NaN becomes 0.
void media_clip_from_raw(MediaClip *out, const float *raw, int frames, int height, int width);
// The same for values in [0, 1].
void media_clip_from_unit(MediaClip *out, const float *unit, int frames, int height, int width);

// All frames on one picture, row by row, with a line of 2 black pixels between them. columns 0: about square.
void media_sheet(MediaClip *out, const MediaClip *in, int columns);
// left and right as one clip, frame by frame; the shorter one's last frame stays. ERR_SHAPE unless heights agree.
Err media_beside(MediaClip *out, const MediaClip *left, const MediaClip *right);

// ---- Out ----

// The first frame.
Err media_write_png(const char *path, const MediaClip *c);

// H.264 (libx264, else libopenh264) or else MPEG-4 part 2, yuv420p, BT.709, index in front. An odd side is padded
// by its last row or column. ERR_DEVICE: this libav has none of these encoders.
Err media_write_mp4(const char *path, const MediaClip *c, int fps);

#endif
