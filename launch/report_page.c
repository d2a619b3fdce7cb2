// report_page: what all sections share; report.css and report.js become part of the program here.
#include "launch/report_page.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/version.h"
#include "common/format/html.h"
#include "launch/supervisor.h"

enum { POSTER_BYTES_MAX = 4 << 20 };

#define INCLUDE_TEXT(name, file)                                                \
    extern const char name[];                                                   \
    __asm__(".pushsection .rodata\n" #name ":\n.incbin \"" file "\"\n.byte 0\n" \
            ".popsection\n")
INCLUDE_TEXT(report_page_css, "launch/report.css");
INCLUDE_TEXT(report_page_js, "launch/report.js");

// ---- Frame ----

static const char *random_word(Arena *a) {
    unsigned char r[16];
    const char *word = "";
    die_unless(getrandom(r, sizeof r, 0) == sizeof r, "report: getrandom: %s", strerror(errno));
    for (size_t i = 0; i < sizeof r; i++) word = arena_printf(a, "%s%02x", word, r[i]);
    return word;
}

void report_page_open(ReportPage *p) {
    p->nonce = random_word(&p->arena);
    strbuf_add(&p->out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    html_printf(&p->out,
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                "img-src data:; media-src data:; style-src 'unsafe-inline'; "
                "script-src 'nonce-%s'\"/>\n",
                p->nonce);
    strbuf_add(&p->out,
               "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
               "<meta name=\"color-scheme\" content=\"light dark\"/>\n");
    html_printf(&p->out,
                "<meta name=\"generator\" content=\"vader %s\"/>\n<title>%s · vader</title>\n",
                VADER_VERSION, p->d->name);
    strbuf_printf(&p->out, "<style>\n%s</style>\n</head>\n<body>\n<main>\n", report_page_css);
}

void report_page_close(ReportPage *p) {
    html_printf(&p->out, "</main>\n<script nonce=\"%s\">\n", p->nonce);
    strbuf_printf(&p->out, "%s</script>\n</body>\n</html>\n", report_page_js);
}

void report_page_fini(ReportPage *p) {
    strbuf_fini(&p->out);
    arena_free(&p->arena);
}

void report_page_section(ReportPage *p, const char *id, const char *title) {
    html_printf(&p->out, "<section id=\"%s\">\n<h2>%s</h2>\n<div class=\"body\">\n", id, title);
}

void report_page_end(ReportPage *p) { strbuf_add(&p->out, "</div>\n</section>\n"); }

void report_page_caption(ReportPage *p, const char *fmt, ...) {
    va_list ap;
    html_printf(&p->out, "<figcaption><b>Fig. %d.</b> ", ++p->figure_cnt);
    va_start(ap, fmt);
    html_vprintf(&p->out, fmt, ap);
    va_end(ap);
    strbuf_add(&p->out, "</figcaption>\n");
}

const char *report_page_real(ReportPage *p, double x) { return html_real(&p->arena, x, 3); }

// ---- Videos ----

// The whole regular file, malloc'd; NULL if it is not one, or larger than `most`. Follows no link.
static void *load(const char *path, size_t most, size_t *len) {
    struct stat st;
    void *bytes = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return NULL;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode) && (size_t)st.st_size <= most) {
        *len = (size_t)st.st_size;
        bytes = malloc(*len + 1);
        die_unless(bytes, "report: out of memory for %zu bytes", *len);
        if (read(fd, bytes, *len) != (ssize_t)*len) {
            free(bytes);
            bytes = NULL;
        }
    }
    close(fd);
    return bytes;
}

// Runs vader-tool, which can decode pictures, and says whether it succeeded. Its messages go nowhere.
static bool cut_poster(const char *sheet, const char *out, int64_t width, int64_t height) {
    char program[4096], w[24], h[24];
    posix_spawn_file_actions_t quiet;
    pid_t pid;
    int status = -1;
    if (supervisor_sibling("tool", program)) return false;
    snprintf(w, sizeof w, "%lld", (long long)width);
    snprintf(h, sizeof h, "%lld", (long long)height);
    const char *const argv[] = {program, "poster", "--width", w,     "--height",
                                h,       "--out",  out,       sheet, NULL};
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (!posix_spawn(&pid, program, &quiet, NULL, (char *const *)(uintptr_t)argv, environ))
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    posix_spawn_file_actions_destroy(&quiet);
    return !status;
}

static void add_poster(ReportPage *p, const char *sheet, bool beside) {
    char folder[] = "/tmp/vader-poster-XXXXXX", file[sizeof folder + 8];
    const Config *cfg = p->d->config;
    size_t len;
    void *png = NULL;
    if (access(sheet, R_OK) || !mkdtemp(folder)) return;
    snprintf(file, sizeof file, "%s/0.png", folder);
    if (cut_poster(sheet, file, cfg->width * (beside ? 2 : 1), cfg->height))
        png = load(file, POSTER_BYTES_MAX, &len);
    if (png) {
        strbuf_add(&p->out, " poster=\"data:image/png;base64,");
        html_base64(&p->out, png, len);
        strbuf_add_char(&p->out, '"');
    }
    free(png);
    unlink(file);
    rmdir(folder);
}

// folder/name.mp4, with nothing in it that leads elsewhere.
static bool is_within(const char *file) {
    const char *slash = strchr(file, '/'), *dot = strrchr(file, '.');
    return slash && slash > file && *file != '.' && slash[1] != '.' && !strchr(slash + 1, '/') &&
           dot > slash && !strcmp(dot, ".mp4");
}

void report_page_open_videos(ReportPage *p) { strbuf_add(&p->out, "<div class=\"clips\">\n"); }

void report_page_end_videos(ReportPage *p) {
    strbuf_add(&p->out, "</div>\n");
    if (p->video_cnt > REPORT_PAGE_VIDEOS_OPEN) strbuf_add(&p->out, "</details>\n");
}

bool report_page_video(ReportPage *p, const ReportPageVideo *v) {
    if (!is_within(v->file) || p->video_cnt == REPORT_PAGE_VIDEOS_MAX) return false;
    size_t len;
    const char *path = arena_printf(&p->arena, "%s/%s", p->d->dir, v->file);
    char *mp4 = load(path, REPORT_PAGE_VIDEO_BYTES_MAX - p->video_bytes, &len);
    if (!mp4 || len < 12 || memcmp(mp4 + 4, "ftyp", 4)) {
        free(mp4);
        return false;
    }
    StrBuf *out = &p->out;
    if (p->video_cnt == REPORT_PAGE_VIDEOS_OPEN)
        strbuf_add(out, "</div>\n<details class=\"more\">\n<summary>More videos</summary>\n"
                        "<div class=\"clips\">\n");
    strbuf_add(out, "<figure class=\"clip\">\n");
    if (v->beside)
        strbuf_add(out, "<div class=\"sides\"><span class=\"base\">base</span><span "
                        "class=\"tuned\">tuned</span></div>\n");
    html_printf(
        out,
        "<div class=\"frame%s\"><video muted=\"\" loop=\"\" autoplay=\"\" playsinline=\"\" controls=\"\" "
        "preload=\"auto\" data-fps=\"%lld\" aria-label=\"%s%s\"",
        v->beside ? " beside" : "", (long long)v->fps, v->caption,
        v->beside ? ": base on the left, tuned on the right" : "");
    add_poster(p, arena_printf(&p->arena, "%.*s.png", (int)strlen(path) - 4, path), v->beside);
    strbuf_add(out, " src=\"data:video/mp4;base64,");
    html_base64(out, mp4, len);
    html_printf(out, "\"></video></div>\n<figcaption>%s<small>%s</small></figcaption>\n</figure>\n",
                v->caption, v->note);
    free(mp4);
    p->video_cnt++;
    p->video_bytes += len;
    return true;
}
