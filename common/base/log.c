// log: one line built on the stack, one write.
#include "common/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"

enum { LINE_BYTES = 4096 };

// Set by log_init before other threads log.
static char process_name[64] = "vader";
static LogLevel shown = LOG_INFO;
static int file_fd = -1;

const char *log_level_name(LogLevel level) {
    static const char *const names[] = {"debug", "info", "warning", "error"};
    return (size_t)level < sizeof names / sizeof *names ? names[level] : "unknown";
}

Err log_init(const char *name, const char *path, LogLevel stderr_level) {
    int fd = -1;
    if (path) {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0) FAIL(ERR_IO, "%s: cannot open the log: %s", path, strerror(errno));
    }
    log_fini();
    snprintf(process_name, sizeof process_name, "%s", name);
    shown = stderr_level;
    file_fd = fd;
    return ERR_OK;
}

void log_fini(void) {
    if (file_fd >= 0) close(file_fd);
    file_fd = -1;
}

// Nothing can be done about a log that cannot be written.
static void put(int fd, const char *text, size_t len) {
    while (len) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        text += n;
        len -= (size_t)n;
    }
}

void log_write(LogSite *site, LogLevel level, const char *fmt, ...) {
    if (level < shown && file_fd < 0) return;
    uint32_t hit = __atomic_add_fetch(&site->hit_cnt, 1, __ATOMIC_RELAXED);
    if (level >= LOG_WARN && (hit & (hit - 1))) return; // hit is no power of two

    char line[LINE_BYTES], when[CLOCK_TEXT_BYTES];
    int stamp = snprintf(line, sizeof line, "%s ", clock_format(when, clock_wall_ns()));
    size_t len = (size_t)stamp, room = sizeof line - 1; // a newline must fit
    len += (size_t)snprintf(line + len, room - len, "%s: ", process_name);
    if (level != LOG_INFO)
        len += (size_t)snprintf(line + len, room - len, "%s: ", log_level_name(level));
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line + len, room - len, fmt, ap);
    va_end(ap);
    if (n > 0) len = len + (size_t)n < room ? len + (size_t)n : room - 1;
    while (len && line[len - 1] == '\n') len--;
    if (level >= LOG_WARN && hit > 1) {
        n = snprintf(line + len, room - len, " [%u times, %s:%d]", hit, site->file, site->line);
        if (n > 0) len = len + (size_t)n < room ? len + (size_t)n : room - 1;
    }
    line[len++] = '\n';

    if (level >= shown) {
        static const char clear[] = "\r\033[K"; // a progress line that is drawn there
        if (isatty(STDERR_FILENO)) put(STDERR_FILENO, clear, sizeof clear - 1);
        put(STDERR_FILENO, line + stamp, len - (size_t)stamp);
    }
    if (file_fd >= 0) put(file_fd, line, len);
}
