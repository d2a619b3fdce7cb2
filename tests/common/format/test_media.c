// test_media: pictures of all kinds against what Pillow made of them, damaged ones, and what we write.
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/format/media.h"
#include "tests/test.h"

#define DATA "tests/common/format/data/media/"

static const char *tmp(const char *name) {
    static char path[2][512];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
             name);
    return path[turn];
}

static int distance(const MediaClip *a, const MediaClip *b) {
    if (a->frames != b->frames || a->width != b->width || a->height != b->height) return 256;
    int worst = 0;
    for (int i = 0; i < a->frames * a->width * a->height * 3; i++) {
        int d = abs(a->rgb[i] - b->rgb[i]);
        if (d > worst) worst = d;
    }
    return worst;
}

static void check_alike(const char *path, const char *want_path, int tolerance) {
    MediaClip got = {0}, want = {0};
    CHECK_OK(media_read_image(&got, path));
    CHECK_OK(media_read_image(&want, want_path));
    int d = distance(&got, &want);
    CHECK_MSG(d <= tolerance, "%s (%d x %d) is %d levels from %s (%d x %d), want at most %d", path,
              got.width, got.height, d, want_path, want.width, want.height, tolerance);
    media_clip_fini(&got);
    media_clip_fini(&want);
}

// What make_media.py draws.
static void expect_pixel(const MediaClip *c, int x, int y) {
    int dot = (x * 7 + y * 13) % 31 == 0;
    const uint8_t want[3] = {dot ? 255 : (uint8_t)(6 * x), dot ? 255 : (uint8_t)(8 * y),
                             dot || (x / 8 + y / 8) % 2 ? 255 : 0};
    CHECK_MSG(!memcmp(c->rgb + 3 * (y * c->width + x), want, 3), "pixel (%d, %d) differs", x, y);
}

TEST(png_is_read_exactly) {
    MediaClip c = {0};
    CHECK_OK(media_read_image(&c, DATA "picture.png"));
    CHECK_EQ(c.width, 41);
    CHECK_EQ(c.height, 29);
    CHECK_EQ(c.frames, 1);
    for (int y = 0; y < c.height; y++)
        for (int x = 0; x < c.width && !test_failed(); x++) expect_pixel(&c, x, y);
    media_clip_fini(&c);
}

TEST(lossless_kinds_are_equal) {
    check_alike(DATA "picture.bmp", DATA "picture.png", 0);
    check_alike(DATA "picture.ppm", DATA "picture.png", 0);
    check_alike(DATA "picture.tiff", DATA "picture.png", 0);
    check_alike(DATA "picture.webp", DATA "picture.png", 0);
    check_alike(DATA "rgba.png", DATA "picture.png", 0);
    check_alike(DATA "palette.png", DATA "palette-rgb.png", 0);
    check_alike(DATA "deep.png", DATA "gray.png", 1);
}

TEST(lossy_kinds_are_near) {
    check_alike(DATA "picture.jpg", DATA "picture.png", 60);  // quality 95 at sharp dots
    check_alike(DATA "picture.gif", DATA "picture.png", 110); // 32 colours
}

TEST(turned_pictures_stand_upright) {
    for (int n = 1; n <= 8; n++) {
        char path[128];
        snprintf(path, sizeof path, DATA "turned-%d.jpg", n);
        check_alike(path, DATA "upright.png", 12);
    }
}

TEST(lanczos_is_that_of_pillow) {
    static const char *const want[] = {"small", "wide", "large"};
    MediaClip in = {0};
    CHECK_OK(media_read_image(&in, DATA "picture.png"));
    for (int i = 0; i < 3; i++) {
        MediaClip file = {0}, got = {0};
        char path[128];
        snprintf(path, sizeof path, DATA "%s.png", want[i]);
        CHECK_OK(media_read_image(&file, path));
        media_resize(&got, &in, file.width, file.height);
        CHECK_EQ(distance(&got, &file), 0);
        media_clip_fini(&file);
        media_clip_fini(&got);
    }
    media_clip_fini(&in);
}

TEST(pixels_are_resized_and_divided) {
    float x[12 * 16 * 3];
    MediaClip want = {0};
    CHECK_OK(media_read_pixels(DATA "picture.png", 16, 12, x));
    CHECK_OK(media_read_image(&want, DATA "small.png"));
    for (int i = 0; i < 12 * 16 * 3; i++) CHECK_NEAR(x[i], want.rgb[i] / 255.0, 1e-7);
    media_clip_fini(&want);
}

// ---- Refusals ----

static unsigned char *slurp(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) abort();
    unsigned char *bytes = malloc(1 << 20);
    if (!bytes) abort();
    *len = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}

TEST(missing_and_foreign_files_say_so) {
    MediaClip c = {0};
    CHECK_ERR(media_read_image(&c, "no/such.png"), ERR_IO, "no/such.png");
    CHECK_ERR(media_read_image(&c, "tests"), ERR_FORMAT, "not a file");
    CHECK_ERR(media_read_image(&c, "tests/test.h"), ERR_FORMAT, "not a picture");
    CHECK_ERR(media_read_image_bytes(&c, "empty", "", 0), ERR_FORMAT, "not a picture");
    CHECK(!c.rgb);
}

TEST(every_cut_is_found) {
    static const char *const names[] = {"picture.png", "picture.jpg", "picture.webp",
                                        "picture.bmp"};
    for (int k = 0; k < 4; k++) {
        char path[128];
        size_t len;
        snprintf(path, sizeof path, DATA "%s", names[k]);
        unsigned char *bytes = slurp(path, &len);
        for (size_t n = 0; n + 16 < len; n += 7) {
            MediaClip c = {0};
            unsigned char *copy = malloc(n + 1); // so that the sanitizer sees the end
            CHECK(copy);
            memcpy(copy, bytes, n);
            Err err = media_read_image_bytes(&c, names[k], copy, n);
            CHECK_MSG(err == ERR_FORMAT, "%s cut at %zu of %zu: %s", names[k], n, len,
                      err_name(err));
            CHECK(!c.rgb);
            free(copy);
        }
        free(bytes);
    }
}

TEST(damage_in_a_png_is_found) {
    size_t len;
    unsigned char *bytes = slurp(DATA "picture.png", &len);
    MediaClip c = {0};
    bytes[len / 2] ^= 0x10; // within the compressed data: a wrong checksum
    CHECK_ERR(media_read_image_bytes(&c, "x.png", bytes, len), ERR_FORMAT, "x.png: damaged PNG");
    free(bytes);
}

TEST(huge_pictures_are_refused_before_memory_is_taken) {
    size_t len;
    unsigned char *bytes = slurp(DATA "picture.bmp", &len);
    MediaClip c = {0};
    memcpy(bytes + 18, &(int32_t){20000}, 4);
    CHECK_ERR(media_read_image_bytes(&c, "x.bmp", bytes, len), ERR_FORMAT, "x.bmp");
    free(bytes);
    static const char head[] = "P5\n16385 2\n255\n";
    unsigned char *wide = calloc(1, sizeof head + 2 * 16385);
    CHECK(wide);
    memcpy(wide, head, sizeof head - 1);
    CHECK_ERR(media_read_image_bytes(&c, "x.pgm", wide, sizeof head + 2 * 16385), ERR_FORMAT,
              "16385 x 2 pixels, want at most 16384");
    free(wide);
}

// ---- Writing ----

// A moving square on a gradient, in [-1, 1].
static void draw(float *raw, int frames, int height, int width) {
    for (int t = 0; t < frames; t++)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++, raw += 3) {
                int in = x >= 2 * t && x < 2 * t + 12 && y >= 8 && y < 20;
                raw[0] = (float)(in ? 0.8 : 2.0 * x / width - 1);
                raw[1] = (float)(in ? -0.6 : 2.0 * y / height - 1);
                raw[2] = in ? 0 : -0.2f;
            }
}

static void make_clip(MediaClip *c, int frames, int height, int width) {
    float *raw = malloc((size_t)frames * height * width * 3 * sizeof *raw);
    if (!raw) abort();
    draw(raw, frames, height, width);
    media_clip_from_raw(c, raw, frames, height, width);
    free(raw);
}

TEST(values_become_levels) {
    const float raw[6] = {-1, 1, 0, -7, 7, NAN}, unit[3] = {0, 1, 0.5f};
    MediaClip c = {0};
    media_clip_from_raw(&c, raw, 1, 1, 2);
    CHECK_EQ(c.rgb[0], 0);
    CHECK_EQ(c.rgb[1], 255);
    CHECK_EQ(c.rgb[2], 128); // 127.5, ties to even, as numpy rounds
    CHECK_EQ(c.rgb[3], 0);
    CHECK_EQ(c.rgb[4], 255);
    CHECK_EQ(c.rgb[5], 0);
    media_clip_fini(&c);
    media_clip_from_unit(&c, unit, 1, 1, 1);
    CHECK_EQ(c.rgb[0] + c.rgb[1] + c.rgb[2], 0 + 255 + 128);
    media_clip_fini(&c);
}

TEST(png_round_trip_is_exact) {
    MediaClip c = {0}, back = {0}, sheet = {0}, pair = {0};
    make_clip(&c, 5, 31, 45);
    media_sheet(&sheet, &c, 3);
    CHECK_EQ(sheet.width, 3 * 47 - 2);
    CHECK_EQ(sheet.height, 2 * 33 - 2);
    CHECK_OK(media_write_png(tmp("sheet.png"), &sheet));
    CHECK_OK(media_read_image(&back, tmp("sheet.png")));
    CHECK_EQ(distance(&back, &sheet), 0);
    CHECK_OK(media_beside(&pair, &c, &c));
    CHECK_EQ(pair.width, 90);
    CHECK_EQ(pair.frames, 5);
    CHECK(!memcmp(pair.rgb + 45 * 3, c.rgb, 45 * 3));
    CHECK_ERR(media_beside(&back, &sheet, &c), ERR_SHAPE, "64 and 31 pixels high");
    media_clip_fini(&c);
    media_clip_fini(&back);
    media_clip_fini(&sheet);
    media_clip_fini(&pair);
}

// Reads a video with libav alone: the frames as luma.
static void check_video(const char *path, const MediaClip *want, int fps) {
    AVFormatContext *f = NULL;
    CHECK(avformat_open_input(&f, path, NULL, NULL) >= 0);
    CHECK(avformat_find_stream_info(f, NULL) >= 0);
    CHECK_EQ(f->nb_streams, 1);
    AVStream *s = f->streams[0];
    CHECK_EQ(s->codecpar->width, (want->width + 1) & ~1);
    CHECK_EQ(s->codecpar->height, (want->height + 1) & ~1);
    CHECK_EQ(s->codecpar->format, AV_PIX_FMT_YUV420P);
    CHECK_EQ(s->avg_frame_rate.num / s->avg_frame_rate.den, fps);
    AVCodecContext *c = avcodec_alloc_context3(avcodec_find_decoder(s->codecpar->codec_id));
    CHECK(c && avcodec_parameters_to_context(c, s->codecpar) >= 0);
    c->thread_count = 1;
    CHECK(avcodec_open2(c, NULL, NULL) >= 0);
    AVPacket *p = av_packet_alloc();
    AVFrame *y = av_frame_alloc();
    int got = 0;
    for (bool more = true; more;) {
        more = av_read_frame(f, p) >= 0;
        CHECK(avcodec_send_packet(c, more ? p : NULL) >= 0);
        for (; avcodec_receive_frame(c, y) >= 0; got++) {
            double error = 0;
            for (int i = 0; i < want->width * want->height; i++) {
                const uint8_t *rgb = want->rgb + 3 * (got * want->width * want->height + i);
                double luma =
                    16 + (0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]) * 219 / 255;
                error +=
                    fabs(luma - y->data[0][i / want->width * y->linesize[0] + i % want->width]);
            }
            error /= want->width * want->height;
            CHECK_MSG(error < 4, "frame %d: luma is %.2f levels off on average", got, error);
        }
        av_packet_unref(p);
    }
    CHECK_EQ(got, want->frames);
    av_frame_free(&y);
    av_packet_free(&p);
    avcodec_free_context(&c);
    avformat_close_input(&f);
}

// Mean distance of all values of the frames that both have.
static double mean_distance(const MediaClip *a, const MediaClip *b) {
    int frames = a->frames < b->frames ? a->frames : b->frames,
        cnt = frames * a->width * a->height * 3;
    double sum = 0;
    for (int i = 0; i < cnt; i++) sum += abs(a->rgb[i] - b->rgb[i]);
    return sum / cnt;
}

TEST(mp4_round_trip) {
    MediaClip c = {0}, back = {0};
    make_clip(&c, 14, 64, 96);
    CHECK_OK(media_write_mp4(tmp("a.mp4"), &c, 7));
    check_video(tmp("a.mp4"), &c, 7);
    CHECK_OK(media_read_video(&back, tmp("a.mp4"), 1000));
    CHECK(back.frames == 14 && back.width == 96 && back.height == 64);
    CHECK_MSG(mean_distance(&back, &c) < 4, "%.2f levels off", mean_distance(&back, &c));
    MediaClip first = {0};
    CHECK_OK(media_read_video(&first, tmp("a.mp4"), 5)); // the first five, the same
    CHECK_EQ(first.frames, 5);
    CHECK(!memcmp(first.rgb, back.rgb, 5 * 64 * 96 * 3));
    media_clip_fini(&first);
    media_clip_fini(&back);
    media_clip_fini(&c);
    make_clip(&c, 3, 63, 95); // odd sides
    CHECK_OK(media_write_mp4(tmp("odd.mp4"), &c, 30));
    check_video(tmp("odd.mp4"), &c, 30);
    media_clip_fini(&c);
}

TEST(mp4_has_its_index_in_front_and_the_same_bytes) {
    MediaClip c = {0};
    size_t len, again;
    make_clip(&c, 8, 64, 64);
    CHECK_OK(media_write_mp4(tmp("a.mp4"), &c, 7));
    CHECK_OK(media_write_mp4(tmp("b.mp4"), &c, 7));
    unsigned char *a = slurp(tmp("a.mp4"), &len), *b = slurp(tmp("b.mp4"), &again);
    CHECK_EQ(len, again);
    CHECK(!memcmp(a, b, len));
    const unsigned char *moov = memmem(a, len, "moov", 4), *mdat = memmem(a, len, "mdat", 4);
    CHECK(moov && mdat && moov < mdat);
    free(a);
    free(b);
    media_clip_fini(&c);
}

TEST(what_cannot_be_written_leaves_nothing) {
    MediaClip c = {0}, none = {0};
    make_clip(&c, 1, 16, 16);
    CHECK_ERR(media_write_png("no/such/folder/x.png", &c), ERR_IO, "no/such/folder/x.png");
    CHECK_ERR(media_write_mp4("no/such/folder/x.mp4", &c, 7), ERR_IO, "no/such/folder/x.mp4");
    CHECK_ERR(media_write_mp4(tmp("x.mp4"), &none, 7), ERR_SHAPE, "0 frames");
    CHECK_ERR(media_write_mp4(tmp("x.mp4"), &c, 0), ERR_USAGE, "frames per second");
    CHECK(access(tmp("x.mp4"), F_OK) != 0);
    media_clip_fini(&c);
}

// ---- Videos in ----

// video-turned.mp4 is the other with a display matrix: a quarter turn to the left.
TEST(videos_of_others) {
    MediaClip c = {0}, turned = {0};
    CHECK_OK(media_read_video(&c, DATA "video.mp4", 100)); // H.264 with B frames, and sound
    CHECK(c.frames == 6 && c.width == 48 && c.height == 32);
    for (int t = 0; t < 6; t++) { // a white square of 8 x 8 at (4 + 5 t, 12) on blue
        const uint8_t *p = c.rgb + t * 48 * 32 * 3, *in = p + 3 * (16 * 48 + 8 + 5 * t),
                      *off = p + 3 * (2 * 48 + 40);
        CHECK_MSG(in[0] > 225 && in[1] > 225 && in[2] > 225, "frame %d: %d %d %d, want white", t,
                  in[0], in[1], in[2]);
        CHECK_MSG(off[0] < 30 && off[1] < 30 && off[2] > 225, "frame %d: %d %d %d, want blue", t,
                  off[0], off[1], off[2]);
    }
    CHECK_OK(media_read_video(&turned, DATA "video-turned.mp4", 2));
    CHECK(turned.frames == 2 && turned.width == 32 && turned.height == 48);
    for (int y = 0; y < 48; y++)
        for (int x = 0; x < 32; x++)
            CHECK_MSG(!memcmp(turned.rgb + 3 * (y * 32 + x), c.rgb + 3 * (x * 48 + 47 - y), 3),
                      "(%d, %d)", x, y);
    media_clip_fini(&c);
    media_clip_fini(&turned);
    CHECK_OK(media_read_video(&c, DATA "video-part2.mp4", 100)); // MPEG-4 part 2
    CHECK(c.frames == 6 && c.width == 48 && c.height == 32);
    media_clip_fini(&c);
}

TEST(videos_that_are_refused) {
    MediaClip c = {0};
    size_t len;
    CHECK_ERR(media_read_video(&c, "no/such.mp4", 1), ERR_IO, "no/such.mp4");
    CHECK_ERR(media_read_video(&c, DATA "picture.png", 1), ERR_FORMAT, "not a video");
    CHECK_ERR(media_read_image(&c, DATA "video.mp4"), ERR_FORMAT, "not a picture");
    CHECK_ERR(media_read_video(&c, DATA "video-sound.mp4", 1), ERR_FORMAT,
              "there is no video in it");
    CHECK_ERR(media_read_video(&c, DATA "video-jpeg.mov", 1), ERR_FORMAT, "kind mjpeg, want H.264");
    unsigned char *bytes = slurp(DATA "video-turned.mp4", &len); // no sound: every byte counts
    for (size_t n = 0; n < len; n += 11) {
        unsigned char *copy = malloc(n + 1); // so that the sanitizer sees the end
        CHECK(copy);
        memcpy(copy, bytes, n);
        Err err = media_read_video_bytes(&c, "cut.mp4", copy, n, 100);
        free(copy);
        CHECK_MSG(err == ERR_FORMAT, "cut at %zu of %zu: %s", n, len, err_name(err));
    }
    unsigned char *mdat = memmem(bytes, len, "mdat", 4);
    CHECK(mdat);
    memset(mdat + 4, 0xff, 200); // the first frame
    CHECK_ERR(media_read_video_bytes(&c, "x.mp4", bytes, len, 100), ERR_FORMAT, "x.mp4");
    CHECK(!c.rgb);
    free(bytes);
}
