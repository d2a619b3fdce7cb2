// Motion of photographs under a moving camera, as files: tests/data/demo/clips. Each is one motion and no other: a pan, a
// tilt or a zoom, and begins with the picture of its name.
#include <dirent.h>

#include "common/format/media.h"
#include "common/measure/motion.h"
#include "common/measure/picture.h"
#include "tests/test.h"

enum { FRAMES = 12 };

static float *unit_of(const MediaClip *c) {
    size_t cnt = (size_t)c->frames * (size_t)c->height * (size_t)c->width * 3;
    float *x = malloc(cnt * sizeof *x);
    if (!x) abort();
    for (size_t i = 0; i < cnt; i++) x[i] = (float)c->rgb[i] / 255.0f;
    return x;
}

static void check_clip(const char *path) {
    MediaClip c = {0};
    CHECK_OK(media_read_video(&c, path, FRAMES));
    CHECK_EQ(c.frames, FRAMES);
    float *rgb = unit_of(&c);
    picture_luma(rgb, (size_t)(FRAMES * c.height * c.width),
                 rgb); // in place: it shrinks from the left
    MotionMeter *m = motion_new(c.height, c.width);
    Motion v = motion_of_video(m, rgb, FRAMES, FRAMES);
    printf("%s: shift %.3f %.3f px, zoom %.3f %%\n", path, v.shift_x, v.shift_y, v.zoom);
    double x = fabs(v.shift_x), y = fabs(v.shift_y), z = fabs(v.zoom);
    bool pans = x > 2 && x < 5.5 && y < 0.1 && z<0.2, tilts = y> 2 && y < 5.5 && x < 0.1 &&
                z<0.2, zooms = z> 1.5 && z < 4.5 && x < 0.1 && y < 0.1;
    CHECK(pans || tilts || zooms);
    motion_free(m);
    media_clip_fini(&c);
    free(rgb);
}

static void check_start(const char *clip, const char *picture) {
    MediaClip c = {0}, p = {0};
    CHECK_OK(media_read_video(&c, clip, 1));
    CHECK_OK(media_read_image(&p, picture));
    CHECK(c.width == p.width && c.height == p.height);
    float *a = unit_of(&c), *b = unit_of(&p);
    double psnr = picture_psnr(a, b, (size_t)(c.width * c.height * 3));
    CHECK_MSG(psnr > 24, "%s: its first frame is %.1f dB from %s", clip, psnr, picture);
    media_clip_fini(&c);
    media_clip_fini(&p);
    free(a);
    free(b);
}

TEST(one_motion_each) {
    static const char dir[] = "tests/data/demo/clips";
    int cnt = 0;
    DIR *d = opendir(dir);
    CHECK(d);
    for (struct dirent *e; (e = readdir(d));) {
        char clip[400], picture[400];
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || strcmp(dot, ".mp4")) continue;
        snprintf(clip, sizeof clip, "%s/%s", dir, e->d_name);
        snprintf(picture, sizeof picture, "tests/data/demo/photos/held-out/%.*s.png",
                 (int)(dot - e->d_name), e->d_name);
        check_clip(clip);
        check_start(clip, picture);
        if (test_failed()) break;
        cnt++;
    }
    closedir(d);
    CHECK(cnt >= 4);
}
