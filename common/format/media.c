// media: decoding by magic, MP4 in, Pillow's resampling, PNG and MP4 out.
#include "common/format/media.h"

#include <errno.h>
#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/avutil.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/atomic_file.h"

enum { SWS_FLAGS = SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT };

// What libav said last on this thread: its return codes alone say little.
static _Thread_local char said[160];

static void note(void *owner, int level, const char *fmt, va_list ap) {
    (void)owner;
    if (level > AV_LOG_ERROR) return;
    vsnprintf(said, sizeof said, fmt, ap);
    said[strcspn(said, "\n")] = 0;
}

static void listen(void) {
    av_log_set_callback(note);
    *said = 0;
}

static const char *reason(int rc) {
    static _Thread_local char text[320];
    char code[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(rc, code, sizeof code);
    snprintf(text, sizeof text, "%s%s%s", *said ? said : code, *said ? ": " : "",
             *said ? code : "");
    return text;
}

// ---- Clips ----

static size_t frame_bytes(const MediaClip *c) { return (size_t)c->height * (size_t)c->width * 3; }

static void make(MediaClip *c, int frames, int height, int width) {
    *c = (MediaClip){frames, height, width, NULL};
    c->rgb = calloc((size_t)frames, frame_bytes(c));
    die_unless(c->rgb, "media: out of memory for %d x %d x %d pixels", frames, height, width);
}

void media_clip_fini(MediaClip *c) {
    free(c->rgb);
    *c = (MediaClip){0};
}

// ---- Decoding ----

typedef struct Kind {
    const char *name;
    enum AVCodecID codec;
    const char *magic;
    int len;
    const char *at_8; // what follows at byte 8, or NULL
} Kind;

static const Kind kinds[] = {
    {"PNG", AV_CODEC_ID_PNG, "\x89PNG\r\n\x1a\n", 8, NULL},
    {"JPEG", AV_CODEC_ID_MJPEG, "\xff\xd8\xff", 3, NULL},
    {"WebP", AV_CODEC_ID_WEBP, "RIFF", 4, "WEBP"},
    {"GIF", AV_CODEC_ID_GIF, "GIF8", 4, NULL},
    {"TIFF", AV_CODEC_ID_TIFF, "II*\0", 4, NULL},
    {"TIFF", AV_CODEC_ID_TIFF, "MM\0*", 4, NULL},
    {"BMP", AV_CODEC_ID_BMP, "BM", 2, NULL},
    {"PGM", AV_CODEC_ID_PGM, "P5", 2, NULL},
    {"PPM", AV_CODEC_ID_PPM, "P6", 2, NULL},
};

static const Kind *find_kind(const uint8_t *bytes, size_t len) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const Kind *k = &kinds[i];
        if (len < 12 || memcmp(bytes, k->magic, (size_t)k->len)) continue;
        if (!k->at_8 || !memcmp(bytes + 8, k->at_8, 4)) return k;
    }
    return NULL;
}

// `last` comes after the last `mark`.
static bool has_after(const uint8_t *bytes, size_t len, const char *mark, size_t mark_len,
                      const char *last, size_t last_len) {
    for (size_t i = len; i-- > 0;) {
        if (len - i >= last_len && !memcmp(bytes + i, last, last_len)) return true;
        if (len - i >= mark_len && !memcmp(bytes + i, mark, mark_len)) return false;
    }
    return false;
}

// The decoders fill in what is missing at the end; we want to know.
static bool is_cut(const Kind *k, const uint8_t *bytes, size_t len) {
    uint32_t stated;
    switch (k->codec) {
    case AV_CODEC_ID_PNG: return !has_after(bytes, len, "IDAT", 4, "IEND", 4);
    case AV_CODEC_ID_MJPEG: return !has_after(bytes, len, "\xff\xda", 2, "\xff\xd9", 2);
    case AV_CODEC_ID_WEBP: return memcpy(&stated, bytes + 4, 4), (uint64_t)stated + 8 > len;
    case AV_CODEC_ID_BMP: return memcpy(&stated, bytes + 2, 4), stated > len;
    default: return false;
    }
}

typedef struct Limit {
    int width, height; // of a picture that was too large
} Limit;

// Called by the decoder before it allocates the picture.
static int get_buffer(AVCodecContext *c, AVFrame *f, int flags) {
    Limit *l = c->opaque;
    if (f->width > MEDIA_SIDE_MAX || f->height > MEDIA_SIDE_MAX ||
        (int64_t)f->width * f->height > MEDIA_PIXELS_MAX) {
        *l = (Limit){f->width, f->height};
        return AVERROR(EINVAL);
    }
    return avcodec_default_get_buffer2(c, f, flags);
}

// A decoder that tells of damage, takes one thread and no more pixels than are allowed.
static AVCodecContext *careful(const AVCodec *codec, Limit *limit) {
    AVCodecContext *c = avcodec_alloc_context3(codec);
    die_unless(c, "media: out of memory");
    c->thread_count = 1;
    c->opaque = limit;
    c->get_buffer2 = get_buffer;
    c->max_pixels = (int64_t)MEDIA_SIDE_MAX * MEDIA_SIDE_MAX;
    c->err_recognition = AV_EF_CRCCHECK | AV_EF_BITSTREAM | AV_EF_BUFFER | AV_EF_EXPLODE;
    return c;
}

// What came of a decoder's last call. what: "PNG picture".
static Err check_decoded(const char *label, const char *what, int rc, const Limit *limit,
                         const AVFrame *frame) {
    if (limit->width)
        FAIL(ERR_FORMAT, "%s: %d x %d pixels, want at most %d a side and %d in all", label,
             limit->width, limit->height, MEDIA_SIDE_MAX, MEDIA_PIXELS_MAX);
    if (rc < 0) FAIL(ERR_FORMAT, "%s: damaged %s: %s", label, what, reason(rc));
    if ((frame->flags & AV_FRAME_FLAG_CORRUPT) || frame->decode_error_flags)
        FAIL(ERR_FORMAT, "%s: damaged %s: %s", label, what, *said ? said : "parts are missing");
    return ERR_OK;
}

static Err decode(AVFrame *frame, const Kind *k, const char *label, const uint8_t *padded,
                  size_t len) {
    Err err = ERR_OK;
    Limit limit = {0};
    char what[32];
    AVPacket *packet = av_packet_alloc();
    AVCodecContext *c = NULL;
    const AVCodec *codec = avcodec_find_decoder(k->codec);
    if (!codec) FAIL_OUT(ERR_DEVICE, "%s: this libav cannot read %s pictures", label, k->name);
    c = careful(codec, &limit);
    die_unless(packet, "media: out of memory");
    int rc = avcodec_open2(c, codec, NULL);
    packet->data = (uint8_t *)(uintptr_t)padded;
    packet->size = (int)len;
    packet->flags = AV_PKT_FLAG_KEY;
    if (rc >= 0) rc = avcodec_send_packet(c, packet);
    if (rc >= 0) rc = avcodec_send_packet(c, NULL);
    if (rc >= 0) rc = avcodec_receive_frame(c, frame);
    snprintf(what, sizeof what, "%s picture", k->name);
    TRY_OUT(check_decoded(label, what, rc, &limit, frame));
out:
    av_packet_free(&packet);
    avcodec_free_context(&c);
    return err;
}

// Full-range YUV has formats of its own in libav, which the converter takes for limited range with a warning.
static enum AVPixelFormat plain_format(const AVFrame *f, int *full) {
    *full = f->color_range == AVCOL_RANGE_JPEG;
    switch (f->format) {
    case AV_PIX_FMT_YUVJ420P: return *full = 1, AV_PIX_FMT_YUV420P;
    case AV_PIX_FMT_YUVJ422P: return *full = 1, AV_PIX_FMT_YUV422P;
    case AV_PIX_FMT_YUVJ444P: return *full = 1, AV_PIX_FMT_YUV444P;
    case AV_PIX_FMT_YUVJ440P: return *full = 1, AV_PIX_FMT_YUV440P;
    case AV_PIX_FMT_YUVJ411P: return *full = 1, AV_PIX_FMT_YUV411P;
    default: return (enum AVPixelFormat)f->format;
    }
}

// Into rows that are aligned and padded, as the converter's vector code wants them.
static Err to_rgb(AVFrame *rgb, const AVFrame *f, const char *label) {
    int full;
    enum AVPixelFormat format = plain_format(f, &full);
    *rgb = (AVFrame){.data = {0}};
    struct SwsContext *sws = sws_getContext(f->width, f->height, format, f->width, f->height,
                                            AV_PIX_FMT_RGB24, SWS_FLAGS, NULL, NULL, NULL);
    if (!sws)
        FAIL(ERR_FORMAT, "%s: pixels of kind %s cannot be read", label,
             av_get_pix_fmt_name(format) ? av_get_pix_fmt_name(format) : "unknown");
    const int *bt601 = sws_getCoefficients(SWS_CS_ITU601), *from = bt601;
    if (f->colorspace == AVCOL_SPC_BT709) from = sws_getCoefficients(SWS_CS_ITU709);
    sws_setColorspaceDetails(sws, from, full, bt601, 1, 0, 1 << 16, 1 << 16);
    int rc =
        av_image_alloc(rgb->data, rgb->linesize, f->width + 32, f->height, AV_PIX_FMT_RGB24, 64);
    if (rc >= 0)
        rc = sws_scale(sws, (const uint8_t *const *)f->data, f->linesize, 0, f->height, rgb->data,
                       rgb->linesize);
    sws_freeContext(sws);
    if (rc < 0) FAIL(ERR_FORMAT, "%s: converting to RGB: %s", label, reason(rc));
    return ERR_OK;
}

// Where the picture's axes point: (x, y) of the file goes to (a x + c y, b x + d y), each of a .. d -1, 0 or 1.
typedef struct Turn {
    int a, b, c, d;
} Turn;

static int sign(int32_t fixed) { return fixed > 1 << 15 ? 1 : fixed < -(1 << 15) ? -1 : 0; }

// From a display matrix, if there is one.
static Turn turn_of(const uint8_t *data, size_t bytes) {
    static const Turn upright = {1, 0, 0, 1};
    int32_t m[9];
    if (!data || bytes < sizeof m) return upright;
    memcpy(m, data, sizeof m);
    Turn t = {sign(m[0]), sign(m[1]), sign(m[3]), sign(m[4])};
    bool straight = t.a && t.d && !t.b && !t.c, across = t.b && t.c && !t.a && !t.d;
    return straight || across ? t : upright;
}

static Turn turn_of_frame(const AVFrame *f) {
    const AVFrameSideData *s = av_frame_get_side_data(f, AV_FRAME_DATA_DISPLAYMATRIX);
    return turn_of(s ? s->data : NULL, s ? s->size : 0);
}

// Onto a frame of a clip, whose size is that of the picture, turned.
static void place_pixels(MediaClip *out, int frame, const AVFrame *rgb, int width, int height,
                         Turn t) {
    uint8_t *to = out->rgb + (size_t)frame * frame_bytes(out);
    int x0 = t.a < 0 || t.c < 0 ? out->width - 1 : 0, y0 = t.b < 0 || t.d < 0 ? out->height - 1 : 0;
    for (int y = 0; y < height; y++) {
        const uint8_t *row = rgb->data[0] + (ptrdiff_t)y * rgb->linesize[0];
        for (int x = 0; x < width; x++) {
            int px = x0 + t.a * x + t.c * y, py = y0 + t.b * x + t.d * y;
            memcpy(to + 3 * ((size_t)py * (size_t)out->width + (size_t)px), row + 3 * x, 3);
        }
    }
}

static Err read_padded(MediaClip *out, const char *label, const uint8_t *padded, size_t len) {
    Err err = ERR_OK;
    AVFrame *frame = NULL, rgb = {0};
    const Kind *k = find_kind(padded, len);
    if (!k)
        FAIL(ERR_FORMAT, "%s: not a picture (want PNG, JPEG, WebP, BMP, TIFF, GIF or PNM)", label);
    if (is_cut(k, padded, len))
        FAIL(ERR_FORMAT, "%s: the %s picture is cut short at %zu bytes", label, k->name, len);
    listen();
    frame = av_frame_alloc();
    die_unless(frame, "media: out of memory");
    TRY_OUT(decode(frame, k, label, padded, len));
    TRY_OUT(to_rgb(&rgb, frame, label));
    Turn t = turn_of_frame(frame);
    make(out, 1, t.a ? frame->height : frame->width, t.a ? frame->width : frame->height);
    place_pixels(out, 0, &rgb, frame->width, frame->height, t);
out:
    av_freep(&rgb.data[0]);
    av_frame_free(&frame);
    return err;
}

// Decoders read a little past the end.
static uint8_t *padded_room(size_t len) {
    uint8_t *p = calloc(1, len + AV_INPUT_BUFFER_PADDING_SIZE);
    die_unless(p, "media: out of memory");
    return p;
}

Err media_read_image_bytes(MediaClip *out, const char *label, const void *bytes, size_t len) {
    if (len > MEDIA_FILE_BYTES_MAX)
        FAIL(ERR_FORMAT, "%s: %zu bytes, want at most %d for a picture", label, len,
             MEDIA_FILE_BYTES_MAX);
    uint8_t *padded = padded_room(len);
    memcpy(padded, bytes, len);
    Err err = read_padded(out, label, padded, len);
    free(padded);
    return err;
}

static Err load(const char *path, const char *what, uint8_t **bytes, size_t *len) {
    struct stat st;
    Err err = ERR_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO must not block
    if (fd < 0) FAIL(ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st)) FAIL_OUT(ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) FAIL_OUT(ERR_FORMAT, "%s: not a file", path);
    if (st.st_size > MEDIA_FILE_BYTES_MAX)
        FAIL_OUT(ERR_FORMAT, "%s: %lld bytes, want at most %d for a %s", path,
                 (long long)st.st_size, MEDIA_FILE_BYTES_MAX, what);
    *bytes = padded_room((size_t)st.st_size);
    for (ssize_t n; *len < (size_t)st.st_size; *len += (size_t)n) {
        n = read(fd, *bytes + *len, (size_t)st.st_size - *len);
        if (n < 0) FAIL_OUT(ERR_IO, "%s: %s", path, strerror(errno));
        if (n == 0) break;
    }
out:
    close(fd);
    return err;
}

Err media_read_image(MediaClip *out, const char *path) {
    uint8_t *bytes = NULL;
    size_t len = 0;
    Err err = load(path, "picture", &bytes, &len);
    if (!err) err = read_padded(out, path, bytes, len);
    free(bytes);
    return err;
}

// ---- Videos in ----

// A video on its way from the bytes of a file to frames.
typedef struct Reel {
    const char *label;
    const uint8_t *bytes;
    size_t len, at;
    AVFormatContext *demux;
    AVCodecContext *dec;
    AVPacket *packet;
    AVFrame *frame, rgb;
    int stream;
    Turn turn;
    Limit limit;
    MediaClip clip; // frames so far; room for `room`
    int room, frames_max;
} Reel;

static int reel_read(void *owner, uint8_t *to, int cnt) {
    Reel *r = owner;
    size_t left = r->len - r->at, n = left < (size_t)cnt ? left : (size_t)cnt;
    if (!n) return AVERROR_EOF;
    memcpy(to, r->bytes + r->at, n);
    r->at += n;
    return (int)n;
}

static int64_t reel_seek(void *owner, int64_t offset, int whence) {
    Reel *r = owner;
    if (whence & AVSEEK_SIZE) return (int64_t)r->len;
    whence &= ~AVSEEK_FORCE;
    if (whence == SEEK_CUR) offset += (int64_t)r->at;
    if (whence == SEEK_END) offset += (int64_t)r->len;
    if (offset < 0 || offset > (int64_t)r->len) return AVERROR(EINVAL);
    r->at = (size_t)offset;
    return offset;
}

// A file that names other files gets none of them.
static int open_nothing(AVFormatContext *c, AVIOContext **pb, const char *url, int flags,
                        AVDictionary **options) {
    return AVERROR(EPERM);
}

static Err open_demux(Reel *r) {
    enum { BUFFER = 1 << 15 };
    uint8_t *buffer = av_malloc(BUFFER);
    r->demux = avformat_alloc_context();
    die_unless(buffer && r->demux, "media: out of memory");
    AVIOContext *io = avio_alloc_context(buffer, BUFFER, 0, r, reel_read, NULL, reel_seek);
    die_unless(io, "media: out of memory");
    r->demux->pb = io;
    r->demux->flags |= AVFMT_FLAG_CUSTOM_IO;
    r->demux->io_open = open_nothing;
    int rc = avformat_open_input(&r->demux, NULL, av_find_input_format("mov"), NULL);
    if (rc >= 0) return ERR_OK; // a failure frees demux, but not its io
    av_freep(&io->buffer);
    avio_context_free(&io);
    FAIL(ERR_FORMAT, "%s: damaged MP4 video: %s", r->label, reason(rc));
}

static Turn turn_of_stream(const AVStream *s) {
#if LIBAVCODEC_VERSION_MAJOR >= 61
    const AVPacketSideData *d = av_packet_side_data_get(
        s->codecpar->coded_side_data, s->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    return turn_of(d ? d->data : NULL, d ? d->size : 0);
#else
    size_t bytes = 0;
    const uint8_t *data = av_stream_get_side_data(s, AV_PKT_DATA_DISPLAYMATRIX, &bytes);
    return turn_of(data, bytes);
#endif
}

static Err open_stream(Reel *r) {
    static const enum AVCodecID known[] = {AV_CODEC_ID_H264, AV_CODEC_ID_HEVC, AV_CODEC_ID_MPEG4};
    r->stream = -1;
    for (int i = 0; i < (int)r->demux->nb_streams; i++) {
        AVStream *s = r->demux->streams[i];
        bool video = s->codecpar->codec_type == AVMEDIA_TYPE_VIDEO &&
                     !(s->disposition & AV_DISPOSITION_ATTACHED_PIC);
        if (video && r->stream < 0) r->stream = i;
        if (i != r->stream) s->discard = AVDISCARD_ALL;
    }
    if (r->stream < 0) FAIL(ERR_FORMAT, "%s: there is no video in it", r->label);
    const AVStream *s = r->demux->streams[r->stream];
    enum AVCodecID id = s->codecpar->codec_id;
    bool reads = id == known[0] || id == known[1] || id == known[2];
    const AVCodec *codec = reads ? avcodec_find_decoder(id) : NULL;
    if (!codec)
        FAIL(ERR_FORMAT, "%s: video of kind %s, want H.264, HEVC or MPEG-4", r->label,
             avcodec_get_name(id));
    r->turn = turn_of_stream(s);
    r->dec = careful(codec, &r->limit);
    int rc = avcodec_parameters_to_context(r->dec, s->codecpar);
    if (rc >= 0) rc = avcodec_open2(r->dec, codec, NULL);
    if (rc < 0) FAIL(ERR_FORMAT, "%s: damaged MP4 video: %s", r->label, reason(rc));
    return ERR_OK;
}

// The index in front names bytes that must be there; the demultiplexer would end at the first that is not.
static Err check_whole(const Reel *r) {
    AVStream *s = r->demux->streams[r->stream];
    for (int i = 0, cnt = avformat_index_get_entries_count(s); i < cnt; i++) {
        const AVIndexEntry *e = avformat_index_get_entry(s, i);
        if (e->pos < 0 || e->size < 0 || (uint64_t)e->pos + (uint64_t)e->size > r->len)
            FAIL(ERR_FORMAT, "%s: the video is cut short at %zu bytes, in frame %d of %d", r->label,
                 r->len, i, cnt);
    }
    return ERR_OK;
}

// Room for one more frame of the size that the clip has.
static Err grow(Reel *r) {
    MediaClip *c = &r->clip;
    if (c->frames < r->room) return ERR_OK;
    int room = r->room ? 2 * r->room : 16;
    if (room > r->frames_max) room = r->frames_max;
    if ((uint64_t)room * frame_bytes(c) > MEDIA_CLIP_BYTES_MAX)
        FAIL(ERR_FORMAT, "%s: %d frames of %d x %d, want at most %lld bytes of pixels", r->label,
             room, c->width, c->height, (long long)MEDIA_CLIP_BYTES_MAX);
    uint8_t *rgb = realloc(c->rgb, (size_t)room * frame_bytes(c));
    die_unless(rgb, "media: out of memory for %d frames of %d x %d", room, c->width, c->height);
    c->rgb = rgb;
    r->room = room;
    return ERR_OK;
}

static Err take_frame(Reel *r) {
    MediaClip *c = &r->clip;
    int across = r->frame->width, down = r->frame->height;
    int width = r->turn.a ? across : down, height = r->turn.a ? down : across;
    TRY(check_decoded(r->label, "MP4 video", 0, &r->limit, r->frame));
    if (!c->frames) c->width = width, c->height = height;
    if (c->width != width || c->height != height)
        FAIL(ERR_FORMAT, "%s: frame %d is %d x %d, those before it %d x %d", r->label, c->frames,
             width, height, c->width, c->height);
    TRY(grow(r));
    av_freep(&r->rgb.data[0]);
    TRY(to_rgb(&r->rgb, r->frame, r->label));
    place_pixels(c, c->frames++, &r->rgb, across, down, r->turn);
    return ERR_OK;
}

// Frames that the decoder has ready.
static Err drain(Reel *r) {
    while (r->clip.frames < r->frames_max) {
        int rc = avcodec_receive_frame(r->dec, r->frame);
        if (rc == AVERROR(EAGAIN) || rc == AVERROR_EOF) return ERR_OK;
        if (rc < 0) return check_decoded(r->label, "MP4 video", rc, &r->limit, r->frame);
        TRY(take_frame(r));
    }
    return ERR_OK;
}

static Err read_frames(Reel *r) {
    int rc = 0, packets = 0;
    r->packet = av_packet_alloc();
    r->frame = av_frame_alloc();
    die_unless(r->packet && r->frame, "media: out of memory");
    while (r->clip.frames < r->frames_max && (rc = av_read_frame(r->demux, r->packet)) >= 0) {
        bool ours = r->packet->stream_index == r->stream;
        rc = ours ? avcodec_send_packet(r->dec, r->packet) : 0;
        av_packet_unref(r->packet);
        if (rc < 0) return check_decoded(r->label, "MP4 video", rc, &r->limit, r->frame);
        if (++packets > 4 * r->frames_max + 1024) // frames reordered, other streams
            FAIL(ERR_FORMAT, "%s: %d packets hold %d frames", r->label, packets, r->clip.frames);
        TRY(drain(r));
    }
    if (rc < 0 && rc != AVERROR_EOF)
        FAIL(ERR_FORMAT, "%s: damaged MP4 video: %s", r->label, reason(rc));
    if (r->clip.frames < r->frames_max && avcodec_send_packet(r->dec, NULL) >= 0) TRY(drain(r));
    if (!r->clip.frames) FAIL(ERR_FORMAT, "%s: no frames in it", r->label);
    return ERR_OK;
}

static void reel_fini(Reel *r) {
    if (r->demux) {
        AVIOContext *io = r->demux->pb;
        avformat_close_input(&r->demux);
        av_freep(&io->buffer);
        avio_context_free(&io);
    }
    avcodec_free_context(&r->dec);
    av_packet_free(&r->packet);
    av_frame_free(&r->frame);
    av_freep(&r->rgb.data[0]);
}

Err media_read_video_bytes(MediaClip *out, const char *label, const void *bytes, size_t len,
                           int frames_max) {
    Err err = ERR_OK;
    Reel r = {.label = label, .bytes = bytes, .len = len, .frames_max = frames_max};
    die_unless(frames_max >= 1, "media: %d frames wanted", frames_max);
    if (len < 12 || memcmp(r.bytes + 4, "ftyp", 4))
        FAIL(ERR_FORMAT, "%s: not a video (want MP4 or MOV)", label);
    listen();
    TRY_OUT(open_demux(&r));
    TRY_OUT(open_stream(&r));
    TRY_OUT(check_whole(&r));
    TRY_OUT(read_frames(&r));
out:
    reel_fini(&r);
    if (err)
        media_clip_fini(&r.clip);
    else
        *out = r.clip;
    return err;
}

Err media_read_video(MediaClip *out, const char *path, int frames_max) {
    uint8_t *bytes = NULL;
    size_t len = 0;
    Err err = load(path, "video", &bytes, &len);
    if (!err) err = media_read_video_bytes(out, path, bytes, len, frames_max);
    free(bytes);
    return err;
}

// ---- Pillow's Lanczos ----

enum { WEIGHT_BITS = 32 - 8 - 2 };

// One axis: output i is the sum of weight[i * taps + k] * input[first[i] + k], k < cnt[i].
typedef struct Filter {
    int taps;
    int *first, *cnt;
    int32_t *weight;
} Filter;

static double sinc(double x) { return x == 0 ? 1 : sin(M_PI * x) / (M_PI * x); }
static double lanczos(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

static Filter filter_make(int in, int out) {
    double scale = (double)in / out, stretch = scale < 1 ? 1 : scale, support = 3 * stretch;
    Filter f = {.taps = (int)ceil(support) * 2 + 1};
    f.first = calloc((size_t)out, sizeof *f.first);
    f.cnt = calloc((size_t)out, sizeof *f.cnt);
    f.weight = calloc((size_t)out * (size_t)f.taps, sizeof *f.weight);
    double *w = calloc((size_t)f.taps, sizeof *w);
    die_unless(f.first && f.cnt && f.weight && w, "media: out of memory");
    for (int i = 0; i < out; i++) {
        double center = (i + 0.5) * scale, sum = 0;
        int first = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        if (first < 0) first = 0;
        if (end > in) end = in;
        f.first[i] = first;
        f.cnt[i] = end - first;
        for (int k = 0; k < f.cnt[i]; k++)
            sum += w[k] = lanczos((k + first - center + 0.5) * (1 / stretch));
        for (int k = 0; k < f.cnt[i]; k++) {
            double fixed = (sum != 0 ? w[k] / sum : w[k]) * (1 << WEIGHT_BITS);
            f.weight[(size_t)i * (size_t)f.taps + (size_t)k] =
                (int32_t)(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
        }
    }
    free(w);
    return f;
}

static void filter_fini(Filter *f) {
    free(f->first);
    free(f->cnt);
    free(f->weight);
}

// in: `rows` lines of the filtered axis at distance row_step, its elements at distance step; 3 values each when the axis is x.
static void filter_line(const Filter *f, int out_cnt, const uint8_t *in, uint8_t *out, size_t step,
                        size_t lanes) {
    for (int i = 0; i < out_cnt; i++) {
        const int32_t *w = f->weight + (size_t)i * (size_t)f->taps;
        const uint8_t *from = in + (size_t)f->first[i] * step;
        for (size_t lane = 0; lane < lanes; lane++) {
            int32_t sum = 1 << (WEIGHT_BITS - 1);
            for (int k = 0; k < f->cnt[i]; k++) sum += w[k] * from[(size_t)k * step + lane];
            sum >>= WEIGHT_BITS;
            out[(size_t)i * step + lane] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
        }
    }
}

static void resize_x(MediaClip *out, const MediaClip *in, int width) {
    Filter f = filter_make(in->width, width);
    make(out, in->frames, in->height, width);
    size_t rows = (size_t)in->frames * (size_t)in->height;
    for (size_t y = 0; y < rows; y++)
        filter_line(&f, width, in->rgb + 3 * y * (size_t)in->width,
                    out->rgb + 3 * y * (size_t)width, 3, 3);
    filter_fini(&f);
}

static void resize_y(MediaClip *out, const MediaClip *in, int height) {
    Filter f = filter_make(in->height, height);
    make(out, in->frames, height, in->width);
    size_t row = 3 * (size_t)in->width;
    for (int t = 0; t < in->frames; t++)
        filter_line(&f, height, in->rgb + (size_t)t * frame_bytes(in),
                    out->rgb + (size_t)t * frame_bytes(out), row, row);
    filter_fini(&f);
}

void media_resize(MediaClip *out, const MediaClip *in, int width, int height) {
    MediaClip wide = {0};
    if (in->width != width) resize_x(&wide, in, width);
    const MediaClip *now = wide.rgb ? &wide : in;
    if (in->height != height) {
        resize_y(out, now, height);
        media_clip_fini(&wide);
    } else if (wide.rgb) {
        *out = wide;
    } else {
        make(out, in->frames, height, width);
        memcpy(out->rgb, in->rgb, (size_t)in->frames * frame_bytes(in));
    }
}

Err media_read_pixels(const char *path, int width, int height, float *out) {
    MediaClip file = {0}, sized = {0};
    TRY(media_read_image(&file, path));
    media_resize(&sized, &file, width, height);
    for (size_t i = 0; i < frame_bytes(&sized); i++) out[i] = (float)sized.rgb[i] / 255.0f;
    media_clip_fini(&file);
    media_clip_fini(&sized);
    return ERR_OK;
}

// ---- Between ----

static void quantise(MediaClip *out, const float *x, float scale, float shift) {
    size_t cnt = (size_t)out->frames * frame_bytes(out);
    for (size_t i = 0; i < cnt; i++) {
        float u = x[i] * scale + shift;
        out->rgb[i] = (uint8_t)lrintf(255 * (u > 0 ? u < 1 ? u : 1 : 0));
    }
}

void media_clip_from_raw(MediaClip *out, const float *raw, int frames, int height, int width) {
    make(out, frames, height, width);
    quantise(out, raw, 0.5f, 0.5f);
}

void media_clip_from_unit(MediaClip *out, const float *unit, int frames, int height, int width) {
    make(out, frames, height, width);
    quantise(out, unit, 1, 0);
}

// Copies one frame with its upper left corner at (x, y).
static void paste(MediaClip *out, int out_frame, const MediaClip *in, int frame, int x, int y) {
    for (int row = 0; row < in->height; row++)
        memcpy(out->rgb + (size_t)out_frame * frame_bytes(out) +
                   3 * ((size_t)(y + row) * (size_t)out->width + (size_t)x),
               in->rgb + (size_t)frame * frame_bytes(in) + 3 * (size_t)row * (size_t)in->width,
               3 * (size_t)in->width);
}

void media_sheet(MediaClip *out, const MediaClip *in, int columns) {
    enum { GAP = 2 };
    if (columns < 1) columns = (int)ceil(sqrt(in->frames));
    if (columns > in->frames) columns = in->frames;
    int rows = (in->frames + columns - 1) / columns;
    make(out, 1, rows * (in->height + GAP) - GAP, columns * (in->width + GAP) - GAP);
    for (int i = 0; i < in->frames; i++)
        paste(out, 0, in, i, i % columns * (in->width + GAP), i / columns * (in->height + GAP));
}

Err media_beside(MediaClip *out, const MediaClip *left, const MediaClip *right) {
    if (left->height != right->height)
        FAIL(ERR_SHAPE, "clips side by side are %d and %d pixels high, want the same", left->height,
             right->height);
    int frames = left->frames > right->frames ? left->frames : right->frames;
    make(out, frames, left->height, left->width + right->width);
    for (int i = 0; i < frames; i++) {
        paste(out, i, left, i < left->frames ? i : left->frames - 1, 0, 0);
        paste(out, i, right, i < right->frames ? i : right->frames - 1, left->width, 0);
    }
    return ERR_OK;
}

// ---- PNG ----

static Err check_size(const char *path, const MediaClip *c) {
    if (c->frames < 1 || c->width < 1 || c->height < 1 || c->width > MEDIA_SIDE_MAX ||
        c->height > MEDIA_SIDE_MAX)
        FAIL(ERR_SHAPE, "%s: %d frames of %d x %d, want at least one and at most %d a side", path,
             c->frames, c->width, c->height, MEDIA_SIDE_MAX);
    return ERR_OK;
}

static AVFrame *frame_new(enum AVPixelFormat format, int width, int height) {
    AVFrame *f = av_frame_alloc();
    die_unless(f, "media: out of memory");
    f->format = format;
    f->width = width;
    f->height = height;
    die_unless(av_frame_get_buffer(f, 0) >= 0, "media: out of memory for %d x %d", width, height);
    return f;
}

// One frame of RGB, a row or column repeated where f is larger.
static void fill_rgb(AVFrame *f, const MediaClip *c, int frame) {
    const uint8_t *from = c->rgb + (size_t)frame * frame_bytes(c);
    for (int y = 0; y < f->height; y++) {
        uint8_t *row = f->data[0] + (ptrdiff_t)y * f->linesize[0];
        size_t line = (size_t)(y < c->height ? y : c->height - 1) * (size_t)c->width * 3;
        memcpy(row, from + line, 3 * (size_t)c->width);
        for (int x = c->width; x < f->width; x++) memcpy(row + 3 * x, row + 3 * (x - 1), 3);
    }
}

Err media_write_png(const char *path, const MediaClip *c) {
    Err err = ERR_OK;
    AVFrame *frame = NULL;
    AVPacket *packet = av_packet_alloc();
    AVCodecContext *ctx = NULL;
    listen();
    TRY_OUT(check_size(path, c));
    const AVCodec *codec = avcodec_find_encoder(AV_CODEC_ID_PNG);
    if (!codec) FAIL_OUT(ERR_DEVICE, "%s: this libav cannot write PNG", path);
    ctx = avcodec_alloc_context3(codec);
    die_unless(packet && ctx, "media: out of memory");
    ctx->width = c->width;
    ctx->height = c->height;
    ctx->pix_fmt = AV_PIX_FMT_RGB24;
    ctx->time_base = (AVRational){1, 1};
    ctx->thread_count = 1;
    ctx->flags |= AV_CODEC_FLAG_BITEXACT;
    ctx->compression_level = 6;
    frame = frame_new(AV_PIX_FMT_RGB24, c->width, c->height);
    fill_rgb(frame, c, 0);
    int rc = avcodec_open2(ctx, codec, NULL);
    if (rc >= 0) rc = avcodec_send_frame(ctx, frame);
    if (rc >= 0) rc = avcodec_send_frame(ctx, NULL);
    if (rc >= 0) rc = avcodec_receive_packet(ctx, packet);
    if (rc < 0) FAIL_OUT(ERR_DEVICE, "%s: writing PNG: %s", path, reason(rc));
    TRY_OUT(atomic_file_put(path, packet->data, (size_t)packet->size, ATOMIC_FILE_DURABLE));
out:
    av_frame_free(&frame);
    av_packet_free(&packet);
    avcodec_free_context(&ctx);
    return err;
}

// ---- MP4 ----

typedef struct Movie {
    const char *path;
    AtomicFile file;
    AVFormatContext *mux;
    AVCodecContext *enc;
    AVStream *stream; // owned by mux
    AVFrame *rgb, *yuv;
    AVPacket *packet;
    struct SwsContext *sws;
} Movie;

static Err open_encoder(Movie *m, int width, int height, int fps) {
    static const char *const names[] = {"libx264", "libopenh264", "mpeg4"};
    const AVCodec *codec = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !codec; i++)
        codec = avcodec_find_encoder_by_name(names[i]);
    if (!codec)
        FAIL(ERR_DEVICE, "%s: this libav has no encoder for MP4 (libx264, libopenh264 or mpeg4)",
             m->path);
    AVCodecContext *e = m->enc = avcodec_alloc_context3(codec);
    die_unless(e, "media: out of memory");
    e->width = width;
    e->height = height;
    e->pix_fmt = AV_PIX_FMT_YUV420P;
    e->time_base = (AVRational){1, fps};
    e->framerate = (AVRational){fps, 1};
    e->gop_size = 12;
    e->max_b_frames = 0;
    e->thread_count = 1; // bits must not depend on the machine
    e->color_range = AVCOL_RANGE_MPEG;
    e->color_primaries = AVCOL_PRI_BT709;
    e->color_trc = AVCOL_TRC_BT709;
    e->colorspace = AVCOL_SPC_BT709;
    e->flags |= AV_CODEC_FLAG_BITEXACT | AV_CODEC_FLAG_GLOBAL_HEADER;
    e->bit_rate = (int64_t)width * height * fps / 2; // for encoders without constant quality
    if (codec->id == AV_CODEC_ID_MPEG4) {
        e->flags |= AV_CODEC_FLAG_QSCALE;
        e->global_quality = 3 * FF_QP2LAMBDA;
    } else if (e->priv_data) {
        av_opt_set(e->priv_data, "preset", "medium",
                   0); // unknown to libopenh264, which keeps its own
        av_opt_set(e->priv_data, "crf", "16", 0);
    }
    int rc = avcodec_open2(e, codec, NULL);
    if (rc < 0) FAIL(ERR_DEVICE, "%s: encoder %s: %s", m->path, codec->name, reason(rc));
    return ERR_OK;
}

static Err open_mux(Movie *m) {
    AVDictionary *options = NULL;
    int rc = avformat_alloc_output_context2(&m->mux, NULL, "mp4", m->file.tmp);
    if (rc >= 0) m->stream = avformat_new_stream(m->mux, NULL);
    if (rc < 0 || !m->stream) FAIL(ERR_DEVICE, "%s: this libav cannot write MP4", m->path);
    m->mux->flags |= AVFMT_FLAG_BITEXACT;
    m->stream->time_base = m->enc->time_base;
    m->stream->avg_frame_rate = m->enc->framerate;
    rc = avcodec_parameters_from_context(m->stream->codecpar, m->enc);
    if (rc >= 0) rc = avio_open(&m->mux->pb, m->file.tmp, AVIO_FLAG_WRITE);
    av_dict_set(&options, "movflags", "+faststart", 0);
    if (rc >= 0) rc = avformat_write_header(m->mux, &options);
    av_dict_free(&options);
    if (rc < 0) FAIL(ERR_IO, "%s: %s", m->path, reason(rc));
    return ERR_OK;
}

static Err open_converter(Movie *m, int width, int height) {
    m->rgb = frame_new(AV_PIX_FMT_RGB24, width, height);
    m->yuv = frame_new(AV_PIX_FMT_YUV420P, width, height);
    m->packet = av_packet_alloc();
    m->sws = sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, AV_PIX_FMT_YUV420P,
                            SWS_FLAGS, NULL, NULL, NULL);
    die_unless(m->sws && m->packet, "media: out of memory");
    sws_setColorspaceDetails(m->sws, sws_getCoefficients(SWS_CS_ITU601), 1,
                             sws_getCoefficients(SWS_CS_ITU709), 0, 0, 1 << 16, 1 << 16);
    return ERR_OK;
}

// frame NULL: the end.
static Err encode(Movie *m, const AVFrame *frame) {
    int rc = avcodec_send_frame(m->enc, frame);
    while (rc >= 0) {
        rc = avcodec_receive_packet(m->enc, m->packet);
        if (rc < 0) break;
        if (!m->packet->duration) m->packet->duration = 1;
        av_packet_rescale_ts(m->packet, m->enc->time_base, m->stream->time_base);
        m->packet->stream_index = m->stream->index;
        rc = av_interleaved_write_frame(m->mux, m->packet);
    }
    if (rc != AVERROR(EAGAIN) && rc != AVERROR_EOF)
        FAIL(ERR_IO, "%s: encoding: %s", m->path, reason(rc));
    return ERR_OK;
}

static Err write_frames(Movie *m, const MediaClip *c) {
    for (int i = 0; i < c->frames; i++) {
        int rc = av_frame_make_writable(m->yuv); // the encoder may hold the one before
        if (rc < 0) FAIL(ERR_MEMORY, "%s: %s", m->path, reason(rc));
        fill_rgb(m->rgb, c, i);
        sws_scale(m->sws, (const uint8_t *const *)m->rgb->data, m->rgb->linesize, 0, m->rgb->height,
                  m->yuv->data, m->yuv->linesize);
        m->yuv->pts = i;
        TRY(encode(m, m->yuv));
    }
    TRY(encode(m, NULL));
    int rc = av_write_trailer(m->mux);
    int closed = avio_closep(&m->mux->pb);
    if (rc < 0 || closed < 0) FAIL(ERR_IO, "%s: %s", m->path, reason(rc < 0 ? rc : closed));
    return ERR_OK;
}

static void movie_fini(Movie *m) {
    if (m->mux) avio_closep(&m->mux->pb);
    avformat_free_context(m->mux);
    avcodec_free_context(&m->enc);
    av_frame_free(&m->rgb);
    av_frame_free(&m->yuv);
    av_packet_free(&m->packet);
    sws_freeContext(m->sws);
    atomic_file_abandon(&m->file);
}

Err media_write_mp4(const char *path, const MediaClip *c, int fps) {
    Err err = ERR_OK;
    Movie m = {.path = path};
    int width = c->width + c->width % 2, height = c->height + c->height % 2;
    listen();
    TRY(check_size(path, c));
    if (fps < 1 || fps > 1000)
        FAIL(ERR_USAGE, "%s: %d frames per second, want 1 to 1000", path, fps);
    TRY_OUT(atomic_file_open(&m.file, path));
    TRY_OUT(open_encoder(&m, width, height, fps));
    TRY_OUT(open_mux(&m));
    TRY_OUT(open_converter(&m, width, height));
    TRY_OUT(write_frames(&m, c));
    TRY_OUT(atomic_file_commit(&m.file, ATOMIC_FILE_DURABLE));
out:
    movie_fini(&m);
    return err;
}
