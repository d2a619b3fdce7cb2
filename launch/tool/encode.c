// encode: raw frames to an MP4 and a PNG sheet; what the launcher starts for every preview. And the way back for a
// report: the first picture of a sheet.
//
//     vader-tool encode --frames F --width W --height H --fps N --out NAME [--base RAW] RAW
//     vader-tool poster --width W --height H --out PNG SHEET
//
// RAW: F x H x W x 3 F32 values in [-1, 1]. Writes NAME.mp4 and NAME.png; with --base both side by side, base left.
// A poster is the left upper W x H pixels of SHEET, not wider than POSTER_WIDTH.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/format/media.h"
#include "launch/tool/args.h"
#include "launch/tool/tool.h"

enum { POSTER_WIDTH = 640 };

static Err read_raw(MediaClip *out, const char *path, int frames, int height, int width) {
    size_t cnt = (size_t)frames * (size_t)height * (size_t)width * 3;
    float *raw = malloc(cnt * sizeof *raw);
    die_unless(raw, "encode: out of memory for %zu values", cnt);
    Err err = ERR_OK;
    FILE *f = fopen(path, "rb");
    if (!f) FAIL_OUT(ERR_IO, "%s: %s", path, strerror(errno));
    if (fread(raw, sizeof *raw, cnt, f) != cnt || fgetc(f) != EOF)
        FAIL_OUT(ERR_FORMAT, "%s: not %d frames of %d x %d", path, frames, width, height);
    media_clip_from_raw(out, raw, frames, height, width);
out:
    if (f) fclose(f);
    free(raw);
    return err;
}

Err encode_clip(const MediaClip *clip, const char *name, int fps) {
    char path[4096];
    MediaClip sheet = {0};
    snprintf(path, sizeof path, "%s.mp4", name);
    TRY(media_write_mp4(path, clip, fps));
    media_sheet(&sheet, clip, clip->frames);
    snprintf(path, sizeof path, "%s.png", name);
    Err err = media_write_png(path, &sheet);
    media_clip_fini(&sheet);
    return err;
}

Err tool_encode(int argc, char **argv) {
    int64_t frames = 0, width = 0, height = 0, fps = 7;
    const char *out_name = NULL, *base = NULL, *raw;
    int cnt;
    const Arg table[] = {{"frames", ARG_INT, &frames, "F", "frames"},
                         {"width", ARG_INT, &width, "W", "pixels"},
                         {"height", ARG_INT, &height, "H", "pixels"},
                         {"fps", ARG_INT, &fps, "N", "frames per second"},
                         {"out", ARG_STR, &out_name, "NAME", "result"},
                         {"base", ARG_STR, &base, "RAW", "frames of the base model"},
                         {0}};
    TRY(args_parse(table, argc, argv, &raw, 1, &cnt));
    if (cnt != 1 || !out_name || !frames || !width || !height ||
        width * height > MEDIA_PIXELS_MAX || frames > 65536)
        FAIL(ERR_USAGE, "encode is started by vader, not by hand");
    MediaClip tuned = {0}, left = {0}, both = {0};
    Err err = read_raw(&tuned, raw, (int)frames, (int)height, (int)width);
    if (!err && base) err = read_raw(&left, base, (int)frames, (int)height, (int)width);
    if (!err && base) err = media_beside(&both, &left, &tuned);
    if (!err) err = encode_clip(base ? &both : &tuned, out_name, (int)fps);
    media_clip_fini(&tuned);
    media_clip_fini(&left);
    media_clip_fini(&both);
    return err;
}

Err tool_poster(int argc, char **argv) {
    int64_t width = 0, height = 0;
    const char *out_name = NULL, *sheet_name;
    int cnt;
    const Arg table[] = {{"width", ARG_INT, &width, "W", "pixels"},
                         {"height", ARG_INT, &height, "H", "pixels"},
                         {"out", ARG_STR, &out_name, "PNG", "result"},
                         {0}};
    TRY(args_parse(table, argc, argv, &sheet_name, 1, &cnt));
    if (cnt != 1 || !out_name || width < 1 || height < 1)
        FAIL(ERR_USAGE, "poster is started by vader, not by hand");
    MediaClip sheet = {0}, first = {0}, small = {0};
    TRY(media_read_image(&sheet, sheet_name));
    first.frames = 1;
    first.width = width < sheet.width ? (int)width : sheet.width;
    first.height = height < sheet.height ? (int)height : sheet.height;
    size_t row = (size_t)first.width * 3;
    first.rgb = malloc(row * (size_t)first.height);
    die_unless(first.rgb, "poster: out of memory");
    for (int y = 0; y < first.height; y++)
        memcpy(first.rgb + (size_t)y * row, sheet.rgb + (size_t)y * (size_t)sheet.width * 3, row);
    int w = first.width < POSTER_WIDTH ? first.width : POSTER_WIDTH;
    int h = (int)((int64_t)first.height * w / first.width);
    media_resize(&small, &first, w, h ? h : 1);
    Err err = media_write_png(out_name, &small);
    media_clip_fini(&sheet);
    media_clip_fini(&first);
    media_clip_fini(&small);
    return err;
}
